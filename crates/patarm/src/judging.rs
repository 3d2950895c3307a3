//! A judge from what a user typed: embedded or remote, behind the same traits.

use std::sync::Arc;

use patarm_models::EngineLimits;
use patarm_reward::completer::Completer;
use patarm_reward::embedded::{
    EmbeddedCompleter, EmbeddedJudge, JudgeSettings, JudgeText, ReadOut,
};
use patarm_reward::judge::{CompleterJudge, CompleterJudgeConfig};
use patarm_reward::model::{PairwiseJudge, PointwiseJudge, RewardModel};
use patarm_reward::observer::Observer;
use patarm_reward::openai::{OpenAiCompleter, OpenAiConfig, OpenAiTarget};
use patarm_reward::template::JudgeTemplate;
use patarm_train::Recipe;
use patarm_train::recipe::JudgeConfig;

use crate::cli::{Global, JudgeOptions, Readout};
use crate::resolve::{self, Located};
use crate::training;

/// Variables that may hold the key of a remote engine, the first found wins.
const KEY_VARIABLES: [&str; 2] = ["PATARM_API_KEY", "OPENAI_API_KEY"];

/// A judge that scores one response at a time and is a reward model too.
pub(crate) trait Pointwise: PointwiseJudge + RewardModel {}
impl<T: PointwiseJudge + RewardModel> Pointwise for T {}

/// What to do with a pointwise judge once it is there.
pub(crate) type UsePointwise<'a> =
    dyn for<'j> FnMut(&'j (dyn Pointwise + 'j)) -> anyhow::Result<()> + 'a;
/// What to do with a pairwise judge once it is there.
pub(crate) type UsePairwise<'a> =
    dyn for<'j> FnMut(&'j (dyn PairwiseJudge + 'j)) -> anyhow::Result<()> + 'a;

/// What to do with a completer once it is there.
pub(crate) type UseCompleter<'a> =
    dyn for<'c> FnMut(&'c (dyn Completer + 'c)) -> anyhow::Result<()> + 'a;

/// Opens the judge and hands it to `act`.
pub(crate) fn with_pointwise(
    options: &JudgeOptions,
    global: &Global,
    observer: &Arc<dyn Observer>,
    act: &mut UsePointwise<'_>,
) -> anyhow::Result<()> {
    if OpenAiTarget::is_remote(&options.model) {
        return act(&remote(options, observer)?);
    }
    let loaded = resolve::open(&options.model, global)?;
    let config = judge_config(options, &loaded.located)?;
    let text = training::judge_text(&config, &loaded.tokenizer)?;
    let judge = EmbeddedJudge {
        decoder: &loaded.decoder,
        text: &text,
        settings: settings(options, &config, &text),
        observer: observer.as_ref(),
        name: options.model.clone(),
    };
    act(&judge)
}

/// Opens a pairwise judge and hands it to `act`.
pub(crate) fn with_pairwise(
    options: &JudgeOptions,
    global: &Global,
    observer: &Arc<dyn Observer>,
    act: &mut UsePairwise<'_>,
) -> anyhow::Result<()> {
    if OpenAiTarget::is_remote(&options.model) {
        return act(&remote(options, observer)?);
    }
    let loaded = resolve::open(&options.model, global)?;
    let config = judge_config(options, &loaded.located)?;
    let completer = EmbeddedCompleter {
        decoder: &loaded.decoder,
        tokenizer: Arc::clone(&loaded.tokenizer),
        limits: EngineLimits::default(),
        name: options.model.clone(),
    };
    let template = JudgeTemplate::load(&config.template)?;
    let settings = CompleterJudgeConfig {
        mode: config.rubric_mode,
        max_tokens: config.max_judgement_tokens,
        ..remote_config(options)
    };
    act(&CompleterJudge::new(completer, template, settings))
}

/// Opens a model that completes conversations and hands it to `act`.
pub(crate) fn with_completer(
    options: &JudgeOptions,
    global: &Global,
    observer: &Arc<dyn Observer>,
    act: &mut UseCompleter<'_>,
) -> anyhow::Result<()> {
    if OpenAiTarget::is_remote(&options.model) {
        let completer = remote_completer(&options.model, options.asking.concurrency)?;
        return act(&completer.with_observer(Arc::clone(observer)));
    }
    let loaded = resolve::open(&options.model, global)?;
    act(&EmbeddedCompleter {
        decoder: &loaded.decoder,
        tokenizer: Arc::clone(&loaded.tokenizer),
        limits: EngineLimits::default(),
        name: options.model.clone(),
    })
}

/// The judge's template and limits: from the command line, else from the run that
/// trained the model, else the defaults.
pub(crate) fn judge_config(
    options: &JudgeOptions,
    located: &Located,
) -> anyhow::Result<JudgeConfig> {
    let mut config = match &located.recipe {
        Some(path) => Recipe::load(path, &[])?.judge,
        None => JudgeConfig::default(),
    };
    if let Some(template) = &options.asking.template {
        config.template.clone_from(template);
        config.max_judgement_tokens = JudgeTemplate::load(template)?.max_judgement_tokens();
    }
    if let Some(limit) = options.asking.max_tokens {
        config.max_judgement_tokens = limit;
    }
    Ok(config)
}

/// How an embedded judge generates.
pub(crate) fn settings(
    options: &JudgeOptions,
    config: &JudgeConfig,
    text: &JudgeText,
) -> JudgeSettings {
    let can_read = !text.outcomes().is_empty() && options.asking.temperature > 0.0;
    JudgeSettings {
        read_out: match options.asking.readout {
            Readout::Expected if can_read => ReadOut::Expected,
            _ => ReadOut::Sampled,
        },
        votes: options.asking.votes,
        seed: options.asking.seed,
        temperature: options.asking.temperature,
        top_p: 1.0,
        max_tokens: config.max_judgement_tokens,
    }
}

/// How a remote judge is asked.
pub(crate) fn remote_config(options: &JudgeOptions) -> CompleterJudgeConfig {
    CompleterJudgeConfig {
        votes: options.asking.votes,
        temperature: options.asking.temperature,
        seed: options.asking.seed,
        max_tokens: options.asking.max_tokens.unwrap_or(0),
        ..CompleterJudgeConfig::default()
    }
}

fn remote(
    options: &JudgeOptions,
    observer: &Arc<dyn Observer>,
) -> anyhow::Result<CompleterJudge<OpenAiCompleter>> {
    let template = JudgeTemplate::load(options.asking.template.as_deref().unwrap_or("patarm"))?;
    let completer = remote_completer(&options.model, options.asking.concurrency)?
        .with_observer(Arc::clone(observer));
    Ok(CompleterJudge::new(completer, template, remote_config(options)))
}

/// A completer for `openai:BASE_URL#MODEL`, with the key of the environment.
pub(crate) fn remote_completer(model: &str, concurrency: usize) -> anyhow::Result<OpenAiCompleter> {
    let target = OpenAiTarget::parse(model)?;
    let key = KEY_VARIABLES
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .filter(|key| !key.is_empty());
    let config = OpenAiConfig { concurrency, ..OpenAiConfig::default() };
    Ok(OpenAiCompleter::new(target, config, key)?)
}
