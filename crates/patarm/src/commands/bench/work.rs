//! The four pieces of work that are measured, on random token ids.

use patarm_models::kernels::{SamplingOptions, random};
use patarm_models::{
    AdamWConfig, Decoder, Engine, EngineLimits, Forest, ForwardOptions, GenerationRequest,
    Gradients, Optimizer, SegmentId, TargetRows,
};

use super::arithmetic::Load;
use crate::cli::BenchKind;

/// Packed rows of a training step, and their length.
const TRAIN_ROWS: (usize, usize) = (4, 256);
/// Packed rows that are scored, and their length.
const SCORE_ROWS: (usize, usize) = (16, 256);
/// Sequences generated after one prompt.
const ROLLOUT: Rollout = Rollout { sequences: 64, prompt: 256, tokens: 64 };
/// The preference-aware step of the documentation.
const GRPO: Tree = Tree { pairs: 8, prompt: 400, response: 200, judgements: 8, judgement: 128 };

#[derive(Clone, Copy, Debug)]
struct Rollout {
    sequences: usize,
    prompt: usize,
    tokens: usize,
}

#[derive(Clone, Copy, Debug)]
struct Tree {
    pairs: usize,
    prompt: usize,
    response: usize,
    /// Judgements a response.
    judgements: usize,
    judgement: usize,
}

/// A forest and the tokens of it that are predicted.
#[derive(Debug)]
struct Batch {
    forest: Forest,
    targets: TargetRows,
}

/// What a training step changes.
#[derive(Debug)]
struct Training {
    gradients: Gradients,
    optimizer: Option<Optimizer>,
}

#[derive(Debug)]
enum Kind {
    /// One update of the weights after one forest.
    Train(Box<Training>),
    /// Gradients of several forests, one after another.
    Grpo(Box<Training>),
    Score,
    Rollout,
}

/// A piece of work on a decoder.
#[derive(Debug)]
pub(super) struct Work<'a> {
    decoder: &'a mut Decoder,
    kind: Kind,
    batches: Vec<Batch>,
    load: Load,
    row_tokens: u64,
}

impl<'a> Work<'a> {
    /// Prepares the work: token ids, gradients, optimiser state.
    pub(super) fn new(what: BenchKind, decoder: &'a mut Decoder) -> anyhow::Result<Self> {
        let trains = matches!(what, BenchKind::Train | BenchKind::Grpo);
        for (_, parameter) in decoder.parameters.iter_mut() {
            parameter.trainable = trains;
        }
        let kind = match what {
            BenchKind::Train => Kind::Train(Training::with_optimizer(decoder)),
            BenchKind::Grpo => Kind::Grpo(Training::gradients_only(decoder)),
            BenchKind::Score => Kind::Score,
            BenchKind::Rollout => Kind::Rollout,
        };
        let vocab = decoder.shape.vocab;
        let batches = match what {
            BenchKind::Train => vec![rows(TRAIN_ROWS, vocab)],
            BenchKind::Score => vec![rows(SCORE_ROWS, vocab)],
            BenchKind::Grpo => (0..GRPO.pairs).map(|pair| tree(GRPO, pair, vocab)).collect(),
            BenchKind::Rollout => Vec::new(),
        };
        let load = match what {
            BenchKind::Rollout => ROLLOUT.load(),
            _ => batches.iter().map(Batch::load).fold(Load::default(), Load::plus),
        };
        let row_tokens = batches.iter().map(|batch| batch.forest.num_row_tokens() as u64).sum();
        Ok(Self { decoder, kind, batches, load, row_tokens })
    }

    /// Fills pools and caches: a whole step, or one forest of several.
    pub(super) fn warm_up(&mut self) -> anyhow::Result<()> {
        match self.kind {
            Kind::Grpo(_) => self.run(1),
            _ => self.step(),
        }
    }

    /// Does the work once.
    pub(super) fn step(&mut self) -> anyhow::Result<()> {
        self.run(self.batches.len())
    }

    fn run(&mut self, num_batches: usize) -> anyhow::Result<()> {
        let batches = &self.batches[..num_batches];
        match &mut self.kind {
            Kind::Train(training) | Kind::Grpo(training) => training.step(self.decoder, batches),
            Kind::Score => batches.iter().try_for_each(|batch| score(self.decoder, batch)),
            Kind::Rollout => ROLLOUT.run(self.decoder),
        }
    }

