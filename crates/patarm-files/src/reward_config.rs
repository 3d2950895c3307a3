//! What kind of reward model a folder holds, beside the decoder's own shape.
//!
//! Three layouts are read. `AutoModelForSequenceClassification` of `transformers`
//! (class `…ForSequenceClassification`, matrix `score.weight`, one label);
//! OpenRLHF's reward models (class `RewardModel` and its older names, the matrix
//! named by `value_head_prefix`, `mean` and `std` beside it); and ours, for families
//! those two do not know: the object `patarm_reward` of `config.json`. An adapter has
//! no `config.json`: there the object is the file `reward.json`, and without it a PEFT
//! adapter for sequence classification is a scalar reward model.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::{Architecture, ModelConfig};
use crate::error::{Error, Result};
use crate::json;
use crate::limits::MAX_JSON_BYTES;

/// Version of the object this crate reads and writes.
pub const REWARD_CONFIG_VERSION: u32 = 1;
/// File of the description beside an adapter.
pub const REWARD_FILE: &str = "reward.json";
/// Name of the description within `config.json`.
const KEY: &str = "patarm_reward";
/// Class names of OpenRLHF's reward models, over the years.
const OPENRLHF_CLASSES: [&str; 2] = ["RewardModel", "LLMForSequenceRegression"];

/// How a number is read off the decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RewardFamily {
    /// One number from the last token.
    Scalar {},
    /// A number for each token of the response; the reward is their mean.
    Token {},
    /// A distribution over ratings from the model's own digits: no head.
    Ordinal {},
    /// One number from attention over all tokens in several layers.
    Hpqa {
        /// The layers, from 1.
        layers: Vec<usize>,
        /// Attention heads.
        heads: usize,
    },
}

impl RewardFamily {
    /// Whether the model still writes text: its output matrix is kept and it has no head.
    #[must_use]
    pub fn keeps_output(&self) -> bool {
        matches!(self, Self::Ordinal {})
    }

    /// Whether its head gives an item one number.
    #[must_use]
    pub fn is_scalar(&self) -> bool {
        matches!(self, Self::Scalar {} | Self::Hpqa { .. })
    }

    /// What a person calls it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Scalar {} => "scalar reward model",
            Self::Token {} => "token reward model",
            Self::Ordinal {} => "ordinal reward model",
            Self::Hpqa { .. } => "reward model with query attention",
        }
    }
}

/// A reward model on top of a decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardConfig {
    /// [`REWARD_CONFIG_VERSION`].
    pub version: u32,
    /// How the number is read.
    pub family: RewardFamily,
    /// Name of the head's matrix, without `.weight`.
    pub head: String,
    /// Mean of the raw rewards on held-out data.
    #[serde(default)]
    pub mean: Option<f64>,
    /// Standard deviation of the raw rewards on held-out data.
    #[serde(default)]
    pub std: Option<f64>,
}

impl RewardConfig {
    /// A family with its usual head name and no statistics.
    #[must_use]
    pub fn new(family: RewardFamily) -> Self {
        Self {
            version: REWARD_CONFIG_VERSION,
            family,
            head: "score".to_owned(),
            mean: None,
            std: None,
        }
    }

