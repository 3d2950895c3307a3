//! When to try again, and how long to wait before.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::observer::Observer;
use crate::random::SplitMix64;

/// Pauses are slept in pieces this long, so that an interruption is noticed.
const PIECE: Duration = Duration::from_millis(100);

/// Sleeps. Tests replace it and do not wait.
pub trait Clock: Send + Sync {
    /// Returns after `duration`.
    fn sleep(&self, duration: Duration);
}

/// The clock on the wall.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// When and how often to try again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Attempts in all, the first included.
    pub max_attempts: usize,
    /// Pause after the first attempt, in seconds; it doubles with every further one.
    pub base_pause_s: f64,
    /// Longest pause, in seconds, whatever the server asks for.
    pub max_pause_s: f64,
    /// Seed of the jitter.
    pub seed: u64,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { max_attempts: 6, base_pause_s: 0.5, max_pause_s: 60.0, seed: 0 }
    }
}

impl RetryConfig {
    pub(super) fn validate(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::new(ErrorKind::Config, message));
        if !(1..=100).contains(&self.max_attempts) {
            return wrong(format!("max_attempts = {}: must lie in 1..=100", self.max_attempts));
        }
        for (field, seconds) in
            [("base_pause_s", self.base_pause_s), ("max_pause_s", self.max_pause_s)]
        {
            if !(0.0..=86_400.0).contains(&seconds) {
                return wrong(format!("{field} = {seconds}: must lie in 0..=86400"));
            }
        }
        Ok(())
    }

    /// The pause after the `attempt`-th attempt (from 1): base · 2^(attempt − 1), of
    /// which a random half to whole is waited so that workers do not return together,
    /// and never less than the server asked for; at most the longest pause.
    pub(super) fn pause(
        &self,
        attempt: usize,
        retry_after: Option<Duration>,
        jitter: &mut SplitMix64,
    ) -> Duration {
        let doublings = attempt.saturating_sub(1).min(30) as i32;
        let whole = (self.base_pause_s * 2f64.powi(doublings)).min(self.max_pause_s);
        let own = Duration::from_secs_f64(whole * (0.5 + 0.5 * jitter.next_f64()));
        own.max(retry_after.unwrap_or_default()).min(Duration::from_secs_f64(self.max_pause_s))
    }
}

/// The seconds of a `Retry-After` header; dates are not understood and yield `None`.
pub(super) fn parse_retry_after(value: &str) -> Option<Duration> {
    let seconds: f64 = value.trim().parse().ok()?;
    (0.0..=1e9).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// Sleeps for `duration` unless the observer stops it; says whether it slept through.
pub(super) fn pause(duration: Duration, clock: &dyn Clock, observer: &dyn Observer) -> bool {
    let mut left = duration;
    while !left.is_zero() {
        if observer.is_interrupted() {
            return false;
        }
        let piece = left.min(PIECE);
        clock.sleep(piece);
        left -= piece;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_within_their_jitter() {
        let config = RetryConfig { base_pause_s: 1.0, max_pause_s: 10.0, ..Default::default() };
        let mut jitter = SplitMix64::new(1);
        for (attempt, whole) in [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 10.0), (60, 10.0)] {
            for _ in 0..50 {
                let pause = config.pause(attempt, None, &mut jitter).as_secs_f64();
                assert!((whole / 2.0..=whole).contains(&pause), "{attempt}: {pause}");
            }
        }
        let asked = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(config.pause(1, asked(7), &mut jitter), Duration::from_secs(7));
        assert_eq!(config.pause(1, asked(7_000), &mut jitter), Duration::from_secs(10));
        let same = |seed| config.pause(3, None, &mut SplitMix64::new(seed));
        assert_eq!(same(4), same(4));
        assert_ne!(same(4), same(5));
    }

    #[test]
    fn retry_after_in_seconds() {
        assert_eq!(parse_retry_after(" 3 "), Some(Duration::from_secs(3)));
        assert_eq!(parse_retry_after("0.5"), Some(Duration::from_millis(500)));
        for odd in ["-1", "NaN", "inf", "", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(parse_retry_after(odd), None, "{odd}");
        }
    }

    #[test]
    fn settings_are_checked() {
        assert!(RetryConfig::default().validate().is_ok());
        assert!(RetryConfig { max_attempts: 0, ..Default::default() }.validate().is_err());
        assert!(RetryConfig { base_pause_s: f64::NAN, ..Default::default() }.validate().is_err());
    }
}
