//! Conversations, comparisons, tokenizers, chat templates and data sets.
//!
//! Text in, typed records and token ids out; no tensors, and no network but for
//! hub downloads that a caller asks for by name.

pub mod comparison;
pub mod conversation;
pub mod dataset;
pub mod decontaminate;
pub mod error;
pub mod hub;
pub mod inspect;
pub mod mix;
pub mod pass_fail;
mod random;
pub mod solutions;
pub mod split;
pub mod steps;
pub mod template;
pub mod tokenizer;
mod words;

pub use comparison::{Comparison, Item, Preference, Task};
pub use conversation::{ContentPart, Conversation, Message, Role, ToolCall, ToolDefinition};
pub use dataset::{ComparisonReader, Format, OnError, ReadError, ReadOptions, write_comparisons};
pub use error::{Error, ErrorKind, Result};
pub use solutions::{LabelledSolution, Solution};
pub use template::{CalendarDate, ChatTemplate, RenderOptions, Segment, SegmentKind};
pub use tokenizer::{ControlTokens, DecodeStream, GgufParts, SpecialIds, Tokenizer};
