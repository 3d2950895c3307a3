//! AdamW over a parameter set, with global-norm clipping.

use patarm_kernels::{AdamW, Backend, Buffer, Moments};
use serde::{Deserialize, Serialize};

use crate::parameters::{Gradients, ParameterId, ParameterSet};

/// Settings of the optimiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f64,
    /// Largest global gradient norm; 0 = no clipping.
    pub max_norm: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Learning rate at the end, as a share of the peak (linear decay).
    pub final_share: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            learning_rate: 1e-5,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.0,
            max_norm: 1.0,
            warmup_steps: 0,
            final_share: 1.0,
        }
    }
}

impl AdamWConfig {
    /// Learning rate of step `step` (from 1) of `total`.
    #[must_use]
    pub fn learning_rate_at(&self, step: u64, total: u64) -> f64 {
        if step <= self.warmup_steps {
            return self.learning_rate * step as f64 / self.warmup_steps as f64;
        }
        let left = total.saturating_sub(self.warmup_steps).max(1);
        let done = (step - self.warmup_steps) as f64 / left as f64;
        let share = 1.0 - (1.0 - self.final_share) * done.min(1.0);
        self.learning_rate * share
    }
}

/// How the optimiser keeps its moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerStates {
    /// Single precision: eight bytes a trainable parameter.
    #[default]
    F32,
    /// [`Moments::EightBits`] where a parameter has at least 4,096 elements (smaller ones,
    /// such as weights of norms, save nothing; `min_8bit_size` of bitsandbytes, which rounds
    /// its moments too): a good two bytes.
    EightBits,
}

/// Elements of the smallest parameter whose moments are rounded.
const LEAST_ROUNDED: usize = 4_096;

impl OptimizerStates {
    /// The form of the moments of a parameter of so many elements.
    #[must_use]
    pub fn moments(self, elements: usize) -> Moments {
        match self {
            Self::EightBits if elements >= LEAST_ROUNDED => Moments::EightBits,
            Self::F32 | Self::EightBits => Moments::Single,
        }
    }

    /// Numbers of single precision that both moments of a parameter take.
    #[must_use]
    pub fn num_floats(self, elements: usize) -> usize {
        2 * self.moments(elements).buffer_len(elements)
    }
}

/// Moments of every trainable parameter.
#[derive(Debug)]
pub struct Optimizer {
    moments: Vec<Option<(Buffer, Buffer)>>,
    states: OptimizerStates,
    step: u64,
}

/// What one update did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateReport {
    /// Global norm of the (scaled) gradient before clipping.
    pub gradient_norm: f64,
    /// Learning rate used.
    pub learning_rate: f64,
}

impl Optimizer {
    /// Zero moments.
    #[must_use]
    pub fn new(backend: &dyn Backend, parameters: &ParameterSet, states: OptimizerStates) -> Self {
        let moments = parameters
            .iter()
            .map(|(_, entry)| {
                let elements = entry.value.len();
                let zeros = || backend.zeros(states.moments(elements).buffer_len(elements));
                entry.trainable.then(|| (zeros(), zeros()))
            })
            .collect();
        Self { moments, states, step: 0 }
    }

    /// How the moments are kept.
    #[must_use]
    pub fn states(&self) -> OptimizerStates {
        self.states
    }

    /// Updates done.
    #[must_use]
    pub fn step_count(&self) -> u64 {
        self.step
    }

    /// Sets the number of updates done, when resuming.
    pub fn set_step_count(&mut self, step: u64) {
        self.step = step;
    }

    /// The two moments of a parameter; `None` where it is frozen.
    #[must_use]
    pub fn moments(&self, id: ParameterId) -> Option<&(Buffer, Buffer)> {
        self.moments[id.index()].as_ref()
    }

    /// The two moments of a parameter, mutably.
    pub fn moments_mut(&mut self, id: ParameterId) -> Option<&mut (Buffer, Buffer)> {
        self.moments[id.index()].as_mut()
    }

    /// One update with gradients multiplied by `gradient_scale`.
    pub fn update(
        &mut self,
        backend: &dyn Backend,
        parameters: &mut ParameterSet,
        gradients: &Gradients,
        config: &AdamWConfig,
        (learning_rate, gradient_scale): (f64, f64),
    ) -> UpdateReport {
        self.step += 1;
        let (step_count, states) = (self.step, self.states);
        let mut sum_of_squares = backend.zeros(1);
        for (id, _) in parameters.iter() {
            if let Some(gradient) = gradients.get(id) {
                backend.add_sum_of_squares(gradient, &mut sum_of_squares);
            }
        }
        for (id, entry) in parameters.iter_mut() {
            let (Some(gradient), Some((first, second))) = (gradients.get(id), self.moments_mut(id))
            else {
                continue;
            };
            let weight_decay = if entry.decays { config.weight_decay as f32 } else { 0.0 };
            let step = AdamW {
                learning_rate: learning_rate as f32,
                beta1: config.beta1 as f32,
                beta2: config.beta2 as f32,
                eps: config.eps as f32,
                weight_decay,
                step: step_count,
                gradient_scale: gradient_scale as f32,
                max_norm: config.max_norm as f32,
                moments: states.moments(entry.value.len()),
            };
            backend.adamw(&mut entry.value, gradient, (first, second), &sum_of_squares, &step);
        }
        let mut squares = [0.0];
        backend.download(&sum_of_squares, &mut squares);
        UpdateReport { gradient_norm: f64::from(squares[0]).sqrt() * gradient_scale, learning_rate }
    }
}
