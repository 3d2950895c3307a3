//! Reward models of every family behind one trait object.
//!
//! `config.json` (for an adapter its own files) says what a model is; whoever wants a
//! number a response asks here and need not know.

use std::sync::Arc;

use patarm_files::{ModelFiles, RewardConfig, RewardFamily, open_model};
use patarm_models::{Decoder, HeadInit, LinearHead, checkpoint, reward_checkpoint};
use patarm_reward::model::RewardModel;
use patarm_reward::observer::Observer;
use patarm_reward::openai::OpenAiTarget;
use patarm_reward::scalar::{SCORING_TOKENS, ScalarRewardModel, ScalarText};
use patarm_text::tokenizer::Tokenizer;

use crate::cli::{Global, JudgeOptions};
use crate::exit::{Code, failure};
use crate::judging::with_pointwise;
use crate::resolve::{self, Located};

/// What to do with a reward model once it is there.
pub(crate) type UseRewardModel<'a> =
    dyn for<'m> FnMut(&'m (dyn RewardModel + 'm)) -> anyhow::Result<()> + 'a;

/// Opens a reward model of any kind, a judge included, and hands it to `act`.
pub(crate) fn with_reward_model(
    options: &JudgeOptions,
    global: &Global,
    observer: &Arc<dyn Observer>,
    act: &mut UseRewardModel<'_>,
) -> anyhow::Result<()> {
    if OpenAiTarget::is_remote(&options.model) {
        return with_pointwise(options, global, observer, &mut |judge| act(judge));
    }
    let located = resolve::locate(&options.model)?;
    match description(&located)? {
        Some(config) => {
            let loaded = load(&located, config, global)?;
            act(&loaded.scalar(observer.as_ref(), &options.model))
        }
        None => with_pointwise(options, global, observer, &mut |judge| act(judge)),
    }
}

/// Whether a model gives numbers and no judgements.
pub(crate) fn gives_numbers(model: &str) -> anyhow::Result<bool> {
    Ok(!OpenAiTarget::is_remote(model) && description(&resolve::locate(model)?)?.is_some())
}

/// What stands on top of a located model; `None` for one that writes text.
pub(crate) fn description(located: &Located) -> anyhow::Result<Option<RewardConfig>> {
    let folder = located.adapter.as_deref().unwrap_or(&located.base);
    Ok(RewardConfig::read(folder)?)
}

/// Refuses a model that gives numbers where text is wanted.
pub(crate) fn refuse_scalar(located: &Located) -> anyhow::Result<()> {
    if description(located)?.is_none() {
        return Ok(());
    }
    let folder = located.adapter.as_deref().unwrap_or(&located.base);
    let message = format!(
        "{} is a scalar reward model, which writes no text; use `patarm score` or `patarm eval` with it",
        folder.display()
    );
    Err(failure(Code::Model, message))
}

/// A decoder with its head, ready to score or to train further.
#[derive(Debug)]
pub(crate) struct LoadedReward {
    /// The decoder, adapter attached.
    pub(crate) decoder: Decoder,
    /// The head.
    pub(crate) head: LinearHead,
    /// What it is.
    pub(crate) config: RewardConfig,
    /// Its texts.
    pub(crate) text: ScalarText,
}

impl LoadedReward {
    /// The scalar model.
    pub(crate) fn scalar<'a>(
        &'a self,
        observer: &'a dyn Observer,
        name: &str,
    ) -> ScalarRewardModel<'a> {
        ScalarRewardModel {
            decoder: &self.decoder,
            head: self.head,
            text: &self.text,
            config: &self.config,
            batch_tokens: SCORING_TOKENS,
            observer,
            name: name.to_owned(),
        }
    }
}

/// Loads a located reward model; one without its head is refused.
pub(crate) fn load(
    located: &Located,
    config: RewardConfig,
    global: &Global,
) -> anyhow::Result<LoadedReward> {
    let (_, decoder, head) = load_weights(located, &config, global)?;
    let text = ScalarText::new(Arc::new(Tokenizer::open(&located.base)?))?;
    Ok(LoadedReward { decoder, head, config, text })
}

/// Files, decoder and head, without a tokenizer.
pub(crate) fn load_weights(
    located: &Located,
    config: &RewardConfig,
    global: &Global,
) -> anyhow::Result<(ModelFiles, Decoder, LinearHead)> {
    let files = open_model(&located.base)?;
    let mut decoder = Decoder::body_from_files(resolve::backend(global), &files)?;
    let RewardFamily::Scalar {} = config.family else {
        return Err(failure(Code::Model, "this family of reward model is not supported"));
    };
    let head = match &located.adapter {
        // The adapter brings the head; loading it fails where it does not.
        Some(adapter) => {
            let place = (HeadInit::Zero {}, 0);
            let head = LinearHead::attach(&mut decoder, &config.head, 1, place);
            checkpoint::load_adapter(adapter, &mut decoder)?;
            head
        }
        None => reward_checkpoint::load_head(&mut decoder, &files, config, 1)?,
    };
    Ok((files, decoder, head))
}
