//! When the wall clock may be believed. Pure.
//!
//! A clock that is set wrong must not empty the dead letters: age counts only once the wall clock has kept step with the
//! monotonic one for an hour of run time, to within an hour. A step begins that hour anew; so does a start, because nobody
//! knows what the clock did meanwhile.
use std::time::{Duration, Instant};

/// Largest difference to the monotonic clock that is taken for no step.
const STEP_MS: u64 = 60 * 60 * 1_000;
/// How long there must have been no step.
const STEADY_FOR: Duration = Duration::from_secs(60 * 60);

/// The wall clock as watched since the start.
#[derive(Debug, Default)]
pub(super) struct WallClock {
    /// Both clocks at the start, or when the last step was seen.
    since: Option<(Instant, u64)>,
}

impl WallClock {
    /// Takes both clocks in; whether age by the wall clock counts.
    pub(super) fn is_believed(&mut self, now: Instant, wall_ms: u64) -> bool {
        let (since, then_ms) = *self.since.get_or_insert((now, wall_ms));
        let passed = now.saturating_duration_since(since);
        let passed_ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        if then_ms.saturating_add(passed_ms).abs_diff(wall_ms) > STEP_MS {
            self.since = Some((now, wall_ms));
            return false;
        }
        passed >= STEADY_FOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR_MS: u64 = 365 * 24 * 60 * 60 * 1_000;
    const NOW_MS: u64 = 50 * YEAR_MS;

    #[test]
    fn a_clock_is_believed_after_an_hour_without_a_step() {
        let start = Instant::now();
        let minutes = |n: u64| (start + Duration::from_secs(60 * n), NOW_MS + 60_000 * n);
        let mut clock = WallClock::default();
        for n in 0..60 {
            let (now, wall_ms) = minutes(n);
            assert!(!clock.is_believed(now, wall_ms), "minute {n}");
        }
        // Half a second of drift is no step.
        let (now, wall_ms) = minutes(60);
        assert!(clock.is_believed(now, wall_ms + 500));
    }

    #[test]
    fn a_jump_either_way_begins_the_hour_anew() {
        for (before, after) in [(NOW_MS, NOW_MS + YEAR_MS), (NOW_MS + YEAR_MS, NOW_MS)] {
            let start = Instant::now();
            let hours = |n: u64| start + Duration::from_secs(3_600 * n);
            let mut clock = WallClock::default();
            clock.is_believed(start, before);
            assert!(clock.is_believed(hours(1), before + STEP_MS));
            assert!(!clock.is_believed(hours(2), after));
            assert!(!clock.is_believed(hours(2) + Duration::from_secs(60), after + 60_000));
            assert!(clock.is_believed(hours(3), after + STEP_MS));
        }
    }
}
