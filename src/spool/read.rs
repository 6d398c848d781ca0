//! Leasing: finding a lane's next events on disk.
use super::chunk::Chunk;
use super::durable::StorageError;
use super::lease::Leased;
use super::meta::Extent;
use super::owner::Owner;
use crate::batch::Limits;
use crate::ids::Lane;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most chunks, and most of their bytes, that are kept for the next lease.
const CACHE_CHUNKS: usize = 32;
const CACHE_BYTES: usize = 4 * 1024 * 1024;
/// Payload bytes on lease, over all lanes, that new leases come ever closer to: each may take a share of what is left.
const MOST_LEASED_BYTES: u64 = 256 * 1024 * 1024;
/// Which share. So no lane takes all that is left from the others, and the last of many are not left with single events.
const LEASE_SHARES: u64 = 16;
/// Pause before a lane that could not be read is read again.
const REREAD_PAUSE: Duration = Duration::from_secs(1);

/// Chunks read last, latest at the back.
#[derive(Default)]
pub(super) struct ChunkCache {
    chunks: VecDeque<Arc<Chunk>>,
    bytes: usize,
}

impl ChunkCache {
    fn get(&self, lane: u32, seq: u64) -> Option<Arc<Chunk>> {
        let holds =
            |chunk: &&Arc<Chunk>| chunk.label.lane == lane && (chunk.label.first..chunk.end()).contains(&seq);
        self.chunks.iter().rev().find(holds).cloned()
    }

    fn put(&mut self, chunk: Arc<Chunk>) {
        self.bytes += chunk.bytes();
        self.chunks.push_back(chunk);
        while self.chunks.len() > CACHE_CHUNKS || self.bytes > CACHE_BYTES {
            let Some(oldest) = self.chunks.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes();
        }
    }
}

/// Events on their way into a lease.
struct Found {
    events: Vec<(u64, Bytes)>,
    bytes: usize,
    /// How many of them were released before.
    released: usize,
    /// The first unread event after them.
    unread: Option<u64>,
}

impl Found {
    fn is_enough(&self, limits: &Limits) -> bool {
        self.events.len() >= limits.max_events || self.bytes >= limits.max_bytes
    }

    fn add(&mut self, seq: u64, event: Bytes) {
        self.bytes += event.len();
        self.events.push((seq, event));
    }
}

impl Owner {
    /// Takes the next events of a lane; empty if there are none, or if they cannot be read at the moment. Always one if there is one,
    /// however much is on lease: a lane that got none would never try.
    pub(super) fn lease(&mut self, lane: &Lane, limits: &Limits, now: Instant) -> Vec<Leased> {
        let Some(number) = self.lanes.number(lane) else {
            return Vec::new();
        };
        self.lease_below(number, self.lanes.gate(number), limits, now)
    }

    /// The same for events below a sequence.
    pub(super) fn lease_below(
        &mut self,
        number: u32,
        below: u64,
        limits: &Limits,
        now: Instant,
    ) -> Vec<Leased> {
        let narrowed = self.within_memory(limits);
        let is_narrowed = narrowed.max_bytes < limits.max_bytes;
        let limits = &narrowed;
        if self.lanes.is_unreadable(number) {
            return Vec::new();
        }
        let mut found = match self.find(number, below, limits) {
            Ok(found) => found,
            Err(error) => {
                self.set_unreadable(number, now, &error);
                return Vec::new();
            }
        };
        let n = limits
            .cut(found.events.iter().map(|(_, event)| event.len()))
            .min(found.events.len());
        if let Some(&(seq, _)) = found.events.get(n.max(found.released)) {
            found.unread = Some(seq);
        }
        found.events.truncate(n);
        if let Some(state) = self.lanes.get_mut(number) {
            let taken = found.events.iter().map(|(seq, event)| (*seq, event.len() as u32));
            state.queue.lease(taken, found.unread);
        }
        self.lanes.publish(number);
        let home = &self.abandoned;
        let leased = found.events.into_iter().map(|(seq, event)| {
            // A part of a chunk would keep the whole of it in memory.
            let event = match is_narrowed {
                true => Bytes::copy_from_slice(&event),
                false => event,
            };
            Leased::new(number, seq, event, home)
        });
        leased.collect()
    }

    /// The limits of a lease, narrowed where much is on lease already.
    fn within_memory(&self, limits: &Limits) -> Limits {
        let left = MOST_LEASED_BYTES.saturating_sub(self.lanes.leased_bytes());
        let share = usize::try_from(left / LEASE_SHARES).unwrap_or(usize::MAX);
        Limits {
            max_bytes: limits.max_bytes.min(share),
            ..*limits
        }
    }

