//! From what was typed after `--model` to models that can be served.

use patarm_models::EngineLimits;
use patarm_reward::embedded::ReadOut;
use patarm_reward::judge::CompleterJudge;
use patarm_reward::openai::OpenAiTarget;
use patarm_reward::serving::{
    Family, GenerativeModel, GenerativeText, ModelCard, RemoteModel, ServedModel,
};
use patarm_reward::template::{JudgeTemplate, RubricMode};
use patarm_reward::voting::VoteCombine;

use crate::cli::serve::Serve;
use crate::cli::{Global, JudgeOptions};
use crate::exit::{Code, failure};
use crate::{judging, resolve, training};

/// All models, in the order they were named.
pub(super) fn open(options: &Serve, global: &Global) -> anyhow::Result<Vec<Box<dyn ServedModel>>> {
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
        return remote(name, &asked);
    }
    let loaded = resolve::open(model, global)?;
    let config = judging::judge_config(&asked, &loaded.located)?;
    let text = training::judge_text(&config, &loaded.tokenizer)?;
    let settings = judging::settings(&asked, &config, &text);
    let text = GenerativeText::new(name, text, settings, loaded.located.sha256.clone())?;
    let limits = EngineLimits { slots: options.cache_tokens, ..EngineLimits::default() };
    Ok(Box::new(GenerativeModel::new(loaded.decoder, text, limits)))
}

fn remote(name: &str, asked: &JudgeOptions) -> anyhow::Result<Box<dyn ServedModel>> {
    let template = JudgeTemplate::load(asked.asking.template.as_deref().unwrap_or("patarm"))?;
    let completer = judging::remote_completer(&asked.model, asked.asking.concurrency)?;
    let scale = template.format(RubricMode::Both).scale;
    let card = ModelCard {
        name: name.to_owned(),
        family: Family::Generative,
        max_tokens: usize::MAX,
        votes: asked.asking.votes.max(1),
        read_out: ReadOut::Sampled,
        combine: VoteCombine::Mean,
        scale: Some((scale.min, scale.max)),
        normalisation: None,
        template: Some(template.name().to_owned()),
        revision: None,
    };
    let judge = CompleterJudge::new(completer, template, judging::remote_config(asked));
    Ok(Box::new(RemoteModel::new(judge, card, asked.asking.concurrency)))
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
