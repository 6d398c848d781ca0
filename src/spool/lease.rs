//! Leases as values: one that is dropped unended goes back to its lane.
use super::command::Command;
use super::view::locked;
use crate::ids::Seq;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc::WeakSender;

/// Where leases come from, and where those that nobody ended are found by the owning thread.
pub(super) struct Abandoned {
    /// Lane number and sequence. Bounded as leases are.
    found: Mutex<Vec<(u32, u64)>>,
    wake: WeakSender<Command>,
    /// Events below were there when the spool was opened.
    opened_at: u64,
}

impl Abandoned {
    pub(super) fn new(wake: WeakSender<Command>, opened_at: u64) -> Abandoned {
        Abandoned {
            found: Mutex::default(),
            wake,
            opened_at,
        }
    }

    /// Takes what was abandoned so far.
    pub(super) fn take(&self) -> Vec<(u32, u64)> {
        std::mem::take(&mut *locked(&self.found))
    }

    fn add(&self, lane: u32, seq: u64) {
        let first = {
            let mut found = locked(&self.found);
            found.push((lane, seq));
            found.len() == 1
        };
        if first && let Some(wake) = self.wake.upgrade() {
            // A full channel means that the thread is awake, and it looks here after every command.
            let _ = wake.try_send(Command::Tidy);
        }
    }
}

/// An event taken from its lane: an obligation that ends in [`Spool::settle`](super::Spool::settle),
/// [`Spool::release`](super::Spool::release) or [`Spool::bury`](super::Spool::bury). One that is dropped is
/// released, so that a cancelled attempt loses nothing.
#[must_use = "a leased event must be settled, released or buried"]
pub struct Leased {
    seq: Seq,
    record: bytes::Bytes,
    lane: u32,
    home: Option<Arc<Abandoned>>,
}

impl Leased {
    pub(super) fn new(lane: u32, seq: u64, record: bytes::Bytes, home: &Arc<Abandoned>) -> Leased {
        Leased {
            seq: Seq(seq),
            record,
            lane,
            home: Some(Arc::clone(home)),
        }
    }

    /// Its place in the order of acceptance.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Whether it was queued before the spool was opened: an earlier process may have sent it.
    pub fn is_from_before_start(&self) -> bool {
        self.home.as_ref().is_some_and(|home| self.seq.0 < home.opened_at)
    }

    /// The record as it was appended.
    pub fn record(&self) -> &bytes::Bytes {
        &self.record
    }

    /// Lane number and sequence.
    pub(super) fn place(&self) -> (u32, u64) {
        (self.lane, self.seq.0)
    }

    /// Ends the obligation: from here on the owning thread answers for the event.
    pub(super) fn end(mut self) -> (u32, u64, bytes::Bytes) {
        self.home = None;
        (self.lane, self.seq.0, std::mem::take(&mut self.record))
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.add(self.lane, self.seq.0);
        }
    }
}

impl std::fmt::Debug for Leased {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leased")
            .field("seq", &self.seq)
            .finish_non_exhaustive()
    }
}
