//! What kind of reward model a folder holds, beside the decoder's own shape.
//!
//! These layouts are read. `AutoModelForSequenceClassification` of `transformers`
//! (class `…ForSequenceClassification`, matrix `score.weight`, one label); process reward
//! models as token classifiers of two labels, in Qwen's layout and in Skywork's
//! ([`StepConfig`]); OpenRLHF's reward models (class `RewardModel` and its older names, the matrix
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
use crate::step_config::{StepConfig, StepReadout};

/// Version of the object this crate reads and writes.
pub const REWARD_CONFIG_VERSION: u32 = 1;
/// File of the description beside an adapter.
pub const REWARD_FILE: &str = "reward.json";
/// Name of the description within `config.json`.
const KEY: &str = "patarm_reward";
/// Class names of OpenRLHF's reward models, over the years.
const OPENRLHF_CLASSES: [&str; 2] = ["RewardModel", "LLMForSequenceRegression"];
/// Class of Qwen2.5-Math-PRM.
const QWEN_PRM_CLASS: &str = "Qwen2ForProcessRewardModel";
/// Class of Skywork-o1-Open-PRM.
const SKYWORK_PRM_CLASS: &str = "Qwen2ForPrmModel";

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
    /// A number at the end of each step of the response.
    Step(StepConfig),
}

