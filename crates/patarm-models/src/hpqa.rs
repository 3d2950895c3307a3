//! Hierarchical Progressive Query Attention: a number from several layers at once.
//!
//! Implements the head of SoliReward (arXiv 2512.22170, as the authors' code has it).
//! With `H_l` the states of layer `l` on the way to an item's last token,
//!
//! ```text
//! q_1 = MHA_1(q0, H_l1, H_l1)        q_i = MHA_i(q_{i−1}, H_li, H_li)
//! o   = MHA_res(q_res, H_L, H_L)     r   = W2 SiLU(W1 (q_N + o) + b1)
//! ```
//!
//! without residual, norm or feed-forward between. `q0` and `q_res` are learnt. Layer
//! `l` is what `transformers` calls `hidden_states[l]`: the output of block `l` counted
//! from 1, and for the last one the states after the final norm.
//!
//! # Deviations
//! - There is no padding and so no mask: a query sees exactly the tokens of its item.
//! - `W2` begins at zero unless told otherwise, so that the first reward is 0.

use patarm_kernels::{AttentionPlan, AttentionShape, Backend, Buffer, Update, random};

use crate::decoder::Decoder;
use crate::forest::Forest;
use crate::head::HeadInit;
use crate::linear::Linear;
use crate::parameters::{Gradients, ParameterId, ParameterSet};
use crate::shape::DecoderShape;

/// Stream of the draws of a fresh head.
const HPQA_STREAM: u64 = 0x4b9a;

/// Which layers are read, and by how many attention heads each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HpqaShape {
    /// Layers from 1; the last one of the decoder is its final state.
    pub layers: Vec<usize>,
    /// Attention heads; divides the model's width.
    pub heads: usize,
}

impl HpqaShape {
    /// What does not fit a decoder, as a sentence.
    ///
    /// # Errors
    /// When a layer does not exist or is named twice, or the heads do not divide the
    /// width.
    pub fn check(&self, shape: &DecoderShape) -> Result<(), String> {
        if self.layers.is_empty() {
            return Err("the query attention head needs at least one layer".into());
        }
        if let Some(layer) = self.layers.iter().find(|layer| !(1..=shape.layers).contains(*layer)) {
            return Err(format!(
                "the query attention head reads layer {layer}; the model has layers 1 to {}",
                shape.layers
            ));
        }
        let mut sorted = self.layers.clone();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("the query attention head reads layer {} twice", twice[0]));
        }
        if self.heads == 0 || !shape.hidden.is_multiple_of(self.heads) {
            return Err(format!(
                "{} attention heads do not divide the model's width {}",
                self.heads, shape.hidden
            ));
        }
        Ok(())
    }
}

/// The head; its parameters belong to the decoder and are marked as a head's.
#[derive(Clone, Debug, PartialEq)]
pub struct HpqaHead {
    /// What it reads.
    pub shape: HpqaShape,
    width: usize,
    query: ParameterId,
    residual_query: ParameterId,
    attentions: Vec<Attention>,
    residual: Attention,
    hidden: Linear,
    output: Linear,
}

/// The states a head reads, `[t, d]` each.
#[derive(Clone, Copy, Debug)]
pub struct States<'a> {
    /// After the final norm.
    pub hidden: &'a Buffer,
    /// Outputs of blocks.
    pub taps: &'a [(usize, Buffer)],
}

/// Values of a head, and what its backward needs.
#[derive(Debug)]
pub struct HpqaValues {
    plan: AttentionPlan,
    attentions: Vec<SavedAttention>,
    residual: SavedAttention,
    summed: Buffer,
    gate: Buffer,
    /// What the output matrix reads, `[rows, d]`.
    pub embedding: Buffer,
    /// One for each row.
    pub values: Vec<f32>,
}

/// Gradients by the states a head read.
#[derive(Debug)]
pub struct StateGradients {
    /// By the states after the final norm.
    pub hidden: Buffer,
    /// By outputs of blocks.
    pub taps: Vec<(usize, Buffer)>,
}

