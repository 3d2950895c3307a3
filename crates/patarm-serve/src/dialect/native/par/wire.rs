//! The body of `/v1/par` and its answer.

use patarm_reward::judgement::FormatFault;
use patarm_reward::par::ParScore;
use patarm_reward::template::JudgeFormat;
use patarm_reward::verdict::TextEnd;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cohort::{Answer, Arrival, CohortState, GroupRule, Place, Refusal, Side};
use crate::dialect::native::{ItemError, ItemRequest};
use crate::fault::{Fault, FaultCode};

/// Rollouts for which rewards are wanted.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParRequest {
    /// The rollouts; of one cohort or of many.
    pub rollouts: Vec<RolloutRequest>,
    /// How long to wait for cohorts to become complete, in milliseconds; 30,000 where it
    /// is not given. 0 = do not wait.
    pub wait_ms: Option<u64>,
}

/// One rollout: exactly one of `pair` and `group`, and exactly one of `judgement`,
/// `score`, `fault` and `item`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutRequest {
    /// Names the cohort: one id a pair (or group) and training step.
    pub cohort_id: String,
    /// Names the rollout within its cohort; the same id again means the same rollout.
    pub rollout_id: String,
    /// Its place in a preference pair.
    pub pair: Option<PairPlace>,
    /// Its place in a group.
    pub group: Option<GroupPlace>,
    /// A judgement as the judge wrote it; the score is read from it.
    pub judgement: Option<String>,
    /// Whether the token limit cut the judgement off.
    #[serde(default)]
    pub truncated: bool,
    /// A score that is known already.
    pub score: Option<f64>,
    /// Why there is no score: `missing_tag`, `tag_order`, `score_absent`,
    /// `score_not_number`, `score_out_of_range` or `truncated`.
    pub fault: Option<String>,
    /// A response that this server's model is to score first.
    pub item: Option<ItemRequest>,
}

/// A place in a preference pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PairPlace {
    /// Which response the rollout judges: 0 or 1.
    #[schemars(with = "u8", range(max = 1))]
    pub side: Side,
    /// Which response people preferred: 0 or 1.
    #[schemars(with = "u8", range(max = 1))]
    pub preferred_side: Side,
    /// How many rollouts of side 0 and of side 1 there will be.
    pub expected: [usize; 2],
}

/// A place in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupPlace {
    /// How many rollouts there will be.
    pub expected: usize,
    /// What they are rewarded with.
    pub rule: GroupRule,
}

/// What became of the rollouts, in their order.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ParReply {
    /// One result a rollout.
    pub results: Vec<RolloutReply>,
}

/// What became of one rollout.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct RolloutReply {
    /// Its cohort.
    pub cohort_id: String,
    /// Its id.
    pub rollout_id: String,
    /// Which of the fields below is there.
    pub status: RolloutStatus,
    /// The reward and its parts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// Where the cohort stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<CohortState>,
    /// Why there will be no reward.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ItemError>,
}

/// How far a rollout has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RolloutStatus {
    /// It has its reward: see `answer`.
    Rewarded,
    /// It is counted and its cohort is not complete: see `state`, ask again.
    Pending,
    /// It gets no reward: see `error`.
    Refused,
}

/// Which rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RolloutId {
    pub(super) cohort: String,
    pub(super) rollout: String,
}

/// What a caller is told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    Rewarded(Answer),
    Pending(Option<CohortState>),
    Refused(ItemError),
}

impl From<Result<Answer, Refusal>> for Outcome {
    fn from(result: Result<Answer, Refusal>) -> Self {
        match result {
            Ok(answer) => Self::Rewarded(answer),
            Err(refusal) => Self::Refused(ItemError {
                code: refusal.code().to_owned(),
                message: refusal.message(),
            }),
        }
    }
}

impl RolloutReply {
    pub(super) fn new(id: RolloutId, outcome: Outcome) -> Self {
        let mut reply = Self {
            cohort_id: id.cohort,
            rollout_id: id.rollout,
            status: RolloutStatus::Refused,
            answer: None,
            state: None,
            error: None,
        };
        match outcome {
            Outcome::Rewarded(answer) => {
                reply.status = RolloutStatus::Rewarded;
                reply.answer = Some(answer);
            }
            Outcome::Pending(state) => {
                reply.status = RolloutStatus::Pending;
                reply.state = state;
            }
            Outcome::Refused(error) => reply.error = Some(error),
        }
        reply
    }
}

/// A rollout after its fields were held against each other.
pub(super) struct Checked {
    pub(super) id: RolloutId,
    pub(super) result: Result<(Place, Content), ItemError>,
}

/// What a rollout carries.
pub(super) enum Content {
    Score(ParScore),
    Item(ItemRequest),
}

impl RolloutRequest {
    /// Reads the judgement, if there is one, in the judge's format.
    pub(super) fn check(self, format: &JudgeFormat) -> Checked {
        let place = place(self.pair, self.group);
        let id = RolloutId { cohort: self.cohort_id, rollout: self.rollout_id };
        let end = if self.truncated { TextEnd::Truncated } else { TextEnd::Stopped };
        let content = match (self.judgement, self.score, self.fault, self.item) {
            (Some(text), None, None, None) => {
                let parsed = format.parse(&text, end);
                let (score, readable) = (parsed.score, parsed.readable_score);
                Ok(Content::Score(ParScore { score, readable }))
            }
            (None, Some(score), None, None) => Ok(Content::Score(ParScore::valid(score))),
            (None, None, Some(name), None) => {
                fault(&name).map(|fault| Content::Score(ParScore::fault(fault)))
            }
            (None, None, None, Some(item)) => Ok(Content::Item(item)),
            _ => Err(invalid("give exactly one of judgement, score, fault and item")),
        };
        let result = place.and_then(|place| content.map(|content| (place, content)));
        Checked { id, result }
    }
}

fn place(pair: Option<PairPlace>, group: Option<GroupPlace>) -> Result<Place, ItemError> {
    match (pair, group) {
        (Some(PairPlace { side, preferred_side, expected }), None) => {
            Ok(Place::in_pair(side, preferred_side, expected))
        }
        (None, Some(GroupPlace { expected, rule })) => Ok(Place::in_group(expected, rule)),
        _ => Err(invalid("give exactly one of pair and group")),
    }
}

fn fault(name: &str) -> Result<FormatFault, ItemError> {
    let known = FormatFault::ALL.into_iter().find(|fault| fault.name() == name);
    known.ok_or_else(|| {
        let names: Vec<&str> = FormatFault::ALL.iter().map(|fault| fault.name()).collect();
        invalid(&format!("fault must be one of {}", names.join(", ")))
    })
}

fn invalid(message: &str) -> ItemError {
    ItemError {
        message: message.to_owned(),
        ..ItemError::from(&Fault::plain(FaultCode::BadRequest))
    }
}

pub(super) fn arrival(id: &RolloutId, place: Place, score: ParScore) -> Arrival {
    Arrival { cohort_id: id.cohort.clone(), rollout_id: id.rollout.clone(), place, score }
}
