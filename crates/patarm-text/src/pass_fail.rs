//! Comparisons from single labels: what passes beats what fails, whatever the prompts.
//!
//! The pairs of SoliReward (arXiv 2512.22170): every passing response beats every failing
//! one, and two passing ones are a tie. Two failing ones are never paired, because
//! failures are not equally bad.

use std::collections::HashSet;

use crate::comparison::{Comparison, Preference};
use crate::dataset::LabelledItem;
use crate::error::{Error, ErrorKind, Result};
use crate::random::{below, mix};
use crate::split::by_own_prompt;

/// Draws tried for each pair before the search is given up.
const MAX_TRIES: usize = 64;

/// How many pairs to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairUp {
    /// Pairs of a passing and a failing response.
    pub wins: usize,
    /// Pairs of two passing responses.
    pub ties: usize,
    /// Seed of every draw.
    pub seed: u64,
}

/// Draws distinct pairs: passing responses take turns, their partners are drawn. Fewer
/// are made where there are no more.
///
/// # Errors
/// When no response passes, or wins are wanted and none fails.
pub fn pair_up(items: &[LabelledItem], options: PairUp) -> Result<Vec<Comparison>> {
    let places = |passes: bool| -> Vec<usize> {
        (0..items.len()).filter(|place| items[*place].passes == passes).collect()
    };
    let (passes, fails) = (places(true), places(false));
    if passes.is_empty() {
        return Err(Error::new(ErrorKind::Data, "no response passes, so that nothing can win"));
    }
    if fails.is_empty() && options.wins > 0 {
        let context = "no response fails, so that nothing can lose; ask for ties alone";
        return Err(Error::new(ErrorKind::Data, context));
    }
    let mut drawing = Drawing { state: mix(options.seed), seen: HashSet::new() };
    let mut pairs = Vec::with_capacity(options.wins + options.ties);
    for (count, partners, label) in
        [(options.wins, &fails, Preference::First), (options.ties, &passes, Preference::Tie)]
    {
        for (first, second) in drawing.pairs(count, &passes, partners) {
            pairs.push(comparison(&items[first], &items[second], label));
        }
    }
    Ok(pairs)
}

struct Drawing {
    state: u64,
    /// Pairs made already, smaller place first.
    seen: HashSet<(usize, usize)>,
}

impl Drawing {
    fn pairs(&mut self, count: usize, passes: &[usize], partners: &[usize]) -> Vec<(usize, usize)> {
        let mut order = passes.to_vec();
        let mut found = Vec::new();
        let mut turn = 0;
        // A whole round without a pair means that there are no more to be found.
        let mut idle = 0;
        while found.len() < count && idle < order.len() {
            if turn == 0 {
                self.shuffle(&mut order);
            }
            let first = order[turn];
            turn = (turn + 1) % order.len();
            match self.partner(first, partners) {
                Some(second) => {
                    found.push((first, second));
                    idle = 0;
                }
                None => idle += 1,
            }
        }
        found
    }

    /// A partner that makes a new pair: by draws, then by looking at all of them.
    fn partner(&mut self, first: usize, partners: &[usize]) -> Option<usize> {
        for _ in 0..MAX_TRIES {
            let second = partners[below(&mut self.state, partners.len())];
            if self.is_new(first, second) {
                return Some(second);
            }
        }
        let start = below(&mut self.state, partners.len());
        let mut all = partners[start..].iter().chain(&partners[..start]).copied();
        all.find(|&second| self.is_new(first, second))
    }

    fn is_new(&mut self, first: usize, second: usize) -> bool {
        first != second && self.seen.insert((first.min(second), first.max(second)))
    }

    fn shuffle(&mut self, order: &mut [usize]) {
        for n in (1..order.len()).rev() {
            order.swap(n, below(&mut self.state, n + 1));
        }
    }
}

fn comparison(first: &LabelledItem, second: &LabelledItem, label: Preference) -> Comparison {
    Comparison {
        id: format!("{}:{}", first.id, second.id),
        first: first.item.clone(),
        second: second.item.clone(),
        label,
        strength: None,
        task: None,
        subset: None,
    }
}

