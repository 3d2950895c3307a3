//! Golden values and properties of section 10.9's kind: filter, loss, ascent, toy.

use std::sync::Arc;

use patarm_models::energy::{Candidates, Dropout, EnergyNet, EnergyShape};
use patarm_models::kernels::{Cpu, random};
use patarm_models::{AdamWConfig, Gradients, Optimizer, OptimizerStates};
use patarm_text::{Conversation, Item};

use super::*;
use crate::model::RewardModel;

#[test]
fn an_energy_that_is_the_noise_costs_log_of_the_number_of_candidates() {
    for (negatives, expected) in [(768, 6.645_091), (1, std::f64::consts::LN_2)] {
        let noise = Noise { negatives, ..Noise::default() };
        let candidates = noise.candidates(1.3, (1, 2, 3));
        let log_noise: Vec<f64> = candidates.iter().map(|r| noise.log_density(*r, 1.3)).collect();
        let term = nce_plus(&log_noise, &log_noise, 0.0);
        assert!((term.loss - expected).abs() < 1e-6, "{}", term.loss);
        assert!((term.loss - ((negatives + 1) as f64).ln()).abs() < 1e-9);
    }
}

#[test]
fn the_loss_survives_energies_no_exponential_does() {
    let noise = [-2.0; 3];
    let term = nce_plus(&[-4000.0, 4000.0, 0.0], &noise, 0.0);
    assert_eq!(term.loss, 8000.0);
    assert_eq!(term.d_energies, [-1.0, 1.0, 0.0]);
}

#[test]
fn gradients_of_the_loss_are_finite_differences() {
    let energies = [0.3, -0.8, 1.7, 0.1];
    let noise = [-1.0, -2.5, -0.7, -3.0];
    let term = nce_plus(&energies, &noise, 0.3);
    for place in 0..energies.len() {
        let at = |by: f64| {
            let mut moved = energies;
            moved[place] += by;
            nce_plus(&moved, &noise, 0.3).loss
        };
        let numeric = (at(1e-6) - at(-1e-6)) / 2e-6;
        assert!((numeric - term.d_energies[place]).abs() < 1e-7);
    }
}

#[test]
fn candidates_have_the_deviations_of_the_mixture() {
    let noise = Noise { sigmas: vec![1.0, 3.0], beta: 0.5, negatives: 20_000 };
    let drawn = noise.candidates(2.0, (5, 1, 1));
    let negatives = &drawn[1..];
    let variance =
        negatives.iter().map(|r| (r - 2.0).powi(2)).sum::<f64>() / negatives.len() as f64;
    assert!((variance - 5.0).abs() < 0.25, "{variance}");
    let positives: Vec<f64> = (0..20_000)
        .map(|n| Noise { negatives: 1, ..noise.clone() }.candidates(2.0, (5, 1, n))[0])
        .collect();
    let variance =
        positives.iter().map(|r| (r - 2.0).powi(2)).sum::<f64>() / positives.len() as f64;
    assert!((variance - 1.25).abs() < 0.06, "{variance}");
    // The density integrates to one.
    let mass: f64 =
        (-4000..4000).map(|n| noise.log_density(f64::from(n) * 0.01, 2.0).exp() * 0.01).sum();
    assert!((mass - 1.0).abs() < 1e-6, "{mass}");
}

#[test]
fn the_filter_keeps_and_cleans_as_arithmetic_says() {
    // A base of clean accuracy a, labels flipped with probability e independently.
    for (a, e, kept, clean) in
        [(0.8, 0.25, 0.650, 0.923), (0.65, 0.25, 0.575, 0.848), (0.9, 0.25, 0.700, 0.964)]
    {
        let count = 60_000;
        let pair = |n: u64| {
            let is_right = random::uniform(1, &[n]) < a;
            let is_clean = random::uniform(2, &[n]) >= e;
            // The label names the truly better item unless it is flipped.
            let lead = if is_right == is_clean { 1.0 } else { -1.0 };
            let record = |reward: f64| Record { embedding: vec![f32::from(is_clean)], reward };
            [record(lead), record(0.0)]
        };
        let left = conflict_filter((0..count).map(pair).collect());
        let share = left.len() as f64 / count as f64;
        let cleaned = left.iter().filter(|[chosen, _]| chosen.embedding[0] > 0.0).count() as f64
            / left.len() as f64;
        assert!((share - kept).abs() < 0.01, "kept {share}, not {kept}");
        assert!((cleaned - clean).abs() < 0.01, "clean {cleaned}, not {clean}");
    }
    let tie = Record { embedding: vec![1.0], reward: 0.5 };
    assert!(conflict_filter(vec![[tie.clone(), tie]]).is_empty());
}

