//! The cohort route, from bodies to rewards.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::cohort::CohortConfig;
use crate::config::{CohortSettings, Limits, ServerConfig};
use crate::shutdown::Shutdown;
use crate::testing::{app, bytes, post, score_of};

fn served(cohorts: CohortConfig, limits: Limits) -> (Arc<App>, Router) {
    let cohorts = CohortSettings { config: cohorts, ..CohortSettings::default() };
    let app = app(ServerConfig { cohorts, limits, ..ServerConfig::default() });
    let router = crate::router(&app);
    (app, router)
}

fn routes() -> Router {
    served(CohortConfig::default(), Limits::default()).1
}

/// A rollout of golden example 1 of the method notes: chosen (8, 6), rejected (5, 7).
fn rollout(id: &str, side: u8, score: f64) -> Value {
    json!({
        "cohort_id": "step-1/pair 7",
        "rollout_id": id,
        "pair": { "side": side, "preferred_side": 0, "expected": [2, 2] },
        "score": score,
    })
}

fn example() -> [Value; 4] {
    [rollout("a", 0, 8.0), rollout("b", 0, 6.0), rollout("x", 1, 5.0), rollout("y", 1, 7.0)]
}

async fn par(router: &Router, rollouts: &[Value], wait_ms: u64) -> Vec<Value> {
    let body = json!({ "rollouts": rollouts, "wait_ms": wait_ms });
    let (status, reply) = post(router, "/v1/par", &body).await;
    assert_eq!(status, StatusCode::OK, "{reply}");
    reply["results"].as_array().unwrap().clone()
}

/// Reward, code of refusal or status of every result.
fn outcomes(results: &[Value]) -> Vec<Value> {
    let outcome = |result: &Value| match result["status"].as_str().unwrap() {
        "rewarded" => result["answer"]["reward"].clone(),
        "refused" => result["error"]["code"].clone(),
        other => json!(other),
    };
    results.iter().map(outcome).collect()
}

async fn send(router: &Router, method: Method, path: &str, key: &str) -> (StatusCode, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {key}"))
        .body(Body::empty())
        .unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    (status, serde_json::from_slice(&bytes(response).await).unwrap_or(Value::Null))
}

#[tokio::test]
async fn callers_with_one_rollout_each_get_the_rewards_of_the_pair() {
    let router = routes();
    let calls: Vec<_> = example()
        .into_iter()
        .map(|one| {
            let router = router.clone();
            tokio::spawn(async move { par(&router, &[one], 60_000).await })
        })
        .collect();
    let mut rewards = Vec::new();
    for call in calls {
        rewards.extend(outcomes(&call.await.unwrap()));
    }
    assert_eq!(rewards, [json!(1.2), json!(0.0), json!(1.2), json!(0.0)]);
}

#[tokio::test]
async fn one_call_may_hold_the_whole_cohort() {
    let results = par(&routes(), &example(), 0).await;
    assert_eq!(outcomes(&results), [json!(1.2), json!(0.0), json!(1.2), json!(0.0)]);
    let answer = &results[0]["answer"];
    assert_eq!(answer["own_mean"], 7.0);
    assert_eq!(answer["other_mean"], 6.0);
    assert_eq!(answer["received"], json!([2, 2]));
    assert_eq!(results[3]["rollout_id"], "y");
}

#[tokio::test]
async fn pending_rollouts_are_counted_and_may_be_asked_again() {
    let router = routes();
    let [a, b, x, y] = example();
    let first = par(&router, &[a.clone(), b, x], 0).await;
    assert_eq!(outcomes(&first), ["pending", "pending", "pending"]);
    assert_eq!(first[0]["state"]["received"], json!([2, 1]));
    assert_eq!(outcomes(&par(&router, &[y], 0).await), [json!(0.0)]);
    assert_eq!(outcomes(&par(&router, &[a], 0).await), [json!(1.2)]);
}