impl HpqaHead {
    /// Adds a fresh head under `name`: attention as PyTorch's `MultiheadAttention` and
    /// the first matrix as its `Linear` begin, the output matrix as told.
    ///
    /// # Errors
    /// When the shape does not fit the decoder; the sentence says why.
    ///
    /// # Panics
    /// When the decoder has parameters of these names.
    pub fn attach(
        decoder: &mut Decoder,
        name: &str,
        shape: HpqaShape,
        (output, seed): (HeadInit, u64),
    ) -> Result<Self, String> {
        shape.check(&decoder.shape)?;
        let width = decoder.shape.hidden;
        let mut fresh = Fresh { decoder, seed, width, num_drawn: 0 };
        let query = fresh.add(&format!("{name}.query"), 1, Draw::Normal(1.0));
        let residual_query = fresh.add(&format!("{name}.residual_query"), 1, Draw::Normal(1.0));
        let each = 0..shape.layers.len();
        let attentions = each.map(|n| fresh.attention(&format!("{name}.attention.{n}"))).collect();
        let residual = fresh.attention(&format!("{name}.residual"));
        let bound = 1.0 / (width as f64).sqrt();
        let hidden = Linear {
            weight: fresh.add(&format!("{name}.hidden.weight"), width, Draw::Uniform(bound)),
            bias: Some(fresh.add_bias(&format!("{name}.hidden.bias"), Draw::Uniform(bound))),
            low_rank: None,
            input: width,
            output: width,
        };
        let draw = match output {
            HeadInit::Zero {} => Draw::Zero,
            HeadInit::Normal { std } => Draw::Normal(std),
        };
        let weight = fresh.add(&format!("{name}.output.weight"), 1, draw);
        let output = Linear { weight, bias: None, low_rank: None, input: width, output: 1 };
        Ok(Self { shape, width, query, residual_query, attentions, residual, hidden, output })
    }

    /// The map from what is read to the number.
    #[must_use]
    pub fn output(&self) -> &Linear {
        &self.output
    }

    /// Blocks whose output the head reads, besides the final states.
    #[must_use]
    pub fn taps(&self, num_layers: usize) -> Vec<usize> {
        let inner = self.shape.layers.iter().filter(|layer| **layer < num_layers);
        inner.map(|layer| layer - 1).collect()
    }

    /// Values of the items that end at the given rows.
    ///
    /// # Panics
    /// When a tapped state is missing.
    #[must_use]
    pub fn forward(
        &self,
        decoder: &Decoder,
        states: States<'_>,
        (forest, rows): (&Forest, &[usize]),
    ) -> HpqaValues {
        let backend = decoder.backend.as_ref();
        let context = self.context(decoder, forest.plan_over_paths(rows));
        let broadcast = vec![0; rows.len()];
        let learnt = |id: ParameterId| {
            let mut queries = backend.alloc(rows.len() * self.width);
            backend.gather_rows(decoder.parameters.value(id), &broadcast, self.width, &mut queries);
            queries
        };
        let mut query = learnt(self.query);
        let mut attentions = Vec::with_capacity(self.attentions.len());
        for (attention, layer) in self.attentions.iter().zip(&self.shape.layers) {
            let (next, saved) = attention.forward(&context, query, states.layer(*layer));
            attentions.push(saved);
            query = next;
        }
        let (residual_out, residual) =
            self.residual.forward(&context, learnt(self.residual_query), states.hidden);
        backend.axpy(1.0, &residual_out, &mut query);
        let mut gate = backend.alloc(query.len());
        let parameters = &decoder.parameters;
        self.hidden.forward(backend, parameters, &query, (&mut gate, Update::Set));
        let mut embedding = backend.alloc(gate.len());
        backend.swiglu(&gate, &ones(backend, gate.len()), &mut embedding);
        let mut out = backend.alloc(rows.len());
        self.output.forward(backend, parameters, &embedding, (&mut out, Update::Set));
        let mut values = vec![0.0; out.len()];
        backend.download(&out, &mut values);
        let plan = context.plan;
        HpqaValues { plan, attentions, residual, summed: query, gate, embedding, values }
    }

