//! Sample judgements and scores, the two sides of a pair beside each other.

use patarm_reward::judgement::FormatFault;

use super::{
    Run, Sample, SamplePart,
    charts::shortened,
    html::{escape, number},
};

/// Most pairs shown of a run.
const MAX_PAIRS: usize = 24;

/// Most judgements shown of a side.
const MAX_JUDGEMENTS: usize = 4;

/// Longest text shown, in characters.
const MAX_TEXT: usize = 4_000;

/// The section; empty when no run kept samples. A heading stands where there are
/// several runs or sources.
pub(super) fn section(runs: &[Run]) -> String {
    let mut parts: Vec<(String, Vec<&Sample>)> = Vec::new();
    for run in runs {
        for sample in &run.samples {
            let name = format!("{}: {}", run.name, sample.source);
            match parts.iter_mut().find(|(known, _)| *known == name) {
                Some((_, samples)) => samples.push(sample),
                None => parts.push((name, vec![sample])),
            }
        }
    }
    let has_headings = parts.len() > 1;
    let part = |(name, samples): &(String, Vec<&Sample>)| {
        let heading =
            if has_headings { format!("<h3>{}</h3>", escape(name)) } else { String::new() };
        heading + &pairs_markup(samples)
    };
    parts.iter().map(part).collect()
}

fn pairs_markup(samples: &[&Sample]) -> String {
    let groups = grouped(samples);
    let more = match groups.len() > MAX_PAIRS {
        true => format!("<p class=\"hint\">{MAX_PAIRS} of {} shown.</p>", groups.len()),
        false => String::new(),
    };
    let shown: String = groups.iter().take(MAX_PAIRS).map(|group| group_markup(group)).collect();
    more + &shown
}

/// Samples by step, pair and prompt, latest step first, otherwise in file order.
fn grouped<'a>(samples: &[&'a Sample]) -> Vec<Vec<&'a Sample>> {
    let key = |s: &Sample| (s.step, s.pair_id.clone(), s.prompt.clone());
    let mut places = std::collections::HashMap::new();
    let mut groups: Vec<Vec<&Sample>> = Vec::new();
    for sample in samples {
        let place = *places.entry(key(sample)).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[place].push(sample);
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group[0].step));
    groups
}

fn group_markup(group: &[&Sample]) -> String {
    let first = group[0];
    let step = first.step.map_or(String::new(), |s| format!("step {s} · "));
    let id = first.pair_id.as_ref().map_or(String::new(), |id| format!("{} · ", escape(id)));
    let badges: String = group.iter().take(MAX_JUDGEMENTS).map(|s| badge(s)).collect();
    let prompt = one_line(&first.prompt, 110);
    let sides: String = responses(group).iter().map(|side| side_markup(side)).collect();
    format!(
        "<details><summary>{badges}<small>{step}{id}</small>{prompt}</summary>\
         <div class=\"label\">prompt</div>{}<div class=\"sides\">{sides}</div></details>",
        text(&first.prompt)
    )
}

/// Judgements by response, in file order.
fn responses<'a>(group: &[&'a Sample]) -> Vec<Vec<&'a Sample>> {
    let mut sides: Vec<Vec<&Sample>> = Vec::new();
    for sample in group {
        let same = |side: &&mut Vec<&Sample>| {
            side[0].response == sample.response && side[0].side == sample.side
        };
        match sides.iter_mut().find(same) {
            Some(side) => side.push(sample),
            None => sides.push(vec![sample]),
        }
    }
    sides
}

fn side_markup(side: &[&Sample]) -> String {
    let judgements: String =
        side.iter().take(MAX_JUDGEMENTS).map(|sample| judgement_markup(sample)).collect();
    let response = match side[0].parts.is_empty() {
        true => text(&side[0].response),
        false => heat_map(&side[0].parts),
    };
    format!(
        "<div class=\"side\"><div class=\"label\">{} response</div>{response}{judgements}</div>",
        escape(side[0].side.as_deref().unwrap_or("")),
    )
}

/// Strengths of the ground of a part.
const HEATS: f64 = 4.0;

