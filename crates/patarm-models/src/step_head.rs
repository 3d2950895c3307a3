//! Heads of process reward models: one or two linear layers with biases, read at the
//! ends of steps.
//!
//! Two layers have a rectifier between them and are stored as `name.0` and `name.2`, as
//! `torch.nn.Sequential` names them; one layer is `name`. Products stay `f32` and run
//! over few rows, so that the rectifier is computed on the host.

use patarm_files::ModelFiles;
use patarm_kernels::{Buffer, Update, random};

use crate::decoder::Decoder;
use crate::error::{Error, ErrorKind};
use crate::head::HeadInit;
use crate::linear::Linear;
use crate::parameters::Gradients;

/// Stream of the draws of fresh heads.
const HEAD_STREAM: u64 = 0x57e9;

/// How large a head is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepHeadShape {
    /// 1, or 2 with a rectifier between them.
    pub layers: usize,
    /// Numbers a row.
    pub outputs: usize,
}

/// A head of a decoder; its parameters are marked as a head's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepHead {
    hidden: Option<Linear>,
    last: Linear,
}

/// Values of a head, and what its backward needs.
#[derive(Debug)]
pub struct StepValues {
    rows: Vec<u32>,
    num_hidden: usize,
    gathered: Buffer,
    /// After the rectifier, where there are two layers.
    rectified: Option<Buffer>,
    /// `[rows, outputs]`, row after row.
    pub values: Vec<f32>,
}

impl StepHead {
    /// Adds a fresh head: biases zero, weights as `init` says. The first of two layers is
    /// normal with deviation 1/√d in any case, as a zero layer below a rectifier would
    /// never learn.
    ///
    /// # Panics
    /// When the decoder has a parameter of this name.
    pub fn attach(
        decoder: &mut Decoder,
        name: &str,
        shape: StepHeadShape,
        (init, seed): (HeadInit, u64),
    ) -> Self {
        let input = decoder.shape.hidden;
        let scale = 1.0 / (input as f64).sqrt();
        let draw = |layer: u64, n: usize, init: HeadInit| match init {
            HeadInit::Zero {} => 0.0,
            HeadInit::Normal { std } => {
                (std * random::normal(seed, &[HEAD_STREAM, layer, n as u64])) as f32
            }
        };
        let weights = |layer: u64, count: usize, init: HeadInit| -> Vec<f32> {
            (0..count).map(|n| draw(layer, n, init)).collect()
        };
        let hidden = (shape.layers == 2).then(|| {
            let weight = weights(0, input * input, HeadInit::Normal { std: scale });
            add(decoder, &layer_name(name, shape, 0), (weight, Some(vec![0.0; input])))
        });
        let weight = weights(1, shape.outputs * input, init);
        let bias = Some(vec![0.0; shape.outputs]);
        let last = add(decoder, &layer_name(name, shape, 1), (weight, bias));
        Self { hidden, last }
    }

    /// Reads a head from a model's files and adds it; a layer may lack its bias.
    ///
    /// # Errors
    /// When a matrix is missing or something has another shape.
    pub fn load(
        decoder: &mut Decoder,
        files: &ModelFiles,
        name: &str,
        shape: StepHeadShape,
    ) -> Result<Self, Error> {
        let input = decoder.shape.hidden;
        let hidden = match shape.layers {
            2 => Some(read(decoder, files, &layer_name(name, shape, 0), input)?),
            _ => None,
        };
        let last = read(decoder, files, &layer_name(name, shape, 1), shape.outputs)?;
        Ok(Self { hidden, last })
    }

    /// Values at the given rows of `hidden` (`[t, d]`).
    #[must_use]
    pub fn forward(&self, decoder: &Decoder, hidden: &Buffer, rows: &[usize]) -> StepValues {
        let backend = decoder.backend.as_ref();
        let rows: Vec<u32> = rows.iter().map(|row| *row as u32).collect();
        let input = self.last.input;
        let mut gathered = backend.alloc(rows.len() * input);
        backend.gather_rows(hidden, &rows, input, &mut gathered);
        let rectified = self.hidden.map(|layer| {
            let mut inner = backend.alloc(rows.len() * layer.output);
            layer.forward(backend, &decoder.parameters, &gathered, (&mut inner, Update::Set));
            let mut values = vec![0.0; inner.len()];
            backend.download(&inner, &mut values);
            values.iter_mut().for_each(|value| *value = value.max(0.0));
            backend.upload(&values)
        });
        let mut out = backend.alloc(rows.len() * self.last.output);
        let below = rectified.as_ref().unwrap_or(&gathered);
        self.last.forward(backend, &decoder.parameters, below, (&mut out, Update::Set));
        let mut values = vec![0.0; out.len()];
        backend.download(&out, &mut values);
        StepValues { rows, num_hidden: hidden.len(), gathered, rectified, values }
    }

