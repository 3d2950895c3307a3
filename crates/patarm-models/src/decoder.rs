//! The decoder: embeddings in, hidden states out, and the way back.

use std::sync::Arc;

use patarm_kernels::{AttentionPlan, Backend, Buffer};

use crate::block::{Block, Context, LayerCache, SavedBlock};
use crate::error::{Error, ErrorKind};
use crate::forest::Forest;
use crate::kv_cache::KvCache;
use crate::parameters::{Gradients, ParameterId, ParameterSet};
use crate::shape::DecoderShape;

/// What a training forward keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationPolicy {
    /// Everything the backward needs: fastest.
    Keep,
    /// Only the input of each block; the backward runs the block again.
    Recompute,
}

/// How a training forward runs.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardOptions {
    /// What is kept.
    pub activations: ActivationPolicy,
    /// Blocks whose output is copied out, for heads on inner layers.
    pub taps: Vec<usize>,
}

impl Default for ForwardOptions {
    fn default() -> Self {
        Self { activations: ActivationPolicy::Keep, taps: Vec::new() }
    }
}

/// A decoder with its parameters.
#[derive(Debug)]
pub struct Decoder {
    /// The device.
    pub backend: Arc<dyn Backend>,
    /// Sizes.
    pub shape: DecoderShape,
    /// Values.
    pub parameters: ParameterSet,
    /// Token embedding, `[v, d]`.
    pub embedding: ParameterId,
    /// The blocks, first to last.
    pub blocks: Vec<Block>,
    /// The final norm.
    pub final_norm: ParameterId,
    /// The output matrix, `[v, d]`: the embedding itself where tied.
    pub output: ParameterId,
}

/// The result of a training forward.
#[derive(Debug)]
pub struct Saved {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    plan: AttentionPlan,
    blocks: Vec<SavedActivation>,
    last: Buffer,
    last_inv_rms: Buffer,
    /// Hidden states after the final norm, `[t, d]`.
    pub hidden: Buffer,
    /// Outputs of the tapped blocks, in the order asked for, `[t, d]` each.
    pub taps: Vec<(usize, Buffer)>,
}

#[derive(Debug)]
enum SavedActivation {
    Full(Box<SavedBlock>),
    Input(Buffer),
    /// Below every trainable parameter: the backward never gets here.
    Nothing,
}

impl Decoder {
    /// Runs the forest, keeping what [`Decoder::backward`] needs.
    ///
    /// # Errors
    /// When a token id is outside the vocabulary or a path longer than the model's
    /// positions.
    pub fn forward(&self, forest: &Forest, options: &ForwardOptions) -> Result<Saved, Error> {
        self.check(forest.tokens(), forest.max_depth())?;
        let (positions, plan) = (forest.positions(), forest.plan());
        let context = self.context(&positions, &plan);
        let mut x = self.embed(forest.tokens());
        let lowest = self.lowest_trainable_block();
        let (mut blocks, mut taps) = (Vec::with_capacity(self.blocks.len()), Vec::new());
        for (layer, block) in self.blocks.iter().enumerate() {
            let input = match options.activations {
                ActivationPolicy::Recompute if layer >= lowest => Some(self.copy_of(&x)),
                _ => None,
            };
            let saved = block.forward_saving(&context, &mut x);
            blocks.push(match input {
                Some(input) => SavedActivation::Input(input),
                None if layer >= lowest => SavedActivation::Full(Box::new(saved)),
                None => SavedActivation::Nothing,
            });
            if options.taps.contains(&layer) {
                taps.push((layer, self.copy_of(&x)));
            }
        }
        let (hidden, last_inv_rms) = context.norm(&x, self.final_norm);
        let tokens = forest.tokens().to_vec();
        Ok(Saved { tokens, positions, plan, blocks, last: x, last_inv_rms, hidden, taps })
    }

