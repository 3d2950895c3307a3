//! A flat array of `f32` on a device.
#![expect(unsafe_code, reason = "cache lines are read as the numbers they hold")]

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::cpu::Packed;
use crate::cuda::Block;

/// A cache line of numbers: vectors loaded from the start of a buffer never
/// straddle two lines.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

const LINE: usize = 16;

/// A flat array of `f32`, on the host or on a device. Dropping it returns its memory
/// to the pool it came from, because fresh memory costs more than arithmetic.
#[derive(Debug)]
pub struct Buffer {
    /// At least `len` elements.
    memory: Memory,
    len: usize,
    form: Option<Box<Form>>,
}

/// What a buffer is beside a flat array.
#[derive(Debug)]
enum Form {
    Weight(PreparedWeight),
    /// A weight in the device's own form only: it has no elements in `memory`.
    Quantised(Packed),
    /// A table of keys in groups of slots, a row for each of so many dimensions and a
    /// column for each slot.
    KeyPanels(usize),
}

/// Where the elements are.
#[derive(Debug)]
enum Memory {
    Host { data: Vec<Line>, pool: Option<Arc<Pool>> },
    Device(Block),
}

/// What a device keeps beside the values of a weight matrix `[rows, columns]`.
#[derive(Debug)]
pub(crate) struct PreparedWeight {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// The device's own form of the values; made at first use.
    pub(crate) panels: OnceLock<Buffer>,
}

impl Buffer {
    /// Holds host memory without a pool.
    #[must_use]
    pub fn from_host(data: &[f32]) -> Self {
        let lines = vec![Line([0.0; LINE]); data.len().div_ceil(LINE)];
        let memory = Memory::Host { data: lines, pool: None };
        let mut buffer = Self { len: data.len(), memory, form: None };
        buffer.host_mut().copy_from_slice(data);
        buffer
    }

    /// Elements on a device; the block has room for them.
    pub(crate) fn on_device(block: Block, len: usize) -> Self {
        Self { memory: Memory::Device(block), len, form: None }
    }

    /// A weight that stays quantised.
    pub(crate) fn from_packed(packed: Packed) -> Self {
        let len = packed.rows * packed.columns;
        let memory = Memory::Host { data: Vec::new(), pool: None };
        Self { memory, len, form: Some(Box::new(Form::Quantised(packed))) }
    }

    /// Makes the buffer a weight matrix; see
    /// [`Backend::prepare_weight`](crate::Backend::prepare_weight). A quantised weight
    /// is one already.
    pub(crate) fn prepare(&mut self, rows: usize, columns: usize) {
        assert_eq!(self.len, rows * columns, "a weight matrix has the size of its buffer");
        if !self.is_quantised() {
            let weight = PreparedWeight { rows, columns, panels: OnceLock::new() };
            self.form = Some(Box::new(Form::Weight(weight)));
        }
    }

    /// What makes the buffer a weight matrix with values, if it is one.
    pub(crate) fn weight(&self) -> Option<&PreparedWeight> {
        match self.form.as_deref()? {
            Form::Weight(weight) => Some(weight),
            Form::Quantised(_) | Form::KeyPanels(_) => None,
        }
    }

    /// The quantised weight, if the buffer is one.
    pub(crate) fn packed(&self) -> Option<&Packed> {
        match self.form.as_deref()? {
            Form::Quantised(packed) => Some(packed),
            Form::Weight(_) | Form::KeyPanels(_) => None,
        }
    }

    /// Makes host memory a table of keys of this width.
    pub(crate) fn into_key_panels(self, width: usize) -> Self {
        Self { form: Some(Box::new(Form::KeyPanels(width))), ..self }
    }

    /// Width of the keys, if the buffer is a table of such in groups of slots.
    pub(crate) fn key_panels(&self) -> Option<usize> {
        match self.form.as_deref()? {
            Form::KeyPanels(width) => Some(*width),
            Form::Weight(_) | Form::Quantised(_) => None,
        }
    }

    /// Whether the buffer is a weight that stays quantised; see
    /// [`Backend::quantised_weight`](crate::Backend::quantised_weight).
    #[must_use]
    pub fn is_quantised(&self) -> bool {
        self.packed().is_some()
    }

    /// Bytes of memory that the elements take, without other forms beside them.
    #[must_use]
    pub fn num_bytes(&self) -> usize {
        match self.packed() {
            Some(packed) => packed.num_bytes(),
            None => size_of::<f32>() * self.len,
        }
    }

    /// A quantised weight has no elements to lend.
    fn assert_dense(&self) {
        assert!(!self.is_quantised(), "a quantised weight is read by products only");
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
    ///
    /// # Panics
    /// When the buffer is a quantised weight, which has none, or lives on a device;
    /// [`Backend::download`](crate::Backend::download) brings the elements of both.
    #[must_use]
    pub fn host(&self) -> &[f32] {
        self.assert_dense();
        let Memory::Host { data, .. } = &self.memory else { elsewhere() };
        let lines = data.as_slice();
        // SAFETY: a line is its numbers and nothing else, and the lines of a buffer that
        // is not quantised hold at least `len` of them.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast::<f32>(), self.len) }
    }

    /// The elements, mutably, where the buffer lives on the host.
    ///
    /// # Panics
    /// As [`Buffer::host`].
    #[must_use]
    pub fn host_mut(&mut self) -> &mut [f32] {
        self.assert_dense();
        self.forget_panels();
        let Memory::Host { data, .. } = &mut self.memory else { elsewhere() };
        let lines = data.as_mut_slice();
        // SAFETY: as for `host`.
        unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<f32>(), self.len) }
    }
}

