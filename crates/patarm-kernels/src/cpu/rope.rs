//! Rotary position embedding (Su et al., arXiv 2104.09864), half-split layout.

use std::sync::{Arc, Mutex};

use super::Cpu;
use crate::backend::{RopeTurn, Rotation};

/// Positions up to this one are kept in a table; later ones are computed anew.
const TABLE_POSITIONS: usize = 1 << 16;
/// A table first covers this many positions, then doubles.
const FIRST_POSITIONS: usize = 512;
/// Tables kept: one per set of frequencies in use.
const TABLES: usize = 4;
/// Tokens of one piece of work.
const TOKENS: usize = 32;

/// Cosines and sines by position, shared by every layer of a model.
#[derive(Debug, Default)]
pub(crate) struct RotationTables {
    tables: Mutex<Vec<Arc<RotationTable>>>,
}

#[derive(Debug)]
struct RotationTable {
    inverse_frequencies: Vec<f32>,
    positions: usize,
    /// Per position the cosines, then the sines.
    values: Vec<f32>,
}

impl RotationTable {
    fn new(inverse_frequencies: &[f32], positions: usize) -> Self {
        let width = 2 * inverse_frequencies.len();
        let mut values = vec![0.0; positions * width];
        for (position, row) in values.chunks_exact_mut(width.max(1)).enumerate() {
            write_rotation(position as u32, inverse_frequencies, row);
        }
        Self { inverse_frequencies: inverse_frequencies.to_vec(), positions, values }
    }

    fn row(&self, position: u32) -> Option<&[f32]> {
        let width = 2 * self.inverse_frequencies.len();
        let position = position as usize;
        (position < self.positions).then(|| &self.values[position * width..][..width])
    }
}

/// Angles are formed in f64, so that far positions lose nothing.
fn write_rotation(position: u32, inverse_frequencies: &[f32], row: &mut [f32]) {
    let (cosines, sines) = row.split_at_mut(inverse_frequencies.len());
    for ((&frequency, cosine), sine) in inverse_frequencies.iter().zip(cosines).zip(sines) {
        let (s, c) = (f64::from(position) * f64::from(frequency)).sin_cos();
        (*cosine, *sine) = (c as f32, s as f32);
    }
}

impl RotationTables {
    /// A table that covers `last` (or as many positions as tables may have).
    fn covering(&self, inverse_frequencies: &[f32], last: u32) -> Arc<RotationTable> {
        let needed = (last as usize + 1).min(TABLE_POSITIONS);
        let mut tables = match self.tables.lock() {
            Ok(tables) => tables,
            Err(poisoned) => poisoned.into_inner(),
        };
        let known =
            tables.iter().position(|table| table.inverse_frequencies == inverse_frequencies);
        if let Some(known) = known
            && tables[known].positions >= needed
        {
            return Arc::clone(&tables[known]);
        }
        let positions = needed.next_power_of_two().max(FIRST_POSITIONS);
        let table = Arc::new(RotationTable::new(inverse_frequencies, positions));
        match known {
            Some(known) => tables[known] = Arc::clone(&table),
            None => {
                if tables.len() == TABLES {
                    tables.remove(0);
                }
                tables.push(Arc::clone(&table));
            }
        }
        table
    }
}

/// The rotations of a batch: rows are the heads of one token after the other.
pub(crate) struct Rotations<'a> {
    table: Arc<RotationTable>,
    rotation: Rotation<'a>,
}

impl<'a> Rotations<'a> {
    pub(crate) fn new(cpu: &Cpu, rotation: Rotation<'a>) -> Self {
        let last = rotation.positions.iter().max().copied().unwrap_or(0);
        let table = cpu.rotations.covering(rotation.inverse_frequencies, last);
        Self { table, rotation }
    }

    /// Rotates every head of every token in place.
    pub(crate) fn rotate(&self, cpu: &Cpu, x: &mut [f32], turn: RopeTurn) {
        let rows = TOKENS * self.rotation.heads;
        cpu.threads.each_chunk(x, rows * self.rotation.head_dim(), |n, x| {
            self.rotate_rows(n * rows, x, turn);
        });
    }

    /// Rotates rows in place, of which the first is row `first` of the batch.
    pub(crate) fn rotate_rows(&self, first: usize, rows: &mut [f32], turn: RopeTurn) {
        let Rotation { positions, inverse_frequencies, heads } = self.rotation;
        let head_dim = self.rotation.head_dim();
        let mut far = Far { position: None, row: vec![0.0; head_dim] };
        for (row, head) in (first..).zip(rows.chunks_exact_mut(head_dim.max(1))) {
            let position = positions[row / heads];
            let known = self.table.row(position);
            let row = known.unwrap_or_else(|| far.row(position, inverse_frequencies));
            let (cosines, sines) = row.split_at(inverse_frequencies.len());
            rotate_head(head, cosines, sines, turn);
        }
    }
}

/// The rotation of a position beyond the table, computed once for all heads of a token.
struct Far {
    position: Option<u32>,
    row: Vec<f32>,
}

impl Far {
    fn row(&mut self, position: u32, inverse_frequencies: &[f32]) -> &[f32] {
        if self.position != Some(position) {
            write_rotation(position, inverse_frequencies, &mut self.row);
            self.position = Some(position);
        }
        &self.row
    }
}

fn rotate_head(head: &mut [f32], cosines: &[f32], sines: &[f32], turn: RopeTurn) {
    let sign = match turn {
        RopeTurn::Forward => 1.0,
        RopeTurn::Backward => -1.0,
    };
    let (low, high) = head.split_at_mut(cosines.len());
    for (((low, high), cosine), sine) in low.iter_mut().zip(high).zip(cosines).zip(sines) {
        let sine = sign * sine;
        (*low, *high) = (*low * cosine - *high * sine, *high * cosine + *low * sine);
    }
}
