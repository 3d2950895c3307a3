//! Judgements of a teacher that agree with the label.
//!
//! A teacher judges both responses of a pair several times. Kept are judgements that
//! parse, of pairs where its mean score of the chosen response exceeds that of the
//! rejected one; scores and tasks may be balanced, because a teacher that loves 8
//! teaches 8.

use std::collections::BTreeMap;

use patarm_text::{Comparison, Preference, Task};
use serde::{Deserialize, Serialize};

use super::{ColdStartRecord, RECORD_VERSION, requests_of, task_of};
use crate::judgement::Judgement;
use crate::model::{ItemFault, JudgeRequest, PointwiseJudge};
use crate::random::SplitMix64;

/// Which judgements are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TeacherConfig {
    /// Drop pairs whose mean scores do not put the chosen response first; pairs
    /// without a label are dropped too.
    pub keep_if_agrees: bool,
    /// Drop judgements without a usable score.
    pub keep_if_parses: bool,
    /// Keep no more judgements of one score than the mean over the scores seen.
    pub balance_scores: bool,
    /// Keep no more judgements of one task than the mean over the tasks seen.
    pub balance_by_task: bool,
    /// Seed of the choice where there are too many.
    pub seed: u64,
}

impl Default for TeacherConfig {
    fn default() -> Self {
        Self {
            keep_if_agrees: true,
            keep_if_parses: true,
            balance_scores: false,
            balance_by_task: false,
            seed: 0,
        }
    }
}

/// A pair with what the teacher said of each side.
#[derive(Clone, Debug, PartialEq)]
pub struct TeacherPair {
    /// The pair.
    pub comparison: Comparison,
    /// Judgements of its first item.
    pub first: Vec<Judgement>,
    /// Judgements of its second item.
    pub second: Vec<Judgement>,
}

/// What became of the judgements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TeacherCounts {
    /// Pairs seen.
    pub pairs: usize,
    /// Pairs whose means agree with the label.
    pub pairs_agreeing: usize,
    /// Pairs dropped because they do not, or have no label or no score on a side.
    pub pairs_dropped: usize,
    /// Judgements dropped for want of a usable score.
    pub unparsed: usize,
    /// Judgements dropped by balancing.
    pub balanced_away: usize,
    /// Judgements kept.
    pub kept: usize,
}

/// Asks the teacher for `votes` judgements of both items of every comparison. A pair
/// fails as a whole when one of its items does.
pub fn ask_teacher(
    teacher: &dyn PointwiseJudge,
    comparisons: &[Comparison],
    votes: usize,
) -> Vec<Result<TeacherPair, ItemFault>> {
    let mut answers = teacher.judge(&requests_of(comparisons), votes).into_iter();
    let missing = || Err(ItemFault::Engine("the teacher returned too few answers".into()));
    comparisons
        .iter()
        .map(|comparison| {
            let first = answers.next().unwrap_or_else(missing);
            let second = answers.next().unwrap_or_else(missing);
            Ok(TeacherPair { comparison: comparison.clone(), first: first?, second: second? })
        })
        .collect()
}

/// The judgements worth learning from, in the order given.
#[must_use]
pub fn select(
    pairs: &[TeacherPair],
    config: &TeacherConfig,
) -> (Vec<ColdStartRecord>, TeacherCounts) {
    let mut counts = TeacherCounts { pairs: pairs.len(), ..TeacherCounts::default() };
    let mut kept = Vec::new();
    for pair in pairs {
        let agrees = agrees(pair);
        counts.pairs_agreeing += usize::from(agrees);
        if config.keep_if_agrees && !agrees {
            counts.pairs_dropped += 1;
            continue;
        }
        let sides =
            [(&pair.comparison.first, &pair.first), (&pair.comparison.second, &pair.second)];
        for (item, judgements) in sides {
            let request = JudgeRequest { item: item.clone(), task: pair.comparison.task };
            for judgement in judgements {
                if config.keep_if_parses && judgement.score.is_err() {
                    counts.unparsed += 1;
                    continue;
                }
                kept.push(candidate(&request, judgement));
            }
        }
    }
    let before = kept.len();
    if config.balance_by_task {
        kept = balance(kept, config.seed, |candidate| Some(candidate.record.task));
    }
    if config.balance_scores {
        kept = balance(kept, config.seed.wrapping_add(1), |candidate| candidate.score_key);
    }
    counts.balanced_away = before - kept.len();
    counts.kept = kept.len();
    (kept.into_iter().map(|candidate| candidate.record).collect(), counts)
}

/// A judgement that may be kept.
struct Candidate {
    record: ColdStartRecord,
    /// The score in millionths, so that it can be counted.
    score_key: Option<i64>,
}

fn candidate(request: &JudgeRequest, judgement: &Judgement) -> Candidate {
    let task: Task = task_of(request);
    Candidate {
        record: ColdStartRecord {
            version: RECORD_VERSION,
            item: request.item.clone(),
            task,
            judgement: judgement.text.clone(),
        },
        score_key: judgement.score.ok().map(|score| (score * 1e6).round() as i64),
    }
}

/// Whether the mean score of the chosen item exceeds that of the rejected one.
fn agrees(pair: &TeacherPair) -> bool {
    let means = (mean_score(&pair.first), mean_score(&pair.second));
    let (Some(first), Some(second)) = means else {
        return false;
    };
    match pair.comparison.label {
        Preference::First => first > second,
        Preference::Second => second > first,
        Preference::Tie | Preference::Unknown => false,
    }
}

