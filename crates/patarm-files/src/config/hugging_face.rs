//! `config.json` in and out.
//!
//! Defaults of absent fields are those of the configuration classes of
//! `transformers`; sizes without which nothing can be loaded are required.

use serde_json::{Map, Value, json};

use super::{Architecture, ModelConfig, RopeScaling};
use crate::error::{Error, Result};

/// Takes the description out of a `config.json`; ranges are checked by the caller.
pub(super) fn read(object: &Map<String, Value>) -> Result<ModelConfig> {
    let architecture = architecture(object)?;
    refuse_unsupported(object, architecture)?;
    let hidden_size = required_size(object, "hidden_size")?;
    let num_attention_heads = required_size(object, "num_attention_heads")?;
    let rope = rope(object)?;
    Ok(ModelConfig {
        architecture,
        hidden_size,
        intermediate_size: required_size(object, "intermediate_size")?,
        num_hidden_layers: required_size(object, "num_hidden_layers")?,
        num_attention_heads,
        num_key_value_heads: match optional_size(object, "num_key_value_heads")? {
            Some(heads) => heads,
            None => default_key_value_heads(architecture, num_attention_heads),
        },
        head_dim: match optional_size(object, "head_dim")? {
            Some(width) => width,
            None => default_head_dim(architecture, hidden_size, num_attention_heads)?,
        },
        rms_norm_eps: optional_number(object, "rms_norm_eps")?.unwrap_or(1e-6),
        rope_theta: rope.theta,
        rope_scaling: rope.scaling,
        tie_word_embeddings: optional_truth(object, "tie_word_embeddings")?.unwrap_or(false),
        vocab_size: required_size(object, "vocab_size")?,
        max_position_embeddings: match optional_size(object, "max_position_embeddings")? {
            Some(context) => context,
            None => default_context(architecture),
        },
        bos_token_id: token_ids(object, "bos_token_id")?.first().copied(),
        eos_token_ids: token_ids(object, "eos_token_id")?,
        pad_token_id: token_ids(object, "pad_token_id")?.first().copied(),
    })
}

/// The object of a `config.json` that `transformers` loads.
pub(super) fn write(config: &ModelConfig, torch_dtype: &str) -> Map<String, Value> {
    let (class, model_type) = match config.architecture {
        Architecture::Llama => ("LlamaForCausalLM", "llama"),
        Architecture::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
        Architecture::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
    };
    let eos = match config.eos_token_ids.as_slice() {
        [] => Value::Null,
        [one] => json!(one),
        several => json!(several),
    };
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    put("architectures", json!([class]));
    put("model_type", json!(model_type));
    put("torch_dtype", json!(torch_dtype));
    put("hidden_size", json!(config.hidden_size));
    put("intermediate_size", json!(config.intermediate_size));
    put("num_hidden_layers", json!(config.num_hidden_layers));
    put("num_attention_heads", json!(config.num_attention_heads));
    put("num_key_value_heads", json!(config.num_key_value_heads));
    put("head_dim", json!(config.head_dim));
    put("hidden_act", json!("silu"));
    put("rms_norm_eps", json!(config.rms_norm_eps));
    put("rope_theta", json!(config.rope_theta));
    put("rope_scaling", config.rope_scaling.as_ref().map_or(Value::Null, write_scaling));
    put("tie_word_embeddings", json!(config.tie_word_embeddings));
    put("vocab_size", json!(config.vocab_size));
    put("max_position_embeddings", json!(config.max_position_embeddings));
    put("attention_dropout", json!(0.0));
    put("initializer_range", json!(0.02));
    put("use_cache", json!(true));
    put("bos_token_id", json!(config.bos_token_id));
    put("eos_token_id", eos);
    put("pad_token_id", json!(config.pad_token_id));
    // Qwen2 classes have their biases built in and do not know these fields.
    if config.architecture != Architecture::Qwen2 {
        put("attention_bias", json!(false));
    }
    if config.architecture == Architecture::Llama {
        put("mlp_bias", json!(false));
    } else {
        put("use_sliding_window", json!(false));
    }
    object
}

