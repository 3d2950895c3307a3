//! What a data set is like: counts, faults, lengths, and what length alone tells.

mod render;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use crate::comparison::{Comparison, Item, Preference};
use crate::words::{prompt_hash, stable_hash};

/// Subsets listed by name; the rest are counted together.
const MAX_SUBSETS: usize = 200;
/// Name under which further subsets are counted.
const OTHERS: &str = "(others)";

/// Comparisons by label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LabelCounts {
    /// The first side is preferred.
    pub first: u64,
    /// The second side is preferred.
    pub second: u64,
    /// Neither.
    pub tie: u64,
    /// Not labelled.
    pub unknown: u64,
}

/// Comparisons that deserve a look. One may be counted in several places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// The same pair with the same label as an earlier one, sides swapped or not.
    pub duplicates: u64,
    /// The same pair as an earlier one with a contradicting label.
    pub conflicting_labels: u64,
    /// A response without any visible character.
    pub empty_sides: u64,
    /// Both responses (and prompts) are the same.
    pub identical_sides: u64,
    /// A prompt without any visible character.
    pub empty_prompts: u64,
    /// The prompts of the two sides differ; legitimate, but rare.
    pub different_prompts: u64,
}

/// Distribution of lengths in characters (Unicode scalar values). Quantiles are
/// the smallest length that at least that share of the texts does not exceed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Lengths {
    /// Texts.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// Shortest.
    pub min: u64,
    /// 10 % quantile.
    pub p10: u64,
    /// Median.
    pub p50: u64,
    /// 90 % quantile.
    pub p90: u64,
    /// 99 % quantile.
    pub p99: u64,
    /// Longest.
    pub max: u64,
}

/// How a judge that prefers the longer response would fare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LongerWins {
    /// Comparisons with a preference.
    pub decided: u64,
    /// The preferred response is longer.
    pub longer: u64,
    /// Both are equally long.
    pub same: u64,
    /// `(longer + same / 2) / decided`; absent without a decided comparison.
    pub accuracy: Option<f64>,
}

/// A part of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Part {
    /// Comparisons.
    pub comparisons: u64,
    /// How length alone fares.
    pub longer_wins: LongerWins,
}

/// Statistics of a data set.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Inspection {
    /// Version of this structure.
    pub version: u32,
    /// Comparisons.
    pub comparisons: u64,
    /// By label.
    pub labels: LabelCounts,
    /// What deserves a look.
    pub faults: Faults,
    /// Different prompts, whatever their case, blanks and punctuation.
    pub distinct_prompts: u64,
    /// Comparisons whose prompt an earlier one has too.
    pub repeated_prompts: u64,
    /// Prompts of more than one turn.
    pub several_turns: u64,
    /// Prompts that offer tools or contain tool calls.
    pub with_tools: u64,
    /// Comparisons with a strength.
    pub with_strength: u64,
    /// Lengths of the prompts.
    pub prompt_length: Lengths,
    /// Lengths of preferred responses.
    pub chosen_length: Lengths,
    /// Lengths of the others.
    pub rejected_length: Lengths,
    /// How length alone fares.
    pub longer_wins: LongerWins,
    /// By kind of work, where the data say.
    pub tasks: BTreeMap<String, Part>,
    /// By subset, where the data say; at most 200 by name.
    pub subsets: BTreeMap<String, Part>,
}

/// Gathers statistics, one comparison at a time.
#[derive(Debug, Default)]
pub struct Inspector {
    found: Inspection,
    prompts: HashSet<u64>,
    pairs: HashMap<u64, SeenLabels>,
    prompt_lengths: Vec<u32>,
    chosen_lengths: Vec<u32>,
    rejected_lengths: Vec<u32>,
}

/// Labels a pair was seen with, its sides in a canonical order.
#[derive(Clone, Copy, Debug, Default)]
struct SeenLabels {
    first: bool,
    second: bool,
    tie: bool,
    unknown: bool,
}

impl SeenLabels {
    fn slot(&mut self, label: Preference) -> &mut bool {
        match label {
            Preference::First => &mut self.first,
            Preference::Second => &mut self.second,
            Preference::Tie => &mut self.tie,
            Preference::Unknown => &mut self.unknown,
        }
    }

    /// Whether a labelled verdict other than this one was seen.
    fn contradicts(self, label: Preference) -> bool {
        match label {
            Preference::First => self.second || self.tie,
            Preference::Second => self.first || self.tie,
            Preference::Tie => self.first || self.second,
            Preference::Unknown => false,
        }
    }
}

