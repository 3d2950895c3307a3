//! Training and held-out parts that share no prompt.
//!
//! Comparisons with the same prompt (whatever its case, blanks and punctuation)
//! stay together, also when it is the prompt of one side only. Which part a prompt
//! goes to depends on its words and the seed alone, not on the order of the file.

use std::collections::HashMap;

use crate::comparison::Comparison;
use crate::conversation::Conversation;
use crate::error::{Error, ErrorKind, Result};
use crate::random::mix;
use crate::words::prompt_hash;

/// How much to hold out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HeldOut {
    /// This share of the prompts, between 0 and 1, chosen prompt by prompt: a
    /// prompt's part stays the same when others come or go.
    Share(f64),
    /// Prompts with together at least this many comparisons.
    AtLeast(usize),
}

/// Two parts without a common prompt, each in the order of the input.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Split {
    /// To train on.
    pub train: Vec<Comparison>,
    /// To measure with.
    pub held_out: Vec<Comparison>,
}

/// Splits comparisons by prompt.
///
/// # Errors
/// When the share is not between 0 and 1, or fewer comparisons are there than are
/// to be held out.
pub fn split(comparisons: Vec<Comparison>, held_out: HeldOut, seed: u64) -> Result<Split> {
    let groups = groups(&comparisons);
    let key = |group: u64| mix(group ^ mix(seed));
    let limit = match held_out {
        HeldOut::Share(share) => share_limit(share)?,
        HeldOut::AtLeast(count) => count_limit(&groups, count, key)?,
    };
    let mut split = Split::default();
    for (comparison, group) in comparisons.into_iter().zip(groups) {
        let is_out = limit.is_some_and(|limit| key(group) <= limit);
        if is_out { &mut split.held_out } else { &mut split.train }.push(comparison);
    }
    Ok(split)
}

/// Splits anything that has a prompt: which part a prompt goes to depends on its words
/// and the seed alone. Returns what is for training and what is held out.
pub(crate) fn by_own_prompt<T>(
    all: Vec<T>,
    prompt: impl Fn(&T) -> &Conversation,
    share: f64,
    seed: u64,
) -> Result<(Vec<T>, Vec<T>)> {
    let limit = share_limit(share)?;
    let key = |one: &T| mix(prompt_hash(prompt(one)) ^ mix(seed));
    let is_out = |one: &T| limit.is_some_and(|limit| key(one) <= limit);
    let (held_out, train) = all.into_iter().partition(is_out);
    Ok((train, held_out))
}

/// The largest key that is held out; `None` for none at all.
fn share_limit(share: f64) -> Result<Option<u64>> {
    if !(0.0..=1.0).contains(&share) {
        let context = format!("the share to hold out is {share}, not between 0 and 1");
        return Err(Error::new(ErrorKind::Recipe, context));
    }
    // Conversion to an integer saturates, so that a share of 1 takes every key.
    let limit = (share * u64::MAX as f64) as u64;
    Ok(limit.checked_sub(1).map(|below| if share < 1.0 { below } else { u64::MAX }))
}

fn count_limit(groups: &[u64], count: usize, key: impl Fn(u64) -> u64) -> Result<Option<u64>> {
    if count > groups.len() {
        let context =
            format!("{count} comparisons are to be held out, but only {} are there", groups.len());
        return Err(Error::new(ErrorKind::Data, context));
    }
    let mut keys: Vec<u64> = groups.iter().map(|&group| key(group)).collect();
    keys.sort_unstable();
    Ok(count.checked_sub(1).map(|last| keys[last]))
}

/// For each comparison the smallest hash among all prompts it is linked to.
fn groups(comparisons: &[Comparison]) -> Vec<u64> {
    let mut links = Links::default();
    let pairs: Vec<(u64, u64)> = comparisons
        .iter()
        .map(|comparison| {
            let first = prompt_hash(&comparison.first.prompt);
            let same = comparison.first.prompt == comparison.second.prompt;
            (first, if same { first } else { prompt_hash(&comparison.second.prompt) })
        })
        .collect();
    for &(first, second) in &pairs {
        links.join(first, second);
    }
    pairs.into_iter().map(|(first, _)| links.root(first)).collect()
}

