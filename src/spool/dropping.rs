//! `on_full = "drop_oldest"`: the events that have waited longest make room for new ones.
//!
//! Two ways, as there are two bounds. Over `max_bytes` as many of the oldest events are dropped as an append needs, in the
//! same commit. A disk under its floor, or one on which the ballast has no place, gains nothing by that: there a
//! generation loses all its events in a commit of its own and is deleted whole; unless others fill the disk, so that dropping
//! would not help. What a courier has on lease is never dropped.
use super::AppendError;
use super::chunk::Chunk;
use super::commit::Stop;
use super::drop_log::Line;
use super::durable::StorageError;
use super::group::{Group, Prepared};
use super::lanes::Memo;
use super::meta::Extent;
use super::owner::Owner;
use super::queue::{Run, Source};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Instant;

/// Which bound was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// `spool.max_bytes`.
    Bytes,
    /// `spool.min_free_bytes`, or a full disk.
    Disk,
}

/// What a commit is to drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropping {
    /// As much as its appends need, if that is the policy.
    ForAppends,
    /// All of a generation that is not on lease.
    Generation(u64),
}

/// What a commit drops, and how it is undone if the commit fails.
#[derive(Default)]
pub(super) struct Dropped {
    /// By lane number.
    pub(super) events: BTreeMap<u32, u64>,
    memo: Memo,
}

impl Dropped {
    /// Events in all.
    pub(super) fn total(&self) -> u64 {
        self.events.values().sum()
    }
}

impl Owner {
    /// Whether an append may join the group; otherwise why not.
    pub(super) fn admit(&mut self, append: &Prepared, group: &mut Group, now: Instant) -> Result<(), String> {
        let projects = &self.shared.projects;
        let new_projects = projects.newcomers(&append.projects, &group.new_projects)?;
        let adding = append.bytes;
        if self.room.drops_oldest() && adding <= self.room.max_bytes() {
            self.free_disk(now);
        }
        let all = self.lanes.live_bytes() + group.bytes;
        let live = match self.room.drops_oldest() && all.saturating_add(adding) > self.room.max_bytes() {
            // That takes a look at each lane: once a group is enough.
            true => {
                *group
                    .leased_bytes
                    .get_or_insert_with(|| self.lanes.leased_bytes())
                    + group.bytes
            }
            false => all,
        };
        self.room.admit(live, adding, now)?;
        group.new_projects = new_projects;
        Ok(())
    }

    /// Looks again whether a full spool has room.
    pub(super) fn recheck_room(&mut self, now: Instant) {
        if self.room.full().is_none() {
            return;
        }
        if self.room.drops_oldest() {
            self.free_disk(now);
        }
        let live = match self.room.drops_oldest() {
            true => self.lanes.leased_bytes(),
            false => self.lanes.live_bytes(),
        };
        self.room.recheck(live, now);
    }

    /// Takes out of the lanes what a commit drops. Nothing was taken if it is an error.
    pub(super) fn take_dropped(
        &mut self,
        dropping: Dropping,
        adding: u64,
        now: Instant,
    ) -> Result<Dropped, Stop> {
        match dropping {
            Dropping::Generation(id) => {
                let lanes = self.lanes.in_generation(id);
                let memo = self.lanes.memo(lanes.iter().copied());
                let events = lanes
                    .into_iter()
                    .map(|lane| (lane, self.lanes.drop_generation(lane, id)));
                let events = events.collect();
                Ok(Dropped { events, memo })
            }
            Dropping::ForAppends => {
                let live = self.lanes.live_bytes().saturating_add(adding);
                match live.saturating_sub(self.room.max_bytes()) {
                    over if over == 0 || adding == 0 || !self.room.drops_oldest() => Ok(Dropped::default()),
                    over => self.take_oldest(over, adding, now),
                }
            }
        }
    }

    fn take_oldest(&mut self, over: u64, adding: u64, now: Instant) -> Result<Dropped, Stop> {
        let runs = self.oldest(over, now);
        if runs.iter().map(|run| run.bytes).sum::<u64>() < over {
            // Leases that were given out since the appends were admitted, or a lane that cannot be read.
            let held = self.lanes.live_bytes();
            let sentence = self.room.admit(held, adding, now).err();
            let sentence =
                sentence.unwrap_or_else(|| "no room in the spool: send again in a moment".to_owned());
            return Err(Stop::Refused(AppendError::Full(sentence)));
        }
        let mut dropped = Dropped {
            memo: self.lanes.memo(runs.iter().map(|run| run.lane)),
            ..Dropped::default()
        };
        for run in runs {
            *dropped.events.entry(run.lane).or_default() += run.events;
            self.lanes.drop_run(&run);
        }
        Ok(dropped)
    }

    /// Puts back what a commit that failed would have dropped.
    pub(super) fn put_back(&mut self, dropped: Dropped) {
        self.lanes.restore(dropped.memo);
    }

    /// Counts what a durable commit dropped.
    pub(super) fn note_dropped(&mut self, dropped: &Dropped, dropping: Dropping, now: Instant) {
        let reason = match dropping {
            Dropping::ForAppends => Reason::Bytes,
            Dropping::Generation(_) => Reason::Disk,
        };
        for (&lane, &events) in &dropped.events {
            self.drop_log.note(lane, events, reason, now);
        }
        self.publish_lanes(dropped.events.keys().copied());
    }

