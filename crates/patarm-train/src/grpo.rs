//! Reinforcement of a judge with the preference-aware reward, on pairs.
//!
//! Implements sections 4 and 14 of the method notes: `n` judgements of the chosen
//! and `n` of the rejected response are two GRPO groups whose rewards are computed
//! jointly, because each side is compared with the mean of the other.
//!
//! # Deviations
//! - Runs are "PaTaRM-style": the paper's exact constants are not confirmed, so
//!   every one is a field of the recipe.
//! - `marginal` integrates the score out (ours, not the paper's); `sampled` is the
//!   paper's estimator; `sampled_score_only` is the control between them.
//! - Old log-probabilities come from the training forward of the first inner step,
//!   not from the rollout; the gap between the two is logged.
//! - Cold-start replay may hold the text in place; it fades out linearly.

use std::collections::BTreeMap;

use patarm_models::{Decoder, TargetStatistics, TreeBuilder};
use patarm_reward::advantage::ZeroVarianceCounts;
use patarm_reward::embedded::{JudgeSampling, StopAt};
use patarm_reward::judgement::FormatFault;
use patarm_reward::model::Evaluator;

use crate::batches::batch_indices;
use crate::error::Error;
use crate::judgement_batch::{BatchLoss, EncodedJudgement, TokenWeights, accumulate, score_range};
use crate::pair_loss::{
    Denominator, FrozenPair, LossReport, PairReport, PlacedJudgement, freeze, judgement_loss,
};
use crate::parsing::read_judgement;
use crate::recipe::{GrpoConfig, ScoreEstimator};
use crate::rollout::{EncodedPair, PairRollouts, roll_out};
use crate::run_directory::Phase;
use crate::trainer::{Meter, Trainer, peak_memory_bytes};
use patarm_reward::policy_loss::LossLevel;
use patarm_reward::policy_loss::kl::KlEstimator;

/// Stream of the order of pairs.
const ORDER_STREAM: u64 = 0x9a15;
/// Stream of the order of replayed judgements.
const REPLAY_STREAM: u64 = 0x4e91;

/// What the stage trains on.
#[derive(Debug)]
pub struct GrpoData<'a> {
    /// Encoded training pairs.
    pub pairs: &'a [EncodedPair],
    /// Cold-start judgements for replay; empty = none.
    pub replay: &'a [EncodedJudgement],
    /// The policy the KL term refers to, where there is one.
    pub reference: Option<&'a Decoder>,
}

/// Lets an evaluator measure the decoder in training.
pub type Measure<'a> = dyn Fn(&Decoder, &dyn Evaluator) -> f64 + 'a;

/// Trains until the stage's last step.
///
/// # Errors
/// When a pair does not fit, a file cannot be written, or the user stops.
pub fn train(
    trainer: &mut Trainer<'_>,
    config: &GrpoConfig,
    data: &GrpoData<'_>,
    measure: &Measure<'_>,
) -> Result<(), Error> {
    if data.pairs.is_empty() {
        return Err(Error::Data("there is no labelled pair to learn from".into()));
    }
    if config.loss.kl_estimator != KlEstimator::Off
        && config.loss.kl_coefficient != 0.0
        && data.reference.is_none()
    {
        return Err(Error::Data("the KL term needs a reference model".into()));
    }
    let observer = trainer.context.observer;
    observer.begin("preference-aware reinforcement", config.steps);
    while trainer.position.step < config.steps {
        step(trainer, config, data)?;
        keep_best(trainer, config, measure)?;
        trainer.after_step(config.steps)?;
    }
    observer.end();
    Ok(())
}