impl Inspector {
    /// Starts with nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a comparison into account.
    pub fn add(&mut self, comparison: &Comparison) {
        self.found.comparisons += 1;
        self.add_label(comparison.label);
        self.add_prompt(comparison);
        self.add_faults(comparison);
        self.found.with_strength += u64::from(comparison.strength.is_some());
        let outcome = self.add_lengths(comparison);
        let mut parts: Vec<&mut Part> = Vec::new();
        if let Some(task) = comparison.task {
            parts.push(self.found.tasks.entry(task.name().to_owned()).or_default());
        }
        if let Some(subset) = &comparison.subset {
            parts.push(subset_entry(&mut self.found.subsets, subset));
        }
        for part in parts {
            part.comparisons += 1;
            part.longer_wins.add(outcome);
        }
        self.found.longer_wins.add(outcome);
    }

    /// The statistics of everything added.
    #[must_use]
    pub fn finish(mut self) -> Inspection {
        self.found.version = 1;
        self.found.distinct_prompts = self.prompts.len() as u64;
        self.found.prompt_length = lengths(&mut self.prompt_lengths);
        self.found.chosen_length = lengths(&mut self.chosen_lengths);
        self.found.rejected_length = lengths(&mut self.rejected_lengths);
        self.found
    }

    fn add_label(&mut self, label: Preference) {
        let labels = &mut self.found.labels;
        *match label {
            Preference::First => &mut labels.first,
            Preference::Second => &mut labels.second,
            Preference::Tie => &mut labels.tie,
            Preference::Unknown => &mut labels.unknown,
        } += 1;
    }

    fn add_prompt(&mut self, comparison: &Comparison) {
        let prompt = &comparison.first.prompt;
        if !self.prompts.insert(prompt_hash(prompt)) {
            self.found.repeated_prompts += 1;
        }
        let differ = *prompt != comparison.second.prompt;
        if differ {
            self.prompts.insert(prompt_hash(&comparison.second.prompt));
        }
        let text = prompt.transcript();
        self.prompt_lengths.push(length(&text));
        let has_calls = prompt.messages.iter().any(|message| !message.tool_calls.is_empty());
        self.found.several_turns += u64::from(prompt.messages.len() > 1);
        self.found.with_tools += u64::from(has_calls || !prompt.tools.is_empty());
        self.found.faults.empty_prompts += u64::from(text.trim().is_empty());
        self.found.faults.different_prompts += u64::from(differ);
    }

    fn add_faults(&mut self, comparison: &Comparison) {
        let (first, second) = (&comparison.first, &comparison.second);
        let faults = &mut self.found.faults;
        let empty = |item: &Item| item.response.trim().is_empty();
        faults.empty_sides += u64::from(empty(first) || empty(second));
        faults.identical_sides += u64::from(first == second);
        let (a, b) = (item_hash(first), item_hash(second));
        let label = if a <= b { comparison.label } else { comparison.label.swap() };
        let seen = self.pairs.entry(stable_hash(&pair_bytes(a.min(b), a.max(b)))).or_default();
        faults.conflicting_labels += u64::from(seen.contradicts(label));
        let slot = seen.slot(label);
        faults.duplicates += u64::from(*slot);
        *slot = true;
    }

    /// Notes the lengths; gives whether the preferred response is the longer one.
    fn add_lengths(&mut self, comparison: &Comparison) -> Option<std::cmp::Ordering> {
        let (chosen, rejected) = comparison.chosen_rejected()?;
        let (chosen, rejected) = (length(&chosen.response), length(&rejected.response));
        self.chosen_lengths.push(chosen);
        self.rejected_lengths.push(rejected);
        Some(chosen.cmp(&rejected))
    }
}

/// Statistics of some comparisons.
#[must_use]
pub fn inspect<'a>(comparisons: impl IntoIterator<Item = &'a Comparison>) -> Inspection {
    let mut inspector = Inspector::new();
    comparisons.into_iter().for_each(|comparison| inspector.add(comparison));
    inspector.finish()
}

impl LongerWins {
    fn add(&mut self, outcome: Option<std::cmp::Ordering>) {
        let Some(outcome) = outcome else { return };
        self.decided += 1;
        self.longer += u64::from(outcome.is_gt());
        self.same += u64::from(outcome.is_eq());
        self.accuracy = Some((self.longer as f64 + self.same as f64 / 2.0) / self.decided as f64);
    }
}

fn subset_entry<'a>(subsets: &'a mut BTreeMap<String, Part>, name: &str) -> &'a mut Part {
    let known = subsets.contains_key(name) || subsets.len() < MAX_SUBSETS;
    subsets.entry(if known { name } else { OTHERS }.to_owned()).or_default()
}

fn item_hash(item: &Item) -> u64 {
    let response = stable_hash(item.response.as_bytes());
    let prompt = stable_hash(item.prompt.transcript().as_bytes());
    stable_hash(&pair_bytes(prompt, response))
}

fn pair_bytes(a: u64, b: u64) -> [u8; 16] {
    ((u128::from(a) << 64) | u128::from(b)).to_le_bytes()
}