    /// Reads as many events below a sequence as a batch may hold: released ones first, which are the older ones, then unread ones.
    fn find(&mut self, number: u32, below: u64, limits: &Limits) -> Result<Found, StorageError> {
        let Some(queue) = self.lanes.get(number).map(|state| &state.queue) else {
            return Err(StorageError::trouble("the lane is unknown"));
        };
        let released: Vec<u64> = queue
            .released()
            .take_while(|&seq| seq < below)
            .take(limits.max_events)
            .collect();
        let mut room = queue.room();
        let mut found = Found {
            events: Vec::new(),
            bytes: 0,
            released: 0,
            unread: queue.unread(),
        };
        for seq in released {
            if found.is_enough(limits) {
                return Ok(found);
            }
            let chunk = match self.chunk(number, seq) {
                Ok((chunk, _)) => chunk,
                // What was found goes first; the damage is met again by the next lease.
                Err(_) if !found.events.is_empty() => return Ok(found),
                Err(error) => return Err(error),
            };
            found.add(seq, event_of(&chunk, seq)?);
            found.released += 1;
        }
        while let Some(first) = found.unread.filter(|&seq| seq < below && room > 0)
            && !found.is_enough(limits)
        {
            let (chunk, extent) = match self.chunk(number, first) {
                Ok(read) => read,
                Err(_) if !found.events.is_empty() => return Ok(found),
                Err(error) => return Err(error),
            };
            let mut seq = first;
            while seq < chunk.end() && seq < below && room > 0 && !found.is_enough(limits) {
                found.add(seq, event_of(&chunk, seq)?);
                seq += 1;
                room -= 1;
            }
            found.unread = if seq < chunk.end() {
                Some(seq)
            } else {
                self.following(number, extent, seq)?
            };
        }
        Ok(found)
    }

    /// The chunk that holds an event, and the extent that it is in.
    pub(super) fn chunk(&mut self, number: u32, seq: u64) -> Result<(Arc<Chunk>, Extent), StorageError> {
        let place = self.lanes.get(number).and_then(|state| state.queue.place(seq));
        let extent = place.ok_or_else(|| damaged(seq, "no generation holds it"))?;
        if let Some(chunk) = self.cache.get(number, seq) {
            return Ok((chunk, extent));
        }
        let chunk = Arc::new(self.read_chunk(number, seq, extent.generation)?);
        self.cache.put(Arc::clone(&chunk));
        Ok((chunk, extent))
    }

    /// Reads the chunk that holds an event from a generation.
    pub(super) fn read_chunk(
        &mut self,
        number: u32,
        seq: u64,
        generation: u64,
    ) -> Result<Chunk, StorageError> {
        self.look_twice(generation, |source| {
            let first = source.floor(number, seq)?;
            let first = first.ok_or_else(|| damaged(seq, "it is missing"))?;
            let chunk = source.chunk(number, first)?;
            match seq < chunk.end() {
                true => Ok(chunk),
                false => Err(damaged(seq, "its chunk ends before it")),
            }
        })
    }

    /// The lane's first event from `from` on, which is not below the end of a chunk in `extent`.
    pub(super) fn following(
        &mut self,
        number: u32,
        extent: Extent,
        from: u64,
    ) -> Result<Option<u64>, StorageError> {
        let Some(queue) = self.lanes.get(number).map(|state| &state.queue) else {
            return Ok(None);
        };
        if from > extent.last {
            return Ok(queue.first_after(extent.first));
        }
        self.look_twice(extent.generation, |source| {
            let next = source.ceiling(number, from)?;
            match next.filter(|&first| first <= extent.last) {
                Some(first) => Ok(Some(first)),
                None => Err(damaged(from, "the chunk after it is missing")),
            }
        })
    }

    pub(super) fn set_unreadable(&mut self, number: u32, now: Instant, error: &StorageError) {
        let sentence = error.to_string();
        if self.unread_reason.as_ref() != Some(&sentence)
            && let Some(state) = self.lanes.get(number)
        {
            tracing::error!(lane = %state.lane, error = sentence, "a lane cannot be read: it is tried again");
        }
        // Once for each place, not once a try.
        self.unread_reason = Some(sentence);
        self.lanes.set_unreadable(number, now + REREAD_PAUSE);
        self.lanes.publish(number);
    }
}

fn event_of(chunk: &Chunk, seq: u64) -> Result<Bytes, StorageError> {
    chunk
        .event(seq)
        .ok_or_else(|| damaged(seq, "its chunk ends before it"))
}

fn damaged(seq: u64, what: &str) -> StorageError {
    StorageError::damaged(format!("event {seq} cannot be read: {what}"))
}
