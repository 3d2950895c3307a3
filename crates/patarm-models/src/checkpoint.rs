//! Weights, adapters and optimiser states on disk.
//!
//! Models are written in Hugging Face layout and adapters in PEFT layout, so that
//! other tools load them unchanged. Optimiser states are exact `f32`.

use std::path::Path;
use std::sync::Arc;

use patarm_files::{ModelConfig, SafetensorsFile, SafetensorsWriter, StoredType, TensorSpec};
use patarm_kernels::Backend;
use serde_json::{Map, Value, json};

use crate::adapter::LoraConfig;
use crate::decoder::Decoder;
use crate::error::{Error, ErrorKind};
use crate::optimizer::Optimizer;
use crate::parameters::{Parameter, ParameterId, ParameterSet};

/// File of a model's weights.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// File of an adapter's weights.
pub const ADAPTER_FILE: &str = "adapter_model.safetensors";
/// File of an adapter's configuration.
pub const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";
/// File of an optimiser's state.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";

/// Writes `config.json` and the weights of a decoder without adapter.
///
/// # Errors
/// When a file cannot be written; nothing under its final name is partial.
pub fn save_model(
    folder: &Path,
    decoder: &Decoder,
    config: &ModelConfig,
    dtype: StoredType,
) -> Result<(), Error> {
    let name = match dtype {
        StoredType::F32 => "float32",
        _ => "bfloat16",
    };
    write_json(&folder.join("config.json"), &Value::Object(config.to_json(name)))?;
    let entries: Vec<_> =
        decoder.parameters.iter().filter(|(_, entry)| !is_adapter(entry)).collect();
    let entries: Vec<(&str, &Parameter)> =
        entries.into_iter().map(|(_, entry)| (entry.name.as_str(), entry)).collect();
    save_parameters(&folder.join(WEIGHTS_FILE), decoder.backend.as_ref(), &entries, dtype)
}

/// Writes the adapter of a decoder in PEFT layout.
///
/// # Errors
/// When a file cannot be written.
pub fn save_adapter(
    folder: &Path,
    decoder: &Decoder,
    config: &LoraConfig,
    base: &str,
) -> Result<(), Error> {
    write_json(&folder.join(ADAPTER_CONFIG_FILE), &adapter_description(config, base))?;
    let entries: Vec<(&str, &Parameter)> = decoder
        .parameters
        .iter()
        .filter(|(_, entry)| is_adapter(entry))
        .map(|(_, entry)| (entry.name.as_str(), entry))
        .collect();
    let path = folder.join(ADAPTER_FILE);
    save_parameters(&path, decoder.backend.as_ref(), &entries, StoredType::F32)
}

/// The `adapter_config.json` of an adapter for a model that writes text.
pub(crate) fn adapter_description(config: &LoraConfig, base: &str) -> Value {
    json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "target_modules": config.target_modules,
    })
}

/// Reads an adapter folder's configuration and the name of its base model.
///
/// # Errors
/// When the file is unreadable or says something this decoder does not do.
pub fn read_adapter_config(folder: &Path) -> Result<(LoraConfig, Option<String>), Error> {
    let path = folder.join(ADAPTER_CONFIG_FILE);
    let text =
        std::fs::read_to_string(&path).map_err(|error| Error::at(&path, ErrorKind::Io(error)))?;
    let object: Map<String, Value> = serde_json::from_str(&text)
        .map_err(|error| Error::at(&path, ErrorKind::Adapter(error.to_string())))?;
    let refuse = |what: &str| Err(Error::at(&path, ErrorKind::Adapter(what.to_owned())));
    if object.get("peft_type").and_then(Value::as_str).is_some_and(|kind| kind != "LORA") {
        return refuse("only LORA adapters are supported");
    }
    if object.get("use_dora").and_then(Value::as_bool) == Some(true) {
        return refuse("use_dora is not supported");
    }
    if object.get("bias").and_then(Value::as_str).is_some_and(|bias| bias != "none") {
        return refuse("trained biases are not supported; bias must be \"none\"");
    }
    let Some(rank) =
        object.get("r").and_then(Value::as_u64).filter(|rank| (1..=4096).contains(rank))
    else {
        return refuse("r must be a number from 1 to 4096");
    };
    let Some(alpha) = object.get("lora_alpha").and_then(Value::as_f64) else {
        return refuse("lora_alpha must be a number");
    };
    let Some(targets) = object.get("target_modules").and_then(Value::as_array) else {
        return refuse("target_modules must be a list of names");
    };
    let target_modules = targets.iter().filter_map(Value::as_str).map(String::from).collect();
    // Rank-stabilised adapters scale by alpha / sqrt(r).
    let is_stabilised = object.get("use_rslora").and_then(Value::as_bool) == Some(true);
    let alpha = if is_stabilised { alpha * (rank as f64).sqrt() } else { alpha };
    let base = object.get("base_model_name_or_path").and_then(Value::as_str).map(String::from);
    Ok((LoraConfig { rank: rank as usize, alpha, target_modules }, base))
}

