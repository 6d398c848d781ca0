//! The thread that owns sled: takes commands, groups what waits, commits.
use super::command::Command;
use super::dead::DeadLetters;
use super::disk::Disk;
use super::drop_log::DropLog;
use super::generation::Generations;
use super::group::{Funeral, Group, Prepared};
use super::lanes::Lanes;
use super::lease::{Abandoned, Leased};
use super::lock::FolderLock;
use super::mark::MarkFile;
use super::meta::Head;
use super::quarantine::Quarantine;
use super::read::ChunkCache;
use super::requeue::Note;
use super::room::{FREE_CHECK_EVERY, Room};
use super::view::{Damage, LaneView, Shared, locked};
use super::{AppendError, Burial, DeadLetter};
use crate::ids::Seq;
use crate::ledger::Ledger;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{oneshot, watch};

/// Longest that a settling waits for an append to ride along with.
pub(super) const SETTLE_WITHIN: Duration = Duration::from_millis(5);
/// How often dead letters are looked through for those over their age.
const DEAD_CHECK_EVERY: Duration = Duration::from_secs(60);
/// Most commands that are handled before a commit, so that an append does not wait behind many leases.
const MAX_GROUP_COMMANDS: usize = 1_024;

/// Storage does not work at the moment.
pub(super) struct Failure {
    pub(super) sentence: String,
    pub(super) retry_at: Instant,
}

/// All that the thread owns. Nothing here is shared but through [`Shared`].
pub(super) struct Owner {
    pub(super) commands: Receiver<Command>,
    /// Only for its timer.
    pub(super) runtime: tokio::runtime::Runtime,
    pub(super) disk: Disk,
    pub(super) shared: Arc<Shared>,
    /// Here alone, so that who waits for lanes learns it when the thread is gone.
    pub(super) views: watch::Sender<Arc<Vec<LaneView>>>,
    pub(super) abandoned: Arc<Abandoned>,
    pub(super) generations: Generations,
    pub(super) mark: MarkFile,
    pub(super) quarantine: Quarantine,
    pub(super) dead: DeadLetters,
    pub(super) requeued: Note,
    pub(super) lanes: Lanes,
    pub(super) head: Head,
    pub(super) room: Room,
    /// Bytes at which a generation is sealed.
    pub(super) generation_bytes: u64,
    pub(super) drop_log: DropLog,
    pub(super) cache: ChunkCache,
    pub(super) funerals: Vec<Funeral>,
    pub(super) failure: Option<Failure>,
    /// The dead letters do not work at the moment; all else may.
    pub(super) dead_failure: Option<Failure>,
    /// When something changed that no commit has written yet.
    pub(super) dirty_since: Option<Instant>,
    pub(super) dead_check_at: Instant,
    /// Why a lane could last not be read, so that it is logged once.
    pub(super) unread_reason: Option<String>,
    /// Generations that cannot be read, and are to be salvaged.
    pub(super) damaged: BTreeSet<u64>,
    /// There may be more to move on.
    pub(super) moving: bool,
    /// Lanes that are shown to others.
    pub(super) shown: usize,
    pub(super) lock: FolderLock,
}

enum Next {
    Command(Command),
    TimeOut,
    Closed,
}

