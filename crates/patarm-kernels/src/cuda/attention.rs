//! Attention over a forest: the tables a plan becomes, and the launches.
//!
//! A *row* is a query and one of the query heads that share a key head; blocks take
//! tiles of [`TILE`] rows of one run. The backward pass walks the other way too: over
//! tiles of slots, each with the stretches of the runs that read it, so that every sum
//! is made by one block, in order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::core::{Core, Grid, bytes_of_u64, input, number, output, scratch};
use super::device::{Argument, DeviceFault, Element, FaultKind};
use super::memory::Block;
use super::program::Program;
use crate::attention_plan::{AttentionPlan, AttentionShape};
use crate::buffer::Buffer;

/// Rows, or slots, of a block; threads of a block. As `tiles.cu` has them.
const TILE: usize = 64;
const THREADS: u32 = 128;
/// Parts of keys are cut until so many blocks fall to a multiprocessor, but none is shorter
/// than this: each part's results go through memory. Both are guesses, untried on a device.
const BLOCKS_A_MULTIPROCESSOR: usize = 2;
const LEAST_PART_KEYS: usize = 256;
/// Plans whose tables are kept: every layer of a model uses the same one.
const KEPT_PLANS: usize = 4;

/// Tables of the plans used last.
#[derive(Debug, Default)]
pub(crate) struct PlanTables {
    kept: Mutex<Vec<(AttentionPlan, Heads, Arc<Tables>)>>,
}

/// A plan as the kernels read it.
#[derive(Debug)]
struct Tables {
    runs: Arc<Block>,
    slots: Arc<Block>,
    row_tiles: Arc<Block>,
    num_row_tiles: usize,
    parts: Option<PartTables>,
    keys: OnceLock<KeyTables>,
}

/// Tiles whose keys are shared out to several blocks.
#[derive(Debug)]
struct PartTables {
    parts: Arc<Block>,
    tiles: Arc<Block>,
    num_parts: usize,
    num_tiles: usize,
}

/// Query heads that share a key head, and key heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Heads {
    sharing: usize,
    kv_heads: usize,
}

/// Who reads which slots.
#[derive(Debug)]
struct KeyTables {
    tiles: Arc<Block>,
    readers: Arc<Block>,
    num_tiles: usize,
}

impl PlanTables {
    /// The tables of a plan.
    fn get(&self, core: &Core, plan: &AttentionPlan, heads: Heads) -> Arc<Tables> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.iter().find(|(known, of, _)| *of == heads && known == plan);
        if let Some((.., tables)) = known {
            return Arc::clone(tables);
        }
        let tables = Arc::new(Tables::new(core, plan, heads));
        if kept.len() == KEPT_PLANS {
            kept.remove(0);
        }
        kept.push((plan.clone(), heads, Arc::clone(&tables)));
        tables
    }
}

impl Tables {
    fn new(core: &Core, plan: &AttentionPlan, heads: Heads) -> Self {
        let (mut runs, mut slots) = (Vec::new(), Vec::new());
        for run in &plan.runs {
            let causal = usize::from(run.causal);
            let numbers =
                [run.query, run.len, run.first_position, run.num_keys(), slots.len(), causal];
            runs.extend(numbers.map(number));
            for span in &run.spans {
                slots.extend((span.slot..span.slot + span.len).map(number));
            }
        }
        let row_tiles = row_tiles(plan, heads.sharing);
        let blocks = row_tiles.len() * heads.kv_heads;
        let parts = part_keys(blocks, most_keys(&row_tiles), core.device.multiprocessors())
            .map(|keys| PartTables::new(core, &row_tiles, keys));
        let starts = row_tiles.iter().flat_map(|tile| [tile.run, tile.row].map(number));
        Self {
            num_row_tiles: row_tiles.len(),
            row_tiles: core.upload_u32(starts.collect()),
            runs: core.upload_u32(runs),
            slots: core.upload_u32(slots),
            parts,
            keys: OnceLock::new(),
        }
    }

