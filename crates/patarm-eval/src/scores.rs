//! Scores and verdicts computed elsewhere, one JSON object a line.
//!
//! ```text
//! {"item": "17", "response": 0, "score": 7.5}
//! {"item": "17", "response": 1, "score": null}
//! {"item": "18", "first": 1, "second": 0, "verdict": "first"}
//! ```
//!
//! `item` is a comparison's id and `response` 0 or 1 in the comparison's own
//! order. `first` and `second` say which response was shown where, and `verdict`
//! (`first`, `second`, `tie` or null) speaks of what was shown. A null is a format
//! fault. Other fields are ignored.

use std::{
    collections::{HashMap, HashSet},
    io::BufRead,
    path::Path,
};

use patarm_text::Preference;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Error, Result,
    lines::{each_line, read_lines},
};

/// What a file says of one comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Entry {
    /// Scores of the first and the second response.
    Scores([Option<f64>; 2]),
    /// Verdicts on the pair.
    Verdicts(Verdicts),
}

/// Verdicts in up to two orders. An outer `None` is an order that was not run, an
/// inner one a verdict that could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// With the first response shown first.
    pub straight: Option<Option<Shown>>,
    /// With the second response shown first.
    pub swapped: Option<Option<Shown>>,
}

/// A verdict on what was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// What was shown first is better.
    First,
    /// What was shown second is better.
    Second,
    /// Neither is better.
    Tie,
}

impl Verdicts {
    /// The preference between the first and the second response: the verdict that
    /// both orders share, a tie when they differ, `None` when one is unreadable.
    #[must_use]
    pub fn combined(&self) -> Option<Preference> {
        let straight = self.straight.map(|v| v.map(Shown::preference));
        let swapped = self.swapped.map(|v| v.map(|shown| shown.preference().swap()));
        match (straight, swapped) {
            (Some(one), None) | (None, Some(one)) => one,
            (Some(one), Some(other)) if one? == other? => one,
            (Some(_), Some(_)) => Some(Preference::Tie),
            (None, None) => None,
        }
    }
}

impl Shown {
    fn preference(self) -> Preference {
        match self {
            Self::First => Preference::First,
            Self::Second => Preference::Second,
            Self::Tie => Preference::Tie,
        }
    }
}

/// How verdicts depend on the order of showing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderSummary {
    /// Readable verdicts.
    pub num_verdicts: usize,
    /// Pairs with a readable verdict in both orders.
    pub num_both_orders: usize,
    /// Share of those whose verdicts agree.
    pub consistency: Option<f64>,
    /// Share of verdicts for what was shown first, ties left out.
    pub first_position_share: Option<f64>,
}

/// Scores and verdicts by comparison.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoreTable {
    entries: HashMap<String, Entry>,
}

impl ScoreTable {
    /// Reads a file, line by line.
    ///
    /// # Errors
    /// Names file and line: unreadable, not JSON, a missing or ill-typed field, a
    /// response other than 0 and 1, a row given twice, scores and verdicts mixed.
    pub fn read(path: &Path) -> Result<Self> {
        let mut table = Self::default();
        let mut given = HashSet::new();
        read_lines(path, |line| table.add(line.bytes, &mut given))?;
        Ok(table)
    }

    /// Parses rows; see [`ScoreTable::read`].
    ///
    /// # Errors
    /// As [`ScoreTable::read`], without the file's name.
    pub fn parse(reader: impl BufRead) -> Result<Self> {
        let mut table = Self::default();
        let mut given = HashSet::new();
        each_line(reader, |line| table.add(line.bytes, &mut given))?;
        Ok(table)
    }

    /// What the file says of a comparison.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// Number of comparisons named.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no comparison is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Number of comparisons named here that are not among `ids`.
    pub(crate) fn num_rows_without(&self, ids: &[&str]) -> usize {
        self.entries.len() - ids.iter().filter(|id| self.entries.contains_key(**id)).count()
    }