    /// Runs the forest and keeps nothing: the hidden states after the final norm,
    /// `[t, d]`, and outputs of the blocks asked for, in the order of the blocks.
    ///
    /// # Errors
    /// As [`Decoder::forward`].
    pub fn infer(
        &self,
        forest: &Forest,
        taps: &[usize],
    ) -> Result<(Buffer, Vec<(usize, Buffer)>), Error> {
        self.check(forest.tokens(), forest.max_depth())?;
        let (positions, plan) = (forest.positions(), forest.plan());
        let context = self.context(&positions, &plan);
        let mut x = self.embed(forest.tokens());
        let mut tapped = Vec::new();
        for (layer, block) in self.blocks.iter().enumerate() {
            drop(block.forward_saving(&context, &mut x));
            if taps.contains(&layer) {
                tapped.push((layer, self.copy_of(&x)));
            }
        }
        Ok((context.norm(&x, self.final_norm).0, tapped))
    }

    /// Accumulates the gradients of every trainable parameter, given the gradient
    /// of the final hidden states and of the tapped layers.
    ///
    /// # Shapes
    /// `d_hidden` and each of `d_taps`: `[t, d]`.
    pub fn backward(
        &self,
        saved: &Saved,
        d_hidden: &Buffer,
        d_taps: &[(usize, &Buffer)],
        gradients: &mut Gradients,
    ) {
        if let Some(d_embedded) =
            self.backward_to(saved, d_hidden, d_taps, gradients, self.lowest_trainable_block())
            && let Some(d_table) = gradients.get_mut(self.embedding)
        {
            self.backend.scatter_add_rows(&d_embedded, &saved.tokens, self.shape.hidden, d_table);
        }
    }

    /// Like [`Decoder::backward`], down to the embeddings, whose gradient
    /// (`[t, d]`) is returned; needs a forward with every parameter trainable or
    /// [`ActivationPolicy::Keep`] on an unfrozen decoder.
    #[must_use]
    pub fn backward_to_input(
        &self,
        saved: &Saved,
        d_hidden: &Buffer,
        gradients: &mut Gradients,
    ) -> Option<Buffer> {
        self.backward_to(saved, d_hidden, &[], gradients, 0)
    }

    fn backward_to(
        &self,
        saved: &Saved,
        d_hidden: &Buffer,
        d_taps: &[(usize, &Buffer)],
        gradients: &mut Gradients,
        lowest: usize,
    ) -> Option<Buffer> {
        let context = self.context(&saved.positions, &saved.plan);
        let mut d_x = self.backend.zeros(d_hidden.len());
        let last = (&saved.last, &saved.last_inv_rms);
        context.norm_backward(
            gradients,
            self.final_norm,
            last,
            d_hidden,
            (&mut d_x, patarm_kernels::Update::Set),
        );
        for layer in (lowest..self.blocks.len()).rev() {
            for (_, d_tap) in d_taps.iter().filter(|(tapped, _)| *tapped == layer) {
                self.backend.axpy(1.0, d_tap, &mut d_x);
            }
            let block = &self.blocks[layer];
            match &saved.blocks[layer] {
                SavedActivation::Full(activation) => {
                    block.backward(&context, activation, gradients, &mut d_x)
                }
                SavedActivation::Input(input) => {
                    let mut again = self.copy_of(input);
                    let activation = block.forward_saving(&context, &mut again);
                    block.backward(&context, &activation, gradients, &mut d_x);
                }
                SavedActivation::Nothing => return None,
            }
        }
        Some(d_x)
    }

    /// Runs tokens against the cache: their keys and values are written to
    /// `slots`, and the final hidden states (`[t, d]`) returned.
    pub(crate) fn forward_cached(
        &self,
        tokens: &[u32],
        positions: &[u32],
        plan: &AttentionPlan,
        (cache, slots): (&mut KvCache, &[u32]),
    ) -> Buffer {
        let context = self.context(positions, plan);
        let mut x = self.embed(tokens);
        for (layer, block) in self.blocks.iter().enumerate() {
            let (keys, values) = cache.layer(layer);
            block.forward_cached(&context, &mut LayerCache { keys, values, slots }, &mut x);
        }
        context.norm(&x, self.final_norm).0
    }

