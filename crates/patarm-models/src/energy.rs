//! An energy network over an embedding and a number.
//!
//! The network of EBRM (arXiv 2504.13134, as the authors' code has it): the reward goes
//! through a narrow branch, is joined with the embedding and becomes one number,
//!
//! ```text
//! b = tanh∘Linear (three times, from 1)          dropout after all but the last
//! h = tanh(W_e e + W_b b + c), tanh∘Linear …     dropout after each
//! f = w · h + c
//! ```
//!
//! The joint matrix is kept as its two parts, so that a reward more for an embedding
//! costs only the narrow one.

use std::path::Path;
use std::sync::Arc;

use patarm_kernels::{Backend, Buffer, Update, random};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{load_parameters, save_parameters};
use crate::error::Error;
use crate::linear::Linear;
use crate::parameters::{Gradients, Parameter, ParameterId, ParameterSet};
use patarm_files::StoredType;

/// File of an energy network's weights.
pub const ENERGY_WEIGHTS_FILE: &str = "energy.safetensors";
/// Stream of the draws of a fresh network.
const ENERGY_STREAM: u64 = 0xe6e1;
/// Widest layer that is accepted.
const MAX_WIDTH: usize = 1 << 16;
/// Most layers of a part.
const MAX_LAYERS: usize = 16;

/// Widths of the layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnergyShape {
    /// Width of the embedding.
    pub embedding: usize,
    /// Widths of the branch that reads the reward.
    pub branch: Vec<usize>,
    /// Widths of the layers after both are joined.
    pub joint: Vec<usize>,
}

impl EnergyShape {
    /// The authors' small network.
    #[must_use]
    pub fn small(embedding: usize) -> Self {
        Self { embedding, branch: vec![16, 32, 64], joint: vec![1024, 512] }
    }

    /// The authors' larger network.
    #[must_use]
    pub fn large(embedding: usize) -> Self {
        Self { embedding, branch: vec![64, 128, 256], joint: vec![8192, 4096, 2048] }
    }

    /// Number of parameters.
    #[must_use]
    pub fn num_parameters(&self) -> usize {
        let (mut width, mut count) = (1, 0);
        let last_of_branch = self.branch.len();
        for (layer, next) in self.branch.iter().chain(&self.joint).chain(&[1]).enumerate() {
            let input = width + if layer == last_of_branch { self.embedding } else { 0 };
            count += input * next + next;
            width = *next;
        }
        count
    }

    /// What is wrong with it.
    ///
    /// # Errors
    /// When a width is 0 or beyond what is accepted, or a part has no layer.
    pub fn check(&self) -> Result<(), String> {
        for part in [&self.branch, &self.joint] {
            if part.is_empty() || part.len() > MAX_LAYERS {
                return Err(format!("each part of an energy network has 1 to {MAX_LAYERS} layers"));
            }
        }
        let widths = self.branch.iter().chain(&self.joint).chain([&self.embedding]);
        match widths.into_iter().find(|width| !(1..=MAX_WIDTH).contains(*width)) {
            Some(width) => Err(format!("a width of {width} is not in 1..={MAX_WIDTH}")),
            None => Ok(()),
        }
    }
}

/// Whether and where units are left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Dropout {
    /// Evaluation: none is.
    Off,
    /// Training: every unit of a dropped layer with this probability.
    On {
        /// Between 0 and 1, 1 excluded.
        share: f64,
        /// Seed and coordinate of the draws; a row's draws also depend on its number.
        draw: (u64, u64),
        /// Number of the first row.
        first_row: u64,
    },
}

/// Rewards to be judged, each for one of some embeddings.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    /// `[items, d]`.
    pub embeddings: &'a Buffer,
    /// The item of each row.
    pub items: &'a [u32],
    /// The reward of each row.
    pub rewards: &'a [f32],
}

/// Energies, and what the backward needs.
#[derive(Debug)]
pub struct SavedEnergies {
    /// One a row.
    pub values: Vec<f32>,
    /// Input of the branch, then the output of each layer after dropout.
    outputs: Vec<Buffer>,
    /// Scale of each unit by dropout, where the layer drops.
    masks: Vec<Option<Vec<f32>>>,
}

/// An energy network with its parameters.
#[derive(Debug)]
pub struct EnergyNet {
    /// The device.
    pub backend: Arc<dyn Backend>,
    /// Widths.
    pub shape: EnergyShape,
    /// Values.
    pub parameters: ParameterSet,
    branch: Vec<Linear>,
    joint_embedding: Linear,
    /// The first reads the branch; the bias of the joint layer is its own.
    joint: Vec<Linear>,
    output: Linear,
}