/// One batch of rollouts and its inner updates.
fn step(trainer: &mut Trainer<'_>, config: &GrpoConfig, data: &GrpoData<'_>) -> Result<(), Error> {
    let step = trainer.position.step + 1;
    let mut log = StepLog::default();
    let rollouts = log.rollout.time_result(|| collect(trainer, config, data))?;
    log.rollout.tokens = rollouts
        .iter()
        .flat_map(|pair| pair.sides.iter().flatten())
        .map(|one| one.tokens.len())
        .sum();
    let parsed: Vec<[Vec<Parsed>; 2]> =
        rollouts.iter().map(|pair| parse_pair(trainer, config, pair)).collect();
    let mut frozen: Vec<Option<FrozenPair>> = vec![None; rollouts.len()];
    for _ in 0..config.inner_steps {
        trainer.clear_gradients();
        let batch = Batch { rollouts: &rollouts, parsed: &parsed, data };
        let mut train = Meter::default();
        train.time_result(|| policy_gradient(trainer, config, &batch, (&mut frozen, &mut log)))?;
        train.time_result(|| replay(trainer, config, data, step, &mut log))?;
        let update = train.time(|| trainer.update(&config.optimizer, step, config.steps));
        log.gradient_norm = update.gradient_norm;
        log.learning_rate = update.learning_rate;
        log.train.seconds += train.seconds;
    }
    trainer.position.step = step;
    log.peak_memory_bytes = peak_memory_bytes(trainer.decoder.backend.as_ref());
    let reports: Vec<&PairReport> = frozen.iter().flatten().map(|pair| &pair.report).collect();
    let values = log.values(&reports, &rollouts, &parsed, config);
    trainer.run.metrics(Phase::Grpo, step, &values)?;
    sample_records(trainer, &rollouts, step)?;
    let shown: BTreeMap<&str, f64> =
        values.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let note = format!(
        "pair accuracy {:.2}  margin {:+.2}  faults {:.1} %",
        shown["pair_accuracy"],
        shown["margin"],
        100.0 * shown["format_fault_rate"]
    );
    trainer.context.observer.advance(step, &note);
    Ok(())
}

/// A judgement as the reward sees it.
type Parsed = (patarm_reward::par::ParScore, std::ops::Range<usize>);

struct Batch<'a> {
    rollouts: &'a [PairRollouts],
    parsed: &'a [[Vec<Parsed>; 2]],
    data: &'a GrpoData<'a>,
}

/// Draws judgements for one update; with dynamic sampling, pairs in which neither
/// side has signal make room for further ones.
fn collect(
    trainer: &mut Trainer<'_>,
    config: &GrpoConfig,
    data: &GrpoData<'_>,
) -> Result<Vec<PairRollouts>, Error> {
    let seed = trainer.context.recipe.seed;
    let stop = match config.estimator {
        ScoreEstimator::Marginal => StopAt::BeforeScore,
        ScoreEstimator::Sampled | ScoreEstimator::SampledScoreOnly => StopAt::AfterScore,
    };
    let sampling = JudgeSampling {
        seed,
        temperature: config.temperature,
        top_p: config.top_p,
        max_tokens: trainer.context.recipe.judge.max_judgement_tokens,
        stop,
        read_scores: false,
    };
    let mut kept: Vec<PairRollouts> = Vec::new();
    for _ in 0..=config.dynamic_sampling.max_resamples {
        trainer.position.draws += 1;
        let draw = trainer.position.draws;
        let batch = batch_indices(data.pairs.len(), config.pairs, draw, (seed, ORDER_STREAM));
        let silent = patarm_reward::observer::Silent;
        let drawn = roll_out(
            &trainer.decoder,
            trainer.context.text,
            (data.pairs, &batch),
            (config.num_judgements, draw),
            &sampling,
            &silent,
        )?;
        kept.extend(drawn.into_iter().filter(|pair| {
            config.dynamic_sampling.max_resamples == 0 || has_signal(trainer, config, pair)
        }));
        if kept.len() >= config.pairs {
            break;
        }
    }
    kept.truncate(config.pairs);
    Ok(kept)
}

fn has_signal(trainer: &Trainer<'_>, config: &GrpoConfig, pair: &PairRollouts) -> bool {
    if config.estimator == ScoreEstimator::Marginal {
        return true;
    }
    let [chosen, rejected] = parse_pair(trainer, config, pair);
    let scores = |side: Vec<Parsed>| side.into_iter().map(|(score, _)| score).collect::<Vec<_>>();
    let outcome = patarm_reward::par::par(&scores(chosen), &scores(rejected), &config.par);
    let mut counts = ZeroVarianceCounts::default();
    counts.add(&outcome.chosen);
    counts.add(&outcome.rejected);
    counts.total() < 2
}

fn parse_pair(trainer: &Trainer<'_>, config: &GrpoConfig, pair: &PairRollouts) -> [Vec<Parsed>; 2] {
    let text = trainer.context.text;
    let is_marginal = config.estimator == ScoreEstimator::Marginal;
    let parse = |raw: &patarm_reward::embedded::RawJudgement| {
        let score = read_judgement(raw, text, is_marginal);
        let tokens = if is_marginal { 0..0 } else { score_range(text, &raw.tokens) };
        (score, tokens)
    };
    [0, 1].map(|side| pair.sides[side].iter().map(parse).collect())
}

