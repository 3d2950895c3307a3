//! Verdict parsing by policy: one function for the ways published judges are read.

use serde::{Deserialize, Serialize};

use super::MAX_JUDGEMENT_BYTES;

/// Which tagged blocks are searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockChoice {
    /// The first.
    First,
    /// The last.
    Last,
    /// Every one; the whole window where the policy has no tag.
    Any,
}

/// Which of several matches counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchChoice {
    /// The first.
    First,
    /// The last.
    Last,
}

/// Which part of the text is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// All of it.
    All,
    /// The last so many characters.
    Tail(usize),
    /// What follows the last `</think>`; all of it where there is none.
    AfterThink,
}

/// How a label stands within its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Anywhere in it.
    Free,
    /// Alone on a line of its own between the tags.
    OwnLine,
    /// On its own line; where no block has that, alone between the tags.
    OwnLineThenSameLine,
    /// Nothing else between the tags but blanks.
    SameLine,
}

/// How a verdict is read. A text without one yields `None`; there is no fallback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerdictPolicy {
    /// Name of the tag around the verdict; empty = the verdict stands bare.
    pub tag: String,
    /// Which blocks are searched.
    pub block: BlockChoice,
    /// Which match counts.
    #[serde(rename = "match")]
    pub match_choice: MatchChoice,
    /// Which part of the text is looked at.
    pub window: Window,
    /// Refuse a text in which another label matches too.
    pub exclusive: bool,
    /// How a label stands within its block.
    pub layout: Layout,
    /// The labels; at one position the first that fits wins, so `10` comes before `1`.
    pub labels: Vec<String>,
}

impl VerdictPolicy {
    /// Last `<answer>` block, last label within it. Source: Think-RM.
    #[must_use]
    pub fn think_rm(labels: &[&str]) -> Self {
        Self::new("answer", BlockChoice::Last, MatchChoice::Last, labels)
    }

    /// `<answer>[[A]]</answer>` within the last `tail` characters and no other label:
    /// 80 in training, 100 when traces are selected. Source: RM-R1.
    #[must_use]
    pub fn rm_r1_tail(tail: usize) -> Self {
        let policy = Self::new("answer", BlockChoice::Any, MatchChoice::First, &["[[A]]", "[[B]]"]);
        Self { window: Window::Tail(tail), exclusive: true, layout: Layout::SameLine, ..policy }
    }

    /// `[[A]]` or `[[B]]` anywhere, but not both. Source: RM-R1's evaluation.
    #[must_use]
    pub fn rm_r1_evaluation() -> Self {
        let policy = Self::new("", BlockChoice::Any, MatchChoice::First, &["[[A]]", "[[B]]"]);
        Self { exclusive: true, ..policy }
    }

    /// First `<choice>` block with the label on a line of its own. Source: ToolRM.
    #[must_use]
    pub fn toolrm_training() -> Self {
        let policy = Self::new("choice", BlockChoice::Any, MatchChoice::First, &["1", "2"]);
        Self { layout: Layout::OwnLine, ..policy }
    }

    /// The same, falling back to a label on the tags' own line. Source: ToolRM.
    #[must_use]
    pub fn toolrm_evaluation() -> Self {
        Self { layout: Layout::OwnLineThenSameLine, ..Self::toolrm_training() }
    }

    fn new(tag: &str, block: BlockChoice, match_choice: MatchChoice, labels: &[&str]) -> Self {
        Self {
            tag: tag.to_owned(),
            block,
            match_choice,
            window: Window::All,
            exclusive: false,
            layout: Layout::Free,
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
        }
    }

    /// The index of the label that the text states, in time linear in its length.
    #[must_use]
    pub fn parse(&self, text: &str) -> Option<usize> {
        let blocks = self.blocks(self.windowed(text));
        let matches = match self.layout {
            Layout::OwnLineThenSameLine => {
                let own = self.matches(&blocks, Layout::OwnLine);
                if own.is_empty() { self.matches(&blocks, Layout::SameLine) } else { own }
            }
            layout => self.matches(&blocks, layout),
        };
        let chosen = match self.match_choice {
            MatchChoice::First => matches.first(),
            MatchChoice::Last => matches.last(),
        };
        let others = matches.iter().any(|label| Some(label) != chosen);
        if self.exclusive && others { None } else { chosen.copied() }
    }

