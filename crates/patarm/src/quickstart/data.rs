//! The bundled pairs: a good answer against a corrupted one.
//!
//! Corruptions are chosen so that length gives nothing away: truncation makes an
//! answer shorter, repetition longer, shuffling neither, and an off-topic answer
//! is some other good answer. One kind, echoing the prompt, is held out.

use patarm_models::kernels::random;
use patarm_text::{Comparison, Conversation, Item, Preference, Task};
use serde::Deserialize;

/// Our own questions and answers.
const QUESTIONS: &str = include_str!("../../data/questions.jsonl");
/// Prompts held out for measurement.
const NUM_HELD_OUT: usize = 220;
/// Stream of the split; fixed, so that every seed is measured on the same pairs.
const SPLIT_SEED: u64 = 20_240;
/// Words of a corrupted answer at most, to stay within the quickstart's lengths.
const MAX_WORDS: usize = 40;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    id: String,
    topic: String,
    task: Task,
    prompt: String,
    answer: String,
}

/// How an answer is spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Corruption {
    OffTopic,
    Truncated,
    Repetitive,
    Shuffled,
    Echo,
}

impl Corruption {
    const TRAINED: [Self; 4] = [Self::OffTopic, Self::Truncated, Self::Repetitive, Self::Shuffled];
    const MEASURED: [Self; 5] =
        [Self::OffTopic, Self::Truncated, Self::Repetitive, Self::Shuffled, Self::Echo];

    fn name(self) -> &'static str {
        match self {
            Self::OffTopic => "off_topic",
            Self::Truncated => "truncated",
            Self::Repetitive => "repetitive",
            Self::Shuffled => "shuffled",
            Self::Echo => "echo_held_out",
        }
    }
}

/// Training and held-out comparisons without a shared prompt.
#[derive(Clone, Debug)]
pub(crate) struct Bundled {
    /// For training.
    pub(crate) train: Vec<Comparison>,
    /// For measurement, one corruption kind among them never trained on.
    pub(crate) held_out: Vec<Comparison>,
}

/// Builds the bundled comparisons; `seed` chooses training corruptions only.
pub(crate) fn bundled(seed: u64) -> anyhow::Result<Bundled> {
    let mut questions = QUESTIONS
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(serde_json::from_str)
        .collect::<Result<Vec<Question>, _>>()?;
    random::shuffle(&mut questions, SPLIT_SEED, 0);
    let (held_out, train) = questions.split_at(NUM_HELD_OUT);
    Ok(Bundled {
        train: pairs(train, &Corruption::TRAINED, seed),
        held_out: pairs(held_out, &Corruption::MEASURED, SPLIT_SEED),
    })
}

fn pairs(questions: &[Question], kinds: &[Corruption], seed: u64) -> Vec<Comparison> {
    let pair = |(index, question): (usize, &Question)| {
        let kind = kinds[index % kinds.len()];
        let rejected = corrupt(questions, index, kind, seed);
        comparison(question, rejected, (kind, random::below(2, seed, &[1, index as u64]) == 0))
    };
    questions.iter().enumerate().map(pair).collect()
}

/// Sides are shuffled, so that nothing can be learnt from the order in the file.
fn comparison(
    question: &Question,
    rejected: String,
    (kind, is_first): (Corruption, bool),
) -> Comparison {
    let item = |response: String| Item {
        prompt: Conversation::from_user(question.prompt.as_str()),
        response,
    };
    let good = Comparison {
        id: format!("{}-{}", question.id, kind.name()),
        first: item(question.answer.clone()),
        second: item(rejected),
        label: Preference::First,
        strength: None,
        task: Some(question.task),
        subset: Some(kind.name().to_owned()),
    };
    if is_first { good } else { good.swap() }
}

fn corrupt(questions: &[Question], index: usize, kind: Corruption, seed: u64) -> String {
    let question = &questions[index];
    let words: Vec<&str> = question.answer.split_whitespace().collect();
    let at = [2, index as u64];
    match kind {
        Corruption::OffTopic => off_topic(questions, index, seed),
        Corruption::Truncated => {
            let share = 0.35 + 0.3 * random::uniform(seed, &at);
            let kept = ((words.len() as f64 * share) as usize).max(3);
            words[..kept.min(words.len())].join(" ")
        }
        Corruption::Repetitive => {
            let len = 3 + random::below(3, seed, &at);
            let start =
                random::below(words.len().saturating_sub(len).max(1), seed, &[3, index as u64]);
            let phrase = &words[start..(start + len).min(words.len())];
            let target = (words.len() + words.len() / 4).min(MAX_WORDS);
            phrase.iter().copied().cycle().take(target).collect::<Vec<_>>().join(" ")
        }
        Corruption::Shuffled => {
            let mut shuffled = words.clone();
            random::shuffle(&mut shuffled, seed, 4 + index as u64);
            shuffled.join(" ")
        }
        Corruption::Echo => {
            let prompt = question.prompt.split_whitespace();
            let target = if random::below(2, seed, &at) == 0 {
                words.len() * 3 / 4
            } else {
                words.len() * 5 / 4
            };
            prompt.cycle().take(target.min(MAX_WORDS)).collect::<Vec<_>>().join(" ")
        }
    }
}

/// Another prompt's answer, of another topic.
fn off_topic(questions: &[Question], index: usize, seed: u64) -> String {
    let others: Vec<&Question> =
        questions.iter().filter(|other| other.topic != questions[index].topic).collect();
    others[random::below(others.len(), seed, &[5, index as u64])].answer.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn text(item: &Item) -> String {
        item.prompt.transcript()
    }

    #[test]
    fn no_prompt_is_shared_and_one_kind_is_never_trained() {
        let Bundled { train, held_out } = bundled(0).expect("bundled data");
        let trained: HashSet<String> = train.iter().map(|pair| text(&pair.first)).collect();
        assert!(held_out.iter().all(|pair| !trained.contains(&text(&pair.first))));
        assert!(held_out.len() >= 200 && train.len() >= 400);
        assert!(train.iter().all(|pair| pair.subset.as_deref() != Some("echo_held_out")));
        assert!(
            held_out.iter().filter(|pair| pair.subset.as_deref() == Some("echo_held_out")).count()
                >= 40
        );
    }

    #[test]
    fn length_gives_little_away() {
        let Bundled { held_out, .. } = bundled(0).expect("bundled data");
        let credit: f64 = held_out
            .iter()
            .filter_map(Comparison::chosen_rejected)
            .map(|(chosen, rejected)| match chosen.response.len().cmp(&rejected.response.len()) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            })
            .sum();
        let accuracy = credit / held_out.len() as f64;
        assert!((0.4..=0.6).contains(&accuracy), "longer wins: {accuracy}");
    }

    #[test]
    fn both_sides_differ_and_both_orders_occur() {
        let Bundled { train, .. } = bundled(1).expect("bundled data");
        assert!(train.iter().all(|pair| pair.first.response != pair.second.response));
        let first = train.iter().filter(|pair| pair.label == Preference::First).count();
        assert!(first > train.len() / 3 && first < train.len() * 2 / 3);
    }
}
