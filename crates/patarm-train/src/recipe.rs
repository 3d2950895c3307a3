//! The configuration of a training run: plain data, versioned, unknown keys refused.
//!
//! A recipe says everything a run depends on. It is read from TOML, may be
//! overridden key by key (`--set grpo.steps=10`), and is saved, resolved, beside
//! every checkpoint.

use std::path::{Path, PathBuf};

use patarm_models::{ActivationPolicy, AdamWConfig, LoraConfig, OptimizerStates};
use patarm_reward::par::ParConfig;
use patarm_reward::policy_loss::PolicyLossConfig;
use patarm_reward::policy_loss::kl::KlEstimator;
use patarm_reward::template::RubricMode;
use serde::{Deserialize, Serialize};

use crate::bradley_terry::BradleyTerryConfig;
use crate::ebrm::EbrmConfig;
use crate::error::Error;
use crate::oprm::OprmConfig;
use crate::process_reward::ProcessRewardConfig;
use crate::q_rm::QRmConfig;
use crate::soli_reward::SoliRewardConfig;

/// Version of the recipe format this program reads and writes.
pub const RECIPE_VERSION: u32 = 1;

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Format version; [`RECIPE_VERSION`].
    pub version: u32,
    /// Seed of every random draw of the run.
    #[serde(default)]
    pub seed: u64,
    /// The base model: a folder, a GGUF file, or a name `patarm model pull` knows.
    pub model: String,
    /// Preference data.
    pub data: DataConfig,
    /// How the judge is asked and read.
    #[serde(default)]
    pub judge: JudgeConfig,
    /// What trains.
    #[serde(default)]
    pub parameters: ParameterConfig,
    /// Supervised cold start; absent = skipped.
    #[serde(default)]
    pub cold_start: Option<ColdStartConfig>,
    /// Preference-aware reinforcement; absent = skipped.
    #[serde(default)]
    pub grpo: Option<GrpoConfig>,
    /// A scalar reward model; excludes the two stages of a judge.
    #[serde(default)]
    pub bradley_terry: Option<BradleyTerryConfig>,
    /// Ratings from the model's own digits; stands alone too.
    #[serde(default)]
    pub oprm: Option<OprmConfig>,
    /// A token-level reward model; stands alone too.
    #[serde(default)]
    pub q_rm: Option<QRmConfig>,
    /// A scalar reward model on single pass and fail labels; stands alone too.
    #[serde(default)]
    pub soli_reward: Option<SoliRewardConfig>,
    /// An energy network on the frozen scalar reward model that `model` names; stands
    /// alone too.
    #[serde(default)]
    pub ebrm: Option<EbrmConfig>,
    /// A process reward model on solutions in steps; stands alone too.
    #[serde(default)]
    pub process_reward: Option<ProcessRewardConfig>,
    /// Held-out measurement during the run.
    #[serde(default)]
    pub evaluation: EvaluationConfig,
    /// Checkpoints.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
}

/// Where comparisons come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Training comparisons: a file, `hf:owner/name/file`, or `bundled:quickstart`.
    pub train: String,
    /// Held-out comparisons; absent = split from the training file by prompt.
    #[serde(default)]
    pub held_out: Option<String>,
    /// Share of prompts held out when there is no file for it.
    #[serde(default = "default_held_out_share")]
    pub held_out_share: f64,
    /// Use at most this many training pairs.
    #[serde(default)]
    pub max_pairs: Option<usize>,
    /// Use at most this many held-out pairs.
    #[serde(default)]
    pub max_held_out: Option<usize>,
    /// Longest prompt in tokens.
    #[serde(default = "default_prompt_tokens")]
    pub max_prompt_tokens: usize,
    /// Longest response in tokens.
    #[serde(default = "default_response_tokens")]
    pub max_response_tokens: usize,
    /// What happens to longer ones; counted either way.
    #[serde(default)]
    pub overlong: Overlong,
    /// Share of training labels to swap, for experiments with noise; drawn by the run's
    /// seed, and told at the start.
    #[serde(default)]
    pub flip_share: f64,
}

