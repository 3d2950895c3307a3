//! Learning curves: which metrics share a chart, runs laid over each other.

use std::collections::BTreeMap;

use super::{
    MetricRow, Run,
    charts::{Labels, Legend, Series, Vertical, line_chart},
    html::escape,
};

/// Most lines in a chart; further ones go to a second chart.
const MAX_LINES: usize = 8;

/// A chart's subject: its title and the words of which one must stand in a field's name.
struct Topic {
    title: &'static str,
    words: &'static [&'static str],
    vertical: Vertical,
    place: Place,
}

/// Where a topic is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Front,
    Folded,
}

const fn topic(title: &'static str, words: &'static [&'static str], place: Place) -> Topic {
    Topic { title, words, vertical: Vertical::Data, place }
}

const fn share(title: &'static str, words: &'static [&'static str], place: Place) -> Topic {
    Topic { title, words, vertical: Vertical::Share, place }
}

const fn small_share(title: &'static str, words: &'static [&'static str], place: Place) -> Topic {
    Topic { title, words, vertical: Vertical::SmallShare, place }
}

/// The first topic with a fitting word takes a field, so special ones come first.
const TOPICS: &[Topic] = &[
    share("Accuracy", &["accuracy"], Place::Front),
    topic("Margin", &["margin"], Place::Front),
    small_share("Format faults", &["fault"], Place::Front),
    share("Zero-variance groups", &["zero_variance"], Place::Front),
    small_share("Empty sides and invalid mass", &["empty_side", "invalid_mass"], Place::Front),
    topic("Speed (tokens/s)", &["per_s"], Place::Folded),
    topic("Time (s)", &["seconds", "_ms"], Place::Folded),
    topic("Reward", &["reward"], Place::Front),
    topic("Advantage", &["advantage"], Place::Folded),
    topic("Score", &["score"], Place::Front),
    topic("Loss", &["loss"], Place::Front),
    topic("KL", &["kl"], Place::Front),
    topic("Entropy", &["entropy"], Place::Front),
    small_share("Clip share", &["clip"], Place::Folded),
    topic("Gradient norm", &["grad", "norm"], Place::Folded),
    topic("Learning rate", &["learning_rate", "lr"], Place::Folded),
    topic("Memory", &["memory", "bytes", "mib", "rss"], Place::Folded),
    topic("Lengths and tokens", &["length", "tokens"], Place::Folded),
];

/// What no topic takes.
const OTHER: Topic = topic("Other", &[], Place::Folded);

/// The section: charts by phase; empty when no run has metrics.
pub(super) fn section(runs: &[Run]) -> String {
    let mut phases: Vec<&str> = Vec::new();
    for row in runs.iter().flat_map(|run| &run.metrics) {
        if !phases.contains(&row.phase.as_str()) {
            phases.push(&row.phase);
        }
    }
    phases.iter().map(|phase| phase_charts(runs, phase)).collect()
}

fn phase_charts(runs: &[Run], phase: &str) -> String {
    let lines = lines_by_field(runs, phase);
    let (mut front, mut folded) = (String::new(), String::new());
    for topic in TOPICS.iter().chain([&OTHER]) {
        let series: Vec<Series> = lines
            .iter()
            .filter(|(field, _)| topic_of(field).title == topic.title)
            .flat_map(|(field, by_run)| by_run.iter().map(|line| named(line, field, runs.len())))
            .collect();
        let target = if topic.place == Place::Front { &mut front } else { &mut folded };
        target.push_str(&charts(topic, series));
    }
    let phase = escape(phase);
    let front = match front.is_empty() {
        true => String::new(),
        false => format!("<div class=\"charts\">{front}</div>"),
    };
    let folded = match folded.is_empty() {
        true => String::new(),
        false => format!(
            "<details><summary>{phase}: more curves</summary><div class=\"charts\">{folded}</div></details>"
        ),
    };
    format!("<h3>{phase}</h3>{front}{folded}")
}

/// A line of one run, before it is named.
struct RunLine<'a> {
    run: &'a str,
    points: Vec<(f64, f64)>,
}

fn lines_by_field<'a>(runs: &'a [Run], phase: &str) -> BTreeMap<&'a str, Vec<RunLine<'a>>> {
    let mut lines: BTreeMap<&str, Vec<RunLine<'_>>> = BTreeMap::new();
    for run in runs {
        let mut of_run: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
        for MetricRow { step, values, .. } in run.metrics.iter().filter(|r| r.phase == phase) {
            for (field, value) in values {
                of_run.entry(field).or_default().push((*step as f64, *value));
            }
        }
        for (field, mut points) in of_run {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            lines.entry(field).or_default().push(RunLine { run: &run.name, points });
        }
    }
    lines
}

fn topic_of(field: &str) -> &'static Topic {
    let fits = |topic: &&Topic| topic.words.iter().any(|word| has_word(field, word));
    TOPICS.iter().find(fits).unwrap_or(&OTHER)
}