/// Two bumps for every item, the right one higher.
struct Bumps;

impl Energy for Bumps {
    fn at(&self, _: &[usize], rewards: &[f64]) -> Vec<(f64, f64)> {
        let bump = |r: f64, at: f64, height: f64| {
            let value = height * (-(r - at).powi(2)).exp();
            (value, -2.0 * (r - at) * value)
        };
        let one = |r: &f64| {
            let (left, right) = (bump(*r, -1.5, 1.0), bump(*r, 1.0, 2.0));
            (left.0 + right.0, left.1 + right.1)
        };
        rewards.iter().map(one).collect()
    }
}

/// The constants of the authors' run.
fn authors() -> Refinement {
    Refinement { gate: 2.0, range: 4.0, ..Refinement::default() }
}

#[test]
fn the_ascent_never_lowers_the_energy_and_ends_for_a_reason() {
    let config = authors();
    let starts: Vec<f64> = (-40..=40).map(|n| f64::from(n) * 0.1).collect();
    for found in refine(&Bumps, &starts, &config) {
        assert!(found.energy >= found.start_energy, "{found:?}");
        assert!(found.step < 1e-6 || found.steps == config.max_steps, "{found:?}");
    }
    let near = refine(&Bumps, &[0.3, -1.2], &Refinement { max_steps: 500, ..config });
    assert!((near[0].reward - 1.0).abs() < 0.02 && (near[1].reward + 1.5).abs() < 0.1, "{near:?}");
}

#[test]
fn a_reward_beyond_the_gate_is_never_a_start() {
    let config = authors();
    assert_eq!(config.start(1.9, 7, 0), 1.9);
    assert_eq!(config.start(-2.0, 7, 0), -2.0);
    let drawn: Vec<f64> = (0..2000).map(|key| config.start(5.0, key, 0)).collect();
    assert!(drawn.iter().all(|start| start.abs() <= 4.0 && *start != 5.0));
    let mean = drawn.iter().sum::<f64>() / 2000.0;
    assert!(mean.abs() < 0.2 && drawn.iter().any(|start| start.abs() > 3.5), "{mean}");
    assert_ne!(config.start(1.9, 7, 1), 1.9, "further starts are random");
}

#[test]
fn scales_go_there_and_back() {
    let rewards = [1.0, 2.0, 3.0, 6.0];
    let scale = Scaling::Standard { factor: 4.0 }.fit(&rewards);
    let scaled: Vec<f64> = rewards.iter().map(|reward| scale.scaled(*reward)).collect();
    let mean = scaled.iter().sum::<f64>() / 4.0;
    let deviation = (scaled.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / 4.0).sqrt();
    assert!(mean.abs() < 1e-12 && (deviation - 4.0).abs() < 1e-6);
    assert!((scale.unscaled(scale.scaled(5.5)) - 5.5).abs() < 1e-9);
    assert_eq!(Scaling::Raw {}.fit(&rewards).scaled(3.0), 3.0);
}

/// r | e ~ N(μ(e), s²) with μ(e) = sin(2 e_0) + e_1 / 2.
fn mu(embedding: &[f32]) -> f64 {
    f64::from((2.0 * embedding[0]).sin() + embedding[1] / 2.0)
}

fn toy_records(count: usize, s: f64, seed: u64) -> Vec<Record> {
    let one = |n: usize| {
        let draw = |what: u64| random::uniform(seed, &[what, n as u64]);
        let embedding = vec![2.0 * draw(0) as f32 - 1.0, 2.0 * draw(1) as f32 - 1.0];
        let reward = mu(&embedding) + s * random::normal(seed, &[2, n as u64]);
        Record { embedding, reward }
    };
    (0..count).map(one).collect()
}

