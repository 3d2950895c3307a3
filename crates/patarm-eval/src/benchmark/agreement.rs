//! Agreement with labels among which a tie is one: three classes, and a fourth column
//! for answers that are not there.

use patarm_text::Preference;

use super::{
    accuracy::{Groups, overall_figures},
    answers::Answered,
    item::{Item, Label},
    responses::{Credit, Set},
    summary::Metrics,
    tally::{Figure, Tally, ratio},
};
use crate::{interval::Resampling, metrics::Outcome};

/// First, second, tie.
const LABELS: usize = 3;
/// The same and no answer.
const ANSWERS: usize = 4;
const NO_ANSWER: usize = 3;

/// The label of an item and the answer to it, as classes; `None` for unlabelled items.
fn classes(item: &Item, answered: &Answered) -> Option<(usize, usize)> {
    let label = match &item.label {
        Label::Preference(preference) => class(*preference)?,
        Label::Correct(_) => return None,
    };
    let answer = answered.answer.preference(0, 1).and_then(class).unwrap_or(NO_ANSWER);
    Some((label, answer))
}

fn class(preference: Preference) -> Option<usize> {
    match preference {
        Preference::First => Some(0),
        Preference::Second => Some(1),
        Preference::Tie => Some(2),
        Preference::Unknown => None,
    }
}

/// The credit of one item: 1 for the label itself; under half credit ½ for a tie or no
/// answer where a side is labelled.
#[must_use]
pub fn credit(item: &Item, answered: &Answered) -> Credit {
    let Some((label, answer)) = classes(item, answered) else {
        return Credit::of(Outcome::Fault);
    };
    let outcome = match answer {
        NO_ANSWER => Outcome::Fault,
        _ if answer == label => Outcome::Right,
        2 => Outcome::Tie,
        _ => Outcome::Wrong,
    };
    Credit::of(outcome)
}

/// Figures over all items and by subset: `agreement` (no answer is wrong),
/// `agreement.without_faults`, `cohen_kappa`, `macro_precision`, `macro_recall`,
/// `macro_f1`; and over the items whose label is no tie `accuracy.<rule>`.
#[must_use]
pub fn agreement(set: &Set<'_>, resampling: Resampling) -> Metrics {
    let mut names: Vec<&str> = set.items.iter().map(|item| item.subset.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| !name.is_empty());
    let mut tally = Tally::new((names.len() + 1) * LABELS * ANSWERS);
    let mut counts = vec![0usize; names.len() + 1];
    for (index, (item, answered)) in set.items.iter().zip(set.answered).enumerate() {
        let Some((label, answer)) = classes(item, answered) else { continue };
        let subset = names.binary_search(&item.subset.as_str()).ok().map(|number| number + 1);
        for group in std::iter::once(0).chain(subset) {
            counts[group] += 1;
            let slot = (group * LABELS + label) * ANSWERS + answer;
            tally.add(set.clusters[index], slot, 1.0);
        }
    }
    let mut figures = figures_of("", 0, counts[0]);
    for (number, name) in names.iter().enumerate() {
        figures.extend(figures_of(&format!("subset.{name}."), number + 1, counts[number + 1]));
    }
    let mut metrics = tally.measure(&figures, resampling);
    let groups: Groups = super::accuracy::by_subset(set);
    metrics.extend(groups.measure(&overall_figures(&groups), resampling));
    metrics
}

fn figures_of(prefix: &str, group: usize, n: usize) -> Vec<Figure<'static>> {
    let start = group * LABELS * ANSWERS;
    let figure = |name: &str, value: fn(&Table<'_>) -> Option<f64>| {
        Figure::of(format!("{prefix}{name}"), n, move |sums: &[f64]| {
            value(&Table(&sums[start..start + LABELS * ANSWERS]))
        })
    };
    vec![
        figure("agreement", |t| t.agreement()),
        figure("agreement.without_faults", |t| t.agreement_of_answers()),
        figure("cohen_kappa", |t| t.kappa()),
        figure("macro_precision", |t| t.macro_mean(Table::precision)),
        figure("macro_recall", |t| t.macro_mean(Table::recall)),
        figure("macro_f1", |t| t.macro_mean(Table::f1)),
        figure("tie_rate", |t| ratio(t.column(2), t.all())),
        figure("fault_rate", |t| ratio(t.column(NO_ANSWER), t.all())),
    ]
}

/// Counts by label and answer.
struct Table<'a>(&'a [f64]);