    fn keys(&self, core: &Core, plan: &AttentionPlan) -> &KeyTables {
        self.keys.get_or_init(|| {
            let (mut tiles, mut all) = (Vec::new(), Vec::new());
            for (tile, readers) in readers(plan) {
                let last = readers.iter().map(|reader| reader[1] + reader[2]).max().unwrap_or(0);
                let first = tile * TILE;
                tiles.extend([first, last - first, all.len() / 4, readers.len()].map(number));
                all.extend(readers.into_iter().flatten().map(number));
            }
            KeyTables {
                num_tiles: tiles.len() / 4,
                tiles: core.upload_u32(tiles),
                readers: core.upload_u32(all),
            }
        })
    }
}

/// Rows of a run from `row` on, and the keys that the last of them sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RowTile {
    run: usize,
    row: usize,
    keys: usize,
}

fn row_tiles(plan: &AttentionPlan, sharing: usize) -> Vec<RowTile> {
    let runs = plan.runs.iter().enumerate();
    runs.flat_map(|(n, run)| {
        let rows = run.len * sharing;
        (0..rows).step_by(TILE).map(move |row| {
            let last = (row + TILE).min(rows) - 1;
            RowTile { run: n, row, keys: run.keys_seen(last / sharing) }
        })
    })
    .collect()
}

fn most_keys(tiles: &[RowTile]) -> usize {
    tiles.iter().map(|tile| tile.keys).max().unwrap_or(0)
}

/// Keys of a part, where so few blocks would leave multiprocessors idle.
fn part_keys(blocks: usize, most_keys: usize, multiprocessors: usize) -> Option<usize> {
    let wanted = BLOCKS_A_MULTIPROCESSOR * multiprocessors;
    if blocks == 0 || blocks >= wanted {
        return None;
    }
    let keys = most_keys.div_ceil(wanted.div_ceil(blocks)).next_multiple_of(TILE);
    let keys = keys.max(LEAST_PART_KEYS);
    (keys < most_keys).then_some(keys)
}

/// The parts of all tiles, `[run, row, first key, end]`, and the tiles, `[run, row, first
/// part, parts]`.
fn parts(tiles: &[RowTile], keys: usize) -> (Vec<[usize; 4]>, Vec<[usize; 4]>) {
    let (mut parts, mut joined) = (Vec::new(), Vec::new());
    for tile in tiles {
        let count = tile.keys.div_ceil(keys).max(1);
        joined.push([tile.run, tile.row, parts.len(), count]);
        parts.extend((0..count).map(|part| {
            let end = tile.keys.min((part + 1) * keys);
            [tile.run, tile.row, part * keys, end]
        }));
    }
    (parts, joined)
}

impl PartTables {
    fn new(core: &Core, tiles: &[RowTile], keys: usize) -> Self {
        let (parts, joined) = parts(tiles, keys);
        let upload = |rows: &[[usize; 4]]| {
            core.upload_u32(rows.iter().flatten().copied().map(number).collect())
        };
        Self {
            num_parts: parts.len(),
            num_tiles: joined.len(),
            parts: upload(&parts),
            tiles: upload(&joined),
        }
    }
}

/// By tile of slots: the stretches `[run, first slot, slots, position]` that read it.
fn readers(plan: &AttentionPlan) -> BTreeMap<usize, Vec<[usize; 4]>> {
    let mut found: BTreeMap<usize, Vec<[usize; 4]>> = BTreeMap::new();
    for (n, run) in plan.runs.iter().enumerate() {
        let mut position = 0;
        for span in &run.spans {
            let len = span.len.min(run.visible_keys().saturating_sub(position));
            let (mut slot, end) = (span.slot, span.slot + len);
            while slot < end {
                let stop = end.min((slot / TILE + 1) * TILE);
                let stretch = [n, slot, stop - slot, position + slot - span.slot];
                found.entry(slot / TILE).or_default().push(stretch);
                slot = stop;
            }
            position += span.len;
        }
    }
    found
}

