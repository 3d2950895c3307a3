//! Answers from a file of scores or verdicts.

use super::{Answer, AnswerReport, Answered, Answers};
use crate::{
    benchmark::item::Item,
    scores::{Entry, ScoreTable},
};

/// The answers of a table, item by item; what it lacks is a fault.
pub(super) fn look_up(items: &[Item], table: &ScoreTable) -> Answers {
    let mut report = AnswerReport::default();
    let faults = table.row_faults();
    report.count("score_rows_malformed", faults.malformed);
    report.count("score_rows_duplicate", faults.duplicates);
    report.count("non_finite_scores", faults.non_finite);
    report.problems.extend(faults.examples.iter().cloned());
    let answered = items.iter().map(|item| of_item(item, table, &mut report)).collect();
    let ids: Vec<&str> = items.iter().map(|item| item.id.as_str()).collect();
    report.count("score_items_unused", table.num_rows_without(&ids));
    Answers { answered, report }
}

fn of_item(item: &Item, table: &ScoreTable, report: &mut AnswerReport) -> Answered {
    let count = item.responses.len();
    match table.get(&item.id) {
        Some(Entry::Scores(scores)) => {
            let mut scores = scores.clone();
            scores.truncate(count);
            scores.resize(count, None);
            let without = scores.iter().filter(|score| score.is_none()).count();
            report.count("responses_without_score", without);
            let mut answered = Answered::bare(Answer::Scores(scores));
            if without > 0 {
                answered.faults.push(format!("{without} of {count} responses have no score"));
            }
            answered
        }
        Some(Entry::Verdicts(verdicts)) => {
            let mut answered = Answered::bare(Answer::Verdicts(verdicts.clone()));
            let unread = verdicts.values().filter(|v| v.combined().is_none()).count();
            report.count("pairs_without_verdict", unread);
            if unread > 0 {
                answered.faults.push(format!("{unread} pairs have no readable verdict"));
            }
            answered
        }
        None => {
            report.count("items_without_answer", 1);
            report.problem(|| format!("item {:?} has no row in the scores file", item.id));
            let mut answered = Answered::bare(Answer::Scores(vec![None; count]));
            answered.faults.push("no row in the scores file".to_owned());
            answered
        }
    }
}
