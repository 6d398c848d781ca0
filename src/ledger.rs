//! The account of every event that was ever acknowledged.

use serde::Serialize;

/// Counts since the data folder was made. At any moment, and across kill -9,
/// `accepted = delivered + dead + dropped + queued` (design.md section 2).
///
/// An event counts as accepted in the same commit that puts it on disk, so the four on the right
/// never run ahead of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// Log events and feedback that were acknowledged, refused ones (kept as dead letters) included.
    pub accepted: u64,
    /// Events that the API took, by its own reply.
    pub delivered: u64,
    /// Events that became dead letters, and were not queued again from there.
    pub dead: u64,
    /// Events that a policy dropped (`spool.on_full = "drop_oldest"`), or that were lost with damaged files.
    pub dropped: u64,
    /// Events on disk that have not ended yet, those in flight included.
    pub queued: u64,
}

impl Ledger {
    /// Whether the account adds up.
    pub fn balances(&self) -> bool {
        self.accepted == self.delivered + self.dead + self.dropped + self.queued
    }
}