/// Shared memory of the kernels, as `attention.cu` lays it out.
#[derive(Clone, Copy, Debug)]
struct Layout {
    element: Element,
    stride: usize,
    pad: usize,
    forward_columns: usize,
    backward_columns: usize,
}

impl Layout {
    fn new(head_dim: usize, element: Element) -> Self {
        let (pad, forward_columns, backward_columns) = match element {
            Element::Bf16 => (8, 64, 32),
            Element::F32 => (4, 32, 16),
        };
        let stride = head_dim.next_multiple_of(16) + pad;
        Self { element, stride, pad, forward_columns, backward_columns }
    }

    /// A tile of rows and a number of square blocks of weights.
    fn bytes(&self, rows: usize, columns: usize, weights: usize) -> usize {
        let elements = rows * self.stride + weights * TILE * (columns + self.pad);
        elements * self.element.bytes()
    }

    fn forward(&self) -> usize {
        self.bytes(TILE + 2 * self.forward_columns, self.forward_columns, 1)
    }

    fn backward_queries(&self) -> usize {
        self.bytes(2 * TILE + 2 * self.backward_columns, self.backward_columns, 1)
    }

    fn backward_keys(&self) -> usize {
        self.bytes(2 * TILE + 2 * self.backward_columns, self.backward_columns, 2)
    }
}

/// What both directions share.
pub(crate) struct Attention<'a> {
    pub(crate) core: &'a Core,
    pub(crate) tables: &'a PlanTables,
    pub(crate) element: Element,
    pub(crate) plan: &'a AttentionPlan,
    pub(crate) shape: AttentionShape,
    /// Queries, keys, values.
    pub(crate) inputs: [&'a Buffer; 3],
}

/// What the backward pass reads of the forward's results.
pub(crate) struct Results<'a> {
    pub(crate) out: &'a Buffer,
    pub(crate) log_sum_exp: &'a Buffer,
    pub(crate) d_out: &'a Buffer,
}