    /// How the verdicts on `ids` depend on order; `None` without verdicts.
    pub(crate) fn order_summary(&self, ids: &[&str]) -> Option<OrderSummary> {
        let verdicts: Vec<&Verdicts> = ids
            .iter()
            .filter_map(|id| match self.entries.get(*id) {
                Some(Entry::Verdicts(verdicts)) => Some(verdicts),
                _ => None,
            })
            .collect();
        if verdicts.is_empty() {
            return None;
        }
        let shown: Vec<Shown> =
            verdicts.iter().flat_map(|v| [v.straight, v.swapped]).flatten().flatten().collect();
        let both: Vec<bool> = verdicts
            .iter()
            .filter_map(|v| Some(v.straight??.preference() == v.swapped??.preference().swap()))
            .collect();
        let decided = shown.iter().filter(|s| **s != Shown::Tie).count();
        let first = shown.iter().filter(|s| **s == Shown::First).count();
        let agreeing = both.iter().filter(|agree| **agree).count();
        let share = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
        Some(OrderSummary {
            num_verdicts: shown.len(),
            num_both_orders: both.len(),
            consistency: share(agreeing, both.len()),
            first_position_share: share(first, decided),
        })
    }

    /// Adds one row. `given` holds (item, place) of every row so far.
    fn add(&mut self, line: &[u8], given: &mut HashSet<(String, usize)>) -> Result<()> {
        let row: Map<String, Value> = serde_json::from_slice(line)
            .map_err(|e| Error::bad_input(format!("not a JSON object: {e}")))?;
        let item = item_id(&row)?;
        let (place, update) = parse_row(&row)?;
        if !given.insert((item.clone(), place)) {
            let twice = format!("item {item:?} has this row twice; keep one");
            return Err(Error::bad_input(twice));
        }
        let entry = self.entries.entry(item).or_insert(match update {
            Update::Score(_) => Entry::Scores([None, None]),
            Update::Verdict(_) => Entry::Verdicts(Verdicts::default()),
        });
        match (entry, update) {
            (Entry::Scores(scores), Update::Score(score)) => scores[place] = score,
            (Entry::Verdicts(verdicts), Update::Verdict(shown)) => {
                let order = if place == 0 { &mut verdicts.straight } else { &mut verdicts.swapped };
                *order = Some(shown);
            }
            _ => {
                let mixed = "an item has both scores and verdicts; give one kind an item";
                return Err(Error::bad_input(mixed));
            }
        }
        Ok(())
    }
}

/// What one row adds.
enum Update {
    Score(Option<f64>),
    Verdict(Option<Shown>),
}

fn item_id(row: &Map<String, Value>) -> Result<String> {
    match row.get("item") {
        Some(Value::String(id)) => Ok(id.clone()),
        Some(Value::Number(id)) => Ok(id.to_string()),
        _ => Err(Error::bad_input("field `item` must be the id of a comparison")),
    }
}

/// The place of a row (response, or which response was shown first) and its content.
fn parse_row(row: &Map<String, Value>) -> Result<(usize, Update)> {
    match (row.get("score"), row.get("verdict")) {
        (Some(score), None) => {
            let place = side(row, "response")?;
            Ok((place, Update::Score(parse_score(score)?)))
        }
        (None, Some(verdict)) => {
            let (first, second) = (side(row, "first")?, side(row, "second")?);
            if first == second {
                let same = "fields `first` and `second` name the same response; use 0 and 1";
                return Err(Error::bad_input(same));
            }
            Ok((first, Update::Verdict(parse_verdict(verdict)?)))
        }
        _ => Err(Error::bad_input("a row has either a field `score` or a field `verdict`")),
    }
}

fn side(row: &Map<String, Value>, field: &str) -> Result<usize> {
    match row.get(field).and_then(Value::as_u64) {
        Some(0) => Ok(0),
        Some(1) => Ok(1),
        _ => Err(Error::bad_input(format!(
            "field `{field}` must be 0 or 1, the response's place in its comparison"
        ))),
    }
}

fn parse_score(score: &Value) -> Result<Option<f64>> {
    match score {
        Value::Null => Ok(None),
        Value::Number(number) if number.as_f64().is_some_and(f64::is_finite) => Ok(number.as_f64()),
        _ => Err(Error::bad_input("field `score` must be a finite number or null")),
    }
}

