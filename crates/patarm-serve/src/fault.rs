//! Everything that can go wrong with a request: one closed table.
//!
//! `docs/server-errors.md` states the same table and a test holds the two together.
//! Messages are for the caller: they repeat what the caller sent at most, and never what
//! happened inside. Each dialect wraps these facts in its own shape.

use axum::http::StatusCode;
use patarm_reward::model::ItemFault;

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultCode {
    /// The body is not JSON.
    BadJson,
    /// The body is JSON, but no request of this route.
    BadRequest,
    /// The model cannot do what was asked.
    Unsupported,
    /// No key, or a wrong one.
    Unauthorized,
    /// No such route.
    NotFound,
    /// No such model.
    ModelNotFound,
    /// The route has another method.
    MethodNotAllowed,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body is too long.
    BodyTooLarge,
    /// The request has too many items or votes.
    TooManyItems,
    /// The item does not fit the model.
    Overlong,
    /// No judgement had a usable score.
    Unscored,
    /// A cohort was given up before it was complete.
    CohortFailed,
    /// The server is full.
    Busy,
    /// A fault of the server.
    Internal,
    /// The remote engine failed.
    EngineFailed,
    /// The server is starting or about to stop.
    Unavailable,
    /// The answer was not ready in time.
    DeadlineExceeded,
}

/// Status, name and meaning of every code.
const TABLE: [(FaultCode, u16, &str, &str); 18] = [
    (FaultCode::BadJson, 400, "bad_json", "The body is not JSON."),
    (FaultCode::BadRequest, 400, "bad_request", "The body is no request of this route."),
    (FaultCode::Unsupported, 400, "unsupported", "The model cannot do what was asked."),
    (FaultCode::Unauthorized, 401, "unauthorized", "The key is missing or wrong."),
    (FaultCode::NotFound, 404, "not_found", "There is no such route."),
    (FaultCode::ModelNotFound, 404, "model_not_found", "There is no model of that name."),
    (FaultCode::MethodNotAllowed, 405, "method_not_allowed", "The route has another method."),
    (FaultCode::BodyTimeout, 408, "body_timeout", "The body did not arrive in time."),
    (FaultCode::BodyTooLarge, 413, "body_too_large", "The body is too long."),
    (FaultCode::TooManyItems, 413, "too_many_items", "The request has too many items or votes."),
    (FaultCode::Overlong, 422, "overlong", "The item does not fit the model."),
    (FaultCode::Unscored, 422, "unscored", "No judgement had a usable score."),
    (FaultCode::CohortFailed, 424, "cohort_failed", "The cohort did not become complete."),
    (FaultCode::Busy, 429, "busy", "The server is full; try again later."),
    (FaultCode::Internal, 500, "internal", "The server failed; other requests are unaffected."),
    (FaultCode::EngineFailed, 502, "engine_failed", "The remote engine failed."),
    (FaultCode::Unavailable, 503, "unavailable", "The server is starting or stopping."),
    (FaultCode::DeadlineExceeded, 504, "deadline_exceeded", "The answer took too long."),
];

impl FaultCode {
    /// Every code with its status, name and meaning, by status.
    pub fn table() -> impl Iterator<Item = (Self, u16, &'static str, &'static str)> {
        TABLE.into_iter()
    }

    fn row(self) -> (Self, u16, &'static str, &'static str) {
        let internal = (Self::Internal, 500, "internal", "");
        TABLE.into_iter().find(|(code, ..)| *code == self).unwrap_or(internal)
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().1).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The name programs compare with.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// What it means, in one sentence.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        self.row().3
    }
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What kind.
    pub code: FaultCode,
    /// One sentence for the caller.
    pub message: String,
    /// Seconds after which it makes sense to try again.
    pub retry_after_s: Option<u64>,
}

impl Fault {
    /// A fault with a sentence of its own.
    #[must_use]
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_s: None }
    }

    /// A fault whose meaning says it all.
    #[must_use]
    pub fn plain(code: FaultCode) -> Self {
        Self::new(code, code.meaning())
    }

    /// A body that is no request, in the words of the parser.
    #[must_use]
    pub fn bad_request(message: impl std::fmt::Display) -> Self {
        Self::new(FaultCode::BadRequest, message.to_string())
    }

    /// A server that is full for about so long.
    #[must_use]
    pub fn busy(retry_after_s: u64) -> Self {
        let retry_after_s = Some(retry_after_s.clamp(1, 60));
        Self { retry_after_s, ..Self::plain(FaultCode::Busy) }
    }
}

impl From<ItemFault> for Fault {
    /// What the engine says of itself stays inside.
    fn from(fault: ItemFault) -> Self {
        match fault {
            ItemFault::Unparsed(_) => Self::new(FaultCode::Unscored, fault.to_string()),
            ItemFault::Overlong { .. } => Self::new(FaultCode::Overlong, fault.to_string()),
            ItemFault::Unsupported(message) => Self::new(FaultCode::Unsupported, message),
            ItemFault::Engine(_) => Self::plain(FaultCode::EngineFailed),
            _ => Self::plain(FaultCode::Internal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_complete_and_sorted() {
        let statuses: Vec<u16> = FaultCode::table().map(|(_, status, ..)| status).collect();
        assert!(statuses.is_sorted());
        let names: std::collections::HashSet<_> = FaultCode::table().map(|row| row.2).collect();
        assert_eq!(names.len(), TABLE.len());
        for (code, status, name, _) in FaultCode::table() {
            assert_eq!((code.status().as_u16(), code.name()), (status, name));
        }
    }

    #[test]
    fn the_documentation_states_the_same_table() {
        let document = include_str!("../../../docs/server-errors.md");
        for (_, status, name, meaning) in FaultCode::table() {
            let row = format!("| {status} | `{name}` | {meaning}");
            assert!(document.contains(&row), "docs/server-errors.md lacks: {row}");
        }
        let rows =
            document.lines().filter(|line| line.starts_with("| 4") || line.starts_with("| 5"));
        assert_eq!(rows.count(), TABLE.len());
    }

    #[test]
    fn what_happens_inside_stays_inside() {
        let fault = Fault::from(ItemFault::Engine("http://10.0.0.3/v1: key sk-1 refused".into()));
        assert_eq!(fault.message, FaultCode::EngineFailed.meaning());
    }
}
