//! Full-jitter exponential backoff. Pure: randomness is an argument.
use std::time::Duration;

/// A backoff that cannot be built with impossible settings (`[retry]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
}

/// Why the two settings make no backoff.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackoffError {
    /// A zero wait would hammer the API.
    #[error("retry.min is 0: set it to at least 1 ms")]
    Zero,
    /// The bounds stand the wrong way round.
    #[error("retry.min is larger than retry.max: swap them or raise retry.max")]
    Reversed,
}

impl Backoff {
    /// Checks the bounds.
    pub fn new(_min: Duration, _max: Duration) -> Result<Self, BackoffError> {
        todo!()
    }

    /// Wait before attempt `failures + 1`, after `failures` (at least 1) in a row: even over
    /// zero to `min * 2^(failures-1)`, capped at `max`. `random` is 64 random bits.
    pub fn delay(&self, _failures: u32, _random: u64) -> Duration {
        todo!()
    }

    /// What the upstream asked for by Retry-After, capped at `max`.
    pub fn cap(&self, _asked: Duration) -> Duration {
        todo!()
    }
}