/// Trains a small network by the loss alone: no dropout, no regularisation.
fn fit_toy(records: &[Record], noise: &Noise, steps: u64) -> EnergyNet {
    let shape = EnergyShape { embedding: 2, branch: vec![16, 16], joint: vec![48, 32] };
    let mut net = EnergyNet::fresh(Arc::new(Cpu::new(1)), shape, 1);
    let backend = Arc::clone(&net.backend);
    let mut optimizer = Optimizer::new(backend.as_ref(), &net.parameters, OptimizerStates::F32);
    let mut gradients = Gradients::zeros(backend.as_ref(), &net.parameters);
    let config = AdamWConfig { learning_rate: 4e-3, final_share: 0.01, ..AdamWConfig::default() };
    let batch = 128;
    for step in 1..=steps {
        gradients.clear(backend.as_ref());
        let chosen: Vec<usize> =
            (0..batch).map(|n| random::below(records.len(), 4, &[step, n as u64])).collect();
        let centres: Vec<f64> = chosen.iter().map(|n| records[*n].reward).collect();
        let sets: Vec<Vec<f64>> = centres
            .iter()
            .enumerate()
            .map(|(n, centre)| noise.candidates(*centre, (3, step, n as u64)))
            .collect();
        let each = noise.negatives + 1;
        let items: Vec<u32> = (0..batch * each).map(|row| (row / each) as u32).collect();
        let rewards: Vec<f32> = sets.iter().flatten().map(|r| *r as f32).collect();
        let flat: Vec<f32> =
            chosen.iter().flat_map(|n| records[*n].embedding.iter().copied()).collect();
        let embeddings = backend.upload(&flat);
        let candidates = Candidates { embeddings: &embeddings, items: &items, rewards: &rewards };
        let saved = net.forward(candidates, Dropout::Off);
        let mut d_values = Vec::with_capacity(rewards.len());
        for (n, set) in sets.iter().enumerate() {
            let own = &saved.values[n * each..(n + 1) * each];
            let energies: Vec<f64> = own.iter().map(|value| f64::from(*value)).collect();
            let log_noise: Vec<f64> =
                set.iter().map(|r| noise.log_density(*r, centres[n])).collect();
            let term = nce_plus(&energies, &log_noise, 0.0);
            d_values.extend(term.d_energies.iter().map(|d| (d / batch as f64) as f32));
        }
        let _ = net.backward((candidates, &saved), &d_values, &mut gradients);
        let rate = (config.learning_rate_at(step, steps), 1.0);
        optimizer.update(backend.as_ref(), &mut net.parameters, &gradients, &config, rate);
    }
    net
}

/// The argmax of a toy is its mean, and the curvature there that of the smoothed variance.
fn check_toy(s: f64) {
    // One σ of 3.5 and β = .1 move positives by a deviation of .35 (variance .1225).
    let noise = Noise { negatives: 48, ..Noise::default() };
    let smoothed: f64 = s * s + 0.1225;
    let net = fit_toy(&toy_records(4000, s, 8), &noise, 1500);
    let points = toy_records(60, s, 9);
    let energy = NetEnergy::new(&net, points.iter());
    let starts: Vec<f64> = points.iter().map(|point| mu(&point.embedding)).collect();
    let config = Refinement { step: 0.2, decay: 0.5, max_steps: 300, ..authors() };
    let found = refine(&energy, &starts, &config);
    let items: Vec<usize> = (0..points.len()).collect();
    // Slopes over a quarter of the deviation give a curvature above the noise of f32.
    let h = 0.25 * smoothed.sqrt();
    let at =
        |by: f64| energy.at(&items, &found.iter().map(|one| one.reward + by).collect::<Vec<_>>());
    let (up, down) = (at(h), at(-h));
    let curvature: f64 =
        items.iter().map(|n| (up[*n].1 - down[*n].1) / (2.0 * h)).sum::<f64>() / 60.0;
    let error =
        found.iter().zip(&starts).map(|(one, mu)| (one.reward - mu).abs()).sum::<f64>() / 60.0;
    assert!(error <= 0.1 * smoothed.sqrt(), "s = {s}: |r* − μ| = {error}");
    let variance = -1.0 / curvature;
    assert!((variance / smoothed - 1.0).abs() <= 0.15, "s = {s}: {variance}, not {smoothed}");
}

#[test]
fn a_toy_of_deviation_a_quarter_has_its_mean_and_smoothed_variance() {
    check_toy(0.25);
}

#[test]
fn a_toy_of_deviation_one_half_has_its_mean_and_smoothed_variance() {
    check_toy(0.5);
}

#[test]
fn a_toy_of_deviation_one_has_its_mean_and_smoothed_variance() {
    check_toy(1.0);
}

#[test]
fn a_toy_of_deviation_two_has_its_mean_and_smoothed_variance() {
    check_toy(2.0);
}

/// A base that reads features from the response, with an outlier direction in its head.
struct ToyBase {
    outlier: f64,
}

fn features(item: &Item) -> [f32; 2] {
    let mut numbers = item.response.split(' ').map(|word| word.parse::<f32>().unwrap_or(0.0));
    [numbers.next().unwrap_or(0.0), numbers.next().unwrap_or(0.0)]
}