/// Forward, rewards and backward over all pairs, in forests of whole pairs.
fn policy_gradient(
    trainer: &mut Trainer<'_>,
    config: &GrpoConfig,
    batch: &Batch<'_>,
    (frozen, log): (&mut [Option<FrozenPair>], &mut StepLog),
) -> Result<(), Error> {
    let denominator = denominator(config, batch);
    let mut next = 0;
    while next < batch.rollouts.len() {
        let (forest, placed) = place(trainer, config, batch, next);
        let taken = placed.len();
        forward_backward(
            trainer,
            config,
            (batch, next),
            (forest, &placed),
            denominator,
            (frozen, log),
        )?;
        next += taken;
    }
    Ok(())
}

fn denominator(config: &GrpoConfig, batch: &Batch<'_>) -> Denominator {
    let rollouts = || batch.rollouts.iter().flat_map(|pair| pair.sides.iter().flatten());
    let count = match config.loss.level {
        LossLevel::Sequence => rollouts().count(),
        LossLevel::Token => match config.estimator {
            // The integrated score counts as one token of its judgement.
            ScoreEstimator::Marginal => rollouts().map(|one| one.tokens.len() + 1).sum(),
            ScoreEstimator::Sampled => rollouts().map(|one| one.tokens.len()).sum(),
            ScoreEstimator::SampledScoreOnly => {
                batch.parsed.iter().flatten().flatten().map(|(_, tokens)| tokens.len()).sum()
            }
        },
    };
    Denominator { value: (count as f64).max(1.0) }
}

type Placed = Vec<[Vec<PlacedJudgement>; 2]>;

/// Puts whole pairs into one forest, as many as the recipe's budget takes.
fn place(
    trainer: &Trainer<'_>,
    config: &GrpoConfig,
    batch: &Batch<'_>,
    first: usize,
) -> (TreeBuilder, Placed) {
    let outcomes: Vec<&[u32]> =
        trainer.context.text.outcomes().iter().map(|outcome| outcome.tokens.as_slice()).collect();
    let mut tree = TreeBuilder::default();
    let mut placed = Vec::new();
    for (rollouts, parsed) in batch.rollouts[first..].iter().zip(&batch.parsed[first..]) {
        if !placed.is_empty() && tree.num_tokens() >= config.micro_batch_tokens {
            break;
        }
        let prompts = &batch.data.pairs[rollouts.pair].sides;
        placed.push([0, 1].map(|side| {
            let leaf = tree.path(&prompts[side]);
            let each = rollouts.sides[side].iter().zip(&parsed[side]);
            let mut place_one =
                |(raw, (score, tokens)): (&patarm_reward::embedded::RawJudgement, &Parsed)| {
                    let is_read =
                        config.estimator == ScoreEstimator::Marginal && score.score.is_ok();
                    let branches = if is_read { outcomes.as_slice() } else { &[] };
                    let targets = tree.branching_completion(leaf, &raw.tokens, branches);
                    PlacedJudgement { targets, score: *score, score_tokens: tokens.clone() }
                };
            each.map(&mut place_one).collect()
        }));
    }
    (tree, placed)
}

