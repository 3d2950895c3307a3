//! The scale of a score: its range, its kind, and the texts that stand for it.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::judgement::FormatFault;

/// A score longer than this many bytes is not a number.
const MAX_SCORE_BYTES: usize = 32;
/// Widest integer scale, so that its outcomes can be listed.
const MAX_LEVELS: f64 = 1000.0;

/// Which numbers count as scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreKind {
    /// Whole numbers, written without a point, a plus or a leading zero.
    #[default]
    Integer,
    /// The same, or with a point and at most six decimals.
    Decimal,
}

/// The admissible scores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScoreScale {
    /// The lowest score.
    pub min: f64,
    /// The highest score.
    pub max: f64,
    /// Whole numbers or decimals.
    pub kind: ScoreKind,
}

impl Default for ScoreScale {
    fn default() -> Self {
        Self { min: 1.0, max: 10.0, kind: ScoreKind::Integer }
    }
}

impl ScoreScale {
    /// Whole numbers from `min` to `max`.
    #[must_use]
    pub fn integers(min: i32, max: i32) -> Self {
        Self { min: f64::from(min), max: f64::from(max), kind: ScoreKind::Integer }
    }

    /// Refuses scales without two scores.
    ///
    /// # Errors
    /// When the ends are not finite, not in order, more than 1,000 apart, or not whole
    /// on an integer scale.
    pub fn validate(&self) -> Result<()> {
        let ordered = self.min.is_finite() && self.max.is_finite() && self.min < self.max;
        let whole =
            self.kind == ScoreKind::Decimal || (self.min.fract() == 0.0 && self.max.fract() == 0.0);
        if ordered && whole && self.max - self.min <= MAX_LEVELS {
            return Ok(());
        }
        let message = format!(
            "score scale {} to {}: give two finite numbers in order, at most {MAX_LEVELS} apart, \
             whole for integer scores",
            self.min, self.max
        );
        Err(Error::new(ErrorKind::Config, message))
    }

    /// Every score in ascending order; `None` where they cannot be listed.
    #[must_use]
    pub fn grid(&self) -> Option<Vec<f64>> {
        if self.kind != ScoreKind::Integer || self.validate().is_err() {
            return None;
        }
        let levels = (self.max - self.min) as usize;
        Some((0..=levels).map(|level| self.min + level as f64).collect())
    }

    /// The text of every score of [`Self::grid`], as the parser accepts it.
    #[must_use]
    pub fn grid_texts(&self) -> Option<Vec<String>> {
        Some(self.grid()?.into_iter().map(|score| format!("{score:.0}")).collect())
    }

    /// The score that `content` states; blanks around it are allowed.
    ///
    /// # Errors
    /// The fault, when there is no such score.
    pub fn parse(&self, content: &str) -> std::result::Result<f64, FormatFault> {
        let number = content.trim();
        if number.is_empty() {
            return Err(FormatFault::ScoreAbsent);
        }
        if number.len() > MAX_SCORE_BYTES || !is_number(number, self.kind) {
            return Err(FormatFault::ScoreNotNumber);
        }
        let score: f64 = number.parse().map_err(|_| FormatFault::ScoreNotNumber)?;
        if score < self.min || score > self.max {
            return Err(FormatFault::ScoreOutOfRange);
        }
        Ok(score)
    }

    /// The score on a 0 to 1 scale.
    #[must_use]
    pub fn rescale(&self, score: f64) -> f64 {
        (score - self.min) / (self.max - self.min)
    }
}

/// `-?(0|[1-9][0-9]*)`, for decimals followed by `(\.[0-9]{1,6})?`. The sampled and
/// the marginal estimator must agree on what a score is, so no other spelling counts.
fn is_number(text: &str, kind: ScoreKind) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, decimals) = match unsigned.split_once('.') {
        Some((whole, decimals)) => (whole, Some(decimals)),
        None => (unsigned, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    let point = match decimals {
        None => true,
        Some(decimals) => kind == ScoreKind::Decimal && digits(decimals) && decimals.len() <= 6,
    };
    digits(whole) && !leading_zero && point
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integer_scores() {
        let scale = ScoreScale::default();
        for (text, expected) in [
            ("10", Ok(10.0)),
            (" 7\n", Ok(7.0)),
            ("1", Ok(1.0)),
            ("11", Err(FormatFault::ScoreOutOfRange)),
            ("0", Err(FormatFault::ScoreOutOfRange)),
            ("-3", Err(FormatFault::ScoreOutOfRange)),
            ("99999999999999999999", Err(FormatFault::ScoreOutOfRange)),
            ("", Err(FormatFault::ScoreAbsent)),
            (" \n ", Err(FormatFault::ScoreAbsent)),
        ] {
            assert_eq!(scale.parse(text), expected, "{text:?}");
        }
        let not_numbers = [
            "ten",
            "NaN",
            "inf",
            "7.0",
            "7.5",
            "+7",
            "07",
            "7/10",
            "7 8",
            "7.",
            ".7",
            "1e1",
            "٧",
            "0x7",
            "--7",
            "-",
            "７",
            "7\u{200b}",
            "7%",
        ];
        for text in not_numbers {
            assert_eq!(scale.parse(text), Err(FormatFault::ScoreNotNumber), "{text:?}");
        }
        assert_eq!(scale.parse(&"1".repeat(1 << 20)), Err(FormatFault::ScoreNotNumber));
    }

    #[test]
    fn decimal_scores() {
        let scale = ScoreScale { min: -1.0, max: 1.0, kind: ScoreKind::Decimal };
        assert_eq!(scale.parse("-0.25"), Ok(-0.25));
        assert_eq!(scale.parse("1"), Ok(1.0));
        assert_eq!(scale.parse("1.000001"), Err(FormatFault::ScoreOutOfRange));
        for text in ["0.1234567", "1.", ".5", "1.2.3", "1,5", "00.5"] {
            assert_eq!(scale.parse(text), Err(FormatFault::ScoreNotNumber), "{text}");
        }
    }

    #[test]
    fn grids_list_every_score_and_parse_back() {
        let scale = ScoreScale::default();
        let (grid, texts) = (scale.grid().unwrap(), scale.grid_texts().unwrap());
        assert_eq!(grid.len(), 10);
        for (score, text) in grid.iter().zip(&texts) {
            assert_eq!(scale.parse(text), Ok(*score));
        }
        assert_eq!(texts[9], "10");
        assert!(ScoreScale { kind: ScoreKind::Decimal, ..scale }.grid().is_none());
        assert_eq!(scale.rescale(1.0), 0.0);
        assert_eq!(scale.rescale(10.0), 1.0);
    }

    #[test]
    fn scales_are_checked() {
        for (min, max) in [(1.0, 1.0), (f64::NAN, 2.0), (0.5, 3.0), (0.0, 1e9)] {
            assert!(ScoreScale { min, max, kind: ScoreKind::Integer }.validate().is_err());
        }
        assert!(ScoreScale { min: 0.5, max: 3.0, kind: ScoreKind::Decimal }.validate().is_ok());
    }
}