impl EnergyNet {
    /// A fresh network, every layer as PyTorch's `Linear` begins.
    ///
    /// # Panics
    /// When the shape does not pass [`EnergyShape::check`].
    #[must_use]
    pub fn fresh(backend: Arc<dyn Backend>, shape: EnergyShape, seed: u64) -> Self {
        assert!(shape.check().is_ok(), "the shape was checked");
        let mut fresh =
            Fresh { backend: backend.as_ref(), parameters: ParameterSet::default(), seed };
        let mut branch = Vec::new();
        let mut width = 1;
        for (n, next) in shape.branch.iter().enumerate() {
            branch.push(fresh.linear(&format!("branch.{n}"), (width, *next), width));
            width = *next;
        }
        let fan_in = shape.embedding + width;
        let first = shape.joint[0];
        let joint_embedding = fresh.matrix("joint.embedding", (shape.embedding, first), fan_in);
        let mut joint = vec![fresh.linear("joint.0", (width, first), fan_in)];
        for (n, pair) in shape.joint.windows(2).enumerate() {
            joint.push(fresh.linear(&format!("joint.{}", n + 1), (pair[0], pair[1]), pair[0]));
        }
        let last = shape.joint[shape.joint.len() - 1];
        let output = fresh.linear("output", (last, 1), last);
        let parameters = fresh.parameters;
        Self { backend, shape, parameters, branch, joint_embedding, joint, output }
    }

    /// Energies of some rewards.
    #[must_use]
    pub fn forward(&self, candidates: Candidates<'_>, dropout: Dropout) -> SavedEnergies {
        let backend = self.backend.as_ref();
        let rows = candidates.rewards.len();
        let mut outputs = vec![backend.upload(candidates.rewards)];
        let mut masks = Vec::new();
        for layer in 0..self.num_layers() {
            let linear = self.layer(layer);
            let mut out = backend.alloc(rows * linear.output);
            let x = &outputs[layer];
            match layer == self.branch.len() {
                true => {
                    self.gather_joint(candidates, &mut out);
                    linear.forward(backend, &self.parameters, x, (&mut out, Update::Add));
                }
                false => linear.forward(backend, &self.parameters, x, (&mut out, Update::Set)),
            }
            let mask = self.mask(layer, rows, dropout);
            outputs.push(squash(backend, &out, mask.as_deref()));
            masks.push(mask);
        }
        let mut energies = backend.alloc(rows);
        let last = &outputs[self.num_layers()];
        self.output.forward(backend, &self.parameters, last, (&mut energies, Update::Set));
        let mut values = vec![0.0; rows];
        backend.download(&energies, &mut values);
        SavedEnergies { values, outputs, masks }
    }

    /// Accumulates the gradients and returns those by the rewards.
    ///
    /// # Panics
    /// When the energies are of other candidates.
    #[must_use]
    pub fn backward(
        &self,
        (candidates, saved): (Candidates<'_>, &SavedEnergies),
        d_values: &[f32],
        gradients: &mut Gradients,
    ) -> Vec<f32> {
        let (backend, parameters) = (self.backend.as_ref(), &self.parameters);
        let mut d_out = backend.alloc(saved.outputs[self.num_layers()].len());
        let through = (&saved.outputs[self.num_layers()], &backend.upload(d_values));
        self.output.backward(backend, parameters, gradients, through, (&mut d_out, Update::Set));
        for layer in (0..self.num_layers()).rev() {
            let linear = self.layer(layer);
            let mask = saved.masks[layer].as_deref();
            let d_before = squash_backward(backend, &saved.outputs[layer + 1], mask, &d_out);
            if layer == self.branch.len() {
                self.scatter_joint(candidates, &d_before, gradients);
            }
            let x = &saved.outputs[layer];
            d_out = backend.alloc(x.len());
            let through = (x, &d_before);
            linear.backward(backend, parameters, gradients, through, (&mut d_out, Update::Set));
        }
        let mut d_rewards = vec![0.0; d_out.len()];
        backend.download(&d_out, &mut d_rewards);
        d_rewards
    }

    /// Writes the weights.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        let entries: Vec<(&str, &Parameter)> =
            self.parameters.iter().map(|(_, entry)| (entry.name.as_str(), entry)).collect();
        let path = folder.join(ENERGY_WEIGHTS_FILE);
        save_parameters(&path, self.backend.as_ref(), &entries, StoredType::F32)
    }

    /// Reads weights of this shape.
    ///
    /// # Errors
    /// When the file is unreadable or of another shape.
    pub fn load(&mut self, folder: &Path) -> Result<(), Error> {
        let own: Vec<(String, ParameterId)> =
            self.parameters.iter().map(|(id, entry)| (entry.name.clone(), id)).collect();
        let path = folder.join(ENERGY_WEIGHTS_FILE);
        load_parameters(&path, self.backend.as_ref(), &mut self.parameters, &own)
    }

    fn num_layers(&self) -> usize {
        self.branch.len() + self.joint.len()
    }

    fn layer(&self, layer: usize) -> &Linear {
        match layer.checked_sub(self.branch.len()) {
            Some(joint) => &self.joint[joint],
            None => &self.branch[layer],
        }
    }