impl Table<'_> {
    fn at(&self, label: usize, answer: usize) -> f64 {
        self.0[label * ANSWERS + answer]
    }

    fn all(&self) -> f64 {
        self.0.iter().sum()
    }

    fn row(&self, label: usize) -> f64 {
        (0..ANSWERS).map(|answer| self.at(label, answer)).sum()
    }

    fn column(&self, answer: usize) -> f64 {
        (0..LABELS).map(|label| self.at(label, answer)).sum()
    }

    fn agreeing(&self) -> f64 {
        (0..LABELS).map(|label| self.at(label, label)).sum()
    }

    fn agreement(&self) -> Option<f64> {
        ratio(self.agreeing(), self.all())
    }

    fn agreement_of_answers(&self) -> Option<f64> {
        ratio(self.agreeing(), self.all() - self.column(NO_ANSWER))
    }

    /// Cohen's κ (J. Cohen, Educational and Psychological Measurement 20, 1960), a
    /// missing answer being a class of its own.
    fn kappa(&self) -> Option<f64> {
        let all = self.all();
        let expected: f64 =
            (0..LABELS).map(|class| self.row(class) * self.column(class)).sum::<f64>()
                / (all * all);
        ratio(self.agreement()? - expected, 1.0 - expected)
    }

    fn precision(&self, class: usize) -> f64 {
        ratio(self.at(class, class), self.column(class)).unwrap_or(0.0)
    }

    fn recall(&self, class: usize) -> f64 {
        ratio(self.at(class, class), self.row(class)).unwrap_or(0.0)
    }

    fn f1(&self, class: usize) -> f64 {
        let (precision, recall) = (self.precision(class), self.recall(class));
        ratio(2.0 * precision * recall, precision + recall).unwrap_or(0.0)
    }

    /// The unweighted mean over the classes that occur as label or answer.
    fn macro_mean(&self, of: fn(&Self, usize) -> f64) -> Option<f64> {
        let occurs = |class: &usize| self.row(*class) + self.column(*class) > 0.0;
        let values: Vec<f64> = (0..LABELS).filter(occurs).map(|class| of(self, class)).collect();
        ratio(values.iter().sum(), values.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::benchmark::{answers::Answer, responses::clusters};
    use patarm_text::Conversation;

    fn item(number: usize, label: Preference) -> Item {
        Item {
            id: number.to_string(),
            prompt: Conversation::from_user(number.to_string()),
            responses: vec!["a".to_owned(), "b".to_owned()],
            label: Label::Preference(label),
            ..Item::default()
        }
    }

    fn measured(rows: &[(Preference, Answered)]) -> Metrics {
        let items: Vec<Item> =
            rows.iter().enumerate().map(|(number, (label, _))| item(number, *label)).collect();
        let answered: Vec<Answered> = rows.iter().map(|(_, answered)| answered.clone()).collect();
        let clusters = clusters(&items);
        let set = Set { items: &items, answered: &answered, clusters: &clusters };
        agreement(&set, Resampling { resamples: 20, seed: 0 })
    }

    /// Worked by hand: labels 1 1 2 tie, answers 1 2 2 tie. Agreement 3/4, expected
    /// (2·1 + 1·2 + 1·1)/16, so κ = (12 − 5)/(16 − 5).
    #[test]
    fn figures_by_hand() {
        use Preference::{First, Second, Tie};
        let metrics = measured(&[
            (First, Answered::of_scores([2.0, 1.0])),
            (First, Answered::of_scores([1.0, 2.0])),
            (Second, Answered::of_scores([1.0, 2.0])),
            (Tie, Answered::of_scores([3.0, 3.0])),
        ]);
        let value = |name: &str| metrics[name].value.expect("a value");
        assert_eq!(value("agreement"), 0.75);
        assert!((value("cohen_kappa") - 7.0 / 11.0).abs() < 1e-12);
        assert!((value("macro_precision") - (1.0 + 0.5 + 1.0) / 3.0).abs() < 1e-12);
        assert!((value("macro_recall") - (0.5 + 1.0 + 1.0) / 3.0).abs() < 1e-12);
        assert!((value("macro_f1") - (2.0 / 3.0 + 2.0 / 3.0 + 1.0) / 3.0).abs() < 1e-12);
        assert!((value("accuracy.strict") - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(metrics["accuracy.strict"].n, 3);
    }

    #[test]
    fn a_missing_answer_is_wrong_and_left_out() {
        let none = Answered::bare(Answer::Scores(vec![None, Some(1.0)]));
        let metrics = measured(&[
            (Preference::Tie, Answered::of_scores([1.0, 1.0])),
            (Preference::First, none.clone()),
        ]);
        assert_eq!(metrics["agreement"].value, Some(0.5));
        assert_eq!(metrics["agreement.without_faults"].value, Some(1.0));
        assert_eq!(metrics["fault_rate"].value, Some(0.5));
        assert_eq!(credit(&item(0, Preference::First), &none).half_credit, 0.5);
    }
}
