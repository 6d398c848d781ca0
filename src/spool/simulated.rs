//! A spool without files, threads or wall clock, for simulations: another loop over the commands, around the real state in
//! memory (`lanes`, `queue`, `group`). What survives a kill is what was committed, as on a disk.

use super::command::Command;
use super::group::{Funeral, Group, Origins, Plan, Prepared};
use super::lanes::Lanes;
use super::lease::{Abandoned, Leased};
use super::meta::{Cursor, Extent};
use super::owner::SETTLE_WITHIN;
use super::projects::Projects;
use super::queue::LaneQueue;
use super::view::{LaneView, Shared, locked};
use super::{
    AppendError, DeadLetter, DeadPage, Entry, Inner, KeptLetter, MAX_WAITING_COMMANDS, Revived, Spool, chunk,
};
use crate::batch::Limits;
use crate::ids::{Lane, Seq};
use crate::ledger::Ledger;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// The generation that all lies in.
const GENERATION: u64 = 1;

/// What was committed. Outlives the spools that are opened on it.
#[derive(Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<Durable>>);

#[derive(Default)]
pub(crate) struct Durable {
    next_seq: u64,
    accepted: u64,
    delivered: u64,
    lanes: Vec<(Lane, Cursor, BTreeMap<u64, Extent>)>,
    /// Every event that was ever accepted, in order.
    pub(crate) records: BTreeMap<u64, (Lane, Bytes)>,
    /// Every letter that counts, by number.
    pub(crate) dead: BTreeMap<u64, DeadLetter>,
    next_letter: u64,
    /// The sequences of letters that were queued again, under other ones.
    pub(crate) revived: BTreeSet<u64>,
}

impl SimDisk {
    /// Looks at what was committed.
    pub(crate) fn look(&self) -> MutexGuard<'_, Durable> {
        locked(&self.0)
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

type Revival = oneshot::Sender<Result<Vec<u64>, AppendError>>;

struct Loop {
    disk: SimDisk,
    commands: mpsc::Receiver<Command>,
    lanes: Lanes,
    records: BTreeMap<(u32, u64), Bytes>,
    shared: Arc<Shared>,
    views: watch::Sender<Arc<Vec<LaneView>>>,
    abandoned: Arc<Abandoned>,
    funerals: Vec<Funeral>,
    next_seq: u64,
    ledger: Ledger,
    revivals: Vec<(Vec<Revived>, Revival)>,
    letters: BTreeMap<u64, DeadLetter>,
    next_letter: u64,
    revived: BTreeSet<u64>,
    dirty_since: Option<Instant>,
    shown: usize,
}

impl Spool {
    /// A spool on what a simulated disk holds, and its loop, which is to be run beside. Dropping the loop is a kill.
    pub(crate) fn simulated(disk: &SimDisk) -> (Spool, impl Future<Output = ()> + Send + 'static) {
        let (commands, receiver) = mpsc::channel(MAX_WAITING_COMMANDS);
        let shared = Arc::new(Shared::new(Projects::new(0, BTreeSet::new())));
        let mut this = Loop {
            disk: disk.clone(),
            commands: receiver,
            lanes: Lanes::default(),
            records: BTreeMap::new(),
            shared: Arc::clone(&shared),
            views: watch::Sender::new(Arc::default()),
            abandoned: Arc::new(Abandoned::new(commands.downgrade(), disk.look().next_seq)),
            funerals: Vec::new(),
            next_seq: 1,
            ledger: Ledger::default(),
            revivals: Vec::new(),
            letters: BTreeMap::new(),
            next_letter: 0,
            revived: BTreeSet::new(),
            dirty_since: None,
            shown: 0,
        };
        this.recover();
        let lanes = this.views.subscribe();
        let spool = Spool {
            inner: Arc::new(Inner {
                commands,
                shared,
                lanes,
                thread: Mutex::new(None),
            }),
        };
        (spool, this.run())
    }
}

impl Loop {
    fn recover(&mut self) {
        let disk = self.disk.clone();
        let disk = disk.look();
        for (lane, cursor, extents) in &disk.lanes {
            let queue = LaneQueue::recovered(cursor.clone(), extents.clone(), now());
            self.lanes.recover(lane.clone(), queue);
        }
        for (&seq, (lane, record)) in &disk.records {
            if let Some(number) = self.lanes.number(lane) {
                self.records.insert((number, seq), record.clone());
            }
        }
        self.next_seq = disk.next_seq.max(1);
        self.ledger.accepted = disk.accepted;
        self.ledger.delivered = disk.delivered;
        self.ledger.dead = disk.dead.len() as u64;
        self.letters.clone_from(&disk.dead);
        self.next_letter = disk.next_letter;
        self.revived.clone_from(&disk.revived);
        drop(disk);
        for number in 0..self.lanes.len() as u32 {
            self.lanes.publish(number);
        }
        self.publish();
    }

