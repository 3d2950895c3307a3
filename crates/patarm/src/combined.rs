//! `--model FILE.toml`: several reward models as one, normalised or penalised.

use std::path::Path;
use std::sync::Arc;

use patarm_eval::pairs::pair_items;
use patarm_reward::combinators::{Combine, Ensemble, LengthPenalised, QuantileNormalised};
use patarm_reward::model::{Reward, RewardModel};
use patarm_reward::observer::Observer;
use patarm_text::Item;
use serde::{Deserialize, Serialize};

use crate::cli::{Global, JudgeOptions};
use crate::datasets;
use crate::exit::{Code, failure};
use crate::reward_models::{UseRewardModel, with_reward_model};

/// Version of the file.
const VERSION: u32 = 1;
/// Most members of an ensemble.
const MAX_MEMBERS: usize = 16;
/// Longest file in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// What the file says. Members are combined first; then the length penalty, then
/// quantiles.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CombinedModel {
    /// Version of the format.
    version: u32,
    /// The models, as one would give them to `--model`.
    members: Vec<String>,
    /// How their values become one.
    #[serde(default = "mean")]
    combine: Combine,
    /// Length penalty.
    #[serde(default)]
    length_penalty: Option<LengthPenalty>,
    /// Comparisons whose responses give the reference values of quantiles.
    #[serde(default)]
    quantiles_of: Option<String>,
}

fn mean() -> Combine {
    Combine::Mean {}
}

/// How a response's length counts against it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "snake_case")]
enum LengthPenalty {
    /// A given penalty.
    PerCharacter {
        /// Taken off for each character.
        penalty: f64,
    },
    /// The slope of rewards on length over the responses of these comparisons.
    Fitted {
        /// The comparisons.
        data: String,
    },
}

impl CombinedModel {
    /// Whether `--model` names such a file.
    pub(crate) fn is_one(path: &Path) -> bool {
        path.extension().is_some_and(|extension| extension == "toml") && path.is_file()
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        let wrong = |what: String| failure(Code::Usage, format!("{}: {what}", path.display()));
        if std::fs::metadata(path)?.len() > MAX_BYTES {
            return Err(wrong("the file is longer than 1 MiB".into()));
        }
        let text = std::fs::read_to_string(path)?;
        let model: Self =
            toml::from_str(&text).map_err(|error| wrong(error.message().replace('\n', " ")))?;
        if model.version != VERSION {
            return Err(wrong(format!(
                "version is {}, this program reads {VERSION}",
                model.version
            )));
        }
        if model.members.is_empty() || model.members.len() > MAX_MEMBERS {
            return Err(wrong(format!("members must name 1 to {MAX_MEMBERS} models")));
        }
        if model.members.iter().any(|member| Self::is_one(Path::new(member))) {
            return Err(wrong("a member is such a file itself; list its members here".into()));
        }
        Ok(model)
    }
}

/// Opens the members, combines them and hands the result to `act`.
pub(crate) fn with_combined(
    options: &JudgeOptions,
    global: &Global,
    observer: &Arc<dyn Observer>,
    act: &mut UseRewardModel<'_>,
) -> anyhow::Result<()> {
    let model = CombinedModel::read(Path::new(&options.model))?;
    let opening = Opening { options, global, observer };
    opening.members(&model.members, Vec::new(), &mut |members| {
        let ensemble = Ensemble::new(members.to_vec(), model.combine)?;
        penalised(&ensemble, &model, act)
    })
}

struct Opening<'a> {
    options: &'a JudgeOptions,
    global: &'a Global,
    observer: &'a Arc<dyn Observer>,
}

type UseMembers<'a> = dyn for<'m> FnMut(&[&'m (dyn RewardModel + 'm)]) -> anyhow::Result<()> + 'a;

impl Opening<'_> {
    /// Opens one member after the other; all of them are alive when `act` runs.
    #[expect(clippy::needless_pass_by_value, reason = "every step owns the list it makes longer")]
    fn members(
        &self,
        left: &[String],
        opened: Vec<&dyn RewardModel>,
        act: &mut UseMembers<'_>,
    ) -> anyhow::Result<()> {
        let Some((next, left)) = left.split_first() else {
            return act(&opened);
        };
        let options = JudgeOptions { model: next.clone(), ..self.options.clone() };
        with_reward_model(&options, self.global, self.observer, &mut |member| {
            let mut opened: Vec<&dyn RewardModel> = opened.clone();
            opened.push(member);
            self.members(left, opened, act)
        })
    }
}

fn penalised(
    inner: &dyn RewardModel,
    model: &CombinedModel,
    act: &mut UseRewardModel<'_>,
) -> anyhow::Result<()> {
    match &model.length_penalty {
        None => normalised(inner, model, act),
        Some(LengthPenalty::PerCharacter { penalty }) => {
            normalised(&LengthPenalised::new(inner, *penalty), model, act)
        }
        Some(LengthPenalty::Fitted { data }) => {
            let scored = reference(inner, data)?;
            normalised(&LengthPenalised::fitted(inner, &scored), model, act)
        }
    }
}

fn normalised(
    inner: &dyn RewardModel,
    model: &CombinedModel,
    act: &mut UseRewardModel<'_>,
) -> anyhow::Result<()> {
    let Some(data) = &model.quantiles_of else {
        return act(inner);
    };
    let values: Vec<f64> = reference(inner, data)?.into_iter().map(|(_, value)| value).collect();
    act(&QuantileNormalised::new(inner, &values)?)
}

/// Length in characters and reward of every response that could be scored.
fn reference(model: &dyn RewardModel, data: &str) -> anyhow::Result<Vec<(usize, f64)>> {
    let items = pair_items(&datasets::read(data)?);
    let length = |item: &Item| item.response.chars().count();
    let scored =
        |(item, reward): (&Item, Result<Reward, _>)| Some((length(item), reward.ok()?.value));
    Ok(items.iter().zip(model.score(&items)).filter_map(scored).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_strictly() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("both.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("written");
            CombinedModel::read(&path)
        };
        let model = read("version = 1\nmembers = [\"a\", \"b\"]\n").expect("valid");
        assert_eq!(model.combine, Combine::Mean {});
        let full = "version = 1\nmembers = [\"a\"]\nquantiles_of = \"x.jsonl\"\n\
                    combine = { kind = \"uncertainty_weighted\", coefficient = 0.5 }\n\
                    length_penalty = { kind = \"per_character\", penalty = 0.01 }\n";
        assert!(read(full).is_ok());
        for text in [
            "version = 2\nmembers = [\"a\"]\n",
            "version = 1\nmembers = []\n",
            "version = 1\nmembers = [\"a\"]\ncombine = { kind = \"best\" }\n",
            "version = 1\nmember = [\"a\"]\n",
            "version = ",
        ] {
            let error = read(text).expect_err("refused").to_string();
            assert!(error.contains("both.toml") && !error.contains('\n'), "{error}");
        }
        let nested = format!("version = 1\nmembers = [\"{}\"]\n", path.display());
        assert!(read(&nested).is_err(), "a circle");
    }
}
