//! How soon the upstream stores what it accepted, as seen lately. Pure: time is an argument.
//!
//! A repair sends parts of a lost batch, and each part that is lost again would take the whole of `delivery.confirm_patience` to be
//! known. But parts that are stored are seen to be stored soon. So a part that is missing after [`TIMES`] times what others
//! needed about then counts as lost.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So many times as long as others a part is looked for.
const TIMES: u32 = 4;

/// Most requests that are remembered.
const MOST: usize = 32;

/// When the latest requests that are stored were answered, and how long after that they were seen to be stored.
#[derive(Debug, Default)]
pub(super) struct Promptness(VecDeque<(Instant, Duration)>);

impl Promptness {
    /// Notes that a request that was answered then was seen to be stored now.
    pub(super) fn stored(&mut self, answered: Instant, now: Instant) {
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0
            .push_back((answered, now.saturating_duration_since(answered)));
    }

    /// Whether a request that was answered then, and of which it was asked now in vain, is lost, by the slowest of those that were
    /// answered later or at most `recent` before.
    pub(super) fn is_overdue(&self, answered: Instant, now: Instant, recent: Duration) -> bool {
        let about_then = self
            .0
            .iter()
            .filter(|(other, _)| answered.saturating_duration_since(*other) <= recent);
        let slowest = about_then.map(|(_, took)| *took).max();
        slowest.is_some_and(|slowest| now.saturating_duration_since(answered) >= slowest * TIMES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const RECENT: Duration = Duration::from_secs(3);

    #[test]
    fn what_is_missing_much_longer_than_others_needed_is_overdue() {
        let (mut promptness, now) = (Promptness::default(), Instant::now());
        assert!(
            !promptness.is_overdue(now, now + 60_000 * MS, RECENT),
            "nothing was seen yet"
        );
        promptness.stored(now, now + 30 * MS);
        assert!(!promptness.is_overdue(now, now + 119 * MS, RECENT));
        assert!(promptness.is_overdue(now, now + 120 * MS, RECENT));
        promptness.stored(now, now + 100 * MS);
        promptness.stored(now, now + 20 * MS);
        assert!(
            !promptness.is_overdue(now, now + 399 * MS, RECENT),
            "the slowest counts"
        );
        assert!(promptness.is_overdue(now, now + 400 * MS, RECENT));
    }

    #[test]
    fn only_what_was_seen_about_the_same_time_counts() {
        let (mut promptness, now) = (Promptness::default(), Instant::now());
        promptness.stored(now, now);
        let late = |answered| promptness.is_overdue(answered, answered + 500 * MS, RECENT);
        assert!(late(now + RECENT));
        assert!(!late(now + RECENT + MS));
        assert!(late(now - RECENT * 2), "what came later, too");
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let (mut promptness, now) = (Promptness::default(), Instant::now());
        promptness.stored(now, now + RECENT);
        for _ in 0..MOST {
            promptness.stored(now, now);
        }
        assert_eq!(promptness.0.len(), MOST);
        assert!(promptness.is_overdue(now, now + MS, RECENT));
    }
}