impl EmbeddingModel for ToyBase {
    fn embed(&self, items: &[Item]) -> Vec<Result<Record, ItemFault>> {
        let one = |item: &Item| {
            if item.response.is_empty() {
                return Err(ItemFault::Engine("empty".into()));
            }
            let embedding = features(item).to_vec();
            let reward = mu(&embedding) + self.outlier * f64::from(embedding[0]).powi(3);
            Ok(Record { embedding, reward })
        };
        items.iter().map(one).collect()
    }

    fn width(&self) -> usize {
        2
    }

    fn name(&self) -> String {
        "toy".into()
    }
}

fn toy_config(net: &EnergyNet) -> EnergyConfig {
    EnergyConfig {
        version: EnergyConfig::VERSION,
        base: "toy".into(),
        base_head_sha256: String::new(),
        shape: net.shape.clone(),
        scale: RewardScale { shift: 0.0, factor: 1.0 },
        refinement: Refinement { max_steps: 200, decay: 0.5, ..authors() },
        mean: Some(0.0),
        std: Some(2.0),
    }
}

fn items(count: usize) -> Vec<Item> {
    let one = |n: usize| {
        let draw = |what: u64| 2.0 * random::uniform(31, &[what, n as u64]) - 1.0;
        Item { prompt: Conversation::from_user("q"), response: format!("{} {}", draw(0), draw(1)) }
    };
    (0..count).map(one).collect()
}

#[test]
fn refined_rewards_stay_in_range_and_order_better_when_the_head_goes_astray() {
    let noise = Noise { negatives: 48, ..Noise::default() };
    let net = fit_toy(&toy_records(2000, 0.3, 8), &noise, 500);
    let config = toy_config(&net);
    let score = |base: &ToyBase, items: &[Item]| {
        EnergyRewardModel { base, net: &net, config: &config, name: "ebrm".into() }.score(items)
    };
    // The head's reward runs away as x³ where the true one stays within ±1.5.
    let (base, mut items) = (ToyBase { outlier: -8.0 }, items(80));
    items.insert(3, Item { response: String::new(), ..items[0].clone() });
    let refined = score(&base, &items);
    assert!(refined[3].is_err(), "an item fails alone");
    let truth = |item: &Item| mu(&features(item));
    let raw = base.embed(&items);
    let (mut by_base, mut by_energy, mut num_pairs) = (0, 0, 0);
    for a in 0..items.len() {
        let Ok(reward) = &refined[a] else { continue };
        assert!(reward.value.abs() <= 4.0, "{}", reward.value);
        assert_eq!(reward.normalised, Some(reward.value / 2.0));
        for b in (0..a).filter(|b| refined[*b].is_ok()) {
            let is_above = truth(&items[a]) > truth(&items[b]);
            let raw = |n: usize| raw[n].as_ref().map_or(f64::NAN, |record| record.reward);
            let value = |n: usize| refined[n].as_ref().map_or(f64::NAN, |reward| reward.value);
            num_pairs += 1;
            by_base += usize::from((raw(a) > raw(b)) == is_above);
            by_energy += usize::from((value(a) > value(b)) == is_above);
        }
    }
    let shares = (by_base as f64 / num_pairs as f64, by_energy as f64 / num_pairs as f64);
    assert!(shares.1 > shares.0 + 0.1, "{shares:?}");
    // The same call gives the same bits, and so does any other company.
    assert_eq!(score(&base, &items), refined);
    for n in [0, 3, 17] {
        assert_eq!(score(&base, &items[n..=n])[0], refined[n]);
    }
    let remembered = Remembered::new(&base);
    assert_eq!(remembered.embed(&items), raw);
    assert_eq!(remembered.embed(&items[5..9]), raw[5..9]);
}

#[test]
fn damaged_descriptions_are_refused() {
    let net = EnergyNet::fresh(Arc::new(Cpu::new(1)), EnergyShape::small(2), 0);
    let good = toy_config(&net);
    assert!(good.check().is_ok());
    let text = serde_json::to_string(&good).expect("text");
    assert_eq!(serde_json::from_str::<EnergyConfig>(&text).expect("reads"), good);
    for bad in [
        EnergyConfig { version: 2, ..good.clone() },
        EnergyConfig { std: Some(0.0), ..good.clone() },
        EnergyConfig { scale: RewardScale { shift: 0.0, factor: 0.0 }, ..good.clone() },
        EnergyConfig { refinement: Refinement { starts: 0, ..good.refinement }, ..good.clone() },
        EnergyConfig { refinement: Refinement { decay: 1.0, ..good.refinement }, ..good.clone() },
        EnergyConfig { shape: EnergyShape { embedding: 0, ..good.shape.clone() }, ..good },
    ] {
        assert!(bad.check().is_err(), "{bad:?}");
    }
}
