//! A tree computes what its rows compute: values to the last bit, gradients
//! closely; and what is in the batch beside a sequence changes nothing.

mod support;

use patarm_models::kernels::{Backend, Cpu};
use patarm_models::targets::Target;
use patarm_models::{Decoder, Forest, ForwardOptions, SegmentId, TargetRows};
use std::sync::Arc;
use support::{bf16, loss_and_gradients, relative_error, testdata, tiny, tiny_in_both};

const MODELS: [&str; 3] = ["tiny-llama", "tiny-qwen2", "tiny-qwen3"];

/// Segments of a small tree: tokens and parent.
fn tree() -> Vec<(Option<usize>, Vec<u32>)> {
    let tokens =
        |seed: u32, len: u32| (0..len).map(|n| (seed * 17 + n * 7 + n * n) % 70 + 1).collect();
    vec![
        (None, tokens(1, 61)),
        (Some(0), tokens(2, 5)),
        (Some(0), tokens(3, 1)),
        (Some(1), tokens(4, 9)),
        (Some(1), tokens(5, 70)),
        (Some(2), tokens(6, 3)),
        (None, tokens(7, 4)),
        (Some(6), tokens(8, 2)),
    ]
}

const LEAVES: [usize; 4] = [3, 4, 5, 7];

fn build(segments: &[(Option<usize>, Vec<u32>)]) -> (Forest, Vec<SegmentId>) {
    let (mut forest, mut ids) = (Forest::new(), Vec::<SegmentId>::new());
    for (parent, tokens) in segments {
        ids.push(forest.add(parent.map(|index| ids[index]), tokens));
    }
    (forest, ids)
}

fn path(segments: &[(Option<usize>, Vec<u32>)], leaf: usize) -> Vec<u32> {
    let (parent, tokens) = &segments[leaf];
    let mut all = parent.map_or_else(Vec::new, |parent| path(segments, parent));
    all.extend_from_slice(tokens);
    all
}

fn logprobs(decoder: &Decoder, forest: &Forest, targets: &TargetRows) -> Vec<f32> {
    let saved = decoder.forward(forest, &ForwardOptions::default()).expect("forward");
    decoder.target_statistics(&saved.hidden, targets, 0.8).logprobs
}

/// Targets: the tokens of the leaf, in the tree and in its own row.
fn leaf_values(decoder: &Decoder) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let segments = tree();
    let (forest, ids) = build(&segments);
    let in_tree = LEAVES.map(|leaf| {
        let mut targets = TargetRows::new();
        targets.push_segment(&forest, ids[leaf], 0);
        logprobs(decoder, &forest, &targets)
    });
    let in_rows = LEAVES.map(|leaf| {
        let row = path(&segments, leaf);
        let own = segments[leaf].1.len();
        let mut single = Forest::new();
        let root = single.add(None, &row);
        let mut targets = TargetRows::new();
        targets.push_segment(&single, root, row.len() - own);
        logprobs(decoder, &single, &targets)
    });
    (in_tree.to_vec(), in_rows.to_vec())
}

#[test]
fn values_in_a_tree_equal_values_in_rows_bit_for_bit() {
    for decoder in MODELS.into_iter().flat_map(tiny_in_both) {
        let (in_tree, in_rows) = leaf_values(&decoder);
        assert_eq!(in_tree, in_rows, "{}", decoder.backend.name());
    }
}

#[test]
fn values_do_not_depend_on_threads() {
    let load = |backend: Arc<dyn Backend>| {
        Decoder::load(backend, &testdata("models/tiny-qwen2")).expect("loads")
    };
    let single = [1, 2].map(|threads| leaf_values(&load(Arc::new(Cpu::new(threads)))));
    assert_eq!(single[0], single[1]);
    let bf16 = [1, 2].map(|threads| leaf_values(&load(bf16(threads))));
    assert_eq!(bf16[0], bf16[1]);
    assert_ne!(single[0], bf16[0]);
}

#[test]
fn gradients_of_a_tree_equal_those_of_its_rows() {
    for name in MODELS {
        let decoder = tiny(name);
        let segments = tree();
        let (forest, ids) = build(&segments);
        let (mut targets, mut rows, mut row_targets) =
            (TargetRows::new(), Forest::new(), TargetRows::new());
        for leaf in LEAVES {
            targets.push_segment(&forest, ids[leaf], 0);
            let row = path(&segments, leaf);
            let root = rows.add(None, &row);
            row_targets.push_segment(&rows, root, row.len() - segments[leaf].1.len());
        }
        let weights: Vec<f32> = (0..targets.len()).map(|n| 0.01 * (n as f32 - 20.0)).collect();
        let options = ForwardOptions::default();
        let (tree_loss, in_tree) =
            loss_and_gradients(&decoder, &forest, &targets, &weights, &options);
        let (row_loss, in_rows) =
            loss_and_gradients(&decoder, &rows, &row_targets, &weights, &options);
        assert!((tree_loss - row_loss).abs() < 1e-5);
        for (id, parameter) in decoder.parameters.iter() {
            let (a, b) = (in_tree.get(id).expect("gradient"), in_rows.get(id).expect("gradient"));
            let error = relative_error(a.host(), b.host());
            assert!(error <= 1e-5, "{name}: {} differs by {error:e}", parameter.name);
        }
    }
}

