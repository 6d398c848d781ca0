//! The durable queue (design.md section 3). Callers hold a [`Spool`]; one thread owns sled.
//!
//! # Promises
//! - [`Spool::append`] resolves after the entries were synced to disk, and not before.
//! - What was appended ends exactly once: settled, buried, or still queued. A crash redelivers what was not yet
//!   durably settled, and nothing else.
//! - The ledger is written in the same batch as what it counts.
//!
//! # On disk
//! ```text
//! <path>/format          version of the layout; a newer one is refused
//! <path>/lock            held by the one owner; its pid
//! <path>/spool/gen-N/    generations: small sled folders, appended to and deleted whole
//! <path>/dead/gen-N/     dead letters: small sled folders, the oldest deleted whole
//! <path>/quarantine/     what was damaged, for a person to look at
//! <path>/ballast         space that is given up when the disk is full
//! ```
//! Keys are in `key.rs`, values in `codec.rs` (envelope), `chunk.rs` (events), `meta.rs` (lanes, cursors, ledger)
//! and `letter.rs` (dead letters). The newest generation describes the whole spool; older ones only hold events.
//!
//! # Parts
//! `owner` the thread's loop, `group` and `commit` one group commit, `dead`, `funeral` and `requeue` dead
//! letters, `letter_log` what is said about new ones, `read` leases, `lanes` and `queue` the state in
//! memory, `transfer` what changes its project, `find` what is queued of one task, `generation` the row of
//! folders, `sealed` reading all but the newest, `recovery` opening, `scan`,
//! `salvage` and `repair` what is damaged, `durable` and `disk` the narrow seam to sled and the
//! machine, `room` and `projects` admission, `dropping` and `drop_log` what makes room for it, `ballast` a full disk, `view` what is shown
//! outside, [`offline`] looking at the folder of a daemon that is stopped.

mod ballast;
mod chunk;
mod codec;
mod command;
mod commit;
mod dead;
mod disk;
mod drop_log;
mod dropping;
mod durable;
mod find;
mod funeral;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed;
mod generation;
mod group;
mod key;
mod lanes;
mod lease;
mod letter;
mod letter_log;
mod lock;
mod mark;
mod meta;
mod migrate;
mod moving;
pub mod offline;
mod owner;
mod parts;
mod projects;
mod quarantine;
mod queue;
mod read;
mod recovery;
mod repair;
mod requeue;
mod room;
mod salvage;
mod scan;
mod sealed;
#[cfg(test)]
pub(crate) mod simulated;
mod slots;
#[cfg(test)]
mod tests;
mod transfer;
mod view;

pub use dead::{DeadLettersError, DeadPage, KeptLetter};
pub use find::{FindError, Found, Place};
pub use lease::Leased;
pub use projects::ProjectRoom;
pub use requeue::{MAX_LETTERS, Revived};
pub use transfer::Transferred;
pub use view::{Damage, LaneView};

use crate::batch::Limits;
use crate::ids::{Lane, ProjectId, Seq};
use crate::ledger::Ledger;
use command::Command;
use disk::{Disk, LEAST_FILE_BYTES};
use group::Prepared;
use projects::Projects;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use view::{Shared, locked};

/// Most commands that wait for the owning thread; callers wait beyond that.
const MAX_WAITING_COMMANDS: usize = 1_024;

/// How the spool is set up (`[spool]`, `[dead_letters]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Data folder; made with mode 0700 if absent.
    pub path: PathBuf,
    /// Most live payload bytes, as accepted, uncompressed. Default 10 GiB.
    pub max_bytes: u64,
    /// What happens when there is no room. Default: reject.
    pub on_full: OnFull,
    /// Free disk bytes below which nothing more is accepted. Default 256 MiB.
    pub min_free_bytes: u64,
    /// Payload and bookkeeping bytes after which a generation is sealed. Default 64 MiB, at least 1 MiB.
    pub generation_bytes: u64,
    /// Most projects that may have something queued at a time; 0: any number. Default 1,000.
    pub max_projects: usize,
    /// These always have room beside them: those with a key of their own, and the default one.
    pub keep_room: BTreeSet<ProjectId>,
    /// Most bytes of dead letters on disk; the oldest go first. Default 1 GiB.
    pub dead_max_bytes: u64,
    /// Longest that a dead letter is kept. Default 30 days.
    pub dead_max_age: Duration,
}

