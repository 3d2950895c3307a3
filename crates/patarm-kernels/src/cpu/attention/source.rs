//! Where a tile finds the keys and values of a block.
//!
//! Tables of rows are *gathered*: copied into panels that many queries share. Tables of a
//! cache are read *in place*: keys lie across already, and one query behind each of them
//! would not repay a copy.

use super::tile::{self, Asked, BlockSlots, GROUP, HeadView, KEY_PANELS, Panels, Stretch, WIDE};
use crate::attention_plan::{AttentionShape, QueryRun};
use crate::cpu::simd::{LANES, Lanes, Simd};

/// Keys and values of one key head, block by block.
pub(super) trait BlockSource {
    /// Turns to block `block` of `run`.
    fn turn_to<S: Simd>(&mut self, simd: S, run: &QueryRun, block: usize);

    /// Products of the rows with the first `seen` keys of the block, times `scale`, in
    /// position order. What follows them is unspecified.
    fn scores<S: Simd>(
        &mut self,
        simd: S,
        rows_and_scale: ([&[f32]; GROUP], S::V),
        seen: usize,
        to: &mut [[Lanes; KEY_PANELS]; GROUP],
    );

    /// Adds the values of the first keys of the block, as many as there are weights, each
    /// times its weight, to `to[r · panels + p]`.
    fn add_values<S: Simd>(&mut self, simd: S, weights: [&[f32]; GROUP], to: &mut [Lanes]);
}

/// Blocks copied from tables of rows.
pub(super) struct Gathered<'a> {
    tables: [&'a [f32]; 2],
    head: HeadView,
    /// What the panels hold.
    slots: BlockSlots,
    keys: Vec<Lanes>,
    values: Vec<Lanes>,
}

impl<'a> Gathered<'a> {
    /// `tables`: keys and values.
    pub(super) fn new(tables: [&'a [f32]; 2], head: HeadView) -> Self {
        Self {
            tables,
            head,
            slots: BlockSlots::empty(),
            keys: vec![[0.0; LANES]; KEY_PANELS * tile::across_rows(head.dim)],
            values: vec![[0.0; LANES]; tile::dim_panels(head.dim) * tile::ALONG_ROWS],
        }
    }
}

impl BlockSource for Gathered<'_> {
    #[inline(always)]
    fn turn_to<S: Simd>(&mut self, simd: S, run: &QueryRun, block: usize) {
        let slots = BlockSlots::of(run, block);
        // Neighbours in a tree share their first blocks.
        if slots.as_slice() != self.slots.as_slice() {
            let [keys, values] = self.tables;
            tile::gather_across(simd, keys, slots.as_slice(), &self.head, &mut self.keys);
            tile::gather_along(values, slots.as_slice(), &self.head, &mut self.values);
            self.slots = slots;
        }
    }

    #[inline(always)]
    fn scores<S: Simd>(
        &mut self,
        simd: S,
        rows_and_scale: ([&[f32]; GROUP], S::V),
        seen: usize,
        to: &mut [[Lanes; KEY_PANELS]; GROUP],
    ) {
        let height = tile::across_rows(self.head.dim);
        let keys = Panels::new(&self.keys, height, seen.div_ceil(LANES));
        keys.multiply(simd, rows_and_scale, to);
    }

    #[inline(always)]
    fn add_values<S: Simd>(&mut self, simd: S, weights: [&[f32]; GROUP], to: &mut [Lanes]) {
        let count = tile::dim_panels(self.head.dim);
        Panels::new(&self.values, tile::ALONG_ROWS, count).accumulate(simd, weights, to);
    }
}

/// Blocks read where a cache holds them.
pub(super) struct InPlace<'a> {
    /// Keys in groups of slots, a row for every dimension of every head.
    keys: &'a [Lanes],
    /// Values, whole vectors a row.
    values: &'a [Lanes],
    head: HeadView,
    kv_heads: usize,
    stretches: Vec<Stretch>,
    /// Slot and key head of the keys that will be wanted next.
    next: Option<(usize, usize)>,
    /// Whether this block is new: nobody has asked for what follows it.
    fresh: bool,
}

