//! The string semantics of Python, where a benchmark's rules are defined by Python code.
//!
//! The verifiers of IFEval and IFBench are specified by programs, so "a word" or "upper case" means
//! what CPython means by it. This module holds those definitions; the Unicode tables are those of
//! the Rust toolchain, which may know characters that an older Python does not.

pub mod json;
pub mod pattern;
pub mod text;
