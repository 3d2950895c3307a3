//! Linear → log-probability: rows in chunks, the vocabulary in tiles, so that
//! rows × vocabulary never exist.

use std::ops::Range;
use std::sync::Arc;

use super::core::{Core, Grid, bytes_of_u32, bytes_of_u64, input, number, offset, scratch};
use super::device::{Address, Argument, Element, Operand, Product};
use super::linear::{self, Operands, element_with, multiply, row, weight_address};
use super::memory::Block;
use crate::backend::{
    ChosenTokens, LinearShape, StatisticsGradient, StatisticsShape, TokenStatistics,
};
use crate::buffer::Buffer;
use crate::cpu::Precision;

/// Rows whose logits exist at one time.
const ROWS: usize = 1024;
/// Columns whose logits exist at one time.
const TILE: usize = 16 * 1024;

/// Operands shared by both directions.
pub(crate) struct Statistics<'a> {
    core: &'a Core,
    hidden: &'a Buffer,
    shape: StatisticsShape,
    element: Element,
    weight: Address,
    offsets: Arc<Block>,
    ids: Arc<Block>,
    num_chosen: usize,
}

/// Logits of some rows and columns.
struct Tile {
    rows: Range<usize>,
    columns: Range<usize>,
}

impl Tile {
    fn bytes(&self) -> Vec<u8> {
        let sizes = [self.rows.start, self.rows.len(), self.columns.start, self.columns.len()];
        bytes_of_u32(&sizes.map(number))
    }
}

fn chunks(len: usize, step: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(step).map(move |start| start..len.min(start + step))
}

