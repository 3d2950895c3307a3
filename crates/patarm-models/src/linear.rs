//! A linear map with an optional bias and an optional low-rank side path.

use patarm_kernels::{Backend, Buffer, LinearShape, Update};

use crate::parameters::{Gradients, ParameterId, ParameterSet};

/// The low-rank side path `scale · x · Aᵀ · Bᵀ` (Hu et al., arXiv 2106.09685).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LowRank {
    /// `A`, `[rank, input]`.
    pub a: ParameterId,
    /// `B`, `[output, rank]`.
    pub b: ParameterId,
    /// Rank.
    pub rank: usize,
    /// `alpha / rank`.
    pub scale: f32,
}

/// `y = x · Wᵀ + bias + scale · x · Aᵀ · Bᵀ`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Linear {
    /// `W`, `[output, input]`.
    pub weight: ParameterId,
    /// `[output]`.
    pub bias: Option<ParameterId>,
    /// The side path, where an adapter is attached.
    pub low_rank: Option<LowRank>,
    /// Input width.
    pub input: usize,
    /// Output width.
    pub output: usize,
}

impl Linear {
    fn shape(&self, tokens: usize) -> LinearShape {
        LinearShape { tokens, input: self.input, output: self.output }
    }

    /// Applies the map to `tokens` rows.
    pub fn forward(
        &self,
        backend: &dyn Backend,
        parameters: &ParameterSet,
        x: &Buffer,
        (out, update): (&mut Buffer, Update),
    ) {
        let tokens = x.len() / self.input;
        let bias = self.bias.map(|id| parameters.value(id));
        backend.linear(
            x,
            parameters.value(self.weight),
            bias,
            self.shape(tokens),
            1.0,
            (out, update),
        );
        if let Some(side) = self.low_rank {
            let inner = self.inner(backend, parameters, x, side);
            let up = LinearShape { tokens, input: side.rank, output: self.output };
            backend.linear(
                &inner,
                parameters.value(side.b),
                None,
                up,
                side.scale,
                (out, Update::Add),
            );
        }
    }

    fn inner(
        &self,
        backend: &dyn Backend,
        parameters: &ParameterSet,
        x: &Buffer,
        side: LowRank,
    ) -> Buffer {
        let tokens = x.len() / self.input;
        let mut inner = backend.alloc(tokens * side.rank);
        let down = LinearShape { tokens, input: self.input, output: side.rank };
        backend.linear(x, parameters.value(side.a), None, down, 1.0, (&mut inner, Update::Set));
        inner
    }

    /// Accumulates parameter gradients and writes `d_x`.
    pub fn backward(
        &self,
        backend: &dyn Backend,
        parameters: &ParameterSet,
        gradients: &mut Gradients,
        (x, d_out): (&Buffer, &Buffer),
        (d_x, update): (&mut Buffer, Update),
    ) {
        let tokens = x.len() / self.input;
        let shape = self.shape(tokens);
        backend.linear_backward_input(
            d_out,
            parameters.value(self.weight),
            shape,
            1.0,
            (d_x, update),
        );
        if let Some(d_weight) = gradients.get_mut(self.weight) {
            let weight = parameters.value(self.weight);
            backend.linear_backward_weight(d_out, x, weight, shape, 1.0, d_weight);
        }
        if let Some(d_bias) = self.bias.and_then(|id| gradients.get_mut(id)) {
            backend.bias_backward(d_out, tokens, d_bias);
        }
        if let Some(side) = self.low_rank {
            let inner = self.inner(backend, parameters, x, side);
            let mut d_inner = backend.alloc(tokens * side.rank);
            let up = LinearShape { tokens, input: side.rank, output: self.output };
            let down = LinearShape { tokens, input: self.input, output: side.rank };
            backend.linear_backward_input(
                d_out,
                parameters.value(side.b),
                up,
                side.scale,
                (&mut d_inner, Update::Set),
            );
            if let Some(d_b) = gradients.get_mut(side.b) {
                let b = parameters.value(side.b);
                backend.linear_backward_weight(d_out, &inner, b, up, side.scale, d_b);
            }
            if let Some(d_a) = gradients.get_mut(side.a) {
                let a = parameters.value(side.a);
                backend.linear_backward_weight(&d_inner, x, a, down, 1.0, d_a);
            }
            backend.linear_backward_input(
                &d_inner,
                parameters.value(side.a),
                down,
                1.0,
                (d_x, Update::Add),
            );
        }
    }
}
