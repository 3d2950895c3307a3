//! Step scores computed elsewhere, one JSON object a line.
//!
//! ```text
//! {"item": "circular_prm_test_p1_0", "steps": [0.9, 0.8, 0.1]}
//! {"item": "gsm8k-17", "first_wrong": 2}
//! {"item": "gsm8k-18", "first_wrong": -1}
//! ```
//!
//! `steps` holds a number for each step, larger for better steps; `first_wrong` the
//! first wrong step counted from 0, −1 for none. A null or a number that is not finite
//! (`NaN`, `Infinity`, 1e999) is a fault of its item. Rows that cannot be read are counted, since their items are
//! then missing and count as faults. Other fields are ignored.

use std::{collections::HashMap, io::BufRead, path::Path};

use serde_json::Value;

use super::{Answered, StepAnswer, StepFault, StepItem};
use crate::{
    Error, Result,
    lines::{Line, each_line, read_lines},
    scores::lenient::{self, LenientRow},
};

/// Most problems kept word for word.
const MAX_EXAMPLES: usize = 10;

/// Answers by item.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnswerTable {
    answers: HashMap<String, Result<StepAnswer, StepFault>>,
    num_unreadable: usize,
    num_repeated: usize,
    examples: Vec<String>,
}

impl AnswerTable {
    /// Reads a file, line by line.
    ///
    /// # Errors
    /// When the file cannot be read, or none of its rows can be used.
    pub fn read(path: &Path) -> Result<Self> {
        let mut table = Self::default();
        let mut number = 0;
        read_lines(path, |line| {
            number += 1;
            table.add(&line, number);
            Ok(())
        })?;
        table.checked().map_err(|e| e.in_file(path))
    }

    /// Parses rows; see [`AnswerTable::read`].
    ///
    /// # Errors
    /// As [`AnswerTable::read`], without the file's name.
    pub fn parse(reader: impl BufRead) -> Result<Self> {
        let mut table = Self::default();
        let mut number = 0;
        each_line(reader, |line| {
            number += 1;
            table.add(&line, number);
            Ok(())
        })?;
        table.checked()
    }

    /// Number of items named.
    #[must_use]
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Whether no item is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Rows that are no answer.
    #[must_use]
    pub fn num_unreadable(&self) -> usize {
        self.num_unreadable
    }

    /// Rows for an item that had one before; the first counts.
    #[must_use]
    pub fn num_repeated(&self) -> usize {
        self.num_repeated
    }

    /// The first problems met, one sentence each.
    #[must_use]
    pub fn examples(&self) -> &[String] {
        &self.examples
    }

    /// Items named here that are not among `items`.
    #[must_use]
    pub fn num_unused(&self, items: &[StepItem]) -> usize {
        let used = items.iter().filter(|item| self.answers.contains_key(&item.id)).count();
        self.answers.len().saturating_sub(used)
    }

    /// Every item with its answer, in the order of the items.
    #[must_use]
    pub fn answered<'a>(&self, items: &'a [StepItem]) -> Vec<Answered<'a>> {
        let find = |item: &StepItem| match self.answers.get(&item.id) {
            None => Err(StepFault::Missing),
            Some(answer) => answer.clone()?.checked(item.steps.len()),
        };
        items.iter().map(|item| Answered { item, answer: find(item) }).collect()
    }

    fn add(&mut self, line: &Line<'_>, number: usize) {
        match parse_row(line.bytes) {
            Ok((item, _)) if self.answers.contains_key(&item) => {
                self.num_repeated += 1;
                self.note(format!("row {number}: item {item:?} has a row already"));
            }
            Ok((item, answer)) => {
                self.answers.insert(item, answer);
            }
            Err(problem) => {
                self.num_unreadable += 1;
                self.note(format!("row {number}: {problem}"));
            }
        }
    }

    fn note(&mut self, problem: String) {
        if self.examples.len() < MAX_EXAMPLES {
            self.examples.push(problem);
        }
    }

    fn checked(self) -> Result<Self> {
        if !self.answers.is_empty() {
            return Ok(self);
        }
        let reason = self.examples.first().map_or("the file is empty", String::as_str);
        Err(Error::bad_input(format!(
            "no usable row ({reason}); rows are {{\"item\", \"steps\": [numbers]}} or \
             {{\"item\", \"first_wrong\": index}}"
        )))
    }
}

/// An item's id and what is said of it.
type Row = (String, Result<StepAnswer, StepFault>);

