//! The benchmarks, one file each, and the table of all of them.
//!
//! A new benchmark is a file here and a line in [`ALL`]; the command line and the
//! list in the documentation follow from the table.

pub mod autoj;
pub mod best_of_n;
pub mod hhh;
pub mod infobench;
pub mod instructions;
pub mod judgebench;
pub mod llmbar;
pub mod mtbench_human;
pub mod pairs;
pub mod pandalm;
pub mod ppe;
pub mod rewardbench;
pub mod rewardbench2;
pub mod rmb;
pub mod rmbench;
pub mod steps;
pub mod tool_pairs;

use crate::{
    benchmark::{Benchmark, responses::Responses},
    steps::data::StepBenchmark,
};

/// Every benchmark, in the order of their documentation.
pub static ALL: &[&dyn Benchmark] = &[
    &Responses(rewardbench::RewardBench),
    &Responses(rewardbench2::RewardBench2),
    &Responses(rmbench::RmBench),
    &Responses(judgebench::JudgeBench),
    &Responses(ppe::Ppe),
    &Responses(best_of_n::BestOfN),
    &Responses(rmb::Rmb),
    &Responses(llmbar::LlmBar),
    &Responses(hhh::Hhh),
    &Responses(pandalm::PandaLm),
    &Responses(autoj::AutoJ),
    &Responses(mtbench_human::MtBenchHuman),
    &Responses(pairs::Pairs),
    &instructions::IFEVAL,
    &instructions::IFBENCH,
    &infobench::InfoBench,
    &Responses(tool_pairs::ToolPairs),
    &steps::Steps(StepBenchmark::PrmBench),
    &steps::Steps(StepBenchmark::ProcessBench),
    &steps::Steps(StepBenchmark::BigBenchMistake),
];

/// The benchmark of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static dyn Benchmark> {
    ALL.iter().copied().find(|benchmark| benchmark.info().name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_entries_complete() {
        let mut names = HashSet::new();
        for info in ALL.iter().map(|benchmark| benchmark.info()) {
            assert!(names.insert(info.name), "{} stands twice", info.name);
            assert!(!info.about.is_empty() && !info.data.is_empty(), "{}", info.name);
            assert!(!info.metrics.is_empty() && !info.headline.is_empty(), "{}", info.name);
            assert!(find(info.name).is_some());
        }
        assert!(find("no-such-benchmark").is_none());
    }

    #[test]
    fn every_benchmark_is_documented() {
        let page = include_str!("../../../docs/evaluation.md");
        for info in ALL.iter().map(|benchmark| benchmark.info()) {
            assert!(page.contains(&format!("`{}`", info.name)), "{} is not", info.name);
        }
    }
}
