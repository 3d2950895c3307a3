//! PRMBench, ProcessBench and BIG-Bench-Mistake in the registry: read, ask, choose or
//! take the threshold, measure, and measure what needs no model on the same solutions.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    Error, Result,
    benchmark::{
        Asks, Benchmark, Evaluation, Info, ItemRecord, Run, Subject,
        load::data_files,
        summary::{Metrics, SCHEMA_VERSION, Summary},
    },
    distribution::{Bins, Histogram},
    metrics::Outcome,
    random,
    steps::{
        Answered, StepAnswer, StepFault, StepItem, StepTruth,
        answers::AnswerTable,
        data::{StepBenchmark, StepData, read},
        first_error, is_right,
        models::{FirstErrorJudge, FirstErrorOptions, StepAnswers, ask_prefixes, ask_step_values},
        prmbench,
        threshold::{Applied, ThresholdRule, apply},
    },
};

/// A step benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Steps(pub StepBenchmark);

const PRM_BENCH: Info = Info {
    name: "prmbench",
    about: "PRMBench: every step of solutions with planted errors of eight classes.",
    data: "folder or files of `idx`, `classification`, `modified_question`, `modified_process`, `error_steps`",
    hub: None,
    asks: Asks::Steps,
    metrics: &[
        (
            "prmscore",
            "mean of f1 and negative_f1 over all steps; `present.prmscore` where solutions are missing",
        ),
        ("f1", "F1 of right steps"),
        ("negative_f1", "F1 of wrong steps"),
        ("<name>_without_faults", "the three above without solutions that have no usable answer"),
        (
            "step_accuracy",
            "share of steps called as they are labelled; also right_ and wrong_step_accuracy",
        ),
        ("first_error_accuracy", "share of first wrong steps called wrong"),
        ("category.<category>", "mean of the classes' scores: simplicity, soundness, sensitivity"),
        ("class.<class>", "PRMScore of one class; f1 for multi_solutions"),
        ("step_auc", "probability that a right step scores above a wrong one; needs no threshold"),
        ("prmscore_without_out_of_range", "without solutions that label steps they do not have"),
    ],
    files: &[],
    headline: &["prmscore", "present.prmscore", "f1", "negative_f1", "step_auc"],
};

const PROCESS_BENCH: Info = Info {
    name: "processbench",
    about: "ProcessBench: the first wrong step of solutions to mathematics problems.",
    data: "folder or files of `id`, `problem`, `steps`, `label` (first wrong step from 0, −1 for none)",
    hub: Some("Qwen/ProcessBench"),
    asks: Asks::Steps,
    metrics: FIRST_ERROR_METRICS,
    files: &[],
    headline: &["mean_subset_f1", "present.mean_subset_f1", "f1", "present.f1"],
};

const BIG_BENCH_MISTAKE: Info = Info {
    name: "bigbench-mistake",
    about: "BIG-Bench-Mistake: the first mistake in chains of thought on five tasks.",
    data: "folder or files, named by task, of `input`, `steps`, `mistake_index` (from 0, null for none)",
    hub: None,
    asks: Asks::Steps,
    metrics: FIRST_ERROR_METRICS,
    files: &[],
    headline: &["accuracy", "present.accuracy", "f1", "present.f1"],
};

const FIRST_ERROR_METRICS: &[(&str, &str)] = &[
    (
        "f1",
        "harmonic mean of error_accuracy and correct_accuracy; `present.f1` where solutions are missing",
    ),
    ("mean_subset_f1", "plain mean of the subsets' f1, ProcessBench's headline"),
    ("error_accuracy", "share of solutions with a mistake whose first wrong step is named"),
    ("correct_accuracy", "share of solutions without a mistake of which none is named"),
    ("accuracy", "share of all solutions with the right answer"),
    ("<name>_without_faults", "f1 and accuracy without solutions that have no usable answer"),
    ("subset.<subset>.<name>", "the same for one subset"),
];

/// Figures over everything, which must not be taken for official ones where solutions
/// are missing or were kept back: they are then named `present.<name>`.
const OVERALL: &[&str] = &[
    "prmscore",
    "f1",
    "negative_f1",
    "mean_subset_f1",
    "accuracy",
    "error_accuracy",
    "correct_accuracy",
];

