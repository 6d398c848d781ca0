//! One lane in memory: what is queued, leased and released, and where reading stands. Pure: time is an argument,
//! and nothing here grows with the backlog.
use super::meta::{Cursor, Extent};
use crate::batch::Ready;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

/// Most events of a lane that may be leased or released at once: bounds memory, and keeps the cursor within one value
/// on disk even if no two of them are neighbours.
pub(super) const MAX_OPEN: usize = 4_096;
/// Most arrival times that are told apart; later ones count as the last.
const MAX_ARRIVALS: usize = 64;

/// Consecutive events of a lane, in one extent, that are to be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) lane: u32,
    pub(super) first: u64,
    pub(super) events: u64,
    /// Their payload bytes.
    pub(super) bytes: u64,
    pub(super) source: Source,
}

/// Where events that are not on lease stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// They were on lease before.
    Released,
    /// Never. `next` is the first unread event after them.
    Unread { next: Option<u64> },
}

/// A lane's state.
#[derive(Debug, Clone, Default)]
pub(super) struct LaneQueue {
    /// What has not ended, by first sequence. They do not overlap, and one of which all has ended is not kept.
    extents: BTreeMap<u64, Extent>,
    /// Leased events and their payload bytes.
    leased: BTreeMap<u64, u32>,
    /// Events that were leased once and are to be given out again.
    released: BTreeSet<u64>,
    /// The first event that was never leased.
    unread: Option<u64>,
    /// One after the last event.
    end: u64,
    live: u64,
    live_bytes: u64,
    leased_bytes: u64,
    /// Last sequence of an append, and when it came.
    arrivals: VecDeque<(u64, Instant)>,
    released_since: Option<Instant>,
    /// Leased events that hold back no feedback. Known to this process only.
    deferred: BTreeSet<u64>,
}

impl LaneQueue {
    /// A lane as the newest generation describes it. What is open was leased by a process that is gone. Open events
    /// outside every extent have ended with it.
    pub(super) fn recovered(cursor: Cursor, extents: BTreeMap<u64, Extent>, now: Instant) -> LaneQueue {
        let mut queue = LaneQueue {
            released: cursor.open,
            end: cursor.next,
            ..LaneQueue::default()
        };
        queue.live = extents.values().map(|x| x.live).sum();
        queue.live_bytes = extents.values().map(|x| x.live_bytes).sum();
        if let Some(last) = extents.values().map(|x| x.last).max() {
            queue.end = queue.end.max(last + 1);
            queue.arrivals.push_back((last, now));
        }
        queue.unread = extents
            .values()
            .find(|x| x.last >= cursor.next)
            .map(|x| x.first.max(cursor.next));
        queue.released_since = (!queue.released.is_empty()).then_some(now);
        queue.extents = extents;
        queue
    }

    /// This lane with its events where salvage put them. Of what was leased or released only those events stay that
    /// `is_there` knows.
    pub(super) fn rebuilt(
        &self,
        extents: BTreeMap<u64, Extent>,
        is_there: impl Fn(u64) -> bool,
        now: Instant,
    ) -> LaneQueue {
        let mut cursor = self.cursor(None);
        cursor.open.retain(|&seq| is_there(seq));
        let mut queue = LaneQueue::recovered(cursor, extents, now);
        for (&seq, &bytes) in &self.leased {
            if queue.released.remove(&seq) {
                queue.leased.insert(seq, bytes);
                queue.leased_bytes += u64::from(bytes);
            }
        }
        let still = self.deferred.iter().filter(|seq| queue.leased.contains_key(seq));
        queue.deferred = still.copied().collect();
        queue.end = queue.end.max(self.end);
        queue.released_since = queue.released_since.filter(|_| !queue.released.is_empty());
        queue
    }

