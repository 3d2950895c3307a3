//! A flat array of `f32` on a device.

use std::sync::{Arc, Mutex};

/// A flat array of `f32`. Dropping it returns its memory to the pool it came
/// from, because fresh pages cost more than arithmetic.
#[derive(Debug)]
pub struct Buffer {
    data: Vec<f32>,
    pool: Option<Arc<Pool>>,
}

impl Buffer {
    /// Wraps host memory without a pool.
    #[must_use]
    pub fn from_host(data: Vec<f32>) -> Self {
        Self { data, pool: None }
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether the buffer has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The elements, where the buffer lives on the host.
    #[must_use]
    pub fn host(&self) -> &[f32] {
        &self.data
    }

    /// The elements, mutably, where the buffer lives on the host.
    #[must_use]
    pub fn host_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.put(std::mem::take(&mut self.data));
        }
    }
}

/// Free memory by capacity class.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    free: Mutex<Vec<Vec<f32>>>,
}

impl Pool {
    /// Takes a buffer of `len` elements with unspecified contents.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Buffer {
        let mut data = self.best_fit(len).unwrap_or_else(|| Vec::with_capacity(size_class(len)));
        if data.len() < len {
            data.resize(len, f32::NAN);
        }
        data.truncate(len);
        if cfg!(debug_assertions) {
            data.fill(f32::NAN);
        }
        Buffer { data, pool: Some(Arc::clone(self)) }
    }

    fn best_fit(&self, len: usize) -> Option<Vec<f32>> {
        let class = size_class(len);
        let mut free = self.free.lock().ok()?;
        let found = free.iter().rposition(|data| data.capacity() == class)?;
        Some(free.swap_remove(found))
    }

    fn put(&self, data: Vec<f32>) {
        if let Ok(mut free) = self.free.lock()
            && data.capacity() == size_class(data.capacity())
        {
            free.push(data);
        }
    }
}

/// Capacities are rounded up to eighths of a power of two, so that nearly equal
/// requests share memory.
fn size_class(len: usize) -> usize {
    let len = len.max(64);
    let step = (len.next_power_of_two() / 16).max(1);
    len.div_ceil(step) * step
}
