//! The server as a process: its memory and its time on the processor.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use crate::commands::bench::process::{bytes_of, fields_after_name};

/// How often memory is looked at during a load.
const MEMORY_SAMPLES: usize = 20;
/// Fewer samples than this say nothing about growth.
const MIN_SAMPLES: usize = 16;
/// Loads below this many requests are all beginning.
const MIN_REQUESTS: usize = 1_000;
/// How much more memory the last quarter of a load may have than the rest of it.
const MAX_GROWTH: f64 = 0.05;
/// Clock ticks a second in `/proc`, the same on every Linux that Rust runs on.
const TICKS_PER_S: f64 = 100.0;

/// A server's process, where its number is known.
#[derive(Debug)]
pub(super) struct ServerProcess {
    pid: Option<u32>,
    memory: Mutex<BTreeMap<usize, u64>>,
}

/// Time that went by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Spent {
    /// On the clock.
    pub(super) seconds: f64,
    /// The server's on all cores, where it is known.
    pub(super) cpu_s: Option<f64>,
}

/// A moment.
#[derive(Debug)]
pub(super) struct Moment<'a> {
    process: &'a ServerProcess,
    at: Instant,
    cpu_s: Option<f64>,
}

impl Moment<'_> {
    /// The time since.
    pub(super) fn spent(&self) -> Spent {
        let cpu_s = self.process.cpu_s().zip(self.cpu_s).map(|(now, then)| now - then);
        Spent { seconds: self.at.elapsed().as_secs_f64(), cpu_s }
    }
}

impl ServerProcess {
    pub(super) fn new(pid: Option<u32>) -> Self {
        Self { pid, memory: Mutex::default() }
    }

    pub(super) fn now(&self) -> Moment<'_> {
        Moment { process: self, at: Instant::now(), cpu_s: self.cpu_s() }
    }

    /// Called before every request; looks now and then.
    pub(super) fn sample_memory(&self, number: usize, total: usize) {
        if number.is_multiple_of((total / MEMORY_SAMPLES).max(1))
            && let Some(bytes) = self.pid.and_then(resident_bytes)
            && let Ok(mut memory) = self.memory.lock()
        {
            memory.insert(number, bytes);
        }
    }

    /// Resident memory, evenly through the load.
    pub(super) fn memory(&self) -> Vec<u64> {
        self.memory.lock().map_or_else(|_| Vec::new(), |memory| memory.values().copied().collect())
    }

    fn cpu_s(&self) -> Option<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid?)).ok()?;
        cpu_s(&stat)
    }
}

/// User and system time: the 14th and 15th field, counted behind the name, which may
/// hold anything.
fn cpu_s(stat: &str) -> Option<f64> {
    let mut fields = fields_after_name(stat)?.skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_S)
}

fn resident_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    bytes_of(&status, "VmRSS:")
}

/// What is wrong with the memory of a load: its last quarter must not need more than the
/// rest of it did.
pub(super) fn grew(samples: &[u64], requests: usize) -> Option<String> {
    if samples.len() < MIN_SAMPLES || requests < MIN_REQUESTS {
        return None;
    }
    let (before, last) = samples.split_at(samples.len() - samples.len() / 4);
    let highest = |samples: &[u64]| samples.iter().copied().max().unwrap_or(0);
    let (before, last) = (highest(before), highest(last));
    (last as f64 > before as f64 * (1.0 + MAX_GROWTH)).then(|| {
        let mib = |bytes: u64| bytes >> 20;
        format!("memory grew from {} to {} MiB in the last quarter", mib(before), mib(last))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_on_the_processor_is_found_behind_any_name() {
        let stat = "12 (a ) b) S 1 12 12 0 -1 4194560 8 0 0 0 250 50 0 0 20 0 3 0 99";
        assert_eq!(cpu_s(stat), Some(3.0));
        assert_eq!(cpu_s("12 (a"), None);
        assert_eq!(cpu_s("12 (a) S 1"), None);
    }

    #[test]
    fn growth_is_a_last_quarter_above_the_rest() {
        let flat = [100 << 20; 20];
        assert_eq!(grew(&flat, 10_000), None);
        let mut warming = flat;
        warming[..5].fill(60 << 20);
        assert_eq!(grew(&warming, 10_000), None);
        let growing: Vec<u64> = (0..20).map(|at| (100 + 10 * at) << 20).collect();
        assert_eq!(
            grew(&growing, 10_000).unwrap(),
            "memory grew from 240 to 290 MiB in the last quarter"
        );
        assert_eq!(grew(&growing, 999), None, "too short to tell");
    }
}
