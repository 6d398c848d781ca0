//! What a listener has trouble with: a line in the log when it begins and when it is over, and a hint in `/status` meanwhile.

use crate::board::Notice;
use std::io;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How long nothing must go wrong until a trouble is over: at most one line of the log in this time, whatever clients do.
const QUIET: Duration = Duration::from_secs(10);

/// From the lighter to the heavier.
#[derive(Debug)]
pub(super) enum Trouble {
    /// As many connections as may be, and one that rested was closed for a new one.
    Crowded(usize),
    /// As many as may be, all of them busy.
    Full(usize),
    /// The system gives no connection out: most often there are no file descriptors left.
    Unaccepted(io::Error),
}

impl Trouble {
    fn weight(&self) -> u8 {
        match self {
            Trouble::Crowded(_) => 1,
            Trouble::Full(_) => 2,
            Trouble::Unaccepted(_) => 3,
        }
    }

    fn sentence(&self) -> String {
        match self {
            Trouble::Crowded(most) => format!(
                "{most} connections are open, as many as may be, so those that rest longest are closed for new ones: see who holds \
                 them with `ss -atxp`"
            ),
            Trouble::Full(most) => format!(
                "{most} connections are open, as many as may be, and all are busy, so new ones are answered 503: see who holds them \
                 with `ss -atxp`"
            ),
            Trouble::Unaccepted(error) => format!(
                "connections cannot be accepted ({error}): raise the limit on open files (LimitNOFILE, ulimit -n)"
            ),
        }
    }
}

/// The trouble of one listener.
pub(super) struct Troubles {
    notice: Notice,
    /// The heaviest since all was well, and when something was met last.
    now: Option<(u8, Instant)>,
}

impl Troubles {
    pub(super) fn new(notice: Notice) -> Self {
        Self { notice, now: None }
    }

    /// Notes one; tells people if it is new or heavier than before.
    pub(super) fn met(&mut self, trouble: &Trouble) {
        let weight = trouble.weight();
        let before = self.now.map_or(0, |(weight, _)| weight);
        self.now = Some((weight.max(before), Instant::now()));
        if weight > before {
            let sentence = trouble.sentence();
            tracing::warn!("{sentence}");
            self.notice.set(Some(&sentence));
        }
    }

    /// Resolves once a trouble is over, having told so; never without one.
    pub(super) async fn passed(&mut self) {
        let Some((_, last)) = self.now else {
            return std::future::pending().await;
        };
        sleep_until(last + QUIET).await;
        self.now = None;
        self.notice.set(None);
        tracing::info!("connections are accepted as usual again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Board;

    #[tokio::test(start_paused = true)]
    async fn the_heaviest_trouble_is_told_until_it_was_quiet_for_a_while() {
        let board = Board::default();
        let mut troubles = Troubles::new(board.notice("TCP"));
        let said = || board.notices().concat();
        troubles.met(&Trouble::Crowded(7));
        assert!(said().starts_with("TCP: 7 connections are open"), "{}", said());
        troubles.met(&Trouble::Unaccepted(io::Error::other("no files")));
        let heaviest = said();
        assert!(
            heaviest.contains("no files") && heaviest.contains("LimitNOFILE"),
            "{heaviest}"
        );
        let start = Instant::now();
        assert!(tokio::time::timeout(QUIET / 2, troubles.passed()).await.is_err());
        troubles.met(&Trouble::Full(7));
        assert_eq!(said(), heaviest);
        troubles.passed().await;
        assert_eq!(start.elapsed(), QUIET / 2 + QUIET);
        assert_eq!(said(), "");
    }
}
