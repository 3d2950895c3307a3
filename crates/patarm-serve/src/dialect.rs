//! The protocols the server speaks: thin adapters, each its own file.
//!
//! An adapter parses a body, names the work in it, and writes the answer as its
//! clients expect it. It knows nothing of queues and engines.

mod input;
mod markup;
pub mod native;
pub mod nemo_gym;
pub mod openai;
pub mod openrlhf;
mod scoring;
pub mod sglang;
pub mod slime;
pub mod tei;
mod vector;
pub mod vllm;

pub use input::{ChatMessage, Input, LoosePrompt, TextOrIds, Texts};
pub use vector::{Encoding, Vector};

#[cfg(test)]
mod tests;

use serde_json::{Value, json};

use crate::exchange::ErrorBody;
use crate::fault::Fault;
use crate::router::Routes;

/// In whose shape a route speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Our own.
    Native,
    /// OpenRLHF's remote reward.
    OpenRlhf,
    /// slime's remote reward model.
    Slime,
    /// vLLM's pooling routes.
    Vllm,
    /// SGLang's embeddings.
    Sglang,
    /// text-embeddings-inference.
    Tei,
    /// NeMo Gym's comparison.
    NemoGym,
    /// OpenAI's chat protocol.
    OpenAi,
}

impl Dialect {
    /// The name in metrics and descriptions.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::OpenRlhf => "openrlhf",
            Self::Slime => "slime",
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::Tei => "tei",
            Self::NemoGym => "nemo_gym",
            Self::OpenAi => "openai",
        }
    }

    /// A fault as clients of this dialect expect it.
    pub(crate) fn error(self, fault: &Fault, request_id: &str) -> ErrorBody {
        match self {
            Self::Native | Self::OpenRlhf | Self::Slime => native_error(fault, request_id),
            Self::Vllm | Self::Sglang | Self::OpenAi => openai_error(fault, request_id),
            Self::Tei => json!({
                "error": fault.message,
                "error_type": tei_type(fault),
                "request_id": request_id,
            }),
            Self::NemoGym => json!({
                "detail": fault.message,
                "code": fault.code.name(),
                "request_id": request_id,
            }),
        }
    }
}

fn native_error(fault: &Fault, request_id: &str) -> ErrorBody {
    json!({
        "error": {
            "code": fault.code.name(),
            "message": fault.message,
            "request_id": request_id,
        }
    })
}

fn openai_error(fault: &Fault, request_id: &str) -> ErrorBody {
    let status = fault.code.status();
    let kind = match status.as_u16() {
        401 => "authentication_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    };
    json!({
        "error": {
            "message": fault.message,
            "type": kind,
            "param": Value::Null,
            "code": fault.code.name(),
            "request_id": request_id,
        }
    })
}

/// The kinds that text-embeddings-inference has.
fn tei_type(fault: &Fault) -> &'static str {
    match fault.code.status().as_u16() {
        429 => "overloaded",
        503 => "unhealthy",
        400..=499 => "validation",
        _ => "backend",
    }
}

/// Adds the routes of every dialect.
pub(crate) fn add(routes: Routes) -> Routes {
    let dialects = [
        native::add,
        openrlhf::add,
        slime::add,
        vllm::add,
        sglang::add,
        tei::add,
        nemo_gym::add,
        openai::add,
    ];
    dialects.into_iter().fold(routes, |routes, add| add(routes))
}
