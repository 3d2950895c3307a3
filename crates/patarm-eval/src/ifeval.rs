//! IFEval: instructions whose following a program can check (Zhou et al., *Instruction-Following
//! Evaluation for Large Language Models*, 2023, arXiv:2311.07911).
//!
//! The rules are those of the benchmark's own code (google-research/instruction_following_eval, which
//! lm-evaluation-harness carries unchanged in effect), restated. Where ours can differ is listed in
//! `docs/ifeval.md`.
//!
//! Everything here is a pure function of its arguments, so that a verifier can also be a reward:
//!
//! ```
//! use patarm_eval::ifeval;
//!
//! let arguments = serde_json::json!({"num_words": 3, "relation": "at least"});
//! let arguments = arguments.as_object().expect("an object");
//! let verdict =
//!     ifeval::verify("length_constraints:number_words", arguments, "Say hello.", "Hello you")?;
//! assert!(!verdict.strict && !verdict.loose);
//! # Ok::<(), patarm_eval::ifeval::InstructionError>(())
//! ```

pub(crate) mod arguments;
mod casing;
mod content;
pub(crate) mod format;
mod instruction;
mod keywords;
mod length;
mod position;
pub(crate) mod response;

pub use arguments::{InstructionError, Relation};
pub use instruction::{IDS, Instruction};
pub use response::{MAX_RESPONSE_BYTES, Response};

use serde_json::{Map, Value};

use crate::nltk::parameters::Parameters;

/// Whether a response follows an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The response as it is follows it.
    pub strict: bool,
    /// The response, or it without its first line, its last line or both, each with or without its
    /// asterisks, follows it. True whenever `strict` is.
    pub loose: bool,
}

/// Checks one instruction, with the built-in parameters of the sentence splitter.
///
/// `id` is one of [`IDS`], `arguments` are the instruction's keyword arguments; those that are null
/// count as absent. The prompt is part of the interface for instructions that refer to it; none of
/// the 25 does.
///
/// # Errors
///
/// The instruction is unknown, or an argument is missing, of the wrong type or out of range.
pub fn verify(
    id: &str,
    arguments: &Map<String, Value>,
    _prompt: &str,
    response: &str,
) -> Result<Verdict, InstructionError> {
    let instruction = Instruction::new(id, arguments)?;
    Ok(instruction.verify(&Response::new(response, Parameters::english())))
}

#[cfg(test)]
mod tests;
