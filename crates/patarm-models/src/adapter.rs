//! Low-rank adapters: attach, merge, and their names in checkpoints.

use patarm_kernels::{LinearShape, Update, random};
use serde::{Deserialize, Serialize};

use crate::decoder::Decoder;
use crate::error::{Error, ErrorKind};
use crate::linear::LowRank;

/// Names of the linear maps an adapter may sit on, as Hugging Face spells them.
pub const TARGET_MODULES: [&str; 7] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// Settings of a low-rank adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rank of the update.
    pub rank: usize,
    /// The update is scaled by `alpha / rank`.
    pub alpha: f64,
    /// Which maps carry one.
    pub target_modules: Vec<String>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self { rank: 16, alpha: 32.0, target_modules: TARGET_MODULES.map(String::from).to_vec() }
    }
}

impl LoraConfig {
    /// `alpha / rank`.
    #[must_use]
    pub fn scale(&self) -> f32 {
        (self.alpha / self.rank as f64) as f32
    }

    fn check(&self) -> Result<(), Error> {
        if self.rank == 0 {
            return Err(Error::new(ErrorKind::Adapter("rank must be at least 1".into())));
        }
        match self.target_modules.iter().find(|name| !TARGET_MODULES.contains(&name.as_str())) {
            Some(name) => Err(Error::new(ErrorKind::Adapter(format!(
                "{name} is no linear map of this decoder; choose among {}",
                TARGET_MODULES.join(", ")
            )))),
            None => Ok(()),
        }
    }
}

/// Name of an adapter tensor in a PEFT checkpoint; `which` is `A` or `B`.
#[must_use]
pub fn tensor_name(layer: usize, module: &str, which: char) -> String {
    format!("base_model.model.model.layers.{layer}.{module}.lora_{which}.weight")
}

impl Decoder {
    /// Freezes the base (not a head) and attaches a fresh adapter: `A` uniform in
    /// `±1/√input` (Kaiming uniform with a = √5, as PEFT), `B` zero.
    ///
    /// # Errors
    /// When the configuration names an unknown module or rank 0.
    pub fn attach_adapter(&mut self, config: &LoraConfig, seed: u64) -> Result<(), Error> {
        config.check()?;
        for (_, parameter) in self.parameters.iter_mut() {
            parameter.trainable = parameter.is_head;
        }
        let backend = self.backend.clone();
        for (layer, block) in self.blocks.iter_mut().enumerate() {
            for (index, (module, linear)) in block.linears_mut().into_iter().enumerate() {
                if !config.target_modules.iter().any(|name| module.ends_with(name.as_str())) {
                    continue;
                }
                let bound = 1.0 / (linear.input as f64).sqrt();
                let draw = |n: usize| {
                    let uniform = random::uniform(seed, &[layer as u64, index as u64, n as u64]);
                    ((2.0 * uniform - 1.0) * bound) as f32
                };
                let a: Vec<f32> = (0..config.rank * linear.input).map(draw).collect();
                let a_name = tensor_name(layer, module, 'A');
                let b_name = tensor_name(layer, module, 'B');
                let a =
                    self.parameters.add(a_name, &[config.rank, linear.input], backend.upload(&a));
                let zeros = backend.zeros(linear.output * config.rank);
                let b = self.parameters.add(b_name, &[linear.output, config.rank], zeros);
                linear.low_rank = Some(LowRank { a, b, rank: config.rank, scale: config.scale() });
            }
        }
        Ok(())
    }

    /// Adds every adapter to its base weight and detaches it:
    /// `W += scale · B · A`. Its tensors stay in the set, unused and frozen. A quantised
    /// weight with an adapter becomes one in single precision.
    pub fn merge_adapter(&mut self) {
        let backend = self.backend.clone();
        for block in &mut self.blocks {
            for (_, linear) in block.linears_mut() {
                let Some(side) = linear.low_rank.take() else {
                    continue;
                };
                let shape =
                    LinearShape { tokens: linear.output, input: linear.input, output: side.rank };
                let mut merged = backend.alloc(linear.output * linear.input);
                let base = self.parameters.value(linear.weight);
                backend.copy(base, 0, &mut merged, 0, base.len());
                let (a, b) = (self.parameters.value(side.a), self.parameters.value(side.b));
                backend.linear_backward_input(b, a, shape, side.scale, (&mut merged, Update::Add));
                self.parameters.replace(backend.as_ref(), linear.weight, merged);
                for id in [side.a, side.b] {
                    self.parameters.get_mut(id).trainable = false;
                }
            }
        }
    }

    /// Whether an adapter is attached.
    #[must_use]
    pub fn has_adapter(&self) -> bool {
        let mut linears = self.blocks.iter().flat_map(|block| block.linears());
        linears.any(|(_, linear)| linear.low_rank.is_some())
    }
}
