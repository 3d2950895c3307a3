//! One labelled pair: how it is read from data and rewards, and how it is kept.

use std::collections::{BTreeMap, HashMap, HashSet};

use patarm_reward::{
    judgement::{FormatFault, Judgement},
    model::{ItemFault, Reward},
};
use patarm_text::{Comparison, Conversation, Preference, Task};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    metrics::{ClusteredOutcome, LengthPair, Outcome},
    scores::{Entry, ScoreTable, Verdicts},
};

/// What a model said of one response.
type SideReward = Result<Reward, ItemFault>;

/// Which number of a reward is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readout {
    /// The reward's own value.
    Value,
    /// The mean of the valid scores among the first so many judgements (voting@k).
    Votes(usize),
    /// The mean of the judgements' expected scores.
    Expected,
}

impl Readout {
    /// The number, or `None` when the reward does not carry it or it is not finite.
    #[must_use]
    pub fn read(self, reward: &Reward) -> Option<f64> {
        let value = match self {
            Self::Value => Some(reward.value),
            Self::Votes(k) => mean(reward.judgements.iter().take(k).filter_map(|j| j.score.ok())),
            Self::Expected => mean(reward.judgements.iter().filter_map(|j| j.expected_score)),
        };
        value.filter(|v| v.is_finite())
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), v| (sum + v, count + 1));
    (count > 0).then(|| sum / count as f64)
}

/// One labelled pair of a result; a line of `scores.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairRecord {
    /// The comparison's id.
    pub id: String,
    /// Number of the prompt, in order of appearance; the chosen side's where the
    /// sides differ in prompt.
    pub cluster: usize,
    /// Subset, where the data names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// Task, where the data names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// 0 when the first response is preferred, 1 when the second is.
    pub chosen_index: u8,
    /// Length of the preferred response in characters.
    pub chosen_length: usize,
    /// Length of the other response in characters.
    pub rejected_length: usize,
    /// Score of the preferred response.
    pub chosen_score: Option<f64>,
    /// Score of the other response.
    pub rejected_score: Option<f64>,
    /// Why a side has no score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// How the pair came out.
    pub outcome: Outcome,
}

impl PairRecord {
    /// Chosen minus rejected score.
    #[must_use]
    pub fn margin(&self) -> Option<f64> {
        Some(self.chosen_score? - self.rejected_score?).filter(|m| m.is_finite())
    }

    pub(crate) fn clustered(&self) -> ClusteredOutcome {
        ClusteredOutcome { cluster: self.cluster, outcome: self.outcome }
    }

    pub(crate) fn length_pair(&self) -> LengthPair {
        LengthPair {
            chosen_score: self.chosen_score,
            rejected_score: self.rejected_score,
            chosen_length: self.chosen_length,
            rejected_length: self.rejected_length,
            clustered: self.clustered(),
        }
    }
}

/// A comparison that prefers a side, with the number of its prompt.
pub(crate) struct LabelledPair<'a> {
    comparison: &'a Comparison,
    cluster: usize,
    chosen_index: u8,
}

/// The comparisons that prefer a side. Ids must be unique among all comparisons,
/// because scores and paired differences are joined by them.
pub(crate) fn labelled_pairs(comparisons: &[Comparison]) -> Result<Vec<LabelledPair<'_>>> {
    let mut ids: HashSet<&str> = HashSet::with_capacity(comparisons.len());
    if let Some(twice) = comparisons.iter().find(|c| !ids.insert(&c.id)) {
        return Err(Error::bad_input(format!(
            "two comparisons have the id {:?}; give every comparison its own",
            twice.id
        )));
    }
    let mut clusters: HashMap<&Conversation, usize> = HashMap::new();
    let labelled = comparisons.iter().filter_map(|comparison| {
        let chosen_index = match comparison.label {
            Preference::First => 0,
            Preference::Second => 1,
            Preference::Tie | Preference::Unknown => return None,
        };
        let (chosen, _) = comparison.chosen_rejected()?;
        let next = clusters.len();
        let cluster = *clusters.entry(&chosen.prompt).or_insert(next);
        Some(LabelledPair { comparison, cluster, chosen_index })
    });
    Ok(labelled.collect())
}