    /// Checks token ids and length before anything is computed.
    pub(crate) fn check(&self, tokens: &[u32], length: usize) -> Result<(), Error> {
        if length > self.shape.max_positions {
            return Err(Error::new(ErrorKind::Overlong {
                tokens: length,
                limit: self.shape.max_positions,
            }));
        }
        match tokens.iter().find(|id| **id as usize >= self.shape.vocab) {
            Some(&id) => Err(Error::new(ErrorKind::TokenId { id, vocab: self.shape.vocab })),
            None => Ok(()),
        }
    }

    /// The lowest block the backward has to reach: 0 when the embedding trains.
    fn lowest_trainable_block(&self) -> usize {
        let trains = |id: ParameterId| self.parameters.get(id).trainable;
        if trains(self.embedding) {
            return 0;
        }
        let lowest =
            self.blocks.iter().position(|block| block.parameter_ids().into_iter().any(trains));
        lowest.unwrap_or(self.blocks.len())
    }

    fn context<'a>(&'a self, positions: &'a [u32], plan: &'a AttentionPlan) -> Context<'a> {
        let backend = self.backend.as_ref();
        Context { backend, shape: &self.shape, parameters: &self.parameters, positions, plan }
    }

    fn embed(&self, tokens: &[u32]) -> Buffer {
        let mut x = self.backend.alloc(tokens.len() * self.shape.hidden);
        self.backend.gather_rows(
            self.parameters.value(self.embedding),
            tokens,
            self.shape.hidden,
            &mut x,
        );
        x
    }

    fn copy_of(&self, x: &Buffer) -> Buffer {
        let mut copy = self.backend.alloc(x.len());
        self.backend.copy(x, 0, &mut copy, 0, x.len());
        copy
    }

    /// Freezes the embedding, the output matrix and every block below `layer`:
    /// the backward then stops there.
    pub fn freeze_below(&mut self, layer: usize) {
        self.parameters.get_mut(self.embedding).trainable = false;
        self.parameters.get_mut(self.output).trainable = false;
        let frozen: Vec<ParameterId> =
            self.blocks.iter().take(layer).flat_map(|block| block.parameter_ids()).collect();
        for id in frozen {
            self.parameters.get_mut(id).trainable = false;
        }
    }
}

impl Block {
    /// Every linear map of the block with the name Hugging Face gives it.
    #[must_use]
    pub fn linears(&self) -> [(&'static str, &crate::linear::Linear); 7] {
        [
            ("self_attn.q_proj", &self.q),
            ("self_attn.k_proj", &self.k),
            ("self_attn.v_proj", &self.v),
            ("self_attn.o_proj", &self.o),
            ("mlp.gate_proj", &self.gate),
            ("mlp.up_proj", &self.up),
            ("mlp.down_proj", &self.down),
        ]
    }

    /// Every linear map of the block, mutably, with its name.
    pub fn linears_mut(&mut self) -> [(&'static str, &mut crate::linear::Linear); 7] {
        [
            ("self_attn.q_proj", &mut self.q),
            ("self_attn.k_proj", &mut self.k),
            ("self_attn.v_proj", &mut self.v),
            ("self_attn.o_proj", &mut self.o),
            ("mlp.gate_proj", &mut self.gate),
            ("mlp.up_proj", &mut self.up),
            ("mlp.down_proj", &mut self.down),
        ]
    }

    /// Ids of every parameter of the block, adapters included.
    #[must_use]
    pub fn parameter_ids(&self) -> Vec<ParameterId> {
        let mut ids = vec![self.attention_norm, self.mlp_norm];
        if let Some((q, k)) = self.qk_norm {
            ids.extend([q, k]);
        }
        for (_, linear) in self.linears() {
            ids.push(linear.weight);
            ids.extend(linear.bias);
            ids.extend(linear.low_rank.into_iter().flat_map(|side| [side.a, side.b]));
        }
        ids
    }
}