fn forward_backward(
    trainer: &mut Trainer<'_>,
    config: &GrpoConfig,
    (batch, first): (&Batch<'_>, usize),
    (tree, placed): (TreeBuilder, &Placed),
    denominator: Denominator,
    (frozen, log): (&mut [Option<FrozenPair>], &mut StepLog),
) -> Result<(), Error> {
    let (forest, targets) = tree.finish();
    let options = trainer.forward_options();
    let temperature = config.temperature as f32;
    let saved = trainer.decoder.forward(&forest, &options)?;
    let statistics =
        trainer.decoder.target_statistics_for_backward(&saved.hidden, &targets, temperature);
    let reference = batch.data.reference.map(|reference| -> Result<TargetStatistics, Error> {
        let saved = reference.forward(&forest, &options)?;
        Ok(reference.target_statistics(&saved.hidden, &targets, temperature))
    });
    let reference = reference.transpose()?;
    let grid: Vec<f64> =
        trainer.context.text.outcomes().iter().map(|outcome| outcome.score).collect();
    let mut d_logprobs = vec![0.0f32; statistics.logprobs.len()];
    for (offset, sides) in placed.iter().enumerate() {
        let slot = &mut frozen[first + offset];
        if slot.is_none() {
            log.compare_with_rollout(&batch.rollouts[first + offset], sides, &statistics);
            *slot = Some(freeze(sides, &statistics, &grid, config)?);
        }
        let Some(pair) = slot.as_ref() else { continue };
        for (judgements, frozen_side) in sides.iter().zip(&pair.sides) {
            for one in judgements.iter().zip(frozen_side) {
                let sources = (&statistics, reference.as_ref());
                log.add(judgement_loss(one, sources, config, denominator, &mut d_logprobs)?);
            }
        }
    }
    log.entropy.extend(statistics.entropy.iter().map(|value| f64::from(*value)));
    log.train.tokens += forest.num_tokens();
    log.num_row_tokens += forest.num_row_tokens();
    let decoder = &trainer.decoder;
    let gradients = &mut trainer.gradients;
    let d_hidden =
        decoder.target_statistics_backward(&saved, &statistics, &d_logprobs, None, gradients);
    decoder.backward(&saved, &d_hidden, &[], gradients);
    Ok(())
}

/// Adds the gradient of a few cold-start judgements, score tokens left out.
fn replay(
    trainer: &mut Trainer<'_>,
    config: &GrpoConfig,
    data: &GrpoData<'_>,
    step: u64,
    log: &mut StepLog,
) -> Result<(), Error> {
    if config.replay.batch == 0 || data.replay.is_empty() {
        return Ok(());
    }
    let done = (step - 1) as f64 / config.steps.max(1) as f64;
    let share = 1.0 - (1.0 - config.replay.final_share) * done;
    let order = (trainer.context.recipe.seed, REPLAY_STREAM);
    let indices = batch_indices(data.replay.len(), config.replay.batch, step, order);
    let batch: Vec<&EncodedJudgement> = indices.iter().map(|index| &data.replay[*index]).collect();
    let weights = TokenWeights {
        before: config.replay.weight_before * share,
        score: 0.0,
        after: config.replay.weight_after * share,
    };
    let options = trainer.forward_options();
    let forward = (&options, config.micro_batch_tokens);
    let BatchLoss { loss, num_tokens, num_row_tokens } =
        accumulate(&trainer.decoder, &batch, weights, forward, &mut trainer.gradients)?;
    log.replay_loss = loss;
    log.train.tokens += num_tokens;
    log.num_row_tokens += num_row_tokens;
    Ok(())
}

/// Held-out accuracy, and the best checkpoint by it.
fn keep_best(
    trainer: &mut Trainer<'_>,
    config: &GrpoConfig,
    measure: &Measure<'_>,
) -> Result<(), Error> {
    let every = trainer.context.recipe.evaluation.every;
    let step = trainer.position.step;
    let Some(evaluator) = trainer.context.evaluator else {
        return Ok(());
    };
    if every == 0 || !(step.is_multiple_of(every) || step == config.steps) {
        return Ok(());
    }
    let accuracy = measure(&trainer.decoder, evaluator);
    trainer.run.metrics(Phase::Grpo, step, &[("held_out_accuracy".to_owned(), accuracy)])?;
    if trainer.position.best_accuracy.is_none_or(|best| accuracy > best) {
        trainer.position.best_accuracy = Some(accuracy);
        trainer.save_weights("best")?;
    }
    Ok(())
}

/// Keeps one judgement of each side of the first pair for the report.
fn sample_records(
    trainer: &Trainer<'_>,
    rollouts: &[PairRollouts],
    step: u64,
) -> Result<(), Error> {
    let Some(pair) = rollouts.first() else {
        return Ok(());
    };
    for (side, name) in ["chosen", "rejected"].into_iter().enumerate() {
        if let Some(raw) = pair.sides[side].first() {
            let record = serde_json::json!({ "step": step, "pair": pair.pair, "side": name, "text": raw.text });
            trainer.run.append("rollouts", &record)?;
        }
    }
    Ok(())
}

/// Collects what one step shows.
#[derive(Debug, Default)]
struct StepLog {
    rollout: Meter,
    train: Meter,
    num_row_tokens: usize,
    peak_memory_bytes: u64,
    loss: LossReport,
    replay_loss: f64,
    gradient_norm: f64,
    learning_rate: f64,
    entropy: Vec<f64>,
    rollout_gap: f64,
}

impl Meter {
    fn time_result<T>(&mut self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.time(work)
    }
}

impl StepLog {
    fn add(&mut self, report: LossReport) {
        self.loss.loss += report.loss;
        self.loss.kl += report.kl;
        self.loss.num_clipped += report.num_clipped;
    }

    /// Largest difference between rollout and training log-probabilities.
    fn compare_with_rollout(
        &mut self,
        rollouts: &PairRollouts,
        sides: &[Vec<PlacedJudgement>; 2],
        statistics: &TargetStatistics,
    ) {
        for (raws, placed) in rollouts.sides.iter().zip(sides) {
            for (raw, one) in raws.iter().zip(placed) {
                for (logprob, target) in raw.logprobs.iter().zip(one.targets.text.clone()) {
                    let gap = f64::from((logprob - statistics.logprob(target)).abs());
                    self.rollout_gap = self.rollout_gap.max(gap);
                }
            }
        }
    }

    fn values(
        &self,
        reports: &[&PairReport],
        rollouts: &[PairRollouts],
        parsed: &[[Vec<Parsed>; 2]],
        config: &GrpoConfig,
    ) -> Vec<(String, f64)> {
        let judgements = parsed.iter().flatten().flatten().count().max(1) as f64;
        let faults = |kind: FormatFault| {
            parsed.iter().flatten().flatten().filter(|(score, _)| score.score == Err(kind)).count()
                as f64
        };
        let all_faults: f64 = FormatFault::ALL.into_iter().map(faults).sum();
        let margins: Vec<f64> =
            reports.iter().filter_map(|report| Some(report.means[0]? - report.means[1]?)).collect();
        let credits: Vec<f64> = reports.iter().filter_map(|report| report.credit()).collect();
        let of_side = |side: usize| mean(reports.iter().filter_map(|report| report.means[side]));
        let tokens: usize = rollouts
            .iter()
            .flat_map(|pair| pair.sides.iter().flatten())
            .map(|one| one.tokens.len())
            .sum();
        let steps = config.inner_steps as f64;
        let named = [
            ("loss", self.loss.loss / steps),
            ("replay_loss", self.replay_loss),
            ("kl", self.loss.kl / steps),
            ("reward", mean(reports.iter().map(|report| report.par + report.format))),
            ("reward_par", mean(reports.iter().map(|report| report.par))),
            ("reward_format", mean(reports.iter().map(|report| report.format))),
            ("score_chosen", of_side(0)),
            ("score_rejected", of_side(1)),
            ("margin", mean(margins.iter().copied())),
            ("pair_accuracy", mean(credits.iter().copied())),
            (
                "empty_side_share",
                reports.iter().filter(|report| report.means.contains(&None)).count() as f64
                    / reports.len().max(1) as f64,
            ),
            ("format_fault_rate", all_faults / judgements),
            ("invalid_mass", mean(reports.iter().map(|report| report.invalid_mass))),
            ("entropy", mean(self.entropy.iter().copied())),
            ("clip_share", self.loss.num_clipped as f64 / (tokens.max(1) as f64 * steps)),
            ("judgement_tokens", tokens as f64 / judgements),
            ("gradient_norm", self.gradient_norm),
            ("learning_rate", self.learning_rate),
            ("rollout_gap", self.rollout_gap),
            ("num_tokens", self.train.tokens as f64),
            ("num_row_tokens", self.num_row_tokens as f64),
            ("rollout_tokens_per_s", self.rollout.tokens_per_s()),
            ("train_tokens_per_s", self.train.tokens_per_s()),
            ("rollout_seconds", self.rollout.seconds),
            ("train_seconds", self.train.seconds),
            ("peak_memory_bytes", self.peak_memory_bytes as f64),
        ];
        let mut values: Vec<(String, f64)> =
            named.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        for kind in FormatFault::ALL {
            values.push((format!("fault_{}", kind.name()), faults(kind) / judgements));
        }
        values.extend(zero_variance(reports));
        values
    }
}

/// Share of groups without signal, by cause.
fn zero_variance(reports: &[&PairReport]) -> Vec<(String, f64)> {
    let groups = (2 * reports.len()).max(1) as f64;
    let dead = reports
        .iter()
        .flat_map(|report| report.deviations)
        .filter(|deviation| *deviation < 1e-9)
        .count();
    let mut counts = ZeroVarianceCounts::default();
    for outcome in reports.iter().filter_map(|report| report.outcome.as_ref()) {
        counts.add(&outcome.chosen);
        counts.add(&outcome.rejected);
    }
    vec![
        ("zero_variance_share".to_owned(), dead as f64 / groups),
        ("zero_variance_all_wrong".to_owned(), counts.all_wrong as f64 / groups),
        ("zero_variance_one_grade".to_owned(), counts.one_grade as f64 / groups),
        ("zero_variance_all_format".to_owned(), counts.all_format_failures as f64 / groups),
    ]
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0usize);
    for value in values {
        sum += value;
        count += 1;
    }
    if count == 0 { f64::NAN } else { sum / count as f64 }
}