/// The score of a step of a solution.
type StepScore<'a> = dyn Fn(&StepItem, usize) -> f64 + 'a;

/// Most problems that are kept word for word.
const MAX_PROBLEMS: usize = 20;

impl Benchmark for Steps {
    fn info(&self) -> &'static Info {
        match self.0 {
            StepBenchmark::PrmBench => &PRM_BENCH,
            StepBenchmark::ProcessBench => &PROCESS_BENCH,
            StepBenchmark::BigBenchMistake => &BIG_BENCH_MISTAKE,
        }
    }

    fn evaluate(&self, subject: &Subject<'_>, run: &Run<'_>) -> Result<Evaluation> {
        let rule = ThresholdRule::parse(run.threshold.unwrap_or("0.5"), run.resampling.seed)?;
        let data = read(self.0, &data_files(run.data)?, run.limit)?;
        let asked = self.ask(&data.items, subject, run)?;
        let answered = self.checked(&data.items, asked.answers.clone())?;
        let objective = match self.0 {
            StepBenchmark::PrmBench => prmbench::objective,
            _ => first_error::objective,
        };
        let applied = apply(&rule, answered, objective)?;
        Ok(self.evaluation((&data, &asked), &applied, &rule, (subject, run)))
    }
}

impl Steps {
    fn ask(&self, items: &[StepItem], subject: &Subject<'_>, run: &Run<'_>) -> Result<StepAnswers> {
        match subject {
            Subject::File(path) => {
                let table = AnswerTable::read(path)?;
                let mut asked = StepAnswers::default();
                asked.report.count("answer_rows_unreadable", table.num_unreadable());
                asked.report.count("answer_rows_repeated", table.num_repeated());
                asked.report.count("answer_items_unused", table.num_unused(items));
                asked.report.problems = table.examples().to_vec();
                asked.answers = table.answered(items).into_iter().map(|a| a.answer).collect();
                Ok(asked)
            }
            Subject::Completer(completer) if self.0 != StepBenchmark::PrmBench => {
                let options = FirstErrorOptions {
                    votes: 1,
                    temperature: 0.0,
                    max_tokens: 1024,
                    seed: run.resampling.seed,
                };
                let judge = FirstErrorJudge { completer: *completer, options };
                Ok(StepAnswers { answers: judge.judge(items), ..StepAnswers::default() })
            }
            Subject::Reward(model) => match ask_step_values(items, *model, run.observer)? {
                Some(asked) => Ok(asked),
                None => ask_prefixes(items, subject, run.observer),
            },
            Subject::Pointwise(_) => ask_prefixes(items, subject, run.observer),
            Subject::Completer(_) | Subject::Pairwise(_) => Err(Error::bad_input(format!(
                "{} gives no number for a step; name a reward model or a pointwise judge",
                subject.kind()
            ))),
        }
    }

