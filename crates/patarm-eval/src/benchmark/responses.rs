//! The course of every benchmark that sets responses against each other: read, ask,
//! measure, and measure what needs no model on the same items.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
};

use patarm_reward::embedded::ReadOut;
use patarm_reward::voting::{VoteCombine, vote};
use serde_json::{Value, json};

use super::{
    Benchmark, Evaluation, Info, ItemRecord, OfficialFile, Run, Subject,
    accuracy::pair_accuracy,
    answers::{Answer, Answered, Answers, ask, from_file},
    bias::biases,
    item::{Item, Label},
    load::{LoadReport, Row, RowProblem, data_files, load_items},
    summary::{JudgementRecord, Metric, Metrics, SCHEMA_VERSION, Summary, VerdictRecord},
};
use crate::{
    Result,
    calibration::{Calibration, calibrate},
    distribution::{Bins, Histogram},
    interval::Resampling,
    metrics::Outcome,
    random,
    scores::Shown,
};

/// A benchmark that sets responses against each other.
pub trait ResponseBenchmark: Sync {
    /// Name, data, figures and files.
    fn info(&self) -> &'static Info;

    /// The items of a row; none for a row of another benchmark's.
    ///
    /// # Errors
    /// What is wrong with the row.
    fn read(&self, row: &Row<'_>) -> Result<Vec<Item>, RowProblem>;

    /// All items, at most `limit`.
    ///
    /// # Errors
    /// As [`load_items`].
    fn load(&self, files: &[PathBuf], limit: Option<usize>) -> Result<(Vec<Item>, LoadReport)> {
        load_items(files, limit, &|row| self.read(row))
    }

    /// The pairs of responses a pairwise judge is asked about.
    fn plan(&self, item: &Item) -> Vec<(usize, usize)> {
        match item.label {
            Label::Correct(_) => item.labelled_pairs(),
            Label::Preference(_) => vec![(0, 1)],
        }
    }

    /// Answers of a model that writes, where the benchmark has a protocol for it.
    fn ask_completer(
        &self,
        _items: &[Item],
        _asked: (&Subject<'_>, &Run<'_>),
    ) -> Option<Result<Answers>> {
        None
    }

    /// Parts of the benchmark that the items lack, or have in part only.
    fn missing(&self, _items: &[Item]) -> Vec<String> {
        Vec::new()
    }

    /// The benchmark's figures, a pure function of items and answers.
    fn measure(&self, set: &Set<'_>, resampling: Resampling) -> Metrics {
        pair_accuracy(set, resampling)
    }

    /// The credit of one item.
    fn credit(&self, item: &Item, answered: &Answered) -> Credit {
        Credit::of_pairs(item, &answered.answer)
    }

    /// The benchmark's own files.
    fn files(&self, _set: &Set<'_>, _about: &About<'_>) -> Vec<OfficialFile> {
        Vec::new()
    }

    /// Structured results that are no single figure.
    fn details(&self, _set: &Set<'_>) -> BTreeMap<String, Value> {
        BTreeMap::new()
    }
}

/// What a benchmark's own files may say beside its items.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The benchmark's figures.
    pub metrics: &'a Metrics,
    /// The model's name.
    pub model: &'a str,
    /// What the caller decided.
    pub run: &'a Run<'a>,
    /// What happened while reading.
    pub loaded: &'a LoadReport,
    /// Answers and what was counted while asking.
    pub answers: &'a Answers,
}

/// Items with their answers.
#[derive(Clone, Copy, Debug)]
pub struct Set<'a> {
    /// The items.
    pub items: &'a [Item],
    /// The answer to each.
    pub answered: &'a [Answered],
    /// The number of each item's prompt.
    pub clusters: &'a [usize],
}

/// A right response against a wrong one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Index of the item.
    pub item: usize,
    /// Number of its prompt.
    pub cluster: usize,
    /// Index of the right response.
    pub right: usize,
    /// Index of the wrong response.
    pub wrong: usize,
    /// How they came out.
    pub outcome: Outcome,
}

impl Set<'_> {
    /// Every right response against every wrong one.
    #[must_use]
    pub fn pairs(&self) -> Vec<Pair> {
        let of_item = |(index, (item, answered)): (usize, (&Item, &Answered))| {
            let cluster = self.clusters[index];
            let pairs = item.labelled_pairs().into_iter().map(move |(right, wrong)| {
                let outcome = answered.answer.outcome(right, wrong);
                Pair { item: index, cluster, right, wrong, outcome }
            });
            pairs.collect::<Vec<_>>()
        };
        self.items.iter().zip(self.answered).enumerate().flat_map(of_item).collect()
    }
}

