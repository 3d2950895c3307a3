//! Energy refinements: opening one with its base model, and training one.

use std::path::Path;
use std::sync::Arc;

use patarm_eval::compare::compare;
use patarm_eval::interval::{Estimate, Interval};
use patarm_eval::pairs::{Evaluated, PairsEvaluator, evaluate_pairs};
use patarm_eval::store;
use patarm_files::open_model;
use patarm_models::energy::EnergyNet;
use patarm_models::{Decoder, ScalarHead};
use patarm_reward::energy::{EmbeddingModel, EnergyConfig, EnergyRewardModel, Record, Remembered};
use patarm_reward::model::{Evaluator, ItemFault, Measurement, Reward, RewardModel};
use patarm_reward::observer::Observer;
use patarm_reward::scalar::{ScalarRewardModel, ScalarText, Scoring};
use patarm_text::tokenizer::Tokenizer;
use patarm_text::{Comparison, Item};
use patarm_train::ebrm::{ENERGY_FILE, EbrmConfig, EnergyContext, EnergyData, EnergyTrainer};
use patarm_train::lengths::fit_lengths;
use patarm_train::run_directory::{Resume, RunState};
use patarm_train::{Error, Recipe};

use crate::cli::Global;
use crate::device;
use crate::exit::{Code, failure};
use crate::output;
use crate::pull::sha256_of_bytes;
use crate::resolve::{self, Located};
use crate::reward_models::{self, AnyHead, UseRewardModel};
use crate::training::{open_run, pairs_options, run_info};

/// Longest `energy.json`.
const MAX_BYTES: u64 = 1 << 20;

/// Whether a located model is a refinement of another.
pub(crate) fn is_one(located: &Located) -> bool {
    located.base.join(ENERGY_FILE).is_file()
}

/// Refuses a refinement where something else is wanted.
pub(crate) fn refuse(located: &Located, why: &str) -> anyhow::Result<()> {
    if !is_one(located) {
        return Ok(());
    }
    let message = format!("{} is an energy refinement, which {why}", located.base.display());
    Err(failure(Code::Model, message))
}

/// Opens a refinement with its base model and hands it to `act`.
pub(crate) fn with_refined(
    located: &Located,
    (global, observer, name): (&Global, &dyn Observer, &str),
    act: &mut UseRewardModel<'_>,
) -> anyhow::Result<()> {
    let config = &read(&located.base)?;
    let base = resolve::locate(&config.base)?;
    with_base(&base, (global, observer), &mut |base, head_sha256| {
        if head_sha256 != config.base_head_sha256 {
            let message = format!(
                "{}: its base {} has changed since; train the refinement again",
                located.base.display(),
                config.base
            );
            return Err(failure(Code::Model, message));
        }
        let mut net = EnergyNet::fresh(device::open(global)?, config.shape.clone(), 0);
        net.load(&located.base)?;
        act(&EnergyRewardModel { base, net: &net, config, name: name.to_owned() })
    })
}

fn read(folder: &Path) -> anyhow::Result<EnergyConfig> {
    let path = folder.join(ENERGY_FILE);
    let wrong = |what: String| failure(Code::Model, format!("{}: {what}", path.display()));
    if std::fs::metadata(&path)?.len() > MAX_BYTES {
        return Err(wrong("the file is longer than 1 MiB".into()));
    }
    let config: EnergyConfig = serde_json::from_str(&std::fs::read_to_string(&path)?)
        .map_err(|error| wrong(error.to_string()))?;
    config.check().map_err(wrong)?;
    Ok(config)
}

/// Mean and deviation of a refinement's rewards, where known.
pub(crate) fn normalisation(located: &Located) -> anyhow::Result<Option<(f64, f64)>> {
    let config = read(&located.base)?;
    Ok(config.mean.zip(config.std))
}

/// What to do with a base model; also given the hash of its output matrix.
type UseBase<'a> = dyn FnMut(&dyn EmbeddingModel, &str) -> anyhow::Result<()> + 'a;

