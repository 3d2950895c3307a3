//! Reward models on disk: a decoder with a head, in layouts other tools load.
//!
//! Full models are written as `transformers` writes `AutoModelForSequenceClassification`
//! (`score.weight`, one label), which OpenRLHF reads too. Adapters are written in PEFT
//! layout with the head among `modules_to_save`. A head is part of every checkpoint:
//! one without it is refused, because a random head would give random scores.

use std::path::Path;
use std::sync::Arc;

use patarm_files::reward_config::REWARD_FILE;
use patarm_files::{ModelConfig, ModelFiles, RewardConfig, RewardFamily, StoredType};
use serde_json::{Value, json};

use crate::adapter::LoraConfig;
use crate::checkpoint::{
    ADAPTER_CONFIG_FILE, ADAPTER_FILE, WEIGHTS_FILE, adapter_description, is_adapter,
    save_parameters, stored_adapter_name, write_json,
};
use crate::decoder::Decoder;
use crate::error::{Error, ErrorKind};
use crate::head::{HeadInit, LinearHead};
use crate::hpqa::{HpqaHead, HpqaShape};
use crate::parameters::{Parameter, ParameterId};
use crate::scalar_head::ScalarHead;

/// Writes `config.json` and the weights of a decoder with a head and no adapter.
///
/// # Errors
/// When a file cannot be written; nothing under its final name is partial.
pub fn save_reward_model(
    folder: &Path,
    decoder: &Decoder,
    (config, reward): (&ModelConfig, &RewardConfig),
    dtype: StoredType,
) -> Result<(), Error> {
    let name = match dtype {
        StoredType::F32 => "float32",
        _ => "bfloat16",
    };
    write_json(&folder.join("config.json"), &Value::Object(reward.to_json(config, name)))?;
    let all = decoder.parameters.iter().map(|(_, entry)| entry);
    let entries: Vec<(&str, &Parameter)> =
        all.filter(|entry| !is_adapter(entry)).map(|entry| (entry.name.as_str(), entry)).collect();
    save_parameters(&folder.join(WEIGHTS_FILE), decoder.backend.as_ref(), &entries, dtype)
}

/// Writes the adapter and the head of a decoder in PEFT layout, and `reward.json`.
///
/// # Errors
/// When a file cannot be written.
pub fn save_reward_adapter(
    folder: &Path,
    decoder: &Decoder,
    (lora, reward): (&LoraConfig, &RewardConfig),
    base: &str,
) -> Result<(), Error> {
    let mut description = adapter_description(lora, base);
    if matches!(reward.family, RewardFamily::Scalar {}) {
        description["task_type"] = json!("SEQ_CLS");
    }
    if !reward.family.keeps_output() {
        description["modules_to_save"] = json!([reward.head]);
    }
    write_json(&folder.join(ADAPTER_CONFIG_FILE), &description)?;
    let reward = serde_json::to_value(reward)
        .map_err(|error| Error::new(ErrorKind::Unsupported(error.to_string())))?;
    write_json(&folder.join(REWARD_FILE), &reward)?;
    let saved: Vec<(String, &Parameter)> = decoder
        .parameters
        .iter()
        .filter(|(_, entry)| is_adapter(entry) || entry.is_head)
        .map(|(_, entry)| (stored_adapter_name(entry), entry))
        .collect();
    let entries: Vec<(&str, &Parameter)> =
        saved.iter().map(|(name, entry)| (name.as_str(), *entry)).collect();
    let path = folder.join(ADAPTER_FILE);
    save_parameters(&path, decoder.backend.as_ref(), &entries, StoredType::F32)
}

/// Reads the head of a family that gives an item one number, and attaches it.
///
/// # Errors
/// When a part of the head is missing or has another shape, or the description does not
/// fit the decoder.
pub fn load_scalar_head(
    decoder: &mut Decoder,
    files: &ModelFiles,
    reward: &RewardConfig,
) -> Result<ScalarHead, Error> {
    let RewardFamily::Hpqa { .. } = &reward.family else {
        return Ok(ScalarHead::LastToken(load_head(decoder, files, reward, 1)?));
    };
    let head = fresh_scalar_head(decoder, reward, (HeadInit::Zero {}, 0))?;
    let at = |kind: ErrorKind| Error::at(&files.path, kind);
    let own: Vec<ParameterId> =
        decoder.parameters.iter().filter(|(_, entry)| entry.is_head).map(|(id, _)| id).collect();
    for id in own {
        let entry = decoder.parameters.get(id);
        let (tensor, expected) = (entry.name.clone(), entry.shape.clone());
        match files.weights.shape(&tensor) {
            Err(_) => return Err(at(ErrorKind::MissingHead(tensor))),
            Ok(found) if found != expected => {
                let found = found.to_vec();
                return Err(at(ErrorKind::Shape { tensor, expected, found }));
            }
            Ok(_) => {}
        }
        let value = decoder.backend.upload(&files.weights.read(&tensor)?.values);
        let backend = Arc::clone(&decoder.backend);
        decoder.parameters.replace(backend.as_ref(), id, value);
    }
    Ok(head)
}

/// A fresh head of a family that gives an item one number.
///
/// # Errors
/// When the description does not fit the decoder.
pub fn fresh_scalar_head(
    decoder: &mut Decoder,
    reward: &RewardConfig,
    place: (HeadInit, u64),
) -> Result<ScalarHead, Error> {
    match &reward.family {
        RewardFamily::Hpqa { layers, heads } => {
            let shape = HpqaShape { layers: layers.clone(), heads: *heads };
            let head = HpqaHead::attach(decoder, &reward.head, shape, place);
            let head = head.map_err(|what| Error::new(ErrorKind::Unsupported(what)))?;
            Ok(ScalarHead::Hpqa(Box::new(head)))
        }
        _ => Ok(ScalarHead::LastToken(LinearHead::attach(decoder, &reward.head, 1, place))),
    }
}

/// Reads the head of a model folder and attaches it.
///
/// # Errors
/// When the head is missing or has another number of outputs.
pub fn load_head(
    decoder: &mut Decoder,
    files: &ModelFiles,
    reward: &RewardConfig,
    outputs: usize,
) -> Result<LinearHead, Error> {
    let name = format!("{}.weight", reward.head);
    let at = |kind: ErrorKind| Error::at(&files.path, kind);
    let Ok(shape) = files.weights.shape(&name) else {
        return Err(at(ErrorKind::MissingHead(name)));
    };
    let expected = vec![outputs, decoder.shape.hidden];
    if shape != expected {
        let found = shape.to_vec();
        return Err(at(ErrorKind::Shape { tensor: name, expected, found }));
    }
    if files.weights.contains(&format!("{}.bias", reward.head)) {
        let what = format!("the head {} has a bias, which no supported layout has", reward.head);
        return Err(at(ErrorKind::Unsupported(what)));
    }
    let tensor = files.weights.read(&name)?;
    Ok(LinearHead::with_weight(decoder, &reward.head, outputs, &tensor.values))
}
