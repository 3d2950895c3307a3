//! Work that is recorded and started at once: a graph of the driver, in place of hundreds
//! of launches a decoded token.
//!
//! Uploads are not part of a recording, since what they copy is gone when it runs: they are
//! done at once, to memory that the recorded work has not used. One thread records at a
//! time, and nobody else uses the device meanwhile.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::core::Core;
use super::device::DeviceFault;

/// Recordings that may fail before no more are tried.
const MOST_FAILURES: u32 = 3;

/// Who may use the device.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Held for writing by the thread that records, for reading by any other operation.
    lock: RwLock<()>,
    /// The thread that records; 0 is none.
    recorder: AtomicU64,
    failures: AtomicU32,
}

/// A number of this thread, from 1.
fn this_thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

impl Turns {
    /// Waits until no other thread records.
    pub(crate) fn wait(&self) -> Option<RwLockReadGuard<'_, ()>> {
        if self.is_recording_here() {
            return None;
        }
        Some(self.lock.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether this thread records.
    pub(crate) fn is_recording_here(&self) -> bool {
        // Only this thread sets the number to its own.
        self.recorder.load(Ordering::Relaxed) == this_thread()
    }

    /// The device for this thread alone, as the one that records.
    fn begin(&self) -> Recorder<'_> {
        let lock = self.lock.write().unwrap_or_else(PoisonError::into_inner);
        self.recorder.store(this_thread(), Ordering::Relaxed);
        Recorder { turns: self, _lock: lock }
    }

    fn may_record(&self) -> bool {
        !self.is_recording_here() && self.failures.load(Ordering::Relaxed) < MOST_FAILURES
    }

    fn note_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}

/// The right to record; it ends when dropped.
struct Recorder<'a> {
    turns: &'a Turns,
    _lock: RwLockWriteGuard<'a, ()>,
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        self.turns.recorder.store(0, Ordering::Relaxed);
    }
}

impl Core {
    /// Runs `work` as one recording, or as it is where the device cannot record it. What
    /// buffers keep beside their values, such as rounded weights, was made before: prompts
    /// are computed first.
    pub(crate) fn record(&self, work: &mut dyn FnMut()) {
        if !self.turns.may_record() {
            return work();
        }
        if self.try_record(work).is_err() {
            self.turns.note_failure();
            work();
        }
    }

    /// # Errors
    /// Where nothing of the work was done.
    fn try_record(&self, work: &mut dyn FnMut()) -> Result<(), DeviceFault> {
        let _recorder = self.turns.begin();
        self.device.begin_recording()?;
        self.memory.begin_recording();
        let outcome = catch_unwind(AssertUnwindSafe(&mut *work));
        let finished = self.device.finish_recording(outcome.is_ok());
        self.memory.end_recording();
        match outcome {
            Ok(()) => finished,
            // Done plainly it may succeed: memory, for one, is scarcer here.
            Err(payload) => match payload.downcast::<DeviceFault>() {
                Ok(fault) => Err(*fault),
                Err(payload) => resume_unwind(payload),
            },
        }
    }
}
