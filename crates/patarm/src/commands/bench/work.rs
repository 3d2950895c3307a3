//! What every piece of measured work has in common.

use std::time::Instant;

use super::arithmetic::Load;

/// What a step costs, counted from its sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cost {
    /// Tokens that a rate is quoted for.
    pub(super) tokens: u64,
    /// Tokens that rows without shared prefixes would compute.
    pub(super) row_tokens: u64,
    /// Work of all passes.
    pub(super) load: Load,
    /// Floating-point operations; the optimiser's are left out.
    pub(super) flop: f64,
    /// How often decoding reads all weights.
    pub(super) weight_reads: u64,
}

/// Seconds of the parts of a step, in order.
pub(super) type Phases = Vec<(&'static str, f64)>;

/// A piece of work on a decoder.
pub(super) trait Work {
    /// Does it once.
    fn step(&mut self) -> anyhow::Result<Phases>;

    /// Fills pools and caches: a whole step unless less is enough.
    fn warm_up(&mut self) -> anyhow::Result<()> {
        self.step().map(|_| ())
    }

    /// What a step costs.
    fn cost(&self) -> Cost;

    /// The sizes in words.
    fn describe(&self) -> String;
}

/// Runs `act` and notes how long it took under `name`.
pub(super) fn timed<T>(phases: &mut Phases, name: &'static str, act: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = act();
    phases.push((name, start.elapsed().as_secs_f64()));
    result
}