impl Attention<'_> {
    fn tables(&self) -> Arc<Tables> {
        let AttentionShape { heads, kv_heads, .. } = self.shape;
        self.tables.get(self.core, self.plan, Heads { sharing: heads / kv_heads, kv_heads })
    }

    fn program(&self) -> Program {
        Program::Attention { head_dim: number(self.shape.head_dim), element: self.element }
    }

    /// A block for every tile and key head.
    fn grid(&self, tiles: usize, shared_bytes: usize) -> Grid {
        let available = self.core.device.max_shared_bytes();
        if shared_bytes > available {
            let message = format!(
                "attention with heads of width {} needs {shared_bytes} bytes of shared memory in \
                 {:?}, the device has {available}; take --precision bf16 or --device cpu",
                self.shape.head_dim, self.element
            );
            DeviceFault::new(FaultKind::Device, message).unwind();
        }
        let blocks = [number(tiles), number(self.shape.kv_heads)];
        Grid { blocks, threads: THREADS, shared_bytes: number(shared_bytes) }
    }

    /// The layout of `Heads` in `attention.cu`.
    fn heads(&self) -> Vec<u8> {
        let AttentionShape { heads, kv_heads, head_dim, .. } = self.shape;
        let scale = (1.0 / (head_dim as f64).sqrt()) as f32;
        [number(heads), number(kv_heads), scale.to_bits()]
            .iter()
            .flat_map(|number| number.to_ne_bytes())
            .collect()
    }

    fn layout(&self) -> Layout {
        Layout::new(self.shape.head_dim, self.element)
    }

    pub(crate) fn forward(&self, out: &mut Buffer, log_sum_exp: &mut Buffer) {
        let tables = self.tables();
        match &tables.parts {
            Some(parts) => self.forward_parts(&tables, parts, [out, log_sum_exp]),
            None => {
                let tiles = (&*tables.row_tiles, tables.num_row_tiles);
                let results = [output(out), output(log_sum_exp)];
                self.launch_forward("attention_forward", &tables, tiles, results);
            }
        }
    }

    /// Every part by itself, then the parts of every row together.
    fn forward_parts(&self, tables: &Tables, parts: &PartTables, results: [&mut Buffer; 2]) {
        let AttentionShape { kv_heads, head_dim, .. } = self.shape;
        let rows = parts.num_parts * kv_heads * TILE;
        let partial = [rows * head_dim, rows].map(|len| self.core.take_f32(len));
        let written = [scratch(&partial[0]), scratch(&partial[1])];
        let tiles = (&*parts.parts, parts.num_parts);
        self.launch_forward("attention_forward_parts", tables, tiles, written);
        let heads = self.heads();
        let [out, log_sum_exp] = results.map(output);
        let arguments = [
            written[0],
            written[1],
            scratch(&tables.runs),
            scratch(&parts.tiles),
            Argument::Bytes(&heads),
            out,
            log_sum_exp,
        ];
        let grid = self.grid(parts.num_tiles, 0);
        self.core.launch_of(self.program(), "attention_join_parts", grid, &arguments);
    }

    /// A forward kernel over so many tiles.
    fn launch_forward(
        &self,
        kernel: &'static str,
        tables: &Tables,
        (tiles, num_tiles): (&Block, usize),
        [out, log_sum_exp]: [Argument<'_>; 2],
    ) {
        let heads = self.heads();
        let [q, k, v] = self.inputs.map(input);
        let (runs, slots) = (scratch(&tables.runs), scratch(&tables.slots));
        let heads = Argument::Bytes(&heads);
        let arguments = [q, k, v, runs, scratch(tiles), slots, heads, out, log_sum_exp];
        let grid = self.grid(num_tiles, self.layout().forward());
        self.core.launch_of(self.program(), kernel, grid, &arguments);
    }

    /// Sets `d_q`; adds to `d_k` and `d_v`.
    pub(crate) fn backward(
        &self,
        results: &Results<'_>,
        d_q: &mut Buffer,
        (d_k, d_v): (&mut Buffer, &mut Buffer),
    ) {
        let tables = self.tables();
        let delta = self.delta(results);
        let saved = bytes_of_u64(&[
            results.log_sum_exp.device().address(),
            delta.address(),
            results.d_out.device().address(),
        ]);
        let heads = self.heads();
        let [q, k, v] = self.inputs.map(input);
        let (heads, saved) = (Argument::Bytes(&heads), Argument::Bytes(&saved));
        let (runs, slots) = (scratch(&tables.runs), scratch(&tables.slots));
        let tiles = scratch(&tables.row_tiles);
        let grid = self.grid(tables.num_row_tiles, self.layout().backward_queries());
        let arguments = [q, k, v, runs, tiles, slots, heads, saved, output(d_q)];
        self.core.launch_of(self.program(), "attention_backward_queries", grid, &arguments);
        let keys = tables.keys(self.core, self.plan);
        let (tiles, readers) = (scratch(&keys.tiles), scratch(&keys.readers));
        let grid = self.grid(keys.num_tiles, self.layout().backward_keys());
        let arguments = [q, k, v, runs, tiles, readers, heads, saved, output(d_k), output(d_v)];
        self.core.launch_of(self.program(), "attention_backward_keys", grid, &arguments);
    }

    /// `rowsum(d_out · out)` of every query and head.
    fn delta(&self, results: &Results<'_>) -> Block {
        let rows = self.shape.queries * self.shape.heads;
        let delta = self.core.take_f32(rows);
        let rows_argument = Argument::U32(number(rows));
        let arguments = [input(results.out), input(results.d_out), rows_argument, scratch(&delta)];
        self.core.launch_of(self.program(), "attention_delta", Grid::warps(rows), &arguments);
        delta
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention_plan::{QueryRun, Span};

    fn run(query: usize, len: usize, spans: &[(usize, usize)], causal: bool) -> QueryRun {
        let spans: Vec<Span> = spans.iter().map(|&(slot, len)| Span { slot, len }).collect();
        let keys: usize = spans.iter().map(|span| span.len).sum();
        let first_position = if causal { keys - len } else { 0 };
        QueryRun { query, len, first_position, spans, causal }
    }

    #[test]
    fn parts_cover_the_keys_of_their_tile_in_blocks() {
        let plan = AttentionPlan {
            runs: vec![
                run(0, 1, &[(0, 1_000)], true),
                run(1, 30, &[(0, 700)], true),
                run(31, 1, &[], false),
            ],
        };
        let tiles = row_tiles(&plan, 4);
        let tile = |run, row, keys| RowTile { run, row, keys };
        let expected = [tile(0, 0, 1_000), tile(1, 0, 686), tile(1, 64, 700), tile(2, 0, 0)];
        assert_eq!(tiles, expected);
        let (parts, joined) = parts(&tiles, 256);
        for (tile, [run, row, first, count]) in tiles.iter().zip(joined) {
            assert_eq!((tile.run, tile.row), (run, row));
            let own = &parts[first..first + count];
            assert!(own.iter().all(|part| part[..2] == [run, row]));
            assert_eq!((own[0][2], own[count - 1][3]), (0, tile.keys));
            let meet =
                |pair: &[[usize; 4]]| pair[0][3] == pair[1][2] && pair[1][2].is_multiple_of(TILE);
            assert!(own.windows(2).all(meet), "{own:?}");
        }
    }

    #[test]
    fn keys_are_cut_where_blocks_are_few_and_contexts_long() {
        assert_eq!(part_keys(264, 8_192, 132), None, "every multiprocessor has work");
        assert_eq!(part_keys(3, 256, 132), None, "too short to cut");
        assert_eq!(part_keys(3, 8_192, 132), Some(256));
        assert_eq!(part_keys(100, 8_192, 132), Some(2_752));
        assert_eq!(part_keys(0, 0, 132), None);
    }

    #[test]
    fn every_visible_key_has_one_reader_a_run() {
        let plan = AttentionPlan {
            runs: vec![
                run(0, 70, &[(0, 70)], true),
                run(70, 5, &[(0, 70), (200, 5)], true),
                run(75, 2, &[(10, 130)], false),
            ],
        };
        let mut seen = vec![Vec::new(); plan.runs.len()];
        for (tile, readers) in readers(&plan) {
            for [run, slot, len, position] in readers {
                assert!(slot / TILE == tile && (slot + len - 1) / TILE == tile, "within the tile");
                seen[run].extend((0..len).map(|n| (position + n, slot + n)));
            }
        }
        for (run, mut seen) in plan.runs.iter().zip(seen) {
            seen.sort_unstable();
            let slots = run.spans.iter().flat_map(|span| span.slot..span.slot + span.len);
            let expected: Vec<_> = slots.enumerate().take(run.visible_keys()).collect();
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn heads_of_real_models_fit_the_shared_memory_of_their_devices() {
        let most = |head_dim, element| {
            let layout = Layout::new(head_dim, element);
            layout.forward().max(layout.backward_queries()).max(layout.backward_keys())
        };
        // 163 KiB on compute capability 8.0, 227 KiB on 9.0, 99 KiB on 8.6 and 8.9.
        assert!(most(128, Element::Bf16) <= 99 << 10);
        assert!(most(256, Element::Bf16) <= 163 << 10);
        assert!(most(128, Element::F32) <= 163 << 10);
        assert!(most(256, Element::F32) <= 227 << 10);
    }
}
