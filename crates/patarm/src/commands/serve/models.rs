//! From what was typed after `--model` to models that can be served.

use std::path::Path;
use std::sync::Arc;

use patarm_files::{RewardConfig, RewardFamily};
use patarm_models::EngineLimits;
use patarm_reward::cache::judged::AnswerCache;
use patarm_reward::cache::{CachedCompleter, VerdictCache};
use patarm_reward::completer::{Completer, CompletionRequest, CompletionResult};
use patarm_reward::embedded::ReadOut;
use patarm_reward::judge::CompleterJudge;
use patarm_reward::observer::Silent;
use patarm_reward::openai::{OpenAiCompleter, OpenAiTarget};
use patarm_reward::ordinal::OrdinalText;
use patarm_reward::scalar::ScalarText;
use patarm_reward::serving::{
    BatchModel, CachedModel, Family, GenerativeModel, GenerativeText, ModelCard, NumberModel,
    Reading, RemoteModel, ServedModel,
};
use patarm_reward::template::JudgeTemplate;
use patarm_reward::voting::VoteCombine;
use patarm_text::tokenizer::Tokenizer;

use super::kept::KeptModel;
use crate::cli::serve::Serve;
use crate::cli::{Global, JudgeOptions};
use crate::combined::CombinedModel;
use crate::exit::{Code, failure};
use crate::resolve::{self, Located};
use crate::reward_models::AnyHead;
use crate::{energy, fingerprint, judging, reward_models, training};

/// All models, in the order they were named.
pub(super) fn open(options: &Serve, global: &Global) -> anyhow::Result<Vec<Box<dyn ServedModel>>> {
    let is_remote =
        |named: &&String| split_name(named).is_ok_and(|(_, model)| OpenAiTarget::is_remote(model));
    let num_remote = options.models.iter().filter(is_remote).count();
    if options.cache.is_some() && num_remote != 1 && (num_remote, options.models.len()) != (0, 1) {
        let message = "--cache keeps the answers of one judge: give one remote model, or one \
                       model alone";
        return Err(failure(Code::Usage, message));
    }
    options.models.iter().map(|named| open_one(named, options, global)).collect()
}

/// `NAME=MODEL`, or a model that is its own name. A remote address holds no name before
/// its `openai:`, so its own `=` are left alone.
fn split_name(named: &str) -> anyhow::Result<(&str, &str)> {
    let Some((name, model)) = named.split_once('=').filter(|_| !OpenAiTarget::is_remote(named))
    else {
        return Ok((named, named));
    };
    if name.is_empty() || model.is_empty() {
        return Err(failure(Code::Usage, format!("--model {named}: write NAME=MODEL")));
    }
    Ok((name, model))
}

fn open_one(named: &str, options: &Serve, global: &Global) -> anyhow::Result<Box<dyn ServedModel>> {
    let (name, model) = split_name(named)?;
    let asked = JudgeOptions { model: model.to_owned(), asking: options.asking.clone() };
    if OpenAiTarget::is_remote(model) {
        return remote(name, &asked, options.cache.as_deref());
    }
    // With several models the file is the remote one's.
    let cache = options.cache.as_deref().filter(|_| options.models.len() == 1);
    if cache.is_some() && reward_models::gives_numbers(model)? {
        let message = format!("--cache keeps judgements, and {name} writes none");
        return Err(failure(Code::Usage, message));
    }
    if CombinedModel::is_one(Path::new(model)) {
        return kept((name, &asked), (Family::Combined, None), global);
    }
    let located = resolve::locate(model)?;
    if energy::is_one(&located) {
        return kept((name, &asked), (Family::Energy, energy::normalisation(&located)?), global);
    }
    if let Some(config) = reward_models::description(&located)? {
        if matches!(config.family, RewardFamily::Step(_)) {
            return kept((name, &asked), (Family::Step, config.mean.zip(config.std)), global);
        }
        return number(name, &located, &config, global);
    }
    let loaded = resolve::load(located, global)?;
    let config = judging::judge_config(&asked, &loaded.located)?;
    let text = training::judge_text(&config, &loaded.tokenizer)?;
    let settings = judging::settings(&asked, &config, &text);
    let text = GenerativeText::new(name, text, settings, loaded.located.sha256.clone())?;
    let limits = EngineLimits { slots: options.cache_tokens, ..EngineLimits::default() };
    let judge = Box::new(GenerativeModel::new(loaded.decoder, text, limits));
    let Some(path) = cache else { return Ok(judge) };
    let fingerprint = fingerprint::of_judge(&asked, global)?;
    let cache = Arc::new(AnswerCache::open(path, &fingerprint, &Silent)?);
    Ok(Box::new(CachedModel::new(judge, cache, Box::new(not_kept))))
}

