//! Scores and verdicts computed elsewhere, one JSON object a line.
//!
//! ```text
//! {"item": "17", "response": 0, "score": 7.5}
//! {"item": "17", "response": 1, "score": null}
//! {"item": "18", "first": 1, "second": 0, "verdict": "first"}
//! ```
//!
//! `item` is an item's id and `response` the place of a response in the item's own
//! order, from 0. `first` and `second` say which response was shown where, and
//! `verdict` (`first`, `second`, `tie` or null) speaks of what was shown. A null is a
//! format fault. Other fields are ignored. Scores that are not finite (`NaN`,
//! `Infinity`, 1e999) count as absent. A row that cannot be used is counted and the
//! first few are named with their line; only a file without any usable row is an error.

pub(crate) mod lenient;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
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

/// Most responses of an item.
const MAX_RESPONSES: u64 = 4_096;
/// Most bad rows that are named.
const MAX_NAMED: usize = 10;

/// What a file says of one item.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// Scores by response, as far as the file goes.
    Scores(Vec<Option<f64>>),
    /// Verdicts by pair of responses, the lower index first.
    Verdicts(BTreeMap<(usize, usize), Verdicts>),
}

/// Verdicts in up to two orders. An outer `None` is an order that was not run, an
/// inner one a verdict that could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// With the response of the lower index shown first.
    pub straight: Option<Option<Shown>>,
    /// With the other one shown first.
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
        let [straight, swapped] = self.preferences();
        match (straight, swapped) {
            (Some(one), None) | (None, Some(one)) => one,
            (Some(one), Some(other)) if one? == other? => one,
            (Some(_), Some(_)) => Some(Preference::Tie),
            (None, None) => None,
        }
    }

    /// Each order's preference between the first and the second response.
    #[must_use]
    pub fn preferences(&self) -> [Option<Option<Preference>>; 2] {
        let straight = self.straight.map(|v| v.map(Shown::preference));
        let swapped = self.swapped.map(|v| v.map(|shown| shown.preference().swap()));
        [straight, swapped]
    }

    /// Whether both orders agree; `None` unless both are readable.
    #[must_use]
    pub fn agree(&self) -> Option<bool> {
        let [straight, swapped] = self.preferences();
        Some(straight?? == swapped??)
    }
}

impl Shown {
    /// The preference for what was shown first or second.
    #[must_use]
    pub fn preference(self) -> Preference {
        match self {
            Self::First => Preference::First,
            Self::Second => Preference::Second,
            Self::Tie => Preference::Tie,
        }
    }

    /// The verdict of a preference; `None` where there is none.
    #[must_use]
    pub fn of_preference(preference: Preference) -> Option<Self> {
        match preference {
            Preference::First => Some(Self::First),
            Preference::Second => Some(Self::Second),
            Preference::Tie => Some(Self::Tie),
            Preference::Unknown => None,
        }
    }

    /// The word that stands in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Second => "second",
            Self::Tie => "tie",
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

impl OrderSummary {
    /// Counts verdicts; `None` where there are none.
    pub(crate) fn of<'a>(verdicts: impl Iterator<Item = &'a Verdicts>) -> Option<Self> {
        let verdicts: Vec<&Verdicts> = verdicts.collect();
        if verdicts.is_empty() {
            return None;
        }
        let shown: Vec<Shown> =
            verdicts.iter().flat_map(|v| [v.straight, v.swapped]).flatten().flatten().collect();
        let both: Vec<bool> = verdicts.iter().filter_map(|v| v.agree()).collect();
        let decided = shown.iter().filter(|s| **s != Shown::Tie).count();
        let first = shown.iter().filter(|s| **s == Shown::First).count();
        let agreeing = both.iter().filter(|agree| **agree).count();
        let share = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
        Some(Self {
            num_verdicts: shown.len(),
            num_both_orders: both.len(),
            consistency: share(agreeing, both.len()),
            first_position_share: share(first, decided),
        })
    }
}

/// Rows of a file that were not used, or not as they stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowFaults {
    /// Rows that are not what they should be.
    pub malformed: usize,
    /// Rows whose item and response, or pair and order, came before; the first counts.
    pub duplicates: usize,
    /// Scores that are not finite numbers; they count as absent.
    pub non_finite: usize,
    /// The first of all these, with their line.
    pub examples: Vec<String>,
}

impl RowFaults {
    fn name(&mut self, line: usize, problem: &str) {
        if self.examples.len() < MAX_NAMED {
            self.examples.push(format!("scores, line {line}: {problem}"));
        }
    }
}

/// Scores and verdicts by item.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoreTable {
    entries: HashMap<String, Entry>,
    faults: RowFaults,
}

impl ScoreTable {
    /// Reads a file, line by line.
    ///
    /// # Errors
    /// Names the file: unreadable, or no row can be used.
    pub fn read(path: &Path) -> Result<Self> {
        let mut reading = Reading::default();
        read_lines(path, |line| {
            reading.add(line.bytes, line.number);
            Ok(())
        })?;
        reading.finish().map_err(|e| e.in_file(path))
    }

    /// Parses rows; see [`ScoreTable::read`].
    ///
    /// # Errors
    /// As [`ScoreTable::read`], without the file's name.
    pub fn parse(reader: impl BufRead) -> Result<Self> {
        let mut reading = Reading::default();
        each_line(reader, |line| {
            reading.add(line.bytes, line.number);
            Ok(())
        })?;
        reading.finish()
    }

