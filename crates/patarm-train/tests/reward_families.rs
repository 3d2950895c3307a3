//! Token and ordinal reward models on a tiny decoder: a planted preference is found.

mod support;

use std::collections::HashMap;
use std::sync::Arc;

use patarm_models::files::{ModelConfig, RewardConfig, RewardFamily};
use patarm_models::kernels::Cpu;
use patarm_models::{Decoder, DecoderShape, HeadInit, LinearHead};
use patarm_reward::model::{Reward, RewardModel};
use patarm_reward::ordinal::{OrdinalText, Quality, RegionShape};
use patarm_reward::scalar::ScalarText;
use patarm_reward::token_values::{TokenHead, TokenLossConfig};
use patarm_text::tokenizer::Tokenizer;
use patarm_text::{Comparison, Item};
use patarm_train::discriminative::{Objective, Schedule};
use patarm_train::oprm::{Oprm, ordinal_pairs, read_quality_labels};
use patarm_train::q_rm::QRm;
use patarm_train::reward_pairs::EncodedRewardPair;
use support::{fit_objective, planted, testdata};

fn tokenizer() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::from_file(&testdata("text/tokenizer.json")).expect("tokenizer"))
}

fn decoder(tokenizer: &Tokenizer) -> (ModelConfig, Decoder) {
    let mut config = ModelConfig::read(&testdata("models/tiny-llama/config.json")).expect("config");
    config.vocab_size = tokenizer.vocab_size().max(370);
    let mut shape = DecoderShape { tied: true, ..DecoderShape::from_config(&config) };
    shape.max_positions = 2048;
    let decoder = Decoder::random(Arc::new(Cpu::new(1)), shape, 7);
    (config, decoder)
}

/// Trains and returns the decoder.
fn fit(
    objective: &dyn Objective,
    (config, decoder): (ModelConfig, Decoder),
    steps: u64,
) -> Decoder {
    let schedule = Schedule { steps: Some(steps), batch: 8, ..Schedule::default() };
    fit_objective(objective, (&config, decoder), (schedule, 3e-3)).0
}

/// Rewards of (preferred, other) for held-out pairs.
fn held_out(objective: &dyn Objective, decoder: &Decoder) -> Vec<(Reward, Reward)> {
    let pairs = planted(24, 1000);
    let mut rewards = Vec::new();
    objective.with_model(decoder, &mut |model: &dyn RewardModel| {
        for pair in &pairs {
            let (chosen, rejected) = pair.chosen_rejected().expect("labelled");
            let mut both = model.score(&[chosen.clone(), rejected.clone()]).into_iter();
            let mut next = || both.next().expect("a result").expect("scored");
            rewards.push((next(), next()));
        }
    });
    rewards
}

fn accuracy(rewards: &[(Reward, Reward)]) -> f64 {
    let right = rewards.iter().filter(|(chosen, rejected)| chosen.value > rejected.value);
    right.count() as f64 / rewards.len() as f64
}

#[test]
fn token_values_find_the_preference_and_cover_the_response_only() {
    let tokenizer = tokenizer();
    let text = ScalarText::new(Arc::clone(&tokenizer)).expect("text");
    let (config, mut decoder) = decoder(&tokenizer);
    let head = LinearHead::attach(&mut decoder, "score", 1, (HeadInit::Zero {}, 0));
    let (pairs, _) = EncodedRewardPair::all(&planted(48, 0), &|item: &Item| text.encode(item));
    let objective = QRm {
        loss: TokenLossConfig { beta: 1.0, gamma: 0.0 },
        head: TokenHead(head),
        text: &text,
        pairs: &pairs,
        config: RewardConfig::new(RewardFamily::Token {}),
    };
    let decoder = fit(&objective, (config, decoder), 40);
    let rewards = held_out(&objective, &decoder);
    assert!(accuracy(&rewards) >= 0.95, "accuracy {}", accuracy(&rewards));
    let reward = &rewards[0].0;
    let values: Vec<f64> = reward.token_values.iter().map(|one| one.value).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    assert!((mean - reward.value).abs() < 1e-6, "the reward is the mean of its tokens");
    let shown: String = reward.token_values.iter().map(|one| one.text.as_str()).collect();
    assert!(shown.starts_with("yes"), "{shown}");
}

fn labels(pairs: &[Comparison]) -> HashMap<String, (Quality, Quality)> {
    let label = |item: &Item| match item.response.starts_with("yes") {
        true => Quality::Normal,
        false => Quality::Bad,
    };
    pairs.iter().map(|pair| (pair.id.clone(), (label(&pair.first), label(&pair.second)))).collect()
}

#[test]
fn ratings_find_the_preference_and_labels_place_them() {
    let tokenizer = tokenizer();
    let text = OrdinalText::new(Arc::clone(&tokenizer)).expect("digits");
    let pairs = planted(48, 0);
    let labelled = labels(&pairs);
    let ordinal = ordinal_pairs(&pairs, &text, (RegionShape::Flood, &labelled));
    assert_eq!((ordinal.pairs.len(), ordinal.labelled, ordinal.contradictions), (48, 48, 0));
    let objective = Oprm { text: &text, pairs: &ordinal.pairs };
    let decoder = fit(&objective, decoder(&tokenizer), 60);
    let rewards = held_out(&objective, &decoder);
    assert!(accuracy(&rewards) >= 0.95, "accuracy {}", accuracy(&rewards));
    for (chosen, rejected) in &rewards {
        assert!((chosen.distribution.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(chosen.variance.is_some_and(|variance| variance >= 0.0));
        // Normal over bad: all mass within ratings 1 to 6.
        assert!(chosen.value < 6.5 && rejected.value < 4.0, "{chosen:?} {rejected:?}");
    }
}

#[test]
fn contradicting_labels_are_dropped_and_counted() {
    let text = OrdinalText::new(tokenizer()).expect("digits");
    let pairs = planted(4, 0);
    let mut labelled = labels(&pairs);
    let (chosen, rejected) = labelled[&pairs[0].id];
    labelled.insert(pairs[0].id.clone(), (rejected, chosen));
    labelled.remove(&pairs[1].id);
    let found = ordinal_pairs(&pairs, &text, (RegionShape::Flood, &labelled));
    assert_eq!((found.pairs.len(), found.labelled, found.contradictions), (3, 2, 1));
}

#[test]
fn files_of_labels_are_read_strictly() {
    let good = "{\"id\": \"a\", \"first\": \"good\", \"second\": \"bad\"}\n\n";
    let labels = read_quality_labels(good).expect("valid");
    assert_eq!(labels["a"], (Quality::Good, Quality::Bad));
    for bad in [
        "{\"id\": \"a\", \"first\": \"great\", \"second\": \"bad\"}",
        "{\"id\": \"a\", \"first\": \"good\"}",
        "not json",
    ] {
        let message = read_quality_labels(bad).expect_err("refused").to_string();
        assert!(message.contains("line 1"), "{message}");
    }
    let twice = format!("{good}{good}");
    assert!(read_quality_labels(&twice).expect_err("twice").to_string().contains("twice"));
}