    /// The events with the smallest sequences that are not on lease, of all lanes, as many as make `bytes`; fewer if there
    /// are not so many. Only reads.
    fn oldest(&mut self, bytes: u64, now: Instant) -> Vec<Run> {
        let mut next: BinaryHeap<Reverse<(u64, u32)>> = self.lanes.first_idle().map(Reverse).collect();
        let (mut runs, mut found) = (Vec::new(), 0);
        while found < bytes
            && let Some(Reverse((seq, lane))) = next.pop()
        {
            let until = next.peek().map_or(u64::MAX, |Reverse((seq, _))| *seq);
            match self.idle_run(lane, seq, until, bytes - found) {
                Ok((run, after)) => {
                    found += run.bytes;
                    runs.push(run);
                    next.extend(after.map(|seq| Reverse((seq, lane))));
                }
                // The others make room.
                Err(error) => self.set_unreadable(lane, now, &error),
            }
        }
        runs
    }

    /// Some of a lane's idle events from `seq` on, all below `until`, at least one, until they make `bytes`. And the lane's
    /// next idle event.
    fn idle_run(
        &mut self,
        lane: u32,
        seq: u64,
        until: u64,
        bytes: u64,
    ) -> Result<(Run, Option<u64>), StorageError> {
        let (chunk, extent) = self.chunk(lane, seq)?;
        let was_released = self
            .lanes
            .get(lane)
            .is_some_and(|state| state.queue.is_released(seq));
        let end = match was_released {
            true => seq + 1,
            false => until.min(chunk.end()).max(seq + 1),
        };
        let mut run = Run {
            lane,
            first: seq,
            events: 0,
            bytes: 0,
            source: Source::Released,
        };
        for at in seq..end {
            if run.events > 0 && run.bytes >= bytes {
                break;
            }
            run.bytes += chunk.event(at).map_or(0, |event| event.len() as u64);
            run.events += 1;
        }
        if was_released {
            let after = self.lanes.get(lane).and_then(|state| state.queue.idle_after(seq));
            return Ok((run, after));
        }
        let unread = self.unread_from(lane, seq + run.events, &chunk, extent)?;
        run.source = Source::Unread { next: unread };
        Ok((run, unread))
    }

    fn unread_from(
        &mut self,
        lane: u32,
        seq: u64,
        chunk: &Arc<Chunk>,
        extent: Extent,
    ) -> Result<Option<u64>, StorageError> {
        match seq < chunk.end() {
            true => Ok(Some(seq)),
            false => self.following(lane, extent, seq),
        }
    }

    /// Drops and deletes whole generations, the oldest first, until the disk has room, as long as that is of use.
    fn free_disk(&mut self, now: Instant) {
        while self.failure.is_none() {
            if self.room.short_of_disk(0, now).is_none() {
                return self.room.set_free_at_drop(None);
            }
            let Some(id) = self.generation_to_drop() else {
                return;
            };
            let Some(free) = self.room.worth_dropping(self.droppable_bytes(), now) else {
                return;
            };
            self.commit_alone(Dropping::Generation(id), now);
            if self.failure.is_none() {
                self.room.set_free_at_drop(Some(free));
            }
            self.room.forget_free_bytes();
        }
    }

    /// What the disk could get back, once leases have ended.
    fn droppable_bytes(&self) -> u64 {
        let newest = match self.newest_is_large() {
            true => self.generations.newest_bytes(),
            false => 0,
        };
        self.generations.bytes() + newest
    }

    /// The oldest generation that can be deleted at once. If something in every one is on lease: the oldest, whose
    /// rest is then moved on or ends; but one at a time, since until then it frees nothing.
    fn generation_to_drop(&self) -> Option<u64> {
        let leased = self.lanes.leased_by_generation();
        let on_lease = |id: &u64| leased.get(id).copied().unwrap_or_default();
        let newest = self.generations.newest();
        let worth_it = |id: &u64| Some(*id) != newest || self.newest_is_large();
        let candidates = || self.lanes.generations().filter(worth_it);
        if let Some(id) = candidates().find(|id| on_lease(id) == 0) {
            return Some(id);
        }
        let is_waiting = |id: u64| Some(id) != newest && self.lanes.live_in(id).events == on_lease(&id);
        match candidates().any(is_waiting) {
            true => None,
            false => candidates().find(|id| self.lanes.live_in(*id).events > on_lease(id)),
        }
    }

    /// Says what was dropped, when it is time, or for the `last` time.
    pub(super) fn tell_dropped(&mut self, now: Instant, last: bool) {
        match self.drop_log.line(now, last) {
            None => {}
            Some(Line::Stopped { total }) => tracing::info!(total, "no more events are dropped"),
            Some(Line::Dropped {
                events,
                lanes,
                other_lanes,
                lasted,
                total,
                reason,
            }) => {
                let name = |(lane, events): &(u32, u64)| {
                    let state = self.lanes.get(*lane)?;
                    Some(format!("{} ({events})", state.lane))
                };
                let lanes: Vec<String> = lanes.iter().filter_map(name).collect();
                let remedy = match reason {
                    Reason::Bytes => "see why the upstream does not take them, or raise spool.max_bytes",
                    Reason::Disk => "free some disk space, or lower spool.min_free_bytes",
                };
                tracing::warn!(
                    events,
                    lanes = lanes.join(", "),
                    other_lanes,
                    total,
                    for_seconds = lasted.as_secs(),
                    remedy,
                    "the spool is full: the oldest events were dropped (spool.on_full = \"drop_oldest\")"
                );
            }
        }
    }
}
