//! Texts as vectors: the mean of a decoder's hidden states.
//!
//! Enough to tell what is about the same thing from what is not; no match for a model
//! trained for similarity, which a caller may use in its place wherever vectors are taken.

use patarm_models::{Decoder, Forest};
use patarm_text::tokenizer::Tokenizer;

use crate::error::{Error, ErrorKind, Result};

/// Tokens of one forward; texts are never split.
const BATCH_TOKENS: usize = 4096;

/// A vector for each text: the mean over its tokens of the hidden states after the final
/// norm. A text longer than the model takes is cut at its end; an empty one has the zero
/// vector.
///
/// # Errors
/// When a text cannot be encoded or the decoder fails.
pub fn embed(decoder: &Decoder, tokenizer: &Tokenizer, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
    let width = decoder.shape.hidden;
    let mut tokens = Vec::with_capacity(texts.len());
    for text in texts {
        let mut ids = tokenizer.encode_text(text).map_err(|e| Error::new(ErrorKind::Input, e))?;
        ids.truncate(decoder.shape.max_positions);
        tokens.push(ids);
    }
    let mut vectors = vec![vec![0.0; width]; texts.len()];
    let mut start = 0;
    while start < tokens.len() {
        let (mut forest, mut owners, mut end) = (Forest::new(), Vec::new(), start);
        while end < tokens.len()
            && (end == start || forest.num_tokens() + tokens[end].len() <= BATCH_TOKENS)
        {
            if !tokens[end].is_empty() {
                forest.add(None, &tokens[end]);
                owners.push(end);
            }
            end += 1;
        }
        if !owners.is_empty() {
            let (hidden, _) =
                decoder.infer(&forest, &[]).map_err(|e| Error::new(ErrorKind::Engine, e))?;
            let mut values = vec![0.0; hidden.len()];
            decoder.backend.download(&hidden, &mut values);
            let mut rows = values.chunks_exact(width);
            for owner in owners {
                let count = tokens[owner].len();
                for row in rows.by_ref().take(count) {
                    for (sum, value) in vectors[owner].iter_mut().zip(row) {
                        *sum += value / count as f32;
                    }
                }
            }
        }
        start = end;
    }
    Ok(vectors)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use patarm_models::files::ModelConfig;
    use patarm_models::kernels::Cpu;
    use patarm_models::{Decoder, DecoderShape};

    use super::*;
    use crate::reasonflux::cosine;

    #[test]
    fn a_vector_does_not_depend_on_its_neighbours() {
        let testdata = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
        let tokenizer =
            Tokenizer::from_file(&testdata.join("text/tokenizer.json")).expect("tokenizer");
        let config =
            ModelConfig::read(&testdata.join("models/tiny-llama/config.json")).expect("config");
        let mut shape = DecoderShape::from_config(&config);
        shape.vocab = tokenizer.vocab_size().max(370);
        let decoder = Decoder::random(Arc::new(Cpu::new(1)), shape, 3);
        let all = embed(&decoder, &tokenizer, &["one two", "", "three", "one two"]).expect("runs");
        let alone = embed(&decoder, &tokenizer, &["three"]).expect("runs");
        assert_eq!(all[2], alone[0]);
        assert_eq!(all[0], all[3]);
        assert!(all[1].iter().all(|value| *value == 0.0));
        assert!((cosine(&all[0], &all[3]) - 1.0).abs() < 1e-6);
        assert!(cosine(&all[0], &all[2]) < 0.999);
        assert!(embed(&decoder, &tokenizer, &[]).expect("runs").is_empty());
    }
}
