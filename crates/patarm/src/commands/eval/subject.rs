//! Who is measured, from what a user typed.

use std::sync::Arc;

use patarm_eval::benchmark::{Asks, Benchmark, Orders, Pairwise, Pointwise, Subject};
use patarm_reward::embedded::ReadOut;
use patarm_reward::observer::Observer;

use crate::cli::{Global, JudgeMode, JudgeOptions, Measure, OrderChoice, Readout};
use crate::exit::{Code, failure};
use crate::judging::{with_pairwise, with_pointwise};

/// What to do with the subject once it is there.
pub(super) type Use<'a> = dyn FnMut(&Subject<'_>) -> anyhow::Result<()> + 'a;

/// Opens what the options name and hands it to `act`.
pub(super) fn with(
    benchmark: &dyn Benchmark,
    options: &Measure,
    global: &Global,
    observer: &Arc<dyn Observer>,
    act: &mut Use<'_>,
) -> anyhow::Result<()> {
    if let Some(path) = &options.scores {
        return act(&Subject::File(path));
    }
    let Some(model) = &options.model else {
        return Err(failure(Code::Usage, "give --model or --scores"));
    };
    let judge = JudgeOptions { model: model.clone(), asking: options.asking.clone() };
    match benchmark.info().asks {
        Asks::Responses | Asks::Steps => match options.mode {
            JudgeMode::Pointwise => pointwise(&judge, global, observer, act),
            JudgeMode::Pairwise => pairwise(&judge, options.orders, (global, observer), act),
        },
        Asks::Completions | Asks::Questions => Err(failure(
            Code::Usage,
            format!("{} is not measured on a model yet; use --scores", benchmark.info().name),
        )),
    }
}

fn pointwise(
    options: &JudgeOptions,
    global: &Global,
    observer: &Arc<dyn Observer>,
    act: &mut Use<'_>,
) -> anyhow::Result<()> {
    let readout = match options.asking.readout {
        Readout::Sampled => ReadOut::Sampled,
        Readout::Expected => ReadOut::Expected,
    };
    let votes = options.asking.votes.max(1);
    with_pointwise(options, global, observer, &mut |judge| {
        act(&Subject::Pointwise(Pointwise { judge: &AsJudge(judge), votes, readout }))
    })
}

fn pairwise(
    options: &JudgeOptions,
    orders: OrderChoice,
    (global, observer): (&Global, &Arc<dyn Observer>),
    act: &mut Use<'_>,
) -> anyhow::Result<()> {
    let orders = match orders {
        OrderChoice::Both => Orders::Both,
        OrderChoice::Given => Orders::Given,
    };
    let votes = options.asking.votes.max(1);
    with_pairwise(options, global, observer, &mut |judge| {
        act(&Subject::Pairwise(Pairwise { judge, votes, orders }))
    })
}

/// A judge that is a reward model too, seen as a judge only.
struct AsJudge<'a>(&'a dyn crate::judging::Pointwise);

impl patarm_reward::model::PointwiseJudge for AsJudge<'_> {
    fn judge(
        &self,
        requests: &[patarm_reward::model::JudgeRequest],
        votes: usize,
    ) -> Vec<Result<Vec<patarm_reward::judgement::Judgement>, patarm_reward::model::ItemFault>>
    {
        self.0.judge(requests, votes)
    }

    fn name(&self) -> String {
        patarm_reward::model::PointwiseJudge::name(self.0)
    }
}
