//! Where the time of a training step, of scoring and of decoding goes, by operation.
//!
//! `cargo bench -p patarm-models --bench operations -- [threads] [f32|bf16|quantised]`
//!
//! On one thread the time is that on the processor, which other programs do not
//! lengthen, where the system tells.
#![allow(clippy::print_stdout, missing_docs, reason = "a benchmark prints")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use patarm_models::kernels::{
    AdamW, AttentionPlan, AttentionShape, Backend, Buffer, ChosenTokens, Cpu, CpuOptions,
    LinearShape, NormShape, Precision, QuantisedMatrix, RopeTurn, RotatedNorm, Rotation,
    SamplingOptions, StatisticsGradient, StatisticsShape, TokenStatistics, Update, random,
};
use patarm_models::{
    AdamWConfig, Decoder, DecoderShape, Engine, EngineLimits, Forest, ForwardOptions,
    GenerationRequest, Gradients, Optimizer, OptimizerStates, TargetRows,
};

/// Blocks: few, because all are alike.
const LAYERS: usize = 6;
const VOCAB: usize = 49_152;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let threads = words.iter().find_map(|word| word.parse().ok()).unwrap_or(2);
    let all = [Precision::F32, Precision::Bf16, Precision::Quantised];
    let named = all.into_iter().find(|kind| words.iter().any(|word| word == kind.name()));
    let precision = named.unwrap_or_default();
    let options = CpuOptions { threads, precision, ..CpuOptions::default() };
    let Some(inner) = Cpu::with_options(&options) else { return };
    let timed = Arc::new(Timed { inner, threads, begun: Instant::now(), times: Mutex::default() });
    let mut decoder = Decoder::random(timed.clone(), shape(), 0);
    println!("{LAYERS} layers of the shape of SmolLM2-135M, {}, {threads} threads", timed.name());
    if precision != Precision::Quantised {
        let mut training = Training::new(&decoder);
        training.step(&mut decoder);
        let start = timed.start();
        training.step(&mut decoder);
        timed.report("training step, 4 × 512", start);
    }
    score(&decoder);
    let start = timed.start();
    score(&decoder);
    timed.report("scoring, 8 × 256", start);
    for batch in [1, 8, 32] {
        decode(&decoder, batch, 2, || {});
        let start = Cell::new(timed.start());
        decode(&decoder, batch, 32, || start.set(timed.start()));
        timed.report(&format!("31 tokens after 256 + 1, batch {batch}"), start.get());
    }
}

/// SmolLM2-135M (`config.json` of HuggingFaceTB/SmolLM2-135M) with fewer blocks.
fn shape() -> DecoderShape {
    DecoderShape {
        hidden: 576,
        intermediate: 1536,
        layers: LAYERS,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        vocab: VOCAB,
        norm_eps: 1e-5,
        inverse_frequencies: (0..32).map(|n| 1e5f32.powf(-(n as f32) / 32.0)).collect(),
        max_positions: 8192,
        qkv_bias: false,
        qk_norm: false,
        tied: true,
    }
}

fn ids(len: usize, stream: usize) -> Vec<u32> {
    (0..len).map(|n| random::below(VOCAB, 0, &[stream as u64, n as u64]) as u32).collect()
}

struct Training {
    forest: Forest,
    targets: TargetRows,
    gradients: Gradients,
    optimizer: Optimizer,
}

impl Training {
    fn new(decoder: &Decoder) -> Self {
        let (mut forest, mut targets) = (Forest::new(), TargetRows::new());
        for row in 0..4 {
            let segment = forest.add(None, &ids(512, row));
            targets.push_segment(&forest, segment, 1);
        }
        let backend = decoder.backend.as_ref();
        let gradients = Gradients::zeros(backend, &decoder.parameters);
        let optimizer = Optimizer::new(backend, &decoder.parameters, OptimizerStates::F32);
        Self { forest, targets, gradients, optimizer }
    }

