//! SIGHUP: what can change while the daemon runs changes, all of it or nothing.

use crate::{config, courier, notify};
use std::sync::Arc;
use tokio::sync::watch;

/// Reads the configuration again. What delivery needs (upstream, keys, batches, retries) takes effect at once and wakes
/// parked lanes; what only a restart can change is named. `sentence` is how things stand, for systemd.
pub(super) fn apply(
    running: &config::Settings,
    reload: &impl Fn() -> Result<config::Settings, String>,
    couriers: &watch::Sender<Arc<courier::Settings>>,
    sentence: impl Fn() -> String,
) {
    notify::reloading();
    let outcome = reload().and_then(|settings| match settings.courier() {
        Ok(courier) => Ok((settings, courier)),
        Err(fault) => Err(fault.to_string()),
    });
    match outcome {
        Ok((settings, courier)) => {
            couriers.send_replace(Arc::new(courier));
            tracing::info!("configuration reloaded: parked lanes try again at once");
            for section in needs_restart(running, &settings) {
                tracing::warn!(
                    section,
                    "a change that takes effect only with a restart of the daemon"
                );
            }
        }
        Err(why) => tracing::error!(%why, "configuration not reloaded: nothing has changed"),
    }
    // It was ready all the time, and is as it was before: what systemd showed then is told again.
    notify::ready(&sentence());
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
    if running.spool != wanted.spool {
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