    /// Tokens that a rate is quoted for: generated ones of a rollout, computed ones
    /// of everything else.
    pub(super) fn tokens(&self) -> u64 {
        match self.kind {
            Kind::Rollout => (ROLLOUT.sequences * ROLLOUT.tokens) as u64,
            _ => self.load.tokens,
        }
    }

    /// Tokens that rows without shared prefixes would compute, where any are shared.
    pub(super) fn row_tokens(&self) -> Option<u64> {
        Some(self.row_tokens).filter(|rows| *rows > self.load.tokens)
    }

    /// Floating-point operations of a step; the optimiser's are left out.
    pub(super) fn flop(&self) -> f64 {
        match self.kind {
            Kind::Train(_) | Kind::Grpo(_) => self.load.training_flop(&self.decoder.shape),
            Kind::Score | Kind::Rollout => self.load.forward_flop(&self.decoder.shape),
        }
    }

    /// The sizes in words.
    pub(super) fn shape(&self) -> String {
        let packed = |(rows, len)| format!("{rows} packed rows of {len} tokens");
        match self.kind {
            Kind::Train(_) => packed(TRAIN_ROWS),
            Kind::Score => packed(SCORE_ROWS),
            Kind::Rollout => {
                let Rollout { sequences, prompt, tokens } = ROLLOUT;
                format!("{sequences} sequences of {tokens} tokens after a prompt of {prompt}")
            }
            Kind::Grpo(_) => {
                let Tree { pairs, prompt, response, judgements, judgement } = GRPO;
                format!(
                    "{pairs} pairs, prompt {prompt}, responses {response}, \
                     {judgements} judgements of {judgement} a response"
                )
            }
        }
    }
}

impl Batch {
    fn load(&self) -> Load {
        Load::of_forest(&self.forest, self.targets.len())
    }
}

/// Random ids, a different list for every stream.
fn ids(len: usize, vocab: usize, stream: usize) -> Vec<u32> {
    let draw = |n: usize| random::below(vocab, 0, &[stream as u64, n as u64]) as u32;
    (0..len).map(draw).collect()
}

fn rows((rows, len): (usize, usize), vocab: usize) -> Batch {
    let mut batch = Batch { forest: Forest::new(), targets: TargetRows::new() };
    for row in 0..rows {
        let segment = batch.forest.add(None, &ids(len, vocab, row));
        batch.targets.push_segment(&batch.forest, segment, 1);
    }
    batch
}

/// A prompt, two responses below it, judgements below each; the judgements are
/// predicted.
fn tree(sizes: Tree, pair: usize, vocab: usize) -> Batch {
    let mut batch = Batch { forest: Forest::new(), targets: TargetRows::new() };
    let mut stream = pair * (3 + 2 * sizes.judgements);
    let mut add = |forest: &mut Forest, parent: Option<SegmentId>, len: usize| {
        stream += 1;
        forest.add(parent, &ids(len, vocab, stream))
    };
    let prompt = add(&mut batch.forest, None, sizes.prompt);
    for _side in 0..2 {
        let response = add(&mut batch.forest, Some(prompt), sizes.response);
        for _ in 0..sizes.judgements {
            let judgement = add(&mut batch.forest, Some(response), sizes.judgement);
            batch.targets.push_segment(&batch.forest, judgement, 0);
        }
    }
    batch
}

fn score(decoder: &Decoder, batch: &Batch) -> anyhow::Result<()> {
    let saved = decoder.forward(&batch.forest, &ForwardOptions::default())?;
    let _ = decoder.target_statistics(&saved.hidden, &batch.targets, 1.0);
    Ok(())
}

impl Training {
    fn gradients_only(decoder: &Decoder) -> Box<Self> {
        let gradients = Gradients::zeros(decoder.backend.as_ref(), &decoder.parameters);
        Box::new(Self { gradients, optimizer: None })
    }

    fn with_optimizer(decoder: &Decoder) -> Box<Self> {
        let mut training = Self::gradients_only(decoder);
        training.optimizer = Some(Optimizer::new(decoder.backend.as_ref(), &decoder.parameters));
        training
    }