#[test]
fn the_gradient_of_a_branching_loss_matches_finite_differences() {
    let mut decoder = tiny("tiny-qwen3");
    let (forest, ids) = build(&tree());
    let mut targets = TargetRows::new();
    targets.push(Target { row: forest.last_row(ids[1]), ids: vec![3, 9, 27] });
    targets.push_segment(&forest, ids[3], 0);
    targets.push_segment(&forest, ids[5], 0);
    let weights: Vec<f32> = (0..targets.len() + 2).map(|n| 0.3 - 0.05 * n as f32).collect();
    let options = ForwardOptions::default();
    let (_, gradients) = loss_and_gradients(&decoder, &forest, &targets, &weights, &options);
    let ids_to_check: Vec<_> =
        decoder.parameters.iter().map(|(id, parameter)| (id, parameter.name.clone())).collect();
    for (id, name) in ids_to_check {
        let gradient = gradients.get(id).expect("gradient").host().to_vec();
        // The derivative along the gradient itself is its squared norm.
        let norm: f64 = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let step = 2e-3 / norm.max(1e-6);
        let mut at = |sign: f64| {
            let value = decoder.parameters.get_mut(id).value.host_mut();
            value.iter_mut().zip(&gradient).for_each(|(v, g)| *v += (sign * step) as f32 * g);
            let (loss, _) = loss_and_gradients(&decoder, &forest, &targets, &weights, &options);
            let value = decoder.parameters.get_mut(id).value.host_mut();
            value.iter_mut().zip(&gradient).for_each(|(v, g)| *v -= (sign * step) as f32 * g);
            loss
        };
        let slope = (at(1.0) - at(-1.0)) / (2.0 * step);
        let error = (slope - norm * norm).abs() / (norm * norm);
        assert!(error < 2e-2, "{name}: slope {slope}, gradient {}", norm * norm);
    }
}

#[test]
fn gradients_in_bfloat16_are_close_to_those_in_single_precision() {
    for name in MODELS {
        let (forest, ids) = build(&tree());
        let mut targets = TargetRows::new();
        for leaf in LEAVES {
            targets.push_segment(&forest, ids[leaf], 0);
        }
        let weights: Vec<f32> = (0..targets.len()).map(|n| 0.01 * (n as f32 - 20.0)).collect();
        let options = ForwardOptions::default();
        let [single, bf16] = tiny_in_both(name);
        let (loss, expected) = loss_and_gradients(&single, &forest, &targets, &weights, &options);
        let (found_loss, found) = loss_and_gradients(&bf16, &forest, &targets, &weights, &options);
        assert!((loss - found_loss).abs() < 2e-2 * loss.abs().max(1.0), "{loss} {found_loss}");
        for (id, parameter) in single.parameters.iter() {
            let (a, b) = (found.get(id).expect("gradient"), expected.get(id).expect("gradient"));
            let error = relative_error(a.host(), b.host());
            // Eight bits of mantissa through two blocks and back.
            assert!(error <= 4e-2, "{name}: {} differs by {error:e}", parameter.name);
        }
    }
}

#[test]
fn freezing_lower_blocks_leaves_the_gradients_above_unchanged() {
    let full = tiny("tiny-llama");
    let mut frozen = tiny("tiny-llama");
    frozen.freeze_below(1);
    let (forest, ids) = build(&tree());
    let mut targets = TargetRows::new();
    targets.push_segment(&forest, ids[4], 0);
    let weights = vec![0.1; targets.len()];
    let options = ForwardOptions::default();
    let (_, expected) = loss_and_gradients(&full, &forest, &targets, &weights, &options);
    let (_, found) = loss_and_gradients(&frozen, &forest, &targets, &weights, &options);
    for (id, parameter) in frozen.parameters.iter() {
        match found.get(id) {
            Some(gradient) => {
                assert_eq!(
                    gradient.host(),
                    expected.get(id).expect("gradient").host(),
                    "{}",
                    parameter.name
                );
            }
            None => assert!(!parameter.trainable),
        }
    }
}
