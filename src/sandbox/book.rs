//! What all connections share: store and switches under one lock, and who is told of changes.

use super::store::{State, Store};
use super::switches::Switches;
use serde_json::Value;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::timeout;

/// Surprises that are kept; further ones are only logged.
const MAX_SURPRISES: usize = 1_000;
/// How long the listener may take to close or open.
const LISTENER_TIMEOUT: Duration = Duration::from_secs(10);

/// Store and switches.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) store: Store,
    pub(super) switches: Switches,
}

impl Page {
    /// Whether the API is down for a request; counted. A request for the control plane meets it too, but uncounted.
    pub(super) fn meets_down(&mut self, for_control: bool) -> bool {
        let down = self.switches.down || self.switches.refuse;
        if down && !for_control {
            self.store.state.while_down += 1;
            self.switches.take_down();
        }
        down
    }
}

/// The shared state of a sandbox.
#[derive(Debug)]
pub(super) struct Book {
    page: Mutex<Page>,
    /// Changes with each change of the counts or switches.
    changed: watch::Sender<()>,
    /// Whether the API listener is open.
    pub(super) listening: watch::Sender<bool>,
}

impl Book {
    pub(super) fn new() -> Self {
        Self {
            page: Mutex::default(),
            changed: watch::Sender::new(()),
            listening: watch::Sender::new(true),
        }
    }

    /// Reads or changes the page; what is due is stored before, and those who wait are told after.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Page) -> T) -> T {
        let (result, _) = self.with_due(act);
        self.changed.send_replace(());
        result
    }

    fn with_due<T>(&self, act: impl FnOnce(&mut Page) -> T) -> (T, Option<Instant>) {
        let mut page = self.lock();
        let keep = page.switches.keep();
        let due = page
            .store
            .settle(tokio::time::Instant::now().into_std(), keep, now_s());
        (act(&mut page), due)
    }

    fn lock(&self) -> MutexGuard<'_, Page> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a new connection meets the `down` switch; counted.
    pub(super) fn connection_meets_down(&self) -> bool {
        self.with(|page| page.meets_down(false))
    }

    /// The counts as they are.
    pub(super) fn state(&self) -> State {
        self.with_due(|page| page.store.state.clone()).0
    }

    /// Waits until the counts are as wished; gives them back, as an error when the time is over before.
    pub(super) async fn wait(&self, limit: Duration, wish: impl Fn(&State) -> bool) -> Result<State, State> {
        let end = tokio::time::Instant::now() + limit;
        let mut changes = self.changed.subscribe();
        loop {
            changes.mark_unchanged();
            let (found, due) =
                self.with_due(|page| wish(&page.store.state).then(|| page.store.state.clone()));
            if let Some(state) = found {
                return Ok(state);
            }
            let until = due.map_or(end, |due| end.min(due.into()));
            let told = tokio::time::timeout_at(until, changes.changed()).await;
            if told.is_err() && until == end {
                let state = self.state();
                return if wish(&state) { Ok(state) } else { Err(state) };
            }
        }
    }

    /// Records what the contract does not know.
    pub(super) fn surprise(&self, what: String) {
        // Never written here: who answers requests must not wait for a reader.
        tracing::warn!("sandbox: surprise: {}", what.escape_debug());
        self.with(|page| {
            if page.store.state.surprises.len() < MAX_SURPRISES {
                page.store.state.surprises.push(what);
            }
        });
    }

    /// Changes switches, and returns once the change is in force.
    pub(super) async fn switch(&self, change: &Value) -> Result<Switches, String> {
        let switches = self.with(|page| {
            page.switches = page.switches.changed(change)?;
            Ok::<_, String>(page.switches.clone())
        })?;
        self.listener_follows(!switches.refuse).await?;
        Ok(switches)
    }

    /// Forgets everything: tasks, counts, surprises, switches.
    pub(super) async fn reset(&self) -> Result<(), String> {
        self.with(|page| *page = Page::default());
        self.listener_follows(true).await
    }

    async fn listener_follows(&self, open: bool) -> Result<(), String> {
        let mut listening = self.listening.subscribe();
        let told = timeout(LISTENER_TIMEOUT, listening.wait_for(|now| *now == open)).await;
        match told {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err("the sandbox is shutting down".into()),
            Err(_) if open => {
                Err("the API's port could not be opened again: another program has taken it".into())
            }
            Err(_) => Err("the API's listener did not close".into()),
        }
    }

    /// Waits until the `refuse` switch differs from what it was.
    pub(super) async fn refuse_differs(&self, was: bool) {
        let mut changes = self.changed.subscribe();
        while self.lock().switches.refuse == was {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Seconds since 1970.
pub(super) fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