    /// Mean negative log-probability of all targets: its gradient, and the update.
    fn step(&mut self, decoder: &mut Decoder, batches: &[Batch]) -> anyhow::Result<()> {
        let backend = decoder.backend.clone();
        self.gradients.clear(backend.as_ref());
        for batch in batches {
            self.accumulate(decoder, batch)?;
        }
        if let Some(optimizer) = &mut self.optimizer {
            let config = AdamWConfig::default();
            let rates = (config.learning_rate, 1.0);
            let parameters = &mut decoder.parameters;
            optimizer.update(backend.as_ref(), parameters, &self.gradients, &config, rates);
        }
        Ok(())
    }

    fn accumulate(&mut self, decoder: &Decoder, batch: &Batch) -> anyhow::Result<()> {
        let saved = decoder.forward(&batch.forest, &ForwardOptions::default())?;
        let statistics = decoder.target_statistics(&saved.hidden, &batch.targets, 1.0);
        let d_logprobs = vec![-1.0 / batch.targets.len() as f32; batch.targets.len()];
        let gradients = &mut self.gradients;
        let d_hidden =
            decoder.target_statistics_backward(&saved, &statistics, &d_logprobs, None, gradients);
        decoder.backward(&saved, &d_hidden, &[], gradients);
        Ok(())
    }
}

impl Rollout {
    fn run(self, decoder: &Decoder) -> anyhow::Result<()> {
        let slots = self.prompt + self.sequences * (self.tokens + 1);
        let limits = EngineLimits { slots, max_active: self.sequences, ..EngineLimits::default() };
        let mut engine = Engine::new(decoder, limits);
        let prompt = ids(self.prompt, decoder.shape.vocab, 0);
        for sequence in 0..self.sequences {
            engine.submit(self.request(prompt.clone(), sequence as u64))?;
        }
        engine.run();
        Ok(())
    }

    fn request(self, prompt: Vec<u32>, sequence: u64) -> GenerationRequest {
        GenerationRequest {
            prompt: vec![prompt],
            max_new_tokens: self.tokens,
            sampling: SamplingOptions {
                temperature: 1.0,
                top_k: 0,
                top_p: 1.0,
                min_p: 0.0,
                seed: 0,
                sequence,
                position: 0,
            },
            stop_ids: Vec::new(),
            stop_rule: None,
            readout: Vec::new(),
        }
    }

    /// The prompt runs once; the last token of a sequence is drawn but never run.
    fn load(self) -> Load {
        let triangle = |n: usize| (n * (n + 1) / 2) as u64;
        let decoded = self.sequences * (self.tokens - 1);
        let keys_after_prompt = triangle(self.prompt + self.tokens - 1) - triangle(self.prompt);
        Load {
            tokens: (self.prompt + decoded) as u64,
            keys: triangle(self.prompt) + self.sequences as u64 * keys_after_prompt,
            head_rows: (self.sequences * self.tokens) as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_step_saves_what_the_documentation_says() {
        let batch = tree(GRPO, 0, 100);
        assert_eq!(batch.forest.num_tokens(), 400 + 2 * (200 + 8 * 128));
        assert_eq!(batch.forest.num_row_tokens(), 16 * 728);
        assert_eq!(batch.targets.len(), 16 * 128);
        let ratio = batch.forest.num_row_tokens() as f64 / batch.forest.num_tokens() as f64;
        assert!(ratio >= 3.0, "{ratio}");
    }

    #[test]
    fn a_rollout_counts_the_prompt_once() {
        let load = Rollout { sequences: 2, prompt: 3, tokens: 2 }.load();
        // The prompt sees 1 + 2 + 3 keys, each decoded token 4.
        assert_eq!(load, Load { tokens: 5, keys: 6 + 2 * 4, head_rows: 4 });
    }

    #[test]
    fn rows_share_nothing() {
        let batch = rows((2, 5), 50);
        assert_eq!(batch.forest.num_tokens(), batch.forest.num_row_tokens());
        assert_eq!(batch.targets.len(), 8);
        assert_ne!(ids(5, 50, 0), ids(5, 50, 1));
    }
}