fn default_held_out_share() -> f64 {
    0.1
}

fn default_prompt_tokens() -> usize {
    1024
}

fn default_response_tokens() -> usize {
    1024
}

/// What to do with an input that is longer than allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlong {
    /// Stop with an error.
    #[default]
    Error,
    /// Leave the pair out and count it.
    Drop,
    /// Cut prompts at their start and responses at their end, and count it.
    Truncate,
}

/// How the judge is asked and read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JudgeConfig {
    /// Name of a built-in template or path of a template file.
    pub template: String,
    /// Longest judgement in tokens.
    pub max_judgement_tokens: usize,
    /// How scores are read off at the end of a judgement.
    pub terminator: patarm_reward::embedded::Terminator,
    /// Whose criteria are used.
    pub rubric_mode: RubricMode,
}

impl Default for JudgeConfig {
    fn default() -> Self {
        Self {
            template: "patarm".into(),
            max_judgement_tokens: 512,
            terminator: patarm_reward::embedded::Terminator::FirstToken,
            rubric_mode: RubricMode::Both,
        }
    }
}

/// What trains.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ParameterConfig {
    /// A low-rank adapter instead of the whole model.
    pub lora: Option<LoraConfig>,
    /// Freeze the embedding and every block below this one.
    pub freeze_below: Option<usize>,
    /// Keep or recompute activations.
    pub recompute: bool,
    /// How the optimiser keeps its moments.
    pub optimizer_states: OptimizerStates,
}

impl ParameterConfig {
    /// The activation policy.
    #[must_use]
    pub fn activations(&self) -> ActivationPolicy {
        if self.recompute { ActivationPolicy::Recompute } else { ActivationPolicy::Keep }
    }
}

/// Where cold-start judgements come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "snake_case")]
pub enum ColdStartSource {
    /// Built in: well-formed judgements whose scores carry no label information.
    LabelFree {},
    /// A teacher judge; judgements that agree with the label are kept.
    Teacher {
        /// A model name or `openai:BASE_URL#MODEL`.
        model: String,
        /// Judgements a side.
        judgements: usize,
        /// Keep equally many judgements of each score.
        #[serde(default)]
        balance_scores: bool,
    },
    /// Judgements written before (JSONL of cold-start records).
    File {
        /// The file.
        path: PathBuf,
    },
}

/// The supervised stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColdStartConfig {
    /// Where judgements come from.
    pub source: ColdStartSource,
    /// Updates.
    pub steps: u64,
    /// Judgements an update.
    pub batch: usize,
    /// Weight of the score tokens in the loss; 1 = like any other.
    #[serde(default = "default_score_weight")]
    pub score_weight: f64,
    /// Optimiser.
    #[serde(default)]
    pub optimizer: AdamWConfig,
}

fn default_score_weight() -> f64 {
    1.0
}

/// Which gradient estimator the score uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreEstimator {
    /// Scores are sampled; the whole judgement carries the advantage (the paper's).
    Sampled,
    /// Scores are sampled; only the score's tokens carry it (the control).
    SampledScoreOnly,
    /// The score is integrated out.
    Marginal,
}

/// Cold-start judgements mixed into every update, to hold the text in place.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplayConfig {
    /// Judgements an update; 0 = none.
    pub batch: usize,
    /// Weight of tokens before the score.
    pub weight_before: f64,
    /// Weight of tokens after the score. The score itself is never replayed.
    pub weight_after: f64,
    /// Share of the weights left at the last step; they fall linearly.
    pub final_share: f64,
}

impl Default for ReplayConfig {
    fn default() -> Self {
        Self { batch: 0, weight_before: 0.5, weight_after: 0.2, final_share: 0.0 }
    }
}

