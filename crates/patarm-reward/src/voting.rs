//! Several judgements, one number: voting@k.

use patarm_text::Preference;
use serde::{Deserialize, Serialize};

use crate::embedded::ReadOut;
use crate::judgement::Judgement;

/// How the numbers of several judgements become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VoteCombine {
    /// Their mean. Source: recalled from the paper.
    #[default]
    Mean,
    /// Their median; the mean of the middle two where their number is even.
    Median,
}

/// The outcome of a vote.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vote {
    /// The combined number.
    pub value: f64,
    /// Sample standard deviation of the numbers; 0 for one.
    pub spread: f64,
    /// Judgements with a number.
    pub num_valid: usize,
    /// Judgements in all.
    pub num_votes: usize,
}

/// Combines the numbers of the judgements that have one; `None` when none has.
/// With the expected read-out a judgement without an expectation gives its score.
#[must_use]
pub fn vote(judgements: &[Judgement], read_out: ReadOut, combine: VoteCombine) -> Option<Vote> {
    let number = |judgement: &Judgement| match read_out {
        ReadOut::Sampled => judgement.score.ok(),
        ReadOut::Expected => judgement.expected_score.or_else(|| judgement.score.ok()),
    };
    let mut numbers: Vec<f64> = judgements.iter().filter_map(number).collect();
    let count = numbers.len();
    if count == 0 {
        return None;
    }
    let mean = numbers.iter().sum::<f64>() / count as f64;
    let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
    let spread = (squares / count.saturating_sub(1).max(1) as f64).sqrt();
    let value = match combine {
        VoteCombine::Mean => mean,
        VoteCombine::Median => {
            numbers.sort_by(f64::total_cmp);
            f64::midpoint(numbers[(count - 1) / 2], numbers[count / 2])
        }
    };
    Some(Vote { value, spread, num_valid: count, num_votes: judgements.len() })
}

/// The preference with more votes, a tie where neither has; `None` without votes.
/// Votes for a tie count for neither.
#[must_use]
pub fn majority(verdicts: &[Preference]) -> Option<Preference> {
    let count = |preference| verdicts.iter().filter(|&&verdict| verdict == preference).count();
    let (first, second) = (count(Preference::First), count(Preference::Second));
    if first + second + count(Preference::Tie) == 0 {
        return None;
    }
    Some(match first.cmp(&second) {
        std::cmp::Ordering::Greater => Preference::First,
        std::cmp::Ordering::Less => Preference::Second,
        std::cmp::Ordering::Equal => Preference::Tie,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judgement::FormatFault;
    use crate::rubric::Rubric;

    fn judgement(score: Result<f64, FormatFault>, expected_score: Option<f64>) -> Judgement {
        Judgement {
            text: String::new(),
            rubric: Rubric::default(),
            evaluation: String::new(),
            score,
            readable_score: Some(99.0),
            expected_score,
            num_tokens: 0,
            logprob: None,
        }
    }

    #[test]
    fn invalid_judgements_do_not_vote() {
        let judgements = [
            judgement(Ok(4.0), Some(5.0)),
            judgement(Err(FormatFault::ScoreAbsent), None),
            judgement(Ok(8.0), None),
            judgement(Ok(9.0), Some(9.5)),
        ];
        let sampled = vote(&judgements, ReadOut::Sampled, VoteCombine::Mean).unwrap();
        assert_eq!((sampled.value, sampled.num_valid, sampled.num_votes), (7.0, 3, 4));
        assert!((sampled.spread - 7f64.sqrt()).abs() < 1e-12);
        let expected = vote(&judgements, ReadOut::Expected, VoteCombine::Mean).unwrap();
        assert_eq!(expected.value, 7.5);
        let median = vote(&judgements, ReadOut::Sampled, VoteCombine::Median).unwrap();
        assert_eq!(median.value, 8.0);
        let even = vote(&judgements[..3], ReadOut::Sampled, VoteCombine::Median).unwrap();
        assert_eq!(even.value, 6.0);
        assert!(vote(&judgements[1..2], ReadOut::Expected, VoteCombine::Mean).is_none());
        let one = vote(&judgements[..1], ReadOut::Sampled, VoteCombine::Mean).unwrap();
        assert_eq!(one.spread, 0.0);
    }

    #[test]
    fn majorities() {
        use Preference::{First, Second, Tie, Unknown};
        assert_eq!(majority(&[First, Second, First]), Some(First));
        assert_eq!(majority(&[Second, Tie, Tie]), Some(Second));
        assert_eq!(majority(&[First, Second]), Some(Tie));
        assert_eq!(majority(&[Tie]), Some(Tie));
        assert_eq!(majority(&[Unknown]), None);
        assert_eq!(majority(&[]), None);
    }
}
