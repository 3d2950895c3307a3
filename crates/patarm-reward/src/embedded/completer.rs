//! The embedded engine as a completer: conversations in, text out.

use patarm_models::kernels::{SamplingOptions, random};
use patarm_models::{Decoder, Engine, EngineLimits, ErrorKind, GenerationRequest, StopReason};
use patarm_text::template::{ChatTemplate, RenderOptions};
use patarm_text::tokenizer::{ControlTokens, Tokenizer};

use crate::completer::{Completer, Completion, CompletionError, CompletionRequest};

/// Name of the engine in errors.
const ENGINE: &str = "the embedded engine";

/// Completes conversations with a decoder on this machine.
#[derive(Debug)]
pub struct EmbeddedCompleter<'a> {
    /// The model.
    pub decoder: &'a Decoder,
    /// Its tokenizer.
    pub tokenizer: std::sync::Arc<Tokenizer>,
    /// Memory limits.
    pub limits: EngineLimits,
    /// Name for reports.
    pub name: String,
}

impl EmbeddedCompleter<'_> {
    /// Contents are encoded as data: what they spell never becomes a control token.
    fn prompt(&self, request: &CompletionRequest) -> Result<Vec<u32>, CompletionError> {
        let refuse = |error: patarm_text::Error| failed(&error.to_string());
        let template = ChatTemplate::from_tokenizer(&self.tokenizer).map_err(refuse)?;
        let options =
            RenderOptions { enable_thinking: Some(false), ..RenderOptions::for_generation() };
        match template {
            Some(template) => {
                template.encode(&self.tokenizer, &request.prompt, &options).map_err(refuse)
            }
            None => self.tokenizer.encode_text(&request.prompt.transcript()).map_err(refuse),
        }
    }

    fn generation(
        &self,
        request: &CompletionRequest,
        prompt: Vec<u32>,
        index: usize,
    ) -> GenerationRequest {
        let stops = request.stop.clone();
        let tokenizer = std::sync::Arc::clone(&self.tokenizer);
        let sampling = SamplingOptions {
            temperature: request.temperature as f32,
            top_k: 0,
            top_p: request.top_p as f32,
            min_p: 0.0,
            seed: request.seed,
            sequence: random::mix(0, index as u64),
            position: 0,
        };
        GenerationRequest {
            prompt: vec![prompt],
            max_new_tokens: request.max_tokens,
            sampling,
            stop_ids: self.tokenizer.eos_ids().to_vec(),
            stop_rule: (!stops.is_empty()).then(|| -> patarm_models::engine::StopRule {
                Box::new(move |tokens| {
                    let text = tokenizer.decode(tokens, ControlTokens::Skip);
                    stops.iter().any(|stop| text.ends_with(stop.as_str()))
                })
            }),
            readout: Vec::new(),
        }
    }
}

fn failed(message: &str) -> CompletionError {
    CompletionError::Failed { engine: ENGINE.into(), attempts: 1, message: message.to_owned() }
}

impl Completer for EmbeddedCompleter<'_> {
    fn complete(&self, requests: &[CompletionRequest]) -> Vec<Result<Completion, CompletionError>> {
        let mut engine = Engine::new(self.decoder, self.limits);
        let mut results: Vec<Result<Completion, CompletionError>> =
            requests.iter().map(|_| Err(CompletionError::Interrupted)).collect();
        let mut submitted = std::collections::HashMap::new();
        for (index, request) in requests.iter().enumerate() {
            let outcome = self.prompt(request).and_then(|prompt| {
                engine.submit(self.generation(request, prompt, index)).map_err(|error| match error
                    .kind()
                {
                    ErrorKind::Overlong { tokens, limit } => {
                        CompletionError::Overlong { tokens: *tokens, limit: *limit }
                    }
                    _ => failed(&error.to_string()),
                })
            });
            match outcome {
                Ok(id) => {
                    submitted.insert(id, index);
                }
                Err(error) => results[index] = Err(error),
            }
        }
        for generation in engine.run() {
            let Some(&index) = submitted.get(&generation.id) else {
                continue;
            };
            results[index] = Ok(Completion {
                text: self.tokenizer.decode(&generation.tokens, ControlTokens::Skip),
                num_tokens: generation.tokens.len(),
                truncated: generation.stop == StopReason::MaxTokens,
                logprobs: Some(
                    generation.logprobs.iter().map(|logprob| f64::from(*logprob)).collect(),
                ),
            });
        }
        results
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
