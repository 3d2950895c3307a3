//! Evaluations: headline, table, paired comparisons, distributions, subsets.

use super::{
    NamedComparison, NamedResult, ReportInput, Run,
    benchmarks::tiles as tiles_of_benchmarks,
    charts::{
        Labels, Legend, Series, Vertical, Whisker, histogram_chart, interval_chart, line_chart,
    },
    html::{escape, estimate, number, per_cent, table as html_table},
    load::{OUTCOME, REFERENCE},
};
use crate::{
    calibration::Calibration,
    compare::Difference,
    interval::Estimate,
    pairs::{PairsResult, ScoreStatistics},
};

/// Fewest pairs of a bin that the reliability chart shows; fewer say nothing.
const MIN_BIN: usize = 8;

/// Tiles with the last evaluation of each run beside its first.
pub(super) fn headline(input: &ReportInput) -> String {
    let tiles = input.runs.iter().filter_map(|run| tile(run, &input.runs));
    let tiles: String = tiles.chain([tiles_of_benchmarks(&input.benchmarks)]).collect();
    if tiles.is_empty() { tiles } else { format!("<div class=\"tiles\">{tiles}</div>") }
}

fn tile(run: &Run, runs: &[Run]) -> Option<String> {
    let named = |name: &str| run.evaluations.iter().find(|e| e.name == name);
    let last = named(OUTCOME).or(run.evaluations.last())?;
    let accuracy = &last.result.accuracy.half_credit;
    let first = named(REFERENCE).or(run.evaluations.first()).filter(|e| e.name != last.name);
    let before = first.map_or(String::new(), |first| {
        let value = number(first.result.accuracy.half_credit.value);
        format!("{}: {value} · ", escape(&first.name))
    });
    let interval = accuracy.interval.map_or(String::new(), |i| {
        format!("95 %: {} to {} · ", number(Some(i.low)), number(Some(i.high)))
    });
    Some(format!(
        "<div class=\"card tile\"><div class=\"what\">{}, pair accuracy, ties at ½</div>\
         <div class=\"figure\">{}</div><div class=\"more\">{before}{interval}{} pairs</div></div>",
        escape(&full_name(run, last, runs)),
        number(accuracy.value),
        accuracy.n,
    ))
}

/// Evaluation names, led by the run's where there are several runs.
fn full_name(run: &Run, evaluation: &NamedResult, runs: &[Run]) -> String {
    if runs.len() > 1 && run.name != evaluation.name {
        format!("{}: {}", run.name, evaluation.name)
    } else {
        evaluation.name.clone()
    }
}

/// Every evaluation with the name it is shown under.
fn evaluations(input: &ReportInput) -> Vec<(String, &PairsResult)> {
    let of_run = |run: &'_ Run| -> Vec<String> {
        run.evaluations.iter().map(|e| full_name(run, e, &input.runs)).collect()
    };
    input
        .runs
        .iter()
        .flat_map(|run| of_run(run).into_iter().zip(run.evaluations.iter().map(|e| &e.result)))
        .collect()
}

/// The table of all evaluations with its baselines, and their intervals drawn.
pub(super) fn table(input: &ReportInput) -> String {
    let all = evaluations(input);
    let mut rows: Vec<Vec<String>> = all.iter().map(|(name, result)| row(name, result)).collect();
    let mut whiskers: Vec<Whisker> = all
        .iter()
        .filter_map(|(name, result)| whisker(name, &result.accuracy.half_credit, 0))
        .collect();
    let Some(baselines) = all.iter().map(|(_, r)| &r.baselines).max_by_key(|b| b.random.n) else {
        return String::new();
    };
    let longer = &baselines.longer_wins;
    rows.push(vec![
        "longer wins".to_owned(),
        longer.num_pairs.to_string(),
        estimate(&longer.half_credit),
        estimate(&longer.strict),
        per_cent(longer.tie_share),
        per_cent(longer.fault_share),
        "–".to_owned(),
        "–".to_owned(),
        "–".to_owned(),
    ]);
    whiskers.extend(whisker("longer wins", &longer.half_credit, 7));
    whiskers.extend(whisker("coin (95 % of coins)", &baselines.random, 7));
    let headings = [
        "Evaluation",
        "#pairs",
        "#accuracy, ties ½",
        "#strict",
        "#ties",
        "#pair faults",
        "#judgement faults",
        "#mean margin",
        "#without faults, ties ½",
    ];
    format!(
        "<p class=\"hint\">Share of labelled pairs whose preferred response scores higher. Strict counts \
         ties and faults as 0, the other column as one half. Brackets hold 95 % intervals.</p>{}\
         <div style=\"height:12px\"></div>{}",
        html_table(&headings, &rows),
        interval_chart("Pair accuracy, ties at ½, with 95 % intervals", &whiskers)
    )
}

fn row(name: &str, result: &PairsResult) -> Vec<String> {
    let accuracy = &result.accuracy;
    vec![
        format!("{} <br><small>{}</small>", escape(name), escape(&result.model)),
        accuracy.num_pairs.to_string(),
        estimate(&accuracy.half_credit),
        estimate(&accuracy.strict),
        per_cent(accuracy.tie_share),
        per_cent(accuracy.fault_share),
        per_cent(result.judgements.as_ref().and_then(|j| j.share())),
        number(result.scores.as_ref().and_then(|s| s.margin.mean)),
        estimate(&accuracy.half_credit_without_faults),
    ]
}

