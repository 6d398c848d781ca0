//! One bound for the memory that requests in flight may take, from the first byte of a body that is read until its
//! events are on disk and answered.
//!
//! # What is counted
//! A body counts by its bytes, and its events by [`EVENT_BYTES`] each if that is more. That is a price, not the memory
//! itself: while a body is parsed it exists twice, as it came and as records; what is being committed exists once more as
//! chunks. Measured (`tests/it/memory.rs`): a counted byte takes 1 to 3 bytes of RSS, what the allocator keeps included.
//! A log body that is a stream counts by what it holds at a time, whatever its length.
//!
//! Not counted are a connection's own buffers (mostly 8 KiB, 128 at most each way) and replies of up to [`SMALL_BYTES`], of
//! which a connection has one at a time. Larger ones count until they are sent (`reply::held`).
//!
//! # Why nobody waits for ever
//! Who holds room never waits for more. A body of known length gets all its room before its first byte is read, and waits
//! for that in line, holding nothing. What grows (a chunked body, a line of NDJSON, a long event of a stream) takes more if
//! it is there, and gives up otherwise. Who holds room has bounded time for the next MiB of his body, so room comes back. (Two
//! hold it for longer: a stream that goes on and on, and a large reply that its client takes byte by byte.)
//!
//! # Who goes first
//! Three shares: a quarter for the small (up to 16 KiB), a quarter for the middle (up to 1 MiB), half for the large. Each
//! has a queue of its own, first come first served, so a small request never waits behind a large one. A smaller one may
//! also take room of a larger share if nobody is waiting for it, never the other way round.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// What an event counts at least. Its entry, its lane, its place in the reply and, if it is refused, its reason take that
/// and more, however short it is. What SDKs send is longer.
pub const EVENT_BYTES: usize = 256;
/// What a request counts at least.
pub(super) const LEAST_BYTES: usize = 1024;
/// Up to here a request is small: with the default limits each of the 4,096 connections of a listener can have one.
pub const SMALL_BYTES: usize = 16 * 1024;
/// Up to here a request is of middle size.
const MIDDLE_BYTES: usize = 1024 * 1024;

const SHARES: usize = 3;

/// There was no room, and the sentence says what to do: 503.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no room: as many request bodies are in flight as may be ({limit} bytes, intake.max_in_flight_bytes): send again in a \
     moment, fewer at once, or raise intake.max_in_flight_bytes"
)]
pub struct NoRoom {
    limit: usize,
}

/// The budget. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    shares: [Share; SHARES],
    in_flight: Gauge,
    refused: Counter,
}

#[derive(Debug)]
struct Share {
    bytes: usize,
    free: Semaphore,
}

impl Share {
    fn new(bytes: usize) -> Self {
        let free = Semaphore::new(bytes.min(Semaphore::MAX_PERMITS));
        Self { bytes, free }
    }

    fn try_take(&self, bytes: usize) -> bool {
        let taken = permits(bytes).and_then(|bytes| self.free.try_acquire_many(bytes).ok());
        taken.is_some_and(|permit| {
            permit.forget();
            true
        })
    }

    /// In line. What it took so far goes back if it is dropped.
    async fn take(&self, bytes: usize) -> bool {
        let Some(number) = permits(bytes).filter(|_| bytes <= self.bytes) else {
            return false;
        };
        // It is never closed.
        self.free.acquire_many(number).await.is_ok_and(|permit| {
            permit.forget();
            true
        })
    }
}

/// A semaphore gives at most that many at once; no body is that large.
fn permits(bytes: usize) -> Option<u32> {
    u32::try_from(bytes).ok()
}

/// The share for that size.
fn share_of(bytes: usize) -> usize {
    usize::from(bytes > SMALL_BYTES) + usize::from(bytes > MIDDLE_BYTES)
}

impl Budget {
    /// A budget of `limit` bytes, at least 4 MiB so that each share can hold the largest of its kind. `in_flight` shows what
    /// is taken, `refused` counts those who got none.
    pub fn new(limit: usize, in_flight: Gauge, refused: Counter) -> Self {
        let quarter = limit / 4;
        Self(Arc::new(Inner {
            limit,
            shares: [quarter, quarter, limit - 2 * quarter].map(Share::new),
            in_flight,
            refused,
        }))
    }

    /// Most that one request can ever hold: half the limit.
    pub fn most_bytes(&self) -> usize {
        self.0.shares[SHARES - 1].bytes
    }

    /// Room for that many bytes (1 KiB at least), waiting for it in line for up to `patience`. The caller holds
    /// no other room meanwhile.
    pub async fn reserve(&self, bytes: usize, patience: Duration) -> Result<Reservation, NoRoom> {
        let bytes = bytes.max(LEAST_BYTES);
        let mut room = Reservation {
            budget: self.clone(),
            taken: [0; SHARES],
        };
        if room.try_more(share_of(bytes), bytes) {
            return Ok(room);
        }
        let own = share_of(bytes);
        match timeout(patience, self.0.shares[own].take(bytes)).await {
            Ok(true) => {
                room.took(own, bytes);
                Ok(room)
            }
            _ => Err(self.refuse()),
        }
    }

    fn refuse(&self) -> NoRoom {
        self.0.refused.inc();
        NoRoom { limit: self.0.limit }
    }
}

/// Room that is held; given back when dropped, however that comes about.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    /// By share.
    taken: [usize; SHARES],
}

impl Reservation {
    /// How much it is.
    pub fn bytes(&self) -> usize {
        self.taken.iter().sum()
    }

    /// Makes it that many bytes at least, at once or not at all.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let more = bytes.saturating_sub(self.bytes());
        if more == 0 || self.try_more(share_of(bytes), more) {
            return Ok(());
        }
        Err(self.budget.refuse())
    }

    /// Gives back what is over that many bytes, room of the large first.
    pub fn shrink_to(&mut self, bytes: usize) {
        let mut over = self.bytes().saturating_sub(bytes);
        for (share, taken) in self.budget.0.shares.iter().zip(&mut self.taken).rev() {
            let back = over.min(*taken);
            if back > 0 {
                *taken -= back;
                over -= back;
                // Before it can be taken again, so that the gauge never shows more than there is.
                self.budget.0.in_flight.dec_by(signed(back));
                share.free.add_permits(back);
            }
        }
    }

    /// From its own share, else from a larger one.
    fn try_more(&mut self, own: usize, bytes: usize) -> bool {
        let found = (own..SHARES).find(|share| self.budget.0.shares[*share].try_take(bytes));
        if let Some(share) = found {
            self.took(share, bytes);
        }
        found.is_some()
    }

    fn took(&mut self, share: usize, bytes: usize) {
        self.taken[share] += bytes;
        self.budget.0.in_flight.inc_by(signed(bytes));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