fn mean_score(judgements: &[Judgement]) -> Option<f64> {
    let scores: Vec<f64> = judgements.iter().filter_map(|judgement| judgement.score.ok()).collect();
    (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
}

/// Keeps at most the mean group size of each group, chosen at random, order kept.
/// Candidates without a key stay.
fn balance<K: Ord + Copy>(
    candidates: Vec<Candidate>,
    seed: u64,
    key: impl Fn(&Candidate) -> Option<K>,
) -> Vec<Candidate> {
    let mut groups: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    for (i, candidate) in candidates.iter().enumerate() {
        if let Some(key) = key(candidate) {
            groups.entry(key).or_default().push(i);
        }
    }
    let total: usize = groups.values().map(Vec::len).sum();
    let cap = total.div_ceil(groups.len().max(1));
    let mut keep = vec![true; candidates.len()];
    for (stream, members) in (0u64..).zip(groups.values_mut()) {
        SplitMix64::for_stream(seed, stream).shuffle(members);
        for &surplus in members.iter().skip(cap) {
            keep[surplus] = false;
        }
    }
    candidates.into_iter().zip(keep).filter(|(_, keep)| *keep).map(|(c, _)| c).collect()
}

#[cfg(test)]
mod tests {
    use patarm_text::{Conversation, Item};

    use super::*;
    use crate::judgement::FormatFault;
    use crate::rubric::Rubric;

    fn judgement(score: Result<f64, FormatFault>) -> Judgement {
        Judgement {
            text: format!("{score:?}"),
            rubric: Rubric::default(),
            evaluation: String::new(),
            score,
            readable_score: None,
            expected_score: None,
            num_tokens: 1,
            logprob: None,
        }
    }

    fn scores(scores: &[f64]) -> Vec<Judgement> {
        scores.iter().map(|&score| judgement(Ok(score))).collect()
    }

    fn pair(first: &[f64], second: &[f64], label: Preference, task: Task) -> TeacherPair {
        let item = |response: &str| Item {
            prompt: Conversation::from_user("p"),
            response: response.to_owned(),
        };
        let comparison = Comparison {
            id: "x".into(),
            first: item("same"),
            second: item("same"),
            label,
            strength: None,
            task: Some(task),
            subset: None,
        };
        TeacherPair { comparison, first: scores(first), second: scores(second) }
    }

    #[test]
    fn kept_pairs_agree_with_the_label_without_exception() {
        use Preference::{First, Second, Tie, Unknown};
        let mut pairs = Vec::new();
        let mut random = SplitMix64::new(5);
        for i in 0..400 {
            let label = [First, Second, Tie, Unknown][i % 4];
            let draw = |random: &mut SplitMix64| -> Vec<f64> {
                (0..3).map(|_| 1.0 + random.below(9) as f64).collect()
            };
            let (first, second) = (draw(&mut random), draw(&mut random));
            pairs.push(pair(&first, &second, label, Task::Chat));
        }
        let (records, counts) = select(&pairs, &TeacherConfig::default());
        let sum = |judgements: &[Judgement]| -> f64 {
            judgements.iter().filter_map(|judgement| judgement.score.ok()).sum()
        };
        let right = pairs.iter().filter(|pair| match pair.comparison.label {
            First => sum(&pair.first) > sum(&pair.second),
            Second => sum(&pair.second) > sum(&pair.first),
            Tie | Unknown => false,
        });
        let expected = right.count();
        assert!(expected > 50);
        assert_eq!(counts.pairs_agreeing, expected);
        assert_eq!(counts.pairs_dropped, 400 - expected);
        assert_eq!((records.len(), counts.kept), (6 * expected, 6 * expected));
    }

    #[test]
    fn ties_and_failed_sides_do_not_agree() {
        let tie = pair(&[5.0], &[5.0], Preference::First, Task::Chat);
        let empty = pair(&[5.0], &[], Preference::First, Task::Chat);
        let (records, counts) = select(&[tie, empty], &TeacherConfig::default());
        assert!(records.is_empty());
        assert_eq!((counts.pairs_agreeing, counts.pairs_dropped), (0, 2));
    }

    #[test]
    fn switches_can_be_turned_off() {
        let mut wrong = pair(&[3.0], &[7.0], Preference::First, Task::Chat);
        wrong.first.push(judgement(Err(FormatFault::MissingTag)));
        let everything = TeacherConfig {
            keep_if_agrees: false,
            keep_if_parses: false,
            ..TeacherConfig::default()
        };
        assert_eq!(select(std::slice::from_ref(&wrong), &everything).0.len(), 3);
        let parsing = TeacherConfig { keep_if_parses: true, ..everything };
        let (records, counts) = select(&[wrong], &parsing);
        assert_eq!((records.len(), counts.unparsed), (2, 1));
    }

    #[test]
    fn balancing_caps_scores_and_tasks_at_their_mean() {
        let mut pairs = vec![pair(&[8.0; 6], &[2.0], Preference::First, Task::Chat)];
        pairs.push(pair(&[8.0], &[3.0], Preference::First, Task::Math));
        let config = TeacherConfig { balance_scores: true, ..TeacherConfig::default() };
        let (records, counts) = select(&pairs, &config);
        // 7 × 8, 1 × 2, 1 × 3: the mean is 3.
        assert_eq!((records.len(), counts.balanced_away), (5, 4));
        let by_task = TeacherConfig { balance_by_task: true, ..TeacherConfig::default() };
        let (records, _) = select(&pairs, &by_task);
        let chats = records.iter().filter(|record| record.task == Task::Chat).count();
        assert_eq!((records.len(), chats), (7, 5));
        assert_eq!(select(&pairs, &config), select(&pairs, &config));
    }
}