    /// Accumulates the head's gradients and returns those of the states.
    #[must_use]
    pub fn backward(
        &self,
        decoder: &Decoder,
        (states, output): (States<'_>, &HpqaValues),
        d_values: &[f32],
        gradients: &mut Gradients,
    ) -> StateGradients {
        let backend = decoder.backend.as_ref();
        let context = self.context(decoder, output.plan.clone());
        let d_summed = self.backward_output(decoder, output, d_values, gradients);
        let mut found = StateGradients {
            hidden: backend.zeros(states.hidden.len()),
            taps: states.taps.iter().map(|(at, tap)| (*at, backend.zeros(tap.len()))).collect(),
        };
        let broadcast = vec![0; d_values.len()];
        let add_query = |id: ParameterId, d_query: &Buffer, gradients: &mut Gradients| {
            if let Some(d_learnt) = gradients.get_mut(id) {
                backend.scatter_add_rows(d_query, &broadcast, self.width, d_learnt);
            }
        };
        let read = (states.hidden, &output.residual);
        let d_query =
            self.residual.backward(&context, read, (&d_summed, &mut found.hidden), gradients);
        add_query(self.residual_query, &d_query, gradients);
        let mut d_query = d_summed;
        let steps = self.attentions.iter().zip(&self.shape.layers).zip(&output.attentions);
        for ((attention, layer), saved) in steps.rev() {
            let read = (states.layer(*layer), saved);
            d_query =
                attention.backward(&context, read, (&d_query, found.layer(*layer)), gradients);
        }
        add_query(self.query, &d_query, gradients);
        found
    }

    /// From the values to the sum of both branches.
    fn backward_output(
        &self,
        decoder: &Decoder,
        output: &HpqaValues,
        d_values: &[f32],
        gradients: &mut Gradients,
    ) -> Buffer {
        let (backend, parameters) = (decoder.backend.as_ref(), &decoder.parameters);
        let len = output.gate.len();
        let mut d_embedding = backend.alloc(len);
        self.output.backward(
            backend,
            parameters,
            gradients,
            (&output.embedding, &backend.upload(d_values)),
            (&mut d_embedding, Update::Set),
        );
        let (mut d_gate, mut unused) = (backend.alloc(len), backend.alloc(len));
        let up = ones(backend, len);
        backend.swiglu_backward(&output.gate, &up, &d_embedding, &mut d_gate, &mut unused);
        let mut d_summed = backend.alloc(len);
        self.hidden.backward(
            backend,
            parameters,
            gradients,
            (&output.summed, &d_gate),
            (&mut d_summed, Update::Set),
        );
        d_summed
    }

    fn context<'a>(&self, decoder: &'a Decoder, plan: AttentionPlan) -> Context<'a> {
        Context {
            backend: decoder.backend.as_ref(),
            parameters: &decoder.parameters,
            plan,
            heads: self.shape.heads,
            width: self.width,
        }
    }
}

impl<'a> States<'a> {
    /// The states of a layer: of a tapped block, else the final ones.
    fn layer(&self, layer: usize) -> &'a Buffer {
        let tapped = self.taps.iter().find(|(block, _)| block + 1 == layer);
        tapped.map_or(self.hidden, |(_, states)| states)
    }
}

impl StateGradients {
    fn layer(&mut self, layer: usize) -> &mut Buffer {
        let tapped = self.taps.iter_mut().find(|(block, _)| *block + 1 == layer);
        tapped.map_or(&mut self.hidden, |(_, states)| states)
    }
}

fn ones(backend: &dyn Backend, len: usize) -> Buffer {
    let mut ones = backend.alloc(len);
    backend.fill(&mut ones, 1.0);
    ones
}

/// Multi-head attention with biases, as PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
}

#[derive(Debug)]
struct SavedAttention {
    query: Buffer,
    q: Buffer,
    k: Buffer,
    v: Buffer,
    attended: Buffer,
    log_sum_exp: Buffer,
}

/// What all attentions of one forward share.
struct Context<'a> {
    backend: &'a dyn Backend,
    parameters: &'a ParameterSet,
    plan: AttentionPlan,
    heads: usize,
    width: usize,
}

impl Context<'_> {
    fn shape(&self, states: &Buffer) -> AttentionShape {
        AttentionShape {
            queries: self.plan.runs.len(),
            slots: states.len() / self.width,
            heads: self.heads,
            kv_heads: self.heads,
            head_dim: self.width / self.heads,
        }
    }

    fn apply(&self, linear: &Linear, x: &Buffer) -> Buffer {
        let mut out = self.backend.alloc(x.len());
        linear.forward(self.backend, self.parameters, x, (&mut out, Update::Set));
        out
    }
}