fn write_scaling(scaling: &RopeScaling) -> Value {
    json!({
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_max_position_embeddings,
    })
}

/// The family, from `model_type` or, without it, from the first class name.
fn architecture(object: &Map<String, Value>) -> Result<Architecture> {
    if let Some(model_type) = object.get("model_type").and_then(Value::as_str) {
        return match model_type {
            "llama" => Ok(Architecture::Llama),
            "qwen2" => Ok(Architecture::Qwen2),
            "qwen3" => Ok(Architecture::Qwen3),
            other => Err(Error::unsupported(format!(
                "`model_type` is `{other}`; supported are llama, qwen2 and qwen3"
            ))),
        };
    }
    let class = object.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
    match class {
        Some("LlamaForCausalLM" | "LlamaForSequenceClassification") => Ok(Architecture::Llama),
        Some("Qwen2ForCausalLM" | "Qwen2ForSequenceClassification") => Ok(Architecture::Qwen2),
        Some("Qwen3ForCausalLM" | "Qwen3ForSequenceClassification") => Ok(Architecture::Qwen3),
        Some(other) => Err(Error::unsupported(format!("the architecture `{other}`"))),
        None => Err(Error::malformed("there is neither `model_type` nor `architectures`")),
    }
}

/// Settings that would make the model compute something else than the decoder does.
fn refuse_unsupported(object: &Map<String, Value>, architecture: Architecture) -> Result<()> {
    let refuse = |field: &str, why: &str| {
        Err(Error::unsupported(format!("`{field}` {why}, which is not supported")))
    };
    match object.get("hidden_act").and_then(Value::as_str) {
        None | Some("silu" | "swish") => {}
        Some(other) => return refuse("hidden_act", &format!("is `{other}`")),
    }
    for field in ["mlp_bias", "rope_interleaved"] {
        if optional_truth(object, field)?.unwrap_or(false) {
            return refuse(field, "is true");
        }
    }
    // Qwen2 has its biases whatever this field says; elsewhere it would add one
    // to the output projection too.
    let biased = optional_truth(object, "attention_bias")?.unwrap_or(false);
    if biased && architecture != Architecture::Qwen2 {
        return refuse("attention_bias", "is true");
    }
    if present(object, "quantization_config") {
        return refuse("quantization_config", "says that the weights are quantised");
    }
    refuse_windows(object, architecture, refuse)
}

/// Attention that does not reach the whole past.
fn refuse_windows(
    object: &Map<String, Value>,
    architecture: Architecture,
    refuse: impl Fn(&str, &str) -> Result<()>,
) -> Result<()> {
    if optional_truth(object, "use_sliding_window")?.unwrap_or(false) {
        return refuse("use_sliding_window", "is true");
    }
    if architecture == Architecture::Llama && present(object, "sliding_window") {
        return refuse("sliding_window", "is set");
    }
    let Some(layers) = object.get("layer_types").and_then(Value::as_array) else {
        return Ok(());
    };
    match layers.iter().find(|layer| layer.as_str() != Some("full_attention")) {
        Some(other) => refuse("layer_types", &format!("contains {other}")),
        None => Ok(()),
    }
}

struct Rope {
    theta: f64,
    scaling: Option<RopeScaling>,
}

/// `rope_theta` and `rope_scaling`, or the newer `rope_parameters` that holds both.
fn rope(object: &Map<String, Value>) -> Result<Rope> {
    let mut theta = optional_number(object, "rope_theta")?;
    let mut scaling = None;
    for field in ["rope_scaling", "rope_parameters"] {
        let Some(value) = object.get(field).filter(|value| !value.is_null()) else {
            continue;
        };
        let parameters = value
            .as_object()
            .ok_or_else(|| Error::malformed(format!("`{field}` should be an object")))?;
        theta = optional_number(parameters, "rope_theta")?.or(theta);
        scaling = rope_scaling(field, parameters)?.or(scaling);
        refuse_partial_rotation(parameters)?;
    }
    refuse_partial_rotation(object)?;
    Ok(Rope { theta: theta.unwrap_or(10_000.0), scaling })
}

