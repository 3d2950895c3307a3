//! Scoring in batches, and what never becomes a control token.

use std::path::PathBuf;
use std::sync::Arc;

use patarm_models::files::{ModelConfig, RewardConfig, RewardFamily};
use patarm_models::kernels::Cpu;
use patarm_models::{Decoder, DecoderShape, HeadInit, LinearHead, ScalarHead};
use patarm_text::tokenizer::Tokenizer;
use patarm_text::{Conversation, Item};

use super::{ScalarRewardModel, ScalarText, Scoring, batches, encode_all};
use crate::model::{ItemFault, RewardModel};
use crate::observer::Silent;

fn testdata(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

fn text() -> ScalarText {
    let tokenizer = Tokenizer::from_file(&testdata("text/tokenizer.json")).expect("tokenizer");
    ScalarText::new(Arc::new(tokenizer)).expect("text")
}

fn model(text: &ScalarText) -> (Decoder, ScalarHead) {
    let config = ModelConfig::read(&testdata("models/tiny-llama/config.json")).expect("config");
    let mut shape = DecoderShape::from_config(&config);
    shape.vocab = text.tokenizer().vocab_size().max(370);
    shape.max_positions = 96;
    let mut decoder = Decoder::random(Arc::new(Cpu::new(1)), shape, 3);
    let head = LinearHead::attach(&mut decoder, "score", 1, (HeadInit::Normal { std: 1.0 }, 3));
    (decoder, ScalarHead::LastToken(head))
}

fn item(prompt: &str, response: &str) -> Item {
    Item { prompt: Conversation::from_user(prompt), response: response.to_owned() }
}

#[test]
fn scores_do_not_depend_on_the_batch_and_bad_items_fail_alone() {
    let text = text();
    let (decoder, head) = model(&text);
    let config = RewardConfig {
        mean: Some(0.5),
        std: Some(2.0),
        ..RewardConfig::new(RewardFamily::Scalar {})
    };
    let of = |batch_tokens: usize| ScalarRewardModel {
        scoring: Scoring { batch_tokens, ..Scoring::new(&decoder, &Silent, "tiny") },
        head: head.clone(),
        text: &text,
        config: &config,
    };
    let long = "word ".repeat(200);
    let items = [
        item("why is that", "because"),
        item("what now", "nothing much"),
        item("why is that", "it is not"),
        item("what now", ""),
        item("what now", &long),
        item("why is that", "because it is so"),
    ];
    let together = of(10_000).score(&items);
    assert!(matches!(&together[3], Err(ItemFault::Engine(message)) if message.contains("empty")));
    assert!(matches!(&together[4], Err(ItemFault::Overlong { limit: 96, .. })));
    let mut seen = Vec::new();
    for (index, one) in items.iter().enumerate() {
        let alone = of(1).score(std::slice::from_ref(one)).remove(0);
        assert_eq!(alone, together[index], "item {index}");
        if let Ok(reward) = alone {
            assert_eq!(reward.normalised, Some((reward.value - 0.5) / 2.0));
            seen.push(reward.value.to_bits());
        }
    }
    seen.dedup();
    assert_eq!(seen.len(), 4, "different responses have different scores");
    assert_eq!(of(24).score(&items), together, "several batches");
}

#[test]
fn items_of_one_prompt_stand_side_by_side_within_the_budget() {
    let text = text();
    let items = [item("a b c d e f", "x"), item("other words here", "y"), item("a b c d e f", "z")];
    let encoded = encode_all(&items, &|item: &Item| text.encode(item), 1000);
    let places = |budget: usize| -> Vec<Vec<usize>> {
        batches(&encoded, budget)
            .iter()
            .map(|batch| batch.iter().map(|(index, _)| *index).collect())
            .collect()
    };
    assert_eq!(places(1000), [[0, 2, 1]]);
    let one = encoded[0].as_ref().expect("encodes");
    // Room for the shared prompt and two responses, not for the other item.
    let pair = one.len() + encoded[2].as_ref().expect("encodes").response.len();
    assert_eq!(places(pair), [vec![0, 2], vec![1]]);
    assert_eq!(places(0), [vec![0], vec![2], vec![1]]);
}

#[test]
fn data_never_becomes_a_control_token_and_the_padding_id_is_not_the_last_token() {
    let text = text();
    let encoded = text.encode(&item("<|im_end|>", "<|im_end|> yes")).expect("encodes");
    let tokenizer = text.tokenizer();
    let content = &encoded.response[..encoded.num_content];
    assert!(content.iter().all(|id| !tokenizer.is_control(*id)));
    let padding = text.padding_id(&item("a", "b")).expect("encodes").expect("there is one");
    assert_ne!(Some(&padding), text.encode(&item("a", "b")).expect("encodes").response.last());
}
