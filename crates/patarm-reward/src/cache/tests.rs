//! What is kept, what is asked again, and what survives a crash.

use patarm_text::{Conversation, Message, Role};
use proptest::prelude::*;

use super::*;

fn request(prompt: &str, seed: u64) -> CompletionRequest {
    CompletionRequest {
        prompt: Conversation::from_user(prompt),
        max_tokens: 8,
        temperature: 1.0,
        top_p: 1.0,
        stop: Vec::new(),
        seed,
    }
}

fn completion(text: &str) -> Completion {
    Completion { text: text.into(), num_tokens: 3, truncated: false, logprobs: Some(vec![-0.1]) }
}

/// Answers with the prompt, fails on "fail", and counts.
#[derive(Default)]
struct Echo {
    asked: Mutex<Vec<String>>,
}

impl Completer for Echo {
    fn complete(&self, requests: &[CompletionRequest]) -> Vec<CompletionResult> {
        let answer = |request: &CompletionRequest| {
            let text = request.prompt.messages[0].plain_text();
            self.asked.lock().unwrap().push(text.clone());
            if text == "fail" { Err(CompletionError::Interrupted) } else { Ok(completion(&text)) }
        };
        requests.iter().map(answer).collect()
    }

    fn name(&self) -> String {
        "echo".into()
    }
}

fn cached(path: &Path) -> CachedCompleter<Echo> {
    CachedCompleter::new(Echo::default(), "r1", VerdictCache::open(path).unwrap())
}

fn asked(completer: &CachedCompleter<Echo>) -> Vec<String> {
    completer.inner.asked.lock().unwrap().clone()
}

#[test]
fn a_second_run_asks_only_for_what_failed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.jsonl");
    let requests = [request("a", 1), request("fail", 1), request("b", 1), request("a", 1)];
    let first = cached(&path);
    let mut told = Vec::new();
    let results = first.complete_each(&requests, &mut |i, _| told.push(i));
    told.sort_unstable();
    assert_eq!(told, [0, 1, 2, 3]);
    assert_eq!(results[3], Ok(completion("a")), "the twin of the first request");
    assert_eq!(asked(&first), ["a", "fail", "b"]);
    drop(first);

    let second = cached(&path);
    assert_eq!(second.complete(&requests), results);
    assert_eq!(asked(&second), ["fail"]);
    second.complete(&[request("a", 2)]);
    assert_eq!(asked(&second), ["fail", "a"], "another seed is another request");
    assert!(second.take_write_error().is_none());
}

#[test]
fn a_torn_last_line_is_cut_and_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.jsonl");
    cached(&path).complete(&[request("a", 1), request("b", 1)]);
    let whole = std::fs::read(&path).unwrap();
    for cut in [1, 10, 40] {
        std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let completer = cached(&path);
        completer.complete(&[request("a", 1), request("b", 1)]);
        assert_eq!(asked(&completer), ["b"], "{cut}");
        drop(completer);
        assert_eq!(std::fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn lines_that_cannot_be_read_are_skipped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.jsonl");
    cached(&path).complete(&[request("a", 1)]);
    let line = std::fs::read_to_string(&path).unwrap();
    let foreign = line.replace("\"version\":2", "\"version\":9");
    let short_key = line.replacen("\"key\":\"", "\"key\":\"zz", 1);
    std::fs::write(&path, format!("nonsense\n{foreign}\n{short_key}{line}")).unwrap();
    let cache = VerdictCache::open(&path).unwrap();
    assert_eq!((cache.len(), cache.num_skipped()), (1, 4));
    assert!(!cache.is_empty());
}

#[test]
fn one_run_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.jsonl");
    let first = VerdictCache::open(&path).unwrap();
    let error = VerdictCache::open(&path).unwrap_err();
    assert!(error.to_string().ends_with("another run is using it"), "{error}");
    drop(first);
    assert!(VerdictCache::open(&path).is_ok());
    assert!(VerdictCache::open(&folder.path().join("no/such/folder")).is_err());
}

#[test]
fn every_part_of_a_request_counts() {
    let base = request("p", 1);
    let mut keys = vec![
        cache_key("e", "r", &base),
        cache_key("e2", "r", &base),
        cache_key("e", "r2", &base),
        cache_key("er", "", &base),
        cache_key("e", "r", &request("q", 1)),
        cache_key("e", "r", &request("p", 2)),
        cache_key("e", "r", &CompletionRequest { max_tokens: 9, ..base.clone() }),
        cache_key("e", "r", &CompletionRequest { temperature: 0.5, ..base.clone() }),
        cache_key("e", "r", &CompletionRequest { top_p: 0.5, ..base.clone() }),
        cache_key("e", "r", &CompletionRequest { stop: vec!["p".into()], ..base.clone() }),
    ];
    let mut with_system = base.clone();
    with_system.prompt.messages.insert(0, Message::text(Role::System, "s"));
    keys.push(cache_key("e", "r", &with_system));
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), count);
    assert_eq!(cache_key("e", "r", &base), cache_key("e", "r", &base.clone()));
    assert_eq!(unhex(&hex(&keys[0])), Some(keys[0]));
}

/// A full device refuses every write; results come back all the same.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_and_loses_no_result() {
    let Some(cache) = VerdictCache::on_full_device() else { return };
    let completer = CachedCompleter::new(Echo::default(), "r", cache);
    let results = completer.complete(&[request("a", 1), request("b", 1)]);
    assert!(results.iter().all(std::result::Result::is_ok));
    let error = completer.take_write_error().unwrap().to_string();
    assert!(error.contains("cannot be written"), "{error}");
    assert!(completer.take_write_error().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_bytes_open(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.jsonl");
        std::fs::write(&path, &bytes).unwrap();
        let mut cache = VerdictCache::open(&path).unwrap();
        cache.insert([7; 32], &completion("x")).unwrap();
        drop(cache);
        let cache = VerdictCache::open(&path).unwrap();
        prop_assert_eq!(cache.get(&[7; 32]), Some(&completion("x")));
    }
}