    /// Reads the description of a model or adapter folder; `None` for a model that
    /// writes text, and for anything that is not such a folder.
    ///
    /// # Errors
    /// When the description is damaged, or the model is a classifier of a kind that
    /// gives no single number.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let own = folder.join(REWARD_FILE);
        if own.is_file() {
            let object = json::read_object(&own, MAX_JSON_BYTES)?;
            return Self::parse(object).map(Some).map_err(|error| error.in_file(&own));
        }
        let readers: [(&str, Reader); 2] =
            [("adapter_config.json", from_adapter), ("config.json", from_model)];
        for (name, reader) in readers {
            let path = folder.join(name);
            if path.is_file() {
                let object = json::read_object(&path, MAX_JSON_BYTES)?;
                return reader(&object).map_err(|error| error.in_file(&path));
            }
        }
        Ok(None)
    }

    fn parse(object: Map<String, Value>) -> Result<Self> {
        let config: Self = serde_json::from_value(Value::Object(object))
            .map_err(|cause| Error::malformed(format!("`{KEY}` cannot be read: {cause}")))?;
        if config.version != REWARD_CONFIG_VERSION {
            return Err(Error::unsupported(format!(
                "`{KEY}` has version {}; this program reads version {REWARD_CONFIG_VERSION}",
                config.version
            )));
        }
        if let Some(std) = config.std.filter(|std| !std.is_finite() || *std <= 0.0) {
            return Err(Error::malformed(format!("`std` is {std}; it must be positive")));
        }
        Ok(config)
    }

    /// The `config.json` of a folder with this model: what `transformers` and
    /// OpenRLHF load where the family is one of theirs, else the decoder's own with
    /// the description inside.
    #[must_use]
    pub fn to_json(&self, model: &ModelConfig, torch_dtype: &str) -> Map<String, Value> {
        let mut object = model.to_json(torch_dtype);
        match self.family {
            RewardFamily::Scalar {} => self.describe_classifier(model, &mut object),
            // The output matrix is not stored: the class is that of the bare decoder.
            RewardFamily::Token {} | RewardFamily::Hpqa { .. } => {
                let class = match model.architecture {
                    Architecture::Llama => "LlamaModel",
                    Architecture::Qwen2 => "Qwen2Model",
                    Architecture::Qwen3 => "Qwen3Model",
                };
                object.insert("architectures".to_owned(), json!([class]));
                object.insert(KEY.to_owned(), json!(self));
            }
            RewardFamily::Ordinal {} => drop(object.insert(KEY.to_owned(), json!(self))),
        }
        object
    }

    fn describe_classifier(&self, model: &ModelConfig, object: &mut Map<String, Value>) {
        let class = match model.architecture {
            Architecture::Llama => "LlamaForSequenceClassification",
            Architecture::Qwen2 => "Qwen2ForSequenceClassification",
            Architecture::Qwen3 => "Qwen3ForSequenceClassification",
        };
        let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
        put("architectures", json!([class]));
        put("num_labels", json!(1));
        put("id2label", json!({ "0": "LABEL_0" }));
        put("label2id", json!({ "LABEL_0": 0 }));
        put("value_head_prefix", json!(self.head));
        if let (Some(mean), Some(std)) = (self.mean, self.std) {
            put("mean", json!(mean));
            put("std", json!(std));
        }
    }
}

type Reader = fn(&Map<String, Value>) -> Result<Option<RewardConfig>>;

/// A PEFT adapter made for `AutoModelForSequenceClassification`.
fn from_adapter(object: &Map<String, Value>) -> Result<Option<RewardConfig>> {
    if object.get("task_type").and_then(Value::as_str) != Some("SEQ_CLS") {
        return Ok(None);
    }
    Ok(Some(RewardConfig::new(RewardFamily::Scalar {})))
}

fn from_model(object: &Map<String, Value>) -> Result<Option<RewardConfig>> {
    if let Some(value) = object.get(KEY) {
        let Value::Object(own) = value else {
            return Err(Error::malformed(format!("`{KEY}` should be an object")));
        };
        return RewardConfig::parse(own.clone()).map(Some);
    }
    let class = object.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
    let Some(class) = class.filter(|class| !class.ends_with("ForCausalLM")) else {
        return Ok(None);
    };
    if !class.ends_with("ForSequenceClassification") && !OPENRLHF_CLASSES.contains(&class) {
        return Err(Error::unsupported(format!(
            "the architecture `{class}` is no reward model this program knows; supported are \
             Llama, Qwen2 and Qwen3 for sequence classification with one label, OpenRLHF's \
             RewardModel, and models that write text (…ForCausalLM)"
        )));
    }
    check_one_label(object)?;
    let mut config = RewardConfig::new(RewardFamily::Scalar {});
    if let Some(prefix) = object.get("value_head_prefix").and_then(Value::as_str) {
        prefix.clone_into(&mut config.head);
    }
    let number = |key: &str| object.get(key).and_then(Value::as_f64);
    if let (Some(mean), Some(std)) = (number("mean"), number("std").filter(|std| *std > 0.0)) {
        (config.mean, config.std) = (Some(mean), Some(std));
    }
    Ok(Some(config))
}