/// Sets of linked prompts; every prompt points towards the smallest of its set.
#[derive(Debug, Default)]
struct Links(HashMap<u64, u64>);

impl Links {
    fn root(&mut self, prompt: u64) -> u64 {
        let mut root = prompt;
        while let Some(&next) = self.0.get(&root) {
            root = next;
        }
        // Shorten the way for the next time.
        let mut at = prompt;
        while let Some(next) = self.0.get_mut(&at) {
            at = std::mem::replace(next, root);
        }
        root
    }

    fn join(&mut self, a: u64, b: u64) {
        let (a, b) = (self.root(a), self.root(b));
        if a != b {
            self.0.insert(a.max(b), a.min(b));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::comparison::{Item, Preference};
    use crate::conversation::Conversation;

    fn pair(first: u32, second: u32) -> Comparison {
        let item = |prompt: u32| Item {
            prompt: Conversation::from_user(format!("Prompt {prompt}?")),
            response: String::new(),
        };
        Comparison {
            id: format!("{first}/{second}"),
            first: item(first),
            second: item(second),
            label: Preference::First,
            strength: None,
            task: None,
            subset: None,
        }
    }

    fn prompts(part: &[Comparison]) -> std::collections::HashSet<u64> {
        part.iter()
            .flat_map(|one| [prompt_hash(&one.first.prompt), prompt_hash(&one.second.prompt)])
            .collect()
    }

    #[test]
    fn shares_are_about_right_and_counts_are_kept() {
        let all: Vec<Comparison> = (0..2000).map(|index| pair(index, index)).collect();
        let out = |held_out| split(all.clone(), held_out, 1).unwrap().held_out.len();
        assert!((150..250).contains(&out(HeldOut::Share(0.1))));
        assert_eq!((out(HeldOut::Share(0.0)), out(HeldOut::Share(1.0))), (0, 2000));
        assert_eq!((out(HeldOut::AtLeast(0)), out(HeldOut::AtLeast(77))), (0, 77));
        assert!(split(all.clone(), HeldOut::AtLeast(2001), 1).is_err());
        assert!(split(all.clone(), HeldOut::Share(f64::NAN), 1).is_err());
        assert!(split(all, HeldOut::Share(-0.1), 1).is_err());
    }

    #[test]
    fn order_and_company_change_nothing_and_the_seed_does() {
        let all: Vec<Comparison> = (0..200).map(|index| pair(index, index)).collect();
        let ids = |part: Vec<Comparison>| {
            let mut ids: Vec<String> = part.into_iter().map(|one| one.id).collect();
            ids.sort();
            ids
        };
        let held = |list: Vec<Comparison>, seed| {
            ids(split(list, HeldOut::Share(0.5), seed).unwrap().held_out)
        };
        let mut reversed = all.clone();
        reversed.reverse();
        assert_eq!(held(all.clone(), 3), held(reversed, 3));
        assert_ne!(held(all.clone(), 3), held(all.clone(), 4));
        let half: Vec<Comparison> = all[..100].to_vec();
        assert!(held(half, 3).iter().all(|id| held(all.clone(), 3).contains(id)));
    }

    proptest! {
        #[test]
        fn parts_share_no_prompt(
            links in prop::collection::vec((0u32..30, 0u32..30), 1..60),
            seed in any::<u64>(),
        ) {
            let all: Vec<Comparison> = links.iter().map(|&(a, b)| pair(a, b)).collect();
            let count = all.len();
            for held_out in [HeldOut::Share(0.4), HeldOut::AtLeast(count / 3)] {
                let parts = split(all.clone(), held_out, seed).unwrap();
                prop_assert_eq!(parts.train.len() + parts.held_out.len(), count);
                prop_assert!(prompts(&parts.train).is_disjoint(&prompts(&parts.held_out)));
            }
        }
    }
}