fn parse_row(line: &[u8]) -> Result<Row, String> {
    let LenientRow { fields: row, has_non_finite } = lenient::row(line)?;
    let item = match row.get("item") {
        Some(Value::String(id)) => id.clone(),
        Some(Value::Number(id)) => id.to_string(),
        _ => return Err("field `item` must be the id of an item".to_owned()),
    };
    let answer = match (row.get("steps"), row.get("first_wrong")) {
        _ if has_non_finite => Err(StepFault::NotFinite),
        (Some(Value::Null), None) | (None, Some(Value::Null)) => Err(StepFault::Unscored),
        (Some(Value::Array(scores)), None) => step_scores(scores)?,
        (None, Some(place)) => Ok(StepAnswer::FirstWrong(first_wrong(place)?)),
        _ => return Err("a row has either a list `steps` or a number `first_wrong`".to_owned()),
    };
    Ok((item, answer))
}

fn step_scores(scores: &[Value]) -> Result<Result<StepAnswer, StepFault>, String> {
    let mut numbers = Vec::with_capacity(scores.len());
    for score in scores {
        match score {
            Value::Null => return Ok(Err(StepFault::Unscored)),
            Value::Number(number) => numbers.push(number.as_f64().unwrap_or(f64::NAN)),
            _ => return Err("field `steps` must hold numbers or nulls".to_owned()),
        }
    }
    Ok(Ok(StepAnswer::Scores(numbers)))
}

fn first_wrong(place: &Value) -> Result<Option<usize>, String> {
    let refused =
        || "field `first_wrong` must be a step counted from 0, −1 for none, or null".to_owned();
    match place.as_i64().ok_or_else(refused)? {
        -1 => Ok(None),
        place => usize::try_from(place).map(Some).map_err(|_| refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::StepTruth;

    fn item(id: &str, num_steps: usize) -> StepItem {
        StepItem {
            id: id.to_owned(),
            cluster: 0,
            subset: "s".to_owned(),
            problem: "p".to_owned(),
            steps: vec!["x".to_owned(); num_steps],
            truth: StepTruth::FirstWrong(None),
        }
    }

    #[test]
    fn every_kind_of_row_finds_its_place() {
        let table = AnswerTable::parse(
            concat!(
                "{\"item\": \"a\", \"steps\": [1, 0.5], \"note\": 1}\n",
                "{\"item\": \"b\", \"first_wrong\": -1}\n\n",
                "{\"item\": 3, \"first_wrong\": 1}\n",
                "{\"item\": \"d\", \"steps\": [1, null]}\n",
                "{\"item\": \"e\", \"steps\": null}\n",
                "{\"item\": \"f\", \"steps\": [1]}\n",
                "{\"item\": \"g\", \"first_wrong\": 2}\n",
                "{\"item\": \"a\", \"steps\": [0, 0]}\n",
                "{\"item\": \"h\", \"steps\": [NaN, 1]}\n",
                "{\"item\": \"i\", \"first_wrong\": -2}\n",
                "[1]\n",
                "{\"item\": \"j\"}\n",
                "{\"item\": \"unknown\", \"steps\": []}\n",
            )
            .as_bytes(),
        )
        .expect("has usable rows");
        assert_eq!((table.num_unreadable(), table.num_repeated(), table.len()), (3, 1, 9));
        assert_eq!(table.examples().len(), 4);
        let items: Vec<StepItem> =
            ["a", "b", "3", "d", "e", "f", "g", "h"].map(|id| item(id, 2)).to_vec();
        assert_eq!(table.num_unused(&items), 1);
        let answers: Vec<_> = table.answered(&items).into_iter().map(|a| a.answer).collect();
        assert_eq!(answers[0], Ok(StepAnswer::Scores(vec![1.0, 0.5])));
        assert_eq!(answers[1], Ok(StepAnswer::FirstWrong(None)));
        assert_eq!(answers[2], Ok(StepAnswer::FirstWrong(Some(1))));
        assert_eq!(answers[3], Err(StepFault::Unscored));
        assert_eq!(answers[4], Err(StepFault::Unscored));
        assert_eq!(answers[5], Err(StepFault::WrongCount { given: 1, steps: 2 }));
        assert_eq!(answers[6], Err(StepFault::NoSuchStep { place: 2, steps: 2 }));
        assert_eq!(answers[7], Err(StepFault::NotFinite));
        let other = [item("k", 2)];
        assert_eq!(table.answered(&other)[0].answer, Err(StepFault::Missing));
    }

    #[test]
    fn files_without_a_usable_row_are_refused() {
        for text in ["", "[]\n", "{\"item\": [], \"steps\": []}"] {
            let message = AnswerTable::parse(text.as_bytes()).expect_err("no row").to_string();
            assert!(message.contains("no usable row"), "{message}");
        }
    }
}
