//! What is asked again and what is not.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use patarm_text::Conversation;

use super::*;
use crate::observer::Silent;

/// Rewards the length of a response, fails on an empty one, and counts.
#[derive(Default)]
struct Length(Cell<usize>);

impl RewardModel for Length {
    fn score(&self, items: &[Item]) -> Vec<Result<Reward, ItemFault>> {
        self.0.set(self.0.get() + items.len());
        let score = |item: &Item| match item.response.len() {
            0 => Err(ItemFault::Engine("empty".into())),
            length => Ok(Reward::of(length as f64)),
        };
        items.iter().map(score).collect()
    }

    fn name(&self) -> String {
        "length".into()
    }
}

fn item(response: &str) -> Item {
    Item { prompt: Conversation::from_user("p"), response: response.into() }
}

/// Scores items through the cache in a file; gives the rewards and how many were asked.
fn scored(path: &Path, fingerprint: &str, items: &[Item]) -> (Vec<Option<f64>>, usize) {
    let model = Length::default();
    let cache = AnswerCache::open(path, fingerprint, &Silent).unwrap();
    let rewards = Remembering { inner: &model, cache: &cache }.score(items);
    assert!(cache.take_write_error().is_none());
    assert_eq!(cache.counts().num_known, items.len() - model.0.get());
    (rewards.into_iter().map(|reward| Some(reward.ok()?.value)).collect(), model.0.get())
}

#[test]
fn a_repeated_run_costs_nothing_and_an_interrupted_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.jsonl");
    let all = [item("a"), item("bb"), item("ccc")];
    assert_eq!(scored(&path, "f", &all[..2]), (vec![Some(1.0), Some(2.0)], 2));
    assert_eq!(scored(&path, "f", &all), (vec![Some(1.0), Some(2.0), Some(3.0)], 1));
    assert_eq!(scored(&path, "f", &all).1, 0);
}

#[test]
fn another_fingerprint_or_question_misses() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.jsonl");
    scored(&path, "model r1, template x, seed 0", &[item("a")]);
    for other in ["model r2, template x, seed 0", "model r1, template y, seed 0", ""] {
        assert_eq!(scored(&path, other, &[item("a")]).1, 1, "{other}");
    }
    let mut prompt = item("a");
    prompt.prompt = Conversation::from_user("another");
    assert_eq!(scored(&path, "model r1, template x, seed 0", &[prompt]).1, 1);
}

#[test]
fn failures_are_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.jsonl");
    let items = [item(""), item("a")];
    assert_eq!(scored(&path, "f", &items), (vec![None, Some(1.0)], 2));
    assert_eq!(scored(&path, "f", &items), (vec![None, Some(1.0)], 1));
}

/// An observer that has been asked to stop.
struct Stopped(AtomicBool);

impl Observer for Stopped {
    fn begin(&self, _what: &str, _total: u64) {}
    fn advance(&self, _done: u64, _note: &str) {}
    fn end(&self) {}
    fn is_interrupted(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
fn what_an_interrupted_engine_returns_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.jsonl");
    let stopped = Stopped(AtomicBool::new(true));
    let (model, items) = (Length::default(), [item("a")]);
    let cache = AnswerCache::open(&path, "f", &stopped).unwrap();
    assert!(Remembering { inner: &model, cache: &cache }.score(&items)[0].is_ok());
    drop(cache);
    assert_eq!(scored(&path, "f", &items).1, 1);
}

#[test]
fn votes_are_part_of_the_question() {
    let folder = tempfile::tempdir().unwrap();
    let cache = AnswerCache::open(&folder.path().join("c"), "f", &Silent).unwrap();
    let keys = [
        cache.key("pointwise", &item("a"), 1),
        cache.key("pointwise", &item("a"), 2),
        cache.key("reward", &item("a"), 1),
    ];
    assert!(keys[0] != keys[1] && keys[0] != keys[2]);
}