impl Buffer {
    /// The device memory to read.
    ///
    /// # Panics
    /// Where the buffer lives on the host: buffers of two backends were mixed.
    pub(crate) fn device(&self) -> &Block {
        let Memory::Device(block) = &self.memory else { elsewhere() };
        block
    }

    /// The device memory to write.
    pub(crate) fn device_mut(&mut self) -> &Block {
        self.forget_panels();
        self.device()
    }

    /// The values may change: what was made of them is void.
    fn forget_panels(&mut self) {
        if let Some(Form::Weight(weight)) = self.form.as_deref_mut() {
            weight.panels.take();
        }
    }
}

/// Buffers of two backends were mixed, or a test reads a device as if it were the host.
#[cold]
fn elsewhere() -> ! {
    panic!("a buffer is used where it does not live")
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Self::Host { data, pool } = self
            && let Some(pool) = pool.take()
        {
            pool.put(std::mem::take(data));
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
    free: Vec<Vec<Line>>,
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
        let mut data = found.unwrap_or_else(|| vec![Line([0.0; LINE]); class / LINE]);
        if cfg!(debug_assertions) {
            data.fill(Line([f32::NAN; LINE]));
        }
        let memory = Memory::Host { data, pool: Some(Arc::clone(self)) };
        Buffer { memory, len, form: None }
    }

    fn put(&self, data: Vec<Line>) {
        self.state().put(data);
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        // A panic elsewhere cannot leave the lists inconsistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PoolState {
    fn take(&mut self, class: usize) -> Option<Vec<Line>> {
        let found = self.best_fit(class);
        let class = found.map_or(class, |n| LINE * self.free[n].len());
        self.lent_elements += class;
        self.most_lent = self.most_lent.max(self.lent_elements);
        self.free_elements -= found.map_or(0, |_| class);
        found.map(|n| self.free.remove(n))
    }

    /// The smallest free array that holds `class` elements, the most recently returned
    /// among equals. Batches of slightly different sizes follow each other: memory of
    /// the last one is better than fresh pages, unless most of it would lie idle.
    fn best_fit(&self, class: usize) -> Option<usize> {
        let fits = class..=class + class / 2;
        let sizes = self.free.iter().map(|data| LINE * data.len()).enumerate().rev();
        sizes.filter(|(_, size)| fits.contains(size)).min_by_key(|&(_, size)| size).map(|(n, _)| n)
    }

    /// Keeps the array, and lets go of those unused for longest: free memory is
    /// never more than was ever in use at once.
    fn put(&mut self, data: Vec<Line>) {
        self.lent_elements = self.lent_elements.saturating_sub(LINE * data.len());
        self.free_elements += LINE * data.len();
        self.free.push(data);
        let mut excess = 0;
        while self.free_elements > self.most_lent && excess < self.free.len() {
            self.free_elements -= LINE * self.free[excess].len();
            excess += 1;
        }
        self.free.drain(..excess);
    }
}

/// Sizes are rounded up to eighths of a power of two, so that nearly equal
/// requests share memory, and to whole lines.
pub(crate) fn size_class(len: usize) -> usize {
    let len = len.max(64);
    let step = (len.next_power_of_two() / 16).max(LINE);
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
            assert!(
                class >= len && class <= len.max(64) + len.max(64) / 8 + LINE,
                "{len}: {class}"
            );
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
    fn a_little_larger_memory_is_reused_and_much_larger_is_not() {
        let pool = Arc::new(Pool::default());
        let (large, fitting) = (pool.take(1500), pool.take(1000));
        let at = [&large, &fitting].map(|buffer| buffer.host().as_ptr());
        drop((fitting, large));
        let reused = [pool.take(980), pool.take(1010)];
        assert_eq!([at[1], at[0]], [&reused[0], &reused[1]].map(|buffer| buffer.host().as_ptr()));
        assert_eq!(reused[1].len(), 1010);
        drop(reused);
        assert_eq!(pool.state().lent_elements, 0);
        let small = pool.take(500);
        assert!(!at.contains(&small.host().as_ptr()));
        drop(small);
        assert_eq!(pool.state().lent_elements, 0);
    }

    #[test]
    fn free_memory_never_exceeds_what_was_in_use() {
        let pool = Arc::new(Pool::default());
        for len in (100..100_000).step_by(777) {
            drop(pool.take(len));
            let state = pool.state();
            assert!(state.free_elements <= state.most_lent);
            let sum: usize = state.free.iter().map(|data| LINE * data.len()).sum();
            assert_eq!(sum, state.free_elements);
        }
    }

    #[test]
    fn host_memory_needs_no_pool() {
        let mut buffer = Buffer::from_host(&[1.0, 2.0]);
        buffer.host_mut()[0] = 3.0;
        assert_eq!(buffer.host(), [3.0, 2.0]);
    }
}
