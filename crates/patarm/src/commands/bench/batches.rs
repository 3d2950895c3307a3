//! Forests of random token ids, and the tokens of them that are predicted.

use patarm_models::kernels::random;
use patarm_models::{Forest, SegmentId, TargetRows};

use super::arithmetic::Load;
use super::sizes::Sizes;

/// Rows of one batch where a pair is learned from as rows.
const ROWS_TOGETHER: usize = 4;

/// A forest and the tokens of it that are predicted.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) forest: Forest,
    pub(super) targets: TargetRows,
}

impl Batch {
    fn new() -> Self {
        Self { forest: Forest::new(), targets: TargetRows::new() }
    }

    pub(super) fn load(&self) -> Load {
        Load::of_forest(&self.forest, self.targets.len())
    }
}

/// Random ids, a different list for every stream.
pub(super) fn ids(len: usize, vocab: usize, stream: usize) -> Vec<u32> {
    let draw = |n: usize| random::below(vocab, 0, &[stream as u64, n as u64]) as u32;
    (0..len).map(draw).collect()
}

/// Rows that share nothing; all their tokens but the first are predicted.
pub(super) fn rows(sizes: &Sizes, vocab: usize) -> Batch {
    let mut batch = Batch::new();
    for row in 0..sizes.rows {
        let segment = batch.forest.add(None, &ids(sizes.length, vocab, row));
        batch.targets.push_segment(&batch.forest, segment, 1);
    }
    batch
}

/// The batches a pair is learned from: `judgement(n)` are the tokens of its n-th
/// judgement, and all of them are predicted.
pub(super) fn pair(
    sizes: &Sizes,
    (vocab, pair): (usize, usize),
    judgement: &dyn Fn(usize) -> Vec<u32>,
) -> Vec<Batch> {
    let segments = tree_segments(sizes, vocab, pair);
    match sizes.shared {
        true => vec![tree(sizes, &segments, judgement)],
        false => paths(sizes, &segments, judgement),
    }
}

/// A prompt, two responses below it, judgements below each.
fn tree(sizes: &Sizes, segments: &[Vec<u32>; 3], judgement: &dyn Fn(usize) -> Vec<u32>) -> Batch {
    let mut batch = Batch::new();
    let [prompt, responses @ ..] = segments;
    let root = batch.forest.add(None, prompt);
    for (side, response) in responses.iter().enumerate() {
        let response = batch.forest.add(Some(root), response);
        for n in 0..sizes.branches {
            let tokens = judgement(side * sizes.branches + n);
            let segment: SegmentId = batch.forest.add(Some(response), &tokens);
            batch.targets.push_segment(&batch.forest, segment, 0);
        }
    }
    batch
}

/// The same judgements, each below a prompt and a response of its own.
fn paths(
    sizes: &Sizes,
    segments: &[Vec<u32>; 3],
    judgement: &dyn Fn(usize) -> Vec<u32>,
) -> Vec<Batch> {
    let [prompt, responses @ ..] = segments;
    let all: Vec<usize> = (0..2 * sizes.branches).collect();
    let batch_of = |chunk: &[usize]| {
        let mut batch = Batch::new();
        for &n in chunk {
            let above = [prompt.as_slice(), &responses[n / sizes.branches]].concat();
            let root = batch.forest.add(None, &above);
            let segment = batch.forest.add(Some(root), &judgement(n));
            batch.targets.push_segment(&batch.forest, segment, 0);
        }
        batch
    };
    all.chunks(ROWS_TOGETHER).map(batch_of).collect()
}

/// Ids of a pair's prompt and of its two responses.
pub(super) fn tree_segments(sizes: &Sizes, vocab: usize, pair: usize) -> [Vec<u32>; 3] {
    [(0, sizes.prompt), (1, sizes.response), (2, sizes.response)]
        .map(|(part, len)| ids(len, vocab, 3 * pair + part))
}

/// Texts of 20 to `sizes.length` tokens in packs of at most `pack` tokens: every
/// length between the two equally likely, none shared.
pub(super) fn texts(sizes: &Sizes, vocab: usize, pack: usize) -> Vec<Batch> {
    const SHORTEST: usize = 20;
    let span = sizes.length.saturating_sub(SHORTEST) + 1;
    let length = |n: usize| match sizes.length {
        short if short <= SHORTEST => short,
        _ => SHORTEST + random::below(span, 1, &[n as u64]),
    };
    let mut packs = vec![Batch::new()];
    for n in 0..sizes.rows {
        let tokens = ids(length(n), vocab, n);
        let has_room = packs.last().is_some_and(|batch| {
            let packed = batch.forest.num_tokens();
            packed == 0 || packed + tokens.len() <= pack
        });
        if !has_room {
            packs.push(Batch::new());
        }
        if let Some(batch) = packs.last_mut() {
            batch.forest.add(None, &tokens);
        }
    }
    packs
}

