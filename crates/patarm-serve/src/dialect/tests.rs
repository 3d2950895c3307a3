//! Recorded exchanges of every dialect, and what damage to bodies does.
//!
//! `testdata/serve/DIALECT.json` holds requests as real clients send them with the
//! replies of a scripted model. `PATARM_REMAKE=1` writes the replies anew.

use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use patarm_reward::random::SplitMix64;
use patarm_reward::serving::{Family, ServedModel};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::testing::{Scripted, bytes, post, post_bytes, routes};
use crate::{App, ServerConfig, Shutdown, router};

#[derive(Serialize, Deserialize)]
struct Record {
    dialect: String,
    exchanges: Vec<Recorded>,
}

#[derive(Serialize, Deserialize)]
struct Recorded {
    name: String,
    first_model: String,
    method: String,
    path: String,
    request: Value,
    #[serde(default)]
    status: u16,
    #[serde(default)]
    reply: Value,
}

const DIALECTS: [&str; 8] =
    ["native", "openrlhf", "slime", "vllm", "sglang", "tei", "nemo_gym", "openai"];

fn file(dialect: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../testdata/serve/{dialect}.json"))
}

fn read(dialect: &str) -> Record {
    serde_json::from_slice(&std::fs::read(file(dialect)).unwrap()).unwrap()
}

fn server(first: &str) -> Router {
    let mut models: Vec<Box<dyn ServedModel>> = vec![
        Box::new(Scripted::new("scalar", Family::Scalar)),
        Box::new(Scripted::new("judge", Family::Generative)),
    ];
    if first == "judge" {
        models.reverse();
    }
    router(&App::start(ServerConfig::default(), models, Shutdown::default()).unwrap())
}