    async fn run(mut self) {
        let mut farewell = None;
        while farewell.is_none() {
            let mut group = Group::default();
            let due = self.dirty_since.map(|since| since + SETTLE_WITHIN);
            let command = match due {
                None => self.commands.recv().await.map(Some),
                Some(due) => match tokio::time::timeout_at(due.into(), self.commands.recv()).await {
                    Ok(command) => command.map(Some),
                    Err(_) => Some(None),
                },
            };
            let Some(command) = command else { break };
            if let Some(command) = command {
                farewell = self.handle(command, &mut group);
            }
            while farewell.is_none()
                && let Ok(command) = self.commands.try_recv()
            {
                farewell = self.handle(command, &mut group);
            }
            let due = self
                .dirty_since
                .is_some_and(|since| now() >= since + SETTLE_WITHIN);
            if !group.is_empty() || due || farewell.is_some() {
                self.commit(group).await;
            }
        }
        if self.dirty_since.is_some() {
            self.commit(Group::default()).await;
        }
        if let Some(farewell) = farewell {
            let _ = farewell.send(());
        }
    }

    fn handle(&mut self, command: Command, group: &mut Group) -> Option<oneshot::Sender<()>> {
        match command {
            Command::Append { append, reply } => group.add(append, reply),
            Command::Lease { lane, limits, reply } => drop(reply.send(self.lease(&lane, &limits))),
            Command::Settle { events, reply } => {
                let ended = events.into_iter().map(Leased::end);
                let ended: Vec<_> = ended.map(|(lane, seq, _)| (lane, seq)).collect();
                self.ledger.delivered += self.settle(&ended);
                let _ = reply.send(());
            }
            Command::Release { events, reply } => {
                let ended = events.into_iter().map(Leased::end);
                self.release(ended.map(|(lane, seq, _)| (lane, seq)).collect());
                let _ = reply.send(());
            }
            Command::Defer { events, reply } => {
                for lane in self.lanes.defer(&events) {
                    self.lanes.publish(lane);
                }
                let _ = reply.send(());
            }
            Command::Bury { events, reply } => {
                let letters = events.into_iter().filter_map(|(leased, burial)| {
                    let (number, seq, record) = leased.end();
                    let letter = DeadLetter {
                        seq: Seq(seq),
                        lane: self.lanes.get(number)?.lane.clone(),
                        buried_at_ms: 0,
                        burial,
                        record: record.to_vec(),
                    };
                    Some((number, letter))
                });
                let letters = letters.collect();
                self.funerals.push(Funeral { letters, reply });
                self.dirty_since.get_or_insert_with(now);
            }
            Command::DeadLetters { after, limit, reply } => {
                let _ = reply.send(Ok(self.page(after, limit)));
            }
            Command::Requeue { letters, reply } => {
                self.revivals.push((letters, reply));
                self.dirty_since.get_or_insert_with(now);
            }
            Command::Close { reply } => return Some(reply),
            // Simulations ask for nothing else.
            _ => {}
        }
        let abandoned = self.abandoned.take();
        self.release(abandoned);
        None
    }

    /// What was buried, as of the last commit.
    fn page(&self, after: Option<u64>, limit: usize) -> DeadPage {
        let first = after.map_or(0, |after| after + 1);
        let kept = self.letters.range(first..).map(|(&number, letter)| KeptLetter {
            number,
            letter: Ok(letter.clone()),
        });
        let letters: Vec<_> = kept.take(limit).collect();
        let last = letters.last().map(|kept| kept.number);
        let next = last.filter(|last| self.letters.range(last + 1..).next().is_some());
        DeadPage {
            letters,
            next,
            end: self.next_letter,
        }
    }

    /// Takes letters out, to be queued again with this commit. Gives the answers for after it.
    fn revive(&mut self, group: &mut Group) -> Vec<(Revival, Vec<u64>)> {
        let mut answers = Vec::new();
        for (asked, reply) in std::mem::take(&mut self.revivals) {
            let mut gone = Vec::new();
            let mut entries = Vec::new();
            for Revived { number, lane, record } in asked {
                match self.letters.remove(&number) {
                    Some(letter) => {
                        self.revived.insert(letter.seq.0);
                        entries.push(Entry::Queued { lane, record });
                    }
                    None => gone.push(number),
                }
            }
            // As in `requeue`: it counts as accepted already.
            self.ledger.dead -= entries.len() as u64;
            self.ledger.accepted -= entries.len() as u64;
            group.add(Prepared::new(entries), oneshot::channel().0);
            answers.push((reply, gone));
        }
        answers
    }