/// The number of labels, where the configuration says it, must be 1.
fn check_one_label(object: &Map<String, Value>) -> Result<()> {
    let named = object.get("id2label").and_then(Value::as_object).map(|map| map.len() as u64);
    let counted = object.get("num_labels").and_then(Value::as_u64);
    match named.or(counted) {
        None | Some(1) => Ok(()),
        Some(labels) => Err(Error::unsupported(format!(
            "the classifier has {labels} labels; a scalar reward model has 1"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, value: &Value) {
        std::fs::write(folder.join(name), value.to_string()).unwrap();
    }

    fn read(name: &str, value: &Value) -> Result<Option<RewardConfig>> {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), name, value);
        RewardConfig::read(folder.path())
    }

    #[test]
    fn published_layouts_are_recognised() {
        let ours = json!({ "architectures": ["LlamaForCausalLM"], "model_type": "llama" });
        assert_eq!(read("config.json", &ours).unwrap(), None);
        let transformers = json!({
            "architectures": ["Qwen2ForSequenceClassification"],
            "id2label": { "0": "LABEL_0" },
        });
        let config = read("config.json", &transformers).unwrap().unwrap();
        assert_eq!(config, RewardConfig::new(RewardFamily::Scalar {}));
        let openrlhf = json!({
            "architectures": ["RewardModel"], "value_head_prefix": "value_head",
            "mean": -0.5, "std": 2.0,
        });
        let config = read("config.json", &openrlhf).unwrap().unwrap();
        assert_eq!(
            (config.head.as_str(), config.mean, config.std),
            ("value_head", Some(-0.5), Some(2.0))
        );
        let peft = json!({ "peft_type": "LORA", "task_type": "SEQ_CLS" });
        assert!(read("adapter_config.json", &peft).unwrap().is_some());
        let peft = json!({ "peft_type": "LORA", "task_type": "CAUSAL_LM" });
        assert!(read("adapter_config.json", &peft).unwrap().is_none());
    }

    #[test]
    fn families_of_our_own_are_described_within_the_decoders_config() {
        let hpqa = RewardFamily::Hpqa { layers: vec![6, 12], heads: 8 };
        for family in [RewardFamily::Token {}, RewardFamily::Ordinal {}, hpqa] {
            let config =
                RewardConfig { mean: Some(2.0), std: Some(1.0), ..RewardConfig::new(family) };
            let own = json!({ "architectures": ["LlamaForCausalLM"], "patarm_reward": config });
            assert_eq!(read("config.json", &own).unwrap(), Some(config));
        }
    }

    #[test]
    fn what_gives_no_single_number_is_refused_in_one_sentence() {
        let two = json!({
            "architectures": ["LlamaForSequenceClassification"],
            "id2label": { "0": "bad", "1": "good" },
        });
        let message = read("config.json", &two).unwrap_err().to_string();
        assert!(message.contains("2 labels") && message.contains("config.json"), "{message}");
        let two = json!({ "architectures": ["RewardModel"], "num_labels": 5 });
        assert!(read("config.json", &two).unwrap_err().to_string().contains("5 labels"));
        let other = json!({ "architectures": ["BertForMaskedLM"] });
        let message = read("config.json", &other).unwrap_err().to_string();
        assert!(message.contains("BertForMaskedLM") && message.contains("Qwen3"), "{message}");
    }

    #[test]
    fn hostile_descriptions_are_errors() {
        for text in
            ["[]", "{", "{\"version\": 9}", "{\"version\": 1, \"family\": {\"kind\": \"x\"}}"]
        {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(REWARD_FILE), text).unwrap();
            assert!(RewardConfig::read(folder.path()).is_err(), "{text}");
        }
        let own =
            json!({ "version": 1, "family": { "kind": "scalar" }, "head": "score", "std": 0.0 });
        assert!(read(REWARD_FILE, &own).is_err());
        assert!(read("config.json", &json!({ "patarm_reward": 3 })).is_err());
    }

    #[test]
    fn a_description_survives_its_own_file() {
        let config = RewardConfig {
            mean: Some(1.5),
            std: Some(0.25),
            ..RewardConfig::new(RewardFamily::Scalar {})
        };
        let value = serde_json::to_value(&config).unwrap();
        assert_eq!(read(REWARD_FILE, &value).unwrap(), Some(config));
    }
}
