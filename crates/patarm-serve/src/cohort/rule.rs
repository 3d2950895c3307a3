//! The offline rule: a whole cohort in, every member's answer out.

use patarm_reward::advantage::{AdvantageConfig, group_advantages};
use patarm_reward::judgement::FormatFault;
use patarm_reward::par::{ParConfig, ParScore, ParSide, par};
use patarm_reward::rules::{leave_one_out, win_rates};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::arrival::{Declaration, Side};

/// What the members of a group are rewarded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupRule {
    /// Score minus group mean, over the group's sample deviation (GRPO).
    ZScore,
    /// Score minus group mean.
    Centred,
    /// Score minus the mean of the other members (RLOO).
    LeaveOneOut,
    /// Share of the other members it beats, ties counting half; within [0, 1].
    WinRate,
}

/// The reward of one rollout and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Answer {
    /// What to train on; `None` for a member of a group that has no score.
    pub reward: Option<f64>,
    /// The preference part f(δ) in a pair; in a group the reward itself.
    pub par: Option<f64>,
    /// The format part: 0, or a penalty.
    pub format: f64,
    /// The rollout's own score.
    pub score: Option<f64>,
    /// Why it has none.
    #[schemars(with = "Option<String>")]
    pub fault: Option<FormatFault>,
    /// Whether the rollout should be left out of the update.
    pub masked: bool,
    /// Mean of the usable scores of the rollout's own side, or of the group.
    pub own_mean: Option<f64>,
    /// Mean of the usable scores of the other side; `None` in a group.
    pub other_mean: Option<f64>,
    /// Whether a side (or the group) has no usable score at all.
    pub empty_side: bool,
    /// How many rollouts of each side (or of the group) it was computed from.
    pub received: Vec<usize>,
    /// Whether those were all that had been declared.
    pub complete: bool,
}

/// Answers for all members, aligned with them.
///
/// A member is its slot (side of a pair, 0 in a group) and its score. The reward of a
/// member depends on the members as a set: the caller gives them in an order of its own,
/// such as by id, and equal sets in equal order give equal bits.
#[must_use]
pub fn rewards(
    declaration: &Declaration,
    members: &[(usize, ParScore)],
    config: &ParConfig,
) -> Vec<Answer> {
    match *declaration {
        Declaration::Pair { preferred, .. } => pair(declaration, preferred, members, config),
        Declaration::Group { rule, .. } => group(declaration, rule, members),
    }
}

fn pair(
    declaration: &Declaration,
    preferred: Side,
    members: &[(usize, ParScore)],
    config: &ParConfig,
) -> Vec<Answer> {
    let scores = |slot: usize| -> Vec<ParScore> {
        members.iter().filter(|(s, _)| *s == slot).map(|(_, score)| *score).collect()
    };
    let chosen = scores(preferred.index());
    let rejected = scores(preferred.other().index());
    let outcome = par(&chosen, &rejected, config);
    let mut received = vec![0; 2];
    received[preferred.index()] = chosen.len();
    received[preferred.other().index()] = rejected.len();
    let complete = received == declaration.expected();
    let mut next = [0; 2];
    members
        .iter()
        .map(|(slot, score)| {
            let is_chosen = *slot == preferred.index();
            let (own, other) = if is_chosen {
                (&outcome.chosen, &outcome.rejected)
            } else {
                (&outcome.rejected, &outcome.chosen)
            };
            let i = next[usize::from(is_chosen)];
            next[usize::from(is_chosen)] += 1;
            Answer {
                empty_side: outcome.empty_side,
                received: received.clone(),
                complete,
                ..pair_answer(own, other, i, score)
            }
        })
        .collect()
}

/// The answer of judgement `i` of its side; what all members share is still blank.
fn pair_answer(own: &ParSide, other: &ParSide, i: usize, score: &ParScore) -> Answer {
    let reward = own.rewards[i];
    Answer {
        reward: Some(reward.total),
        par: Some(reward.par),
        format: reward.format,
        score: score.score.ok(),
        fault: score.score.err(),
        masked: !own.mask[i],
        own_mean: own.mean,
        other_mean: other.mean,
        empty_side: false,
        received: Vec::new(),
        complete: false,
    }
}

fn group(declaration: &Declaration, rule: GroupRule, members: &[(usize, ParScore)]) -> Vec<Answer> {
    let usable: Vec<f64> = members.iter().filter_map(|(_, score)| score.score.ok()).collect();
    let mean = (!usable.is_empty()).then(|| usable.iter().sum::<f64>() / usable.len() as f64);
    let mut rewards = group_rewards(rule, &usable).into_iter();
    let received = vec![members.len()];
    let complete = received == declaration.expected();
    members
        .iter()
        .map(|(_, score)| {
            let reward = score.score.ok().and_then(|_| rewards.next());
            Answer {
                reward,
                par: reward,
                format: 0.0,
                score: score.score.ok(),
                fault: score.score.err(),
                masked: reward.is_none(),
                own_mean: mean,
                other_mean: None,
                empty_side: usable.is_empty(),
                received: received.clone(),
                complete,
            }
        })
        .collect()
}

/// Rewards of the members that have a score. Members without one are left out of the
/// statistics, as a failed judgement is in policy training.
fn group_rewards(rule: GroupRule, scores: &[f64]) -> Vec<f64> {
    let advantages = |std_normalise: bool| {
        let config = AdvantageConfig { std_normalise, ..AdvantageConfig::default() };
        group_advantages(scores, &vec![true; scores.len()], &config).values
    };
    match rule {
        GroupRule::ZScore => advantages(true),
        GroupRule::Centred => advantages(false),
        GroupRule::LeaveOneOut => leave_one_out(scores),
        GroupRule::WinRate => win_rates(scores),
    }
}
