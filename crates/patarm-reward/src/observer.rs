//! How long work is watched and stopped: progress out, interruption in.
//!
//! Libraries never print. They tell an [`Observer`] how far they are and ask it
//! whether to stop; the binary turns that into progress bars and Ctrl-C.

/// Watches long work.
pub trait Observer: Send + Sync {
    /// A piece of work of `total` units begins.
    fn begin(&self, what: &str, total: u64);

    /// `done` units of the current piece are complete; `note` is a short status.
    fn advance(&self, done: u64, note: &str);

    /// The current piece is complete.
    fn end(&self);

    /// Whether the user asked to stop.
    fn is_interrupted(&self) -> bool;
}

/// Watches nothing and never stops.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn begin(&self, _what: &str, _total: u64) {}

    fn advance(&self, _done: u64, _note: &str) {}

    fn end(&self) {}

    fn is_interrupted(&self) -> bool {
        false
    }
}
