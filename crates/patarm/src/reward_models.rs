//! Reward models of every family behind one trait object.
//!
//! `config.json` (for an adapter its own files) says what a model is; whoever wants a
//! number a response asks here and need not know.

use std::path::Path;
use std::sync::Arc;

use patarm_files::{ModelFiles, RewardConfig, RewardFamily, Segmentation};
use patarm_models::{Decoder, HeadInit, LinearHead, ScalarHead, checkpoint, reward_checkpoint};
use patarm_reward::model::RewardModel;
use patarm_reward::observer::Observer;
use patarm_reward::openai::OpenAiTarget;
use patarm_reward::ordinal::{OrdinalRewardModel, OrdinalText};
use patarm_reward::scalar::{ScalarRewardModel, ScalarText, Scoring};
use patarm_reward::token_values::{TokenHead, TokenRewardModel};
use patarm_text::tokenizer::Tokenizer;

use crate::cli::{Global, JudgeOptions};
use crate::combined::{self, CombinedModel};
use crate::energy;
use crate::exit::{Code, failure};
use crate::judging::with_pointwise;
use crate::resolve::{self, Located};
use crate::reward_base;
use crate::step_models;

/// What to do with a reward model once it is there.
pub(crate) type UseRewardModel<'a> =
    dyn for<'m> FnMut(&'m (dyn RewardModel + 'm)) -> anyhow::Result<()> + 'a;

/// Opens a reward model of any kind, a judge or a combination included, and hands it to
/// `act`.
pub(crate) fn with_reward_model(
    options: &JudgeOptions,
    global: &Global,
    observer: &Arc<dyn Observer>,
    act: &mut UseRewardModel<'_>,
) -> anyhow::Result<()> {
    if OpenAiTarget::is_remote(&options.model) {
        return with_pointwise(options, global, observer, &mut |judge| act(judge));
    }
    if CombinedModel::is_one(Path::new(&options.model)) {
        return combined::with_combined(options, global, observer, act);
    }
    let located = resolve::locate(&options.model)?;
    if energy::is_one(&located) {
        return energy::with_refined(&located, (global, observer.as_ref(), &options.model), act);
    }
    match description(&located)? {
        Some(config) if matches!(config.family, RewardFamily::Step(_)) => {
            step_models::with_step_model((&located, &config), options, (global, observer), act)
        }
        Some(config) => {
            let (_, decoder, head) = load_weights(&located, &config, global)?;
            let tokenizer = Arc::new(Tokenizer::open(&located.base)?);
            let parts = (&decoder, head, &config);
            with_family(parts, &tokenizer, (observer.as_ref(), &options.model), act)
        }
        None => with_pointwise(options, global, observer, &mut |judge| act(judge)),
    }
}

fn with_family(
    (decoder, head, config): (&Decoder, AnyHead, &RewardConfig),
    tokenizer: &Arc<Tokenizer>,
    (observer, name): (&dyn Observer, &str),
    act: &mut UseRewardModel<'_>,
) -> anyhow::Result<()> {
    let scoring = Scoring::new(decoder, observer, name);
    let tokenizer = Arc::clone(tokenizer);
    match head {
        AnyHead::None => {
            let text = &OrdinalText::new(tokenizer)?;
            act(&OrdinalRewardModel { scoring, text })
        }
        AnyHead::Scalar(head) => {
            let text = &ScalarText::new(tokenizer)?;
            act(&ScalarRewardModel { scoring, head, text, config })
        }
        AnyHead::Token(head) => {
            let text = &ScalarText::new(tokenizer)?;
            act(&TokenRewardModel { scoring, head, text, config })
        }
    }
}

/// What stands on a decoder, by family.
#[derive(Clone, Debug)]
pub(crate) enum AnyHead {
    /// Ratings are read off the model's own output.
    None,
    /// One number an item.
    Scalar(ScalarHead),
    /// A number a token.
    Token(TokenHead),
}

/// Whether a model gives numbers and no judgements.
pub(crate) fn gives_numbers(model: &str) -> anyhow::Result<bool> {
    if CombinedModel::is_one(Path::new(model)) {
        return Ok(true);
    }
    if OpenAiTarget::is_remote(model) {
        return Ok(false);
    }
    let located = resolve::locate(model)?;
    Ok(energy::is_one(&located) || description(&located)?.is_some())
}

/// What stands on top of a located model; `None` for one that only writes text.
pub(crate) fn description(located: &Located) -> anyhow::Result<Option<RewardConfig>> {
    let folder = located.adapter.as_deref().unwrap_or(&located.base);
    Ok(RewardConfig::read(folder)?)
}

/// Refuses a model that gives numbers where judgements are wanted.
pub(crate) fn refuse_as_judge(located: &Located) -> anyhow::Result<()> {
    energy::refuse(located, "writes no text; use `patarm score` or `patarm eval` with it")?;
    match description(located)? {
        Some(config) => Err(no_text(located, &config)),
        None => Ok(()),
    }
}

/// Refuses a model without an output matrix.
pub(crate) fn refuse_without_output(located: &Located) -> anyhow::Result<()> {
    energy::refuse(located, "writes no text; ask its base")?;
    match description(located)? {
        Some(config) if !config.family.keeps_output() => Err(no_text(located, &config)),
        _ => Ok(()),
    }
}

fn no_text(located: &Located, config: &RewardConfig) -> anyhow::Error {
    let folder = located.adapter.as_deref().unwrap_or(&located.base);
    let message = format!(
        "{} is a {}, which writes no text; use `patarm score` or `patarm eval` with it",
        folder.display(),
        config.family.name()
    );
    failure(Code::Model, message)
}

/// Files, decoder (adapter attached) and head of a located reward model; one that should
/// have a head and has none is refused.
pub(crate) fn load_weights(
    located: &Located,
    config: &RewardConfig,
    global: &Global,
) -> anyhow::Result<(ModelFiles, Decoder, AnyHead)> {
    if let RewardFamily::Step(steps) = &config.family {
        let (files, decoder, _) = step_models::load((located, config), steps, global)?;
        return Ok((files, decoder, AnyHead::None));
    }
    let (files, mut decoder) = reward_base::open(located, &config.family, global)?;
    let adapter = located.adapter.as_deref();
    if config.family.keeps_output() {
        if let Some(adapter) = adapter {
            checkpoint::load_adapter(adapter, &mut decoder)?;
        }
        return Ok((files, decoder, AnyHead::None));
    }
    let head = match adapter {
        // The adapter brings the head; loading it fails where it does not.
        Some(adapter) => {
            let head = fresh_head(&mut decoder, config, (HeadInit::Zero {}, 0))?;
            checkpoint::load_adapter(adapter, &mut decoder)?;
            head
        }
        None if config.family.is_scalar() => {
            AnyHead::Scalar(reward_checkpoint::load_scalar_head(&mut decoder, &files, config)?)
        }
        None => AnyHead::Token(TokenHead(reward_checkpoint::load_head(
            &mut decoder,
            &files,
            config,
            1,
        )?)),
    };
    Ok((files, decoder, head))
}

/// A fresh head of a family that has one.
pub(crate) fn fresh_head(
    decoder: &mut Decoder,
    config: &RewardConfig,
    place: (HeadInit, u64),
) -> anyhow::Result<AnyHead> {
    if config.family.is_scalar() {
        return Ok(AnyHead::Scalar(reward_checkpoint::fresh_scalar_head(decoder, config, place)?));
    }
    Ok(AnyHead::Token(TokenHead(LinearHead::attach(decoder, &config.head, 1, place))))
}

/// How a process reward model cuts responses; `None` for any other model.
pub(crate) fn segmentation(model: &str) -> anyhow::Result<Option<Segmentation>> {
    if OpenAiTarget::is_remote(model) || CombinedModel::is_one(Path::new(model)) {
        return Ok(None);
    }
    Ok(description(&resolve::locate(model)?)?.and_then(|config| match config.family {
        RewardFamily::Step(steps) => Some(steps.segmentation),
        _ => None,
    }))
}
