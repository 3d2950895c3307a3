//! The building blocks of label-free judgements.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use patarm_text::Task;
use serde::Deserialize;

/// The blocks that come with the program.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bank {
    pub(super) short: ShortBank,
    pub(super) full: FullBank,
}

/// Names and one-sentence notes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShortBank {
    pub(super) weights: Vec<Vec<u32>>,
    pub(super) notes: Vec<String>,
    criteria: BTreeMap<Task, Vec<String>>,
}

/// Described criteria and paragraphs.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FullBank {
    pub(super) weights: Vec<Vec<u32>>,
    pub(super) paragraphs: Vec<String>,
    criteria: BTreeMap<Task, Vec<(String, String)>>,
}

impl ShortBank {
    pub(super) fn criteria(&self, task: Task) -> &[String] {
        self.criteria.get(&task).map_or(&[], Vec::as_slice)
    }
}

impl FullBank {
    pub(super) fn criteria(&self, task: Task) -> &[(String, String)] {
        self.criteria.get(&task).map_or(&[], Vec::as_slice)
    }
}

static BANK: LazyLock<Bank> = LazyLock::new(|| {
    // The file is compiled in and held by a test; an empty bank is never used.
    toml::from_str(include_str!("../../templates/cold_start.toml")).unwrap_or_default()
});

pub(super) fn bank() -> &'static Bank {
    &BANK
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn sums_to_100(weights: &[Vec<u32>]) {
        for weights in weights {
            assert_eq!(weights.iter().sum::<u32>(), 100, "{weights:?}");
        }
    }

    #[test]
    fn the_bank_is_whole_and_varied() {
        let parsed: Bank = toml::from_str(include_str!("../../templates/cold_start.toml")).unwrap();
        sums_to_100(&parsed.short.weights);
        sums_to_100(&parsed.full.weights);
        assert!(parsed.short.weights.iter().all(|weights| weights.len() == 2));
        let most = parsed.full.weights.iter().map(Vec::len).max().unwrap();
        for task in Task::ALL {
            let names: BTreeSet<_> = parsed.short.criteria(task).iter().collect();
            assert!(names.len() >= 12 && names.len() == parsed.short.criteria(task).len());
            let names: BTreeSet<_> = parsed.full.criteria(task).iter().map(|c| &c.0).collect();
            assert!(names.len() > most, "{task:?}: as many criteria as weights, and a spare");
        }
        assert!(parsed.short.notes.len() >= 16 && parsed.full.paragraphs.len() >= 10);
    }

    #[test]
    fn no_block_praises_blames_or_counts() {
        let text = include_str!("../../templates/cold_start.toml").to_lowercase();
        let (_, blocks) = text.split_once("[short]").unwrap();
        let judgemental = ["excellent", "poor", " bad", "good", "great", "weak", "strong", "fails"];
        for word in judgemental {
            assert!(!blocks.contains(word), "{word}");
        }
        for note in &bank().short.notes {
            assert!(!note.chars().any(|c| c.is_ascii_digit()), "{note}");
        }
        for paragraph in &bank().full.paragraphs {
            assert!(!paragraph.chars().any(|c| c.is_ascii_digit()), "{paragraph}");
        }
    }
}