impl<'a> InPlace<'a> {
    /// `tables`: keys as [`Backend::key_table`](crate::Backend::key_table) holds them, and
    /// values in rows.
    pub(super) fn new(tables: [&'a [f32]; 2], shape: AttentionShape, kv_head: usize) -> Self {
        Self {
            keys: tables[0].as_chunks().0,
            values: tables[1].as_chunks().0,
            head: HeadView::new(shape, kv_head),
            kv_heads: shape.kv_heads,
            stretches: Vec::new(),
            next: None,
            fresh: true,
        }
    }

    /// Where the group of a slot begins for a key head; and from one group to the next.
    fn keys_at(&self, slot: usize, kv_head: usize) -> (usize, usize) {
        let stride = self.kv_heads * self.head.dim;
        (slot / LANES * stride + kv_head * self.head.dim, stride)
    }

    /// Where the values of a slot begin; and from one slot to the next.
    fn values_at(&self, slot: usize) -> (usize, usize) {
        let count = self.value_vectors();
        let stride = self.kv_heads * count;
        (slot * stride + self.head.kv_head * count, stride)
    }

    /// Vectors of the values of one head.
    fn value_vectors(&self) -> usize {
        tile::dim_panels(self.head.dim)
    }

    /// The values of a stretch.
    fn values_of(&self, &Stretch { slot, len, .. }: &Stretch) -> Asked {
        let (start, stride) = self.values_at(slot);
        Asked {
            start: self.values.as_ptr().wrapping_add(start),
            strides: (stride, 1),
            counts: (len, self.value_vectors().min(WIDE)),
        }
    }

    /// The first keys of what will be wanted next.
    fn next_keys(&self) -> Asked {
        let Some((slot, kv_head)) = self.next else {
            return Asked::NOTHING;
        };
        let (start, stride) = self.keys_at(slot, kv_head);
        Asked {
            start: self.keys.as_ptr().wrapping_add(start),
            strides: (1, stride),
            counts: (self.head.dim, WIDE),
        }
    }
}

impl BlockSource for InPlace<'_> {
    #[inline(always)]
    fn turn_to<S: Simd>(&mut self, _simd: S, run: &QueryRun, block: usize) {
        self.stretches.clear();
        self.fresh = true;
        self.stretches.extend(tile::stretches(run, block));
        let (following, first) =
            (tile::stretches(run, block + 1).next(), tile::stretches(run, 0).next());
        self.next = match following {
            Some(stretch) => Some((stretch.slot, self.head.kv_head)),
            None => first.map(|stretch| (stretch.slot, self.head.kv_head + 1)),
        };
    }

    #[inline(always)]
    fn scores<S: Simd>(
        &mut self,
        simd: S,
        rows_and_scale: ([&[f32]; GROUP], S::V),
        seen: usize,
        to: &mut [[Lanes; KEY_PANELS]; GROUP],
    ) {
        for &stretch in &self.stretches {
            let Stretch { slot, key, len } = stretch;
            if key >= seen {
                break;
            }
            let (len, lead) = (len.min(seen - key), slot % LANES);
            let (start, stride) = self.keys_at(slot, self.head.kv_head);
            let panels = Panels {
                data: &self.keys[start..],
                height: self.head.dim,
                stride,
                count: (lead + len).div_ceil(LANES),
            };
            // Slots before the stretch and after it fill the vectors.
            let mut found = [[[0.0; LANES]; KEY_PANELS + 1]; GROUP];
            let asked = if self.fresh { self.values_of(&stretch) } else { Asked::NOTHING };
            panels.multiply_asking(simd, asked, rows_and_scale, &mut found);
            for r in 0..GROUP {
                let found = &found[r].as_flattened()[lead..][..len];
                to[r].as_flattened_mut()[key..][..len].copy_from_slice(found);
            }
        }
    }

    #[inline(always)]
    fn add_values<S: Simd>(&mut self, simd: S, weights: [&[f32]; GROUP], to: &mut [Lanes]) {
        let (count, seen) = (self.value_vectors(), weights[0].len());
        let mut asked = if self.fresh { self.next_keys() } else { Asked::NOTHING };
        self.fresh = false;
        for &Stretch { slot, key, len } in &self.stretches {
            if key >= seen {
                break;
            }
            let len = len.min(seen - key);
            let mut part: [&[f32]; GROUP] = [&[]; GROUP];
            for r in 0..GROUP {
                part[r] = &weights[r][key..][..len];
            }
            let (start, stride) = self.values_at(slot);
            let values = tile::Rows { data: &self.values[start..], stride, count };
            values.accumulate(simd, asked, part, to);
            asked = Asked::NOTHING;
        }
    }
}