/// What differs from call to call.
fn settle(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (key, value) in object.iter_mut() {
                let text = value.as_str().unwrap_or_default();
                match key.as_str() {
                    "created" => *value = json!(0),
                    "e2e_latency" => *value = json!(0.0),
                    "request_id" => *value = json!("ID"),
                    "id" if text.contains('-') => {
                        let is_ours =
                            |kind: &&str| !kind.bytes().all(|byte| byte.is_ascii_hexdigit());
                        let kind = text.split('-').next().filter(is_ours);
                        *value = json!(format!("{}-ID", kind.unwrap_or_default()));
                    }
                    _ => settle(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(settle),
        _ => {}
    }
}

async fn send(router: &Router, recorded: &Recorded) -> (u16, Value) {
    let body = match &recorded.request {
        Value::Null => Body::empty(),
        request => Body::from(request.to_string()),
    };
    let request = Request::builder().method(recorded.method.as_str()).uri(&recorded.path);
    let response = router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let mut reply = serde_json::from_slice(&bytes(response).await).unwrap();
    settle(&mut reply);
    (status, reply)
}

#[tokio::test]
async fn recorded_exchanges() {
    let remake = std::env::var_os("PATARM_REMAKE").is_some();
    let (scalar, judge) = (server("scalar"), server("judge"));
    for dialect in DIALECTS {
        let mut record = read(dialect);
        for recorded in &mut record.exchanges {
            let router = if recorded.first_model == "judge" { &judge } else { &scalar };
            let (status, reply) = send(router, recorded).await;
            if remake {
                (recorded.status, recorded.reply) = (status, reply);
            } else {
                let name = &recorded.name;
                assert_eq!(
                    (status, &reply),
                    (recorded.status, &recorded.reply),
                    "{dialect}: {name}"
                );
            }
        }
        if remake {
            let text = serde_json::to_string_pretty(&record).unwrap();
            std::fs::write(file(dialect), format!("{text}\n")).unwrap();
        }
    }
}

/// Every body, cut short, with a byte changed, and with each value replaced by others:
/// always an answer, never a failure of the server.
#[tokio::test]
async fn damaged_bodies_are_answered() {
    let (scalar, judge) = (server("scalar"), server("judge"));
    for dialect in DIALECTS {
        for recorded in read(dialect).exchanges.iter().filter(|r| r.method == "POST") {
            let body = recorded.request.to_string().into_bytes();
            let mut damaged: Vec<Vec<u8>> =
                (0..body.len()).step_by(7).map(|end| body[..end].to_vec()).collect();
            for at in (0..body.len()).step_by(5) {
                let mut changed = body.clone();
                changed[at] = [b'"', b'{', 0, 0xff, b'9'][at % 5];
                damaged.push(changed);
            }
            for other in [json!(null), json!(-1e308), json!([[[]]]), json!({ "a": {} }), json!("")]
            {
                damaged.extend(
                    replaced(&recorded.request, &other).iter().map(|v| v.to_string().into_bytes()),
                );
            }
            for body in damaged {
                for router in [&scalar, &judge] {
                    let shown = String::from_utf8_lossy(&body).into_owned();
                    let (status, _) = post_bytes(router, &recorded.path, body.clone()).await;
                    assert!(!status.is_server_error(), "{} {status}: {shown}", recorded.path);
                }
            }
        }
    }
}

/// The value with each of its top-level members replaced.
fn replaced(value: &Value, other: &Value) -> Vec<Value> {
    let Some(object) = value.as_object() else { return Vec::new() };
    let each = object.keys().map(|key| {
        let mut changed = value.clone();
        changed[key] = other.clone();
        changed
    });
    each.collect()
}

#[tokio::test]
async fn activation_is_the_requests_choice() {
    let router = routes();
    let classify = async |activation: Value| {
        let body = json!({ "input": "text", "use_activation": activation });
        let (_, reply) = post(&router, "/classify", &body).await;
        reply["data"][0]["probs"][0].as_f64().unwrap()
    };
    let raw = classify(json!(false)).await;
    let sigmoid = 1.0 / (1.0 + (-raw).exp());
    assert_eq!(classify(Value::Null).await, sigmoid);
    assert_eq!(classify(json!(true)).await, sigmoid);
    assert!(raw > 1.0);
}

#[tokio::test]
async fn one_dialect_says_what_another_says() {
    let router = routes();
    let text = "some templated text";
    let (_, openrlhf) = post(&router, "/get_reward", &json!({ "query": [text] })).await;
    let (_, sglang) = post(&router, "/classify", &json!({ "text": text })).await;
    let (_, embeddings) = post(&router, "/v1/embeddings", &json!({ "input": text })).await;
    let (_, tei) = post(&router, "/predict", &json!({ "inputs": text, "raw_scores": true })).await;
    let body = json!({ "input": text, "use_activation": false });
    let (_, vllm) = post(&router, "/classify", &body).await;
    let (_, pooling) = post(&router, "/pooling", &body).await;
    let number = &openrlhf["rewards"][0];
    assert!(number.is_number());
    for other in [
        &sglang["embedding"][0],
        &embeddings["data"][0]["embedding"][0],
        &tei[0]["score"],
        &vllm["data"][0]["probs"][0],
        &pooling["data"][0]["data"][0],
    ] {
        assert_eq!(number, other);
    }
}

#[tokio::test]
async fn a_stand_in_keeps_lists_whole() {
    let body = json!({ "query": ["p a", "p UNPARSED", "p c"], "prompts": ["p", "p", "p"] });
    let judge = || -> Box<dyn ServedModel> { Box::new(Scripted::new("j", Family::Generative)) };
    let start = |config| App::start(config, vec![judge()], Shutdown::default()).unwrap();
    let (status, _) = post(&router(&start(ServerConfig::default())), "/get_reward", &body).await;
    assert_eq!(status.as_u16(), 422);
    let config = ServerConfig { fault_score: Some(-1.0), ..ServerConfig::default() };
    let router = router(&start(config));
    let (_, reply) = post(&router, "/get_reward", &body).await;
    assert_eq!(reply["rewards"][1], -1.0);
    assert_eq!(reply["extra_logs"]["faults"], json!([0.0, 1.0, 0.0]));
    // A failing engine is no property of the response.
    let body = json!({ "query": ["p FAULT"], "prompts": ["p"] });
    assert_eq!(post(&router, "/get_reward", &body).await.0.as_u16(), 502);
}

#[tokio::test]
async fn chat_streams() {
    let router = routes();
    let body = json!({
        "model": "judge", "messages": [{ "role": "user", "content": "q" }], "n": 2,
        "stream": true, "stream_options": { "include_usage": true }, "stop": ["er 1"],
    });
    let (_, streamed) = post_bytes(&router, "/v1/chat/completions", body.to_string()).await;
    let streamed = String::from_utf8(streamed).unwrap();
    let data: Vec<&str> = streamed
        .split_terminator("\n\n")
        .map(|event| event.strip_prefix("data: ").unwrap())
        .collect();
    assert_eq!(data.last(), Some(&"[DONE]"));
    let chunks: Vec<Value> =
        data[..data.len() - 1].iter().map(|chunk| serde_json::from_str(chunk).unwrap()).collect();
    let text = |index: usize| -> String {
        let choices = chunks.iter().filter_map(|chunk| chunk["choices"].get(0));
        let own = choices.filter(|choice| choice["index"] == index);
        own.filter_map(|choice| choice["delta"]["content"].as_str()).collect()
    };
    assert_eq!((text(0).as_str(), text(1).as_str()), ("answer 0", "answ"));
    let usage = &chunks.last().unwrap()["usage"];
    assert_eq!(usage["completion_tokens"], 16);
    let reasons = chunks.iter().filter(|chunk| chunk["choices"][0]["finish_reason"] == "stop");
    assert_eq!(reasons.count(), 2);
}

/// Values of every shape, with the keys that bodies have.
fn random_value(draws: &mut SplitMix64, keys: &[String], depth: usize) -> Value {
    match draws.below(if depth == 0 { 6 } else { 9 }) {
        0 => Value::Null,
        1 => json!(draws.below(2) == 0),
        2 => json!(draws.below(5)),
        3 => json!(-1.5e300 * draws.below(3) as f64),
        4 => json!(["", "text", "user", "assistant", "\u{1f600}\u{0}"][draws.below(5)]),
        5 => json!(u64::MAX),
        6 => {
            let len = draws.below(4);
            (0..len).map(|_| random_value(draws, keys, depth - 1)).collect()
        }
        _ => {
            let len = draws.below(6);
            let mut object = serde_json::Map::new();
            for _ in 0..len {
                let key = keys[draws.below(keys.len())].clone();
                object.insert(key, random_value(draws, keys, depth - 1));
            }
            Value::Object(object)
        }
    }
}

fn keys_of(value: &Value, keys: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                keys.push(key.clone());
                keys_of(value, keys);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| keys_of(value, keys)),
        _ => {}
    }
}

