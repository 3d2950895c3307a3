//! Cutting a response into steps.
//!
//! Steps are ranges of the text, so that nothing is lost: their spans in a row are the
//! text, and each knows which part of its span is the step's own words and which is what
//! separates it from the next one.

use std::ops::Range;

use patarm_files::Segmentation;
use unicode_segmentation::UnicodeSegmentation;

use crate::error::{Error, ErrorKind, Result};

/// Most steps of a text.
pub const MAX_STEPS: usize = 10_000;

/// One step of a text, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepSpan {
    /// The step and what separates it from the next one; the spans of a text are the
    /// text.
    pub span: Range<usize>,
    /// The step's own words: the span without separators and blanks at its ends.
    pub content: Range<usize>,
}

impl StepSpan {
    /// The step's own words.
    ///
    /// # Panics
    /// When the text is not the one that was cut.
    #[must_use]
    pub fn words<'t>(&self, text: &'t str) -> &'t str {
        &text[self.content.clone()]
    }
}

/// Cuts a text. Pieces without words belong to the step before them (at the beginning of
/// the text to the one after), so that every step has words; a text without any has no
/// step.
///
/// # Errors
/// When there are more than [`MAX_STEPS`] steps.
pub fn segment(text: &str, how: &Segmentation) -> Result<Vec<StepSpan>> {
    let ends = ends(text, how);
    let separator = match how {
        Segmentation::Separator { text } => text.as_str(),
        _ => "",
    };
    let mut steps: Vec<StepSpan> = Vec::new();
    let mut start = 0;
    for end in ends {
        let content = trimmed(text, start..end, separator);
        if !content.is_empty() {
            if steps.len() == MAX_STEPS {
                return Err(Error::new(
                    ErrorKind::Limit,
                    format!("the response has more than {MAX_STEPS} steps; cut it otherwise"),
                ));
            }
            // The first step takes the blanks before it along.
            let start = if steps.is_empty() { 0 } else { start };
            steps.push(StepSpan { span: start..end, content });
        } else if let Some(last) = steps.last_mut() {
            last.span.end = end;
        }
        start = end;
    }
    Ok(steps)
}

/// Places in characters: what people and other languages count in.
#[must_use]
pub fn character_ranges(text: &str, steps: &[StepSpan]) -> Vec<(usize, usize)> {
    let (mut byte, mut characters) = (0, 0);
    let mut up_to = |place: usize| {
        characters += text[byte..place].chars().count();
        byte = place;
        characters
    };
    steps.iter().map(|step| (up_to(step.content.start), up_to(step.content.end))).collect()
}

/// Ends of pieces, rising, the end of the text last.
fn ends(text: &str, how: &Segmentation) -> Vec<usize> {
    let mut ends = match how {
        Segmentation::BlankLines {} => blank_line_ends(text),
        Segmentation::Lines {} => line_starts(text).skip(1).collect(),
        Segmentation::Separator { text: separator } if separator.is_empty() => Vec::new(),
        Segmentation::Separator { text: separator } => {
            text.match_indices(separator.as_str()).map(|(at, found)| at + found.len()).collect()
        }
        Segmentation::Markers {} => {
            let announces = |at: &usize| is_marker(line_at(text, *at));
            line_starts(text).skip(1).filter(announces).collect()
        }
        Segmentation::Sentences { min_characters } => sentence_ends(text, *min_characters),
    };
    if ends.last() != Some(&text.len()) {
        ends.push(text.len());
    }
    ends
}

/// Starts of lines, 0 first.
fn line_starts(text: &str) -> impl Iterator<Item = usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1))
}

fn line_at(text: &str, start: usize) -> &str {
    text[start..].split('\n').next().unwrap_or_default()
}

/// Starts of lines that follow an empty one and are not empty themselves.
fn blank_line_ends(text: &str) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut after_blank = false;
    for start in line_starts(text) {
        let is_blank = line_at(text, start).trim().is_empty();
        if after_blank && !is_blank {
            ends.push(start);
        }
        after_blank = is_blank && start > 0;
    }
    ends
}

/// Whether a line announces a step: `Step 2`, `**Step 2:**`, `## …`, `2.`, `2)`, `- `.
fn is_marker(line: &str) -> bool {
    let line = line.trim_start();
    if line.starts_with("- ") || line.starts_with("* ") {
        return true;
    }
    if line.trim_start_matches('#').len() < line.len() {
        return line.trim_start_matches('#').starts_with(' ');
    }
    let bare = line.trim_start_matches('*');
    let numbered = |rest: &str| {
        let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        (after.len() < rest.len()).then_some(after).map(str::to_owned)
    };
    let word = bare.get(..4).filter(|word| word.eq_ignore_ascii_case("step"));
    if word.is_some() {
        return numbered(bare[4..].trim_start()).is_some();
    }
    // "2. x" and "2) x", but not "2.5 x".
    numbered(bare).is_some_and(|after| {
        let mut next = after.chars();
        matches!(next.next(), Some('.' | ')')) && next.next().is_none_or(char::is_whitespace)
    })
}