    fn step(&mut self, decoder: &mut Decoder) {
        let backend = decoder.backend.clone();
        let Self { forest, targets, gradients, optimizer } = self;
        gradients.clear(backend.as_ref());
        let Ok(saved) = decoder.forward(forest, &ForwardOptions::default()) else { return };
        let statistics = decoder.target_statistics_for_backward(&saved.hidden, targets, 1.0);
        let slopes = vec![-1.0 / targets.len() as f32; targets.len()];
        let d_hidden =
            decoder.target_statistics_backward(&saved, &statistics, &slopes, None, gradients);
        decoder.backward(&saved, &d_hidden, &[], gradients);
        let config = AdamWConfig::default();
        let rates = (1e-5, 1.0);
        optimizer.update(backend.as_ref(), &mut decoder.parameters, gradients, &config, rates);
    }
}

/// The hidden states that a head on top would read.
fn score(decoder: &Decoder) {
    let mut forest = Forest::new();
    for row in 0..8 {
        forest.add(None, &ids(256, row));
    }
    drop(decoder.infer(&forest, &[]));
}

fn decode(decoder: &Decoder, batch: usize, tokens: usize, started: impl FnOnce()) {
    let slots = batch * (256 + tokens + 1);
    let limits = EngineLimits { slots, max_active: batch, ..EngineLimits::default() };
    let mut engine = Engine::new(decoder, limits);
    for sequence in 0..batch {
        let sampling = SamplingOptions {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
            sequence: sequence as u64,
            position: 0,
        };
        let submitted = engine.submit(GenerationRequest {
            prompt: vec![ids(256, sequence)],
            max_new_tokens: tokens,
            sampling,
            stop_ids: Vec::new(),
            stop_rule: None,
            readout: Vec::new(),
        });
        if submitted.is_err() {
            return;
        }
    }
    // Prompts are computed in the first step.
    engine.step();
    started();
    engine.run();
}

/// Pages mapped without reading a disk, since the program began (`/proc/self/stat`).
fn minor_page_faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().nth(7).and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// A backend that counts and times the operations of another.
#[derive(Debug)]
struct Timed {
    inner: Cpu,
    threads: usize,
    begun: Instant,
    times: Mutex<BTreeMap<&'static str, (u64, f64)>>,
}

impl Timed {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, (u64, f64)>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seconds(&self) -> f64 {
        match processor_seconds().filter(|_| self.threads == 1) {
            Some(seconds) => seconds,
            None => self.begun.elapsed().as_secs_f64(),
        }
    }

    fn timed<T>(&self, name: &'static str, work: impl FnOnce() -> T) -> T {
        let before = self.seconds();
        let result = work();
        let seconds = self.seconds() - before;
        let mut times = self.lock();
        let entry = times.entry(name).or_default();
        *entry = (entry.0 + 1, entry.1 + seconds);
        result
    }

    /// Forgets what was counted; the time and page faults at the start.
    fn start(&self) -> (f64, u64) {
        self.lock().clear();
        (self.seconds(), minor_page_faults())
    }

    fn report(&self, what: &str, (start, faults): (f64, u64)) {
        let (total, faults) = (self.seconds() - start, minor_page_faults() - faults);
        println!("\n{what}: {:.1} ms, {faults} page faults", total * 1e3);
        let times = self.lock();
        let mut lines: Vec<_> = times.iter().collect();
        lines.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
        for (name, (calls, seconds)) in lines {
            let (ms, percent) = (seconds * 1e3, 100.0 * seconds / total);
            println!("  {name:26} {calls:6} calls {ms:9.1} ms {percent:5.1} %");
        }
    }
}

/// Time this thread has spent on a processor, to a few milliseconds.
fn processor_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<f64>().ok()? / 1e9)
}

impl Backend for Timed {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn precision(&self) -> Precision {
        self.inner.precision()
    }

    fn together(&self, work: &mut (dyn FnMut() + Send)) {
        self.inner.together(work);
    }

    fn prepare_weight(&self, weight: &mut Buffer, rows: usize, columns: usize) {
        self.timed("prepare_weight", || self.inner.prepare_weight(weight, rows, columns))
    }

    fn quantised_weight(&self, matrix: &QuantisedMatrix<'_>) -> Buffer {
        self.timed("quantised_weight", || self.inner.quantised_weight(matrix))
    }