#[test]
fn parsers_take_anything() {
    let mut keys = Vec::new();
    for dialect in DIALECTS {
        for recorded in read(dialect).exchanges {
            keys_of(&recorded.request, &mut keys);
        }
    }
    keys.sort();
    keys.dedup();
    let mut draws = SplitMix64::for_stream(7, 0);
    let (mut fine, mut refused) = (0, 0);
    for path in crate::body_paths() {
        for _ in 0..3_000 {
            let body = random_value(&mut draws, &keys, 4).to_string();
            match crate::parse_body(path, body.as_bytes()).unwrap() {
                Ok(()) => fine += 1,
                Err(_) => refused += 1,
            }
        }
    }
    // Both happen, or the values are not what bodies are made of.
    assert!(fine > 50 && refused > 1_000, "{fine} {refused}");
    assert!(crate::parse_body("/nowhere", b"{}").is_none());
}

/// Path and body of every `curl` of a page; without a body where there is none.
fn documented(page: &str) -> Vec<(String, Option<String>)> {
    let calls = page.split("curl -s").skip(1).filter_map(|rest| {
        let rest = rest.split_once("localhost:8400")?.1;
        let end = rest.find([' ', '\n']).unwrap_or(rest.len());
        let (path, after) = rest.split_at(end);
        let body = after.strip_prefix(" -d '").and_then(|body| body.split_once('\''));
        Some((path.to_owned(), body.map(|(body, _)| body.to_owned())))
    });
    calls.collect()
}

#[tokio::test]
async fn documented_calls_are_answered() {
    let (scalar, judge) = (server("scalar"), server("judge"));
    let calls = documented(include_str!("../../../../docs/server.md"));
    assert!(calls.len() >= 18, "{}", calls.len());
    let mut told: Vec<&str> = calls.iter().map(|(path, _)| path.as_str()).collect();
    for (path, body) in &calls {
        let mut statuses = Vec::new();
        for router in [&scalar, &judge] {
            let request = match body {
                Some(body) => Request::post(path).body(Body::from(body.clone())),
                None => Request::get(path).body(Body::empty()),
            };
            let response = router.clone().oneshot(request.unwrap()).await.unwrap();
            statuses.push(response.status().as_u16());
        }
        // Some routes are for one family of models only.
        assert!(statuses.contains(&200), "{path} {body:?}: {statuses:?}");
    }
    // Every route that takes a body is shown; cohorts have a page of their own.
    told.extend(["/", "/v1/rerank", "/v1/par"]);
    for path in crate::body_paths() {
        assert!(told.contains(&path), "docs/server.md does not show {path}");
    }
}

#[tokio::test]
async fn values_of_tokens_are_told_where_they_are_asked_for() {
    let model = Scripted::new("q", Family::Token);
    let app = App::start(ServerConfig::default(), vec![Box::new(model)], Shutdown::default());
    let router = router(&app.unwrap());
    let item = json!({ "prompt": "why", "response": "one three" });
    let body = json!({ "items": [item], "tokens": true });
    let (_, reply) = post(&router, "/v1/score", &body).await;
    let tokens = json!([{ "text": "one ", "value": 4.0 }, { "text": "three", "value": 5.0 }]);
    assert_eq!(
        (&reply["results"][0]["tokens"], &reply["results"][0]["score"]),
        (&tokens, &json!(4.5))
    );
    let (_, reply) = post(&router, "/v1/score", &json!({ "items": [item] })).await;
    assert_eq!(reply["results"][0].get("tokens"), None);
    let (_, reply) = post(&router, "/v1/judge", &item).await;
    assert_eq!((&reply["tokens"], &reply["judgements"]), (&tokens, &json!([])));
    // A trainer's complete text is taken apart for a model that needs the response alone.
    let query = "<|im_start|>user\nwhy<|im_end|>\n<|im_start|>assistant\none three<|im_end|>\n";
    let prompt = "<|im_start|>user\nwhy<|im_end|>\n<|im_start|>assistant\n";
    let body = json!({ "query": [query], "prompts": [prompt], "labels": [""] });
    let (_, reply) = post(&router, "/get_reward", &body).await;
    assert_eq!(reply["rewards"], json!([4.5]));
}
