//! Any file of comparisons, in every format the data commands read.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
};

use patarm_text::{Comparison, ComparisonReader, OnError, Preference, ReadOptions};

use crate::{
    Error, Result,
    benchmark::{
        Asks, Info, OfficialFile,
        answers::Answer,
        item::{Item, Label},
        load::{LoadReport, Row, RowProblem},
        responses::{About, ResponseBenchmark, Set},
    },
    pairs::{JudgementFaults, Known, PairRecord, PairsOptions, Readout, Skipped, assemble},
    scores::OrderSummary,
    store,
};

/// The benchmark.
pub struct Pairs;

const INFO: Info = Info {
    name: "pairs",
    about: "Any file of comparisons.",
    data: "comparisons in any format that `patarm data` reads",
    hub: None,
    asks: Asks::Responses,
    metrics: &[
        ("accuracy.<rule>", "all pairs with a preference"),
        ("subset.<subset>.<rule>", "one subset, where the data names subsets"),
    ],
    files: &[
        ("result.json", "the same evaluation as `patarm report` and `eval compare` read it"),
        ("scores.jsonl", "one record a pair for `eval compare`"),
    ],
    headline: &["accuracy.strict", "accuracy.half_credit", "accuracy.half_credit_without_faults"],
};

/// Reasons for which a comparison has no place in an accuracy.
const TIE_LABELS: &str = "tie_labels";
const UNLABELLED: &str = "unlabelled";

impl ResponseBenchmark for Pairs {
    fn info(&self) -> &'static Info {
        &INFO
    }

    /// Comparisons are read by [`Pairs::load`].
    fn read(&self, _row: &Row<'_>) -> Result<Vec<Item>, RowProblem> {
        Ok(Vec::new())
    }

    fn load(&self, files: &[PathBuf], limit: Option<usize>) -> Result<(Vec<Item>, LoadReport)> {
        let (mut items, mut report) = (Vec::new(), LoadReport::default());
        let mut ids = HashSet::new();
        for file in files {
            let options = ReadOptions { on_error: OnError::Skip, ..ReadOptions::default() };
            let damaged = |e: patarm_text::ReadError| Error::bad_input(e.to_string());
            let mut reader = ComparisonReader::open(file, &options).map_err(damaged)?;
            while items.len() < limit.unwrap_or(usize::MAX) {
                let Some(comparison) = reader.next() else { break };
                add(comparison.map_err(damaged)?, &mut ids, (&mut items, &mut report));
            }
            report.num_rows += reader.num_rows() as usize;
            report.num_malformed += reader.skipped().count as usize;
            report.problems.extend(reader.skipped().examples.iter().map(ToString::to_string));
        }
        if items.is_empty() {
            let example = report.problems.first().map_or(String::new(), |p| format!(" ({p})"));
            return Err(Error::bad_input(format!("no comparison prefers a side{example}")));
        }
        Ok((items, report))
    }

    fn files(&self, set: &Set<'_>, about: &About<'_>) -> Vec<OfficialFile> {
        legacy_files(set, about).unwrap_or_default()
    }
}

fn add(
    comparison: Comparison,
    ids: &mut HashSet<String>,
    (items, report): (&mut Vec<Item>, &mut LoadReport),
) {
    let reason = match comparison.label {
        Preference::First | Preference::Second => None,
        Preference::Tie => Some(TIE_LABELS),
        Preference::Unknown => Some(UNLABELLED),
    };
    if let Some(reason) = reason {
        *report.skipped.entry(reason.to_owned()).or_default() += 1;
    } else if ids.insert(comparison.id.clone()) {
        let mut item = item(comparison);
        item.count_lengths();
        items.push(item);
    } else {
        report.num_duplicates += 1;
        let problem = format!("a second comparison with id {:?}", comparison.id);
        report.problems.push(problem);
    }
}

fn item(comparison: Comparison) -> Item {
    let Comparison { id, first, second, label, task, subset, .. } = comparison;
    let own_prompts = match first.prompt == second.prompt {
        true => Vec::new(),
        false => vec![first.prompt.clone(), second.prompt],
    };
    let prompt = match (label, own_prompts.get(1)) {
        (Preference::Second, Some(second)) => second.clone(),
        _ => first.prompt,
    };
    Item {
        id,
        subset: subset.unwrap_or_default(),
        prompt,
        responses: vec![first.response, second.response],
        own_prompts,
        label: Label::Preference(label),
        task,
        ..Item::default()
    }
}

/// `result.json` and `scores.jsonl`.
fn legacy_files(set: &Set<'_>, about: &About<'_>) -> Option<Vec<OfficialFile>> {
    let records: Vec<PairRecord> = (0..set.items.len()).map(|index| record(set, index)).collect();
    let skipped = |reason: &str| about.loaded.skipped.get(reason).copied().unwrap_or(0);
    let skipped = Skipped { tie_labels: skipped(TIE_LABELS), unlabelled: skipped(UNLABELLED) };
    let num_comparisons = records.len() + skipped.tie_labels + skipped.unlabelled;
    let options = PairsOptions {
        resampling: about.run.resampling,
        readout: Readout::Value,
        settings: about.run.settings.clone(),
    };
    let count = |name: &str| about.answers.report.counts.get(name).map_or(0, |n| *n as usize);
    let known = Known {
        model: about.model,
        judgements: judgement_faults(about),
        orders: OrderSummary::of(set.answered.iter().flat_map(|a| match &a.answer {
            Answer::Verdicts(verdicts) => verdicts.values().collect::<Vec<_>>(),
            Answer::Scores(_) => Vec::new(),
        })),
        num_unused_rows: count("score_items_unused"),
    };
    let evaluated = assemble((num_comparisons, skipped), records, &options, known);
    let mut lines = String::new();
    for record in &evaluated.records {
        lines.push_str(&serde_json::to_string(record).ok()?);
        lines.push('\n');
    }
    let result = serde_json::to_string_pretty(&evaluated.result).ok()?;
    Some(vec![
        OfficialFile { path: store::RECORDS_FILE.to_owned(), text: lines },
        OfficialFile { path: store::RESULT_FILE.to_owned(), text: result + "\n" },
    ])
}

/// Format faults of judgements as they were counted while asking.
fn judgement_faults(about: &About<'_>) -> Option<JudgementFaults> {
    let counts = &about.answers.report.counts;
    let kind = |(name, count): (&String, &u64)| {
        Some((name.strip_prefix("judgement_fault.")?.to_owned(), *count as usize))
    };
    Some(JudgementFaults {
        num_judgements: *counts.get("judgements")? as usize,
        num_faults: counts.get("judgement_faults").map_or(0, |count| *count as usize),
        by_kind: counts.iter().filter_map(kind).collect::<BTreeMap<_, _>>(),
    })
}

fn record(set: &Set<'_>, index: usize) -> PairRecord {
    let (item, answered) = (&set.items[index], &set.answered[index]);
    let (right, wrong) = item.labelled_pairs().first().copied().unwrap_or((0, 1));
    let score = |side: usize| answered.answer.scores()?.get(side).copied().flatten();
    PairRecord {
        id: item.id.clone(),
        cluster: set.clusters[index],
        subset: (!item.subset.is_empty()).then(|| item.subset.clone()),
        task: item.task,
        chosen_index: right as u8,
        chosen_length: item.length(right),
        rejected_length: item.length(wrong),
        chosen_score: score(right),
        rejected_score: score(wrong),
        fault: answered.faults.first().cloned(),
        outcome: answered.answer.outcome(right, wrong),
    }
}
