//! Process reward models from disk: decoder, head and texts.

use std::sync::Arc;

use patarm_files::{ModelFiles, RewardConfig, RewardFamily, StepConfig};
use patarm_models::{Decoder, HeadInit, StepHead, StepHeadShape, checkpoint};
use patarm_reward::observer::Observer;
use patarm_reward::process::{ProcessRewardModel, StepReader, StepText};
use patarm_reward::scalar::Scoring;
use patarm_text::tokenizer::Tokenizer;

use crate::cli::{Global, JudgeOptions};
use crate::exit::{Code, failure};
use crate::resolve::Located;
use crate::reward_base;
use crate::reward_models::UseRewardModel;

/// Opens a located process reward model and hands it to `act`.
pub(crate) fn with_step_model(
    (located, config): (&Located, &RewardConfig),
    options: &JudgeOptions,
    (global, observer): (&Global, &Arc<dyn Observer>),
    act: &mut UseRewardModel<'_>,
) -> anyhow::Result<()> {
    let RewardFamily::Step(steps) = &config.family else {
        return Err(failure(Code::Bug, "no process reward model"));
    };
    let tokenizer = Arc::new(Tokenizer::open(&located.base)?);
    let text = text(tokenizer, steps)?;
    let (_, decoder, head) = load((located, config), steps, global)?;
    let reader = reader(steps, head, &text)?;
    act(&ProcessRewardModel {
        scoring: Scoring::new(&decoder, observer.as_ref(), options.model.clone()),
        reader,
        text: &text,
        config,
    })
}

/// The layout on a tokenizer; one that does not fit is a matter of the model.
pub(crate) fn text(tokenizer: Arc<Tokenizer>, steps: &StepConfig) -> anyhow::Result<StepText> {
    StepText::new(tokenizer, steps).map_err(|error| failure(Code::Model, error.to_string()))
}

/// What is read off the decoder.
pub(crate) fn reader(
    steps: &StepConfig,
    head: Option<StepHead>,
    text: &StepText,
) -> anyhow::Result<StepReader> {
    StepReader::of(&steps.readout, head, text.tokens())
        .ok_or_else(|| failure(Code::Bug, "a process reward model has a head or two labels"))
}

/// The size of a layout's head; `None` where it has none.
pub(crate) fn head_shape(steps: &StepConfig) -> Option<StepHeadShape> {
    let outputs = steps.readout.num_outputs();
    (outputs > 0).then_some(StepHeadShape { layers: steps.head_layers, outputs })
}

/// Files, decoder (adapter attached) and head of a located process reward model.
pub(crate) fn load(
    (located, config): (&Located, &RewardConfig),
    steps: &StepConfig,
    global: &Global,
) -> anyhow::Result<(ModelFiles, Decoder, Option<StepHead>)> {
    let (files, mut decoder) = reward_base::open(located, &config.family, global)?;
    let head = match (head_shape(steps), &located.adapter) {
        (None, _) => None,
        (Some(shape), None) => Some(StepHead::load(&mut decoder, &files, &config.head, shape)?),
        // The adapter brings the head; loading it fails where it does not.
        (Some(shape), Some(_)) => {
            let place = (HeadInit::Zero {}, 0);
            Some(StepHead::attach(&mut decoder, &config.head, shape, place))
        }
    };
    if let Some(adapter) = &located.adapter {
        checkpoint::load_adapter(adapter, &mut decoder)?;
    }
    Ok((files, decoder, head))
}