/// What an item earns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Credit {
    /// How it came out as a whole.
    pub outcome: Outcome,
    /// Credit with ties and faults at 0.
    pub strict: f64,
    /// Credit with ties and faults at one half.
    pub half_credit: f64,
}

impl Credit {
    /// The credit of a single outcome.
    #[must_use]
    pub fn of(outcome: Outcome) -> Self {
        Self { outcome, strict: outcome.strict_credit(), half_credit: outcome.half_credit() }
    }

    /// The mean credit over all labelled pairs of an item, which is right when all of
    /// them are, a fault when one is, and wrong when one is.
    #[must_use]
    pub fn of_pairs(item: &Item, answer: &Answer) -> Self {
        let pairs = item.labelled_pairs();
        let outcomes: Vec<Outcome> =
            pairs.iter().map(|&(right, wrong)| answer.outcome(right, wrong)).collect();
        let worst = [Outcome::Fault, Outcome::Wrong, Outcome::Tie];
        let outcome = worst.into_iter().find(|outcome| outcomes.contains(outcome));
        let mean = |credit: fn(Outcome) -> f64| {
            let sum: f64 = outcomes.iter().map(|outcome| credit(*outcome)).sum();
            if outcomes.is_empty() { 0.5 } else { sum / outcomes.len() as f64 }
        };
        Self {
            outcome: outcome.unwrap_or(if pairs.is_empty() {
                Outcome::Tie
            } else {
                Outcome::Right
            }),
            strict: mean(Outcome::strict_credit),
            half_credit: mean(Outcome::half_credit),
        }
    }
}

/// A response benchmark as the registry holds it.
pub struct Responses<T>(pub T);

impl<T: ResponseBenchmark> Benchmark for Responses<T> {
    fn info(&self) -> &'static Info {
        self.0.info()
    }

    fn evaluate(&self, subject: &Subject<'_>, run: &Run<'_>) -> Result<Evaluation> {
        let benchmark = &self.0;
        let files = data_files(run.data)?;
        let (items, loaded) = benchmark.load(&files, run.limit)?;
        let written = match subject {
            Subject::Completer(_) => benchmark.ask_completer(&items, (subject, run)),
            _ => None,
        };
        let answers = match written {
            Some(answers) => answers?,
            None => ask(&items, &|item| benchmark.plan(item), subject, run.observer)?,
        };
        evaluate(benchmark, &items, (loaded, answers), (subject, run))
    }
}

/// Measures answers and everything around them.
///
/// # Errors
/// When the base model's scores cannot be read.
pub fn evaluate(
    benchmark: &dyn ResponseBenchmark,
    items: &[Item],
    (loaded, answers): (LoadReport, Answers),
    (subject, run): (&Subject<'_>, &Run<'_>),
) -> Result<Evaluation> {
    let clusters = clusters(items);
    let set = Set { items, answered: &answers.answered, clusters: &clusters };
    let mut metrics = benchmark.measure(&set, run.resampling);
    let model = subject.name();
    let about = About { metrics: &metrics, model: &model, run, loaded: &loaded, answers: &answers };
    let official = benchmark.files(&set, &about);
    metrics.extend(biases(&set, run.resampling));
    metrics.extend(voting(benchmark, &set, run.resampling));
    let mut details = benchmark.details(&set);
    details.extend(histograms(&set));
    let summary = Summary {
        schema_version: SCHEMA_VERSION,
        benchmark: benchmark.info().name.to_owned(),
        model,
        settings: run.settings.clone(),
        metrics,
        counts: counts(items, &loaded, &answers),
        problems: loaded.problems.iter().chain(&answers.report.problems).cloned().collect(),
        missing: benchmark.missing(items),
        baselines: baselines(benchmark, &set, run)?,
        calibration: calibration(&set),
        details,
    };
    let record = |index: usize| item_record(benchmark, &set, index);
    Ok(Evaluation {
        summary,
        items: (0..items.len()).map(record).collect(),
        judgements: judgements(&set),
        files: official,
    })
}

/// The number of every item's prompt, by its group or its text.
#[must_use]
pub fn clusters(items: &[Item]) -> Vec<usize> {
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let number = |item: &Item| {
        let key = match item.group.as_str() {
            "" => item.prompt.transcript(),
            group => format!("\u{0}{group}"),
        };
        let next = numbers.len();
        *numbers.entry(key).or_insert(next)
    };
    items.iter().map(number).collect()
}

