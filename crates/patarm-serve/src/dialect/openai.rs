//! OpenAI's chat protocol, for generative judges: `/v1/chat/completions`, `/v1/models`.

mod chat;
mod logprobs;
mod stop;
mod stream;

pub use chat::{ChatReply, ChatRequest};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

use crate::router::{App, Routes};

async fn models(State(app): State<std::sync::Arc<App>>) -> Response {
    let created = app.now_s();
    let models: Vec<Value> = app
        .core()
        .hosts()
        .iter()
        .map(|host| {
            let card = host.card();
            json!({
                "id": card.name,
                "object": "model",
                "created": created,
                "owned_by": "patarm",
                "family": card.family.name(),
                "max_model_len": card.max_tokens.min(u32::MAX as usize),
                "score_scale": card.scale.map(|(low, high)| [low, high]),
            })
        })
        .collect();
    axum::Json(json!({ "object": "list", "data": models })).into_response()
}

pub(super) fn add(routes: Routes) -> Routes {
    routes.post::<chat::Chat>().get("/v1/models", "The models that are served.", get(models))
}