#[tokio::test(start_paused = true)]
async fn callers_are_told_when_the_time_is_over() {
    let config = CohortConfig { timeout_ms: 5_000, ..CohortConfig::default() };
    let (_, router) = served(config, Limits::default());
    let [a, b, ..] = example();
    let started = tokio::time::Instant::now();
    let results = par(&router, &[a, b], 60_000).await;
    assert_eq!(outcomes(&results), ["cohort_timed_out", "cohort_timed_out"]);
    let waited = started.elapsed();
    assert!(waited >= Duration::from_secs(5) && waited < Duration::from_secs(6), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn no_wait_outlasts_the_deadline_of_a_request() {
    let limits = Limits { deadline: Duration::from_secs(20), ..Limits::default() };
    let (_, router) = served(CohortConfig::default(), limits);
    let [a, ..] = example();
    assert_eq!(outcomes(&par(&router, &[a], u64::MAX).await), ["pending"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_lets_its_callers_go() {
    let (app, router) = served(CohortConfig::default(), Limits::default());
    let [a, ..] = example();
    let call = tokio::spawn(async move { par(&router, &[a], 60_000).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let started = tokio::time::Instant::now();
    app.shutdown().trigger();
    assert_eq!(outcomes(&call.await.unwrap()), ["pending"]);
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn waiting_callers_leave_room_for_those_they_wait_for() {
    let limits = Limits { max_connections: 2, ..Limits::default() };
    let (_, router) = served(CohortConfig::default(), limits);
    let [a, b, x, y] = example();
    let patient = router.clone();
    let first = tokio::spawn(async move { par(&patient, &[a], 60_000).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let started = tokio::time::Instant::now();
    assert_eq!(outcomes(&par(&router, &[b], 60_000).await), ["pending"]);
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(outcomes(&par(&router, &[x, y], 60_000).await), [json!(1.2), json!(0.0)]);
    assert_eq!(outcomes(&first.await.unwrap()), [json!(1.2)]);
}

#[tokio::test]
async fn judgements_are_read_by_the_grammar() {
    let text = |score: &str| {
        format!(
            "<rubrics>\nUse (100%): is it\n</rubrics>\n<evaluation>\nyes\n</evaluation>\n{score}"
        )
    };
    let rollout = |id: &str, side: u8, judgement: String| {
        json!({
            "cohort_id": "c", "rollout_id": id, "judgement": judgement,
            "pair": { "side": side, "preferred_side": 1, "expected": [3, 1] },
        })
    };
    let cut = "<rubrics>\nUse (100%): is".to_owned();
    let mut rollouts = vec![
        rollout("a", 0, text("<score>4</score>")),
        rollout("b", 0, text("<score>eleven</score>")),
        rollout("c", 0, cut),
        rollout("x", 1, text("<score>2</score> no: <score>9</score>")),
    ];
    rollouts[2]["truncated"] = json!(true);
    let results = par(&routes(), &rollouts, 0).await;
    assert_eq!(outcomes(&results), [json!(1.4), json!(-1.0), json!(-1.5), json!(1.4)]);
    let faults: Vec<&Value> = results.iter().map(|one| &one["answer"]["fault"]).collect();
    assert_eq!(faults[1..3], [&json!("score_not_number"), &json!("truncated")]);
    assert_eq!(results[3]["answer"]["score"], 9.0);
}

#[tokio::test]
async fn responses_are_scored_by_the_model_once() {
    let router = routes();
    let rollout = |response: &str| {
        json!({
            "cohort_id": "g", "rollout_id": response,
            "group": { "expected": 3, "rule": "centred" },
            "item": { "prompt": "q", "response": response },
        })
    };
    let first = par(&router, &[rollout("r0"), rollout("r1")], 0).await;
    assert_eq!(outcomes(&first), ["pending", "pending"]);
    let results = par(&router, &[rollout("r0"), rollout("r1"), rollout("FAULT")], 0).await;
    assert_eq!(outcomes(&results), [json!("pending"), json!("pending"), json!("engine_failed")]);
    let results = par(&router, &[rollout("r0"), rollout("r1"), rollout("r2")], 0).await;
    let scores: Vec<f64> = (0..3).map(|i| score_of(&format!("q\nr{i}"))).collect();
    let mean = scores.iter().sum::<f64>() / 3.0;
    for (result, score) in results.iter().zip(scores) {
        let reward = result["answer"]["reward"].as_f64().unwrap();
        assert!((reward - (score - mean)).abs() < 1e-9, "{result}");
    }
}

#[tokio::test]
async fn bad_rollouts_fail_alone() {
    let mut rollouts = example().to_vec();
    let mut both = rollout("p", 0, 1.0);
    both["group"] = json!({ "expected": 2, "rule": "z_score" });
    let mut neither = rollout("q", 0, 1.0);
    neither.as_object_mut().unwrap().remove("score");
    let mut odd = neither.clone();
    odd["fault"] = json!("tired");
    rollouts.extend([both, neither, odd, rollout("", 0, 1.0), rollout("z", 1, 1.0)]);
    let results = par(&routes(), &rollouts, 0).await;
    let told = outcomes(&results);
    assert_eq!(told[..4], [json!(1.2), json!(0.0), json!(1.2), json!(0.0)]);
    let refused = ["bad_request", "bad_request", "bad_request", "invalid_rollout", "cohort_over"];
    assert_eq!(told[4..], refused.map(Value::from));
}

#[tokio::test]
async fn bodies_of_another_form_are_refused_as_a_whole() {
    let router = routes();
    for (body, code) in [
        (json!({}), "bad_request"),
        (json!({ "rollouts": [], "more": 1 }), "bad_request"),
        (json!({ "rollouts": [{ "cohort_id": "c" }] }), "bad_request"),
        (json!({ "rollouts": vec![rollout("a", 0, 1.0); 1_025] }), "too_many_items"),
    ] {
        let (_, reply) = post(&router, "/v1/par", &body).await;
        assert_eq!(reply["error"]["code"], code);
    }
    let mut side = rollout("a", 0, 1.0);
    side["pair"]["side"] = json!(2);
    let (status, reply) = post(&router, "/v1/par", &json!({ "rollouts": [side] })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(reply["error"]["message"].as_str().unwrap().contains("a side is 0 or 1"), "{reply}");
    assert!(par(&router, &[], 0).await.is_empty());
}

#[tokio::test]
async fn cohorts_can_be_looked_at_and_cancelled() {
    let (_, router) = served(CohortConfig::default(), Limits::default());
    let path = "/v1/par/step-1%2Fpair%207";
    assert_eq!(send(&router, Method::GET, path, "").await.0, StatusCode::NOT_FOUND);
    let [a, ..] = example();
    let patient = router.clone();
    let call = tokio::spawn(async move { par(&patient, &[a], 60_000).await });
    let state = loop {
        let (status, state) = send(&router, Method::GET, path, "").await;
        if status == StatusCode::OK && state["waiting"] == 1 {
            break state;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((&state["phase"], &state["received"]), (&json!("open"), &json!([1, 0])));
    let (_, state) = send(&router, Method::DELETE, path, "").await;
    assert_eq!(state["phase"], "cancelled");
    assert_eq!(outcomes(&call.await.unwrap()), ["cohort_cancelled"]);
    assert_eq!(send(&router, Method::DELETE, "/v1/par/none", "").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn every_method_asks_for_the_key() {
    let config = ServerConfig { api_keys: vec!["a-long-enough-key".into()], ..Default::default() };
    let router = crate::router(&app(config));
    for method in [Method::GET, Method::DELETE] {
        let (status, _) = send(&router, method.clone(), "/v1/par/c", "wrong").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        let (status, _) = send(&router, method, "/v1/par/c", "a-long-enough-key").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }
    let (status, _) = post(&router, "/v1/par", &json!({ "rollouts": [] })).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn no_model_is_needed() {
    let config = ServerConfig { par_only: true, ..ServerConfig::default() };
    let app = App::start(config, Vec::new(), Shutdown::default()).unwrap();
    let router = crate::router(&app);
    let results = par(&router, &example(), 0).await;
    assert_eq!(outcomes(&results), [json!(1.2), json!(0.0), json!(1.2), json!(0.0)]);
    let mut item = rollout("a", 0, 0.0);
    item["cohort_id"] = json!("other");
    item.as_object_mut().unwrap().remove("score");
    item["item"] = json!({ "prompt": "q", "response": "r" });
    assert_eq!(outcomes(&par(&router, &[item], 0).await), ["model_not_found"]);
}

#[tokio::test]
async fn cohorts_are_measured() {
    let router = routes();
    par(&router, &example(), 0).await;
    let (_, text) = crate::testing::get(&router, "/metrics").await;
    for line in ["patarm_cohorts_completed_total 1", "patarm_cohort_rollouts_held 4"] {
        assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
    }
}

proptest! {
    #[test]
    fn damaged_bodies_never_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let body = json!({ "rollouts": example(), "wait_ms": 0 }).to_string();
        let mut body = body.into_bytes();
        for (place, byte) in damage {
            let place = place.index(body.len());
            body[place] = byte;
        }
        body.truncate(cut.index(body.len() + 1));
        let format = CohortSettings::default().format;
        if let Ok(request) = Par::parse(&body) {
            for rollout in request.rollouts {
                let _ = rollout.check(&format);
            }
        }
    }
}
