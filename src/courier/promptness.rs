//! How soon the upstream stores what it accepted, as seen lately. Pure: time is an argument.
//!
//! A repair sends parts of a lost batch, and each part that is lost again would take the whole of `delivery.confirm_patience` to be
//! known. But parts that are stored are seen at once or at one of the first looks. So a part that is still missing
//! [`MORE_LOOKS`] looks later than others needed at that time counts as lost.

use std::time::{Duration, Instant};

/// How many looks longer than others a part is looked for. Each look comes about three times as late as the one before.
const MORE_LOOKS: usize = 2;

/// Looks that are told apart.
const LOOKS: usize = 5;

/// When a request was last found stored at which look.
#[derive(Debug, Default)]
pub(super) struct Promptness([Option<Instant>; LOOKS]);

impl Promptness {
    /// Notes that a request that was answered then was seen to be stored at that look, counted from 0.
    pub(super) fn stored(&mut self, answered: Instant, look: usize) {
        if let Some(last) = self.0.get_mut(look) {
            *last = (*last).max(Some(answered));
        }
    }

    /// Whether a request that was answered then, and is missing at that look, is lost, by what others needed since
    /// `recent` before.
    pub(super) fn is_overdue(&self, answered: Instant, look: usize, recent: Duration) -> bool {
        let is_recent = |stored: &Option<Instant>| {
            stored.is_some_and(|stored| answered.saturating_duration_since(stored) <= recent)
        };
        let slowest = self.0.iter().rposition(is_recent);
        slowest.is_some_and(|slowest| look >= slowest + MORE_LOOKS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECENT: Duration = Duration::from_secs(3);

    #[test]
    fn what_is_missing_much_longer_than_others_needed_is_overdue() {
        let (mut promptness, now) = (Promptness::default(), Instant::now());
        assert!(!promptness.is_overdue(now, 4, RECENT), "nothing was seen yet");
        promptness.stored(now, 0);
        assert!(!promptness.is_overdue(now, 1, RECENT));
        assert!(promptness.is_overdue(now, 2, RECENT));
        promptness.stored(now, 1);
        assert!(!promptness.is_overdue(now, 2, RECENT), "the slowest counts");
        assert!(promptness.is_overdue(now, 3, RECENT));
        promptness.stored(now, 99);
    }

    #[test]
    fn only_what_was_seen_about_the_same_time_counts() {
        let (mut promptness, now) = (Promptness::default(), Instant::now());
        promptness.stored(now, 0);
        assert!(promptness.is_overdue(now + RECENT, 2, RECENT));
        assert!(!promptness.is_overdue(now + RECENT + Duration::from_millis(1), 2, RECENT));
        assert!(
            promptness.is_overdue(now - Duration::from_secs(1), 2, RECENT),
            "what came later, too"
        );
    }
}
