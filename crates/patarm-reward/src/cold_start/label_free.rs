//! Well-formed judgements that carry no label information.
//!
//! The text of a judgement depends on the seed, the item's place and its task; the
//! score is uniform over the scale, from a stream of its own. Neither looks at the
//! response, and the label is not among the arguments, so independence holds by
//! construction: whatever a judge knows after training on these, it knows the form.

use patarm_text::Task;
use serde::{Deserialize, Serialize};

use super::bank::bank;
use super::{ColdStartRecord, RECORD_VERSION, task_of};
use crate::model::JudgeRequest;
use crate::random::SplitMix64;
use crate::rubric::{Criterion, Origin};
use crate::task::primary_rubric;
use crate::template::{ColdStartStyle, JudgeFormat, JudgeTemplate, RubricMode};
use crate::verdict::rubric_lines;

/// Every choice of the builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelFreeConfig {
    /// Seed of every draw.
    pub seed: u64,
    /// Judgements of each item.
    pub per_item: usize,
    /// Whose criteria the judgements are made under.
    pub mode: RubricMode,
}

impl Default for LabelFreeConfig {
    fn default() -> Self {
        Self { seed: 0, per_item: 1, mode: RubricMode::Both }
    }
}

/// `per_item` judgements of every item, in order of the items.
#[must_use]
pub fn label_free(
    items: &[JudgeRequest],
    template: &JudgeTemplate,
    config: &LabelFreeConfig,
) -> Vec<ColdStartRecord> {
    let writer = Writer {
        format: template.format(config.mode),
        style: template.cold_start_style(),
        mode: config.mode,
    };
    let places = items.iter().flat_map(|request| vec![request; config.per_item]);
    (0u64..)
        .zip(places)
        .map(|(place, request)| {
            let task = task_of(request);
            let mut text = SplitMix64::for_stream(config.seed, 2 * place);
            let mut score = SplitMix64::for_stream(config.seed, 2 * place + 1);
            let judgement = writer.judgement(task, &mut text, &mut score);
            ColdStartRecord { version: RECORD_VERSION, item: request.item.clone(), task, judgement }
        })
        .collect()
}

/// Writes judgements in one format.
struct Writer {
    format: JudgeFormat,
    style: ColdStartStyle,
    mode: RubricMode,
}

impl Writer {
    fn judgement(&self, task: Task, text: &mut SplitMix64, score: &mut SplitMix64) -> String {
        let (criteria, evaluation) = match self.style {
            ColdStartStyle::Short => self.short(task, text),
            ColdStartStyle::Full => self.full(task, text),
        };
        let tags = &self.format.tags;
        let parts = [
            (&tags.rubrics, criteria),
            (&tags.evaluation, evaluation),
            (&tags.score, self.score(score)),
        ];
        let sections: Vec<String> = parts
            .into_iter()
            .filter(|(tag, _)| !tag.is_empty())
            .map(|(tag, content)| format!("<{tag}>{content}</{tag}>"))
            .collect();
        sections.join("\n")
    }

    /// Two names with weights, one note.
    fn short(&self, task: Task, random: &mut SplitMix64) -> (String, String) {
        let bank = &bank().short;
        let mut names: Vec<&String> = bank.criteria(task).iter().collect();
        random.shuffle(&mut names);
        let weights = choose(&bank.weights, random).map_or(&[][..], Vec::as_slice);
        let lines: Vec<String> =
            names.iter().zip(weights).map(|(name, weight)| format!("{name} ({weight})")).collect();
        let note = choose(&bank.notes, random).cloned().unwrap_or_default();
        (lines.join("\n"), note)
    }