    /// Adds events that are durable, behind all others.
    pub(super) fn append(&mut self, added: &Extent, now: Instant) {
        let extent = self.appended(added);
        self.extents.insert(extent.first, extent);
        self.unread.get_or_insert(added.first);
        self.end = added.last + 1;
        self.live += added.live;
        self.live_bytes += added.live_bytes;
        let full = self.arrivals.len() >= MAX_ARRIVALS;
        match self.arrivals.back_mut() {
            Some(last) if full => last.0 = added.last,
            _ => self.arrivals.push_back((added.last, now)),
        }
    }

    /// The lane's last extent as it will be with `added`: the same one, if that lies in the same generation.
    pub(super) fn appended(&self, added: &Extent) -> Extent {
        match self.extents.last_key_value() {
            Some((_, last)) if last.generation == added.generation => last.extended(added),
            _ => *added,
        }
    }

    /// Puts `moved` in the place of the head of the extent that starts with `from`: `rest` is what stays there. Gives the
    /// first sequences of all extents that changed or went.
    pub(super) fn relocate(&mut self, from: u64, moved: Extent, rest: Option<Extent>) -> Vec<u64> {
        let mut touched = vec![from];
        self.extents.remove(&from);
        for extent in [Some(moved), rest].into_iter().flatten() {
            let before = self.extents.range(..extent.first).next_back();
            let joined = match before {
                Some((_, before)) if before.generation == extent.generation => before.extended(&extent),
                _ => extent,
            };
            touched.push(joined.first);
            self.extents.insert(joined.first, joined);
        }
        touched
    }

    /// The first event from `seq` on that is leased or released.
    pub(super) fn open_from(&self, seq: u64) -> Option<u64> {
        let leased = self.leased.range(seq..).next().map(|(&seq, _)| seq);
        let released = self.released.range(seq..).next().copied();
        [leased, released].into_iter().flatten().min()
    }

    /// Whether an event within an extent has not ended.
    pub(super) fn is_live(&self, seq: u64) -> bool {
        self.unread.is_some_and(|first| seq >= first)
            || self.leased.contains_key(&seq)
            || self.released.contains(&seq)
    }

    /// Whether an event is on lease.
    pub(super) fn is_leased(&self, seq: u64) -> bool {
        self.leased.contains_key(&seq)
    }

    /// Whether anything is on lease that is not deferred.
    pub(super) fn is_in_use(&self) -> bool {
        self.leased.keys().any(|seq| !self.deferred.contains(seq))
    }

    /// How many of these events, which extents cover, have not ended. `end` is exclusive.
    pub(super) fn live_within(&self, from: u64, end: u64) -> u64 {
        if from >= end {
            return 0;
        }
        let unread = self.unread.map_or(0, |first| end.saturating_sub(first.max(from)));
        let open = self.leased.range(from..end).count() + self.released.range(from..end).count();
        unread + open as u64
    }

    /// What is to be written about the lane, given the first event that is being added to it.
    pub(super) fn cursor(&self, adding: Option<u64>) -> Cursor {
        let open = self.leased.keys().chain(&self.released).copied().collect();
        Cursor {
            next: self.unread.or(adding).unwrap_or(self.end),
            open,
        }
    }

    /// Where the lane's events lie, in their order.
    pub(super) fn extents(&self) -> &BTreeMap<u64, Extent> {
        &self.extents
    }

    /// Where an event that has not ended lies.
    pub(super) fn place(&self, seq: u64) -> Option<Extent> {
        let (_, extent) = self.extents.range(..=seq).next_back()?;
        (seq <= extent.last).then_some(*extent)
    }

    /// The first sequence of the extent after the one that starts with `first`.
    pub(super) fn first_after(&self, first: u64) -> Option<u64> {
        self.extents.range(first + 1..).next().map(|(&first, _)| first)
    }

    /// The first event that has not ended and is not deferred: what holds back later feedback.
    pub(super) fn first_in_the_way(&self) -> Option<u64> {
        let mut leased = self.leased.keys();
        let leased = leased.find(|seq| !self.deferred.contains(seq));
        let released = self.released.first();
        [leased, released, self.unread.as_ref()]
            .into_iter()
            .flatten()
            .min()
            .copied()
    }