/// Opens a scalar reward model as one that shows its embeddings.
fn with_base(
    located: &Located,
    (global, observer): (&Global, &dyn Observer),
    act: &mut UseBase<'_>,
) -> anyhow::Result<()> {
    let path = located.adapter.as_deref().unwrap_or(&located.base);
    let description = reward_models::description(located)?;
    let Some(config) = description.filter(|config| config.family.is_scalar()) else {
        let message = format!(
            "{} is no scalar reward model; an energy refinement needs one below it (docs/ebrm.md)",
            path.display()
        );
        return Err(failure(Code::Model, message));
    };
    let (_, decoder, head) = reward_models::load_weights(located, &config, global)?;
    let AnyHead::Scalar(head) = head else {
        return Err(failure(Code::Bug, "a scalar reward model has a scalar head"));
    };
    let text = &ScalarText::new(Arc::new(Tokenizer::open(&located.base)?))?;
    let head_sha256 = sha256_of_output(&decoder, &head);
    let scoring = Scoring::new(&decoder, observer, path.display().to_string());
    act(&ScalarRewardModel { scoring, head, text, config: &config }, &head_sha256)
}

fn sha256_of_output(decoder: &Decoder, head: &ScalarHead) -> String {
    let weight = decoder.parameters.value(head.output().weight);
    let mut values = vec![0.0; weight.len()];
    decoder.backend.download(weight, &mut values);
    let bytes: Vec<u8> = values.iter().flat_map(|value: &f32| value.to_le_bytes()).collect();
    sha256_of_bytes(&bytes)
}

/// What a run would need, at most: how many pairs the base orders as their label says is
/// known only after it was asked.
#[derive(Debug, serde::Serialize)]
pub(crate) struct ForeseenEnergy {
    version: u32,
    training_pairs: usize,
    held_out_pairs: usize,
    trainable_parameters: usize,
    updates: u64,
    candidates: u64,
}

impl ForeseenEnergy {
    /// Prints it.
    pub(crate) fn show(&self, global: &Global) -> anyhow::Result<()> {
        if global.json {
            return output::json(self);
        }
        output::line(&format!("training pairs        at most {}", self.training_pairs))?;
        output::line(&format!("held-out pairs        {}", self.held_out_pairs))?;
        output::line(&format!("trainable parameters  {}", self.trainable_parameters))?;
        output::line(&format!("updates               at most {}", self.updates))?;
        output::line(&format!("candidates            at most {}", self.candidates))
    }
}

/// Counts what training would compute.
pub(crate) fn foresee(
    recipe: &Recipe,
    config: &EbrmConfig,
    (train, held_out): &(Vec<Comparison>, Vec<Comparison>),
) -> anyhow::Result<ForeseenEnergy> {
    let files = open_model(&resolve::locate(&recipe.model)?.base)?;
    let labelled = train.iter().filter(|pair| pair.chosen_rejected().is_some()).count();
    let records = 2 * labelled as u64;
    let schedule = config.schedule;
    Ok(ForeseenEnergy {
        version: 1,
        training_pairs: labelled,
        held_out_pairs: held_out.len(),
        trainable_parameters: config.size.shape(files.config.hidden_size).num_parameters(),
        updates: schedule.epochs * records.div_ceil(schedule.batch as u64),
        candidates: schedule.epochs * records * (config.noise.negatives as u64 + 1),
    })
}

/// A run with everything it needs but its records.
pub(crate) struct EnergyRun<'a> {
    /// The recipe.
    pub(crate) recipe: &'a Recipe,
    /// Its table.
    pub(crate) config: &'a EbrmConfig,
    /// Training and held-out comparisons.
    pub(crate) data: (Vec<Comparison>, Vec<Comparison>),
    /// Global options.
    pub(crate) global: &'a Global,
    /// Who watches.
    pub(crate) observer: &'a dyn Observer,
}

