//! Rows: gather and scatter, normalisation, rotation, column sums.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::core::{Core, Grid, input, number, output, scratch};
use super::device::Argument;
use super::memory::Block;
use crate::backend::{NormShape, RopeTurn, RotatedNorm, Rotation, Update};
use crate::buffer::Buffer;

/// Least rows of a partial sum of columns.
const SUM_ROWS: usize = 64;
/// Most partial sums.
const MAX_PIECES: usize = 256;
/// Columns of a block that sums columns.
const SUM_COLUMNS: u32 = 128;

pub(crate) fn gather(core: &Core, table: &Buffer, ids: &[u32], dim: usize, out: &mut Buffer) {
    let on_device = core.upload_u32(ids.to_vec());
    let width = Argument::U32(number(dim));
    let arguments = [input(table), scratch(&on_device), width, output(out)];
    core.launch("gather_rows", Grid::blocks(ids.len()), &arguments);
}

/// Of rows with one id the last one stays, as if they were written one by one.
pub(crate) fn scatter(core: &Core, rows: &Buffer, ids: &[u32], dim: usize, table: &mut Buffer) {
    let last: BTreeMap<u32, u32> = ids.iter().zip(0..).map(|(&id, row)| (id, row)).collect();
    let targets = core.upload_u32(last.keys().copied().collect());
    let from = core.upload_u32(last.values().copied().collect());
    let width = Argument::U32(number(dim));
    let arguments = [input(rows), scratch(&from), scratch(&targets), width, output(table)];
    core.launch("scatter_rows", Grid::blocks(last.len()), &arguments);
}

/// Rows with one id are added by one block, in their order.
pub(crate) fn scatter_add(core: &Core, rows: &Buffer, ids: &[u32], dim: usize, table: &mut Buffer) {
    let mut order: Vec<u32> = (0..number(ids.len())).collect();
    order.sort_by_key(|&row| ids[row as usize]);
    let (mut targets, mut starts) = (Vec::new(), Vec::new());
    for (n, &row) in (0..).zip(&order) {
        let id = ids[row as usize];
        if targets.last() != Some(&id) {
            targets.push(id);
            starts.push(n);
        }
    }
    let blocks = targets.len();
    starts.push(number(ids.len()));
    let tables = [order, starts, targets].map(|numbers| core.upload_u32(numbers));
    let [order, starts, targets] = tables.each_ref().map(|block| scratch(block));
    let width = Argument::U32(number(dim));
    let arguments = [input(rows), order, starts, targets, width, output(table)];
    core.launch("scatter_add_rows", Grid::blocks(blocks), &arguments);
}

pub(crate) fn rms_norm(
    core: &Core,
    (x, weight): (&Buffer, &Buffer),
    shape: NormShape,
    out: &mut Buffer,
    inv_rms: &mut Buffer,
) {
    let arguments = [
        input(x),
        input(weight),
        Argument::U32(number(shape.rows)),
        Argument::U32(number(shape.dim)),
        Argument::F32(shape.eps),
        output(out),
        output(inv_rms),
    ];
    core.launch("rms_norm", Grid::warps(shape.rows), &arguments);
}

/// Operands of the backward pass of a normalisation.
pub(crate) struct NormBackward<'a> {
    pub(crate) x: &'a Buffer,
    pub(crate) weight: &'a Buffer,
    pub(crate) inv_rms: &'a Buffer,
    pub(crate) d_out: &'a Buffer,
    pub(crate) shape: NormShape,
}

impl NormBackward<'_> {
    pub(crate) fn input_gradient(&self, core: &Core, (d_x, update): (&mut Buffer, Update)) {
        let arguments = [
            input(self.x),
            input(self.weight),
            input(self.inv_rms),
            input(self.d_out),
            Argument::U32(number(self.shape.rows)),
            Argument::U32(number(self.shape.dim)),
            Argument::U32(u32::from(update == Update::Add)),
            output(d_x),
        ];
        core.launch("rms_norm_backward", Grid::warps(self.shape.rows), &arguments);
    }

    pub(crate) fn add_weight_gradient(&self, core: &Core, d_weight: &mut Buffer) {
        let inputs = [input(self.x), input(self.inv_rms), input(self.d_out)];
        let NormShape { rows, dim, .. } = self.shape;
        add_sums(core, "norm_weight_partial", &inputs, (rows, dim), d_weight);
    }
}