fn parse_verdict(verdict: &Value) -> Result<Option<Shown>> {
    match verdict {
        Value::Null => Ok(None),
        Value::String(word) if word == "first" => Ok(Some(Shown::First)),
        Value::String(word) if word == "second" => Ok(Some(Shown::Second)),
        Value::String(word) if word == "tie" => Ok(Some(Shown::Tie)),
        _ => {
            Err(Error::bad_input("field `verdict` must be \"first\", \"second\", \"tie\" or null"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ScoreTable> {
        ScoreTable::parse(text.as_bytes())
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let message = parse(text).expect_err("must be refused").to_string();
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn reads_scores_and_verdicts() {
        let table = parse(concat!(
            "{\"item\": \"a\", \"response\": 1, \"score\": 3}\n\n",
            "{\"item\": 7, \"first\": 1, \"second\": 0, \"verdict\": \"first\", \"note\": 1}\n",
            "{\"item\": \"a\", \"response\": 0, \"score\": null}",
        ))
        .expect("well formed");
        assert_eq!(table.get("a"), Some(&Entry::Scores([None, Some(3.0)])));
        let Some(Entry::Verdicts(verdicts)) = table.get("7") else { panic!("no verdicts") };
        assert_eq!(verdicts.combined(), Some(Preference::Second));
        assert_eq!((table.len(), table.num_rows_without(&["a", "b"])), (2, 1));
    }

    #[test]
    fn refuses_by_line() {
        refused(
            "{\"item\": \"a\", \"response\": 0, \"score\": 1}\n[]",
            "line 2: not a JSON object",
        );
        refused("{\"response\": 0, \"score\": 1}", "`item`");
        refused("{\"item\": \"a\", \"response\": 2, \"score\": 1}", "`response` must be 0 or 1");
        refused("{\"item\": \"a\", \"response\": 0, \"score\": \"1\"}", "`score`");
        refused("{\"item\": \"a\", \"response\": 0, \"score\": 1e999}", "line 1");
        refused("{\"item\": \"a\", \"response\": 0, \"score\": NaN}", "line 1");
        refused(
            "{\"item\": \"a\", \"first\": 0, \"second\": 0, \"verdict\": null}",
            "same response",
        );
        refused("{\"item\": \"a\", \"first\": 0, \"second\": 1, \"verdict\": \"A\"}", "`verdict`");
        refused("{\"item\": \"a\"}", "either");
        let row = "{\"item\": \"a\", \"response\": 0, \"score\": 1}\n";
        refused(&row.repeat(2), "line 2: item \"a\" has this row twice");
        let verdict = "{\"item\": \"a\", \"first\": 1, \"second\": 0, \"verdict\": null}";
        refused(&format!("{row}{verdict}"), "both scores and verdicts");
    }

    #[test]
    fn both_orders_combine() {
        use Shown::{First, Second, Tie};
        let combined = |straight, swapped| Verdicts { straight, swapped }.combined();
        assert_eq!(combined(Some(Some(First)), Some(Some(Second))), Some(Preference::First));
        assert_eq!(combined(Some(Some(First)), Some(Some(First))), Some(Preference::Tie));
        assert_eq!(combined(Some(Some(Tie)), Some(Some(Tie))), Some(Preference::Tie));
        assert_eq!(combined(Some(Some(First)), Some(None)), None);
        assert_eq!(combined(None, Some(Some(First))), Some(Preference::Second));
        assert_eq!(combined(None, None), None);
    }

    #[test]
    fn a_first_position_judge_has_no_consistency() {
        let rows: String = (0..4)
            .flat_map(|item| {
                [(0, 1), (1, 0)].map(|(first, second)| {
                    format!(
                        "{{\"item\": {item}, \"first\": {first}, \"second\": {second}, \"verdict\": \"first\"}}\n"
                    )
                })
            })
            .collect();
        let table = parse(&rows).expect("well formed");
        let summary = table.order_summary(&["0", "1", "2", "3"]).expect("there are verdicts");
        assert_eq!(summary.consistency, Some(0.0));
        assert_eq!(summary.first_position_share, Some(1.0));
        assert_eq!((summary.num_verdicts, summary.num_both_orders), (8, 4));
        assert_eq!(table.order_summary(&["9"]), None);
    }
}
