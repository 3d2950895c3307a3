//! A GGUF model whose matrices stay quantised, of every type that is read: values near
//! those of the dequantised model, the promises about bits, less memory, and adapters
//! that train beside frozen quantised weights.
#![allow(missing_docs, reason = "a test")]

mod support;

use std::path::Path;
use std::sync::Arc;

use half::f16;
use patarm_files::{GgufWriter, TensorType, open_model};
use patarm_models::kernels::{Backend, Cpu, CpuOptions, Precision, random};
use patarm_models::{
    AdamWConfig, Decoder, Forest, ForwardOptions, LoraConfig, Optimizer, OptimizerStates,
    TargetRows,
};
use support::{cpu, loss_and_gradients, relative_error, rows, testdata};

/// Inner widths are whole blocks of 256, which two of the types need.
const WIDTH: usize = 256;
const VOCAB: usize = 90;
const LAYERS: usize = 2;

/// Name in a layer, rows and stored type of every matrix.
const MATRICES: [(&str, usize, TensorType); 7] = [
    ("attn_q", WIDTH, TensorType::Q4_0),
    ("attn_k", WIDTH / 2, TensorType::Q4_1),
    ("attn_v", WIDTH / 2, TensorType::Q5_0),
    ("attn_output", WIDTH, TensorType::Q6K),
    ("ffn_gate", WIDTH, TensorType::Q4K),
    ("ffn_up", WIDTH, TensorType::Q8_0),
    ("ffn_down", WIDTH, TensorType::Q4_1),
];

/// Values and bytes of a block, and the half-precision numbers in it that give values a
/// deviation of about 1 / √256: `(place, number)`.
fn layout(tensor_type: TensorType) -> (usize, usize, &'static [(usize, f32)]) {
    match tensor_type {
        TensorType::Q4_0 => (32, 18, &[(0, 0.0156)]),
        TensorType::Q4_1 => (32, 20, &[(0, 0.0156), (2, -0.117)]),
        TensorType::Q5_0 => (32, 22, &[(0, 0.0078)]),
        TensorType::Q8_0 => (32, 34, &[(0, 0.001)]),
        TensorType::Q4K => (256, 144, &[(0, 0.0004), (2, 0.003)]),
        TensorType::Q6K => (256, 210, &[(208, 0.00005)]),
        other => panic!("{other} is not quantised"),
    }
}

fn stored(tensor_type: TensorType, len: usize, stream: u64) -> Vec<u8> {
    let (values, bytes, numbers) = layout(tensor_type);
    let byte = |n: usize| (256.0 * random::uniform(stream, &[n as u64])) as u8;
    let mut stored: Vec<u8> = (0..len / values * bytes).map(byte).collect();
    for block in stored.chunks_exact_mut(bytes) {
        for &(place, number) in numbers {
            block[place..place + 2].copy_from_slice(&f16::from_f32(number).to_le_bytes());
        }
    }
    stored
}

fn write_model(path: &Path) {
    let mut file = GgufWriter::new();
    file.metadata("general.architecture", "llama");
    for (key, value) in [
        ("llama.embedding_length", WIDTH),
        ("llama.feed_forward_length", WIDTH),
        ("llama.block_count", LAYERS),
        ("llama.attention.head_count", 4),
        ("llama.attention.head_count_kv", 2),
        ("llama.context_length", 64),
        ("tokenizer.ggml.bos_token_id", 0),
        ("tokenizer.ggml.eos_token_id", 1),
    ] {
        file.metadata(key, value as u32);
    }
    file.metadata("llama.attention.layer_norm_rms_epsilon", 1e-5_f32);
    let table = stored(TensorType::Q8_0, VOCAB * WIDTH, 1);
    file.tensor_bytes("token_embd.weight", &[VOCAB, WIDTH], TensorType::Q8_0, table);
    file.tensor_f32("output_norm.weight", &[WIDTH], &[1.0; WIDTH]).expect("shape");
    for layer in 0..LAYERS {
        for (n, (name, rows, kind)) in MATRICES.into_iter().enumerate() {
            let bytes = stored(kind, rows * WIDTH, (100 * layer + n + 2) as u64);
            file.tensor_bytes(&format!("blk.{layer}.{name}.weight"), &[rows, WIDTH], kind, bytes);
        }
        for norm in ["attn_norm", "ffn_norm"] {
            let name = format!("blk.{layer}.{norm}.weight");
            file.tensor_f32(&name, &[WIDTH], &[1.0; WIDTH]).expect("shape");
        }
    }
    file.write(path).expect("written");
}