impl<'a> Statistics<'a> {
    pub(crate) fn new(
        core: &'a Core,
        precision: Precision,
        (hidden, weight): (&'a Buffer, &Buffer),
        chosen: &ChosenTokens,
        shape: StatisticsShape,
    ) -> Self {
        let element = element_with(precision, weight);
        Self {
            core,
            hidden,
            shape,
            element,
            weight: weight_address(core, weight, element),
            offsets: core.upload_u32(chosen.offsets.iter().map(|&n| number(n)).collect()),
            ids: core.upload_u32(chosen.ids.clone()),
            num_chosen: chosen.ids.len(),
        }
    }

    fn scale(&self) -> f32 {
        1.0 / self.shape.temperature
    }

    fn logits_block(&self) -> Block {
        self.core.take_f32(self.shape.rows.min(ROWS) * self.shape.vocab.min(TILE))
    }

    /// The hidden states of some rows, in the type of the products.
    fn hidden_rows(&self, rows: &Range<usize>) -> Operands {
        let dim = self.shape.dim;
        let address = offset(self.hidden.device().address(), rows.start * dim, size_of::<f32>());
        Operands::new(self.core, address, rows.len() * dim, self.element)
    }

    fn weight_rows(&self, columns: &Range<usize>) -> Address {
        row(self.weight, columns.start, self.shape.dim, self.element)
    }

    /// Logits (not tempered) of a tile.
    fn logits(&self, hidden: &Operands, tile: &Tile, out: &Block) {
        let shape = LinearShape {
            tokens: tile.rows.len(),
            input: self.shape.dim,
            output: tile.columns.len(),
        };
        let addresses = [hidden.address(), self.weight_rows(&tile.columns), out.address()];
        linear::logits(self.core, self.element, addresses, shape);
    }

    pub(crate) fn forward(&self) -> TokenStatistics {
        let (core, rows) = (self.core, self.shape.rows);
        let statistics = TokenStatistics {
            chosen: core.buffer(self.num_chosen),
            log_sum_exp: core.buffer(rows),
            entropy: core.buffer(rows),
            logits: None,
        };
        let logits = self.logits_block();
        let states = RowStates::new(core, rows.min(ROWS));
        for rows in chunks(rows, ROWS) {
            states.begin(core, rows.len());
            let hidden = self.hidden_rows(&rows);
            for columns in chunks(self.shape.vocab, TILE) {
                let tile = Tile { rows: rows.clone(), columns };
                self.logits(&hidden, &tile, &logits);
                states.add(core, &logits, &tile, self.scale());
                self.launch_chosen("take_chosen", &logits, &tile, &statistics.chosen);
            }
            states.finish(core, &rows, &statistics);
        }
        statistics
    }

    /// A thread a row of the tile: reads its chosen logits, or adds their gradients.
    fn launch_chosen(&self, kernel: &'static str, logits: &Block, tile: &Tile, chosen: &Buffer) {
        let bytes = tile.bytes();
        let arguments = [
            scratch(logits),
            Argument::Bytes(&bytes),
            scratch(&self.offsets),
            scratch(&self.ids),
            Argument::F32(self.scale()),
            input(chosen),
        ];
        self.core.launch(kernel, Grid::over(tile.rows.len()), &arguments);
    }

    /// Sets `d_hidden`; adds to `d_weight` where given.
    pub(crate) fn backward(
        &self,
        statistics: &TokenStatistics,
        gradient: &StatisticsGradient<'_>,
        d_hidden: &mut Buffer,
        mut d_weight: Option<&mut Buffer>,
    ) {
        let logits = self.logits_block();
        for rows in chunks(self.shape.rows, ROWS) {
            let hidden = self.hidden_rows(&rows);
            for columns in chunks(self.shape.vocab, TILE) {
                let tile = Tile { rows: rows.clone(), columns };
                self.logits(&hidden, &tile, &logits);
                self.slopes(&logits, &tile, statistics, gradient);
                self.launch_chosen("add_chosen", &logits, &tile, gradient.chosen);
                let len = tile.rows.len() * tile.columns.len();
                let d_logits = Operands::new(self.core, logits.address(), len, self.element);
                self.add_to_hidden(&d_logits, &tile, d_hidden);
                if let Some(d_weight) = d_weight.as_deref_mut() {
                    self.add_to_weight(&d_logits, &hidden, &tile, d_weight);
                }
            }
        }
    }

    /// Replaces logits by the gradient through log-sum-exp and entropy.
    fn slopes(
        &self,
        logits: &Block,
        tile: &Tile,
        statistics: &TokenStatistics,
        gradient: &StatisticsGradient<'_>,
    ) {
        let address = |buffer: &Buffer| buffer.device().address();
        let of = bytes_of_u64(&[
            address(&statistics.log_sum_exp),
            address(&statistics.entropy),
            address(gradient.log_sum_exp),
            gradient.entropy.map_or(0, address),
        ]);
        let bytes = tile.bytes();
        let scale = Argument::F32(self.scale());
        let arguments = [scratch(logits), Argument::Bytes(&bytes), scale, Argument::Bytes(&of)];
        self.core.launch("statistics_slopes", Grid::blocks(tile.rows.len()), &arguments);
    }

    fn add_to_hidden(&self, d_logits: &Operands, tile: &Tile, d_hidden: &mut Buffer) {
        let (dim, width) = (self.shape.dim, tile.columns.len());
        let out = row(d_hidden.device_mut().address(), tile.rows.start, dim, Element::F32);
        multiply(
            self.core,
            &Product {
                rows: tile.rows.len(),
                columns: dim,
                inner: width,
                element: self.element,
                left: Operand { address: d_logits.address(), outer: width, inner: 1 },
                right: Operand { address: self.weight_rows(&tile.columns), outer: 1, inner: dim },
                out,
                scale: 1.0,
                add: tile.columns.start > 0,
            },
        );
    }

    fn add_to_weight(
        &self,
        d_logits: &Operands,
        hidden: &Operands,
        tile: &Tile,
        d_weight: &mut Buffer,
    ) {
        let (dim, width) = (self.shape.dim, tile.columns.len());
        let out = row(d_weight.device_mut().address(), tile.columns.start, dim, Element::F32);
        multiply(
            self.core,
            &Product {
                rows: width,
                columns: dim,
                inner: tile.rows.len(),
                element: self.element,
                left: Operand { address: d_logits.address(), outer: 1, inner: width },
                right: Operand { address: hidden.address(), outer: 1, inner: dim },
                out,
                scale: 1.0,
                add: true,
            },
        );
    }
}

/// Maximum and sums of the rows of a chunk.
struct RowStates {
    max: Block,
    sum: Block,
    weighted: Block,
}

impl RowStates {
    fn new(core: &Core, rows: usize) -> Self {
        let wide = || core.take(rows * size_of::<f64>());
        Self { max: core.take_f32(rows), sum: wide(), weighted: wide() }
    }

    fn bytes(&self) -> Vec<u8> {
        bytes_of_u64(&[self.max.address(), self.sum.address(), self.weighted.address()])
    }

    fn begin(&self, core: &Core, rows: usize) {
        let bytes = self.bytes();
        let arguments = [Argument::Bytes(&bytes), Argument::U32(number(rows))];
        core.launch("statistics_begin", Grid::over(rows), &arguments);
    }

    fn add(&self, core: &Core, logits: &Block, tile: &Tile, scale: f32) {
        let (bytes, width) = (self.bytes(), Argument::U32(number(tile.columns.len())));
        let arguments = [scratch(logits), width, Argument::F32(scale), Argument::Bytes(&bytes)];
        core.launch("statistics_add", Grid::blocks(tile.rows.len()), &arguments);
    }

    fn finish(&self, core: &Core, rows: &Range<usize>, statistics: &TokenStatistics) {
        let bytes = self.bytes();
        let at = |buffer: &Buffer| {
            Argument::Pointer(offset(buffer.device().address(), rows.start, size_of::<f32>()))
        };
        let arguments = [
            Argument::Bytes(&bytes),
            Argument::U32(number(rows.len())),
            at(&statistics.log_sum_exp),
            at(&statistics.entropy),
        ];
        core.launch("statistics_finish", Grid::over(rows.len()), &arguments);
    }
}