/// What happens when there is no room for an append (`spool.on_full`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFull {
    /// It is refused.
    #[default]
    Reject,
    /// The oldest events that nobody has on lease are dropped for it, and counted.
    DropOldest,
}

/// Why the data folder could not be opened. The sentence names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made, entered or written.
    #[error("the data folder {} cannot be used: {source}: mend its permissions, or set spool.path to another folder", path.display())]
    Unusable {
        /// `spool.path`.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something else has that name.
    #[error("{} is not a folder: set spool.path to a folder", path.display())]
    NotAFolder {
        /// `spool.path`.
        path: PathBuf,
    },
    /// Somebody else's folder.
    #[error("the data folder {} belongs to user {owner} and this is user {ours}: change its owner, or set spool.path", path.display())]
    OtherUser {
        /// `spool.path`.
        path: PathBuf,
        /// Its owner's uid.
        owner: u32,
        /// Our effective uid.
        ours: u32,
    },
    /// Others could plant files in it.
    #[error("other users may write to the data folder {} (mode {mode:o}): run chmod 700 on it, or set spool.path", path.display())]
    OthersMayWrite {
        /// `spool.path`.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A limit of the process leaves the queue's files no room.
    #[error(
        "the limit on file sizes is {limit} bytes, and the queue takes files of at least {LEAST_FILE_BYTES}: raise it (LimitFSIZE of \
         the unit, ulimit -f)"
    )]
    FileLimit {
        /// In bytes.
        limit: u64,
    },
    /// Others may look into it, and it is no folder of phosphod's own, so its mode is not ours to change.
    #[error("{} is open to other users (mode {mode:o}) and holds files of something else: set spool.path to a folder of phosphod's own, or run chmod 700 on it", path.display())]
    OpenToOthers {
        /// `spool.path`.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A link stands in place of something that the spool writes.
    #[error("{} is a link, and phosphod follows none in its data folder: put what it leads to in its place, or set spool.path", path.display())]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// Something in the folder is somebody else's.
    #[error("{} in the data folder belongs to user {owner} and this is user {ours}: change its owner, or set spool.path", path.display())]
    PartOfOtherUser {
        /// What it is.
        path: PathBuf,
        /// Its owner's uid.
        owner: u32,
        /// Our effective uid.
        ours: u32,
    },
    /// Another daemon has it.
    #[error("the data folder {} is in use by another phosphod{}: stop it, or set spool.path to another folder",
        path.display(), pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    InUse {
        /// `spool.path`.
        path: PathBuf,
        /// The other's process id, if it could be read.
        pid: Option<u32>,
    },
    /// A command that looks at it or fills it has it.
    #[error("the data folder {} is in use by {tool}{}: wait until that has ended, or end it",
        path.display(), pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    ToolAtWork {
        /// `spool.path`.
        path: PathBuf,
        /// Such as `phosphod spool export`.
        tool: String,
        /// Its process id, if the system tells.
        pid: Option<u32>,
    },
    /// Written by a newer phosphod. The folder was left untouched.
    #[error("the data folder {} has format {found} and this version knows {known}: run the newer phosphod, or set spool.path", path.display())]
    NewerFormat {
        /// `spool.path`.
        path: PathBuf,
        /// What the folder says.
        found: u32,
        /// The newest that is known here.
        known: u32,
    },
    /// The `format` file says nothing that was ever written there.
    #[error("{}/format is not what phosphod writes there: set spool.path to a folder of phosphod's own", path.display())]
    UnknownFormat {
        /// `spool.path`.
        path: PathBuf,
    },
    /// What is stored cannot be opened, or nothing can be stored.
    #[error("the spool in {} cannot be opened: {reason}: see that the disk has room and works, or move the folder aside to start empty", path.display())]
    Storage {
        /// `spool.path`.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
}

/// Why nothing was appended. Nothing of the call is on disk, or at least none of it was promised.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Over `spool.max_bytes` or `spool.max_projects`, or under `spool.min_free_bytes`: 503 with Retry-After. The sentence says which, with figures.
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

/// Why and when an event was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its place in the order of acceptance.
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

/// Handle of the spool. Cheap to clone. When the last one is dropped, the thread makes its final commit by itself;
/// [`Spool::close`] waits for that.
#[derive(Clone)]
pub struct Spool {
    inner: Arc<Inner>,
}

struct Inner {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    lanes: watch::Receiver<Arc<Vec<LaneView>>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Spool {
    /// Opens or makes the data folder, takes its lock, recovers, and starts the owning thread. Blocking.
    pub fn open(settings: Settings) -> Result<Spool, OpenError> {
        Spool::open_on(settings, Disk::real())
    }

    fn open_on(mut settings: Settings, disk: Disk) -> Result<Spool, OpenError> {
        if let Some(limit) = disk.max_file_bytes.filter(|limit| *limit < LEAST_FILE_BYTES) {
            return Err(OpenError::FileLimit { limit });
        }
        settings.generation_bytes = disk.fill_bytes(settings.generation_bytes);
        let (commands, receiver) = mpsc::channel(MAX_WAITING_COMMANDS);
        let projects = Projects::new(settings.max_projects, settings.keep_room.clone());
        let shared = Arc::new(Shared::new(projects));
        let owner = recovery::open(&settings, &disk, &shared, receiver, commands.downgrade())?;
        let lanes = owner.views.subscribe();
        let thread = std::thread::Builder::new()
            .name("spool".into())
            .spawn(|| owner.run())
            .map_err(|source| OpenError::Unusable {
                path: settings.path,
                source,
            })?;
        Ok(Spool {
            inner: Arc::new(Inner {
                commands,
                shared,
                lanes,
                thread: Mutex::new(Some(thread)),
            }),
        })
    }

    /// Puts the entries on disk, in this order, all or none. Resolves when they are synced: only then may a
    /// client be told so.
    pub async fn append(&self, entries: Vec<Entry>) -> Result<(), AppendError> {
        if entries.is_empty() {
            return Ok(());
        }
        let append = Prepared::new(entries);
        self.ask(|reply| Command::Append { append, reply })
            .await
            .unwrap_or(Err(AppendError::Closed))
    }

    /// Takes the next events of a lane, in order, as many as one batch holds (`limits.cut`); empty if none is ready.
    /// Released events come first. A feedback is never given out while a log of its project that was
    /// accepted before it is queued or leased.
    pub async fn lease(&self, lane: &Lane, limits: &Limits) -> Vec<Leased> {
        let (lane, limits) = (lane.clone(), *limits);
        self.ask(|reply| Command::Lease { lane, limits, reply })
            .await
            .unwrap_or_default()
    }

    /// Delivered: counts, and will not be given out again. Durable with the next group commit or within a few ms.
    pub async fn settle(&self, _lane: &Lane, events: Vec<Leased>) {
        self.ask(|reply| Command::Settle { events, reply }).await;
    }

    /// Not delivered: back to the head of its lane.
    pub async fn release(&self, _lane: &Lane, events: Vec<Leased>) {
        self.ask(|reply| Command::Release { events, reply }).await;
    }

    /// Lets feedback pass leased log events that it would have to wait for, until they are released or have ended. A new
    /// process knows nothing of it.
    pub async fn defer(&self, events: impl IntoIterator<Item = &Leased>) {
        let events = events.into_iter().map(Leased::place).collect();
        self.ask(|reply| Command::Defer { events, reply }).await;
    }

    /// Given up: kept as a dead letter, on disk before it leaves the lane. Resolves when it is.
    pub async fn bury(&self, _lane: &Lane, events: Vec<(Leased, Burial)>) {
        self.ask(|reply| Command::Bury { events, reply }).await;
    }

    /// Every lane that is known; changes when one is added or gets work, and is closed when the owning thread has ended.
    pub fn lanes(&self) -> watch::Receiver<Arc<Vec<LaneView>>> {
        self.inner.lanes.clone()
    }

    /// The account as of the last commit.
    pub fn ledger(&self) -> Ledger {
        *locked(&self.inner.shared.ledger)
    }

    /// What became of damaged files of the queue.
    pub fn damage(&self) -> Damage {
        locked(&self.inner.shared.damage).clone()
    }

    /// Dead letters that went for `dead_letters.max_bytes` or `max_age` since the spool was opened.
    pub fn dropped_letters(&self) -> u64 {
        self.inner.shared.dropped_letters.load(Ordering::Relaxed)
    }

    /// What became dead letters of late, by project and cause, in one sentence with the remedy. `None` once there was none for
    /// an hour, or once an operator has purged dead letters or queued them again.
    pub fn letters_hint(&self) -> Option<String> {
        locked(&self.inner.shared.letter_log).hint(Instant::now())
    }

    /// Payload bytes of all events that have not ended, as of the last commit.
    pub fn live_bytes(&self) -> u64 {
        self.inner.shared.live_bytes.load(Ordering::Relaxed)
    }

    /// Dead letters in the order of their burial, from number `after` on (exclusive), at most `limit` and about 4 MiB.
    pub async fn dead_letters(&self, after: Option<u64>, limit: usize) -> Result<DeadPage, DeadLettersError> {
        self.ask(|reply| Command::DeadLetters { after, limit, reply })
            .await
            .unwrap_or(Err(DeadLettersError::Closed))
    }

    /// Queues the events of dead letters again, all or none, at the ends of their lanes; the letters are gone in the same moment.
    /// At most [`MAX_LETTERS`]. Resolves when that is synced, with the numbers of letters that were not there any more.
    pub async fn requeue(&self, letters: Vec<Revived>) -> Result<Vec<u64>, AppendError> {
        self.ask(|reply| Command::Requeue { letters, reply })
            .await
            .unwrap_or(Err(AppendError::Closed))
    }

    /// Takes a group of a project on lease for who moves it to another one: the next logs within
    /// the limits, and all feedback before the first log that stays, both up to `last`. Empty while
    /// others have any of it on lease. For some seconds from here on nobody else gets anything of
    /// the project's lanes, so that feedback does not go once its logs have left.
    pub async fn claim(&self, project: &ProjectId, last: Seq, limits: &Limits) -> Vec<Leased> {
        let (project, last, limits) = (project.clone(), last.0, *limits);
        let claim = |reply| Command::Claim {
            project,
            last,
            limits,
            reply,
        };
        self.ask(claim).await.unwrap_or_default()
    }

    /// Puts leased events at the ends of another project's lanes, in this order, all or none, each
    /// with the record that stands beside it. They leave their own lanes in the same commit, so
    /// that each is in one of the two after any crash, and the ledger does not change. Resolves
    /// when that is synced. After an error they are back in their own lanes.
    ///
    /// # Errors
    /// The disk or sled failed, or the spool is shutting down.
    pub async fn transfer(
        &self,
        events: Vec<(Leased, Vec<u8>)>,
        to: &ProjectId,
    ) -> Result<Transferred, AppendError> {
        let to = to.clone();
        self.ask(|reply| Command::Transfer { events, to, reply })
            .await
            .unwrap_or(Err(AppendError::Closed))
    }

    /// Removes dead letters for good; their events stay `dead` in the ledger. Gives how many there were.
    pub async fn purge(&self, numbers: BTreeSet<u64>) -> Result<u64, DeadLettersError> {
        self.ask(|reply| Command::Purge { numbers, reply })
            .await
            .unwrap_or(Err(DeadLettersError::Closed))
    }

    /// Tells before an event is taken whether its project has room.
    pub fn project_room(&self) -> ProjectRoom {
        ProjectRoom::new(&self.inner.shared.projects)
    }

    /// These projects have room from now on, whatever else is queued.
    pub fn keep_room(&self, projects: impl IntoIterator<Item = ProjectId>) {
        self.inner.shared.projects.keep_room(projects);
    }

    /// Whether a project always has room.
    pub fn keeps_room_for(&self, project: &ProjectId) -> bool {
        self.inner.shared.projects.keeps_room_for(project)
    }

    /// Most lanes that may be at work at a time, beside those of projects that always have room.
    pub fn lanes_at_work(&self) -> usize {
        self.inner.shared.projects.lanes_at_work()
    }

    /// `None` while the spool accepts; otherwise why it does not, in one sentence with the remedy.
    pub fn refusing(&self) -> Option<String> {
        locked(&self.inner.shared.refusing).clone()
    }

    /// Resolves once the owning thread has worked off what was asked before; at once if it has ended.
    pub async fn ping(&self) {
        self.ask(|reply| Command::Ping { reply }).await;
    }

    /// Final group commit; the lock is given back. Later calls answer [`AppendError::Closed`].
    pub async fn close(&self) {
        self.ask(|reply| Command::Close { reply }).await;
        let thread = locked(&self.inner.thread).take();
        if let Some(thread) = thread {
            // It has nothing left to do once the close is answered, so this is short.
            let _ = tokio::task::spawn_blocking(|| thread.join()).await;
        }
    }

    /// Sends a command and waits for its answer; `None` if the thread has ended.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.inner.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}