fn quantised(threads: usize) -> Arc<dyn Backend> {
    let options = CpuOptions { threads, precision: Precision::Quantised, ..CpuOptions::default() };
    Arc::new(Cpu::with_options(&options).expect("detected instructions are present"))
}

fn load(backend: Arc<dyn Backend>) -> Decoder {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("model.gguf");
    write_model(&path);
    Decoder::load(backend, &path).expect("loads")
}

fn sequences() -> Vec<Vec<u32>> {
    let token = |row: usize, n: usize| ((row * 31 + n * 17) % VOCAB) as u32;
    [12, 3, 20]
        .into_iter()
        .enumerate()
        .map(|(r, len)| (0..len).map(|n| token(r, n)).collect())
        .collect()
}

fn logprobs(decoder: &Decoder, forest: &Forest, targets: &TargetRows) -> Vec<f32> {
    let (hidden, _) = decoder.infer(forest, &[]).expect("runs");
    decoder.target_statistics(&hidden, targets, 1.0).logprobs
}

/// Rounding activations to eight bits by blocks of 32 (half a step, 1 / 254 of the
/// largest, at most; about 0.6 % of a product in the mean square) through two blocks.
#[test]
fn log_probabilities_are_near_those_of_the_dequantised_model() {
    let (forest, targets, _) = rows(&sequences());
    let [dense, found] = [cpu(), quantised(2)].map(load).map(|d| logprobs(&d, &forest, &targets));
    let largest = dense.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(largest > 0.0 && largest < 0.1, "{largest}");
    let spread = dense.iter().fold(f32::MIN, |m, x| m.max(*x))
        - dense.iter().fold(f32::MAX, |m, x| m.min(*x));
    assert!(spread > 1.0, "a model whose rows all look alike would prove nothing: {spread}");
}

#[test]
fn matrices_take_less_memory_and_are_frozen() {
    let decoders = [cpu(), quantised(1)].map(load);
    let bytes = |decoder: &Decoder| -> usize {
        decoder.parameters.iter().map(|(_, entry)| entry.value.num_bytes()).sum()
    };
    let [dense, found] = [bytes(&decoders[0]), bytes(&decoders[1])];
    assert!(found * 4 < dense, "{found} bytes of {dense}");
    let [dense, found] = &decoders;
    assert!(!dense.parameters.has_quantised() && found.parameters.has_quantised());
    for ((_, dense), (_, found)) in dense.parameters.iter().zip(found.parameters.iter()) {
        let is_matrix = dense.shape.len() == 2;
        assert_eq!(found.value.is_quantised(), is_matrix, "{}", found.name);
        assert_eq!(found.trainable, !is_matrix, "{}", found.name);
    }
    for ((_, entry), (_, stays)) in dense.parameters.iter().zip(found.parameters.iter()) {
        let mut values = vec![0.0; entry.value.len()];
        found.backend.download(&stays.value, &mut values);
        assert_eq!(entry.value.host(), values, "{}", entry.name);
    }
}

#[test]
fn trees_rows_batches_and_threads_give_the_same_bits() {
    let decoder = load(quantised(2));
    let (prompt, sides) = ([5, 6, 7, 8, 9], [vec![10, 11, 12], vec![13], vec![14; 9]]);
    let (mut tree, mut in_tree) = (Forest::new(), TargetRows::new());
    let root = tree.add(None, &prompt);
    for side in &sides {
        let leaf = tree.add(Some(root), side);
        in_tree.push_segment(&tree, leaf, 0);
    }
    let single = |decoder: &Decoder| -> Vec<f32> {
        let alone = |side: &Vec<u32>| {
            let (mut row, mut targets) = (Forest::new(), TargetRows::new());
            let root = row.add(None, &[&prompt, side.as_slice()].concat());
            targets.push_segment(&row, root, prompt.len());
            logprobs(decoder, &row, &targets)
        };
        sides.iter().flat_map(alone).collect()
    };
    assert_eq!(logprobs(&decoder, &tree, &in_tree), single(&decoder));
    assert_eq!(single(&decoder), single(&load(quantised(1))));
}

fn adapted(backend: Arc<dyn Backend>) -> Decoder {
    let mut decoder = load(backend);
    let config = LoraConfig { rank: 4, alpha: 8.0, ..LoraConfig::default() };
    decoder.attach_adapter(&config, 3).expect("attaches");
    // B is zero at first, and would leave A without a gradient.
    let each = decoder.parameters.iter().filter(|(_, entry)| entry.name.contains("lora_B"));
    let moved: Vec<_> = each.map(|(id, entry)| (id, entry.value.len())).collect();
    for (id, len) in moved {
        let values: Vec<f32> =
            (0..len).map(|n| 0.02 * random::normal(9, &[n as u64]) as f32).collect();
        let value = decoder.backend.upload(&values);
        let backend = decoder.backend.clone();
        decoder.parameters.replace(backend.as_ref(), id, value);
    }
    decoder
}

