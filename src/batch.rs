//! When a batch closes, what goes into it, and how it is written. Pure: time is an argument.
use std::time::{Duration, Instant};

/// Bounds of one batch (`[batch]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most events in a batch; at least 1. Default 500.
    pub max_events: usize,
    /// Most bytes of request body; a single larger event still goes, alone. Default 4 MiB.
    pub max_bytes: usize,
    /// Longest that an event waits for company. Default 500 ms.
    pub max_age: Duration,
}

/// What of a lane is ready to be leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ready {
    /// Events that are queued and not leased.
    pub events: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// When the oldest of them became ready. `None` while there are none.
    pub oldest: Option<Instant>,
}

/// What a courier should do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing is ready.
    Idle,
    /// Wait for more until this moment.
    WaitUntil(Instant),
    /// Take a batch now.
    Close,
}

impl Limits {
    /// Closes on count, bytes or age.
    pub fn decide(&self, _ready: &Ready, _now: Instant) -> Decision {
        todo!()
    }

    /// How many of the next events, given their lengths in order, make one batch: at least one, if
    /// there is one, and never over the limits otherwise. The envelope and commas count.
    pub fn cut(&self, _lengths: impl IntoIterator<Item = usize>) -> usize {
        todo!()
    }
}

/// Request body `{"batched_log_events":[...]}` with the events byte for byte.
pub fn body<'a>(_events: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    todo!()
}