/// Attaches the adapter of a folder to its base model.
///
/// # Errors
/// When the adapter is unreadable, incomplete or does not fit.
pub fn load_adapter(folder: &Path, decoder: &mut Decoder) -> Result<LoraConfig, Error> {
    let (config, _) = read_adapter_config(folder)?;
    decoder.attach_adapter(&config, 0)?;
    load_adapter_weights(folder, decoder)?;
    Ok(config)
}

/// Reads weights saved by [`save_model`] into a decoder of the same shape.
///
/// # Errors
/// When the file is unreadable or does not fit.
pub fn load_weights(folder: &Path, decoder: &mut Decoder) -> Result<(), Error> {
    let path = folder.join(WEIGHTS_FILE);
    let own: Vec<(String, ParameterId)> = decoder
        .parameters
        .iter()
        .filter(|(_, entry)| !is_adapter(entry))
        .map(|(id, entry)| (entry.name.clone(), id))
        .collect();
    let backend = Arc::clone(&decoder.backend);
    load_parameters(&path, backend.as_ref(), &mut decoder.parameters, &own)
}

/// Reads the named tensors of a file into parameters of the same shapes.
pub(crate) fn load_parameters(
    path: &Path,
    backend: &dyn Backend,
    parameters: &mut ParameterSet,
    own: &[(String, ParameterId)],
) -> Result<(), Error> {
    let file = SafetensorsFile::open(path)?;
    for (name, id) in own {
        let id = *id;
        let entry = parameters.get(id);
        let stored = file.tensor(name)?;
        if stored.shape != entry.shape {
            let kind = ErrorKind::Shape {
                tensor: name.clone(),
                expected: entry.shape.clone(),
                found: stored.shape.clone(),
            };
            return Err(Error::at(path, kind));
        }
        let values = file.read(name)?;
        parameters.replace(backend, id, backend.upload(&values));
    }
    Ok(())
}

/// Writes the moments of every trainable parameter and the step.
///
/// # Errors
/// When the file cannot be written.
pub fn save_optimizer(
    folder: &Path,
    (backend, parameters): (&dyn Backend, &ParameterSet),
    optimizer: &Optimizer,
) -> Result<(), Error> {
    let mut specs = Vec::new();
    let trained: Vec<_> =
        parameters.iter().filter_map(|(id, entry)| Some((entry, optimizer.moments(id)?))).collect();
    for (entry, moments) in &trained {
        for (which, buffer) in [("first", &moments.0), ("second", &moments.1)] {
            // Codes and scales have no shape but their number.
            let single = buffer.len() == entry.value.len();
            let shape = if single { entry.shape.clone() } else { vec![buffer.len()] };
            specs.push(TensorSpec { name: format!("{which}.{}", entry.name), shape });
        }
    }
    let metadata = [("step".to_owned(), optimizer.step_count().to_string())].into();
    let mut writer =
        SafetensorsWriter::create(&folder.join(OPTIMIZER_FILE), specs, StoredType::F32, &metadata)?;
    let mut host = Vec::new();
    for (entry, (first, second)) in trained {
        for (which, buffer) in [("first", first), ("second", second)] {
            host.resize(buffer.len(), 0.0);
            backend.download(buffer, &mut host);
            writer.write(&format!("{which}.{}", entry.name), &host)?;
        }
    }
    Ok(writer.finish()?)
}