fn counts(items: &[Item], loaded: &LoadReport, answers: &Answers) -> BTreeMap<String, u64> {
    let mut counts = answers.report.counts.clone();
    let responses: usize = items.iter().map(|item| item.responses.len()).sum();
    let faulty = answers.answered.iter().filter(|answered| !answered.faults.is_empty()).count();
    for (name, count) in [
        ("items", items.len()),
        ("responses", responses),
        ("items_with_fault", faulty),
        ("rows", loaded.num_rows),
        ("rows_malformed", loaded.num_malformed),
        ("items_duplicate", loaded.num_duplicates),
        ("items_missing_response", loaded.num_missing_responses),
    ] {
        counts.insert(name.to_owned(), count as u64);
    }
    for (reason, count) in &loaded.skipped {
        counts.insert(format!("items_skipped.{reason}"), *count as u64);
    }
    counts
}

/// Random judges whose figures are averaged, within these bounds; as many as keep the
/// work small.
const RANDOM_JUDGES: (usize, usize) = (20, 200);

/// The same figures for judges that need no model.
fn baselines(
    benchmark: &dyn ResponseBenchmark,
    set: &Set<'_>,
    run: &Run<'_>,
) -> Result<BTreeMap<String, Metrics>> {
    let measured = |answered: &[Answered], resampling: Resampling| {
        benchmark.measure(&Set { answered, ..*set }, resampling)
    };
    let longer: Vec<Answered> = set
        .items
        .iter()
        .map(|item| Answered::of_scores((0..item.responses.len()).map(|i| item.length(i) as f64)))
        .collect();
    let mut baselines = BTreeMap::from([
        ("longer_wins".to_owned(), measured(&longer, run.resampling)),
        ("random".to_owned(), random_judges(set, run.resampling.seed, &measured)),
    ]);
    if let Some(path) = run.base_scores {
        let base = from_file(set.items, path)?;
        baselines.insert("base".to_owned(), measured(&base.answered, run.resampling));
    }
    Ok(baselines)
}

/// The mean figures of judges that draw every score, with the range that holds 95 % of
/// them.
fn random_judges(
    set: &Set<'_>,
    seed: u64,
    measured: &dyn Fn(&[Answered], Resampling) -> Metrics,
) -> Metrics {
    let responses: usize = set.items.iter().map(|item| item.responses.len()).sum();
    let judges = (2_000_000 / responses.max(1)).clamp(RANDOM_JUDGES.0, RANDOM_JUDGES.1);
    let mut values: BTreeMap<String, (Vec<f64>, usize)> = BTreeMap::new();
    for judge in 0..judges as u64 {
        let stream = random::draw(seed, judge);
        let mut counter = 0;
        let mut draw = || {
            counter += 1;
            random::draw(stream, counter) as f64
        };
        let scores = |item: &Item| Answered::of_scores(item.responses.iter().map(|_| draw()));
        let answered: Vec<Answered> = set.items.iter().map(scores).collect();
        for (name, metric) in measured(&answered, Resampling { resamples: 0, seed }) {
            let entry = values.entry(name).or_default();
            entry.0.extend(metric.value);
            entry.1 = metric.n;
        }
    }
    let metric = |(name, (mut values, n)): (String, (Vec<f64>, usize))| {
        values.sort_by(f64::total_cmp);
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        let quantile = |q| crate::interval::quantile(&values, q);
        let ci95 = quantile(0.025).zip(quantile(0.975)).map(|(low, high)| [low, high]);
        (name, Metric { value: (!values.is_empty()).then_some(mean), ci95, n })
    };
    values.into_iter().map(metric).collect()
}

/// Numbers of votes that a run with more of them is read at.
const VOTES: [usize; 5] = [1, 2, 4, 8, 16];

/// The headline figures of a generative judge by readout and number of votes, all from
/// the same judgements: `voting.<readout>.<k>.<figure>`.
fn voting(benchmark: &dyn ResponseBenchmark, set: &Set<'_>, resampling: Resampling) -> Metrics {
    let votes = set.answered.iter().flat_map(|a| &a.judgements).map(Vec::len).max().unwrap_or(0);
    let has_expected = set
        .answered
        .iter()
        .flat_map(|answered| answered.judgements.iter().flatten())
        .any(|judgement| judgement.expected_score.is_some());
    let mut metrics = Metrics::new();
    for (readout, name) in [(ReadOut::Sampled, "sampled"), (ReadOut::Expected, "expected")] {
        if votes == 0 || readout == ReadOut::Expected && !has_expected {
            continue;
        }
        for k in VOTES.into_iter().filter(|k| *k <= votes) {
            let answered: Vec<Answered> =
                set.answered.iter().map(|answered| first_votes(answered, k, readout)).collect();
            let measured = benchmark.measure(&Set { answered: &answered, ..*set }, resampling);
            let headline = benchmark.info().headline;
            for (figure, metric) in measured {
                if headline.contains(&figure.as_str()) {
                    metrics.insert(format!("voting.{name}.{k}.{figure}"), metric);
                }
            }
        }
    }
    metrics
}