/// Replacing pairs that give no signal (DAPO, arXiv 2503.14476, section 3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DynamicSamplingConfig {
    /// How many further batches may be drawn to fill an update; 0 = off.
    pub max_resamples: usize,
}

/// The reinforcement stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrpoConfig {
    /// Updates (batches of pairs).
    pub steps: u64,
    /// Pairs an update.
    pub pairs: usize,
    /// Judgements a side.
    pub num_judgements: usize,
    /// Gradient estimator.
    pub estimator: ScoreEstimator,
    /// Divide advantages by the group's deviation.
    pub std_normalise: bool,
    /// How strongly the common level of a pair's scores is drawn to the middle of the
    /// scale, in reward points; `marginal` only. 0 = off.
    pub center_coefficient: f64,
    /// The reward.
    pub par: ParConfig,
    /// Rollout temperature.
    pub temperature: f64,
    /// Rollout nucleus; 1 = off.
    pub top_p: f64,
    /// Optimiser steps on the same rollouts.
    pub inner_steps: usize,
    /// Clip range, ratio, denominator and penalty against the reference.
    pub loss: PolicyLossConfig,
    /// Weight of the advantage of tokens before the score in the marginal estimator.
    pub text_weight: f64,
    /// Cold-start replay.
    pub replay: ReplayConfig,
    /// Replacement of pairs without signal.
    pub dynamic_sampling: DynamicSamplingConfig,
    /// Tokens of one forward; pairs are never split.
    pub micro_batch_tokens: usize,
    /// Optimiser.
    pub optimizer: AdamWConfig,
}

impl Default for GrpoConfig {
    fn default() -> Self {
        Self {
            steps: 100,
            pairs: 16,
            num_judgements: 8,
            estimator: ScoreEstimator::Sampled,
            std_normalise: true,
            center_coefficient: 0.0,
            par: ParConfig::default(),
            temperature: 1.0,
            top_p: 1.0,
            inner_steps: 1,
            loss: PolicyLossConfig {
                kl_estimator: KlEstimator::K3,
                kl_coefficient: 1e-3,
                ..PolicyLossConfig::default()
            },
            text_weight: 1.0,
            replay: ReplayConfig::default(),
            dynamic_sampling: DynamicSamplingConfig::default(),
            micro_batch_tokens: 2048,
            optimizer: AdamWConfig { learning_rate: 1e-6, ..AdamWConfig::default() },
        }
    }
}

/// Held-out measurement during the run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationConfig {
    /// Measure after this many updates of the reinforcement; 0 = not during it.
    pub every: u64,
    /// Held-out pairs measured during the reinforcement.
    pub pairs: usize,
    /// Held-out pairs measured after each stage, judgements kept; 0 = none. A stage of
    /// no updates is not measured.
    pub stage_pairs: usize,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self { every: 0, pairs: 64, stage_pairs: 256 }
    }
}

/// Checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Save after this many updates; 0 = only at the end of a stage.
    pub every: u64,
    /// Keep this many, besides the best.
    pub keep: usize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every: 25, keep: 2 }
    }
}