/// Reads what [`save_optimizer`] wrote.
///
/// # Errors
/// When the file is unreadable or of another model.
pub fn load_optimizer(
    folder: &Path,
    (backend, parameters): (&dyn Backend, &ParameterSet),
    optimizer: &mut Optimizer,
) -> Result<(), Error> {
    let path = folder.join(OPTIMIZER_FILE);
    let file = SafetensorsFile::open(&path)?;
    let step = file.metadata().get("step").and_then(|text| text.parse().ok());
    let Some(step) = step else {
        return Err(Error::at(
            path,
            ErrorKind::Unsupported("the optimiser state names no step".into()),
        ));
    };
    for (id, entry) in parameters.iter() {
        let Some((first, second)) = optimizer.moments_mut(id) else {
            continue;
        };
        for (which, moment) in [("first", first), ("second", second)] {
            let name = format!("{which}.{}", entry.name);
            let values = file.read(&name)?;
            if values.len() != moment.len() {
                let message = format!(
                    "{name} has {} numbers where {} are expected; go on with the model and the \
                     parameters.optimizer_states that the run began with",
                    values.len(),
                    moment.len()
                );
                return Err(Error::at(path, ErrorKind::Unsupported(message)));
            }
            *moment = backend.upload(&values);
        }
    }
    optimizer.set_step_count(step);
    Ok(())
}

pub(crate) fn is_adapter(entry: &Parameter) -> bool {
    entry.name.contains(".lora_")
}

/// Name of a parameter in an adapter's file: PEFT puts its own prefix before a head.
pub(crate) fn stored_adapter_name(entry: &Parameter) -> String {
    if entry.is_head { format!("base_model.model.{}", entry.name) } else { entry.name.clone() }
}

pub(crate) fn save_parameters(
    path: &Path,
    backend: &dyn Backend,
    entries: &[(&str, &Parameter)],
    dtype: StoredType,
) -> Result<(), Error> {
    let specs: Vec<TensorSpec> = entries
        .iter()
        .map(|(name, entry)| TensorSpec { name: (*name).to_owned(), shape: entry.shape.clone() })
        .collect();
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let mut writer = SafetensorsWriter::create(path, specs, dtype, &metadata)?;
    let mut host = Vec::new();
    for (name, entry) in entries {
        host.resize(entry.value.len(), 0.0);
        backend.download(&entry.value, &mut host);
        writer.write(name, &host)?;
    }
    Ok(writer.finish()?)
}

pub(crate) fn write_json(path: &Path, value: &Value) -> Result<(), Error> {
    let text = format!("{value:#}\n");
    Ok(patarm_files::write_atomically(path, text.as_bytes())?)
}

/// Reads adapter tensors, and the head where the decoder has one, into a decoder whose
/// adapter is attached already.
///
/// # Errors
/// When the file is unreadable or does not fit.
pub fn load_adapter_weights(folder: &Path, decoder: &mut Decoder) -> Result<(), Error> {
    let path = folder.join(ADAPTER_FILE);
    let file = SafetensorsFile::open(&path)?;
    let own: Vec<(String, ParameterId)> = decoder
        .parameters
        .iter()
        .filter(|(_, entry)| is_adapter(entry) || entry.is_head)
        .map(|(id, entry)| (stored_adapter_name(entry), id))
        .collect();
    let heads = own.iter().filter(|(_, id)| decoder.parameters.get(*id).is_head);
    if let Some((name, _)) = heads.into_iter().find(|(name, _)| file.tensor(name).is_err()) {
        return Err(Error::at(path, ErrorKind::MissingHead(name.clone())));
    }
    if file.tensors().count() != own.len() {
        let message = format!(
            "{} tensors are stored, {} fit this model and its target modules",
            file.tensors().count(),
            own.len()
        );
        return Err(Error::at(path, ErrorKind::Adapter(message)));
    }
    let backend = Arc::clone(&decoder.backend);
    load_parameters(&path, backend.as_ref(), &mut decoder.parameters, &own)
}
