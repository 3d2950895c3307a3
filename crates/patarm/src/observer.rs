//! Progress bars and Ctrl-C.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use indicatif::{ProgressBar, ProgressStyle};
use patarm_reward::observer::Observer;

/// Shows progress on standard error and hears Ctrl-C.
#[derive(Debug)]
pub(crate) struct Terminal {
    bars: Mutex<Vec<ProgressBar>>,
    is_interrupted: Arc<AtomicBool>,
}

impl Terminal {
    /// Installs the Ctrl-C handler: the first press asks running work to stop in an
    /// orderly way, the second ends the program at once.
    pub(crate) fn install() -> Self {
        let is_interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_interrupted);
        let installed = ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::SeqCst) {
                std::process::exit(crate::exit::Code::Interrupted as i32);
            }
        });
        // Without a handler Ctrl-C ends the program, which loses at most one step.
        drop(installed);
        Self { bars: Mutex::new(Vec::new()), is_interrupted }
    }

    fn with_bar(&self, act: impl FnOnce(&ProgressBar)) {
        if let Ok(bars) = self.bars.lock()
            && let Some(bar) = bars.last()
        {
            act(bar);
        }
    }
}

impl Observer for Terminal {
    fn begin(&self, what: &str, total: u64) {
        let template = "{prefix:>24} [{bar:28}] {pos}/{len} {per_sec} eta {eta} {wide_msg}";
        let bar = ProgressBar::new(total);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(what.to_owned());
        if let Ok(mut bars) = self.bars.lock() {
            bars.push(bar);
        }
    }

    fn advance(&self, done: u64, note: &str) {
        self.with_bar(|bar| {
            bar.set_position(done);
            if !note.is_empty() {
                bar.set_message(note.to_owned());
            }
        });
    }

    fn end(&self) {
        if let Ok(mut bars) = self.bars.lock()
            && let Some(bar) = bars.pop()
        {
            bar.finish_and_clear();
        }
    }

    fn is_interrupted(&self) -> bool {
        self.is_interrupted.load(Ordering::SeqCst)
    }
}
