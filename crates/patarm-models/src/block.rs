//! One transformer block: forward with what backward needs, and its backward.
//!
//! `x → x + o(attention(rope(q, k, v of norm(x))))`, then
//! `x → x + down(silu(gate(norm(x))) · up(norm(x)))`. Normalised inputs and the
//! product of the gate are recomputed in the backward: they cost one pass over
//! memory and would be a third of what is kept.

use patarm_kernels::{
    AttentionPlan, AttentionShape, Backend, Buffer, NormShape, RopeTurn, RotatedNorm, Rotation,
    Update,
};

use crate::linear::Linear;
use crate::parameters::{Gradients, ParameterId, ParameterSet};
use crate::shape::DecoderShape;

/// Parameters of one block.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Norm before attention.
    pub attention_norm: ParameterId,
    /// Query projection.
    pub q: Linear,
    /// Key projection.
    pub k: Linear,
    /// Value projection.
    pub v: Linear,
    /// Output projection.
    pub o: Linear,
    /// Per-head norms of queries and keys (Qwen3).
    pub qk_norm: Option<(ParameterId, ParameterId)>,
    /// Norm before the feed-forward layer.
    pub mlp_norm: ParameterId,
    /// Gate projection.
    pub gate: Linear,
    /// Up projection.
    pub up: Linear,
    /// Down projection.
    pub down: Linear,
}

/// What all blocks of one call share.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The device.
    pub backend: &'a dyn Backend,
    /// Sizes.
    pub shape: &'a DecoderShape,
    /// Values.
    pub parameters: &'a ParameterSet,
    /// Position of every token.
    pub positions: &'a [u32],
    /// Which keys each token sees.
    pub plan: &'a AttentionPlan,
}

/// A block's cached keys and values, and the slots of the new tokens.
#[derive(Debug)]
pub struct LayerCache<'a> {
    /// `[slots, kv_heads, head_dim]`.
    pub keys: &'a mut Buffer,
    /// `[slots, kv_heads, head_dim]`.
    pub values: &'a mut Buffer,
    /// Slot of each new token.
    pub slots: &'a [u32],
}

/// What the backward of a block needs.
#[derive(Debug)]
pub struct SavedBlock {
    x: Buffer,
    inv_rms: Buffer,
    heads: Heads,
    attended: Buffer,
    log_sum_exp: Buffer,
    x_mid: Buffer,
    inv_rms_mid: Buffer,
    gate: Buffer,
    up: Buffer,
}

/// Queries, keys and values after norms and rotation.
#[derive(Debug)]
struct Heads {
    q: Buffer,
    k: Buffer,
    v: Buffer,
    before_norm: Option<BeforeNorm>,
}

/// Queries and keys before their per-head norms.
#[derive(Debug)]
struct BeforeNorm {
    q: Buffer,
    k: Buffer,
    q_inv_rms: Buffer,
    k_inv_rms: Buffer,
}

impl Context<'_> {
    fn tokens(&self) -> usize {
        self.positions.len()
    }

    fn norm_shape(&self) -> NormShape {
        NormShape { rows: self.tokens(), dim: self.shape.hidden, eps: self.shape.norm_eps }
    }

    fn rotation_of(&self, heads: usize) -> Rotation<'_> {
        let inverse_frequencies = &self.shape.inverse_frequencies;
        Rotation { positions: self.positions, inverse_frequencies, heads }
    }

    fn rotated_norm_of(&self, heads: usize) -> RotatedNorm<'_> {
        RotatedNorm { rotation: self.rotation_of(heads), eps: self.shape.norm_eps }
    }

    fn attention_shape(&self, slots: usize) -> AttentionShape {
        AttentionShape {
            queries: self.tokens(),
            slots,
            heads: self.shape.heads,
            kv_heads: self.shape.kv_heads,
            head_dim: self.shape.head_dim,
        }
    }

    /// Normalises rows of the model width; returns the result and the inverse
    /// root mean squares.
    pub(crate) fn norm(&self, x: &Buffer, weight: ParameterId) -> (Buffer, Buffer) {
        let mut out = self.backend.alloc(x.len());
        let mut inv_rms = self.backend.alloc(self.tokens());
        self.backend.rms_norm(
            x,
            self.parameters.value(weight),
            self.norm_shape(),
            &mut out,
            &mut inv_rms,
        );
        (out, inv_rms)
    }

    /// Gradient of [`Context::norm`].
    pub(crate) fn norm_backward(
        &self,
        gradients: &mut Gradients,
        weight: ParameterId,
        (x, inv_rms): (&Buffer, &Buffer),
        d_out: &Buffer,
        d_x: (&mut Buffer, Update),
    ) {
        let value = self.parameters.value(weight);
        let d_weight = gradients.get_mut(weight);
        self.backend.rms_norm_backward(x, value, inv_rms, d_out, self.norm_shape(), d_x, d_weight);
    }

    fn copy_of(&self, x: &Buffer) -> Buffer {
        let mut copy = self.backend.alloc(x.len());
        self.backend.copy(x, 0, &mut copy, 0, x.len());
        copy
    }

    fn rope(&self, x: &mut Buffer, heads: usize, turn: RopeTurn) {
        self.backend.rope(x, self.rotation_of(heads), turn);
    }

    fn linear(&self, linear: &Linear, x: &Buffer) -> Buffer {
        let mut out = self.backend.alloc(self.tokens() * linear.output);
        linear.forward(self.backend, self.parameters, x, (&mut out, Update::Set));
        out
    }
}

