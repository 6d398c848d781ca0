//! The durable queue (design.md section 3). Callers hold a [`Spool`]; one thread owns sled.
use crate::batch::{Limits, Ready};
use crate::ids::{Lane, Seq};
use crate::ledger::Ledger;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How the spool is set up (`[spool]`, `[dead_letters]`).
#[derive(Debug, Clone)]
pub struct Settings {
    /// Data folder; made with mode 0700 if absent.
    pub path: PathBuf,
    /// Most live payload bytes, as accepted, uncompressed. Default 10 GiB.
    pub max_bytes: u64,
    /// Free disk bytes below which nothing more is accepted. Default 256 MiB.
    pub min_free_bytes: u64,
    /// Most bytes of dead letters; the oldest go first. Default 1 GiB.
    pub dead_max_bytes: u64,
    /// Longest that a dead letter is kept. Default 30 days.
    pub dead_max_age: Duration,
}

/// Why the data folder could not be opened. The sentence names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// To be made precise by the spool.
    #[error("{0}")]
    Other(String),
}

/// Why nothing was appended. Nothing of the call is on disk, or at least none of it was promised.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Over `spool.max_bytes`, or under `spool.min_free_bytes`: 503 with Retry-After. The sentence says which, with figures.
    #[error("{0}")]
    Full(String),
    /// The disk or sled failed: 503.
    #[error("{0}")]
    Storage(String),
    /// The spool is shutting down: 503.
    #[error("the daemon is shutting down: send again in a moment")]
    Closed,
}

/// One event to put on disk.
#[derive(Debug)]
pub enum Entry {
    /// An accepted event or feedback (its record bytes).
    Queued {
        /// Where it goes.
        lane: Lane,
        /// [`crate::event::Event::into_json`] or [`crate::feedback::Feedback::to_record`].
        record: Vec<u8>,
    },
    /// An event that can never be stored upstream: kept as a dead letter at once. Counts as accepted and dead.
    Refused {
        /// Where it would have gone.
        lane: Lane,
        /// What the client sent, as is.
        record: Vec<u8>,
        /// Why, in one sentence.
        reason: String,
    },
}

/// An event taken from its lane: an obligation that ends in [`Spool::settle`], [`Spool::release`] or [`Spool::bury`].
#[must_use = "a leased event must be settled, released or buried"]
#[derive(Debug)]
pub struct Leased {
    seq: Seq,
    record: bytes::Bytes,
}

impl Leased {
    /// Its place in the order of acceptance.
    pub fn seq(&self) -> Seq {
        self.seq
    }
    /// The record as it was appended.
    pub fn record(&self) -> &bytes::Bytes {
        &self.record
    }
}

/// Why and when an event was given up.
#[derive(Debug, Clone)]
pub struct Burial {
    /// One sentence.
    pub reason: String,
    /// Upstream's HTTP status, if one answered.
    pub status: Option<u16>,
    /// The first bytes of upstream's body.
    pub excerpt: Option<String>,
    /// How often it was sent.
    pub attempts: u32,
}

/// A dead letter as it is kept.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Its place in the order of acceptance; names it.
    pub seq: Seq,
    /// Where it was going.
    pub lane: Lane,
    /// Wall clock at burial, milliseconds since 1970.
    pub buried_at_ms: u64,
    /// Why.
    pub burial: Burial,
    /// The record as it was accepted, or as the client sent it if it was refused.
    pub record: Vec<u8>,
}

/// One lane as others may see it. Cheap to clone.
#[derive(Clone)]
pub struct LaneView {
    lane: Lane,
}

impl LaneView {
    /// Which lane.
    pub fn lane(&self) -> &Lane {
        &self.lane
    }
    /// What can be leased right now. For a feedback lane only what no earlier log of its project holds back.
    pub fn ready(&self) -> Ready {
        todo!()
    }
    /// Events of the lane that have not ended, leased ones included.
    pub fn queued(&self) -> u64 {
        todo!()
    }
    /// Resolves once [`LaneView::ready`] may have grown since it was last read. Never misses a change that
    /// comes between reading and waiting.
    pub async fn changed(&self) {
        todo!()
    }
}

/// Handle of the spool. Cheap to clone.
#[derive(Clone)]
pub struct Spool {}

impl Spool {
    /// Opens or makes the data folder, takes its lock, recovers, and starts the owning thread. Blocking.
    pub fn open(_settings: Settings) -> Result<Spool, OpenError> {
        todo!()
    }
    /// Puts the entries on disk, in this order, all or none. Resolves when they are synced: only then may a
    /// client be told so.
    pub async fn append(&self, _entries: Vec<Entry>) -> Result<(), AppendError> {
        todo!()
    }
    /// Takes the next events of a lane, in order, as many as one batch holds (`limits.cut`); empty if none is ready.
    /// Released events come first. A feedback is never given out while a log of its project that was
    /// accepted before it is queued or leased.
    pub async fn lease(&self, _lane: &Lane, _limits: &Limits) -> Vec<Leased> {
        todo!()
    }
    /// Delivered: counts, and will not be given out again. Durable with the next group commit or within a few ms.
    pub async fn settle(&self, _lane: &Lane, _events: Vec<Leased>) {
        todo!()
    }
    /// Not delivered: back to the head of its lane.
    pub async fn release(&self, _lane: &Lane, _events: Vec<Leased>) {
        todo!()
    }
    /// Given up: kept as a dead letter, on disk before it leaves the lane.
    pub async fn bury(&self, _lane: &Lane, _events: Vec<(Leased, Burial)>) {
        todo!()
    }
    /// Every lane that was ever used; changes when one is added.
    pub fn lanes(&self) -> watch::Receiver<Arc<Vec<LaneView>>> {
        todo!()
    }
    /// The account as of the last commit.
    pub fn ledger(&self) -> Ledger {
        todo!()
    }
    /// Dead letters in order, from `after` on (exclusive), at most `limit`.
    pub async fn dead_letters(&self, _after: Option<Seq>, _limit: usize) -> Vec<DeadLetter> {
        todo!()
    }
    /// `None` while the spool accepts; otherwise why it does not, in one sentence with the remedy.
    pub fn refusing(&self) -> Option<String> {
        todo!()
    }
    /// Final group commit; the lock is given back. Later calls answer [`AppendError::Closed`].
    pub async fn close(&self) {
        todo!()
    }
}
