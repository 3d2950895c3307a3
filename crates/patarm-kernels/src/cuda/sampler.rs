//! Drawing one token a row.

use super::core::{Core, Grid, number, offset, scratch};
use super::device::{Address, Argument};
use super::linear::{self, Operands, element_with, weight_address};
use super::memory::Block;
use crate::backend::{LinearShape, StatisticsShape};
use crate::buffer::Buffer;
use crate::cpu::Precision;
use crate::sampling::SamplingOptions;

/// Rows whose logits exist at one time.
const ROWS: usize = 64;
/// Threads of a row, as `sampler.cu` has them.
const THREADS: u32 = 512;

/// The layout of `SampleOptions` in `sampler.cu`.
fn bytes_of(options: &SamplingOptions) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    for number in [options.temperature, options.top_p, options.min_p] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes.extend(u32::try_from(options.top_k).unwrap_or(u32::MAX).to_ne_bytes());
    for number in [options.seed, options.sequence, options.position] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes
}

pub(crate) fn sample(
    core: &Core,
    precision: Precision,
    (hidden, weight): (&Buffer, &Buffer),
    (shape, options): (StatisticsShape, &[SamplingOptions]),
    (ids, logprobs): (&mut Buffer, &mut Buffer),
) {
    let StatisticsShape { rows, dim, vocab, .. } = shape;
    let element = element_with(precision, weight);
    let weight = weight_address(core, weight, element);
    let logits = core.take_f32(rows.min(ROWS) * vocab);
    let (ids, logprobs) = (ids.device_mut().address(), logprobs.device_mut().address());
    for start in (0..rows).step_by(ROWS) {
        let count = ROWS.min(rows - start);
        let at = |address, element| offset(address, element, size_of::<f32>());
        let from = at(hidden.device().address(), start * dim);
        let x = Operands::new(core, from, count * dim, element);
        let shape = LinearShape { tokens: count, input: dim, output: vocab };
        linear::logits(core, element, [x.address(), weight, logits.address()], shape);
        let outputs = [ids, logprobs].map(|address| at(address, start));
        draw(core, &logits, &options[start..start + count], vocab, outputs);
    }
}

fn draw(
    core: &Core,
    logits: &Block,
    options: &[SamplingOptions],
    vocab: usize,
    [ids, logprobs]: [Address; 2],
) {
    let bytes: Vec<u8> = options.iter().flat_map(bytes_of).collect();
    let on_device = core.upload_bytes(&bytes);
    let grid = Grid { threads: THREADS, ..Grid::blocks(options.len()) };
    let arguments = [
        scratch(logits),
        Argument::U32(number(vocab)),
        scratch(&on_device),
        Argument::Pointer(ids),
        Argument::Pointer(logprobs),
    ];
    core.launch("draw_tokens", grid, &arguments);
}