impl Block {
    /// Runs the block on the residual stream `x` in place, keeping what
    /// [`Block::backward`] needs.
    ///
    /// # Shapes
    /// `x`: `[t, d]`.
    #[must_use]
    pub fn forward_saving(&self, context: &Context<'_>, x: &mut Buffer) -> SavedBlock {
        let backend = context.backend;
        let x_in = context.copy_of(x);
        let (normed, inv_rms) = context.norm(x, self.attention_norm);
        let heads = self.heads(context, &normed);
        let (attended, log_sum_exp) = attend(context, &heads.q, &heads.k, &heads.v);
        self.o.forward(backend, context.parameters, &attended, (x, Update::Add));
        let x_mid = context.copy_of(x);
        let (normed, inv_rms_mid) = context.norm(x, self.mlp_norm);
        let gate = context.linear(&self.gate, &normed);
        let up = context.linear(&self.up, &normed);
        self.finish_mlp(context, (&gate, &up), x);
        SavedBlock { x: x_in, inv_rms, heads, attended, log_sum_exp, x_mid, inv_rms_mid, gate, up }
    }

    /// Runs the block against a cache, keeping nothing but the new keys and values.
    pub fn forward_cached(
        &self,
        context: &Context<'_>,
        cache: &mut LayerCache<'_>,
        x: &mut Buffer,
    ) {
        let (normed, _) = context.norm(x, self.attention_norm);
        let heads = self.heads(context, &normed);
        let width = context.shape.key_width();
        context.backend.scatter_rows(&heads.k, cache.slots, width, cache.keys);
        context.backend.scatter_rows(&heads.v, cache.slots, width, cache.values);
        let (attended, _) = attend(context, &heads.q, cache.keys, cache.values);
        self.o.forward(context.backend, context.parameters, &attended, (x, Update::Add));
        let (normed, _) = context.norm(x, self.mlp_norm);
        let gate = context.linear(&self.gate, &normed);
        let up = context.linear(&self.up, &normed);
        self.finish_mlp(context, (&gate, &up), x);
    }

    fn finish_mlp(&self, context: &Context<'_>, (gate, up): (&Buffer, &Buffer), x: &mut Buffer) {
        let mut product = context.backend.alloc(gate.len());
        context.backend.swiglu(gate, up, &mut product);
        self.down.forward(context.backend, context.parameters, &product, (x, Update::Add));
    }

    fn heads(&self, context: &Context<'_>, normed: &Buffer) -> Heads {
        let mut q = context.linear(&self.q, normed);
        let mut k = context.linear(&self.k, normed);
        let v = context.linear(&self.v, normed);
        let before_norm = self.qk_norm.map(|(q_weight, k_weight)| {
            let (q_rotated, q_inv_rms) = rotated_norm(context, &q, q_weight, context.shape.heads);
            let (k_rotated, k_inv_rms) =
                rotated_norm(context, &k, k_weight, context.shape.kv_heads);
            BeforeNorm {
                q: std::mem::replace(&mut q, q_rotated),
                k: std::mem::replace(&mut k, k_rotated),
                q_inv_rms,
                k_inv_rms,
            }
        });
        if before_norm.is_none() {
            context.rope(&mut q, context.shape.heads, RopeTurn::Forward);
            context.rope(&mut k, context.shape.kv_heads, RopeTurn::Forward);
        }
        Heads { q, k, v, before_norm }
    }

    /// Turns the gradient of the block's output into the gradient of its input,
    /// in place, and accumulates parameter gradients.
    ///
    /// # Shapes
    /// `d_x`: `[t, d]`.
    pub fn backward(
        &self,
        context: &Context<'_>,
        saved: &SavedBlock,
        gradients: &mut Gradients,
        d_x: &mut Buffer,
    ) {
        self.mlp_backward(context, saved, gradients, d_x);
        self.attention_backward(context, saved, gradients, d_x);
    }

