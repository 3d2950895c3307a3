//! Our own protocol: `/v1/score`, `/v1/judge`, `/v1/compare`, `/v1/par`.

mod compare;
mod judge;
mod par;
mod prompt;
mod score;

pub use compare::{CompareReply, CompareRequest};
pub use judge::{JudgeReply, JudgeRequest, JudgementReply};
pub(crate) use par::CohortService;
pub use par::{
    GroupPlace, PairPlace, ParReply, ParRequest, RolloutReply, RolloutRequest, RolloutStatus,
};
pub(crate) use prompt::role;
pub use prompt::{Prompt, Turn};
pub use score::{ItemRequest, ItemScore, ScoreReply, ScoreRequest, StepScore, TokenScore};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::router::Routes;

/// Why one item has no result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ItemError {
    /// The code, as in the table of errors.
    pub code: String,
    /// One sentence.
    pub message: String,
}

impl From<&Fault> for ItemError {
    fn from(fault: &Fault) -> Self {
        Self { code: fault.code.name().to_owned(), message: fault.message.clone() }
    }
}

/// Kind of work; told from the prompt where it is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskName {
    /// Told from the prompt.
    Auto,
    /// Open conversation.
    Chat,
    /// Programming.
    Code,
    /// Mathematics.
    Math,
    /// Requests that may do harm.
    Safety,
    /// Explicit instructions.
    InstructionFollowing,
}

impl From<TaskName> for Option<patarm_text::Task> {
    fn from(name: TaskName) -> Self {
        use patarm_text::Task;
        match name {
            TaskName::Auto => None,
            TaskName::Chat => Some(Task::Chat),
            TaskName::Code => Some(Task::Code),
            TaskName::Math => Some(Task::Math),
            TaskName::Safety => Some(Task::Safety),
            TaskName::InstructionFollowing => Some(Task::InstructionFollowing),
        }
    }
}

pub(super) fn add(routes: Routes) -> Routes {
    let routes = routes.post::<score::Score>().post::<judge::Judge>().post::<compare::Compare>();
    par::add(routes)
}
