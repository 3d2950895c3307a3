//! Values by hand, finite differences, and how parts add up.

use super::*;

const CLIP: ClipRange = ClipRange { low: 0.2, high: 0.3 };

#[test]
fn the_four_corners_of_the_clip() {
    let loss = |ratio: f64, advantage| clipped_ratio_loss(ratio.ln(), advantage, CLIP);
    for (ratio, advantage, value, clipped) in [
        (1.5, 2.0, -2.6, true),
        (0.5, 2.0, -1.0, false),
        (1.5, -2.0, 3.0, false),
        (0.5, -2.0, 1.6, true),
        (1.1, 2.0, -2.2, false),
        (1.0, 0.0, 0.0, false),
    ] {
        let result = loss(ratio, advantage);
        assert!((result.loss - value).abs() < 1e-12, "{ratio}, {advantage}");
        assert_eq!(result.clipped, clipped, "{ratio}, {advantage}");
        let derivative = if clipped { 0.0 } else { value };
        assert!((result.d_log_ratio - derivative).abs() < 1e-12);
    }
}

#[test]
fn a_diverged_token_stays_finite() {
    let result = clipped_ratio_loss(1e5, -1.0, CLIP);
    assert!(result.loss.is_finite() && result.d_log_ratio == 0.0);
}

const NEW: [f64; 5] = [-1.0, -0.4, -2.2, -0.9, -1.7];
const OLD: [f64; 5] = [-1.1, -0.9, -2.0, -0.9, -1.2];
const REFERENCE: [f64; 5] = [-1.3, -0.5, -1.9, -0.2, -1.5];
const ADVANTAGES: [f64; 5] = [0.8, 0.8, -0.3, -1.1, -1.1];

fn batch<'a>(new: &'a [f64], lengths: &'a [usize]) -> TokenBatch<'a> {
    TokenBatch {
        logprobs_new: new,
        logprobs_old: &OLD,
        logprobs_reference: Some(&REFERENCE),
        advantages: &ADVANTAGES,
        lengths,
    }
}

fn configs() -> Vec<PolicyLossConfig> {
    let mut all = Vec::new();
    for ratio in [RatioLevel::Token, RatioLevel::Sequence] {
        for level in [LossLevel::Token, LossLevel::Sequence] {
            for kl_estimator in [KlEstimator::Off, KlEstimator::K1, KlEstimator::K3] {
                let kl_coefficient = 0.05;
                all.push(PolicyLossConfig {
                    clip: CLIP,
                    ratio,
                    level,
                    kl_estimator,
                    kl_coefficient,
                });
            }
        }
    }
    all
}

#[test]
fn derivatives_are_differences_in_every_configuration() {
    for config in configs() {
        let at = |new: &[f64]| policy_loss(&batch(new, &[2, 3]), &config, 4.0).unwrap();
        let result = at(&NEW);
        for t in 0..NEW.len() {
            let moved = |step: f64| {
                let mut new = NEW;
                new[t] += step;
                at(&new).loss
            };
            let numeric = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            let error = (numeric - result.d_logprobs[t]).abs();
            assert!(error < 1e-8, "{config:?}, token {t}: {numeric}");
        }
    }
}

#[test]
fn normalisation_by_tokens_and_by_sequences() {
    let ones = [0.0; 5];
    let batch = TokenBatch {
        logprobs_new: &ones,
        logprobs_old: &ones,
        logprobs_reference: None,
        advantages: &[1.0, 1.0, -1.0, -1.0, -1.0],
        lengths: &[2, 3],
    };
    let token = PolicyLossConfig::default();
    let by_token = policy_loss(&batch, &token, 5.0).unwrap();
    assert!((by_token.loss - 0.2).abs() < 1e-12);
    let sequence = PolicyLossConfig { level: LossLevel::Sequence, ..token };
    let by_sequence = policy_loss(&batch, &sequence, 2.0).unwrap();
    assert!(by_sequence.loss.abs() < 1e-12);
    assert!((by_sequence.d_logprobs[0] + 0.25).abs() < 1e-12);
    assert!((by_sequence.d_logprobs[4] - 1.0 / 6.0).abs() < 1e-12);
    assert!((by_token.mean_ratio - 1.0).abs() < 1e-12);
}

#[test]
fn micro_batches_add_up() {
    for config in configs() {
        let whole = policy_loss(&batch(&NEW, &[2, 3]), &config, 4.0).unwrap();
        let part = |from: usize, to: usize| {
            let batch = TokenBatch {
                logprobs_new: &NEW[from..to],
                logprobs_old: &OLD[from..to],
                logprobs_reference: Some(&REFERENCE[from..to]),
                advantages: &ADVANTAGES[from..to],
                lengths: &[to - from],
            };
            policy_loss(&batch, &config, 4.0).unwrap()
        };
        let (first, second) = (part(0, 2), part(2, 5));
        assert!((whole.loss - first.loss - second.loss).abs() < 1e-12);
        assert_eq!(whole.d_logprobs, [first.d_logprobs, second.d_logprobs].concat());
    }
}

#[test]
fn input_is_checked() {
    let config = PolicyLossConfig { kl_estimator: KlEstimator::K3, ..Default::default() };
    assert!(policy_loss(&batch(&NEW, &[2, 2]), &config, 1.0).is_err());
    assert!(policy_loss(&batch(&NEW[..4], &[2, 2]), &config, 1.0).is_err());
    assert!(policy_loss(&batch(&NEW, &[2, 3]), &config, 0.0).is_err());
    assert!(policy_loss(&batch(&NEW, &[usize::MAX, 6]), &config, 1.0).is_err());
    let without = TokenBatch { logprobs_reference: None, ..batch(&NEW, &[5]) };
    assert!(policy_loss(&without, &config, 1.0).is_err());
    let empty = TokenBatch {
        logprobs_new: &[],
        logprobs_old: &[],
        logprobs_reference: None,
        advantages: &[],
        lengths: &[],
    };
    assert_eq!(policy_loss(&empty, &PolicyLossConfig::default(), 1.0).unwrap().loss, 0.0);
    assert!(ClipRange { low: 1.5, high: 0.2 }.validate().is_err());
    assert!(ClipRange::default().validate().is_ok());
}
