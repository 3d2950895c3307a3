//! A product cut into tasks.

use std::ops::Range;

use super::activations::{self, TILE};
use super::tile::StripProduct;
use super::{LANES, Packed};
use crate::backend::Update;
use crate::cpu::linear::{self, Matrix};
use crate::cpu::threads::Rectangles;
use crate::cpu::{Cpu, Precision};

/// Rounded rows of one task, in numbers: 1 MiB, half of a second-level cache.
const CHUNK: usize = 256 * 1024;
/// A product is cut into about this many tasks, whatever the number of threads.
const TASKS: usize = 16;
/// Products with fewer multiplications than this stay on the calling thread.
const PARALLEL_WORK: usize = 1 << 21;

/// `out[t, o] (+)= scale · x[t, i] · weight[o, i]ᵀ` for some rows `o` of the weight.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    /// `[tokens, weight.columns]`.
    pub(crate) x: &'a [f32],
    pub(crate) weight: &'a Packed,
    pub(crate) scale: f32,
    pub(crate) update: Update,
}

impl Product<'_> {
    /// Computes the product into rows as wide as `outputs`, a range of rows of the
    /// weight that starts with a strip.
    pub(crate) fn compute(self, cpu: &Cpu, outputs: Range<usize>, out: &mut [f32]) {
        assert!(outputs.start.is_multiple_of(LANES), "a range of outputs starts with a strip");
        assert!(outputs.end <= self.weight.rows, "a weight has the outputs asked for");
        let tokens = self.x.len() / self.weight.columns;
        if tokens == 0 || outputs.is_empty() {
            return;
        }
        let rounded = activations::round(cpu, self.x, tokens, self.weight);
        let tasks = Tasks::new(self, (tokens, outputs), rounded.host());
        tasks.run(cpu, &mut out[..tokens * tasks.outputs.len()]);
    }
}

/// A grid of tasks: chunks of rows, groups of strips.
struct Tasks<'a> {
    product: Product<'a>,
    tokens: usize,
    outputs: Range<usize>,
    tiles: &'a [f32],
    /// Numbers of a tile.
    tile: usize,
    /// Tiles of a chunk.
    chunk: usize,
    /// Strips of a group.
    group: usize,
}

impl<'a> Tasks<'a> {
    fn new(
        product: Product<'a>,
        (tokens, outputs): (usize, Range<usize>),
        tiles: &'a [f32],
    ) -> Self {
        let num_tiles = tokens.div_ceil(TILE);
        let tile = tiles.len() / num_tiles;
        let chunks = num_tiles.div_ceil((CHUNK / tile).max(1));
        let strips = outputs.len().div_ceil(LANES);
        let group = match tokens * outputs.len() * product.weight.columns {
            few if few < PARALLEL_WORK => strips,
            _ => strips.div_ceil(TASKS.div_ceil(chunks)),
        };
        Self { product, tokens, outputs, tiles, tile, chunk: num_tiles.div_ceil(chunks), group }
    }

    fn run(&self, cpu: &Cpu, out: &mut [f32]) {
        let out = Rectangles::new(out, self.tokens, self.outputs.len());
        let groups = self.outputs.len().div_ceil(LANES * self.group);
        let chunks = self.tokens.div_ceil(TILE * self.chunk);
        cpu.threads.each(chunks * groups, |task| {
            self.task(cpu, (task / groups, task % groups), &out);
        });
    }

    fn task(&self, cpu: &Cpu, (chunk, group): (usize, usize), out: &Rectangles<'_>) {
        let first_row = chunk * self.chunk * TILE;
        let rows = (self.chunk * TILE).min(self.tokens - first_row);
        let tiles = &self.tiles[chunk * self.chunk * self.tile..];
        let tiles = &tiles[..rows.div_ceil(TILE) * self.tile];
        let columns = group * self.group * LANES..(group + 1) * self.group * LANES;
        for column in (columns.start..columns.end.min(self.outputs.len())).step_by(LANES) {
            cpu.bytes.run(StripProduct {
                weight: self.product.weight,
                strip: (self.outputs.start + column) / LANES,
                tiles,
                scale: self.product.scale,
                update: self.product.update,
                out,
                rows,
                first: (first_row, column),
            });
        }
    }
}

/// Rows of the weight whose values exist at one time.
const BACKWARD_ROWS: usize = 1024;

/// `d_x[t, i] (+)= scale · d_out[t, o] · weight[o, i]` in single precision: the
/// gradient of the product of unrounded activations.
#[derive(Clone, Copy)]
pub(crate) struct IntoInput<'a> {
    /// `[tokens, weight.rows]`.
    pub(crate) d_out: &'a [f32],
    pub(crate) weight: &'a Packed,
    pub(crate) scale: f32,
}

impl IntoInput<'_> {
    /// Computes the product into rows of the weight's columns.
    pub(crate) fn compute(self, cpu: &Cpu, d_x: &mut [f32], update: Update) {
        let Packed { rows, columns, .. } = *self.weight;
        let tokens = self.d_out.len() / rows;
        if tokens == 0 {
            return;
        }
        let mut values = cpu.memory.take(BACKWARD_ROWS.min(rows) * columns);
        for first in (0..rows).step_by(BACKWARD_ROWS) {
            let outputs = first..rows.min(first + BACKWARD_ROWS);
            let values = &mut values.host_mut()[..outputs.len() * columns];
            self.weight.dequantise(cpu, outputs.clone(), values);
            let product = linear::Product {
                size: [tokens, columns, outputs.len()],
                left: Matrix::rows(self.d_out, rows).columns_from(first),
                right: Matrix::rows(values, columns),
                scale: self.scale,
                update: if first == 0 { update } else { Update::Add },
            };
            product.compute(cpu, Precision::F32, d_x);
        }
    }
}