fn length(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX)
}

fn lengths(all: &mut [u32]) -> Lengths {
    all.sort_unstable();
    let (Some(&min), Some(&max)) = (all.first(), all.last()) else {
        return Lengths::default();
    };
    let quantile = |percent: usize| u64::from(all[(all.len() * percent).div_ceil(100) - 1]);
    Lengths {
        count: all.len() as u64,
        mean: all.iter().map(|&length| f64::from(length)).sum::<f64>() / all.len() as f64,
        min: min.into(),
        p10: quantile(10),
        p50: quantile(50),
        p90: quantile(90),
        p99: quantile(99),
        max: max.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::Task;
    use crate::conversation::Conversation;

    fn pair(prompt: &str, first: &str, second: &str, label: Preference) -> Comparison {
        let item = |response: &str| Item {
            prompt: Conversation::from_user(prompt),
            response: response.into(),
        };
        Comparison {
            id: String::new(),
            first: item(first),
            second: item(second),
            label,
            strength: None,
            task: None,
            subset: None,
        }
    }

    #[test]
    fn duplicates_and_conflicts_whatever_the_order_of_sides() {
        use Preference::{First, Second, Tie, Unknown};
        let all = [
            pair("p", "a", "b", First),
            pair("p", "b", "a", Second), // the same again, swapped
            pair("p", "a", "b", Second), // the opposite
            pair("p", "a", "b", Tie),    // contradicts both
            pair("p", "a", "b", Unknown),
            pair("p", "a", "c", First),
            pair("q", "a", "b", First),
        ];
        let found = inspect(&all);
        assert_eq!(found.faults.duplicates, 1);
        assert_eq!(found.faults.conflicting_labels, 2);
        assert_eq!((found.distinct_prompts, found.repeated_prompts), (2, 5));
        assert_eq!(found.labels, LabelCounts { first: 3, second: 2, tie: 1, unknown: 1 });
    }

    #[test]
    fn sides_and_prompts_with_faults() {
        let mut crossed = pair("p", "x", "y", Preference::First);
        crossed.second.prompt = Conversation::from_user("other");
        let all = [
            pair("p", " \n", "b", Preference::First),
            pair("", "same", "same", Preference::Tie),
            crossed,
        ];
        let faults = inspect(&all).faults;
        let want = Faults {
            empty_sides: 1,
            identical_sides: 1,
            empty_prompts: 1,
            different_prompts: 1,
            ..Faults::default()
        };
        assert_eq!(faults, want);
    }

    #[test]
    fn lengths_are_nearest_rank_quantiles_in_characters() {
        let mut ten: Vec<u32> = (1..=10).rev().collect();
        let found = lengths(&mut ten);
        assert_eq!(
            (found.min, found.p10, found.p50, found.p90, found.p99, found.max),
            (1, 1, 5, 9, 10, 10)
        );
        assert!((found.mean - 5.5).abs() < 1e-12);
        assert_eq!(length("é🙂"), 2);
        assert_eq!(lengths(&mut []), Lengths::default());
    }

    #[test]
    fn length_alone_by_part() {
        let with = |subset: &str, mut comparison: Comparison| {
            comparison.subset = Some(subset.into());
            comparison.task = Some(Task::Math);
            comparison
        };
        let all = [
            with("s", pair("1", "longer", "x", Preference::First)),
            with("s", pair("2", "longer", "x", Preference::Second)),
            with("t", pair("3", "ab", "xy", Preference::First)),
            with("t", pair("4", "longer", "x", Preference::Tie)),
        ];
        let found = inspect(&all);
        let wins = LongerWins { decided: 3, longer: 1, same: 1, accuracy: Some(0.5) };
        assert_eq!(found.longer_wins, wins);
        assert_eq!(found.subsets["s"].longer_wins.accuracy, Some(0.5));
        assert_eq!(found.subsets["t"].comparisons, 2);
        assert_eq!(found.tasks["math"].comparisons, 4);
        let text = found.to_string();
        assert!(text.contains("4 comparisons") && text.contains("math"), "{text}");
    }

    #[test]
    fn nothing_is_reported_as_nothing() {
        let found = inspect([]);
        assert_eq!(found.longer_wins.accuracy, None);
        assert!(found.to_string().contains("0 comparisons"));
        assert!(serde_json::to_string(&found).is_ok());
    }

    #[test]
    fn endless_subsets_are_counted_together() {
        let mut inspector = Inspector::new();
        for index in 0..1000 {
            let mut one = pair("p", "a", "b", Preference::First);
            one.subset = Some(format!("subset {index}"));
            inspector.add(&one);
        }
        let found = inspector.finish();
        assert_eq!(found.subsets.len(), MAX_SUBSETS + 1);
        assert_eq!(found.subsets[OTHERS].comparisons, 800);
    }
}
