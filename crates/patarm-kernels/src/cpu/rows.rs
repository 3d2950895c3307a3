//! Rows of a table: gather, scatter, and sums over rows.

use super::Cpu;
use super::simd::LANES;
use super::threads::ELEMENTS;

/// Rows summed in one piece of work, whatever the number of threads.
const SUM_ROWS: usize = 64;

/// `out[n] = table[ids[n]]`.
pub(crate) fn gather(cpu: &Cpu, table: &[f32], ids: &[u32], dim: usize, out: &mut [f32]) {
    if dim == 0 {
        return;
    }
    let rows = rows_per_piece(dim);
    cpu.threads.each_chunk(out, rows * dim, |n, out| {
        for (row, &id) in out.chunks_exact_mut(dim).zip(&ids[n * rows..]) {
            row.copy_from_slice(&table[id as usize * dim..][..dim]);
        }
    });
}

/// `table[ids[n]] = rows[n]`, in order of `n`.
pub(crate) fn scatter(rows: &[f32], ids: &[u32], dim: usize, table: &mut [f32]) {
    if dim == 0 {
        return;
    }
    for (row, &id) in rows.chunks_exact(dim).zip(ids) {
        table[id as usize * dim..][..dim].copy_from_slice(row);
    }
}

/// [`scatter`] into a table of keys in groups of [`LANES`] slots.
pub(crate) fn scatter_across(rows: &[f32], ids: &[u32], dim: usize, table: &mut [f32]) {
    if dim == 0 {
        return;
    }
    for (row, &id) in rows.chunks_exact(dim).zip(ids) {
        let (group, lane) = (id as usize / LANES, id as usize % LANES);
        let (panel, _) = table[group * dim * LANES..][..dim * LANES].as_chunks_mut::<LANES>();
        panel.iter_mut().zip(row).for_each(|(lanes, x)| lanes[lane] = *x);
    }
}

/// `table[ids[n]] += rows[n]`, in order of `n`.
pub(crate) fn scatter_add(rows: &[f32], ids: &[u32], dim: usize, table: &mut [f32]) {
    if dim == 0 {
        return;
    }
    for (row, &id) in rows.chunks_exact(dim).zip(ids) {
        let to = &mut table[id as usize * dim..][..dim];
        to.iter_mut().zip(row).for_each(|(to, x)| *to += x);
    }
}

/// `sums += column sums of rows`: pieces of fixed height, summed in order.
pub(crate) fn add_column_sums(cpu: &Cpu, rows: &[f32], dim: usize, sums: &mut [f32]) {
    if dim == 0 || rows.is_empty() {
        return;
    }
    let piece = SUM_ROWS * dim;
    let mut partial = cpu.memory.take(rows.len().div_ceil(piece) * dim);
    cpu.threads.each_chunk(partial.host_mut(), dim, |n, sum| {
        sum.fill(0.0);
        let end = rows.len().min((n + 1) * piece);
        for row in rows[n * piece..end].chunks_exact(dim) {
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
    });
    add_partial_sums(partial.host(), dim, sums);
}

/// `sums += Σ` of the rows of `partial`, in order.
pub(crate) fn add_partial_sums(partial: &[f32], dim: usize, sums: &mut [f32]) {
    let mut total = vec![0.0; dim];
    for row in partial.chunks_exact(dim) {
        total.iter_mut().zip(row).for_each(|(total, x)| *total += x);
    }
    sums.iter_mut().zip(&total).for_each(|(sum, x)| *sum += x);
}

fn rows_per_piece(dim: usize) -> usize {
    (ELEMENTS / dim).max(1)
}