fn not_kept(error: &patarm_reward::Error) {
    tracing::warn!(%error, "answers are given but not kept");
}

fn number(
    name: &str,
    located: &Located,
    config: &RewardConfig,
    global: &Global,
) -> anyhow::Result<Box<dyn ServedModel>> {
    let (_, decoder, head) = reward_models::load_weights(located, config, global)?;
    let tokenizer = Arc::new(Tokenizer::open(&located.base)?);
    let reading = match (&config.family, head) {
        (_, AnyHead::Scalar(head)) => Reading::Scalar(ScalarText::new(tokenizer)?, head),
        (_, AnyHead::Token(head)) => Reading::Token(ScalarText::new(tokenizer)?, head.0),
        (RewardFamily::Ordinal {}, _) => Reading::Ordinal(OrdinalText::new(tokenizer)?),
        _ => {
            let message =
                format!("{name}: a {} is not served; use `patarm score`", config.family.name());
            return Err(failure(Code::Model, message));
        }
    };
    let revision = located.sha256.clone();
    Ok(Box::new(NumberModel::new(name, decoder, reading, config, revision)))
}

/// A model that is opened as `patarm score` opens it and stays where it is.
fn kept(
    (name, asked): (&str, &JudgeOptions),
    (family, normalisation): (Family, Option<(f64, f64)>),
    global: &Global,
) -> anyhow::Result<Box<dyn ServedModel>> {
    let card = ModelCard {
        name: name.to_owned(),
        family,
        // The model itself says what is too long for it: its tokens are not known here.
        max_tokens: usize::MAX,
        votes: 1,
        read_out: ReadOut::Expected,
        combine: VoteCombine::Mean,
        scale: None,
        normalisation,
        template: None,
        revision: None,
    };
    Ok(Box::new(BatchModel::new(KeptModel::open(asked, global)?, card)))
}

fn remote(
    name: &str,
    asked: &JudgeOptions,
    cache: Option<&Path>,
) -> anyhow::Result<Box<dyn ServedModel>> {
    let template = JudgeTemplate::load(asked.asking.template.as_deref().unwrap_or("patarm"))?;
    let completer = judging::remote_completer(&asked.model, asked.asking.concurrency)?;
    let card = ModelCard::of_remote_judge(name, &template, asked.asking.votes);
    let (config, threads) = (judging::remote_config(asked), asked.asking.concurrency);
    Ok(match cache {
        Some(path) => {
            let cache = VerdictCache::open(path)?;
            tracing::info!(known = cache.len(), skipped = cache.num_skipped(), "verdict cache");
            let remembering = Remembering(CachedCompleter::new(completer, "", cache));
            let judge = CompleterJudge::new(remembering, template, config);
            Box::new(RemoteModel::new(judge, card, threads))
        }
        None => {
            let judge = CompleterJudge::new(completer, template, config);
            Box::new(RemoteModel::new(judge, card, threads))
        }
    })
}

/// A cached engine whose failures to write go to the log: answers are given all the same.
struct Remembering(CachedCompleter<OpenAiCompleter>);

impl Completer for Remembering {
    fn complete(&self, requests: &[CompletionRequest]) -> Vec<CompletionResult> {
        let results = self.0.complete(requests);
        if let Some(error) = self.0.take_write_error() {
            not_kept(&error);
        }
        results
    }

    fn name(&self) -> String {
        self.0.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models() {
        assert_eq!(split_name("rm=/models/a").unwrap(), ("rm", "/models/a"));
        assert_eq!(split_name("/models/a").unwrap(), ("/models/a", "/models/a"));
        let remote = "openai:http://h:1/v1#a=b";
        assert_eq!(split_name(remote).unwrap(), (remote, remote));
        assert_eq!(split_name("j=openai:http://h:1/v1#m").unwrap().0, "j");
        assert!(split_name("=x").is_err());
        assert!(split_name("x=").is_err());
    }
}
