//! Single labels on a tiny decoder: what the head sees, what ties do, what is reported.

mod support;

use std::sync::Arc;

use patarm_models::files::{ModelConfig, RewardConfig};
use patarm_models::kernels::{Cpu, random};
use patarm_models::reward_checkpoint::fresh_scalar_head;
use patarm_models::{Decoder, DecoderShape, HeadInit};
use patarm_reward::pass_fail::PassFail;
use patarm_reward::scalar::ScalarText;
use patarm_reward::win_tie::{Outcome, WinTieConfig};
use patarm_text::dataset::LabelledItem;
use patarm_text::pass_fail::{PairUp, pair_up};
use patarm_text::tokenizer::Tokenizer;
use patarm_text::{Comparison, Conversation, Item, Preference};
use patarm_train::discriminative::{Objective, Schedule};
use patarm_train::soli_reward::{
    HeadKind, LabelledResponses, SoliReward, SoliRewardConfig, win_tie_pairs,
};
use support::{fit_objective, testdata};

/// Twelve words, one of which, somewhere in the middle, decides.
fn labelled(count: usize, seed: u64) -> Vec<LabelledItem> {
    const WORDS: [&str; 6] = ["one", "two", "the", "and", "for", "with"];
    let one = |n: usize| {
        let draw = |what: u64, bound: usize| random::below(bound, seed, &[what, n as u64]);
        let passes = n.is_multiple_of(2);
        let mut words: Vec<&str> = (0..12).map(|place| WORDS[draw(place, WORDS.len())]).collect();
        words[2 + draw(50, 7)] = if passes { "yes" } else { "no" };
        LabelledItem {
            id: format!("{seed}-{n}"),
            item: Item {
                prompt: Conversation::from_user(format!("q{n}")),
                response: words.join(" "),
            },
            passes,
        }
    };
    (0..count).map(one).collect()
}

fn pairs(count: usize, seed: u64) -> Vec<Comparison> {
    let wins = 4 * count;
    pair_up(&labelled(count, seed), PairUp { wins, ties: wins / 2, seed }).expect("pairs")
}

/// Trains a head of a kind on a frozen decoder and measures it on held-out responses.
fn fit(head: HeadKind, steps: u64) -> (PassFail, Vec<serde_json::Value>) {
    let tokenizer = Tokenizer::from_file(&testdata("text/tokenizer.json")).expect("tokenizer");
    let text = ScalarText::new(Arc::new(tokenizer)).expect("text");
    let mut config = ModelConfig::read(&testdata("models/tiny-llama/config.json")).expect("config");
    config.vocab_size = text.tokenizer().vocab_size().max(370);
    let mut shape = DecoderShape { tied: true, ..DecoderShape::from_config(&config) };
    shape.max_positions = 256;
    let num_layers = shape.layers;
    let mut decoder = Decoder::random(Arc::new(Cpu::new(1)), shape, 7);
    let own = SoliRewardConfig { head, ..SoliRewardConfig::default() };
    let reward = RewardConfig::new(own.family());
    let head = fresh_scalar_head(&mut decoder, &reward, (HeadInit::Zero {}, 3)).expect("fits");
    decoder.freeze_below(num_layers);
    let (pairs, left_out) = win_tie_pairs(&pairs(96, 1), &|item: &Item| text.encode(item));
    assert!(left_out.is_empty());
    let held_out = LabelledResponses::of(&self::pairs(64, 2));
    let objective = SoliReward {
        loss: WinTieConfig { tie_weight: 0.2, ..WinTieConfig::default() },
        head,
        text: &text,
        pairs: &pairs,
        held_out: &held_out,
        config: reward,
    };
    let schedule = Schedule { steps: Some(steps), batch: 16, ..Schedule::default() };
    let (decoder, metrics) = fit_objective(&objective, (&config, decoder), (schedule, 5e-3));
    let mut found = None;
    objective.with_model(&decoder, &mut |model| found = held_out.measure(model));
    let rows = metrics.lines().map(|line| serde_json::from_str(line).expect("json")).collect();
    (found.expect("measured"), rows)
}

#[test]
fn query_attention_sees_a_token_in_the_middle_that_the_last_one_does_not() {
    let (linear, _) = fit(HeadKind::LastToken {}, 60);
    let (hpqa, rows) = fit(HeadKind::Hpqa { layers: vec![1, 2], heads: 4 }, 60);
    assert!(hpqa.auc >= 0.95, "{hpqa:?}");
    assert!(hpqa.auc >= linear.auc + 0.1, "{hpqa:?} {linear:?}");
    let first = rows[0]["loss"].as_f64().expect("number");
    let share = rows[0]["tie_share"].as_f64().expect("number");
    // A zero output: ln 2 a win, 0.2 · 2 ln 2 a tie.
    let expected = std::f64::consts::LN_2 * ((1.0 - share) + share * 0.4);
    assert!((first - expected).abs() < 1e-6, "{first}, not {expected}");
}

#[test]
fn labels_of_pairs_are_read_back_and_bad_sides_are_told() {
    let mut all = pairs(24, 1);
    let found = LabelledResponses::of(&all);
    let is_pass = |item: &Item| item.response.split(' ').any(|word| word == "yes");
    assert!(found.passes.iter().all(is_pass) && !found.fails.iter().any(is_pass));
    let distinct: std::collections::HashSet<&Item> =
        found.passes.iter().chain(&found.fails).collect();
    assert_eq!(distinct.len(), found.passes.len() + found.fails.len(), "each once");
    let tokenizer = Tokenizer::from_file(&testdata("text/tokenizer.json")).expect("tokenizer");
    let text = ScalarText::new(Arc::new(tokenizer)).expect("text");
    let ties = all.iter().filter(|pair| pair.label == Preference::Tie).count();
    all[0].second.response = " ".into();
    all[1].label = Preference::Unknown;
    all[2] = all[2].swap();
    let (encoded, left_out) = win_tie_pairs(&all, &|item: &Item| text.encode(item));
    assert_eq!((encoded.len(), left_out.len()), (all.len() - 2, 1));
    assert!(left_out[0].contains(&all[0].id) && left_out[0].contains("empty"), "{left_out:?}");
    assert_eq!(encoded.iter().filter(|pair| pair.outcome == Outcome::Tie).count(), ties);
    let chosen = all[2].chosen_rejected().expect("labelled").0;
    assert_eq!(encoded[0].pair.sides[0], text.encode(chosen).expect("encodes"));
}
