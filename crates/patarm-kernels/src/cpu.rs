//! The CPU backend.

/// The CPU backend.
#[derive(Debug, Default)]
pub struct Cpu {}