    /// Lets feedback pass a leased event, until that is released or has ended.
    pub(super) fn defer(&mut self, seq: u64) {
        if self.leased.contains_key(&seq) {
            self.deferred.insert(seq);
        }
    }

    /// The first event that has not ended.
    pub(super) fn first_unsettled(&self) -> Option<u64> {
        let leased = self.leased.keys().next();
        let released = self.released.first();
        [leased, released, self.unread.as_ref()]
            .into_iter()
            .flatten()
            .min()
            .copied()
    }

    /// The first event that has not ended, and the last of the lane; `None` if all have ended.
    pub(super) fn pending(&self) -> Option<(u64, u64)> {
        Some((self.first_unsettled()?, self.end.saturating_sub(1)))
    }

    /// Events that wait to be given out again, in order.
    pub(super) fn released(&self) -> impl Iterator<Item = u64> {
        self.released.iter().copied()
    }

    /// The first event that was never leased.
    pub(super) fn unread(&self) -> Option<u64> {
        self.unread
    }

    /// How many more events may be taken from the unread ones.
    pub(super) fn room(&self) -> usize {
        MAX_OPEN.saturating_sub(self.leased.len() + self.released.len())
    }

    /// Gives events out. `unread` is the first event that was then never leased.
    pub(super) fn lease(&mut self, events: impl Iterator<Item = (u64, u32)>, unread: Option<u64>) {
        for (seq, bytes) in events {
            self.released.remove(&seq);
            if self.leased.insert(seq, bytes).is_none() {
                self.leased_bytes += u64::from(bytes);
            }
        }
        self.read_until(unread);
    }

    /// `unread` is now the first event that was never leased.
    fn read_until(&mut self, unread: Option<u64>) {
        self.unread = unread;
        let next = self.unread.unwrap_or(self.end);
        while self.arrivals.front().is_some_and(|&(last, _)| last < next) {
            self.arrivals.pop_front();
        }
        if self.released.is_empty() {
            self.released_since = None;
        }
    }

    /// Takes a leased event back.
    pub(super) fn release(&mut self, seq: u64, now: Instant) {
        if let Some(bytes) = self.leased.remove(&seq) {
            self.deferred.remove(&seq);
            self.leased_bytes -= u64::from(bytes);
            self.released.insert(seq);
            self.released_since.get_or_insert(now);
        }
    }

    /// Ends a leased event. Gives the first sequence of its extent, and its generation; `None` if it was not leased.
    pub(super) fn settle(&mut self, seq: u64) -> Option<(u64, u64)> {
        let bytes = u64::from(self.leased.remove(&seq)?);
        self.deferred.remove(&seq);
        self.leased_bytes -= bytes;
        let place = self.place(seq)?;
        self.end_in(place.first, 1, bytes);
        Some((place.first, place.generation))
    }

    /// Ends events that are not on lease. Gives their extent.
    pub(super) fn drop_run(&mut self, run: &Run) -> Option<Extent> {
        let place = self.place(run.first)?;
        let unread = match run.source {
            Source::Unread { next } => next,
            Source::Released => {
                self.released
                    .retain(|seq| !(run.first..run.first + run.events).contains(seq));
                self.unread
            }
        };
        self.read_until(unread);
        self.end_in(place.first, run.events, run.bytes);
        Some(place)
    }

    /// Ends all of an extent that is not on lease. Gives how many events that were, and their payload bytes.
    pub(super) fn drop_extent(&mut self, first: u64) -> (u64, u64) {
        let Some(extent) = self.extents.get(&first).copied() else {
            return (0, 0);
        };
        let within = extent.first..=extent.last;
        let on_lease = self.leased.range(within.clone());
        let (leased, leased_bytes) =
            on_lease.fold((0, 0), |(n, sum), (_, &bytes)| (n + 1, sum + u64::from(bytes)));
        let events = extent.live.saturating_sub(leased);
        let bytes = extent.live_bytes.saturating_sub(leased_bytes);
        self.released.retain(|seq| !within.contains(seq));
        let unread = match self.unread.is_some_and(|seq| within.contains(&seq)) {
            true => self.first_after(first),
            false => self.unread,
        };
        self.read_until(unread);
        self.end_in(first, events, bytes);
        (events, bytes)
    }

