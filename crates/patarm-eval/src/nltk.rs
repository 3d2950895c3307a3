//! Sentences and words as NLTK cuts them (Bird, Klein and Loper, 2009; behaviour of version 3.9.1),
//! for rules that are defined by its output.

pub mod parameters;
pub mod sentences;
pub mod words;