impl EnergyRun<'_> {
    /// Trains, writes the final checkpoint, and measures it on the held-out pairs.
    pub(crate) fn run(self, (out, resume): (&Path, Resume)) -> anyhow::Result<Option<Evaluated>> {
        let located = resolve::locate(&self.recipe.model)?;
        refuse(&located, "cannot be refined again")?;
        let tokenizer = Arc::new(Tokenizer::open(&located.base)?);
        let limits = &self.recipe.data;
        let (train, lengths) = fit_lengths(self.data.0, &tokenizer, limits)?;
        output::remark_lengths(lengths);
        let (held_out, _) = fit_lengths(self.data.1, &tokenizer, limits)?;
        let run = EnergyRun { data: (train, held_out), ..self };
        let mut evaluated = None;
        with_base(&located, (self.global, self.observer), &mut |base, head_sha256| {
            evaluated = run.train(&located, (base, head_sha256), (out, resume))?;
            Ok(())
        })?;
        Ok(evaluated)
    }

    fn train(
        &self,
        located: &Located,
        (base, head_sha256): (&dyn EmbeddingModel, &str),
        (out, resume): (&Path, Resume),
    ) -> anyhow::Result<Option<Evaluated>> {
        let (recipe, config) = (self.recipe, self.config);
        let backend = device::open(self.global)?;
        let used = (self.data.0.as_slice(), self.data.1.as_slice());
        let mut info = run_info(recipe, located, ("EBRM", backend.as_ref()), used)?;
        let run = open_run(out, recipe, &info, resume)?;
        let data = &EnergyData::new(self.pairs(base, out)?, config);
        output::remark(&format!(
            "{} of {} pairs are ordered by the base as their label says",
            data.num_kept, data.num_pairs
        ));
        output::remark(&starts(data.share_within_gate));
        let description = description(located, (base, head_sha256), (config, data))?;
        let remembered = &Remembered::new(base);
        let evaluator = self.evaluator()?;
        let measure_description = description.clone();
        let measure = evaluator.as_ref().map(|evaluator| {
            move |net: &EnergyNet| measure(evaluator, (remembered, net), &measure_description)
        });
        let context = EnergyContext {
            recipe,
            config,
            data,
            observer: self.observer,
            measure: measure.as_ref().map(|measure| measure as _),
        };
        let net = EnergyNet::fresh(backend, description.shape.clone(), recipe.seed);
        let mut trainer = EnergyTrainer::new(context, net, run, description);
        let outcome = trainer.train(resume);
        info.state = if outcome.is_ok() { RunState::Finished } else { RunState::Interrupted };
        trainer.run.write_info(&info)?;
        outcome?;
        self.evaluate(remembered, (&trainer.net, &trainer.description), out)
    }

    /// The base's records of both sides of every labelled pair, preferred side first.
    fn pairs(&self, base: &dyn EmbeddingModel, out: &Path) -> anyhow::Result<Vec<[Record; 2]>> {
        let labelled: Vec<(&Item, &Item)> =
            self.data.0.iter().filter_map(Comparison::chosen_rejected).collect();
        let items: Vec<Item> =
            labelled.iter().flat_map(|(chosen, rejected)| [*chosen, *rejected]).cloned().collect();
        let mut found = base.embed(&items).into_iter();
        if self.observer.is_interrupted() {
            return Err(Error::Interrupted { step: 0, path: out.to_path_buf() }.into());
        }
        let (mut pairs, mut num_left_out) = (Vec::new(), 0);
        while let (Some(chosen), Some(rejected)) = (found.next(), found.next()) {
            match (chosen, rejected) {
                (Ok(chosen), Ok(rejected)) => pairs.push([chosen, rejected]),
                _ => num_left_out += 1,
            }
        }
        if num_left_out > 0 {
            output::remark(&format!(
                "{num_left_out} comparisons left out: the base model cannot score a side"
            ));
        }
        Ok(pairs)
    }

    fn evaluator(&self) -> anyhow::Result<Option<PairsEvaluator>> {
        let used = self.held_out(self.recipe.evaluation.pairs);
        if used.is_empty() {
            return Ok(None);
        }
        Ok(Some(PairsEvaluator::new(used, pairs_options(self.recipe.seed))?))
    }

    fn held_out(&self, count: usize) -> Vec<Comparison> {
        let labelled = self.data.1.iter().filter(|pair| pair.chosen_rejected().is_some());
        labelled.take(count).cloned().collect()
    }

    /// Held-out measurements of the refinement and of its base, kept in the run.
    fn evaluate(
        &self,
        base: &Remembered<'_>,
        (net, config): (&EnergyNet, &EnergyConfig),
        out: &Path,
    ) -> anyhow::Result<Option<Evaluated>> {
        let used = self.held_out(self.recipe.evaluation.stage_pairs);
        if used.is_empty() {
            return Ok(None);
        }
        let options = pairs_options(self.recipe.seed);
        let of_base = evaluate_pairs(&BaseRewards(base), &used, &options)?;
        store::write_folder(&out.join("evaluations/base"), &of_base)?;
        let model = EnergyRewardModel { base, net, config, name: "trained".into() };
        let evaluated = evaluate_pairs(&model, &used, &options)?;
        store::write_folder(&out.join("evaluations/trained"), &evaluated)?;
        let gain = compare(&of_base, &evaluated, options.resampling)?.overall.half_credit;
        gain_over_base(&gain).iter().for_each(|text| output::remark(text));
        Ok(Some(evaluated))
    }
}