impl Recipe {
    /// Reads a recipe file and applies `key.path=value` overrides.
    ///
    /// # Errors
    /// When the file is unreadable, not TOML, has an unknown key or a value that
    /// cannot work.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::Recipe { path: path.into(), message: error.to_string() })?;
        Self::parse(&text, overrides)
            .map_err(|message| Error::Recipe { path: path.into(), message })
    }

    /// Parses recipe text with overrides; the message of a failure names the key.
    ///
    /// # Errors
    /// As [`Recipe::load`].
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self, String> {
        let mut table: toml::Table = toml::from_str(text).map_err(|error| sentence(&error))?;
        for change in overrides {
            apply_override(&mut table, change)?;
        }
        let recipe: Self =
            toml::Value::Table(table).try_into().map_err(|error| sentence(&error))?;
        recipe.check()?;
        Ok(recipe)
    }

    fn check(&self) -> Result<(), String> {
        if self.version != RECIPE_VERSION {
            return Err(format!(
                "version is {}, this program reads version {RECIPE_VERSION}",
                self.version
            ));
        }
        if !(0.0..1.0).contains(&self.data.held_out_share) {
            return Err("data.held_out_share must lie in 0..1".into());
        }
        if !(0.0..=1.0).contains(&self.data.flip_share) {
            return Err("data.flip_share must lie in 0..=1".into());
        }
        self.check_reward_model()?;
        let Some(grpo) = &self.grpo else {
            return Ok(());
        };
        if grpo.pairs == 0 || grpo.num_judgements == 0 || grpo.inner_steps == 0 {
            return Err(
                "grpo.pairs, grpo.num_judgements and grpo.inner_steps must be at least 1".into()
            );
        }
        if grpo.temperature <= 0.0 {
            return Err("grpo.temperature must be positive: a greedy policy has no gradient".into());
        }
        if !(grpo.center_coefficient >= 0.0 && grpo.center_coefficient.is_finite()) {
            return Err("grpo.center_coefficient must be 0 or a positive number".into());
        }
        if grpo.center_coefficient > 0.0 && grpo.estimator != ScoreEstimator::Marginal {
            return Err("grpo.center_coefficient needs grpo.estimator = \"marginal\"".into());
        }
        if grpo.replay.batch > 0 && self.cold_start.is_none() {
            return Err("grpo.replay.batch needs a [cold_start] to replay".into());
        }
        Ok(())
    }

    /// Names of the tables of reward models other than judges that the recipe has.
    #[must_use]
    pub fn reward_tables(&self) -> Vec<&'static str> {
        let tables = [
            ("bradley_terry", self.bradley_terry.is_some()),
            ("oprm", self.oprm.is_some()),
            ("q_rm", self.q_rm.is_some()),
            ("soli_reward", self.soli_reward.is_some()),
            ("ebrm", self.ebrm.is_some()),
            ("process_reward", self.process_reward.is_some()),
        ];
        tables.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name).collect()
    }

    fn check_reward_model(&self) -> Result<(), String> {
        let tables = self.reward_tables();
        let stages = usize::from(self.cold_start.is_some()) + usize::from(self.grpo.is_some());
        if let [first, ..] = tables.as_slice()
            && tables.len() + stages > 1
        {
            return Err(format!("[{first}] stands alone: one recipe trains one kind of model"));
        }
        let named = |name: &'static str| move |message: String| format!("{name}.{message}");
        if let Some(config) = &self.bradley_terry {
            config.check().map_err(named("bradley_terry"))?;
        }
        if let Some(config) = &self.oprm {
            config.schedule.check().map_err(named("oprm"))?;
        }
        if let Some(config) = &self.q_rm {
            config.check().map_err(named("q_rm"))?;
        }
        if let Some(config) = &self.soli_reward {
            config.check().map_err(named("soli_reward"))?;
        }
        if let Some(config) = &self.ebrm {
            config.check().map_err(named("ebrm"))?;
            if self.parameters != ParameterConfig::default() {
                return Err(
                    "[parameters] has no place beside [ebrm]: the base model is frozen".into()
                );
            }
        }
        if let Some(config) = &self.process_reward {
            config.check().map_err(named("process_reward"))?;
        }
        Ok(())
    }

    /// The recipe as TOML text.
    ///
    /// # Errors
    /// When a number cannot be written in TOML (a seed above 2⁶³).
    pub fn to_toml(&self) -> Result<String, String> {
        toml::to_string(self).map_err(|error| error.to_string())
    }
}

