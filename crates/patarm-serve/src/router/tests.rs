//! The routes without sockets: native replies, refusals, limits, keys, measurements.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use patarm_reward::serving::Family;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::config::Limits;
use crate::testing::{Gate, Scripted, app, bytes, get, post, post_bytes, routes, score_of};

#[tokio::test]
async fn scores_stand_in_order_and_carry_their_ids() {
    let items: Vec<Value> = (0..20)
        .map(|i| json!({ "id": format!("i{i}"), "prompt": "q", "response": format!("r{i}") }))
        .collect();
    let (status, reply) = post(&routes(), "/v1/score", &json!({ "items": items })).await;
    assert_eq!(status, StatusCode::OK);
    for (i, result) in reply["results"].as_array().unwrap().iter().enumerate() {
        assert_eq!(result["id"], format!("i{i}"));
        assert_eq!(result["score"], score_of(&format!("q\nr{i}")));
    }
    assert_eq!(reply["model"], "scalar");
}

#[tokio::test]
async fn one_bad_item_fails_alone() {
    let body = json!({ "model": "judge", "items": [
        { "prompt": "q", "response": "fine" },
        { "prompt": "q", "response": "UNPARSED" },
        { "prompt": "q", "response": "FAULT" },
        { "prompt": "q", "response": "PANIC" },
        { "prompt": "q", "response": "x".repeat(5_000) },
    ]});
    let (status, reply) = post(&routes(), "/v1/score", &body).await;
    assert_eq!(status, StatusCode::OK);
    let codes: Vec<&Value> = reply["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| &result["error"]["code"])
        .collect();
    let expected = [
        Value::Null,
        "unscored".into(),
        "engine_failed".into(),
        "internal".into(),
        "overlong".into(),
    ];
    assert!(codes.into_iter().eq(&expected));
    assert!(!reply.to_string().contains("secret"));
}

#[tokio::test]
async fn a_judge_writes_votes() {
    let body = json!({ "model": "judge", "prompt": [{ "role": "user", "content": "q" }],
        "response": "r", "votes": 3, "task": "math" });
    let (status, reply) = post(&routes(), "/v1/judge", &body).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(reply["judgements"].as_array().unwrap().len(), 3);
    let base = score_of("q\nr");
    assert!((reply["score"].as_f64().unwrap() - (base + 1.0)).abs() < 1e-9, "{reply}");
    assert_eq!(reply["valid_votes"], 3);
    assert_eq!(reply["scale"], json!([0.0, 10.0]));
}

#[tokio::test]
async fn a_streamed_judgement_is_the_same() {
    let router = routes();
    let mut body = json!({ "model": "judge", "prompt": "q", "response": "r", "votes": 2 });
    let (_, whole) = post(&router, "/v1/judge", &body).await;
    body["stream"] = json!(true);
    let (status, streamed) = post_bytes(&router, "/v1/judge", body.to_string()).await;
    assert_eq!(status, StatusCode::OK);
    let streamed = String::from_utf8(streamed).unwrap();
    let events: Vec<(&str, Value)> = streamed
        .split_terminator("\n\n")
        .map(|event| {
            let (kind, data) = event.split_once("\ndata: ").unwrap();
            (kind.strip_prefix("event: ").unwrap(), serde_json::from_str(data).unwrap())
        })
        .collect();
    let (last, texts) = events.split_last().unwrap();
    assert_eq!(last, &("done", whole.clone()));
    for vote in 0..2 {
        let text: String = texts
            .iter()
            .filter(|(kind, data)| *kind == "text" && data["vote"] == vote)
            .map(|(_, data)| data["text"].as_str().unwrap())
            .collect();
        assert_eq!(text, whole["judgements"][vote]["text"].as_str().unwrap());
    }
}

#[tokio::test]
async fn comparisons() {
    let router = routes();
    let body = json!({ "prompt": "q", "responses": ["a", "b", "c"] });
    let (_, reply) = post(&router, "/v1/compare", &body).await;
    let scores: Vec<f64> = (0..3).map(|i| reply["results"][i]["score"].as_f64().unwrap()).collect();
    let best = (0..3).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap();
    assert_eq!(reply["best"], best);
    let body =
        json!({ "model": "judge", "mode": "pairwise", "prompt": "q", "responses": ["a", "b"] });
    let (_, reply) = post(&router, "/v1/compare", &body).await;
    assert_eq!(reply["best"], usize::from(score_of("b") > score_of("a")));
    assert_eq!(reply["votes"].as_array().unwrap().len(), 2);
    let body = json!({ "mode": "pairwise", "prompt": "q", "responses": ["a", "b"] });
    let (status, reply) = post(&router, "/v1/compare", &body).await;
    assert_eq!((status.as_u16(), &reply["error"]["code"]), (400, &json!("unsupported")));
    let (status, _) =
        post(&router, "/v1/compare", &json!({ "prompt": "q", "responses": ["a"] })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn refusals() {
    let router = routes();
    let code = |reply: &Value| reply["error"]["code"].as_str().unwrap_or_default().to_owned();
    for (body, status, expected) in [
        ("{", 400, "bad_json"),
        ("", 400, "bad_json"),
        ("[]", 400, "bad_request"),
        ("{\"items\": [], \"other\": 1}", 400, "bad_request"),
        ("{\"items\": [{\"prompt\": 3, \"response\": \"r\"}]}", 400, "bad_request"),
        ("{\"items\": [{\"prompt\": [], \"response\": \"r\"}]}", 400, "bad_request"),
        ("{\"model\": \"none\", \"items\": []}", 404, "model_not_found"),
    ] {
        let (got, reply) = post_bytes(&router, "/v1/score", body).await;
        let reply: Value = serde_json::from_slice(&reply).unwrap();
        assert_eq!((got.as_u16(), code(&reply).as_str()), (status, expected), "{body}");
    }
    let deep = format!("{{\"items\": {}", "[".repeat(100_000));
    assert_eq!(post_bytes(&router, "/v1/score", deep).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(post(&router, "/nowhere", &json!({})).await.0, StatusCode::NOT_FOUND);
    let (status, text) = get(&router, "/v1/score").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(text.contains("method_not_allowed"));
    let preparing = json!({ "items": [{ "prompt": "q", "response": "PREPANIC" }] });
    assert_eq!(post(&router, "/v1/score", &preparing).await.0, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn bodies_have_limits() {
    let limits = Limits { max_body_bytes: 4_000, max_held_bytes: 10_000, ..Limits::default() };
    let app = app(ServerConfig { limits, ..ServerConfig::default() });
    let router = router(&app);
    let long = "x".repeat(4_001);
    let (status, _) = post_bytes(&router, "/v1/score", long.clone()).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    // Without a declared length the limit holds as well.
    let chunks = futures_util::stream::iter([Ok::<_, std::io::Error>(long)]);
    let (status, _) = post_bytes(&router, "/v1/score", Body::from_stream(chunks)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let held = [app.hold(4_000).unwrap(), app.hold(4_000).unwrap()];
    let request = Request::post("/v1/score").header("content-length", "3000");
    let request = request.body(Body::from(" ".repeat(3_000))).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "1");
    drop(held);
    let (status, _) = post(&router, "/v1/score", &json!({ "items": [] })).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn slow_bodies_and_slow_engines_time_out() {
    let gate = Gate::default();
    let model = Scripted::gated("m", Family::Scalar, gate.clone());
    let app =
        App::start(ServerConfig::default(), vec![Box::new(model)], Shutdown::default()).unwrap();
    let router = router(&app);
    let never = futures_util::stream::pending::<Result<&'static [u8], std::io::Error>>();
    let (status, _) = post_bytes(&router, "/v1/score", Body::from_stream(never)).await;
    assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
    let body = json!({ "items": [{ "prompt": "q", "response": "r" }] });
    let (status, reply) = post(&router, "/v1/score", &body).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(reply["error"]["code"], "deadline_exceeded");
    assert_eq!(app.metrics().in_flight().get(), 0);
    gate.open();
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let gate = Gate::default();
    let model = Scripted::gated("m", Family::Scalar, gate.clone());
    let limits = Limits { max_queue: 2, max_batch_tokens: 1, ..Limits::default() };
    let config = ServerConfig { limits, ..ServerConfig::default() };
    let app = App::start(config, vec![Box::new(model)], Shutdown::default()).unwrap();
    let router = router(&app);
    let body = json!({ "items": [{ "prompt": "q", "response": "r" }] });
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let (router, body) = (router.clone(), body.clone());
        waiting.push(tokio::spawn(async move { post(&router, "/v1/score", &body).await }));
        // One is with the engine, two wait.
        while app.metrics().in_flight().get() as usize != waiting.len() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let request = Request::post("/v1/score").body(Body::from(body.to_string())).unwrap();
    let refused = router.clone().oneshot(request).await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers().contains_key("retry-after"));
    gate.open();
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().0, StatusCode::OK);
    }
}

#[tokio::test]
async fn keys_guard_everything_that_computes() {
    let config =
        ServerConfig { api_keys: vec!["0123456789abcdef".into()], ..ServerConfig::default() };
    let router = router(&app(config));
    let ask = |key: &str| {
        let request = Request::post("/v1/score").header("authorization", format!("Bearer {key}"));
        router.clone().oneshot(request.body(Body::from("{\"items\":[]}")).unwrap())
    };
    assert_eq!(ask("0123456789abcdef").await.unwrap().status(), StatusCode::OK);
    let refused = ask("0123456789abcdeF").await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.headers()["www-authenticate"], "Bearer");
    assert_eq!(get(&router, "/health").await.0, StatusCode::OK);
}

#[tokio::test]
async fn request_ids_come_back() {
    let router = routes();
    let ask = async |id: &str| {
        let request = Request::post("/v1/score").header("x-request-id", id);
        let response =
            router.clone().oneshot(request.body(Body::from("{}")).unwrap()).await.unwrap();
        let header = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let body: Value = serde_json::from_slice(&bytes(response).await).unwrap();
        assert_eq!(body["error"]["request_id"], header);
        header
    };
    assert_eq!(ask("abc-1").await, "abc-1");
    let (fresh, other) = (ask("no spaces, please").await, ask("").await);
    assert!(fresh != other && !fresh.contains(' '));
}

#[tokio::test]
async fn a_stopping_server_says_so() {
    let app = app(ServerConfig::default());
    let router = router(&app);
    assert_eq!(get(&router, "/ready").await.0, StatusCode::OK);
    app.shutdown().trigger();
    assert_eq!(get(&router, "/ready").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get(&router, "/health").await.0, StatusCode::OK);
    let (status, _) = post(&router, "/v1/score", &json!({ "items": [] })).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn what_is_measured() {
    let router = routes();
    let items = [
        json!({ "prompt": "q", "response": "r" }),
        json!({ "prompt": "q", "response": "UNPARSED" }),
    ];
    post(&router, "/v1/score", &json!({ "model": "judge", "items": items })).await;
    post(&router, "/v1/score", &json!({})).await;
    let (_, text) = get(&router, "/metrics").await;
    for line in [
        "patarm_requests_total{dialect=\"native\",status=\"200\"} 1",
        "patarm_requests_total{dialect=\"native\",status=\"400\"} 1",
        "patarm_judgements_total{model=\"judge\"} 2",
        "patarm_judgement_faults_total{model=\"judge\",fault=\"score_absent\"} 1",
        "patarm_score_count{model=\"judge\"} 1",
        "patarm_phase_seconds_count{model=\"judge\",phase=\"queue\"} 2",
        "patarm_phase_seconds_count{model=\"judge\",phase=\"compute\"} 2",
        "patarm_in_flight 0",
    ] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
}

#[tokio::test]
async fn the_description_names_every_route() {
    let (status, text) = get(&routes(), "/openapi.json").await;
    assert_eq!(status, StatusCode::OK);
    let description: Value = serde_json::from_str(&text).unwrap();
    for path in ["/v1/score", "/v1/judge", "/v1/compare"] {
        let operation = &description["paths"][path]["post"];
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        let name = schema["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        let found = &description["components"]["schemas"][name];
        let is_told = found["properties"].is_object() || found["anyOf"].is_array();
        assert!(is_told, "{path}: {found}");
        assert!(operation["responses"]["429"].is_object());
    }
    // Every reference leads somewhere.
    let mut rest = text.as_str();
    while let Some(at) = rest.find("\"#/components/schemas/") {
        rest = &rest[at + 22..];
        let name = rest.split('"').next().unwrap();
        assert!(description["components"]["schemas"][name].is_object(), "{name}");
    }
}