    fn alloc(&self, len: usize) -> Buffer {
        self.timed("alloc", || self.inner.alloc(len))
    }

    fn upload(&self, data: &[f32]) -> Buffer {
        self.timed("upload", || self.inner.upload(data))
    }

    fn download(&self, buffer: &Buffer, data: &mut [f32]) {
        self.timed("download", || self.inner.download(buffer, data))
    }

    fn fill(&self, buffer: &mut Buffer, value: f32) {
        self.timed("fill", || self.inner.fill(buffer, value))
    }

    fn copy(&self, from: &Buffer, from_start: usize, to: &mut Buffer, to_start: usize, len: usize) {
        self.timed("copy", || self.inner.copy(from, from_start, to, to_start, len))
    }

    fn axpy(&self, scale: f32, x: &Buffer, y: &mut Buffer) {
        self.timed("axpy", || self.inner.axpy(scale, x, y))
    }

    fn gather_rows(&self, table: &Buffer, ids: &[u32], dim: usize, out: &mut Buffer) {
        self.timed("gather_rows", || self.inner.gather_rows(table, ids, dim, out))
    }

    fn scatter_add_rows(&self, rows: &Buffer, ids: &[u32], dim: usize, table: &mut Buffer) {
        self.timed("scatter_add_rows", || self.inner.scatter_add_rows(rows, ids, dim, table))
    }

    fn key_table(&self, slots: usize, width: usize, head_dim: usize) -> Buffer {
        self.inner.key_table(slots, width, head_dim)
    }

    fn scatter_rows(&self, rows: &Buffer, ids: &[u32], dim: usize, table: &mut Buffer) {
        self.timed("scatter_rows", || self.inner.scatter_rows(rows, ids, dim, table))
    }

    fn rms_norm(
        &self,
        x: &Buffer,
        weight: &Buffer,
        shape: NormShape,
        out: &mut Buffer,
        inv_rms: &mut Buffer,
    ) {
        self.timed("rms_norm", || self.inner.rms_norm(x, weight, shape, out, inv_rms))
    }

    fn rms_norm_backward(
        &self,
        x: &Buffer,
        weight: &Buffer,
        inv_rms: &Buffer,
        d_out: &Buffer,
        shape: NormShape,
        d_x: (&mut Buffer, Update),
        d_weight: Option<&mut Buffer>,
    ) {
        self.timed("rms_norm_backward", || {
            self.inner.rms_norm_backward(x, weight, inv_rms, d_out, shape, d_x, d_weight)
        })
    }

    fn linear(
        &self,
        x: &Buffer,
        weight: &Buffer,
        bias: Option<&Buffer>,
        shape: LinearShape,
        scale: f32,
        out: (&mut Buffer, Update),
    ) {
        self.timed("linear", || self.inner.linear(x, weight, bias, shape, scale, out))
    }

    fn linear_backward_input(
        &self,
        d_out: &Buffer,
        weight: &Buffer,
        shape: LinearShape,
        scale: f32,
        d_x: (&mut Buffer, Update),
    ) {
        self.timed("linear_backward_input", || {
            self.inner.linear_backward_input(d_out, weight, shape, scale, d_x)
        })
    }

    fn linear_backward_weight(
        &self,
        d_out: &Buffer,
        x: &Buffer,
        weight: &Buffer,
        shape: LinearShape,
        scale: f32,
        d_weight: &mut Buffer,
    ) {
        self.timed("linear_backward_weight", || {
            self.inner.linear_backward_weight(d_out, x, weight, shape, scale, d_weight)
        })
    }

    fn bias_backward(&self, d_out: &Buffer, tokens: usize, d_bias: &mut Buffer) {
        self.timed("bias_backward", || self.inner.bias_backward(d_out, tokens, d_bias))
    }

    fn rope(&self, x: &mut Buffer, rotation: Rotation<'_>, turn: RopeTurn) {
        self.timed("rope", || self.inner.rope(x, rotation, turn))
    }