    fn checked<'a>(
        &self,
        items: &'a [StepItem],
        answers: Vec<Result<StepAnswer, StepFault>>,
    ) -> Result<Vec<Answered<'a>>> {
        if answers.len() != items.len() {
            let message = format!("{} answers to {} solutions", answers.len(), items.len());
            return Err(Error::bad_input(message));
        }
        let needs_scores = self.0 == StepBenchmark::PrmBench;
        let check = |(item, answer): (&'a StepItem, Result<StepAnswer, StepFault>)| {
            let answer = answer.and_then(|answer| answer.checked(item.steps.len()));
            let answer = match answer {
                Ok(StepAnswer::FirstWrong(_)) if needs_scores => Err(StepFault::NeedsScores),
                other => other,
            };
            Answered { item, answer }
        };
        Ok(items.iter().zip(answers).map(check).collect())
    }

    fn evaluation(
        &self,
        (data, asked): (&StepData, &StepAnswers),
        applied: &Applied<'_>,
        rule: &ThresholdRule,
        (subject, run): (&Subject<'_>, &Run<'_>),
    ) -> Evaluation {
        let mut missing = self.0.missing(&data.items);
        if applied.num_tuning_items > 0 {
            let kept_back = applied.num_tuning_items;
            missing.push(format!("{kept_back} solutions that chose the threshold"));
        }
        let named = |metrics: Metrics| match missing.is_empty() {
            true => metrics,
            false => metrics.into_iter().map(|(name, m)| (present(name), m)).collect(),
        };
        let mut settings = run.settings.clone();
        settings.insert("threshold".to_owned(), json!(applied.threshold));
        settings.insert("threshold_rule".to_owned(), json!(rule));
        let (metrics, baselines) = (self.metrics(applied, data, run), self.baselines(applied, run));
        let summary = Summary {
            schema_version: SCHEMA_VERSION,
            benchmark: self.info().name.to_owned(),
            model: subject.name(),
            settings,
            metrics: named(metrics),
            counts: counts(data, asked, applied),
            problems: problems(data, asked, applied),
            baselines: baselines.into_iter().map(|(name, m)| (name, named(m))).collect(),
            missing,
            calibration: None,
            details: histograms(&applied.measured),
        };
        let record = |answered| self.record(answered, applied.threshold);
        let items = applied.measured.iter().map(record).collect();
        Evaluation { summary, items, judgements: Vec::new(), files: Vec::new() }
    }

    fn metrics(&self, applied: &Applied<'_>, data: &StepData, run: &Run<'_>) -> Metrics {
        let Applied { threshold, measured, .. } = applied;
        if self.0 != StepBenchmark::PrmBench {
            return first_error::measure(measured, *threshold, run.resampling);
        }
        let mut metrics = prmbench::measure(measured, *threshold, run.resampling);
        let in_range = |a: &&Answered<'_>| !data.out_of_range.contains(&a.item.id);
        let in_range: Vec<Answered<'_>> = measured.iter().filter(in_range).cloned().collect();
        if in_range.len() < measured.len() {
            let again = prmbench::measure(&in_range, *threshold, run.resampling);
            let score = again.get("prmscore").copied();
            metrics.extend(score.map(|m| ("prmscore_without_out_of_range".to_owned(), m)));
        }
        metrics
    }

    /// Judges that need no model: every step right, every step wrong, a coin a step.
    fn baselines(&self, applied: &Applied<'_>, run: &Run<'_>) -> BTreeMap<String, Metrics> {
        let coin = |item: &StepItem, step: usize| {
            let stream = random::draw(run.resampling.seed, random::text_number(&item.id));
            f64::from(u8::from(random::draw(stream, step as u64) & 1 == 1))
        };
        let judges: [(&str, &StepScore<'_>); 3] =
            [("all_right", &|_, _| 1.0), ("all_wrong", &|_, _| 0.0), ("coin", &coin)];
        let measured = |score: &StepScore<'_>| {
            let answer = |answered: &Answered<'_>| {
                let steps = 0..answered.item.steps.len();
                steps.map(|step| score(answered.item, step)).collect::<Vec<f64>>()
            };
            let answered: Vec<Answered<'_>> = applied
                .measured
                .iter()
                .map(|a| Answered { item: a.item, answer: Ok(StepAnswer::Scores(answer(a))) })
                .collect();
            match self.0 {
                StepBenchmark::PrmBench => prmbench::measure(&answered, 0.5, run.resampling),
                _ => first_error::measure(&answered, 0.5, run.resampling),
            }
        };
        judges.into_iter().map(|(name, score)| (name.to_owned(), measured(score))).collect()
    }

    /// A solution's credit is the share of steps called as they are labelled, or whether
    /// the first mistake is named.
    fn record(&self, answered: &Answered<'_>, threshold: f64) -> ItemRecord {
        let Answered { item, answer } = answered;
        let outcome = first_error::outcome(answered, threshold);
        let scores: Vec<Option<f64>> = match answer {
            Ok(StepAnswer::Scores(scores)) => scores.iter().copied().map(Some).collect(),
            _ => Vec::new(),
        };
        let (strict, half_credit) = match &item.truth {
            StepTruth::EveryStep(labels) => {
                let hits = labels.iter().zip(&scores).filter(|(label, score)| {
                    score.is_some_and(|score| is_right(score, threshold) == **label)
                });
                let share = hits.count() as f64 / labels.len().max(1) as f64;
                (share, if outcome == Outcome::Fault { 0.5 } else { share })
            }
            StepTruth::FirstWrong(_) => (outcome.strict_credit(), outcome.half_credit()),
        };
        // −1 stands for "none", null for no answer.
        let place = |first: Option<usize>| first.map_or(-1, |step| step as i64);
        let predicted = answer.as_ref().ok().map(|answer| place(answer.first_wrong(threshold)));
        ItemRecord {
            id: item.id.clone(),
            subset: Some(item.subset.clone()),
            cluster: item.cluster,
            outcome,
            strict,
            half_credit,
            lengths: item.steps.iter().map(|step| step.chars().count()).collect(),
            scores,
            verdicts: Vec::new(),
            right: match &item.truth {
                StepTruth::EveryStep(labels) => {
                    (0..labels.len()).filter(|&step| labels[step]).collect()
                }
                StepTruth::FirstWrong(_) => Vec::new(),
            },
            faults: answer.as_ref().err().map(ToString::to_string).into_iter().collect(),
            details: BTreeMap::from([
                ("first_wrong".to_owned(), json!(place(item.truth.first_wrong()))),
                ("predicted_first_wrong".to_owned(), json!(predicted)),
            ]),
        }
    }
}