impl Attention {
    fn forward(
        &self,
        context: &Context<'_>,
        query: Buffer,
        states: &Buffer,
    ) -> (Buffer, SavedAttention) {
        let q = context.apply(&self.q, &query);
        let k = context.apply(&self.k, states);
        let v = context.apply(&self.v, states);
        let shape = context.shape(states);
        let mut attended = context.backend.alloc(q.len());
        let mut log_sum_exp = context.backend.alloc(shape.queries * shape.heads);
        context.backend.attention(
            &q,
            &k,
            &v,
            &context.plan,
            shape,
            &mut attended,
            &mut log_sum_exp,
        );
        let out = context.apply(&self.out, &attended);
        (out, SavedAttention { query, q, k, v, attended, log_sum_exp })
    }

    /// Returns the gradient by the query and adds that by the states.
    fn backward(
        &self,
        context: &Context<'_>,
        (states, saved): (&Buffer, &SavedAttention),
        (d_out, d_states): (&Buffer, &mut Buffer),
        gradients: &mut Gradients,
    ) -> Buffer {
        let (backend, parameters) = (context.backend, context.parameters);
        let mut d_attended = backend.alloc(d_out.len());
        let through = (&saved.attended, d_out);
        self.out.backward(backend, parameters, gradients, through, (&mut d_attended, Update::Set));
        let mut d_q = backend.alloc(saved.q.len());
        let (mut d_k, mut d_v) = (backend.zeros(saved.k.len()), backend.zeros(saved.v.len()));
        backend.attention_backward(
            &saved.q,
            &saved.k,
            &saved.v,
            &saved.attended,
            &saved.log_sum_exp,
            &d_attended,
            &context.plan,
            context.shape(states),
            &mut d_q,
            &mut d_k,
            &mut d_v,
        );
        for (linear, d) in [(&self.k, &d_k), (&self.v, &d_v)] {
            let through = (states, d);
            linear.backward(backend, parameters, gradients, through, (d_states, Update::Add));
        }
        let mut d_query = backend.alloc(saved.query.len());
        let through = (&saved.query, &d_q);
        self.q.backward(backend, parameters, gradients, through, (&mut d_query, Update::Set));
        d_query
    }
}

/// How a fresh parameter is drawn.
#[derive(Clone, Copy)]
enum Draw {
    Zero,
    Normal(f64),
    /// Between minus and plus this.
    Uniform(f64),
}

/// Adds parameters of a head one by one.
struct Fresh<'a> {
    decoder: &'a mut Decoder,
    seed: u64,
    width: usize,
    num_drawn: u64,
}

impl Fresh<'_> {
    fn add(&mut self, name: &str, rows: usize, draw: Draw) -> ParameterId {
        let shape = [rows, self.width];
        self.add_shape(name, &shape, draw)
    }

    fn add_bias(&mut self, name: &str, draw: Draw) -> ParameterId {
        let shape = [self.width];
        self.add_shape(name, &shape, draw)
    }

    fn add_shape(&mut self, name: &str, shape: &[usize], draw: Draw) -> ParameterId {
        let coordinates = |n: usize| [HPQA_STREAM, self.num_drawn, n as u64];
        let value = |n: usize| match draw {
            Draw::Zero => 0.0,
            Draw::Normal(std) => std * random::normal(self.seed, &coordinates(n)),
            Draw::Uniform(bound) => {
                bound * (2.0 * random::uniform(self.seed, &coordinates(n)) - 1.0)
            }
        };
        let count = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|n| value(n) as f32).collect();
        self.num_drawn += 1;
        let buffer = self.decoder.backend.upload(&values);
        let id = self.decoder.parameters.add(name, shape, buffer);
        self.decoder.parameters.get_mut(id).is_head = true;
        id
    }

    fn attention(&mut self, name: &str) -> Attention {
        // Xavier's bound for the three input matrices as one of [3d, d].
        let inner = (6.0 / (4 * self.width) as f64).sqrt();
        let outer = 1.0 / (self.width as f64).sqrt();
        let mut linear = |which: &str, bound: f64| Linear {
            weight: self.add(&format!("{name}.{which}.weight"), self.width, Draw::Uniform(bound)),
            bias: Some(self.add_bias(&format!("{name}.{which}.bias"), Draw::Zero)),
            low_rank: None,
            input: self.width,
            output: self.width,
        };
        Attention {
            q: linear("q_proj", inner),
            k: linear("k_proj", inner),
            v: linear("v_proj", inner),
            out: linear("out_proj", outer),
        }
    }
}