impl RewardFamily {
    /// Whether the model still writes text: its output matrix is kept and it has no head.
    #[must_use]
    pub fn keeps_output(&self) -> bool {
        match self {
            Self::Ordinal {} => true,
            Self::Step(steps) => steps.readout.num_outputs() == 0,
            Self::Scalar {} | Self::Token {} | Self::Hpqa { .. } => false,
        }
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
            Self::Step(_) => "process reward model",
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
        if let RewardFamily::Step(steps) = &config.family {
            steps.check()?;
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
        match &self.family {
            RewardFamily::Scalar {} => self.describe_classifier(model, &mut object),
            // The output matrix is not stored: the class is that of the bare decoder.
            RewardFamily::Token {} | RewardFamily::Hpqa { .. } => {
                let class = format!("{}Model", class_prefix(model.architecture));
                object.insert("architectures".to_owned(), json!([class]));
                object.insert(KEY.to_owned(), json!(self));
            }
            RewardFamily::Ordinal {} => drop(object.insert(KEY.to_owned(), json!(self))),
            RewardFamily::Step(steps) => {
                self.describe_steps(steps, model, &mut object);
                object.insert(KEY.to_owned(), json!(self));
            }
        }
        object
    }

    /// The class that computes the same outputs at every token, where there is one.
    fn describe_steps(
        &self,
        steps: &StepConfig,
        model: &ModelConfig,
        object: &mut Map<String, Value>,
    ) {
        let prefix = class_prefix(model.architecture);
        let class = match (steps.head_layers, steps.readout.num_outputs()) {
            (_, 0) => return,
            (1, _) if self.head == "score" => format!("{prefix}ForTokenClassification"),
            (2, 2) if model.architecture == Architecture::Qwen2 => QWEN_PRM_CLASS.to_owned(),
            _ => format!("{prefix}Model"),
        };
        object.insert("architectures".to_owned(), json!([class]));
        let labels = (0..steps.readout.num_outputs()).map(|label| format!("LABEL_{label}"));
        let names: Vec<String> = labels.collect();
        let by_id: Map<String, Value> =
            names.iter().enumerate().map(|(id, name)| (id.to_string(), json!(name))).collect();
        let by_name: Map<String, Value> =
            names.iter().enumerate().map(|(id, name)| (name.clone(), json!(id))).collect();
        object.insert("num_labels".to_owned(), json!(names.len()));
        object.insert("id2label".to_owned(), Value::Object(by_id));
        object.insert("label2id".to_owned(), Value::Object(by_name));
    }

    fn describe_classifier(&self, model: &ModelConfig, object: &mut Map<String, Value>) {
        let class = format!("{}ForSequenceClassification", class_prefix(model.architecture));
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

/// How `transformers` begins the names of an architecture's classes.
fn class_prefix(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Llama => "Llama",
        Architecture::Qwen2 => "Qwen2",
        Architecture::Qwen3 => "Qwen3",
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
    if let Some(config) = from_step_class(class, object)? {
        return Ok(Some(config));
    }
    if !class.ends_with("ForSequenceClassification") && !OPENRLHF_CLASSES.contains(&class) {
        return Err(Error::unsupported(format!(
            "the architecture `{class}` is no reward model this program knows; supported are \
             Llama, Qwen2 and Qwen3 for sequence classification with one label or token \
             classification with two, {QWEN_PRM_CLASS}, {SKYWORK_PRM_CLASS}, OpenRLHF's \
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

/// Published process reward models, by their class.
fn from_step_class(class: &str, object: &Map<String, Value>) -> Result<Option<RewardConfig>> {
    let (steps, head) = match class {
        QWEN_PRM_CLASS => (StepConfig::qwen_math_prm(), "score"),
        SKYWORK_PRM_CLASS => (StepConfig::skywork_prm(), "v_head.summary"),
        _ if class.ends_with("ForTokenClassification") => (StepConfig::token_classifier(), "score"),
        _ => return Ok(None),
    };
    // A value head has no labels; whatever the configuration inherited says nothing of it.
    let expected = steps.readout.num_outputs() as u64;
    if let Some(labels) = num_labels(object).filter(|labels| *labels != expected)
        && steps.readout == (StepReadout::Classes {})
    {
        return Err(Error::unsupported(format!(
            "`{class}` has {labels} labels; a process reward model has two, wrong and right"
        )));
    }
    let mut config = RewardConfig::new(RewardFamily::Step(steps));
    head.clone_into(&mut config.head);
    Ok(Some(config))
}

/// The number of labels, where the configuration says it.
fn num_labels(object: &Map<String, Value>) -> Option<u64> {
    let named = object.get("id2label").and_then(Value::as_object).map(|map| map.len() as u64);
    named.or_else(|| object.get("num_labels").and_then(Value::as_u64))
}

/// The number of labels, where the configuration says it, must be 1.
fn check_one_label(object: &Map<String, Value>) -> Result<()> {
    match num_labels(object) {
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
        let step = RewardFamily::Step(StepConfig::qwen_math_prm());
        for family in [RewardFamily::Token {}, RewardFamily::Ordinal {}, hpqa, step] {
            let config =
                RewardConfig { mean: Some(2.0), std: Some(1.0), ..RewardConfig::new(family) };
            let own = json!({ "architectures": ["LlamaForCausalLM"], "patarm_reward": config });
            assert_eq!(read("config.json", &own).unwrap(), Some(config));
        }
    }

    #[test]
    fn published_process_reward_models_are_recognised_by_their_class() {
        let of = |class: &str, labels: u64| {
            let config = json!({ "architectures": [class], "num_labels": labels });
            read("config.json", &config)
        };
        let qwen = of("Qwen2ForProcessRewardModel", 2).unwrap().unwrap();
        assert_eq!(qwen.family, RewardFamily::Step(StepConfig::qwen_math_prm()));
        assert_eq!(qwen.head, "score");
        // The value head is read whatever number of labels was inherited.
        let skywork = of("Qwen2ForPrmModel", 2).unwrap().unwrap();
        assert_eq!(skywork.head, "v_head.summary");
        let trl = of("LlamaForTokenClassification", 2).unwrap().unwrap();
        assert_eq!(trl.family, RewardFamily::Step(StepConfig::token_classifier()));
        let message = of("LlamaForTokenClassification", 9).unwrap_err().to_string();
        assert!(message.contains("9 labels") && message.contains("two"), "{message}");
    }

    #[test]
    fn a_step_layout_can_be_declared_beside_a_model_that_writes_text() {
        let own = json!({
            "version": 1, "head": "",
            "family": {
                "kind": "step", "marker": " ки", "segmentation": { "kind": "lines" },
                "readout": { "kind": "tokens", "right": "+", "wrong": "-" },
                "prompt": { "kind": "plain", "end": " " },
            },
        });
        let config = read(REWARD_FILE, &own).unwrap().unwrap();
        assert!(config.family.keeps_output());
        let empty = json!({
            "version": 1, "head": "score", "family": { "kind": "step", "marker": "" },
        });
        let message = read(REWARD_FILE, &empty).unwrap_err().to_string();
        assert!(message.contains("marker") && message.contains(REWARD_FILE), "{message}");
        let wrong = json!({
            "version": 1, "head": "score", "family": { "kind": "step", "sep": "x" },
        });
        assert!(read(REWARD_FILE, &wrong).unwrap_err().to_string().contains("sep"));
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