    fn lease(&mut self, lane: &Lane, limits: &Limits) -> Vec<Leased> {
        let Some(number) = self.lanes.number(lane) else {
            return Vec::new();
        };
        let gate = self.lanes.gate(number);
        let Some(state) = self.lanes.get_mut(number) else {
            return Vec::new();
        };
        let queue = &mut state.queue;
        let released = queue.released().take_while(|&seq| seq < gate);
        let first = queue.unread().unwrap_or(u64::MAX);
        let unread = self.records.range((number, first)..=(number, u64::MAX));
        let unread = unread.map(|((_, seq), _)| *seq).take_while(|&seq| seq < gate);
        let next: Vec<u64> = released
            .chain(unread.take(queue.room()))
            .take(limits.max_events)
            .collect();
        let lengths = next.iter().map(|&seq| self.records[&(number, seq)].len());
        let taken = &next[..limits.cut(lengths).min(next.len())];
        let unread = match taken.last() {
            Some(&last) if last >= first => {
                let mut after = self.records.range((number, last + 1)..=(number, u64::MAX));
                after.next().map(|((_, seq), _)| *seq)
            }
            _ => queue.unread(),
        };
        let records: Vec<_> = taken
            .iter()
            .map(|&seq| (seq, self.records[&(number, seq)].clone()))
            .collect();
        queue.lease(
            records.iter().map(|(seq, record)| (*seq, record.len() as u32)),
            unread,
        );
        self.lanes.publish(number);
        let home = &self.abandoned;
        let leased = records.into_iter();
        leased
            .map(|(seq, record)| Leased::new(number, seq, record, home))
            .collect()
    }

    fn settle(&mut self, ended: &[(u32, u64)]) -> u64 {
        let mut settled = 0;
        for &(lane, seq) in ended {
            settled += u64::from(self.lanes.settle(lane, seq));
            self.lanes.publish(lane);
        }
        self.dirty_since.get_or_insert_with(now);
        settled
    }

    fn release(&mut self, ended: Vec<(u32, u64)>) {
        for (lane, seq) in ended {
            if let Some(state) = self.lanes.get_mut(lane) {
                state.queue.release(seq, now());
            }
            self.lanes.publish(lane);
        }
    }

    /// As in `commit`: letters first, which count with the commit after them; then all else; then the answers. A kill may
    /// come before the commit, or between it and the answers.
    async fn commit(&mut self, mut group: Group) {
        for funeral in std::mem::take(&mut self.funerals) {
            pause().await;
            for (lane, letter) in funeral.letters {
                if self.settle(&[(lane, letter.seq.0)]) > 0 {
                    self.ledger.dead += 1;
                    self.letters.insert(self.next_letter, letter);
                    self.next_letter += 1;
                }
            }
            let _ = funeral.reply.send(());
        }
        let revived = self.revive(&mut group);
        let none = Origins::default();
        let plan = Plan::new(group.take_parts(), none, &mut self.lanes, self.next_seq, 0);
        self.next_seq = plan.next_seq;
        self.ledger.accepted += plan.accepted;
        pause().await;
        let mut writes = super::durable::Writes::default();
        let additions = plan.write(&mut writes, &self.lanes, GENERATION, 0);
        self.lanes.committed(&additions, now());
        let mut added = Vec::new();
        for sealed in writes.into_long() {
            let chunk = chunk::decode(&sealed).expect("a chunk");
            let lane = chunk.label.lane;
            let events =
                (chunk.label.first..chunk.end()).map(|seq| (seq, chunk.event(seq).expect("an event")));
            added.extend(events.map(|(seq, record)| (lane, seq, Bytes::copy_from_slice(&record))));
        }
        self.write(&added);
        pause().await;
        self.dirty_since = None;
        let ours = added.into_iter();
        self.records
            .extend(ours.map(|(lane, seq, record)| ((lane, seq), record)));
        self.publish();
        for addition in &additions {
            self.lanes.publish(addition.lane);
        }
        if self.lanes.take_woken() {
            self.views.send_modify(|_| {});
        }
        group.answer(&Ok(()));
        for (reply, gone) in revived {
            let _ = reply.send(Ok(gone));
        }
    }

    fn write(&self, added: &[(u32, u64, Bytes)]) {
        let mut disk = self.disk.look();
        disk.next_seq = self.next_seq;
        disk.accepted = self.ledger.accepted;
        disk.delivered = self.ledger.delivered;
        disk.dead.clone_from(&self.letters);
        disk.next_letter = self.next_letter;
        disk.revived.clone_from(&self.revived);
        let lanes = self.lanes.iter();
        disk.lanes = lanes
            .map(|state| {
                (
                    state.lane.clone(),
                    state.queue.cursor(None),
                    state.queue.extents().clone(),
                )
            })
            .collect();
        for (lane, seq, record) in added {
            let lane = disk.lanes[*lane as usize].0.clone();
            disk.records.insert(*seq, (lane, record.clone()));
        }
    }

    fn publish(&mut self) {
        self.ledger.queued = self.lanes.live();
        *locked(&self.shared.ledger) = self.ledger;
        if self.shown < self.lanes.len() {
            self.shown = self.lanes.len();
            let views = self.lanes.iter().map(|state| state.view.clone()).collect();
            self.views.send_replace(Arc::new(views));
        }
    }
}

/// A disk takes its time.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(fastrand::u64(0..=2))).await;
}
