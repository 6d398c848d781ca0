//! What systemd is told while the daemon runs: that it makes progress, and how things stand.

use crate::admin::Admin;
use crate::courier::Pulse;
use crate::notify;
use crate::spool::Spool;
use std::sync::Arc;
use std::time::Duration;

/// How often the status line is looked at.
const EVERY: Duration = Duration::from_secs(5);

/// Feeds the watchdog for ever, but only after both the spool's thread and the couriers have answered: where one of them
/// hangs, this hangs with it, and systemd starts the daemon anew.
pub(super) async fn run(spool: Spool, pulse: Pulse, admin: Arc<Admin>) {
    let watched = notify::watchdog();
    let every = watched.map_or(EVERY, |limit| EVERY.min(limit / 4));
    let progress = || {
        let (spool, pulse) = (spool.clone(), pulse.clone());
        async move {
            spool.ping().await;
            // It wakes every lane, of which there can be thousands.
            if watched.is_some() {
                pulse.felt().await;
            }
        }
    };
    turns(
        every,
        progress,
        notify::alive,
        || admin.sentence(),
        notify::status,
    )
    .await;
}

/// One turn after the other: progress, feeding, and the status where it has changed.
async fn turns<P: Future<Output = ()>>(
    every: Duration,
    progress: impl Fn() -> P,
    feed: impl Fn(),
    sentence: impl Fn() -> String,
    tell: impl Fn(&str),
) {
    let mut told = String::new();
    loop {
        progress().await;
        feed();
        let now = sentence();
        if now != told {
            tell(&now);
            told = now;
        }
        tokio::time::sleep(every).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    const EVERY: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_while_there_is_progress_and_not_when_it_ends() {
        let (fed, hangs) = (Cell::new(0), Cell::new(false));
        let progress = || async {
            if hangs.get() {
                std::future::pending::<()>().await;
            }
        };
        let upkeep = turns(EVERY, progress, || fed.set(fed.get() + 1), String::new, |_| {});
        let story = async {
            tokio::time::sleep(EVERY * 9 + EVERY / 2).await;
            assert_eq!(fed.get(), 10);
            hangs.set(true);
            tokio::time::sleep(EVERY * 100).await;
            assert_eq!(fed.get(), 10, "nobody answers any more");
        };
        tokio::select! {
            () = upkeep => {}
            () = story => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_status_is_told_when_it_changes() {
        let (queued, told) = (Cell::new(1), RefCell::new(Vec::new()));
        let sentence = || format!("{} queued", queued.get());
        let tell = |status: &str| told.borrow_mut().push(status.to_owned());
        let upkeep = turns(EVERY, || async {}, || {}, sentence, tell);
        let story = async {
            tokio::time::sleep(EVERY * 3).await;
            queued.set(2);
            tokio::time::sleep(EVERY * 3).await;
        };
        tokio::select! {
            () = upkeep => {}
            () = story => {}
        }
        assert_eq!(told.into_inner(), ["1 queued", "2 queued"]);
    }
}
