//! A whole report: what it shows, that it stays well formed, that nothing
//! untrusted becomes markup.

use std::collections::BTreeMap;

use patarm_reward::{
    judgement::FormatFault,
    rubric::{Criterion, Origin, Rubric},
};
use patarm_text::{Comparison, Conversation, Item, Preference};

use super::*;
use crate::{
    compare::compare,
    interval::Resampling,
    pairs::{Evaluated, PairsOptions, Readout, pairs_from_rewards},
    random, store,
};

pub(super) const HOSTILE: &str =
    "</pre><script>alert(1)</script><img src=x onerror=\"a'b\">&amp;\u{0}\u{202e}";

/// A draw in [0, 1).
fn uniform(seed: u64, counter: u64) -> f64 {
    random::draw(seed, counter) as f64 / u64::MAX as f64
}

fn evaluated(model: &str, lift: f64) -> Evaluated {
    let comparisons: Vec<Comparison> = (0..200u64)
        .map(|i| {
            let item = |text: &str| Item {
                prompt: Conversation::from_user(format!("question {i}")),
                response: text.repeat(2 + (random::draw(3, i) % 5) as usize),
            };
            Comparison {
                id: format!("pair-{i}"),
                first: item("a good answer "),
                second: item("an off-topic one "),
                label: Preference::First,
                strength: None,
                task: None,
                subset: Some(["off_topic", "truncated", "shuffled"][(i % 3) as usize].to_owned()),
            }
        })
        .collect();
    let rewards: Vec<_> = (0..400u64)
        .map(|i| {
            let side = if i % 2 == 0 { lift } else { -lift };
            let noise = (0..4).map(|k| uniform(9, 4 * i + k)).sum::<f64>() - 2.0;
            let value = (5.5 + side + 2.4 * noise).clamp(1.0, 10.0);
            let value = if model == "cold" { value.round() } else { value };
            Ok(patarm_reward::model::Reward::of(value))
        })
        .collect();
    let options = PairsOptions {
        resampling: Resampling { resamples: 500, seed: 1 },
        readout: Readout::Value,
        settings: BTreeMap::new(),
    };
    pairs_from_rewards(model, &comparisons, &rewards, &options).expect("evaluates")
}