#[test]
fn gradients_of_an_adapter_are_near_those_beside_dense_weights() {
    let (forest, targets, _) = rows(&sequences());
    let weights = vec![0.1; targets.len()];
    let options = ForwardOptions::default();
    let [dense, found] = [cpu(), quantised(2)].map(adapted);
    let (_, expected) = loss_and_gradients(&dense, &forest, &targets, &weights, &options);
    let (_, gradients) = loss_and_gradients(&found, &forest, &targets, &weights, &options);
    for (id, entry) in found.parameters.iter() {
        let Some(gradient) = gradients.get(id) else {
            assert!(!entry.trainable && expected.get(id).is_none(), "{}", entry.name);
            continue;
        };
        let error = relative_error(gradient.host(), expected.get(id).expect("gradient").host());
        assert!(error > 0.0 && error < 5e-2, "{} differs by {error:e}", entry.name);
    }
}

#[test]
fn training_steps_move_the_adapter_alone_and_lower_the_loss() {
    let mut decoder = adapted(quantised(2));
    let backend = decoder.backend.clone();
    let all = |decoder: &Decoder| -> Vec<Vec<f32>> {
        let each = decoder.parameters.iter().map(|(_, entry)| {
            let mut values = vec![0.0; entry.value.len()];
            decoder.backend.download(&entry.value, &mut values);
            values
        });
        each.collect()
    };
    let (forest, targets, _) = rows(&sequences());
    let weights = vec![1.0 / targets.len() as f32; targets.len()];
    let options = ForwardOptions::default();
    let before = all(&decoder);
    let mut optimizer = Optimizer::new(backend.as_ref(), &decoder.parameters, OptimizerStates::F32);
    let mut losses = Vec::new();
    for _ in 0..6 {
        let (loss, gradients) = loss_and_gradients(&decoder, &forest, &targets, &weights, &options);
        losses.push(loss);
        let (parameters, config) = (&mut decoder.parameters, AdamWConfig::default());
        optimizer.update(backend.as_ref(), parameters, &gradients, &config, (5e-3, 1.0));
    }
    assert!(losses.is_sorted_by(|a, b| a > b), "{losses:?}");
    assert!(losses[5] < 0.9 * losses[0], "{losses:?}");
    for ((before, after), (_, entry)) in
        before.iter().zip(all(&decoder)).zip(decoder.parameters.iter())
    {
        let is_adapter = entry.name.contains(".lora_");
        assert_eq!(*before != after, is_adapter, "{}", entry.name);
    }
    // Merged, the same model in single precision beside unrounded activations.
    let unmerged = logprobs(&decoder, &forest, &targets);
    decoder.merge_adapter();
    let merged = logprobs(&decoder, &forest, &targets);
    let largest = unmerged.iter().zip(&merged).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(largest < 0.2, "{largest}");
}

#[test]
fn matrices_in_floating_point_are_rounded_where_their_rows_are_whole_blocks() {
    let files = open_model(&testdata("models/tiny-llama")).expect("opens");
    let [dense, found] =
        [cpu(), quantised(1)].map(|backend| Decoder::from_files(backend, &files).expect("loads"));
    for ((_, dense), (_, found)) in dense.parameters.iter().zip(found.parameters.iter()) {
        let rounded = matches!(dense.shape[..], [_, columns] if columns.is_multiple_of(32));
        assert_eq!(found.value.is_quantised(), rounded, "{}", found.name);
    }
    let vocab = dense.shape.vocab as u32;
    let short = |ids: Vec<u32>| ids.into_iter().map(|id| id % vocab).collect();
    let (forest, targets, _) = rows(&sequences().into_iter().map(short).collect::<Vec<_>>());
    let [dense, found] = [dense, found].map(|decoder| logprobs(&decoder, &forest, &targets));
    let largest = dense.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let [low, high] = [f32::min as fn(f32, f32) -> f32, f32::max]
        .map(|pick| dense.iter().copied().reduce(pick).unwrap_or(f32::NAN));
    // Rows of one or two blocks: errors of a hundredth a product hardly average out.
    assert!(largest > 0.0 && largest < 0.05 * (high - low), "{largest} of {low} to {high}");
}