/// Training and held-out items that share no prompt: a prompt's part depends on its words
/// and the seed alone.
///
/// # Errors
/// When the share is not between 0 and 1.
pub fn split_labelled(
    items: Vec<LabelledItem>,
    held_out_share: f64,
    seed: u64,
) -> Result<(Vec<LabelledItem>, Vec<LabelledItem>)> {
    by_own_prompt(items, |one| &one.item.prompt, held_out_share, seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::Item;
    use crate::conversation::Conversation;
    use crate::words::prompt_hash;

    fn items(count: usize) -> Vec<LabelledItem> {
        let one = |n: usize| LabelledItem {
            id: n.to_string(),
            item: Item {
                prompt: Conversation::from_user(format!("Prompt {}?", n / 3)),
                response: format!("response {n}"),
            },
            passes: n.is_multiple_of(2),
        };
        (0..count).map(one).collect()
    }

    fn passes(item: &Item) -> bool {
        let number = item.response.rsplit(' ').next().and_then(|n| n.parse::<usize>().ok());
        number.is_some_and(|n| n.is_multiple_of(2))
    }

    #[test]
    fn passing_ones_win_or_tie_and_two_failing_ones_never_meet() {
        let pairs = pair_up(&items(60), PairUp { wins: 200, ties: 150, seed: 1 }).expect("pairs");
        let mut ids = HashSet::new();
        let mut turns = std::collections::HashMap::<&str, usize>::new();
        for pair in &pairs {
            assert!(passes(&pair.first), "{}", pair.id);
            assert_eq!(passes(&pair.second), pair.label == Preference::Tie);
            assert_ne!(pair.first, pair.second);
            assert!(ids.insert(&pair.id), "{} twice", pair.id);
            if pair.label == Preference::First {
                *turns.entry(&pair.first.response).or_default() += 1;
            }
        }
        let ties = pairs.iter().filter(|pair| pair.label == Preference::Tie).count();
        assert_eq!((pairs.len() - ties, ties), (200, 150));
        assert!(turns.values().all(|count| (6..=7).contains(count)), "all take turns: {turns:?}");
        let crossed = pairs.iter().filter(|pair| pair.first.prompt != pair.second.prompt).count();
        assert!(crossed > pairs.len() / 2, "prompts are crossed");
    }

    #[test]
    fn all_pairs_are_found_and_no_more() {
        // Five pass, five fail: 25 wins, 10 ties.
        let pairs = pair_up(&items(10), PairUp { wins: 1000, ties: 1000, seed: 3 }).expect("pairs");
        let ties = pairs.iter().filter(|pair| pair.label == Preference::Tie).count();
        assert_eq!((pairs.len() - ties, ties), (25, 10));
    }

    #[test]
    fn the_seed_decides_and_one_sided_data_are_told() {
        let options = PairUp { wins: 20, ties: 10, seed: 1 };
        let pairs = |seed: u64| pair_up(&items(40), PairUp { seed, ..options }).expect("pairs");
        assert_eq!(pairs(1), pairs(1));
        assert_ne!(pairs(1), pairs(2));
        let only = |passes: bool| -> Vec<LabelledItem> {
            items(10).into_iter().map(|one| LabelledItem { passes, ..one }).collect()
        };
        assert!(pair_up(&only(false), options).is_err());
        assert!(pair_up(&only(true), options).is_err());
        let ties = pair_up(&only(true), PairUp { wins: 0, ..options }).expect("ties");
        assert_eq!(ties.len(), 10);
    }

    #[test]
    fn parts_share_no_prompt() {
        let (train, held_out) = split_labelled(items(600), 0.3, 5).expect("splits");
        let prompts = |part: &[LabelledItem]| {
            part.iter().map(|one| prompt_hash(&one.item.prompt)).collect::<HashSet<_>>()
        };
        assert!(prompts(&train).is_disjoint(&prompts(&held_out)));
        assert!((120..240).contains(&held_out.len()), "{}", held_out.len());
        assert!(split_labelled(items(6), 0.0, 5).expect("splits").1.is_empty());
        assert!(split_labelled(items(6), 1.1, 5).is_err());
    }
}