/// A response on a ground that says how far the value of each part stands from their mean.
fn heat_map(parts: &[SamplePart]) -> String {
    let values: Vec<f64> = parts.iter().map(|part| part.value).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let most = values.iter().map(|value| (value - mean).abs()).fold(0.0, f64::max);
    let (mut left, mut markup) = (MAX_TEXT, String::new());
    for part in parts {
        if left == 0 {
            markup.push('…');
            break;
        }
        let shown: String = part.text.chars().take(left).collect();
        left -= shown.chars().count();
        let away = part.value - mean;
        let heat = if most > 0.0 { (HEATS * away.abs() / most).round() } else { 0.0 };
        let side = if away < 0.0 { "low" } else { "high" };
        let value = escape(&number(Some(part.value)));
        markup.push_str(&format!(
            "<span class=\"{side}{heat}\" title=\"{value}\">{}</span>",
            escape(&shown)
        ));
    }
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!(
        "<pre dir=\"auto\">{markup}</pre><small>values from {} to {}: green above their mean, red \
         below</small>",
        number(Some(low)),
        number(Some(high))
    )
}

fn judgement_markup(sample: &Sample) -> String {
    let Some(judgement) = &sample.judgement else {
        return match sample.score {
            Some(_) => format!("<div class=\"label\">score</div>{}", badge(sample)),
            None => String::new(),
        };
    };
    let criteria: String = judgement
        .rubric
        .criteria
        .iter()
        .map(|c| {
            let weight = c.weight.map_or(String::new(), |w| format!(" ({} %)", short(w)));
            format!("<li>{}{weight}: {}</li>", clipped(&c.name), clipped(&c.description))
        })
        .collect();
    let rubric = match criteria.is_empty() {
        true => String::new(),
        false => format!("<div class=\"label\">rubric</div><ul class=\"rubric\">{criteria}</ul>"),
    };
    let evaluation = match judgement.evaluation.is_empty() {
        true => String::new(),
        false => format!("<div class=\"label\">evaluation</div>{}", text(&judgement.evaluation)),
    };
    format!(
        "{rubric}{evaluation}<div class=\"label\">score</div>{}{}\
         <details><summary>all {} generated tokens</summary>{}</details>",
        badge(sample),
        extras(sample),
        judgement.num_tokens,
        text(&judgement.text)
    )
}

fn extras(sample: &Sample) -> String {
    let expected = sample.judgement.as_ref().and_then(|judgement| judgement.expected_score);
    let expected = expected.map_or(String::new(), |e| format!("expected {} ", number(Some(e))));
    let reward = sample.reward.map_or(String::new(), |r| format!("reward {}", number(Some(r))));
    format!("<small>{expected}{reward}</small>")
}

/// What was given, on one line; empty where steps have values and the whole has none.
fn badge(sample: &Sample) -> String {
    if sample.judgement.is_none() && sample.score.is_none() {
        return String::new();
    }
    let colour = match sample.side.as_deref() {
        Some("chosen") => "c0",
        Some("rejected") => "c1",
        _ => "c7",
    };
    let score = match sample.judgement.as_ref().map(|judgement| judgement.score) {
        None => number(sample.score),
        Some(Ok(score)) => {
            number(Some(score)).trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        Some(Err(fault)) => fault_text(fault).to_owned(),
    };
    let side = escape(sample.side.as_deref().unwrap_or("score"));
    format!("<span class=\"badge {colour}\">{side} {score}</span>")
}

/// A number without the zeros that say nothing.
fn short(value: f64) -> String {
    let text = number(Some(value));
    match text.contains('.') && !text.contains('e') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

fn fault_text(fault: FormatFault) -> &'static str {
    match fault {
        FormatFault::MissingTag => "missing tag",
        FormatFault::TagOrder => "tags out of order",
        FormatFault::ScoreAbsent => "no score",
        FormatFault::ScoreNotNumber => "score is no number",
        FormatFault::ScoreOutOfRange => "score out of range",
        FormatFault::Truncated => "truncated",
    }
}

fn text(content: &str) -> String {
    format!("<pre dir=\"auto\">{}</pre>", clipped(content))
}

fn clipped(content: &str) -> String {
    escape(&shortened(content, MAX_TEXT))
}

fn one_line(content: &str, limit: usize) -> String {
    let joined: Vec<&str> = content.split_whitespace().take(limit).collect();
    escape(&shortened(&joined.join(" "), limit))
}
