//! A flat array of `f32` on a device.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A flat array of `f32`. Dropping it returns its memory to the pool it came
/// from, because fresh pages cost more than arithmetic.
#[derive(Debug)]
pub struct Buffer {
    /// At least `len` elements.
    data: Vec<f32>,
    len: usize,
    pool: Option<Arc<Pool>>,
}

impl Buffer {
    /// Wraps host memory without a pool.
    #[must_use]
    pub fn from_host(data: Vec<f32>) -> Self {
        Self { len: data.len(), data, pool: None }
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the buffer has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements, where the buffer lives on the host.
    #[must_use]
    pub fn host(&self) -> &[f32] {
        &self.data[..self.len]
    }

    /// The elements, mutably, where the buffer lives on the host.
    #[must_use]
    pub fn host_mut(&mut self) -> &mut [f32] {
        &mut self.data[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.put(std::mem::take(&mut self.data));
        }
    }
}

/// Free memory. An array's length is its size class, so that a reused one needs
/// no initialisation.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    state: Mutex<PoolState>,
}

#[derive(Debug, Default)]
struct PoolState {
    /// The most recently returned last.
    free: Vec<Vec<f32>>,
    free_elements: usize,
    lent_elements: usize,
    most_lent: usize,
}

impl Pool {
    /// Takes a buffer of `len` elements with unspecified contents: NaN in debug
    /// builds, so that a read before the first write is seen.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Buffer {
        let class = size_class(len);
        let found = self.state().take(class);
        let mut data = found.unwrap_or_else(|| vec![0.0; class]);
        if cfg!(debug_assertions) {
            data.fill(f32::NAN);
        }
        Buffer { data, len, pool: Some(Arc::clone(self)) }
    }

    fn put(&self, data: Vec<f32>) {
        self.state().put(data);
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        // A panic elsewhere cannot leave the lists inconsistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PoolState {
    fn take(&mut self, class: usize) -> Option<Vec<f32>> {
        self.lent_elements += class;
        self.most_lent = self.most_lent.max(self.lent_elements);
        let found = self.free.iter().rposition(|data| data.len() == class)?;
        self.free_elements -= class;
        Some(self.free.remove(found))
    }

    /// Keeps the array, and lets go of those unused for longest: free memory is
    /// never more than was ever in use at once.
    fn put(&mut self, data: Vec<f32>) {
        self.lent_elements = self.lent_elements.saturating_sub(data.len());
        self.free_elements += data.len();
        self.free.push(data);
        let mut excess = 0;
        while self.free_elements > self.most_lent && excess < self.free.len() {
            self.free_elements -= self.free[excess].len();
            excess += 1;
        }
        self.free.drain(..excess);
    }
}

/// Sizes are rounded up to eighths of a power of two, so that nearly equal
/// requests share memory.
fn size_class(len: usize) -> usize {
    let len = len.max(64);
    let step = len.next_power_of_two() / 16;
    len.div_ceil(step) * step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_class_is_its_own_class_and_wastes_an_eighth_at_most() {
        for len in (0..5000).chain([1 << 20, (1 << 20) + 1, 12_345_678]) {
            let class = size_class(len);
            assert_eq!(size_class(class), class, "{len}");
            assert!(class >= len && class <= len.max(64) + len.max(64) / 8 + 1, "{len}: {class}");
        }
    }

    #[test]
    fn memory_is_reused_and_has_the_length_asked_for() {
        let pool = Arc::new(Pool::default());
        let first = pool.take(1000);
        let at = first.host().as_ptr();
        drop(first);
        let second = pool.take(990);
        assert_eq!((second.len(), second.host().as_ptr()), (990, at));
        let third = pool.take(1000);
        assert_ne!(third.host().as_ptr(), at);
        assert!(pool.take(0).is_empty());
    }

    #[test]
    fn free_memory_never_exceeds_what_was_in_use() {
        let pool = Arc::new(Pool::default());
        for len in (100..100_000).step_by(777) {
            drop(pool.take(len));
            let state = pool.state();
            assert!(state.free_elements <= state.most_lent);
            let sum: usize = state.free.iter().map(Vec::len).sum();
            assert_eq!(sum, state.free_elements);
        }
    }

    #[test]
    fn host_memory_needs_no_pool() {
        let mut buffer = Buffer::from_host(vec![1.0, 2.0]);
        buffer.host_mut()[0] = 3.0;
        assert_eq!(buffer.host(), [3.0, 2.0]);
    }
}