fn present(name: String) -> String {
    let bare = name.strip_suffix("_without_faults").unwrap_or(&name);
    if OVERALL.contains(&bare) { format!("present.{name}") } else { name }
}

fn counts(data: &StepData, asked: &StepAnswers, applied: &Applied<'_>) -> BTreeMap<String, u64> {
    let mut counts = asked.report.counts.clone();
    let steps: usize = applied.measured.iter().map(|a| a.item.steps.len()).sum();
    for (name, count) in [
        ("items", applied.measured.len()),
        ("items_for_threshold", applied.num_tuning_items),
        ("items_duplicate", data.report.num_duplicates),
        ("items_out_of_range_label", data.out_of_range.len()),
        ("steps", steps),
        ("rows", data.report.num_rows),
        ("rows_malformed", data.report.num_malformed),
    ] {
        counts.insert(name.to_owned(), count as u64);
    }
    for fault in applied.measured.iter().filter_map(|a| a.answer.as_ref().err()) {
        *counts.entry("items_with_fault".to_owned()).or_default() += 1;
        *counts.entry(format!("item_fault.{}", fault.kind())).or_default() += 1;
    }
    counts
}

fn problems(data: &StepData, asked: &StepAnswers, applied: &Applied<'_>) -> Vec<String> {
    let faults = applied.measured.iter().filter_map(|answered| {
        let fault = answered.answer.as_ref().err()?;
        Some(format!("item {:?}: {fault}", answered.item.id))
    });
    let told = data.report.problems.iter().chain(&asked.report.problems).cloned();
    told.chain(faults).take(MAX_PROBLEMS).collect()
}

/// Histograms of the scores of right and of wrong steps, as far as they are labelled.
fn histograms(measured: &[Answered<'_>]) -> BTreeMap<String, Value> {
    let (mut right, mut wrong) = (Vec::new(), Vec::new());
    for answered in measured {
        let Ok(StepAnswer::Scores(scores)) = &answered.answer else { continue };
        match &answered.item.truth {
            StepTruth::EveryStep(labels) => {
                for (label, score) in labels.iter().zip(scores) {
                    if *label { right.push(*score) } else { wrong.push(*score) }
                }
            }
            StepTruth::FirstWrong(first) => {
                right.extend(&scores[..first.unwrap_or(scores.len())]);
                wrong.extend(first.map(|first| scores[first]));
            }
        }
    }
    let both: Vec<f64> = right.iter().chain(&wrong).copied().collect();
    if both.is_empty() {
        return BTreeMap::new();
    }
    let bins = Bins::fitting(&both);
    BTreeMap::from([
        ("histogram.right".to_owned(), json!(Histogram::over(&right, bins))),
        ("histogram.wrong".to_owned(), json!(Histogram::over(&wrong, bins))),
    ])
}