/// Ends of sentences, short ones joined to what follows and the last one, if it is too
/// short, to what comes before.
fn sentence_ends(text: &str, min_characters: usize) -> Vec<usize> {
    let (mut ends, mut length) = (Vec::new(), 0);
    for (at, sentence) in text.split_sentence_bound_indices() {
        length += sentence.trim().chars().count();
        if length >= min_characters.max(1) {
            ends.push(at + sentence.len());
            length = 0;
        }
    }
    if length > 0 && !ends.is_empty() {
        ends.pop();
    }
    ends
}

/// The range without separators and blanks at its ends; empty where nothing is left.
fn trimmed(text: &str, range: Range<usize>, separator: &str) -> Range<usize> {
    let piece = &text[range.clone()];
    let kept = match separator {
        "" => piece,
        separator => piece.strip_suffix(separator).unwrap_or(piece),
    };
    let start = range.start + (kept.len() - kept.trim_start().len());
    start..(range.start + kept.trim_end().len()).max(start)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words<'t>(text: &'t str, how: &Segmentation) -> Vec<&'t str> {
        segment(text, how).unwrap().iter().map(|step| step.words(text)).collect()
    }

    #[test]
    fn blank_lines_lines_and_separators_part_steps() {
        let text = "\n\nfirst\nstill first\n \n\nsecond\n\n";
        assert_eq!(words(text, &Segmentation::BlankLines {}), ["first\nstill first", "second"]);
        assert_eq!(words(text, &Segmentation::Lines {}), ["first", "still first", "second"]);
        let separator = Segmentation::Separator { text: "<s>".into() };
        assert_eq!(words("a<s> b<s><s>c", &separator), ["a", "b", "c"]);
        assert_eq!(words("a<s>", &separator), ["a"]);
        for how in all() {
            assert_eq!(words(" \n\n ", &how), [""; 0], "{how:?}");
        }
    }

    #[test]
    fn announced_steps_begin_at_their_announcement() {
        let text = "We go on.\nStep 1: add 2.5\n2.5 is it\n**Step 2:** done\n3. so\n4) and\n## End\n- x\n-3";
        let expected = [
            "We go on.",
            "Step 1: add 2.5\n2.5 is it",
            "**Step 2:** done",
            "3. so",
            "4) and",
            "## End",
            "- x\n-3",
        ];
        assert_eq!(words(text, &Segmentation::Markers {}), expected);
    }

    #[test]
    fn sentences_keep_decimals_whole_and_short_ones_join() {
        let plain = Segmentation::Sentences { min_characters: 0 };
        assert_eq!(
            words("It costs 3.5 dollars. Ann has 4! 好。", &plain),
            ["It costs 3.5 dollars.", "Ann has 4!", "好。"]
        );
        let long = Segmentation::Sentences { min_characters: 12 };
        assert_eq!(
            words("So. Then we add them. No. Yes.", &long),
            ["So. Then we add them. No. Yes."]
        );
        assert_eq!(
            words("So. Then we add. This is the end.", &long),
            ["So. Then we add.", "This is the end."]
        );
    }

    #[test]
    fn places_are_counted_in_characters_too() {
        let text = "é\n\nüber";
        let steps = segment(text, &Segmentation::BlankLines {}).unwrap();
        assert_eq!(character_ranges(text, &steps), [(0, 1), (3, 7)]);
    }

    #[test]
    fn too_many_steps_are_refused() {
        let text = "a\n".repeat(MAX_STEPS + 1);
        let message = segment(&text, &Segmentation::Lines {}).unwrap_err().to_string();
        assert!(message.contains("10000 steps"), "{message}");
        assert_eq!(segment(&text[2..], &Segmentation::Lines {}).unwrap().len(), MAX_STEPS);
    }

    fn all() -> Vec<Segmentation> {
        vec![
            Segmentation::BlankLines {},
            Segmentation::Lines {},
            Segmentation::Separator { text: "\n\n".into() },
            Segmentation::Separator { text: "é".into() },
            Segmentation::Markers {},
            Segmentation::Sentences { min_characters: 0 },
            Segmentation::Sentences { min_characters: 5 },
        ]
    }

    proptest! {
        #[test]
        fn spans_in_a_row_are_the_text(text in "([a-z]|é|\n|\n\n|[.!?] |Step 1: |- | |3\\.5|\u{3002}){0,40}") {
            for how in all() {
                let steps = segment(&text, &how).unwrap();
                let joined: String = steps.iter().map(|step| &text[step.span.clone()]).collect();
                if steps.is_empty() {
                    continue;
                }
                prop_assert_eq!(&joined, &text, "{:?}", how);
                let mut end = 0;
                for step in &steps {
                    prop_assert_eq!(step.span.start, end);
                    end = step.span.end;
                    prop_assert!(step.span.start <= step.content.start);
                    prop_assert!(step.content.end <= step.span.end);
                    prop_assert!(!step.words(&text).is_empty());
                    prop_assert_eq!(step.words(&text).trim(), step.words(&text));
                }
                // Where nothing is cut, only separators and blanks were without words.
                let ranges = character_ranges(&text, &steps);
                prop_assert!(ranges.iter().all(|(start, end)| start < end));
            }
        }

        #[test]
        fn cutting_never_panics(text in "\\PC{0,200}") {
            for how in all() {
                segment(&text, &how).unwrap();
            }
        }
    }
}