    fn windowed<'a>(&self, text: &'a str) -> &'a str {
        match self.window {
            Window::All => head(text),
            Window::Tail(chars) => {
                let start = text.char_indices().rev().take(chars).last();
                start.map_or("", |(at, _)| head(&text[at..]))
            }
            Window::AfterThink => {
                let close = "</think>";
                let start = text.rfind(close).map_or(0, |at| at + close.len());
                head(&text[start..])
            }
        }
    }

    fn blocks<'a>(&self, window: &'a str) -> Vec<&'a str> {
        if self.tag.is_empty() {
            return vec![window];
        }
        let all = tagged_blocks(window, &self.tag);
        match self.block {
            BlockChoice::First => all.into_iter().take(1).collect(),
            BlockChoice::Last => all.into_iter().next_back().into_iter().collect(),
            BlockChoice::Any => all,
        }
    }

    fn matches(&self, blocks: &[&str], layout: Layout) -> Vec<usize> {
        blocks.iter().flat_map(|block| self.matches_in(block, layout)).collect()
    }

    fn matches_in(&self, block: &str, layout: Layout) -> Vec<usize> {
        let is_label = |content: &str| self.labels.iter().position(|label| label == content);
        match layout {
            Layout::Free => self.free_matches(block),
            Layout::SameLine => is_label(block.trim_matches([' ', '\t'])).into_iter().collect(),
            Layout::OwnLine | Layout::OwnLineThenSameLine => {
                let inner = block.strip_prefix('\n').and_then(|rest| rest.strip_suffix('\n'));
                inner.and_then(is_label).into_iter().collect()
            }
        }
    }

    /// Non-overlapping labels from left to right.
    fn free_matches(&self, block: &str) -> Vec<usize> {
        let mut found = Vec::new();
        let mut resume = 0;
        for (at, _) in block.char_indices() {
            if at < resume {
                continue;
            }
            let here = &block[at..];
            let fits = |label: &String| !label.is_empty() && here.starts_with(label.as_str());
            if let Some(label) = self.labels.iter().position(fits) {
                found.push(label);
                resume = at + self.labels[label].len();
            }
        }
        found
    }
}

fn head(text: &str) -> &str {
    let mut end = text.len().min(MAX_JUDGEMENT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Contents of non-overlapping blocks, each from an opening to the next closing tag.
fn tagged_blocks<'a>(text: &'a str, tag: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(&open) {
        let inside = &rest[start + open.len()..];
        let Some(end) = inside.find(&close) else {
            break;
        };
        blocks.push(&inside[..end]);
        rest = &inside[end + close.len()..];
    }
    blocks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn think_rm_takes_the_last_label_of_the_last_block() {
        let policy = VerdictPolicy::think_rm(&["A", "B"]);
        assert_eq!(policy.parse("<answer>A</answer> or <answer>not A but B</answer>"), Some(1));
        assert_eq!(policy.parse("<answer>A</answer><answer>neither</answer>"), None);
        assert_eq!(policy.parse("<answer>A"), None);
        let levels = VerdictPolicy::think_rm(&["-3", "-2", "-1", "1", "2", "3"]);
        assert_eq!(levels.parse("<answer>-3</answer>"), Some(0));
        assert_eq!(levels.parse("<answer>2, rather 3</answer>"), Some(5));
    }

    #[test]
    fn rm_r1_reads_the_tail_and_refuses_both() {
        let policy = VerdictPolicy::rm_r1_tail(80);
        assert_eq!(policy.parse("... <answer>[[B]]</answer>"), Some(1));
        assert_eq!(policy.parse("<answer>[[A]]</answer><answer>[[B]]</answer>"), None);
        let early = format!("<answer>[[A]]</answer>{}", "x".repeat(80));
        assert_eq!(policy.parse(&early), None);
        let far = format!("<answer>[[A]]</answer>{}<answer>[[B]]</answer>", "x".repeat(80));
        assert_eq!(policy.parse(&far), Some(1));
        let anywhere = VerdictPolicy::rm_r1_evaluation();
        assert_eq!(anywhere.parse("so [[A]] it is, [[A]]"), Some(0));
        assert_eq!(anywhere.parse("[[A]] or [[B]]"), None);
    }

    #[test]
    fn toolrm_wants_its_own_line_first() {
        let (training, evaluation) =
            (VerdictPolicy::toolrm_training(), VerdictPolicy::toolrm_evaluation());
        let own = "<choice>\n2\n</choice>";
        let same = "<choice>1</choice>";
        assert_eq!(training.parse(own), Some(1));
        assert_eq!(training.parse(same), None);
        assert_eq!(training.parse(&format!("{same}{own}")), Some(1));
        assert_eq!(evaluation.parse(same), Some(0));
        assert_eq!(evaluation.parse(&format!("{same}{own}")), Some(1));
        assert_eq!(training.parse(&format!("{own}<choice>\n1\n</choice>")), Some(1), "first match");
    }

    #[test]
    fn windows_and_blocks() {
        let mut policy = VerdictPolicy::think_rm(&["A", "B"]);
        policy.window = Window::AfterThink;
        assert_eq!(policy.parse("<answer>A</answer></think><answer>B</answer>"), Some(1));
        assert_eq!(policy.parse("<answer>A</answer></think>"), None);
        policy.block = BlockChoice::First;
        assert_eq!(policy.parse("<answer>A</answer><answer>B</answer>"), Some(0));
        policy.window = Window::Tail(0);
        assert_eq!(policy.parse("<answer>A</answer>"), None);
    }

    #[test]
    fn policies_are_plain_data() {
        let policy = VerdictPolicy::rm_r1_tail(80);
        let text = toml::to_string(&policy).unwrap();
        assert!(text.contains("match = \"first\""));
        assert_eq!(toml::from_str::<VerdictPolicy>(&text).unwrap(), policy);
    }

    proptest! {
        #[test]
        fn never_panics(text in "([<>/ab\\[\\]AB12\n é]|<answer>|</answer>|</think>){0,40}", tail in 0usize..50) {
            for policy in [
                VerdictPolicy::think_rm(&["A", "B", ""]),
                VerdictPolicy::rm_r1_tail(tail),
                VerdictPolicy::rm_r1_evaluation(),
                VerdictPolicy::toolrm_evaluation(),
            ] {
                let _ = policy.parse(&text);
            }
        }
    }
}
