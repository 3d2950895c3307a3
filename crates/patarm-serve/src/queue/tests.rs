//! Turns, bounds and cancellation of the queue.

use patarm_reward::serving::{Ask, Sequence};
use tokio::sync::mpsc;

use super::*;

fn job(id: u64, cost: usize) -> Job {
    let ask = Ask::Sequence(Sequence::Ids(vec![0]));
    let (reply, _) = mpsc::unbounded_channel();
    Job { id: WorkId(id), work: Prepared::plain(ask, cost, cost), reply, queued_at: Instant::now() }
}

fn queue(jobs: usize, tokens: usize) -> Queue {
    Queue::new(Capacity { jobs, tokens })
}

fn drain(queue: &Queue) -> Vec<u64> {
    std::iter::from_fn(|| queue.pop(usize::MAX)).map(|job| job.id.0).collect()
}

#[test]
fn clients_take_turns_by_tokens() {
    let queue = queue(100, 10_000);
    queue.push(1, (0..6).map(|id| job(id, 10)).collect(), 1.0).unwrap();
    queue.push(2, vec![job(10, 20), job(11, 20)], 1.0).unwrap();
    // Client 2's pieces weigh twice as much: it gets every third place.
    assert_eq!(drain(&queue), [0, 10, 1, 2, 11, 3, 4, 5]);
}

#[test]
fn waiting_saves_nothing_up() {
    let queue = queue(100, 10_000);
    queue.push(1, (0..4).map(|id| job(id, 10)).collect(), 1.0).unwrap();
    assert_eq!(queue.pop(100).map(|job| job.id.0), Some(0));
    assert_eq!(queue.pop(100).map(|job| job.id.0), Some(1));
    queue.push(2, (10..13).map(|id| job(id, 10)).collect(), 1.0).unwrap();
    // The newcomer comes in level and does not get three places in a row.
    let order = drain(&queue);
    assert_eq!(order.len(), 5);
    assert!(order[..3].contains(&2), "{order:?}");
}

#[test]
fn a_full_queue_refuses_whole_requests() {
    let queue = queue(3, 100);
    queue.push(1, vec![job(0, 10), job(1, 10)], 10.0).unwrap();
    let fault = queue.push(2, vec![job(2, 10), job(3, 10)], 10.0).unwrap_err();
    assert_eq!((fault.code, fault.retry_after_s), (FaultCode::Busy, Some(2)));
    assert_eq!(queue.depth(), (2, 20));
    assert!(queue.push(2, vec![job(4, 81)], 10.0).is_err());
    queue.push(2, vec![job(5, 80)], 10.0).unwrap();
    assert_eq!(queue.depth(), (3, 100));
}

#[test]
fn an_empty_queue_takes_a_heavy_request() {
    let queue = queue(2, 10);
    queue.push(1, vec![job(0, 50)], 1.0).unwrap();
    assert!(queue.pop(49).is_none());
    assert_eq!(queue.pop(50).map(|job| job.id.0), Some(0));
}

#[test]
fn cancelling_drops_what_waits_and_names_what_runs() {
    let queue = queue(10, 100);
    queue.push(1, vec![job(0, 10), job(1, 10), job(2, 10)], 1.0).unwrap();
    assert_eq!(queue.pop(100).map(|job| job.id.0), Some(0));
    queue.cancel(1, &[WorkId(0), WorkId(2)]);
    assert_eq!(queue.take_cancelled(), [WorkId(0)]);
    assert_eq!(queue.depth(), (1, 10));
    assert_eq!(drain(&queue), [1]);
}

#[test]
fn a_failed_queue_drops_everything_and_takes_nothing() {
    let queue = queue(10, 100);
    queue.push(1, vec![job(0, 10)], 1.0).unwrap();
    assert!(queue.wait());
    queue.fail();
    assert!(!queue.wait());
    assert!(queue.pop(100).is_none());
    assert_eq!(queue.push(1, vec![job(1, 1)], 1.0).unwrap_err().code, FaultCode::Unavailable);
}