/// `sums += column sums of x`.
pub(crate) fn add_column_sums(core: &Core, x: &Buffer, rows: usize, sums: &mut Buffer) {
    let dim = sums.len();
    add_sums(core, "column_partial", &[input(x)], (rows, dim), sums);
}

/// Partial sums of pieces of fixed height, added in order.
fn add_sums(
    core: &Core,
    kernel: &'static str,
    inputs: &[Argument<'static>],
    (rows, dim): (usize, usize),
    sums: &mut Buffer,
) {
    let piece = rows.div_ceil(MAX_PIECES).max(SUM_ROWS);
    let pieces = rows.div_ceil(piece);
    if pieces == 0 || dim == 0 {
        return;
    }
    let partial = core.take_f32(pieces * dim);
    let columns = number(dim).div_ceil(SUM_COLUMNS);
    let grid = Grid { threads: SUM_COLUMNS, ..Grid::blocks(pieces) };
    let sizes = [rows, dim, piece].map(|size| Argument::U32(number(size)));
    let arguments = [inputs, sizes.as_slice(), &[scratch(&partial)]].concat();
    core.launch(kernel, Grid { blocks: [number(pieces), columns], ..grid }, &arguments);
    let sizes = [pieces, dim].map(|size| Argument::U32(number(size)));
    let arguments = [scratch(&partial), sizes[0], sizes[1], output(sums)];
    core.launch("add_partial_rows", Grid { blocks: [columns, 1], ..grid }, &arguments);
}

pub(crate) fn rope(core: &Core, x: &mut Buffer, rotation: Rotation<'_>, turn: RopeTurn) {
    let sign = match turn {
        RopeTurn::Forward => 1.0,
        RopeTurn::Backward => -1.0,
    };
    let [positions, frequencies] = upload_rotation(core, rotation);
    let arguments = [
        output(x),
        scratch(&positions),
        scratch(&frequencies),
        Argument::U32(number(rotation.heads)),
        Argument::U32(number(rotation.head_dim())),
        Argument::F32(sign),
    ];
    core.launch("rope", rotation_grid(rotation), &arguments);
}

/// Positions and frequencies on the device.
fn upload_rotation(core: &Core, rotation: Rotation<'_>) -> [Arc<Block>; 2] {
    let bits = rotation.inverse_frequencies.iter().map(|frequency| frequency.to_bits()).collect();
    [core.upload_u32(rotation.positions.to_vec()), core.upload_u32(bits)]
}

/// A block a token, with room for a cosine and a sine a pair.
fn rotation_grid(rotation: Rotation<'_>) -> Grid {
    let shared = rotation.head_dim() * size_of::<f32>();
    Grid { shared_bytes: number(shared), ..Grid::blocks(rotation.positions.len()) }
}

pub(crate) fn rotated_norm(
    core: &Core,
    (x, weight): (&Buffer, &Buffer),
    operation: RotatedNorm<'_>,
    out: &mut Buffer,
    inv_rms: &mut Buffer,
) {
    let RotatedNorm { rotation, eps } = operation;
    let [positions, frequencies] = upload_rotation(core, rotation);
    let arguments = [
        input(x),
        input(weight),
        scratch(&positions),
        scratch(&frequencies),
        Argument::U32(number(rotation.heads)),
        Argument::U32(number(rotation.head_dim())),
        Argument::F32(eps),
        output(out),
        output(inv_rms),
    ];
    core.launch("rotated_norm", rotation_grid(rotation), &arguments);
}

/// Sets `d_x`; `d_out` is afterwards the gradient before the rotation.
pub(crate) fn rotated_norm_backward(
    core: &Core,
    (x, weight, inv_rms): (&Buffer, &Buffer, &Buffer),
    operation: RotatedNorm<'_>,
    d_out: &mut Buffer,
    d_x: &mut Buffer,
) {
    let rotation = operation.rotation;
    let [positions, frequencies] = upload_rotation(core, rotation);
    let arguments = [
        input(x),
        input(weight),
        input(inv_rms),
        scratch(&positions),
        scratch(&frequencies),
        Argument::U32(number(rotation.heads)),
        Argument::U32(number(rotation.head_dim())),
        output(d_out),
        output(d_x),
    ];
    core.launch("rotated_norm_backward", rotation_grid(rotation), &arguments);
}