    fn mlp_backward(
        &self,
        context: &Context<'_>,
        saved: &SavedBlock,
        gradients: &mut Gradients,
        d_x: &mut Buffer,
    ) {
        let Context { backend, parameters, .. } = *context;
        let mut product = backend.alloc(saved.gate.len());
        backend.swiglu(&saved.gate, &saved.up, &mut product);
        let mut d_product = backend.alloc(product.len());
        self.down.backward(
            backend,
            parameters,
            gradients,
            (&product, d_x),
            (&mut d_product, Update::Set),
        );
        let (mut d_gate, mut d_up) = (product, backend.alloc(d_product.len()));
        backend.swiglu_backward(&saved.gate, &saved.up, &d_product, &mut d_gate, &mut d_up);
        let (normed, _) = context.norm(&saved.x_mid, self.mlp_norm);
        let products = [(&self.gate, &d_gate), (&self.up, &d_up)];
        let d_normed = products_backward(context, gradients, &normed, &products);
        let saved_norm = (&saved.x_mid, &saved.inv_rms_mid);
        context.norm_backward(gradients, self.mlp_norm, saved_norm, &d_normed, (d_x, Update::Add));
    }

    fn attention_backward(
        &self,
        context: &Context<'_>,
        saved: &SavedBlock,
        gradients: &mut Gradients,
        d_x: &mut Buffer,
    ) {
        let Context { backend, parameters, .. } = *context;
        let mut d_attended = backend.alloc(saved.attended.len());
        self.o.backward(
            backend,
            parameters,
            gradients,
            (&saved.attended, d_x),
            (&mut d_attended, Update::Set),
        );
        let heads = &saved.heads;
        let mut d_q = backend.alloc(heads.q.len());
        let (mut d_k, mut d_v) = (backend.zeros(heads.k.len()), backend.zeros(heads.v.len()));
        backend.attention_backward(
            &heads.q,
            &heads.k,
            &heads.v,
            &saved.attended,
            &saved.log_sum_exp,
            &d_attended,
            context.plan,
            context.attention_shape(context.tokens()),
            &mut d_q,
            &mut d_k,
            &mut d_v,
        );
        if let (Some((q_weight, k_weight)), Some(before)) = (self.qk_norm, &heads.before_norm) {
            let q_saved = (&before.q, &before.q_inv_rms, context.shape.heads);
            d_q = rotated_norm_backward(context, gradients, q_weight, q_saved, d_q);
            let k_saved = (&before.k, &before.k_inv_rms, context.shape.kv_heads);
            d_k = rotated_norm_backward(context, gradients, k_weight, k_saved, d_k);
        } else {
            context.rope(&mut d_q, context.shape.heads, RopeTurn::Backward);
            context.rope(&mut d_k, context.shape.kv_heads, RopeTurn::Backward);
        }
        let (normed, _) = context.norm(&saved.x, self.attention_norm);
        let products = [(&self.q, &d_q), (&self.k, &d_k), (&self.v, &d_v)];
        let d_normed = products_backward(context, gradients, &normed, &products);
        let saved_norm = (&saved.x, &saved.inv_rms);
        context.norm_backward(
            gradients,
            self.attention_norm,
            saved_norm,
            &d_normed,
            (d_x, Update::Add),
        );
    }
}

/// Gradient of the one input of several products, each with the gradient of its result.
fn products_backward(
    context: &Context<'_>,
    gradients: &mut Gradients,
    input: &Buffer,
    products: &[(&Linear, &Buffer)],
) -> Buffer {
    let Context { backend, parameters, .. } = *context;
    let mut d_input = backend.alloc(input.len());
    for (n, (linear, d_out)) in products.iter().enumerate() {
        let update = if n == 0 { Update::Set } else { Update::Add };
        linear.backward(backend, parameters, gradients, (input, d_out), (&mut d_input, update));
    }
    d_input
}

fn attend(context: &Context<'_>, q: &Buffer, k: &Buffer, v: &Buffer) -> (Buffer, Buffer) {
    let mut out = context.backend.alloc(q.len());
    let mut log_sum_exp = context.backend.alloc(context.tokens() * context.shape.heads);
    let shape = context.attention_shape(k.len() / context.shape.key_width());
    context.backend.attention(q, k, v, context.plan, shape, &mut out, &mut log_sum_exp);
    (out, log_sum_exp)
}

/// The heads after their norm and rotation, and the norm's inverse root mean squares.
fn rotated_norm(
    context: &Context<'_>,
    x: &Buffer,
    weight: ParameterId,
    heads: usize,
) -> (Buffer, Buffer) {
    let operation = context.rotated_norm_of(heads);
    let mut out = context.backend.alloc(x.len());
    let mut inv_rms = context.backend.alloc(operation.norm_shape().rows);
    let weight = context.parameters.value(weight);
    context.backend.rotated_norm(x, weight, operation, &mut out, &mut inv_rms);
    (out, inv_rms)
}

fn rotated_norm_backward(
    context: &Context<'_>,
    gradients: &mut Gradients,
    weight: ParameterId,
    (x, inv_rms, heads): (&Buffer, &Buffer, usize),
    mut d_out: Buffer,
) -> Buffer {
    let mut d_x = context.backend.alloc(x.len());
    let value = context.parameters.value(weight);
    context.backend.rotated_norm_backward(
        x,
        value,
        inv_rms,
        &mut d_out,
        context.rotated_norm_of(heads),
        &mut d_x,
        gradients.get_mut(weight),
    );
    d_x
}
