//! What callers see without asking the owning thread: lanes, ledger, whether the spool accepts.
use super::letter_log::LetterLog;
use super::projects::Projects;
use crate::batch::Ready;
use crate::ids::{Lane, Seq};
use crate::ledger::Ledger;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Locks; a holder that panicked cannot have left plain values half-written.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Written by the owning thread, read by everybody.
pub(super) struct Shared {
    pub(super) ledger: Mutex<Ledger>,
    pub(super) live_bytes: AtomicU64,
    pub(super) refusing: Mutex<Option<String>>,
    pub(super) damage: Mutex<Damage>,
    pub(super) dropped_letters: AtomicU64,
    pub(super) letter_log: Mutex<LetterLog>,
    pub(super) projects: Arc<Projects>,
}

/// What became of damaged files of the queue, since the data folder was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damage {
    /// Events that were carried over from damaged files.
    pub saved: u64,
    /// Events that were in them and could not be found. The ledger counts them as dropped.
    pub lost: u64,
    /// Damaged folders that were set aside in `<path>/quarantine/`, as of the last minute.
    pub quarantined: Vec<String>,
}

impl Shared {
    pub(super) fn new(projects: Projects) -> Shared {
        Shared {
            ledger: Mutex::default(),
            live_bytes: AtomicU64::new(0),
            refusing: Mutex::default(),
            damage: Mutex::default(),
            dropped_letters: AtomicU64::new(0),
            letter_log: Mutex::default(),
            projects: Arc::new(projects),
        }
    }
}

#[derive(Default)]
struct State {
    ready: Ready,
    queued: u64,
    pending: Option<(Seq, Seq)>,
    /// Goes up each time that `ready` may have grown.
    grown: u64,
    /// Somebody moves the lane's project.
    claimed: bool,
}

/// One lane as others may see it. Cheap to clone.
pub struct LaneView {
    shared: Arc<LaneShared>,
    /// `State::grown` when this view was last read.
    seen: AtomicU64,
}

struct LaneShared {
    lane: Lane,
    state: watch::Sender<State>,
}

impl Clone for LaneView {
    fn clone(&self) -> Self {
        let seen = AtomicU64::new(self.seen.load(Ordering::Relaxed));
        LaneView {
            shared: Arc::clone(&self.shared),
            seen,
        }
    }
}

impl std::fmt::Debug for LaneView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneView")
            .field("lane", &self.shared.lane)
            .finish_non_exhaustive()
    }
}

impl LaneView {
    pub(super) fn new(lane: Lane) -> LaneView {
        let shared = Arc::new(LaneShared {
            lane,
            state: watch::Sender::new(State::default()),
        });
        LaneView {
            shared,
            seen: AtomicU64::new(0),
        }
    }

    /// Which lane.
    pub fn lane(&self) -> &Lane {
        &self.shared.lane
    }

    /// What can be leased right now. For a feedback lane only what no earlier log of its project holds back: while
    /// some of it is held back, the figures are upper bounds, and zero exactly if nothing can be leased.
    pub fn ready(&self) -> Ready {
        let state = self.shared.state.borrow();
        self.seen.store(state.grown, Ordering::Relaxed);
        state.ready
    }

    /// Events of the lane that have not ended, leased ones included.
    pub fn queued(&self) -> u64 {
        self.shared.state.borrow().queued
    }

    /// The first event of the lane that has not ended, and the last that was accepted; `None` while there is none.
    pub fn pending(&self) -> Option<(Seq, Seq)> {
        self.shared.state.borrow().pending
    }

    /// Resolves once [`LaneView::ready`] may have grown since it was last read through this view (a clone counts
    /// for itself). Never misses a change that comes between reading and waiting.
    pub async fn changed(&self) {
        let seen = self.seen.load(Ordering::Relaxed);
        let mut state = self.shared.state.subscribe();
        // Cannot fail: this view keeps the sender alive.
        let _ = state.wait_for(|state| state.grown > seen).await;
    }

    /// Resolves while somebody moves the lane's project to another one: what is on lease and not being sent is to be
    /// released.
    pub async fn claimed(&self) {
        let mut state = self.shared.state.subscribe();
        // Cannot fail: this view keeps the sender alive.
        let _ = state.wait_for(|state| state.claimed).await;
    }

    /// Shows whether somebody moves the lane's project.
    pub(super) fn set_claimed(&self, claimed: bool) {
        self.shared
            .state
            .send_if_modified(|state| std::mem::replace(&mut state.claimed, claimed) != claimed);
    }

    /// Shows new figures; wakes who waits if there is more than before.
    pub(super) fn publish(&self, ready: Ready, queued: u64, pending: Option<(u64, u64)>) {
        self.shared.state.send_if_modified(|state| {
            let grown = ready.events > state.ready.events || ready.bytes > state.ready.bytes;
            state.ready = ready;
            state.queued = queued;
            state.pending = pending.map(|(first, last)| (Seq(first), Seq(last)));
            state.grown += u64::from(grown);
            grown
        });
    }
}
