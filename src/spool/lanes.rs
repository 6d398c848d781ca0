//! All lanes of the spool in memory, their numbers on disk, and which of them changed since the last commit.
use super::durable::Writes;
use super::key;
use super::meta::{Extent, encode_lane};
use super::projects::Projects;
use super::queue::{LaneQueue, Run};
use super::view::LaneView;
use crate::ids::{Kind, Lane};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// One lane as the owning thread knows it.
pub(super) struct LaneState {
    pub(super) lane: Lane,
    pub(super) queue: LaneQueue,
    pub(super) view: LaneView,
    /// The other kind of the same project.
    peer: Option<u32>,
}

/// What one commit adds to a lane.
pub(super) struct Addition {
    pub(super) lane: u32,
    pub(super) extent: Extent,
}

/// What has not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) events: u64,
    /// Payload bytes.
    pub(super) bytes: u64,
}

/// How some lanes stood, to undo what a failed commit was to end.
#[derive(Default)]
pub(super) struct Memo {
    queues: BTreeMap<u32, LaneQueue>,
    live: BTreeMap<u64, Live>,
    live_bytes: u64,
}

/// Writes all that there is to say about a lane.
pub(super) fn write_lane(writes: &mut Writes, number: u32, lane: &Lane, queue: &LaneQueue) {
    writes.set(key::lane(number), &encode_lane(number, lane));
    writes.set(key::cursor(number), &queue.cursor(None).encode(number));
    for extent in queue.extents().values() {
        writes.set(key::extent(number, extent.first), &extent.encode(number));
    }
}

/// All lanes. A lane's number is its place in the list.
#[derive(Default)]
pub(super) struct Lanes {
    list: Vec<LaneState>,
    numbers: HashMap<Lane, u32>,
    /// Lanes whose cursor changed since the last commit.
    cursors: BTreeSet<u32>,
    /// Extents that changed since the last commit.
    extents: BTreeSet<(u32, u64)>,
    /// Lanes whose name is not durable yet.
    unnamed: BTreeSet<u32>,
    /// What has not ended, by generation.
    live: BTreeMap<u64, Live>,
    live_bytes: u64,
    /// Lanes that could not be read, and when they are tried again.
    unreadable: BTreeMap<u32, Instant>,
    /// Those of them that are so because somebody moves their project.
    claimed: BTreeSet<u32>,
    /// Who is told which projects there are, and which of them have work.
    projects: Option<Arc<Projects>>,
    /// A lane got work that had none.
    woken: AtomicBool,
}

impl Lanes {
    /// Adds a lane found on disk. Lanes must come in the order of their numbers.
    pub(super) fn recover(&mut self, lane: Lane, queue: LaneQueue) {
        for extent in queue.extents().values() {
            self.add_live(extent);
        }
        self.live_bytes += queue.live_bytes();
        self.push(lane, queue);
    }

    fn add_live(&mut self, extent: &Extent) {
        let live = self.live.entry(extent.generation).or_default();
        live.events += extent.live;
        live.bytes += extent.live_bytes;
    }

    fn take_live(&mut self, generation: u64, events: u64, bytes: u64) {
        if let Some(live) = self.live.get_mut(&generation) {
            live.events = live.events.saturating_sub(events);
            live.bytes = live.bytes.saturating_sub(bytes);
            if live.events == 0 {
                self.live.remove(&generation);
            }
        }
    }

    fn push(&mut self, lane: Lane, queue: LaneQueue) -> u32 {
        let number = self.list.len() as u32;
        let other = match lane.kind {
            Kind::Log => Kind::Feedback,
            Kind::Feedback => Kind::Log,
        };
        let peer = self.number(&Lane {
            project: lane.project.clone(),
            kind: other,
        });
        if let Some(peer) = peer.and_then(|peer| self.get_mut(peer)) {
            peer.peer = Some(number);
        }
        self.numbers.insert(lane.clone(), number);
        let view = LaneView::new(lane.clone());
        self.list.push(LaneState {
            lane,
            queue,
            view,
            peer,
        });
        number
    }