impl Owner {
    /// Works until the spool is closed or every handle is gone. The last thing that is given back is the lock.
    pub(super) fn run(mut self) {
        let mut farewell = None;
        while farewell.is_none() {
            let mut group = Group::default();
            match self.next() {
                Next::Command(command) => farewell = self.handle(command, &mut group),
                Next::TimeOut => {}
                Next::Closed => break,
            }
            let mut handled = 1;
            while farewell.is_none() && !group.is_full() && handled < MAX_GROUP_COMMANDS {
                match self.commands.try_recv() {
                    Ok(command) => farewell = self.handle(command, &mut group),
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
                handled += 1;
            }
            self.after_commands(group);
        }
        self.finish(farewell);
    }

    /// Waits for a command, or until something is due.
    fn next(&mut self) -> Next {
        let command = match self.due() {
            None => self.commands.blocking_recv(),
            Some(due) => {
                let commands = &mut self.commands;
                let waited = self
                    .runtime
                    .block_on(async { tokio::time::timeout_at(due.into(), commands.recv()).await });
                match waited {
                    Ok(command) => command,
                    Err(_) => return Next::TimeOut,
                }
            }
        };
        command.map_or(Next::Closed, Next::Command)
    }

    /// When the thread must look again without being asked.
    fn due(&self) -> Option<Instant> {
        let commit = match &self.failure {
            Some(failure) => Some(failure.retry_at),
            None => self.dirty_since.map(|since| since + SETTLE_WITHIN),
        };
        let funerals = self.funerals_due_at();
        let room = self.room.full().map(|_| Instant::now() + FREE_CHECK_EVERY);
        let unreadable = self.lanes.next_readable();
        let told = self.drop_log.due(Instant::now());
        let letters = locked(&self.shared.letter_log).due(Instant::now());
        let moving = self.moving.then(Instant::now);
        [
            commit,
            funerals,
            room,
            unreadable,
            told,
            letters,
            moving,
            Some(self.dead_check_at),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what a command asks. Gives the reply to a close.
    fn handle(&mut self, command: Command, group: &mut Group) -> Option<oneshot::Sender<()>> {
        match command {
            Command::Append { append, reply } => self.take_append(append, reply, group),
            Command::Lease { lane, limits, reply } => {
                // Leases of a caller that has gone away are released as they are dropped.
                let _ = reply.send(self.lease(&lane, &limits, Instant::now()));
            }
            Command::Claim {
                project,
                last,
                limits,
                reply,
            } => {
                let _ = reply.send(self.claim(&project, last, &limits, Instant::now()));
            }
            Command::Settle { events, reply } => {
                self.settle(events);
                let _ = reply.send(());
            }
            Command::Release { events, reply } => {
                self.release(
                    events
                        .into_iter()
                        .map(Leased::end)
                        .map(|(lane, seq, _)| (lane, seq)),
                );
                let _ = reply.send(());
            }
            Command::Defer { events, reply } => {
                let touched = self.lanes.defer(&events);
                self.publish_lanes(touched);
                let _ = reply.send(());
            }
            Command::Bury { events, reply } => self.take_funeral(events, reply),
            Command::DeadLetters { after, limit, reply } => {
                let _ = reply.send(self.list_letters(after, limit));
            }
            Command::Requeue { letters, reply } => {
                let _ = reply.send(self.requeue(letters, group, Instant::now()));
            }
            Command::Transfer { events, to, reply } => {
                let _ = reply.send(self.transfer(events, &to, Instant::now()));
            }
            Command::Purge { numbers, reply } => {
                let _ = reply.send(self.purge(&numbers));
            }
            Command::Layout { reply } => {
                let _ = reply.send(self.layout());
            }
            Command::ReadOn {
                lane,
                from,
                last,
                reply,
            } => {
                let _ = reply.send(self.read_on(lane, from, last));
            }
            Command::Standing { lane, seq, reply } => {
                let _ = reply.send(self.standing(lane, seq));
            }
            Command::Ping { reply } => {
                let _ = reply.send(());
            }
            Command::Tidy => {}
            Command::Close { reply } => return Some(reply),
        }
        self.release_abandoned();
        None
    }

    fn take_append(
        &mut self,
        append: Prepared,
        reply: oneshot::Sender<Result<(), AppendError>>,
        group: &mut Group,
    ) {
        if let Some(sentence) = self.refuses_refused(&append) {
            let _ = reply.send(Err(AppendError::Storage(sentence)));
            return;
        }
        match self.admit(&append, group, Instant::now()) {
            Ok(()) => group.add(append, reply),
            Err(sentence) => {
                self.publish_refusal();
                let _ = reply.send(Err(AppendError::Full(sentence)));
            }
        }
    }

    fn settle(&mut self, events: Vec<Leased>) {
        let mut touched = BTreeSet::new();
        for (lane, seq, _) in events.into_iter().map(Leased::end) {
            // One that is not on lease any more was lost with a damaged generation.
            if self.lanes.settle(lane, seq) || self.head.find_again() {
                self.head.delivered += 1;
                touched.insert(lane);
            }
        }
        if !touched.is_empty() {
            self.mark_dirty();
        }
        self.publish_lanes(touched);
    }

    pub(super) fn release(&mut self, events: impl Iterator<Item = (u32, u64)>) {
        let now = Instant::now();
        let mut touched = BTreeSet::new();
        for (lane, seq) in events {
            if let Some(state) = self.lanes.get_mut(lane) {
                state.queue.release(seq, now);
                touched.insert(lane);
            }
        }
        self.publish_lanes(touched);
    }

    fn release_abandoned(&mut self) {
        let abandoned = self.abandoned.take();
        if !abandoned.is_empty() {
            self.release(abandoned.into_iter());
        }
    }

    fn take_funeral(&mut self, events: Vec<(Leased, Burial)>, reply: oneshot::Sender<()>) {
        let buried_at_ms = (self.disk.now_ms)();
        let letters = events.into_iter().filter_map(|(leased, burial)| {
            let (number, seq, record) = leased.end();
            let lane = self.lanes.get(number)?.lane.clone();
            let record = record.to_vec();
            Some((
                number,
                DeadLetter {
                    seq: Seq(seq),
                    lane,
                    buried_at_ms,
                    burial,
                    record,
                },
            ))
        });
        let letters = letters.collect();
        self.funerals.push(Funeral { letters, reply });
        self.mark_dirty();
    }

    pub(super) fn mark_dirty(&mut self) {
        self.dirty_since.get_or_insert_with(Instant::now);
    }

    /// Commits if somebody waits for it or it is due, then looks at what time alone changes.
    fn after_commands(&mut self, group: Group) {
        let now = Instant::now();
        let settle_due = self.dirty_since.is_some_and(|since| now >= since + SETTLE_WITHIN);
        let retry_due = self
            .failure
            .as_ref()
            .is_some_and(|failure| now >= failure.retry_at);
        let in_the_way = self.newest_is_in_the_way();
        if !group.is_empty() || settle_due || retry_due || in_the_way || self.are_funerals_due(now) {
            self.commit(group);
        }
        self.salvage_damaged(now);
        self.moving = self.move_on(now);
        for lane in self.lanes.readable_again(now) {
            self.lanes.publish(lane);
        }
        if now >= self.dead_check_at {
            self.dead_check_at = now + DEAD_CHECK_EVERY;
            self.look_after_letters(now);
            self.publish_dropped_letters();
            // The operator may have deleted what lies in quarantine.
            self.publish_damage();
        }
        self.recheck_room(now);
        self.tell_dropped(now, false);
        self.report_letters(now, false);
        self.publish_refusal();
    }

    pub(super) fn publish_lanes(&self, lanes: impl IntoIterator<Item = u32>) {
        for lane in lanes {
            self.lanes.publish(lane);
        }
        if self.lanes.take_woken() {
            self.views.send_modify(|_| {});
        }
    }

    /// Shows the account as of a commit, and lanes that are new.
    pub(super) fn publish_account(&mut self) {
        *locked(&self.shared.ledger) = Ledger {
            accepted: self.head.accepted,
            delivered: self.head.delivered,
            dead: self.head.dead,
            dropped: self.head.dropped,
            queued: self.lanes.live(),
        };
        self.shared
            .live_bytes
            .store(self.lanes.live_bytes(), Ordering::Relaxed);
        self.publish_dropped_letters();
        if self.shown < self.lanes.len() {
            self.shown = self.lanes.len();
            let views = self.lanes.iter().map(|state| state.view.clone()).collect();
            self.views.send_replace(Arc::new(views));
        }
    }

    fn publish_dropped_letters(&self) {
        self.shared
            .dropped_letters
            .store(self.dead.dropped(), Ordering::Relaxed);
    }

    /// Shows what became of damaged files.
    pub(super) fn publish_damage(&self) {
        *locked(&self.shared.damage) = Damage {
            saved: self.head.saved,
            lost: self.head.lost,
            quarantined: self.quarantine.names(),
        };
    }

    /// Shows whether anything is accepted. Before any answer, so that nobody knows it earlier.
    pub(super) fn publish_refusal(&self) {
        let failed = self.failure.as_ref().map(|failure| &failure.sentence);
        let refusal = failed.or(self.room.full());
        let mut shown = locked(&self.shared.refusing);
        if shown.as_ref() != refusal {
            *shown = refusal.cloned();
        }
    }

    /// Final commit; everything is closed and the lock given back before the farewell is answered.
    fn finish(mut self, farewell: Option<oneshot::Sender<()>>) {
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Append { reply, .. } => {
                    let _ = reply.send(Err(AppendError::Closed));
                }
                Command::Lease { .. } | Command::Claim { .. } | Command::Close { .. } => {}
                ending => {
                    self.handle(ending, &mut Group::default());
                }
            }
        }
        if self.dirty_since.is_some() || !self.funerals.is_empty() {
            self.commit(Group::default());
        }
        self.tell_dropped(Instant::now(), true);
        self.report_letters(Instant::now(), true);
        self.mark.sync();
        let Owner {
            generations,
            dead,
            lock,
            ..
        } = self;
        drop(generations);
        drop(dead);
        drop(lock);
        if let Some(farewell) = farewell {
            let _ = farewell.send(());
        }
    }
}