    /// Described criteria, the primary ones first where the mode asks for them, and a
    /// paragraph for each.
    fn full(&self, task: Task, random: &mut SplitMix64) -> (String, String) {
        let bank = &bank().full;
        let mut own: Vec<Criterion> = bank.criteria(task).iter().map(generated).collect();
        random.shuffle(&mut own);
        let mut criteria = match self.mode {
            RubricMode::Generated => Vec::new(),
            RubricMode::Primary | RubricMode::Both => primary_rubric(task).criteria,
        };
        if self.mode != RubricMode::Primary {
            let weights = choose(&bank.weights, random).map_or(&[][..], Vec::as_slice);
            own.retain(|own| !criteria.iter().any(|given| given.name == own.name));
            criteria.extend(own);
            criteria.truncate(weights.len());
            for (criterion, &weight) in criteria.iter_mut().zip(weights) {
                criterion.weight = Some(f64::from(weight));
            }
        }
        let mut paragraphs: Vec<&String> = bank.paragraphs.iter().collect();
        random.shuffle(&mut paragraphs);
        let evaluation: Vec<String> = criteria
            .iter()
            .zip(paragraphs)
            .map(|(criterion, paragraph)| format!("{}: {paragraph}", criterion.name))
            .collect();
        let lines: Vec<String> = criteria.iter().map(rubric_lines::format).collect();
        (format!("\n{}\n", lines.join("\n")), format!("\n{}\n", evaluation.join("\n")))
    }

    /// Uniform over the grid, or over the tenths of a decimal scale.
    fn score(&self, random: &mut SplitMix64) -> String {
        let scale = &self.format.scale;
        if let Some(texts) = scale.grid_texts() {
            return choose(&texts, random).cloned().unwrap_or_default();
        }
        let tenths = ((scale.max - scale.min) * 10.0).floor() as usize;
        let score = scale.min + random.below(tenths + 1) as f64 / 10.0;
        format!("{:.1}", score.clamp(scale.min, scale.max))
    }
}

fn generated((name, description): &(String, String)) -> Criterion {
    Criterion {
        name: name.clone(),
        description: description.clone(),
        weight: None,
        origin: Origin::Generated,
    }
}