    /// Accumulates the head's gradient and returns that of the hidden states, `[t, d]`.
    ///
    /// # Shapes
    /// `d_values`: as [`StepValues::values`].
    #[must_use]
    pub fn backward(
        &self,
        decoder: &Decoder,
        output: &StepValues,
        d_values: &[f32],
        gradients: &mut Gradients,
    ) -> Buffer {
        let backend = decoder.backend.as_ref();
        let parameters = &decoder.parameters;
        let d_out = backend.upload(d_values);
        let mut d_gathered = backend.alloc(output.gathered.len());
        let below = output.rectified.as_ref().unwrap_or(&output.gathered);
        let mut d_below = backend.alloc(below.len());
        let set = (&mut d_below, Update::Set);
        self.last.backward(backend, parameters, gradients, (below, &d_out), set);
        match (self.hidden, &output.rectified) {
            (Some(layer), Some(rectified)) => {
                let d_inner = rectifier_backward(decoder, rectified, &d_below);
                let set = (&mut d_gathered, Update::Set);
                layer.backward(backend, parameters, gradients, (&output.gathered, &d_inner), set);
            }
            _ => d_gathered = d_below,
        }
        let mut d_hidden = backend.zeros(output.num_hidden);
        backend.scatter_add_rows(&d_gathered, &output.rows, self.last.input, &mut d_hidden);
        d_hidden
    }
}

fn rectifier_backward(decoder: &Decoder, rectified: &Buffer, d_out: &Buffer) -> Buffer {
    let backend = decoder.backend.as_ref();
    let (mut values, mut slopes) = (vec![0.0; rectified.len()], vec![0.0; d_out.len()]);
    backend.download(rectified, &mut values);
    backend.download(d_out, &mut slopes);
    for (slope, value) in slopes.iter_mut().zip(&values) {
        if *value <= 0.0 {
            *slope = 0.0;
        }
    }
    backend.upload(&slopes)
}

/// Name of a layer, without `.weight`: of two layers 0 is the lower, of one there is 1 only.
fn layer_name(name: &str, shape: StepHeadShape, layer: usize) -> String {
    match shape.layers {
        2 => format!("{name}.{}", 2 * layer),
        _ => name.to_owned(),
    }
}

/// Adds a layer of given weights, `[outputs, d]`, and biases.
fn add(decoder: &mut Decoder, name: &str, (weight, bias): (Vec<f32>, Option<Vec<f32>>)) -> Linear {
    let input = decoder.shape.hidden;
    let output = weight.len() / input;
    let mut add = |suffix: &str, shape: &[usize], values: &[f32]| {
        let value = decoder.backend.upload(values);
        let id = decoder.parameters.add(format!("{name}.{suffix}"), shape, value);
        decoder.parameters.get_mut(id).is_head = true;
        id
    };
    let weight = add("weight", &[output, input], &weight);
    let bias = bias.map(|bias| add("bias", &[output], &bias));
    Linear { weight, bias, low_rank: None, input, output }
}

fn read(
    decoder: &mut Decoder,
    files: &ModelFiles,
    name: &str,
    outputs: usize,
) -> Result<Linear, Error> {
    let at = |kind: ErrorKind| Error::at(&files.path, kind);
    let matrix = format!("{name}.weight");
    let Ok(found) = files.weights.shape(&matrix) else {
        return Err(at(ErrorKind::MissingHead(matrix)));
    };
    let expected = vec![outputs, decoder.shape.hidden];
    if found != expected {
        let found = found.to_vec();
        return Err(at(ErrorKind::Shape { tensor: matrix, expected, found }));
    }
    let bias_name = format!("{name}.bias");
    let bias = match files.weights.contains(&bias_name) {
        true => Some(files.weights.read_shaped(&bias_name, &[outputs])?),
        false => None,
    };
    let weight = files.weights.read(&matrix)?.values;
    Ok(add(decoder, name, (weight, bias)))
}