fn metrics(seed: u64) -> Vec<MetricRow> {
    let sft = (0..50u64).map(|step| MetricRow {
        step,
        phase: "sft".to_owned(),
        values: [
            ("loss", 2.4 * (-(step as f64) / 12.0).exp() + 0.3 + 0.1 * uniform(seed, step)),
            ("tokens_per_s", 900.0 + 60.0 * uniform(seed + 1, step)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
    });
    let grpo = (0..80u64).map(|step| {
        let rise = 1.0 / (1.0 + (-(step as f64 - 30.0) / 9.0).exp());
        let noise = |k: u64| uniform(seed + k, step) - 0.5;
        MetricRow {
            step,
            phase: "grpo".to_owned(),
            values: [
                ("pair_accuracy", 0.5 + 0.3 * rise + 0.15 * noise(1)),
                ("reward_mean", 0.4 + 0.5 * rise + 0.2 * noise(2)),
                ("reward_format", -0.05 * (1.0 - rise) - 0.02 * uniform(seed, step)),
                ("score_mean_chosen", 5.5 + 1.6 * rise + 0.4 * noise(3)),
                ("score_mean_rejected", 5.5 - 1.1 * rise + 0.4 * noise(4)),
                ("margin", 2.7 * rise + 0.5 * noise(5)),
                ("fault_missing_tag", 0.02 * uniform(seed + 6, step)),
                ("zero_variance_all_wrong", 0.4 * (1.0 - rise) + 0.1 * uniform(seed, step)),
                ("kl", 0.02 * rise + 0.004 * uniform(seed + 7, step)),
                ("entropy", 1.4 - 0.3 * rise + 0.1 * noise(8)),
                ("clip_share", 0.05 * uniform(seed + 9, step)),
                ("rollout_tokens_per_s", 640.0 + 40.0 * noise(10)),
                ("memory_bytes", 2.1e9 + 1e6 * step as f64),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        }
    });
    sft.chain(grpo).collect()
}

fn sample(pair: u64, side: &str, score: std::result::Result<f64, FormatFault>) -> Sample {
    let criterion = |name: &str, weight| Criterion {
        name: name.to_owned(),
        description: "answers what was asked, and nothing else".to_owned(),
        weight: Some(weight),
        origin: Origin::Generated,
    };
    Sample {
        source: "trained".to_owned(),
        step: Some(80),
        pair_id: Some(format!("pair-{pair}")),
        side: Some(side.to_owned()),
        prompt: format!("Why is the sky blue in the daytime? ({pair})"),
        response: format!("Because the air scatters short waves more than long ones ({side})."),
        judgement: Some(Judgement {
            text: "<rubrics>Relevance (60): …</rubrics>".to_owned(),
            rubric: Rubric {
                criteria: vec![criterion("Relevance", 60.0), criterion("Clarity", 40.0)],
            },
            evaluation: "Relevance: the response answers the question.".to_owned(),
            score,
            readable_score: None,
            expected_score: Some(7.25),
            num_tokens: 38,
            logprob: None,
        }),
        score: None,
        parts: Vec::new(),
        reward: Some(1.2),
    }
}

fn full_input() -> ReportInput {
    let (cold, trained) = (evaluated("cold", 0.0), evaluated("trained", 0.9));
    let result = compare(&cold, &trained, cold.result.options.resampling).expect("same pairs");
    let run = |name: &str, seed: u64| Run {
        name: name.to_owned(),
        recipe: "seed = 0\n[grpo]\nnum_judgements = 4\n".to_owned(),
        run_json: "{\"state\": \"finished\"}".to_owned(),
        metrics: metrics(seed),
        samples: vec![
            sample(1, "chosen", Ok(8.0)),
            sample(1, "rejected", Ok(10.0)),
            sample(2, "chosen", Ok(7.0)),
            sample(2, "rejected", Err(FormatFault::ScoreAbsent)),
        ],
        evaluations: vec![
            NamedResult { name: "cold_start".to_owned(), result: cold.result.clone() },
            NamedResult { name: "trained".to_owned(), result: trained.result.clone() },
        ],
    };
    ReportInput {
        title: "Quickstart".to_owned(),
        runs: vec![run("seed-0", 0), run("seed-1", 100)],
        benchmarks: Vec::new(),
        comparisons: vec![NamedComparison {
            first: "cold_start".to_owned(),
            second: "trained".to_owned(),
            result,
        }],
        notes: Vec::new(),
    }
}

/// Counts opening and closing tags of the elements that must balance.
#[track_caller]
pub(super) fn assert_balanced(page: &str) {
    for element in ["div", "section", "details", "table", "tr", "td", "svg", "pre", "ul", "span"] {
        let opened = page.matches(&format!("<{element}>")).count()
            + page.matches(&format!("<{element} ")).count();
        let closed = page.matches(&format!("</{element}>")).count();
        assert_eq!(opened, closed, "{element}");
    }
}

#[test]
fn a_full_report_shows_every_part() {
    let page = render_report(&full_input());
    assert_balanced(&page);
    for heading in [
        "Evaluations",
        "Paired comparisons",
        "Learning curves",
        "Scores and margins",
        "Accuracy by subset",
        "Sample judgements",
        "Configuration",
    ] {
        assert!(page.contains(&format!("<h2>{heading}</h2>")), "{heading}");
    }
    assert!(page.contains("num_judgements = 4") && page.contains("off_topic"));
    assert!(page.contains("chosen 8<") && page.contains("rejected 10<"), "scores lose digits");
    assert!(page.contains("rejected no score<") && page.contains("Relevance (60 %)"));
    assert!(!page.contains("NaN") && !page.contains("inf "));
}

#[test]
fn the_page_fetches_nothing() {
    let page = render_report(&full_input());
    for outside in ["http:", "https:", "src=", "url(", "@import", "<script", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn nothing_untrusted_becomes_markup() {
    let mut input = full_input();
    input.title = HOSTILE.to_owned();
    input.notes = vec![HOSTILE.to_owned()];
    input.comparisons[0].first = HOSTILE.to_owned();
    let run = &mut input.runs[0];
    (run.name, run.recipe, run.run_json) = (HOSTILE.into(), HOSTILE.into(), HOSTILE.into());
    for row in &mut run.metrics {
        row.phase = HOSTILE.to_owned();
        row.values.insert(HOSTILE.to_owned(), 1.0);
    }
    for evaluation in &mut run.evaluations {
        evaluation.name = HOSTILE.to_owned();
        evaluation.result.model = HOSTILE.to_owned();
        let first = evaluation.result.subsets.pop_first().expect("there are subsets");
        evaluation.result.subsets.insert(HOSTILE.to_owned(), first.1);
    }
    for sample in &mut run.samples {
        (sample.prompt, sample.response) = (HOSTILE.into(), HOSTILE.into());
        (sample.side, sample.pair_id) = (Some(HOSTILE.into()), Some(HOSTILE.into()));
        sample.source = HOSTILE.to_owned();
        let judgement = sample.judgement.as_mut().expect("a judgement");
        judgement.text = HOSTILE.to_owned();
        judgement.evaluation = HOSTILE.to_owned();
        judgement.rubric.criteria[0].name = HOSTILE.to_owned();
        judgement.rubric.criteria[0].description = HOSTILE.to_owned();
    }
    let page = render_report(&input);
    assert_balanced(&page);
    for forbidden in ["<script", "<img", "onerror=\"", "\u{0}"] {
        assert!(!page.contains(forbidden), "{forbidden:?}");
    }
    assert!(page.contains("&lt;script&gt;"));
}

#[test]
fn an_empty_report_is_still_a_page() {
    let page = render_report(&ReportInput::default());
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    assert!(!page.contains("<h2>"));
}

#[test]
fn merged_runs_have_names_of_their_own() {
    let merged = ReportInput::merge("both", vec![full_input(), full_input()]);
    let names: Vec<&str> = merged.runs.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["seed-0", "seed-1", "seed-0 (2)", "seed-1 (2)"]);
    assert_eq!((merged.title.as_str(), merged.comparisons.len()), ("both", 2));
}

#[test]
fn evaluations_of_a_run_are_read_and_compared() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let evaluations = dir.path().join("evaluations");
    store::write_folder(&evaluations.join("cold_start"), &evaluated("cold", 0.0)).expect("written");
    store::write_folder(&evaluations.join("trained"), &evaluated("trained", 0.9)).expect("written");
    store::write_result(&evaluations.join("votes-4.json"), &evaluated("votes", 0.5).result)
        .expect("written");
    let samples = dir.path().join("samples");
    std::fs::create_dir_all(&samples).expect("folder");
    let row = serde_json::to_string(&sample(1, "chosen", Ok(8.0))).expect("serialises");
    std::fs::write(samples.join("step-80.jsonl"), format!("{row}\n{row}\n{{\"cut"))
        .expect("written");

    let input = load_run(dir.path()).expect("reads");
    let names: Vec<&str> = input.runs[0].evaluations.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["cold_start", "votes-4", "trained"]);
    assert_eq!(input.comparisons.len(), 1);
    assert!(input.comparisons[0].result.overall.half_credit.value > Some(0.1));
    assert_eq!(input.runs[0].samples.len(), 2);

    let folder = load_run(&evaluations.join("trained")).expect("a result folder is a run");
    assert_eq!(folder.runs[0].evaluations[0].name, "trained");
}

#[test]
fn values_of_parts_are_a_heat_map() {
    let part = |text: &str, value| SamplePart { text: text.to_owned(), value };
    let scored = Sample {
        judgement: None,
        score: Some(0.5),
        parts: vec![part("<b>good", 3.0), part(" so so", 1.0), part(" bad", -1.0)],
        ..sample(1, "chosen", Ok(7.0))
    };
    let run = Run { samples: vec![scored], ..Run::default() };
    let page = super::samples::section(&[run]);
    assert!(page.contains("class=\"high4\" title=\"3.000\">&lt;b&gt;good</span>"), "{page}");
    assert!(page.contains("class=\"high0\" title=\"1.000\"> so so</span>"), "{page}");
    assert!(page.contains("class=\"low4\" title=\"\u{2212}1.000\"> bad</span>"), "{page}");
    assert!(page.contains("chosen 0.500"), "{page}");
}
