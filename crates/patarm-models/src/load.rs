//! A decoder from weight files, or with random weights.

use std::path::Path;
use std::sync::Arc;

use patarm_files::{BlockOffsets, ModelFiles, QuantisedTensor, open_model};
use patarm_kernels::{
    Backend, Buffer, EightBitMatrix, Offsets, Precision, QuantisedMatrix, random,
};

use crate::block::Block;
use crate::decoder::Decoder;
use crate::error::Error;
use crate::linear::Linear;
use crate::parameters::{ParameterId, ParameterSet};
use crate::shape::DecoderShape;

/// Gives the value of a named parameter of a given shape.
type Source<'a> = dyn FnMut(&str, &[usize]) -> Result<Buffer, Error> + 'a;

impl Decoder {
    /// Loads a folder in Hugging Face layout or a GGUF file. On a backend whose
    /// precision is [`Precision::Quantised`], matrices stay as a GGUF file quantises
    /// them, and others are rounded to eight bits ([`EightBitMatrix`]); such a matrix
    /// cannot be trained, but an adapter beside it can.
    ///
    /// # Errors
    /// When a file is unreadable, a tensor missing or of another shape, or the
    /// architecture unsupported.
    pub fn load(backend: Arc<dyn Backend>, path: &Path) -> Result<Self, Error> {
        Self::from_files(backend, &open_model(path)?)
    }

    /// Loads from files opened before.
    ///
    /// # Errors
    /// As [`Decoder::load`].
    pub fn from_files(backend: Arc<dyn Backend>, files: &ModelFiles) -> Result<Self, Error> {
        Self::read(backend, DecoderShape::from_config(&files.config), files)
    }

    /// Loads a decoder that carries a head in place of its output matrix, which may
    /// be absent from the files; [`Decoder::output`] is then the embedding.
    ///
    /// # Errors
    /// As [`Decoder::load`].
    pub fn body_from_files(backend: Arc<dyn Backend>, files: &ModelFiles) -> Result<Self, Error> {
        let shape = DecoderShape { tied: true, ..DecoderShape::from_config(&files.config) };
        Self::read(backend, shape, files)
    }

    fn read(
        backend: Arc<dyn Backend>,
        shape: DecoderShape,
        files: &ModelFiles,
    ) -> Result<Self, Error> {
        let device = Arc::clone(&backend);
        let mut read = |name: &str, dims: &[usize]| -> Result<Buffer, Error> {
            if device.precision() == Precision::Quantised
                && let Some(stored) = files.weights.read_quantised(name, dims)?
            {
                return Ok(device.quantised_weight(&matrix(&stored)));
            }
            Ok(parameter(device.as_ref(), &files.weights.read_shaped(name, dims)?, dims))
        };
        Self::build(backend, shape, &mut read)
    }

    /// A decoder with random weights: normal with deviation 0.02, norms at 1,
    /// biases at 0.
    ///
    /// # Panics
    /// Never: random weights cannot be missing.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the source below has no way to fail")]
    pub fn random(backend: Arc<dyn Backend>, shape: DecoderShape, seed: u64) -> Self {
        let device = Arc::clone(&backend);
        let mut stream = 0;
        let mut draw = |name: &str, dims: &[usize]| -> Result<Buffer, Error> {
            stream += 1;
            let len = dims.iter().product::<usize>();
            let value = |n: usize| match dims {
                [_] if name.ends_with("norm.weight") => 1.0,
                [_] => 0.0,
                _ => 0.02 * random::normal(seed, &[stream, n as u64]) as f32,
            };
            Ok(parameter(device.as_ref(), &(0..len).map(value).collect::<Vec<f32>>(), dims))
        };
        Self::build(backend, shape, &mut draw).expect("random weights are complete")
    }