fn whisker(name: &str, figure: &Estimate, colour: usize) -> Option<Whisker> {
    let (value, interval) = (figure.value?, figure.interval?);
    Some(Whisker { name: name.to_owned(), value, interval, colour })
}

/// Paired comparisons, overall and by subset.
pub(super) fn comparisons(comparisons: &[NamedComparison]) -> String {
    if comparisons.is_empty() {
        return String::new();
    }
    let mut rows = Vec::new();
    for NamedComparison { first, second, result } in comparisons {
        let name = format!("{} − {}", escape(second), escape(first));
        rows.push(difference_row(&name, &result.overall, None));
        for (subset, difference) in &result.subsets {
            let name = format!("<small>{}</small>", escape(subset));
            rows.push(difference_row(&name, &difference.difference, Some(difference.holm_p)));
        }
    }
    let headings = [
        "Difference on the same pairs",
        "#pairs",
        "#ties ½",
        "#strict",
        "#only first right",
        "#only second right",
        "#McNemar p",
        "#Holm p",
    ];
    html_table(&headings, &rows)
}

fn difference_row(name: &str, difference: &Difference, holm_p: Option<f64>) -> Vec<String> {
    vec![
        name.to_owned(),
        difference.num_pairs.to_string(),
        coloured(&difference.half_credit),
        coloured(&difference.strict),
        difference.num_only_first_right.to_string(),
        difference.num_only_second_right.to_string(),
        number(Some(difference.mcnemar_p)),
        number(holm_p),
    ]
}

/// Green or red where the whole interval lies on one side of 0.
fn coloured(figure: &Estimate) -> String {
    let class = match figure.interval {
        Some(i) if i.low > 0.0 => "good",
        Some(i) if i.high < 0.0 => "bad",
        _ => "",
    };
    format!("<span class=\"{class}\">{}</span>", estimate(figure))
}

/// Score, margin and reliability charts of every evaluation.
pub(super) fn distributions(input: &ReportInput) -> String {
    let charts = |(name, result): (String, &PairsResult)| {
        let scores = result.scores.as_ref()?;
        let reliability = result.calibration.as_ref().map_or(String::new(), reliability_chart);
        let drawn = score_charts(scores) + &reliability;
        (!drawn.is_empty())
            .then(|| format!("<h3>{}</h3><div class=\"charts\">{drawn}</div>", escape(&name)))
    };
    evaluations(input).into_iter().filter_map(charts).collect()
}

fn score_charts(scores: &ScoreStatistics) -> String {
    let sides = Labels { title: "Scores by side", x: "score", y: "share of responses" };
    let margins =
        Labels { title: "Margins, chosen − rejected", x: "margin", y: "share of pairs" };
    let by_side = [("chosen", &scores.chosen_histogram), ("rejected", &scores.rejected_histogram)];
    histogram_chart(&sides, &by_side)
        + &histogram_chart(&margins, &[("margin", &scores.margin_histogram)])
}

/// Share right by stated probability.
pub(super) fn reliability_chart(calibration: &Calibration) -> String {
    let title = format!(
        "Calibration (Brier {}, ECE {})",
        number(Some(calibration.brier)),
        number(Some(calibration.expected_calibration_error))
    );
    let labels = Labels { title: &title, x: "stated probability", y: "share right" };
    let measured = Series {
        name: "measured".to_owned(),
        points: calibration
            .bins
            .iter()
            .filter(|b| b.n >= MIN_BIN)
            .map(|b| (b.confidence, b.accuracy))
            .collect(),
        is_reference: false,
    };
    let ideal = Series {
        name: "ideal".to_owned(),
        points: vec![(0.5, 0.5), (1.0, 1.0)],
        is_reference: true,
    };
    line_chart(&labels, &[measured, ideal], Vertical::Share, Legend::None)
}

/// Accuracy by subset, one column an evaluation; empty when no pair names a subset.
pub(super) fn subsets(input: &ReportInput) -> String {
    let all = evaluations(input);
    let mut names: Vec<&str> =
        all.iter().flat_map(|(_, result)| result.subsets.keys().map(String::as_str)).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return String::new();
    }
    let shown: Vec<String> = all.iter().map(|(name, _)| format!("#{}", escape(name))).collect();
    let mut headings = vec!["Subset", "#pairs"];
    headings.extend(shown.iter().map(String::as_str));
    let row = |name: &&str| {
        let of = |result: &PairsResult| result.subsets.get(*name).copied();
        let pairs = all.iter().find_map(|(_, result)| of(result)).map_or(0, |a| a.num_pairs);
        let cells = all
            .iter()
            .map(|(_, result)| of(result).map_or("–".to_owned(), |a| estimate(&a.half_credit)));
        [escape(name), pairs.to_string()].into_iter().chain(cells).collect()
    };
    let rows: Vec<Vec<String>> = names.iter().map(row).collect();
    format!("<p class=\"hint\">Ties and faults at one half.</p>{}", html_table(&headings, &rows))
}
