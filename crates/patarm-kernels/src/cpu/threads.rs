//! Work shared among threads without the result depending on how many there are.
//!
//! A piece of work is a number; what a piece covers is fixed by the caller's
//! shapes alone. Threads only decide who computes a piece and when.
#![expect(unsafe_code, reason = "threads write disjoint parts of one slice")]

use std::marker::PhantomData;

use rayon::prelude::*;

/// Pieces of elementwise work hold this many elements.
pub(crate) const ELEMENTS: usize = 8 * 1024;

/// The threads of one backend.
#[derive(Debug)]
pub(crate) struct Threads {
    /// `None`: everything runs on the calling thread.
    pool: Option<rayon::ThreadPool>,
    count: usize,
}

impl Threads {
    /// `count` threads; 0 stands for one per core. Where the system grants no
    /// threads, the calling thread does the work.
    pub(crate) fn new(count: usize) -> Self {
        let count = match count {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let pool = (count > 1)
            .then(|| rayon::ThreadPoolBuilder::new().num_threads(count).build().ok())
            .flatten();
        let count = if pool.is_some() { count } else { 1 };
        Self { pool, count }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Runs `work` on one of the threads, so that what it spawns stays there.
    pub(crate) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Calls `work` once for every number below `pieces`.
    pub(crate) fn each(&self, pieces: usize, work: impl Fn(usize) + Sync + Send) {
        if pieces < 2 || self.pool.is_none() {
            (0..pieces).for_each(work);
        } else {
            self.install(|| (0..pieces).into_par_iter().with_max_len(1).for_each(work));
        }
    }

    /// Calls `work` with the number and the elements of every chunk.
    pub(crate) fn each_chunk<T: Send>(
        &self,
        data: &mut [T],
        chunk: usize,
        work: impl Fn(usize, &mut [T]) + Sync + Send,
    ) {
        let pieces = data.len().div_ceil(chunk.max(1));
        let data = Parts::new(data, chunk);
        // SAFETY: every piece is visited once.
        self.each(pieces, |n| work(n, unsafe { data.part(n) }));
    }

    /// [`Threads::each_chunk`] of two slices at once. `work` is called once per
    /// chunk of the first; where the second ends early its part is empty.
    pub(crate) fn each_chunk_of_two(
        &self,
        (first, first_chunk): (&mut [f32], usize),
        (second, second_chunk): (&mut [f32], usize),
        work: impl Fn(usize, &mut [f32], &mut [f32]) + Sync + Send,
    ) {
        let pieces = first.len().div_ceil(first_chunk.max(1));
        let (first, second) = (Parts::new(first, first_chunk), Parts::new(second, second_chunk));
        // SAFETY: every piece is visited once.
        self.each(pieces, |n| unsafe { work(n, first.part(n), second.part(n)) });
    }
}

/// A slice cut into chunks that different threads may write.
pub(crate) struct Parts<'a, T> {
    data: *mut T,
    len: usize,
    chunk: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: a part is reached by one thread at a time, by the contract of `part`.
unsafe impl<T: Send> Sync for Parts<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(crate) fn new(data: &'a mut [T], chunk: usize) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len(), chunk, lifetime: PhantomData }
    }

    /// The `n`-th chunk; shorter or empty at the end.
    ///
    /// # Safety
    /// No two live borrows may be of the same part.
    #[expect(clippy::mut_from_ref, reason = "parts are disjoint; the caller takes each once")]
    pub(crate) unsafe fn part(&self, n: usize) -> &mut [T] {
        let start = n.saturating_mul(self.chunk).min(self.len);
        let len = self.chunk.min(self.len - start);
        // SAFETY: `start + len` is within the slice that was borrowed for `'a`.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }
}

/// A matrix of rows of which different threads may write different rectangles.
pub(crate) struct Rectangles<'a> {
    data: *mut f32,
    rows: usize,
    columns: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: an element is reached by one thread at a time, by the contract of `row`.
unsafe impl Sync for Rectangles<'_> {}
// SAFETY: as above.
unsafe impl Send for Rectangles<'_> {}

impl<'a> Rectangles<'a> {
    pub(crate) fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a matrix has the size of its slice");
        Self { data: data.as_mut_ptr(), rows, columns, lifetime: PhantomData }
    }

    /// Up to `len` elements of a row from a column on.
    ///
    /// # Safety
    /// No two live borrows may share an element.
    #[expect(clippy::mut_from_ref, reason = "rectangles are disjoint; a caller keeps to its own")]
    #[inline(always)]
    pub(crate) unsafe fn row(&self, row: usize, column: usize, len: usize) -> &mut [f32] {
        assert!(row < self.rows && column <= self.columns, "a rectangle lies in its matrix");
        let len = len.min(self.columns - column);
        // SAFETY: the elements are those of a row of the slice borrowed for `'a`.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.columns + column), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_visited_once_on_any_number_of_threads() {
        for count in [1, 2, 5] {
            let threads = Threads::new(count);
            let mut data = vec![0.0; 1003];
            threads.each_chunk(&mut data, 10, |n, part| {
                part.iter_mut().for_each(|x| *x += n as f32 + 1.0);
            });
            assert!(data.iter().enumerate().all(|(n, &x)| x == (n / 10) as f32 + 1.0));
        }
    }

    #[test]
    fn a_short_second_slice_gives_empty_parts() {
        let (mut first, mut second) = (vec![0.0; 9], vec![0.0; 2]);
        Threads::new(2).each_chunk_of_two((&mut first, 3), (&mut second, 1), |n, a, b| {
            a[0] = b.len() as f32;
            b.iter_mut().for_each(|x| *x = n as f32);
        });
        assert_eq!((first[0], first[3], first[6]), (1.0, 1.0, 0.0));
        assert_eq!(second, [0.0, 1.0]);
    }

    #[test]
    fn nothing_to_do_is_fine() {
        Threads::new(2).each_chunk::<f32>(&mut [], 0, |_, _| panic!("no chunk"));
    }
}
