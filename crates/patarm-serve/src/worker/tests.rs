//! Panics, budgets and cancellation on the thread of a model.

use std::sync::{Arc, Mutex};

use patarm_reward::model::Reward;
use patarm_reward::serving::{Answer, Ask, Family, JudgeAsk};
use patarm_text::{Conversation, Item};

use crate::config::Limits;
use crate::core::{Core, Ticket};
use crate::fault::{Fault, FaultCode};
use crate::metrics::Metrics;
use crate::testing::{Gate, Scripted, score_of};

fn ask(response: &str) -> Ask {
    let item = Item { prompt: Conversation::from_user("p"), response: response.into() };
    Ask::Judge(JudgeAsk::new(item, None, 1))
}

type Batches = Arc<Mutex<Vec<Vec<String>>>>;

fn core(limits: Limits, gate: &Gate) -> (Core, Batches) {
    let model = Scripted::gated("m", Family::Scalar, gate.clone());
    let batches = Arc::clone(&model.batches);
    let core = Core::start(vec![Box::new(model)], limits, &Arc::new(Metrics::default())).unwrap();
    (core, batches)
}

fn expected(response: &str) -> Result<Answer, Fault> {
    Ok(Answer::Reward(Box::new(Reward::of(score_of(&format!("p\n{response}"))))))
}

async fn submit(core: &Core, client: u64, responses: &[&str]) -> Ticket {
    let asks = responses.iter().map(|response| ask(response)).collect();
    core.submit(core.host(None).unwrap(), client, asks).await.unwrap()
}

#[tokio::test]
async fn one_panic_fails_one_item() {
    let gate = Gate::default();
    let (core, batches) = core(Limits::default(), &gate);
    let mine = submit(&core, 1, &["a", "b PANIC", "c"]).await;
    let other = submit(&core, 2, &["d", "e"]).await;
    gate.open();
    let (mine, other) = (mine.collect().await, other.collect().await);
    assert_eq!(mine[0], expected("a"));
    assert_eq!(mine[1].as_ref().unwrap_err().code, FaultCode::Internal);
    assert_eq!(mine[2], expected("c"));
    assert_eq!(other, [expected("d"), expected("e")]);
    // After the batch that panicked its pieces are tried alone.
    let batches = batches.lock().unwrap().clone();
    let first = batches.iter().position(|batch| batch.concat().contains("PANIC")).unwrap();
    for response in ["a", "b PANIC", "c"] {
        let alone = vec![format!("p\n{response}")];
        assert!(batches[first + 1..].contains(&alone) || !batches[first].contains(&alone[0]));
    }
    // The model goes on as before.
    assert_eq!(submit(&core, 1, &["f"]).await.collect().await, [expected("f")]);
    assert!(core.hosts()[0].is_alive());
}

#[tokio::test]
async fn a_lost_device_gives_the_model_up() {
    let gate = Gate::default();
    let (core, batches) = core(Limits::default(), &gate);
    let first = submit(&core, 1, &["a", "b DEVICE"]).await;
    let other = submit(&core, 2, &["c"]).await;
    gate.open();
    for result in first.collect().await.into_iter().chain(other.collect().await) {
        let fault = result.unwrap_err();
        assert_eq!(fault.code, FaultCode::Internal);
        assert!(!fault.message.contains("secret"));
    }
    assert!(!core.hosts()[0].is_alive());
    let later = core.submit(core.host(None).unwrap(), 1, vec![ask("d")]).await;
    assert_eq!(later.unwrap_err().code, FaultCode::Unavailable);
    // Nothing was tried again on a new engine.
    assert_eq!(batches.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn batches_keep_to_their_budget() {
    let gate = Gate::default();
    let (core, batches) = core(Limits { max_batch_tokens: 12, ..Limits::default() }, &gate);
    // "p\n" and three letters are five tokens: two fit.
    let ticket = submit(&core, 1, &["aaa", "bbb", "ccc", "ddd", "eeeeeeeeeeeeeeeee"]).await;
    gate.open();
    let results = ticket.collect().await;
    assert!(results.iter().all(Result::is_ok));
    let sizes: Vec<usize> = batches.lock().unwrap().iter().map(Vec::len).collect();
    // The last is larger than everything allowed and goes alone.
    assert_eq!(sizes.iter().sum::<usize>(), 5);
    assert!(sizes.iter().all(|size| *size <= 2), "{sizes:?}");
    assert_eq!(sizes.last(), Some(&1));
}

#[tokio::test]
async fn dropped_tickets_are_not_computed() {
    let gate = Gate::default();
    let (core, batches) = core(Limits { max_batch_tokens: 1, ..Limits::default() }, &gate);
    let first = submit(&core, 1, &["first"]).await;
    let gone = submit(&core, 2, &["gone", "gone too"]).await;
    let last = submit(&core, 3, &["last"]).await;
    drop(gone);
    gate.open();
    assert_eq!(first.collect().await, [expected("first")]);
    assert_eq!(last.collect().await, [expected("last")]);
    let computed = batches.lock().unwrap().concat();
    assert!(!computed.iter().any(|text| text.contains("gone")), "{computed:?}");
    assert_eq!(core.hosts()[0].depth(), (0, 0));
}

#[tokio::test]
async fn what_cannot_be_prepared_fails_alone() {
    let gate = Gate::default();
    gate.open();
    let (core, _) = core(Limits::default(), &gate);
    let long = "x".repeat(crate::testing::MAX_TOKENS);
    let results = submit(&core, 1, &["a", &long, "FAULT"]).await.collect().await;
    assert_eq!(results[0], expected("a"));
    assert_eq!(results[1].as_ref().unwrap_err().code, FaultCode::Overlong);
    let failed = results[2].as_ref().unwrap_err();
    assert_eq!(failed.code, FaultCode::EngineFailed);
    assert!(!failed.message.contains("secret"));
    assert!(submit(&core, 1, &[]).await.collect().await.is_empty());
}

#[tokio::test]
async fn limits_on_requests() {
    let gate = Gate::default();
    gate.open();
    let limits = Limits { max_items: 2, max_votes: 3, ..Limits::default() };
    let (core, _) = core(limits, &gate);
    let host = core.host(Some("m")).unwrap();
    let many = core.submit(host, 1, vec![ask("a"), ask("b"), ask("c")]).await;
    assert_eq!(many.unwrap_err().code, FaultCode::TooManyItems);
    let item = Item { prompt: Conversation::from_user("p"), response: "r".into() };
    let votes = core.submit(host, 1, vec![Ask::Judge(JudgeAsk::new(item, None, 4))]).await;
    assert_eq!(votes.unwrap_err().code, FaultCode::TooManyItems);
    assert_eq!(core.host(Some("n")).err().map(|fault| fault.code), Some(FaultCode::ModelNotFound));
}