/// Where refinement starts, and what to do where that forgets what the base says.
fn starts(share_within_gate: f64) -> String {
    let advice = if share_within_gate < 0.5 {
        ", which forgets the base's order: change ebrm.scaling, or widen refinement.gate and range"
    } else {
        ""
    };
    format!(
        "{:.0} % of the base's rewards lie within refinement.gate and are refined from where they \
         are, the others from a draw{advice}",
        100.0 * share_within_gate
    )
}

/// What refinement changed, in a sentence: it can lose what its base knows.
fn gain_over_base(gain: &Estimate) -> Option<String> {
    let Interval { low, high } = gain.interval?;
    let [value, low, high] = [gain.value?, low, high].map(|share| 100.0 * share);
    let advice = if high < 0.0 {
        "; the base alone is the better reward: refine it with more pairs, or not at all"
    } else {
        ""
    };
    Some(format!("against its base: {value:+.1} points [{low:+.1}, {high:+.1}]{advice}"))
}

fn description(
    located: &Located,
    (base, head_sha256): (&dyn EmbeddingModel, &str),
    (config, data): (&EbrmConfig, &EnergyData),
) -> anyhow::Result<EnergyConfig> {
    let folder = located.adapter.as_deref().unwrap_or(&located.base);
    Ok(EnergyConfig {
        version: EnergyConfig::VERSION,
        base: std::fs::canonicalize(folder)?.to_string_lossy().into_owned(),
        base_head_sha256: head_sha256.to_owned(),
        shape: config.size.shape(base.width()),
        scale: data.scale,
        refinement: config.refinement,
        mean: None,
        std: None,
    })
}

fn measure(
    evaluator: &PairsEvaluator,
    (base, net): (&Remembered<'_>, &EnergyNet),
    config: &EnergyConfig,
) -> (Measurement, Measurement) {
    let refined = EnergyRewardModel { base, net, config, name: "trained".into() };
    (evaluator.measure(&refined), evaluator.measure(&BaseRewards(base)))
}

/// The base model's own rewards.
struct BaseRewards<'a>(&'a Remembered<'a>);

impl RewardModel for BaseRewards<'_> {
    fn score(&self, items: &[Item]) -> Vec<Result<Reward, ItemFault>> {
        let records = self.0.embed(items).into_iter();
        records.map(|record| Ok(Reward::of(record?.reward))).collect()
    }

    fn name(&self) -> String {
        self.0.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_that_most_rewards_miss_is_told() {
        assert!(starts(0.38).starts_with("38 % of the base's rewards lie within"));
        assert!(starts(0.38).contains("ebrm.scaling"));
        assert!(starts(0.97).ends_with("from a draw"));
    }

    #[test]
    fn a_loss_is_told_as_one() {
        let gain = |value, low, high| Estimate {
            value: Some(value),
            interval: Some(Interval { low, high }),
            n: 300,
        };
        let lost = gain_over_base(&gain(-0.11, -0.169, -0.053)).unwrap();
        assert!(
            lost.starts_with("against its base: -11.0 points [-16.9, -5.3]; the base"),
            "{lost}"
        );
        // An interval with zero in it shows no loss.
        let level = gain_over_base(&gain(-0.01, -0.05, 0.0)).unwrap();
        assert_eq!(level, "against its base: -1.0 points [-5.0, +0.0]");
        assert_eq!(gain_over_base(&Estimate { value: None, interval: None, n: 0 }), None);
    }
}