fn refuse_partial_rotation(object: &Map<String, Value>) -> Result<()> {
    match optional_number(object, "partial_rotary_factor")? {
        Some(factor) if factor != 1.0 => Err(Error::unsupported(format!(
            "`partial_rotary_factor` is {factor}, which is not supported"
        ))),
        _ => Ok(()),
    }
}

fn rope_scaling(field: &str, parameters: &Map<String, Value>) -> Result<Option<RopeScaling>> {
    // `type` is the older spelling of `rope_type`.
    let kind = parameters.get("rope_type").or_else(|| parameters.get("type"));
    match kind.and_then(Value::as_str) {
        None | Some("default") => Ok(None),
        Some("llama3") => {
            let missing = |key: &str| Error::malformed(format!("`{field}` lacks `{key}`"));
            let number = |key| optional_number(parameters, key)?.ok_or_else(|| missing(key));
            let context = "original_max_position_embeddings";
            Ok(Some(RopeScaling {
                factor: number("factor")?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original_max_position_embeddings: optional_size(parameters, context)?
                    .ok_or_else(|| missing(context))?,
            }))
        }
        Some(other) => Err(Error::unsupported(format!(
            "`{field}` has type `{other}`; supported are default and llama3"
        ))),
    }
}

fn default_key_value_heads(architecture: Architecture, num_attention_heads: usize) -> usize {
    match architecture {
        Architecture::Llama => num_attention_heads,
        Architecture::Qwen2 | Architecture::Qwen3 => 32,
    }
}

fn default_head_dim(architecture: Architecture, hidden: usize, heads: usize) -> Result<usize> {
    if architecture == Architecture::Qwen3 {
        return Ok(128);
    }
    hidden.checked_div(heads).filter(|width| width * heads == hidden).ok_or_else(|| {
        Error::malformed(format!(
            "`hidden_size` ({hidden}) is no multiple of `num_attention_heads` ({heads})"
        ))
    })
}

fn default_context(architecture: Architecture) -> usize {
    match architecture {
        Architecture::Llama => 2_048,
        Architecture::Qwen2 | Architecture::Qwen3 => 32_768,
    }
}

fn present(object: &Map<String, Value>, field: &str) -> bool {
    object.get(field).is_some_and(|value| !value.is_null())
}

/// The value of `field` when it is there and not null, converted or refused.
fn optional<T>(
    object: &Map<String, Value>,
    field: &str,
    wanted: &str,
    convert: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>> {
    match object.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => convert(value).map(Some).ok_or_else(|| {
            Error::malformed(format!("`{field}` is {}; {wanted} was expected", brief(value)))
        }),
    }
}

/// A value for an error sentence, cut where it gets long.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 {
        return text;
    }
    text.chars().take(60).chain("…".chars()).collect()
}

fn optional_size(object: &Map<String, Value>, field: &str) -> Result<Option<usize>> {
    optional(object, field, "a whole number", |value| {
        value.as_u64().and_then(|number| usize::try_from(number).ok())
    })
}

fn required_size(object: &Map<String, Value>, field: &str) -> Result<usize> {
    optional_size(object, field)?
        .ok_or_else(|| Error::malformed(format!("the field `{field}` is missing")))
}

fn optional_number(object: &Map<String, Value>, field: &str) -> Result<Option<f64>> {
    optional(object, field, "a number", Value::as_f64)
}

fn optional_truth(object: &Map<String, Value>, field: &str) -> Result<Option<bool>> {
    optional(object, field, "true or false", Value::as_bool)
}

/// Token ids given as one number or a list of numbers; absent or null is none.
pub(crate) fn token_ids(object: &Map<String, Value>, field: &str) -> Result<Vec<u32>> {
    let id = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let ids = optional(object, field, "a token id or a list of them", |value| match value {
        Value::Array(items) => items.iter().map(id).collect(),
        // Some configurations write -1 for "none".
        Value::Number(number) if number.as_i64() == Some(-1) => Some(Vec::new()),
        single => id(single).map(|id| vec![id]),
    })?;
    Ok(ids.unwrap_or_default())
}