    fn rotated_norm(
        &self,
        x: &Buffer,
        weight: &Buffer,
        operation: RotatedNorm<'_>,
        out: &mut Buffer,
        inv_rms: &mut Buffer,
    ) {
        self.timed("rotated_norm", || self.inner.rotated_norm(x, weight, operation, out, inv_rms))
    }

    fn rotated_norm_backward(
        &self,
        x: &Buffer,
        weight: &Buffer,
        inv_rms: &Buffer,
        d_out: &mut Buffer,
        operation: RotatedNorm<'_>,
        d_x: &mut Buffer,
        d_weight: Option<&mut Buffer>,
    ) {
        self.timed("rotated_norm_backward", || {
            self.inner.rotated_norm_backward(x, weight, inv_rms, d_out, operation, d_x, d_weight)
        })
    }

    fn swiglu(&self, gate: &Buffer, up: &Buffer, out: &mut Buffer) {
        self.timed("swiglu", || self.inner.swiglu(gate, up, out))
    }

    fn swiglu_backward(
        &self,
        gate: &Buffer,
        up: &Buffer,
        d_out: &Buffer,
        d_gate: &mut Buffer,
        d_up: &mut Buffer,
    ) {
        self.timed("swiglu_backward", || self.inner.swiglu_backward(gate, up, d_out, d_gate, d_up))
    }

    fn attention(
        &self,
        q: &Buffer,
        k: &Buffer,
        v: &Buffer,
        plan: &AttentionPlan,
        shape: AttentionShape,
        out: &mut Buffer,
        log_sum_exp: &mut Buffer,
    ) {
        self.timed("attention", || self.inner.attention(q, k, v, plan, shape, out, log_sum_exp))
    }

    fn attention_backward(
        &self,
        q: &Buffer,
        k: &Buffer,
        v: &Buffer,
        out: &Buffer,
        log_sum_exp: &Buffer,
        d_out: &Buffer,
        plan: &AttentionPlan,
        shape: AttentionShape,
        d_q: &mut Buffer,
        d_k: &mut Buffer,
        d_v: &mut Buffer,
    ) {
        self.timed("attention_backward", || {
            self.inner.attention_backward(
                q,
                k,
                v,
                out,
                log_sum_exp,
                d_out,
                plan,
                shape,
                d_q,
                d_k,
                d_v,
            )
        })
    }

    fn token_statistics(
        &self,
        hidden: &Buffer,
        weight: &Buffer,
        chosen: &ChosenTokens,
        shape: StatisticsShape,
    ) -> TokenStatistics {
        self.timed("token_statistics", || {
            self.inner.token_statistics(hidden, weight, chosen, shape)
        })
    }

    fn token_statistics_backward(
        &self,
        hidden: &Buffer,
        weight: &Buffer,
        chosen: &ChosenTokens,
        shape: StatisticsShape,
        statistics: &TokenStatistics,
        gradient: StatisticsGradient<'_>,
        d_hidden: &mut Buffer,
        d_weight: Option<&mut Buffer>,
    ) {
        self.timed("token_statistics_backward", || {
            self.inner.token_statistics_backward(
                hidden, weight, chosen, shape, statistics, gradient, d_hidden, d_weight,
            )
        })
    }

    fn sample(
        &self,
        hidden: &Buffer,
        weight: &Buffer,
        shape: StatisticsShape,
        options: &[SamplingOptions],
        ids: &mut Buffer,
        logprobs: &mut Buffer,
    ) {
        self.timed("sample", || self.inner.sample(hidden, weight, shape, options, ids, logprobs))
    }

    fn add_sum_of_squares(&self, x: &Buffer, accumulator: &mut Buffer) {
        self.timed("add_sum_of_squares", || self.inner.add_sum_of_squares(x, accumulator))
    }

    fn adamw(
        &self,
        parameter: &mut Buffer,
        gradient: &Buffer,
        moments: (&mut Buffer, &mut Buffer),
        sum_of_squares: &Buffer,
        step: &AdamW,
    ) {
        self.timed("adamw", || self.inner.adamw(parameter, gradient, moments, sum_of_squares, step))
    }
}