/// Prompts with `branches` responses each, a few prompts a pack; where nothing is shared,
/// each response below a copy of its own.
pub(super) fn prompts(sizes: &Sizes, vocab: usize, pack: usize) -> Vec<Batch> {
    let copies = if sizes.shared { 1 } else { sizes.branches };
    let one = copies * sizes.prompt + sizes.branches * sizes.length;
    let a_pack = (pack / one).max(1);
    let all: Vec<usize> = (0..sizes.rows).collect();
    let packed = all.chunks(a_pack).map(|chunk| {
        let mut batch = Batch::new();
        for &n in chunk {
            let stream = n * (sizes.branches + 1);
            let prompt = ids(sizes.prompt, vocab, stream);
            let mut root = batch.forest.add(None, &prompt);
            for branch in 1..=sizes.branches {
                if branch > 1 && !sizes.shared {
                    root = batch.forest.add(None, &prompt);
                }
                batch.forest.add(Some(root), &ids(sizes.length, vocab, stream + branch));
            }
        }
        batch
    });
    packed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: Sizes =
        Sizes { rows: 8, length: 128, prompt: 400, response: 200, branches: 8, shared: true };

    #[test]
    fn the_documented_step_saves_what_the_documentation_says() {
        let batches = pair(&TREE, (100, 0), &|n| ids(TREE.length, 100, n));
        let [batch] = batches.as_slice() else { panic!("a pair is one tree") };
        assert_eq!(batch.forest.num_tokens(), 400 + 2 * (200 + 8 * 128));
        assert_eq!(batch.forest.num_row_tokens(), 16 * 728);
        assert_eq!(batch.targets.len(), 16 * 128);
        let ratio = batch.forest.num_row_tokens() as f64 / batch.forest.num_tokens() as f64;
        assert!(ratio >= 3.0, "{ratio}");
    }

    #[test]
    fn rows_share_nothing() {
        let batch = rows(&Sizes { rows: 2, length: 5, ..TREE }, 50);
        assert_eq!(batch.forest.num_tokens(), batch.forest.num_row_tokens());
        assert_eq!(batch.targets.len(), 8);
        assert_ne!(ids(5, 50, 0), ids(5, 50, 1));
    }

    #[test]
    fn texts_are_all_there_and_packs_are_bounded() {
        let sizes = Sizes { rows: 100, length: 300, ..TREE };
        let packs = texts(&sizes, 50, 1_000);
        let tokens: Vec<usize> = packs.iter().map(|batch| batch.forest.num_tokens()).collect();
        assert!(tokens.iter().all(|count| (20..=1_000).contains(count)), "{tokens:?}");
        let roots: usize = packs.iter().map(|batch| batch.forest.num_segments()).sum();
        assert_eq!(roots, 100);
        let longer = texts(&Sizes { rows: 3, length: 8, ..TREE }, 50, 5);
        assert_eq!(longer.len(), 3, "a text longer than a pack has a pack of its own");
    }

    #[test]
    fn unshared_pairs_and_prompts_are_the_rows_of_the_shared_ones() {
        let rows = Sizes { shared: false, ..TREE };
        let judgement = |n: usize| ids(TREE.length, 100, n);
        let count = |batches: &[Batch]| {
            let tokens = batches.iter().map(|batch| batch.forest.num_tokens()).sum::<usize>();
            let rows = batches.iter().map(|batch| batch.forest.num_row_tokens()).sum::<usize>();
            let targets = batches.iter().map(|batch| batch.targets.len()).sum::<usize>();
            (tokens, rows, targets)
        };
        let (_, of_tree, targets) = count(&pair(&TREE, (100, 0), &judgement));
        assert_eq!(count(&pair(&rows, (100, 0), &judgement)), (of_tree, of_tree, targets));
        let (_, of_prompts, _) = count(&prompts(&TREE, 50, 4_000));
        assert_eq!(count(&prompts(&rows, 50, 4_000)), (of_prompts, of_prompts, 0));
    }

    #[test]
    fn prompts_are_stored_once() {
        let packs = prompts(&Sizes { rows: 5, length: 15, prompt: 40, ..TREE }, 50, 400);
        let tokens: Vec<usize> = packs.iter().map(|batch| batch.forest.num_tokens()).collect();
        assert_eq!(tokens, [320, 320, 160]);
    }
}