    /// What the file says of an item.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// Rows that were not used, or not as they stand.
    #[must_use]
    pub fn row_faults(&self) -> &RowFaults {
        &self.faults
    }

    /// Number of items named.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no item is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Number of items named here that are not among `ids`.
    pub(crate) fn num_rows_without(&self, ids: &[&str]) -> usize {
        self.entries.len() - ids.iter().filter(|id| self.entries.contains_key(**id)).count()
    }

    /// How the verdicts on `ids` depend on order; `None` without verdicts.
    pub(crate) fn order_summary(&self, ids: &[&str]) -> Option<OrderSummary> {
        let verdicts = ids.iter().filter_map(|id| match self.entries.get(*id) {
            Some(Entry::Verdicts(verdicts)) => Some(verdicts.values()),
            _ => None,
        });
        OrderSummary::of(verdicts.flatten())
    }
}

/// A table under way.
#[derive(Default)]
struct Reading {
    table: ScoreTable,
    /// Which (item, first, second) or (item, response, response) came before.
    given: HashSet<(String, usize, usize)>,
}

impl Reading {
    fn add(&mut self, line: &[u8], number: usize) {
        if let Err(problem) = self.try_add(line, number) {
            self.table.faults.malformed += 1;
            self.table.faults.name(number, &problem);
        }
    }

    fn try_add(&mut self, line: &[u8], number: usize) -> Result<(), String> {
        let row = lenient::row(line)?;
        let item = item_id(&row.fields)?;
        let (first, second, update) = parse_row(&row.fields)?;
        if let Some(entry) = self.table.entries.get(&item)
            && matches!(entry, Entry::Scores(_)) != matches!(update, Update::Score(_))
        {
            return Err(format!("item {item:?} has both scores and verdicts; give one kind"));
        }
        if !self.given.insert((item.clone(), first, second)) {
            self.table.faults.duplicates += 1;
            let problem = format!("item {item:?} has this row twice; the first counts");
            self.table.faults.name(number, &problem);
            return Ok(());
        }
        if row.has_non_finite {
            self.table.faults.non_finite += 1;
            let problem = format!("item {item:?}: the score is not finite");
            self.table.faults.name(number, &problem);
        }
        let entry = self.table.entries.entry(item).or_insert_with(|| match update {
            Update::Score(_) => Entry::Scores(Vec::new()),
            Update::Verdict(_) => Entry::Verdicts(BTreeMap::new()),
        });
        match (entry, update) {
            (Entry::Scores(scores), Update::Score(score)) => {
                scores.resize(scores.len().max(first + 1), None);
                scores[first] = score;
            }
            (Entry::Verdicts(verdicts), Update::Verdict(shown)) => {
                let verdicts = verdicts.entry((first.min(second), first.max(second))).or_default();
                let straight = first < second;
                let order = if straight { &mut verdicts.straight } else { &mut verdicts.swapped };
                *order = Some(shown);
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<ScoreTable> {
        let faults = &self.table.faults;
        if self.table.entries.is_empty() && faults.malformed > 0 {
            let example = faults.examples.first().map_or("", String::as_str);
            let message = format!("none of {} rows can be used ({example})", faults.malformed);
            return Err(Error::bad_input(message));
        }
        Ok(self.table)
    }
}

/// What one row adds.
enum Update {
    Score(Option<f64>),
    Verdict(Option<Shown>),
}

fn item_id(row: &Map<String, Value>) -> Result<String, String> {
    match row.get("item") {
        Some(Value::String(id)) => Ok(id.clone()),
        Some(Value::Number(id)) => Ok(id.to_string()),
        _ => Err("field `item` must be the id of an item".to_owned()),
    }
}

/// The responses a row speaks of (the same twice for a score) and its content.
fn parse_row(row: &Map<String, Value>) -> Result<(usize, usize, Update), String> {
    match (row.get("score"), row.get("verdict")) {
        (Some(score), None) => {
            let response = place(row, "response")?;
            Ok((response, response, Update::Score(parse_score(score)?)))
        }
        (None, Some(verdict)) => {
            let (first, second) = (place(row, "first")?, place(row, "second")?);
            if first == second {
                return Err("fields `first` and `second` name the same response".to_owned());
            }
            Ok((first, second, Update::Verdict(parse_verdict(verdict)?)))
        }
        _ => Err("a row has either a field `score` or a field `verdict`".to_owned()),
    }
}

fn place(row: &Map<String, Value>, field: &str) -> Result<usize, String> {
    let place = row.get(field).and_then(Value::as_u64).filter(|place| *place < MAX_RESPONSES);
    place
        .map(|place| place as usize)
        .ok_or_else(|| format!("field `{field}` must be a response's place in its item, from 0"))
}

fn parse_score(score: &Value) -> Result<Option<f64>, String> {
    match score {
        Value::Null => Ok(None),
        Value::Number(number) => Ok(number.as_f64()),
        _ => Err("field `score` must be a number or null".to_owned()),
    }
}

fn parse_verdict(verdict: &Value) -> Result<Option<Shown>, String> {
    match verdict {
        Value::Null => Ok(None),
        Value::String(word) if word == "first" => Ok(Some(Shown::First)),
        Value::String(word) if word == "second" => Ok(Some(Shown::Second)),
        Value::String(word) if word == "tie" => Ok(Some(Shown::Tie)),
        _ => Err("field `verdict` must be \"first\", \"second\", \"tie\" or null".to_owned()),
    }
}