    fn build(
        backend: Arc<dyn Backend>,
        shape: DecoderShape,
        source: &mut Source<'_>,
    ) -> Result<Self, Error> {
        let mut builder = Builder { parameters: ParameterSet::default(), shape: &shape, source };
        let embedding = builder.add("model.embed_tokens.weight", &[shape.vocab, shape.hidden])?;
        let blocks =
            (0..shape.layers).map(|layer| builder.block(layer)).collect::<Result<Vec<_>, _>>()?;
        let final_norm = builder.add("model.norm.weight", &[shape.hidden])?;
        let output = match shape.tied {
            true => embedding,
            false => builder.add("lm_head.weight", &[shape.vocab, shape.hidden])?,
        };
        let mut parameters = builder.parameters;
        let linears = blocks.iter().flat_map(Block::linears).map(|(_, linear)| linear.weight);
        for id in linears.chain([output]) {
            parameters.prepare_weight(backend.as_ref(), id);
        }
        Ok(Self { backend, shape, parameters, embedding, blocks, final_norm, output })
    }
}

/// The buffer of a parameter: on a backend in quantised precision, a matrix whose rows
/// are whole blocks is rounded.
fn parameter(backend: &dyn Backend, values: &[f32], dims: &[usize]) -> Buffer {
    let rounded = match (backend.precision(), dims) {
        (Precision::Quantised, &[rows, columns]) => EightBitMatrix::round(values, rows, columns),
        _ => None,
    };
    match rounded {
        Some(rounded) => backend.quantised_weight(&rounded.matrix()),
        None => backend.upload(values),
    }
}

/// A stored matrix as a device takes it.
fn matrix(stored: &QuantisedTensor) -> QuantisedMatrix<'_> {
    QuantisedMatrix {
        rows: stored.shape[0],
        columns: stored.shape[1],
        block: stored.block,
        integers: &stored.integers,
        scales: &stored.scales,
        offsets: match &stored.offsets {
            BlockOffsets::Centre(centre) => Offsets::Centre(*centre),
            BlockOffsets::Each(offsets) => Offsets::Each(offsets),
        },
    }
}

struct Builder<'a, 'b> {
    parameters: ParameterSet,
    shape: &'a DecoderShape,
    source: &'a mut Source<'b>,
}

impl Builder<'_, '_> {
    fn add(&mut self, name: &str, dims: &[usize]) -> Result<ParameterId, Error> {
        let value = (self.source)(name, dims)?;
        Ok(self.parameters.add(name, dims, value))
    }

    fn linear(
        &mut self,
        name: &str,
        (input, output): (usize, usize),
        bias: bool,
    ) -> Result<Linear, Error> {
        let weight = self.add(&format!("{name}.weight"), &[output, input])?;
        let bias = match bias {
            true => Some(self.add(&format!("{name}.bias"), &[output])?),
            false => None,
        };
        Ok(Linear { weight, bias, low_rank: None, input, output })
    }

    fn block(&mut self, layer: usize) -> Result<Block, Error> {
        let shape = self.shape;
        let prefix = format!("model.layers.{layer}");
        let (hidden, inner) = (shape.hidden, shape.intermediate);
        let (query, key) = (shape.query_width(), shape.key_width());
        let bias = shape.qkv_bias;
        let attention_norm = self.add(&format!("{prefix}.input_layernorm.weight"), &[hidden])?;
        let q = self.linear(&format!("{prefix}.self_attn.q_proj"), (hidden, query), bias)?;
        let k = self.linear(&format!("{prefix}.self_attn.k_proj"), (hidden, key), bias)?;
        let v = self.linear(&format!("{prefix}.self_attn.v_proj"), (hidden, key), bias)?;
        let o = self.linear(&format!("{prefix}.self_attn.o_proj"), (query, hidden), false)?;
        let qk_norm = match shape.qk_norm {
            true => Some((
                self.add(&format!("{prefix}.self_attn.q_norm.weight"), &[shape.head_dim])?,
                self.add(&format!("{prefix}.self_attn.k_norm.weight"), &[shape.head_dim])?,
            )),
            false => None,
        };
        let mlp_norm = self.add(&format!("{prefix}.post_attention_layernorm.weight"), &[hidden])?;
        let gate = self.linear(&format!("{prefix}.mlp.gate_proj"), (hidden, inner), false)?;
        let up = self.linear(&format!("{prefix}.mlp.up_proj"), (hidden, inner), false)?;
        let down = self.linear(&format!("{prefix}.mlp.down_proj"), (inner, hidden), false)?;
        Ok(Block { attention_norm, q, k, v, o, qk_norm, mlp_norm, gate, up, down })
    }
}
