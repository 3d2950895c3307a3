//! Keys and values of generated and prompt tokens, and which slots are free.

use patarm_kernels::{Backend, Buffer, SLOTS_TOGETHER, Span};

use crate::shape::DecoderShape;

/// Keys and values of every layer, `[slots, kv_heads, head_dim]` each, with a
/// first-fit allocator of contiguous slots.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<(Buffer, Buffer)>,
    free: Vec<Span>,
    capacity: usize,
}

impl KvCache {
    /// A cache of `capacity` slots.
    #[must_use]
    pub fn new(backend: &dyn Backend, shape: &DecoderShape, capacity: usize) -> Self {
        let (slots, width) = (capacity.next_multiple_of(SLOTS_TOGETHER), shape.key_width());
        let layer = |_| {
            let keys = backend.key_table(slots, width, shape.head_dim);
            (keys, backend.alloc(slots * width))
        };
        let layers = (0..shape.layers).map(layer).collect();
        Self { layers, free: vec![Span { slot: 0, len: capacity }], capacity }
    }

    /// Number of slots.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Free slots, contiguous or not.
    #[must_use]
    pub fn num_free(&self) -> usize {
        self.free.iter().map(|span| span.len).sum()
    }

    /// Takes `len` contiguous slots, where there are any.
    pub fn take(&mut self, len: usize) -> Option<Span> {
        let index = self.free.iter().position(|span| span.len >= len)?;
        let span = &mut self.free[index];
        let taken = Span { slot: span.slot, len };
        span.slot += len;
        span.len -= len;
        if span.len == 0 {
            self.free.remove(index);
        }
        Some(taken)
    }

    /// Gives slots back, merging neighbours.
    pub fn give_back(&mut self, span: Span) {
        if span.len == 0 {
            return;
        }
        let index = self.free.partition_point(|other| other.slot < span.slot);
        self.free.insert(index, span);
        if index + 1 < self.free.len() && span.slot + span.len == self.free[index + 1].slot {
            self.free[index].len += self.free.remove(index + 1).len;
        }
        if index > 0
            && self.free[index - 1].slot + self.free[index - 1].len == self.free[index].slot
        {
            self.free[index - 1].len += self.free.remove(index).len;
        }
    }

    pub(crate) fn layer(&mut self, layer: usize) -> (&mut Buffer, &mut Buffer) {
        let (keys, values) = &mut self.layers[layer];
        (keys, values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(capacity: usize) -> KvCache {
        KvCache { layers: Vec::new(), free: vec![Span { slot: 0, len: capacity }], capacity }
    }

    #[test]
    fn slots_given_back_in_any_order_become_one_span_again() {
        let mut cache = cache(10);
        let spans: Vec<Span> = [3, 2, 4].iter().filter_map(|len| cache.take(*len)).collect();
        assert_eq!(cache.num_free(), 1);
        assert_eq!(cache.take(2), None);
        for index in [1, 0, 2] {
            cache.give_back(spans[index]);
        }
        assert_eq!(cache.free, [Span { slot: 0, len: 10 }]);
    }
}