/// Short words must stand between underscores, so that `kl` is not found in `weekly`.
fn has_word(field: &str, word: &str) -> bool {
    if word.len() <= 3 && !word.contains('_') {
        return field.split(['_', '/', '.']).any(|part| part == word);
    }
    field.contains(word)
}

fn named(line: &RunLine<'_>, field: &str, num_runs: usize) -> Series {
    let field = field.replace('_', " ");
    let name = if num_runs > 1 { format!("{}: {field}", line.run) } else { field };
    Series { name, points: line.points.clone(), is_reference: false }
}

fn charts(topic: &Topic, series: Vec<Series>) -> String {
    // A share that leaves [0, 1] is none, whatever its name says.
    let fits = series.iter().flat_map(|s| &s.points).all(|p| (0.0..=1.0).contains(&p.1));
    let vertical = if fits { topic.vertical } else { Vertical::Data };
    let labels = Labels { title: topic.title, x: "step", y: "" };
    let mut drawn = String::new();
    let mut rest = series;
    while !rest.is_empty() {
        let next = rest.split_off(rest.len().min(MAX_LINES));
        drawn.push_str(&line_chart(&labels, &rest, vertical, Legend::LastValues));
        rest = next;
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(field: &str, expected: &str) {
        assert_eq!(topic_of(field).title, expected, "{field}");
    }

    #[test]
    fn fields_find_their_topic() {
        check("pair_accuracy", "Accuracy");
        check("reward_format", "Reward");
        check("score_mean_chosen", "Score");
        check("fault_missing_tag", "Format faults");
        check("zero_variance_all_wrong", "Zero-variance groups");
        check("rollout_tokens_per_s", "Speed (tokens/s)");
        check("kl", "KL");
        check("policy_kl", "KL");
        check("weekly", "Other");
        check("lr", "Learning rate");
        check("tokens_tree", "Lengths and tokens");
        check("memory_bytes", "Memory");
    }

    fn run(name: &str, fields: &[&str]) -> Run {
        let row = |step: u64| MetricRow {
            step,
            phase: "grpo".to_owned(),
            values: fields.iter().map(|f| ((*f).to_owned(), step as f64)).collect(),
        };
        Run { name: name.to_owned(), metrics: (0..3).map(row).collect(), ..Run::default() }
    }

    #[test]
    fn runs_share_a_chart() {
        let text = section(&[run("one", &["reward"]), run("two", &["reward"])]);
        assert_eq!(text.matches("<svg").count(), 1);
        assert!(text.contains("one: reward") && text.contains("two: reward"), "{text}");
        assert_eq!(section(&[Run::default()]), "");
    }

    #[test]
    fn many_lines_are_spread_over_charts() {
        let fields: Vec<String> = (0..19).map(|i| format!("loss_{i}")).collect();
        let names: Vec<&str> = fields.iter().map(String::as_str).collect();
        assert_eq!(section(&[run("one", &names)]).matches("<svg").count(), 3);
    }
}