/// The scores of the first `k` judgements.
fn first_votes(answered: &Answered, k: usize, readout: ReadOut) -> Answered {
    let score = |judgements: &Vec<patarm_reward::judgement::Judgement>| {
        let first = &judgements[..k.min(judgements.len())];
        vote(first, readout, VoteCombine::Mean).map(|vote| vote.value)
    };
    Answered::bare(Answer::Scores(answered.judgements.iter().map(score).collect()))
}

/// Calibration over all labelled pairs with both scores.
fn calibration(set: &Set<'_>) -> Option<Calibration> {
    let margins: Vec<(usize, f64)> =
        set.pairs().iter().filter_map(|pair| Some((pair.cluster, margin(set, pair)?))).collect();
    calibrate(&margins)
}

fn margin(set: &Set<'_>, pair: &Pair) -> Option<f64> {
    let scores = set.answered[pair.item].answer.scores()?;
    let score = |index: usize| scores.get(index).copied().flatten();
    Some(score(pair.right)? - score(pair.wrong)?).filter(|margin| margin.is_finite())
}

/// Histograms of scores by label and of margins.
fn histograms(set: &Set<'_>) -> BTreeMap<String, Value> {
    let (mut right, mut wrong) = (Vec::new(), Vec::new());
    for (item, answered) in set.items.iter().zip(set.answered) {
        let Some(scores) = answered.answer.scores() else { continue };
        let known = |indices: Vec<usize>| {
            indices.into_iter().filter_map(|i| scores.get(i).copied().flatten()).collect::<Vec<_>>()
        };
        right.extend(known(item.right()));
        wrong.extend(known(item.wrong()));
    }
    if right.is_empty() && wrong.is_empty() {
        return BTreeMap::new();
    }
    let margins: Vec<f64> = set.pairs().iter().filter_map(|pair| margin(set, pair)).collect();
    let both: Vec<f64> = right.iter().chain(&wrong).copied().collect();
    let bins = Bins::fitting(&both);
    BTreeMap::from([
        ("histogram.right".to_owned(), json!(Histogram::over(&right, bins))),
        ("histogram.wrong".to_owned(), json!(Histogram::over(&wrong, bins))),
        ("histogram.margin".to_owned(), json!(Histogram::over(&margins, Bins::fitting(&margins)))),
    ])
}

fn item_record(benchmark: &dyn ResponseBenchmark, set: &Set<'_>, index: usize) -> ItemRecord {
    let (item, answered) = (&set.items[index], &set.answered[index]);
    let credit = benchmark.credit(item, answered);
    let (mut scores, mut verdicts) = (Vec::new(), Vec::new());
    match &answered.answer {
        Answer::Scores(known) => scores.clone_from(known),
        Answer::Verdicts(known) => {
            for (&(low, high), both) in known {
                let orders = [(low, high, both.straight), (high, low, both.swapped)];
                for (first, second, verdict) in orders {
                    if let Some(verdict) = verdict {
                        let verdict = verdict.map(|shown: Shown| shown.name().to_owned());
                        verdicts.push(VerdictRecord { first, second, verdict });
                    }
                }
            }
        }
    }
    ItemRecord {
        id: item.id.clone(),
        subset: (!item.subset.is_empty()).then(|| item.subset.clone()),
        cluster: set.clusters[index],
        outcome: credit.outcome,
        strict: credit.strict,
        half_credit: credit.half_credit,
        lengths: (0..item.responses.len()).map(|response| item.length(response)).collect(),
        scores,
        verdicts,
        right: item.right(),
        faults: answered.faults.clone(),
        details: BTreeMap::new(),
    }
}

fn judgements(set: &Set<'_>) -> Vec<JudgementRecord> {
    let mut records = Vec::new();
    for (item, answered) in set.items.iter().zip(set.answered) {
        for (response, judgements) in answered.judgements.iter().enumerate() {
            records.extend(judgements.iter().map(|j| JudgementRecord::of(&item.id, response, j)));
        }
        for pair in &answered.votes {
            records.extend(pair.votes.iter().map(|vote| JudgementRecord {
                item: item.id.clone(),
                response: pair.first,
                second: Some(pair.second),
                text: vote.text.clone(),
                score: None,
                expected_score: None,
                fault: vote.verdict.err().map(|fault| fault.name().to_owned()),
            }));
        }
    }
    records
}