fn choose<'a, T>(options: &'a [T], random: &mut SplitMix64) -> Option<&'a T> {
    options.get(random.below(options.len()))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use patarm_text::{Comparison, Conversation, Item, Preference};

    use super::*;
    use crate::cold_start::requests_of;
    use crate::verdict::TextEnd;

    fn comparisons(count: usize, label: Preference) -> Vec<Comparison> {
        (0..count)
            .map(|i| Comparison {
                id: i.to_string(),
                first: item(&format!("question {i}"), "a fine answer"),
                second: item(&format!("question {i}"), "off topic"),
                label,
                strength: None,
                task: Some(Task::ALL[i % Task::ALL.len()]),
                subset: None,
            })
            .collect()
    }

    fn item(prompt: &str, response: &str) -> Item {
        Item { prompt: Conversation::from_user(prompt), response: response.to_owned() }
    }

    fn build(comparisons: &[Comparison], name: &str, mode: RubricMode) -> Vec<ColdStartRecord> {
        let config = LabelFreeConfig { seed: 7, per_item: 1, mode };
        label_free(&requests_of(comparisons), &JudgeTemplate::load(name).unwrap(), &config)
    }

    fn scores(records: &[ColdStartRecord], name: &str, mode: RubricMode) -> Vec<f64> {
        let format = JudgeTemplate::load(name).unwrap().format(mode);
        let parse = |r: &ColdStartRecord| format.parse(&r.judgement, TextEnd::Stopped);
        records.iter().map(|record| parse(record).score.unwrap()).collect()
    }

    #[test]
    fn every_judgement_is_well_formed_in_every_template_and_mode() {
        for name in JudgeTemplate::preset_names() {
            for mode in [RubricMode::Primary, RubricMode::Generated, RubricMode::Both] {
                let format = JudgeTemplate::load(name).unwrap().format(mode);
                for record in build(&comparisons(30, Preference::First), name, mode) {
                    let parsed = format.parse(&record.judgement, TextEnd::Stopped);
                    assert!(parsed.score.is_ok(), "{name} {mode:?}: {}", record.judgement);
                    assert!(!parsed.evaluation.is_empty());
                    let log = parsed.diagnostics;
                    let weighted = mode != RubricMode::Primary;
                    assert_eq!(
                        log.weights_sum_to_100,
                        weighted.then_some(true),
                        "{}",
                        record.judgement
                    );
                    assert_eq!((log.unparsed_lines, log.other_tags.len()), (0, 0));
                }
            }
        }
    }

    #[test]
    fn the_label_and_the_responses_change_nothing() {
        let first = comparisons(40, Preference::First);
        let swapped: Vec<Comparison> = first.iter().map(Comparison::swap).collect();
        let texts = |comparisons: &[Comparison]| -> Vec<String> {
            let records = build(comparisons, "patarm-short", RubricMode::Both);
            records.into_iter().map(|record| record.judgement).collect()
        };
        assert_eq!(texts(&first), texts(&swapped));
        assert_eq!(texts(&first), texts(&comparisons(40, Preference::Unknown)));
    }

    #[test]
    fn scores_are_uniform_and_independent_of_side_and_text() {
        let records =
            build(&comparisons(4500, Preference::First), "patarm-short", RubricMode::Both);
        let scores = scores(&records, "patarm-short", RubricMode::Both);
        let mut counts = [0usize; 10];
        scores.iter().for_each(|&score| counts[score as usize] += 1);
        // 9,000 draws over 9 levels: 1,000 each with a deviation of about 30.
        assert!(counts[1..].iter().all(|count| (880..1120).contains(count)), "{counts:?}");
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let sides: [Vec<f64>; 2] =
            [0, 1].map(|side| scores.iter().skip(side).step_by(2).copied().collect());
        assert!((mean(&sides[0]) - mean(&sides[1])).abs() < 0.2);

        let mut by_text: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (record, &score) in records.iter().zip(&scores) {
            let (_, note) = record.judgement.split_once("<note>").unwrap();
            by_text.entry(note.split_once('<').unwrap().0).or_default().push(score);
        }
        assert!(by_text.len() >= 16);
        for (note, scores) in by_text {
            // About 375 scores a note: the mean has a deviation of 0.13.
            assert!((mean(&scores) - 5.0).abs() < 0.65, "{note}");
        }
    }

    #[test]
    fn texts_vary_and_repeat_by_seed() {
        let once = build(&comparisons(100, Preference::First), "patarm-short", RubricMode::Both);
        let again = build(&comparisons(100, Preference::First), "patarm-short", RubricMode::Both);
        assert_eq!(once, again);
        let distinct: BTreeSet<&str> = once.iter().map(|r| r.judgement.as_str()).collect();
        assert!(distinct.len() > 190, "{}", distinct.len());
        let other = LabelFreeConfig { seed: 8, per_item: 2, ..LabelFreeConfig::default() };
        let template = JudgeTemplate::load("patarm-short").unwrap();
        let requests = requests_of(&comparisons(3, Preference::First));
        let records = label_free(&requests, &template, &other);
        assert_eq!(records.len(), 12);
        assert_eq!(records[0].item, records[1].item);
        assert_ne!(records[0].judgement, once[0].judgement);
    }

    #[test]
    fn short_judgements_are_short() {
        for record in build(&comparisons(300, Preference::First), "patarm-short", RubricMode::Both)
        {
            let text = &record.judgement;
            // Every name is one token, every digit, bracket pair, tag part and line end
            // another: counted with the tokenizer, the longest judgement has 38 tokens.
            let words = text.split(|c: char| !c.is_alphabetic()).filter(|w| !w.is_empty()).count();
            let digits = text.chars().filter(char::is_ascii_digit).count();
            let signs = text.matches(['(', ')', '<', '>', '\n', ',', '.']).count();
            assert!(words + digits + signs <= 38, "{}: {text}", words + digits + signs);
        }
    }

    #[test]
    fn decimal_scales_get_decimal_scores() {
        let text = include_str!("../../templates/patarm-short.toml").replacen(
            "kind = \"integer\"",
            "kind = \"decimal\"",
            1,
        );
        let template = JudgeTemplate::from_toml(&text, "test").unwrap();
        let requests = requests_of(&comparisons(50, Preference::First));
        for record in label_free(&requests, &template, &LabelFreeConfig::default()) {
            let format = template.format(RubricMode::Both);
            assert!(format.parse(&record.judgement, TextEnd::Stopped).score.is_ok());
        }
    }

    #[test]
    fn records_survive_their_file() {
        let records = build(&comparisons(3, Preference::First), "patarm", RubricMode::Both);
        let text = crate::cold_start::to_jsonl(&records).unwrap();
        assert_eq!(crate::cold_start::from_jsonl(&text).unwrap(), records);
        let broken = format!("{text}\n{{\"version\": 2}}\n");
        let error = crate::cold_start::from_jsonl(&broken).unwrap_err().to_string();
        assert!(error.contains("line 8"), "{error}");
    }
}
