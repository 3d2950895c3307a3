//! A product cut into tasks.

use super::tile::{Packed, PanelProduct, Widen};
use super::{
    Form, PANEL, PANEL_VECTORS, Source, TILE, call_form, lanes, lanes_mut, pack, weight_form,
};
use crate::backend::Update;
use crate::cpu::linear::inner_block;
use crate::cpu::simd::{LANES, Lanes};
use crate::cpu::threads::Rectangles;
use crate::cpu::{Cpu, Precision};

/// Packed rows of one task, in vectors: 1 MiB, half of a second-level cache.
const CHUNK_VECTORS: usize = 16 * 1024;
/// A product is cut into about this many tasks, whatever the number of threads.
const TASKS: usize = 16;
/// Up to this many rows, pairs are widened in registers instead of once a task.
const FEW_ROWS: usize = 24;
/// Longer sums of gradients are cut into parts of at most this length, so that the
/// operands of a part stay in cache.
const PART: usize = 2048;

/// The right operand, by columns of the result.
#[derive(Clone, Copy)]
pub(crate) enum Right<'a> {
    /// Packed at every call.
    Values(Source<'a>),
    /// Panels of a weight packed before.
    Panels(&'a [Lanes]),
}

/// `out[m, n] (+)= scale · Σ_k left[m, k] · right[n, k]`.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    /// `[m, n, k]`.
    pub(crate) size: [usize; 3],
    pub(crate) precision: Precision,
    pub(crate) left: Source<'a>,
    pub(crate) right: Right<'a>,
    pub(crate) scale: f32,
    pub(crate) update: Update,
}

impl Product<'_> {
    /// Computes the product into rows of width `n`.
    pub(crate) fn compute(self, cpu: &Cpu, out: &mut [f32]) {
        let [m, n, k] = self.size;
        if m == 0 || n == 0 {
            return;
        }
        let out = &mut out[..m * n];
        if k == 0 {
            if self.update == Update::Set {
                out.fill(0.0);
            }
            return;
        }
        let form = call_form(cpu, self.precision);
        let tiles = pack::tiles(cpu, self.left, (m, k), form);
        let tiles = Packed { lanes: lanes(&tiles), form };
        match self.right {
            Right::Panels(lanes) => {
                let panels = Packed { lanes, form: weight_form(self.precision) };
                Tasks::new(self, tiles, panels).run(cpu, out);
            }
            Right::Values(source) => {
                let panels = pack::panels(cpu, source, (n, k), form);
                let panels = Packed { lanes: lanes(&panels), form };
                Tasks::new(self, tiles, panels).run(cpu, out);
            }
        }
    }

    /// [`Product::compute`] in parts of the inner dimension, with a right operand that
    /// is packed at every call. For gradients only: parts end the one chain of
    /// additions that forward values keep.
    pub(crate) fn compute_in_parts(self, cpu: &Cpu, right: Source<'_>, out: &mut [f32]) {
        let [m, n, k] = self.size;
        let part = k.div_ceil(k.div_ceil(PART).max(1)).max(1).next_multiple_of(2);
        for start in (0..k.max(1)).step_by(part) {
            let product = Product {
                size: [m, n, part.min(k - start)],
                precision: self.precision,
                left: self.left.inner_from(start),
                right: Right::Values(right.inner_from(start)),
                scale: self.scale,
                update: if start == 0 { self.update } else { Update::Add },
            };
            product.compute(cpu, out);
        }
    }
}

/// A grid of tasks: chunks of rows, groups of panels.
struct Tasks<'a> {
    product: Product<'a>,
    tiles: Packed<'a>,
    panels: Packed<'a>,
    /// Tiles of a chunk.
    chunk: usize,
    /// Panels of a group.
    group: usize,
}

impl<'a> Tasks<'a> {
    fn new(product: Product<'a>, tiles: Packed<'a>, panels: Packed<'a>) -> Self {
        let [m, n, k] = product.size;
        let num_tiles = m.div_ceil(TILE);
        let most = (CHUNK_VECTORS / tiles.form.depth(k)).max(1);
        let chunks = num_tiles.div_ceil(most);
        let group = n.div_ceil(PANEL).div_ceil(TASKS.div_ceil(chunks));
        Self { product, tiles, panels, chunk: num_tiles.div_ceil(chunks), group }
    }

    fn run(&self, cpu: &Cpu, out: &mut [f32]) {
        let [m, n, _] = self.product.size;
        let out = Rectangles::new(out, m, n);
        let groups = n.div_ceil(PANEL).div_ceil(self.group);
        let chunks = m.div_ceil(TILE * self.chunk);
        cpu.threads.each(chunks * groups, |task| {
            self.task(cpu, (task / groups, task % groups), &out);
        });
    }

    fn task(&self, cpu: &Cpu, (chunk, group): (usize, usize), out: &Rectangles<'_>) {
        let [m, n, k] = self.product.size;
        let first_row = chunk * self.chunk * TILE;
        let rows = (self.chunk * TILE).min(m - first_row);
        let depth = self.tiles.form.depth(k);
        let tiles = &self.tiles.lanes[chunk * self.chunk * depth..][..rows.div_ceil(TILE) * depth];
        let widen = self.panels.form != self.tiles.form && rows > FEW_ROWS;
        let wide = PANEL_VECTORS * Form::Wide.depth(k);
        let mut widened = cpu.memory.take(if widen { wide * LANES } else { 0 });
        let size = PANEL_VECTORS * self.panels.form.depth(k);
        for index in group * self.group..((group + 1) * self.group).min(n.div_ceil(PANEL)) {
            let mut panel =
                Packed { lanes: &self.panels.lanes[index * size..][..size], ..self.panels };
            if widen {
                let to = &mut lanes_mut(&mut widened)[..wide];
                cpu.isa.run(Widen { from: panel.lanes, to });
                panel = Packed { lanes: &lanes(&widened)[..wide], form: Form::Wide };
            }
            let product = PanelProduct {
                tiles: Packed { lanes: tiles, ..self.tiles },
                panel,
                scale: self.product.scale,
                update: self.product.update,
                out,
                rows,
                first: (first_row, index * PANEL),
                block: inner_block(k),
            };
            match self.product.precision {
                Precision::F32 | Precision::Quantised => cpu.isa.run(product),
                Precision::Bf16 => cpu.multiplier.run(cpu, product),
            }
        }
    }
}
