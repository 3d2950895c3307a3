//! An item of a benchmark that scores responses.

use patarm_text::{Conversation, Preference, Task};
use serde_json::{Map, Value};

/// A prompt and its responses, in the benchmark's own order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Item {
    /// Identity, unique within the data.
    pub id: String,
    /// Part of the benchmark it belongs to; empty where there are no parts.
    pub subset: String,
    /// What the responses answer.
    pub prompt: Conversation,
    /// The responses.
    pub responses: Vec<String>,
    /// Prompts of the responses where they differ, else empty.
    pub own_prompts: Vec<Conversation>,
    /// Which responses are better.
    pub label: Label,
    /// Kind of work, where the data says.
    pub task: Option<Task>,
    /// Items that share it are resampled together; the prompt's text where empty.
    pub group: String,
    /// Lengths of the responses in characters; counted when asked for where empty.
    pub lengths: Vec<usize>,
    /// Other fields that the benchmark's figures or files need.
    pub extra: Map<String, Value>,
}

/// What the data says of the responses.
#[derive(Clone, Debug, PartialEq)]
pub enum Label {
    /// For each response, whether it is right.
    Correct(Vec<bool>),
    /// Which of two responses is preferred; ties are labels too.
    Preference(Preference),
}

impl Default for Label {
    fn default() -> Self {
        Self::Correct(Vec::new())
    }
}

impl Item {
    /// An item of one right response before one wrong one.
    #[must_use]
    pub fn pair(id: String, prompt: Conversation, chosen: String, rejected: String) -> Self {
        let (responses, label) = (vec![chosen, rejected], Label::Correct(vec![true, false]));
        Self { id, prompt, responses, label, ..Self::default() }
    }

    /// The prompt of a response.
    #[must_use]
    pub fn prompt_of(&self, response: usize) -> &Conversation {
        self.own_prompts.get(response).unwrap_or(&self.prompt)
    }

    /// Indices of the right responses.
    #[must_use]
    pub fn right(&self) -> Vec<usize> {
        self.indices(true)
    }

    /// Indices of the wrong responses.
    #[must_use]
    pub fn wrong(&self) -> Vec<usize> {
        self.indices(false)
    }

    fn indices(&self, wanted: bool) -> Vec<usize> {
        match &self.label {
            Label::Correct(correct) => {
                (0..correct.len()).filter(|&index| correct[index] == wanted).collect()
            }
            Label::Preference(Preference::First) => vec![usize::from(!wanted)],
            Label::Preference(Preference::Second) => vec![usize::from(wanted)],
            Label::Preference(_) => Vec::new(),
        }
    }

    /// Every (right, wrong) pair of responses.
    #[must_use]
    pub fn labelled_pairs(&self) -> Vec<(usize, usize)> {
        let (right, wrong) = (self.right(), self.wrong());
        right.iter().flat_map(|&r| wrong.iter().map(move |&w| (r, w))).collect()
    }

    /// Length of a response in characters.
    #[must_use]
    pub fn length(&self, response: usize) -> usize {
        match self.lengths.get(response) {
            Some(&length) => length,
            None => self.responses.get(response).map_or(0, |text| text.chars().count()),
        }
    }

    /// Counts the lengths once and for all.
    pub(crate) fn count_lengths(&mut self) {
        self.lengths = self.responses.iter().map(|text| text.chars().count()).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_name_sides() {
        let pair = Item::pair("a".into(), Conversation::from_user("p"), "good".into(), "b".into());
        assert_eq!(pair.labelled_pairs(), [(0, 1)]);
        assert_eq!((pair.length(0), pair.length(7)), (4, 0));
        let second = Item { label: Label::Preference(Preference::Second), ..pair.clone() };
        assert_eq!(second.labelled_pairs(), [(1, 0)]);
        let tie = Item { label: Label::Preference(Preference::Tie), ..pair.clone() };
        assert!(tie.labelled_pairs().is_empty());
        let matrix = Item { label: Label::Correct(vec![true, true, false]), ..pair };
        assert_eq!(matrix.labelled_pairs(), [(0, 2), (1, 2)]);
    }
}
