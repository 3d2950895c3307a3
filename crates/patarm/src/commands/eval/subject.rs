//! Who is measured, from what a user typed, with a memory in front.

use std::sync::Arc;

use patarm_eval::benchmark::{Asks, Benchmark, Orders, Pairwise, Pointwise, Subject};
use patarm_reward::cache::judged::{AnswerCache, Remembering};
use patarm_reward::embedded::ReadOut;
use patarm_reward::judgement::Judgement;
use patarm_reward::model::{ItemFault, JudgeRequest, PointwiseJudge};
use patarm_reward::observer::Observer;

use crate::cli::{EvalMode, Global, JudgeOptions, Measure, OrderChoice, Readout};
use crate::exit::{Code, failure};
use crate::judging::{with_completer, with_pairwise, with_pointwise};
use crate::reward_models::{gives_numbers, with_reward_model};
use crate::{fingerprint, output};

/// Name of the file of answers in the folder of the cache.
const CACHE_FILE: &str = "answers.jsonl";

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
    let asks = benchmark.info().asks;
    let model = match (&options.model, &options.responses) {
        (Some(model), _) => model,
        (None, Some(path)) if asks == Asks::Completions => return act(&Subject::File(path)),
        (None, _) => return Err(failure(Code::Usage, "give --model or --scores")),
    };
    let judge = JudgeOptions { model: model.clone(), asking: options.asking.clone() };
    let writes = matches!(asks, Asks::Completions | Asks::Questions);
    if writes || matches!(options.mode, EvalMode::FourWay | EvalMode::Ratings) {
        return with_completer(&judge, global, observer, &mut |completer| {
            act(&Subject::Completer(completer))
        });
    }
    let folder = options.cache.clone().unwrap_or_else(|| options.out.join("cache"));
    std::fs::create_dir_all(&folder)?;
    let fingerprint = fingerprint::of_judge(&judge, global)?;
    let cache = AnswerCache::open(&folder.join(CACHE_FILE), &fingerprint, observer.as_ref())?;
    match options.mode {
        EvalMode::Pairwise => pairwise((&judge, options.orders), &cache, (global, observer), act)?,
        _ => pointwise(&judge, &cache, (global, observer), act)?,
    }
    if let Some(error) = cache.take_write_error() {
        output::remark(&format!("answers could not be kept: {error}"));
    }
    let counts = cache.counts();
    if counts.num_known > 0 {
        let all = counts.num_known + counts.num_asked;
        output::remark(&format!("{} of {all} answers came from the cache", counts.num_known));
    }
    Ok(())
}

fn pointwise(
    options: &JudgeOptions,
    cache: &AnswerCache<'_>,
    (global, observer): (&Global, &Arc<dyn Observer>),
    act: &mut Use<'_>,
) -> anyhow::Result<()> {
    if gives_numbers(&options.model)? {
        return with_reward_model(options, global, observer, &mut |model| {
            act(&Subject::Reward(&Remembering { inner: model, cache }))
        });
    }
    let readout = match options.asking.readout {
        Readout::Sampled => ReadOut::Sampled,
        Readout::Expected => ReadOut::Expected,
    };
    let votes = options.asking.votes.max(1);
    with_pointwise(options, global, observer, &mut |judge| {
        let judge = AsJudge(judge);
        let judge = &Remembering { inner: &judge, cache };
        act(&Subject::Pointwise(Pointwise { judge, votes, readout }))
    })
}

fn pairwise(
    (options, orders): (&JudgeOptions, OrderChoice),
    cache: &AnswerCache<'_>,
    (global, observer): (&Global, &Arc<dyn Observer>),
    act: &mut Use<'_>,
) -> anyhow::Result<()> {
    let orders = match orders {
        OrderChoice::Both => Orders::Both,
        OrderChoice::Given => Orders::Given,
    };
    let votes = options.asking.votes.max(1);
    with_pairwise(options, global, observer, &mut |judge| {
        let judge = &Remembering { inner: judge, cache };
        act(&Subject::Pairwise(Pairwise { judge, votes, orders }))
    })
}

/// A judge that is a reward model too, seen as a judge only.
struct AsJudge<'a>(&'a dyn crate::judging::Pointwise);

impl PointwiseJudge for AsJudge<'_> {
    fn judge(
        &self,
        requests: &[JudgeRequest],
        votes: usize,
    ) -> Vec<Result<Vec<Judgement>, ItemFault>> {
        self.0.judge(requests, votes)
    }

    fn name(&self) -> String {
        PointwiseJudge::name(self.0)
    }
}