/// A parse error as one sentence: the place where the parser knows it, and the message.
fn sentence(error: &toml::de::Error) -> String {
    let text = error.to_string();
    let place = text.lines().next().and_then(|line| line.strip_prefix("TOML parse error "));
    let message = error.message().replace('\n', " ");
    match place {
        Some(place) => format!("{place}: {message}"),
        // Without a place the path of the key stands on a line of its own.
        None => text.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" "),
    }
}

/// Sets one `a.b.c=value`; the value is TOML, or a bare string.
fn apply_override(table: &mut toml::Table, change: &str) -> Result<(), String> {
    let (path, text) = change
        .split_once('=')
        .ok_or_else(|| format!("--set {change}: write it as key.path=value"))?;
    let value = format!("value = {text}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut parsed| parsed.remove("value"))
        .unwrap_or_else(|| toml::Value::String(text.to_owned()));
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    let last = keys.pop().unwrap_or_default();
    let mut at = table;
    for key in keys {
        let entry =
            at.entry(key.to_owned()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        at = entry.as_table_mut().ok_or_else(|| format!("--set {change}: {key} is not a table"))?;
    }
    at.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str =
        "version = 1\nmodel = \"m\"\n[data]\ntrain = \"pairs.jsonl\"\n[grpo]\nsteps = 3\n";

    #[test]
    fn overrides_reach_nested_keys() {
        let changes = ["grpo.steps=7".into(), "grpo.estimator=marginal".into(), "seed=4".into()];
        let recipe = Recipe::parse(SMALL, &changes).expect("valid");
        let grpo = recipe.grpo.expect("present");
        assert_eq!((grpo.steps, grpo.estimator, recipe.seed), (7, ScoreEstimator::Marginal, 4));
    }

    #[test]
    fn unknown_keys_are_named() {
        let message = Recipe::parse(&format!("{SMALL}stepz = 3\n"), &[]).expect_err("unknown key");
        assert!(message.contains("stepz"), "{message}");
        let message = Recipe::parse(SMALL, &["data.trian=x".into()]).expect_err("unknown key");
        assert!(message.contains("trian"), "{message}");
        let message = Recipe::parse("version = \n", &[]).expect_err("not TOML");
        assert!(message.starts_with("at line 1") && !message.contains('\n'), "{message}");
    }

    #[test]
    fn impossible_values_are_named() {
        for (changes, named) in [
            (&["grpo.pairs=0"][..], "grpo.pairs"),
            (&["grpo.temperature=0"], "grpo.temperature"),
            (&["grpo.replay.batch=2"], "[cold_start]"),
            (&["grpo.center_coefficient=0.5"], "\"marginal\""),
            (&["grpo.estimator=marginal", "grpo.center_coefficient=-1"], "grpo.center_coefficient"),
            (&["data.held_out_share=1.0"], "data.held_out_share"),
        ] {
            let changes: Vec<String> = changes.iter().map(|&change| change.into()).collect();
            let message = Recipe::parse(SMALL, &changes).expect_err("refused");
            assert!(message.contains(named), "{message}");
        }
    }

    #[test]
    fn a_recipe_survives_its_own_text() {
        let recipe = Recipe::parse(SMALL, &[]).expect("valid");
        let text = recipe.to_toml().expect("text");
        assert_eq!(Recipe::parse(&text, &[]).expect("valid"), recipe);
    }

    #[test]
    fn every_recipe_of_the_repository_is_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
        let mut found = 0;
        for entry in std::fs::read_dir(folder).expect("recipes").flatten() {
            Recipe::load(&entry.path(), &[]).expect("a valid recipe");
            found += 1;
        }
        assert!(found >= 4, "{found} recipes");
    }

    #[test]
    fn impossible_values_are_refused() {
        for change in [
            "version=2",
            "data.flip_share=1.5",
            "grpo.pairs=0",
            "grpo.temperature=0.0",
            "grpo.replay.batch=4",
        ] {
            assert!(Recipe::parse(SMALL, &[change.into()]).is_err(), "{change}");
        }
    }
}
