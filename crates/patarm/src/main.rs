//! The patarm binary.
fn main() {}