    /// Number of a lane; a new one if it was never used.
    pub(super) fn number_or_new(&mut self, lane: &Lane) -> u32 {
        if let Some(number) = self.number(lane) {
            return number;
        }
        let number = self.push(lane.clone(), LaneQueue::default());
        self.unnamed.insert(number);
        number
    }

    /// Number of a lane that was used before.
    pub(super) fn number(&self, lane: &Lane) -> Option<u32> {
        self.numbers.get(lane).copied()
    }

    pub(super) fn get(&self, number: u32) -> Option<&LaneState> {
        self.list.get(number as usize)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut LaneState> {
        self.list.get_mut(number as usize)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &LaneState> {
        self.list.iter()
    }

    /// How many lanes there are.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Events that have not ended, in all lanes.
    pub(super) fn live(&self) -> u64 {
        self.live.values().map(|live| live.events).sum()
    }

    /// Their payload bytes.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// What has not ended in a generation.
    pub(super) fn live_in(&self, generation: u64) -> Live {
        self.live.get(&generation).copied().unwrap_or_default()
    }

    /// Ends a leased event; whether it was leased.
    pub(super) fn settle(&mut self, number: u32, seq: u64) -> bool {
        let Some(queue) = self.get_mut(number).map(|state| &mut state.queue) else {
            return false;
        };
        let before = queue.live_bytes();
        let Some((first, generation)) = queue.settle(seq) else {
            return false;
        };
        let ended_bytes = before - queue.live_bytes();
        self.live_bytes -= ended_bytes;
        self.take_live(generation, 1, ended_bytes);
        self.cursors.insert(number);
        self.extents.insert((number, first));
        true
    }

    /// Ends events that are not on lease.
    pub(super) fn drop_run(&mut self, run: &Run) {
        let Some(extent) = self.get_mut(run.lane).and_then(|state| state.queue.drop_run(run)) else {
            return;
        };
        self.ended(run.lane, &extent, run.events, run.bytes);
    }

    /// Ends all of a lane's events in a generation that are not on lease. Gives how many that were.
    pub(super) fn drop_generation(&mut self, number: u32, generation: u64) -> u64 {
        let Some(state) = self.get_mut(number) else {
            return 0;
        };
        let extents = state.queue.extents().values();
        let extents: Vec<Extent> = extents.filter(|x| x.generation == generation).copied().collect();
        let mut dropped = 0;
        for extent in extents {
            let Some(state) = self.get_mut(number) else { break };
            let (events, bytes) = state.queue.drop_extent(extent.first);
            self.ended(number, &extent, events, bytes);
            dropped += events;
        }
        dropped
    }

    fn ended(&mut self, number: u32, extent: &Extent, events: u64, bytes: u64) {
        self.live_bytes -= bytes;
        self.take_live(extent.generation, events, bytes);
        self.cursors.insert(number);
        self.extents.insert((number, extent.first));
    }

    /// How these lanes stand.
    pub(super) fn memo(&self, numbers: impl Iterator<Item = u32>) -> Memo {
        let queues = numbers.filter_map(|number| Some((number, self.get(number)?.queue.clone())));
        Memo {
            queues: queues.collect(),
            live: self.live.clone(),
            live_bytes: self.live_bytes,
        }
    }

    /// Back to how the lanes stood. What was to be written about them still is: it says how they stand then.
    pub(super) fn restore(&mut self, memo: Memo) {
        if memo.queues.is_empty() {
            return;
        }
        self.live = memo.live;
        self.live_bytes = memo.live_bytes;
        for (number, queue) in memo.queues {
            if let Some(state) = self.get_mut(number) {
                state.queue = queue;
            }
        }
    }

    /// First event that is not on lease and lane number, of each lane that has one and can be read.
    pub(super) fn first_idle(&self) -> impl Iterator<Item = (u64, u32)> {
        let lanes = (0u32..).zip(&self.list);
        lanes
            .filter(|(number, _)| !self.is_unreadable(*number))
            .filter_map(|(number, state)| Some((state.queue.first_idle()?, number)))
    }

    /// Payload bytes on lease.
    pub(super) fn leased_bytes(&self) -> u64 {
        self.list.iter().map(|state| state.queue.leased_bytes()).sum()
    }

    /// How many events are on lease in each generation.
    pub(super) fn leased_by_generation(&self) -> BTreeMap<u64, u64> {
        let mut leased = BTreeMap::new();
        for queue in self.list.iter().map(|state| &state.queue) {
            for place in queue.leased().filter_map(|seq| queue.place(seq)) {
                *leased.entry(place.generation).or_default() += 1;
            }
        }
        leased
    }

    /// Generations that hold anything that has not ended.
    pub(super) fn generations(&self) -> impl Iterator<Item = u64> {
        self.live.keys().copied()
    }

    /// Lanes that have events in a generation.
    pub(super) fn in_generation(&self, generation: u64) -> Vec<u32> {
        let lies_there =
            |state: &LaneState| state.queue.extents().values().any(|x| x.generation == generation);
        let lanes = (0u32..).zip(&self.list);
        let lanes = lanes.filter(|(_, state)| lies_there(state));
        lanes.map(|(number, _)| number).collect()
    }

    /// Says that the head of an extent lies elsewhere now.
    pub(super) fn relocate(&mut self, number: u32, from: Extent, moved: Extent, rest: Option<Extent>) {
        self.take_live(from.generation, from.live, from.live_bytes);
        for extent in std::iter::once(&moved).chain(&rest) {
            self.add_live(extent);
        }
        if let Some(state) = self.get_mut(number) {
            let touched = state.queue.relocate(from.first, moved, rest);
            self.extents
                .extend(touched.into_iter().map(|first| (number, first)));
        }
    }

    /// Sequences below this may be given out: for feedback those before the first log of the project that has not
    /// ended and is not deferred.
    pub(super) fn gate(&self, number: u32) -> u64 {
        self.get(number)
            .filter(|state| state.lane.kind == Kind::Feedback)
            .and_then(|state| self.get(state.peer?)?.queue.first_in_the_way())
            .unwrap_or(u64::MAX)
    }

    /// Lets feedback pass leased events. Gives the lanes that changed.
    pub(super) fn defer(&mut self, events: &[(u32, u64)]) -> BTreeSet<u32> {
        for &(lane, seq) in events {
            if let Some(state) = self.get_mut(lane) {
                state.queue.defer(seq);
            }
        }
        events.iter().map(|&(lane, _)| lane).collect()
    }

    /// Whether anything of the lane is on lease but for what is deferred, which may be so for days.
    pub(super) fn is_in_use(&self, number: u32) -> bool {
        self.get(number).is_some_and(|state| state.queue.is_in_use())
    }

    /// The lane may be read again.
    pub(super) fn set_readable(&mut self, number: u32) {
        self.unreadable.remove(&number);
        self.claimed.remove(&number);
    }

    /// Nothing is read from the lane until this moment, but by who moves its project.
    pub(super) fn set_claimed(&mut self, number: u32, until: Instant) {
        self.set_unreadable(number, until);
        self.claimed.insert(number);
    }

    /// Nothing is read from the lane until this moment.
    pub(super) fn set_unreadable(&mut self, number: u32, until: Instant) {
        self.unreadable.insert(number, until);
    }

    /// Whether the lane could not be read and is not yet to be tried again.
    pub(super) fn is_unreadable(&self, number: u32) -> bool {
        self.unreadable.contains_key(&number)
    }

    /// When a lane is next to be tried again.
    pub(super) fn next_readable(&self) -> Option<Instant> {
        self.unreadable.values().min().copied()
    }

    /// Lanes that are to be tried again now.
    pub(super) fn readable_again(&mut self, now: Instant) -> Vec<u32> {
        let over = self.unreadable.extract_if(.., |_, until| *until <= now);
        let over: Vec<u32> = over.map(|(number, _)| number).collect();
        over.iter().for_each(|&number| self.set_readable(number));
        over
    }

    /// Whether a lane got work since this was last asked.
    pub(super) fn take_woken(&self) -> bool {
        self.woken.swap(false, Ordering::Relaxed)
    }

    /// Tells of all lanes, and from now on of each that gets work or has none any more.
    pub(super) fn introduce_to(&mut self, projects: &Arc<Projects>) {
        for state in &self.list {
            projects.introduce(&state.lane);
        }
        self.projects = Some(Arc::clone(projects));
    }

    /// Shows a lane's figures, and those of the feedback lane that it may hold back.
    pub(super) fn publish(&self, number: u32) {
        let Some(state) = self.get(number) else { return };
        let ready = match self.is_unreadable(number) {
            false => state.queue.ready(self.gate(number)),
            true => Default::default(),
        };
        let (had_work, has_work) = (state.view.queued() > 0, state.queue.live() > 0);
        state
            .view
            .publish(ready, state.queue.live(), state.queue.pending());
        if !had_work && has_work {
            self.woken.store(true, Ordering::Relaxed);
        }
        if had_work != has_work
            && let Some(projects) = &self.projects
        {
            projects.note(&state.lane, has_work);
        }
        state.view.set_claimed(self.claimed.contains(&number));
        if state.lane.kind == Kind::Log
            && let Some(peer) = state.peer
        {
            self.publish(peer);
        }
    }

    /// Writes all that there is to say about lanes, for the start of a generation.
    pub(super) fn write_all(&self, writes: &mut Writes) {
        for (number, state) in (0u32..).zip(&self.list) {
            write_lane(writes, number, &state.lane, &state.queue);
        }
    }

    /// Puts a lane in the place of what it was, to be written with the next commit.
    pub(super) fn replace(&mut self, number: u32, queue: LaneQueue) {
        let Some(state) = self.list.get_mut(number as usize) else {
            return;
        };
        let before = std::mem::replace(&mut state.queue, queue);
        self.live_bytes = self.live_bytes - before.live_bytes() + state.queue.live_bytes();
        let after: Vec<Extent> = state.queue.extents().values().copied().collect();
        for extent in before.extents().values() {
            self.take_live(extent.generation, extent.live, extent.live_bytes);
        }
        for extent in &after {
            self.add_live(extent);
        }
        let touched = before.extents().values().chain(&after);
        self.extents.extend(touched.map(|extent| (number, extent.first)));
        self.cursors.insert(number);
        self.set_readable(number);
    }

    /// Writes what changed since the last commit, and what the next one adds.
    pub(super) fn write_changed(&self, writes: &mut Writes, additions: &[Addition]) {
        for &number in &self.unnamed {
            if let Some(state) = self.get(number) {
                writes.set(key::lane(number), &encode_lane(number, &state.lane));
            }
        }
        for &number in &self.cursors {
            if let Some(state) = self.get(number) {
                writes.set(key::cursor(number), &state.queue.cursor(None).encode(number));
            }
        }
        for &(number, first) in &self.extents {
            match self
                .get(number)
                .and_then(|state| state.queue.extents().get(&first))
            {
                Some(extent) => writes.set(key::extent(number, first), &extent.encode(number)),
                None => writes.remove(key::extent(number, first)),
            }
        }
        for addition in additions {
            let Some(state) = self.get(addition.lane) else {
                continue;
            };
            let extent = state.queue.appended(&addition.extent);
            writes.set(
                key::extent(addition.lane, extent.first),
                &extent.encode(addition.lane),
            );
            if state.queue.unread().is_none() {
                let cursor = state.queue.cursor(Some(addition.extent.first));
                writes.set(key::cursor(addition.lane), &cursor.encode(addition.lane));
            }
        }
    }

    /// What was written is durable.
    pub(super) fn committed(&mut self, additions: &[Addition], now: Instant) {
        self.cursors.clear();
        self.extents.clear();
        self.unnamed.clear();
        for addition in additions {
            self.add_live(&addition.extent);
            self.live_bytes += addition.extent.live_bytes;
            if let Some(state) = self.get_mut(addition.lane) {
                state.queue.append(&addition.extent, now);
            }
        }
    }
}