    fn end_in(&mut self, extent: u64, events: u64, bytes: u64) {
        self.live -= events;
        self.live_bytes -= bytes;
        let Some(extent) = self.extents.get_mut(&extent) else {
            return;
        };
        extent.live = extent.live.saturating_sub(events);
        extent.live_bytes = extent.live_bytes.saturating_sub(bytes);
        if extent.live == 0 {
            let first = extent.first;
            self.extents.remove(&first);
        }
    }

    /// Whether the event was on lease and waits to be given out again.
    pub(super) fn is_released(&self, seq: u64) -> bool {
        self.released.contains(&seq)
    }

    /// The first event that is not on lease.
    pub(super) fn first_idle(&self) -> Option<u64> {
        self.released.first().copied().or(self.unread)
    }

    /// The first event that is not on lease after a released one.
    pub(super) fn idle_after(&self, released: u64) -> Option<u64> {
        self.released
            .range(released + 1..)
            .next()
            .copied()
            .or(self.unread)
    }

    /// What is on lease, in order.
    pub(super) fn leased(&self) -> impl Iterator<Item = u64> {
        self.leased.keys().copied()
    }

    /// Payload bytes on lease.
    pub(super) fn leased_bytes(&self) -> u64 {
        self.leased_bytes
    }

    /// Whether an event is on lease, and how many of the lane that have not ended come before it, but for those in its own
    /// extent that were never leased; `None` if it has ended.
    pub(super) fn standing(&self, seq: u64) -> Option<(bool, u64)> {
        let place = self.place(seq).filter(|_| self.is_live(seq))?;
        let before: u64 = self.extents.range(..place.first).map(|(_, x)| x.live).sum();
        let open =
            self.leased.range(place.first..seq).count() + self.released.range(place.first..seq).count();
        Some((self.leased.contains_key(&seq), before + open as u64))
    }

    /// Events that have not ended.
    pub(super) fn live(&self) -> u64 {
        self.live
    }

