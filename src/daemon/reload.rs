//! SIGHUP: what can change while the daemon runs changes, all of it or nothing.

use crate::config::Origins;
use crate::{config, courier, notify, spool};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

/// Reads the configuration again, from where an earlier reading found it. The error says what is
/// wrong.
pub type Read = dyn Fn(&Origins) -> Result<config::Settings, String> + Send + Sync;

type Outcome = Result<(config::Settings, courier::Settings), String>;

/// Reads the configuration again on a thread of its own, so that no signal waits for that.
pub(super) struct Reload {
    read: Arc<Read>,
    /// What the settings in force came from.
    origins: Origins,
    /// One reading at most.
    reading: JoinSet<Outcome>,
    couriers: watch::Sender<Arc<courier::Settings>>,
}

impl Reload {
    pub(super) fn new(
        read: Arc<Read>,
        origins: Origins,
        couriers: watch::Sender<Arc<courier::Settings>>,
    ) -> Self {
        Self {
            read,
            origins,
            reading: JoinSet::new(),
            couriers,
        }
    }

    /// Whether a reading goes on. What another one would find may have changed since it began: it
    /// comes after.
    pub(super) fn is_reading(&self) -> bool {
        !self.reading.is_empty()
    }

    /// Begins a reading.
    pub(super) fn begin(&mut self) {
        notify::reloading();
        let (read, origins) = (self.read.clone(), self.origins.clone());
        self.reading.spawn_blocking(move || {
            let settings = read(&origins)?;
            let courier = settings.courier().map_err(|fault| fault.to_string())?;
            Ok((settings, courier))
        });
    }

    /// Resolves when a reading is done; never without one.
    pub(super) async fn done(&mut self) -> Result<Outcome, JoinError> {
        match self.reading.join_next().await {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }

    /// Puts into force what was read. What delivery needs (upstream, keys, batches, retries) takes
    /// effect at once and wakes parked lanes; what only a restart can change is named. `sentence`
    /// is how things stand, for systemd.
    pub(super) fn apply(
        &mut self,
        done: Result<Outcome, JoinError>,
        running: &config::Settings,
        sentence: impl Fn() -> String,
    ) {
        match done.unwrap_or_else(|fault| Err(fault.to_string())) {
            Ok((settings, courier)) => {
                self.couriers.send_replace(Arc::new(courier));
                tracing::info!("configuration reloaded: parked lanes try again at once");
                for section in needs_restart(running, &settings) {
                    tracing::warn!(
                        section,
                        "a change that takes effect only with a restart of the daemon"
                    );
                }
                if let Some(file) = &settings.passed_over {
                    tracing::warn!(
                        file = %file.display(),
                        "a file that was not there at the start is not read by a reload: restart the daemon to use it"
                    );
                }
                self.origins = settings.origins;
            }
            Err(why) => tracing::error!(%why, "configuration not reloaded: nothing has changed"),
        }
        // It was ready all the time, and is as it was before: what systemd showed then is told
        // again.
        notify::ready(&sentence());
    }
}

/// The sections that changed and that a running daemon cannot take over.
fn needs_restart(running: &config::Settings, wanted: &config::Settings) -> Vec<&'static str> {
    let mut sections = Vec::new();
    if running.intake != wanted.intake {
        sections.push("[intake] and upstream.project_id");
    }
    if running.redact != wanted.redact {
        sections.push("[redact]");
    }
    let wanted_spool = spool::Settings {
        // Keys are taken over.
        keep_room: running.spool.keep_room.clone(),
        ..wanted.spool.clone()
    };
    if running.spool != wanted_spool {
        sections.push("[spool] and [dead_letters]");
    }
    if running.log != wanted.log {
        sections.push("[log]");
    }
    if running.grace != wanted.grace {
        sections.push("[shutdown]");
    }
    sections
}