    /// The embedding's part of the joint layer, computed once an item, at each row.
    fn gather_joint(&self, candidates: Candidates<'_>, out: &mut Buffer) {
        let backend = self.backend.as_ref();
        let linear = &self.joint_embedding;
        let num_items = candidates.embeddings.len() / linear.input;
        let mut of_items = backend.alloc(num_items * linear.output);
        let place = (&mut of_items, Update::Set);
        linear.forward(backend, &self.parameters, candidates.embeddings, place);
        backend.gather_rows(&of_items, candidates.items, linear.output, out);
    }

    fn scatter_joint(
        &self,
        candidates: Candidates<'_>,
        d_before: &Buffer,
        gradients: &mut Gradients,
    ) {
        let Some(d_weight) = gradients.get_mut(self.joint_embedding.weight) else {
            return;
        };
        let backend = self.backend.as_ref();
        let linear = &self.joint_embedding;
        let num_items = candidates.embeddings.len() / linear.input;
        let mut of_items = backend.zeros(num_items * linear.output);
        backend.scatter_add_rows(d_before, candidates.items, linear.output, &mut of_items);
        let shape = patarm_kernels::LinearShape {
            tokens: num_items,
            input: linear.input,
            output: linear.output,
        };
        let weight = self.parameters.value(linear.weight);
        backend.linear_backward_weight(
            &of_items,
            candidates.embeddings,
            weight,
            shape,
            1.0,
            d_weight,
        );
    }

    /// Scale of every unit of a layer that drops: 0, or what keeps the mean.
    fn mask(&self, layer: usize, rows: usize, dropout: Dropout) -> Option<Vec<f32>> {
        let Dropout::On { share, draw: (seed, coordinate), first_row } = dropout else {
            return None;
        };
        let is_last_of_branch = layer + 1 == self.branch.len();
        if is_last_of_branch || share <= 0.0 {
            return None;
        }
        let kept = (1.0 / (1.0 - share)) as f32;
        let limit = (share * 2f64.powi(64)) as u64;
        let width = self.layer(layer).output;
        let mut mask = Vec::with_capacity(rows * width);
        for row in 0..rows as u64 {
            let at =
                random::draw(seed, &[ENERGY_STREAM, coordinate, layer as u64, first_row + row]);
            let unit = |unit: u64| if random::mix(at, unit) < limit { 0.0 } else { kept };
            mask.extend((0..width as u64).map(unit));
        }
        Some(mask)
    }
}

/// tanh, then dropout.
fn squash(backend: &dyn Backend, x: &Buffer, mask: Option<&[f32]>) -> Buffer {
    let mut values = vec![0.0; x.len()];
    backend.download(x, &mut values);
    values.iter_mut().for_each(|value| *value = value.tanh());
    if let Some(mask) = mask {
        values.iter_mut().zip(mask).for_each(|(value, scale)| *value *= scale);
    }
    backend.upload(&values)
}

/// From the output of [`squash`] and its gradient to that of its input.
fn squash_backward(
    backend: &dyn Backend,
    out: &Buffer,
    mask: Option<&[f32]>,
    d_out: &Buffer,
) -> Buffer {
    let (mut values, mut slopes) = (vec![0.0; out.len()], vec![0.0; out.len()]);
    backend.download(out, &mut values);
    backend.download(d_out, &mut slopes);
    match mask {
        None => {
            for (slope, value) in slopes.iter_mut().zip(&values) {
                *slope *= 1.0 - value * value;
            }
        }
        Some(mask) => {
            for ((slope, value), scale) in slopes.iter_mut().zip(&values).zip(mask) {
                let squashed = if *scale > 0.0 { value / scale } else { 0.0 };
                *slope *= scale * (1.0 - squashed * squashed);
            }
        }
    }
    backend.upload(&slopes)
}

struct Fresh<'a> {
    backend: &'a dyn Backend,
    parameters: ParameterSet,
    seed: u64,
}

impl Fresh<'_> {
    fn linear(&mut self, name: &str, widths: (usize, usize), fan_in: usize) -> Linear {
        let bias = self.add(&format!("{name}.bias"), &[widths.1], fan_in);
        Linear { bias: Some(bias), ..self.matrix(name, widths, fan_in) }
    }

    fn matrix(&mut self, name: &str, (input, output): (usize, usize), fan_in: usize) -> Linear {
        let weight = self.add(&format!("{name}.weight"), &[output, input], fan_in);
        Linear { weight, bias: None, low_rank: None, input, output }
    }

    fn add(&mut self, name: &str, shape: &[usize], fan_in: usize) -> ParameterId {
        let bound = 1.0 / (fan_in as f64).sqrt();
        let stream = self.parameters.len() as u64;
        let draw = |n: usize| {
            let uniform = random::uniform(self.seed, &[ENERGY_STREAM, stream, n as u64]);
            (bound * (2.0 * uniform - 1.0)) as f32
        };
        let values: Vec<f32> = (0..shape.iter().product()).map(draw).collect();
        self.parameters.add(name, shape, self.backend.upload(&values))
    }
}

#[cfg(test)]
mod tests;