impl LabelledPair<'_> {
    /// The record of the rewards of the first and the second side.
    pub(crate) fn scored(&self, sides: &[SideReward], readout: Readout) -> PairRecord {
        let scores: Vec<Option<f64>> =
            sides.iter().map(|side| readout.read(side.as_ref().ok()?)).collect();
        let fault = sides
            .iter()
            .zip(&scores)
            .find(|(_, score)| score.is_none())
            .map(|(side, _)| fault_text(side));
        self.record([scores[0], scores[1]], fault)
    }

    /// The record of what a scores file says of this pair.
    pub(crate) fn looked_up(&self, table: &ScoreTable) -> PairRecord {
        match table.get(&self.comparison.id) {
            Some(Entry::Scores(scores)) => {
                let scores = [0, 1].map(|side| scores.get(side).copied().flatten());
                let fault = scores.iter().any(Option::is_none);
                self.record(scores, fault.then(|| "a response has no score".to_owned()))
            }
            Some(Entry::Verdicts(verdicts)) => {
                let preference = verdicts.get(&(0, 1)).and_then(Verdicts::combined);
                let fault = preference.is_none().then(|| "a verdict is missing".to_owned());
                let outcome = preference.map_or(Outcome::Fault, |p| self.outcome_of(p));
                PairRecord { outcome, ..self.record([None, None], fault) }
            }
            None => self.record([None, None], Some("no row in the scores file".to_owned())),
        }
    }

    fn outcome_of(&self, preference: Preference) -> Outcome {
        match preference {
            Preference::Tie => Outcome::Tie,
            Preference::Unknown => Outcome::Fault,
            side if side == self.comparison.label => Outcome::Right,
            _ => Outcome::Wrong,
        }
    }

    /// `scores` stand in the order of the comparison.
    fn record(&self, scores: [Option<f64>; 2], fault: Option<String>) -> PairRecord {
        let lengths = [&self.comparison.first, &self.comparison.second]
            .map(|item| item.response.chars().count());
        let chosen = usize::from(self.chosen_index);
        PairRecord {
            id: self.comparison.id.clone(),
            cluster: self.cluster,
            subset: self.comparison.subset.clone(),
            task: self.comparison.task,
            chosen_index: self.chosen_index,
            chosen_length: lengths[chosen],
            rejected_length: lengths[1 - chosen],
            chosen_score: scores[chosen],
            rejected_score: scores[1 - chosen],
            fault,
            outcome: Outcome::of_scores(scores[chosen], scores[1 - chosen]),
        }
    }
}

fn fault_text(side: &SideReward) -> String {
    match side {
        Err(fault) => fault.to_string(),
        Ok(_) => "the reward does not carry the number asked for".to_owned(),
    }
}

/// Format faults of single judgements.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgementFaults {
    /// Judgements made.
    pub num_judgements: usize,
    /// Judgements without a usable score.
    pub num_faults: usize,
    /// Faults by kind.
    pub by_kind: BTreeMap<String, usize>,
}

impl JudgementFaults {
    /// Share of judgements without a usable score.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        (self.num_judgements > 0).then(|| self.num_faults as f64 / self.num_judgements as f64)
    }

    /// Counts the judgements behind rewards; `None` when there are none.
    pub(crate) fn of_rewards(rewards: &[SideReward]) -> Option<Self> {
        let mut faults = Self::default();
        for reward in rewards {
            match reward {
                Ok(reward) => faults.count(&reward.judgements),
                Err(ItemFault::Unparsed(kinds)) => {
                    faults.num_judgements += kinds.len();
                    kinds.iter().for_each(|kind| faults.add(*kind));
                }
                Err(_) => {}
            }
        }
        (faults.num_judgements > 0).then_some(faults)
    }

    fn count(&mut self, judgements: &[Judgement]) {
        self.num_judgements += judgements.len();
        judgements.iter().filter_map(|j| j.score.err()).for_each(|kind| self.add(kind));
    }

    fn add(&mut self, kind: FormatFault) {
        self.num_faults += 1;
        *self.by_kind.entry(kind.name().to_owned()).or_default() += 1;
    }
}
