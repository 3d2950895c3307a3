//! Keys and values of generated and prompt tokens, and which slots are free.

use std::ops::Range;

use patarm_kernels::{Backend, Buffer, SLOTS_TOGETHER, Span};

use crate::shape::DecoderShape;

/// Slots of one owner, in the order of its tokens, wherever they lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// Neither empty nor continuing each other.
    spans: Vec<Span>,
}

impl Slots {
    /// Number of slots.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.iter().map(|span| span.len).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    fn push(&mut self, span: Span) {
        match self.spans.last_mut() {
            Some(last) if last.slot + last.len == span.slot => last.len += span.len,
            _ if span.len == 0 => {}
            _ => self.spans.push(span),
        }
    }

    /// Puts other slots behind these.
    pub fn append(&mut self, other: Self) {
        other.spans.into_iter().for_each(|span| self.push(span));
    }

    /// The slots of tokens `range`, as spans.
    ///
    /// # Panics
    /// When there are fewer slots.
    #[must_use]
    pub fn spans(&self, range: Range<usize>) -> Vec<Span> {
        assert!(range.end <= self.len(), "a token has a slot");
        let mut first = 0;
        let parts = self.spans.iter().filter_map(|span| {
            let (from, to) = (range.start.max(first), range.end.min(first + span.len));
            let slot = span.slot + from.saturating_sub(first);
            first += span.len;
            (from < to).then(|| Span { slot, len: to - from })
        });
        parts.collect()
    }

    /// The slots of tokens `range`, one by one, as a cached forward takes them.
    ///
    /// # Panics
    /// When there are fewer slots.
    pub(crate) fn numbers(&self, range: Range<usize>) -> impl Iterator<Item = u32> {
        let spans = self.spans(range).into_iter();
        spans.flat_map(|span| (span.slot..span.slot + span.len).map(|slot| slot as u32))
    }
}

/// Keys and values of every layer, `[slots, kv_heads, head_dim]` each, and which slots are
/// free: owners need no contiguous ones, so that nothing is lost between them.
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

    /// Takes `len` slots: contiguous ones where there are any, else from several places.
    /// `None` only where fewer are free.
    pub fn take(&mut self, len: usize) -> Option<Slots> {
        if self.num_free() < len {
            return None;
        }
        let mut taken = Slots::default();
        if let Some(index) = self.free.iter().position(|span| span.len >= len) {
            taken.push(self.take_from(index, len));
        }
        while taken.len() < len {
            let wanted = len - taken.len();
            taken.push(self.take_from(0, wanted));
        }
        Some(taken)
    }

    /// Takes at most `len` slots from the front of a free span.
    fn take_from(&mut self, index: usize, len: usize) -> Span {
        let span = &mut self.free[index];
        let taken = Span { slot: span.slot, len: len.min(span.len) };
        span.slot += taken.len;
        span.len -= taken.len;
        if span.len == 0 {
            self.free.remove(index);
        }
        taken
    }

    /// Gives slots back, merging neighbours.
    pub fn give_back(&mut self, slots: Slots) {
        slots.spans.into_iter().for_each(|span| self.give_back_span(span));
    }

    fn give_back_span(&mut self, span: Span) {
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

    fn spans(pairs: &[(usize, usize)]) -> Vec<Span> {
        pairs.iter().map(|&(slot, len)| Span { slot, len }).collect()
    }

    #[test]
    fn slots_given_back_in_any_order_become_one_span_again() {
        let mut cache = cache(10);
        let mut taken: Vec<Slots> = [3, 2, 4].iter().filter_map(|len| cache.take(*len)).collect();
        assert_eq!(cache.num_free(), 1);
        assert_eq!(cache.take(2), None);
        for index in [1, 0, 0] {
            cache.give_back(taken.remove(index));
        }
        assert_eq!(cache.free, spans(&[(0, 10)]));
    }

    #[test]
    fn what_is_free_in_several_places_is_taken_as_one() {
        let mut cache = cache(12);
        let [first, second, third] = [2, 3, 2].map(|len| cache.take(len).expect("room"));
        cache.give_back(first);
        cache.give_back(third);
        // Free: 0..2, 5..12.
        let whole = cache.take(6).expect("room");
        assert_eq!(whole.spans(0..6), spans(&[(5, 6)]), "contiguous where possible");
        let parts = cache.take(3).expect("room");
        assert_eq!(parts.spans(0..3), spans(&[(0, 2), (11, 1)]));
        assert_eq!(parts.spans(1..3), spans(&[(1, 1), (11, 1)]));
        assert_eq!(parts.numbers(0..3).collect::<Vec<_>>(), [0, 1, 11]);
        assert!(parts.spans(1..1).is_empty());
        for slots in [second, whole, parts] {
            cache.give_back(slots);
        }
        assert_eq!(cache.free, spans(&[(0, 12)]));
    }

    #[test]
    fn slots_that_continue_each_other_are_one_span() {
        let mut cache = cache(8);
        let mut slots = cache.take(3).expect("room");
        slots.append(cache.take(2).expect("room"));
        slots.append(cache.take(0).expect("nothing"));
        assert_eq!((slots.len(), slots.spans(0..5)), (5, spans(&[(0, 5)])));
        assert!(cache.take(0).is_some_and(|none| none.is_empty()));
    }
}
