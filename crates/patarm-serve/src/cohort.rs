//! Cohorts: rewards that need several rollouts, for callers that each hold one.
//!
//! The preference-aware reward of a judgement depends on the mean score of the *other*
//! side of its pair, and a group-relative reward on the rest of its group. Trainers
//! often ask for rewards one sample at a time, from many workers. Here every rollout
//! joins the cohort it names, and its caller is answered when the cohort is complete.
//!
//! Everything in this module is a pure state machine: time is an argument, callers are
//! opaque waiters, and nothing blocks. Whatever the order of arrival, the rewards are
//! those of [`rewards`], the rule applied to the whole cohort at once.
//!
//! | event | what happens |
//! |---|---|
//! | first rollout of an unknown cohort | the cohort opens, with the declaration of that rollout |
//! | a rollout that declares something else | it is refused, the cohort goes on |
//! | the same rollout id again, same content | the same answer, now or when there is one |
//! | the same rollout id, other content | it is refused |
//! | a new rollout on a full side | it is refused |
//! | the last expected rollout | the cohort completes, all callers are answered |
//! | the time-out | all callers are refused, or answered from what is there ([`OnTimeout`]) |
//! | cancellation | all callers are refused |
//! | a caller goes away | its rollout stays and counts; asking again with its id waits again |
//! | a new rollout for a cohort that has ended | it is refused, saying how the cohort ended |
//! | some time after the end | the cohort is forgotten, its id is free again |
//! | a limit | ended cohorts are forgotten first, then new arrivals are refused as busy |

mod arrival;
mod config;
mod life;
mod rule;
mod store;

pub use arrival::{Arrival, Declaration, Place, Side};
pub use config::{CohortConfig, OnTimeout};
pub use rule::{Answer, GroupRule, rewards};
pub use store::{CohortCounts, CohortPhase, CohortState, Cohorts, Delivery, Refusal, Waiter};

#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod tests;