    /// Payload bytes of the events that have not ended.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// What can be leased if only events below `gate` may go, and no more than [`LaneQueue::room`] of the unread ones.
    /// The events are exact if the gate is behind everything, otherwise an upper bound that is zero exactly if
    /// there is nothing. Without the room, a lane that had run out of it would never be seen to have more.
    pub(super) fn ready(&self, gate: u64) -> Ready {
        let all_released = self.released.len() as u64;
        let all_unread = self.live - self.leased.len() as u64 - all_released;
        let bytes = self.live_bytes - self.leased_bytes;
        let (released, unread) = if gate >= self.end {
            (all_released, all_unread)
        } else {
            let below = self.unread.map_or(0, |first| gate.saturating_sub(first));
            (self.released.range(..gate).count() as u64, all_unread.min(below))
        };
        let events = released + unread.min(self.room() as u64);
        if events == 0 {
            return Ready::default();
        }
        let arrived = self.arrivals.front().map(|&(_, at)| at);
        let oldest = [arrived, self.released_since].into_iter().flatten().min();
        Ready {
            events,
            bytes,
            oldest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(generation: u64, first: u64, last: u64, live_bytes: u64) -> Extent {
        Extent {
            generation,
            first,
            last,
            live: last - first + 1,
            live_bytes,
        }
    }

    #[test]
    fn the_cursor_names_what_is_open_and_recovers_to_the_same_state() {
        let now = Instant::now();
        let mut queue = LaneQueue::default();
        queue.append(&added(1, 1, 3, 30), now);
        queue.append(&added(2, 7, 8, 20), now);
        queue.lease([(1, 10), (2, 10), (3, 10)].into_iter(), Some(7));
        queue.settle(2);
        queue.release(3, now);
        let cursor = queue.cursor(None);
        assert_eq!(
            cursor,
            Cursor {
                next: 7,
                open: [1, 3].into()
            }
        );
        assert_eq!(
            (queue.ready(u64::MAX).events, queue.ready(u64::MAX).bytes),
            (3, 30)
        );

        let again = LaneQueue::recovered(cursor, queue.extents().clone(), now);
        assert_eq!(
            (again.live(), again.live_bytes(), again.unread()),
            (4, 40, Some(7))
        );
        assert_eq!(again.released().collect::<Vec<_>>(), [1, 3]);
        assert_eq!(again.first_unsettled(), Some(1));
    }

    #[test]
    fn a_gate_hides_what_stands_behind_it() {
        let now = Instant::now();
        let mut queue = LaneQueue::default();
        queue.append(&added(1, 10, 12, 3), now);
        assert_eq!(queue.ready(10), Ready::default());
        assert_eq!(queue.ready(12).events, 2);
        assert_eq!(queue.ready(u64::MAX).events, 3);
    }

    #[test]
    fn a_deferred_event_holds_back_nothing_until_it_is_released() {
        let now = Instant::now();
        let mut queue = LaneQueue::default();
        queue.append(&added(1, 1, 3, 30), now);
        queue.lease([(1, 10), (2, 10)].into_iter(), Some(3));
        queue.defer(1);
        assert_eq!(
            (queue.first_in_the_way(), queue.first_unsettled()),
            (Some(2), Some(1))
        );
        queue.settle(2);
        assert_eq!(queue.first_in_the_way(), Some(3));
        queue.release(1, now);
        assert_eq!(queue.first_in_the_way(), Some(1));
        queue.lease([(1, 10), (3, 10)].into_iter(), None);
        assert_eq!(
            queue.first_in_the_way(),
            Some(1),
            "a lease of its own is another matter"
        );
        queue.defer(1);
        queue.settle(1);
        queue.defer(1);
        queue.settle(3);
        assert_eq!((queue.first_in_the_way(), queue.deferred.len()), (None, 0));
    }

    #[test]
    fn an_extent_leaves_with_its_last_event() {
        let mut queue = LaneQueue::default();
        queue.append(&added(4, 1, 1, 5), Instant::now());
        queue.lease([(1, 5)].into_iter(), None);
        assert_eq!(queue.settle(1), Some((1, 4)));
        assert!(queue.extents().is_empty());
        assert_eq!(queue.settle(1), None);
        assert_eq!((queue.live(), queue.cursor(None).next), (0, 2));
    }

    #[test]
    fn what_is_moved_on_keeps_its_place_in_the_lane() {
        let now = Instant::now();
        let mut queue = LaneQueue::default();
        queue.append(&added(1, 1, 10, 100), now);
        queue.append(&added(2, 20, 29, 100), now);
        queue.append(&added(5, 40, 49, 100), now);
        let (moved, rest) = (added(5, 1, 4, 40), added(1, 5, 10, 60));
        assert_eq!(queue.relocate(1, moved, Some(rest)), [1, 1, 5]);
        assert_eq!((queue.place(4), queue.place(5)), (Some(moved), Some(rest)));
        assert_eq!(queue.first_after(1), Some(5));
        // The rest follows: one extent again, since nothing lies between in another generation.
        assert_eq!(queue.relocate(5, added(5, 5, 10, 60), None), [5, 1]);
        assert_eq!(queue.place(10), Some(added(5, 1, 10, 100)));
        assert_eq!(queue.place(15), None);
        assert_eq!(queue.first_after(1), Some(20));
        assert_eq!((queue.live(), queue.live_bytes()), (30, 300));
    }
}
