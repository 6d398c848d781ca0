//! Full-jitter exponential backoff. Pure: randomness is an argument.
use std::time::Duration;

/// A backoff that cannot be built with impossible settings (`[retry]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
}

/// Why the two settings make no backoff.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackoffError {
    /// A zero wait would hammer the API.
    #[error("retry.min is 0: set it to at least 1 ms")]
    Zero,
    /// The bounds stand the wrong way round.
    #[error("retry.min is larger than retry.max: swap them or raise retry.max")]
    Reversed,
}

impl Backoff {
    /// Checks the bounds: `min` at least 1 ms, `max` not below it.
    pub fn new(min: Duration, max: Duration) -> Result<Self, BackoffError> {
        match (min, max) {
            _ if min < Duration::from_millis(1) => Err(BackoffError::Zero),
            _ if min > max => Err(BackoffError::Reversed),
            _ => Ok(Self { min, max }),
        }
    }

    /// Wait before attempt `failures + 1`, after `failures` (at least 1) in a row: even over
    /// zero to `min * 2^(failures-1)`, capped at `max`. `random` is 64 random bits.
    pub fn delay(&self, failures: u32, random: u64) -> Duration {
        // 64 bits of nanoseconds are 584 years; longer waits make no difference to anyone.
        let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let factor = 1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX);
        let ceiling_ns = ns(self.min).saturating_mul(factor).min(ns(self.max));
        // The random bits, read as a fraction of one, times the ceiling.
        let product = u128::from(random) * (u128::from(ceiling_ns) + 1);
        Duration::from_nanos((product >> 64) as u64)
    }

    /// What the upstream asked for by Retry-After, capped at `max`.
    pub fn cap(&self, asked: Duration) -> Duration {
        asked.min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn impossible_settings_make_no_backoff() {
        assert_eq!(Backoff::new(Duration::ZERO, 60 * MS), Err(BackoffError::Zero));
        assert_eq!(
            Backoff::new(Duration::from_micros(999), 60 * MS),
            Err(BackoffError::Zero)
        );
        assert_eq!(Backoff::new(61 * MS, 60 * MS), Err(BackoffError::Reversed));
        assert!(Backoff::new(60 * MS, 60 * MS).is_ok());
    }

    #[test]
    fn the_ceiling_doubles_with_each_failure_up_to_the_maximum() {
        let backoff = Backoff::new(500 * MS, 60_000 * MS).expect("valid");
        for (failures, ceiling_ms) in [
            (1, 500),
            (2, 1_000),
            (3, 2_000),
            (7, 32_000),
            (8, 60_000),
            (999, 60_000),
        ] {
            assert_eq!(
                backoff.delay(failures, u64::MAX),
                ceiling_ms * MS,
                "{failures} failures"
            );
            assert_eq!(backoff.delay(failures, 0), Duration::ZERO);
            let half = backoff.delay(failures, 1 << 63);
            assert!(
                half.abs_diff(ceiling_ms * MS / 2) <= Duration::from_nanos(1),
                "{failures} failures: {half:?}"
            );
        }
    }

    #[test]
    fn what_the_upstream_asks_for_is_capped() {
        let backoff = Backoff::new(MS, 60 * MS).expect("valid");
        assert_eq!(backoff.cap(59 * MS), 59 * MS);
        assert_eq!(backoff.cap(Duration::MAX), 60 * MS);
    }

    proptest! {
        #[test]
        fn a_delay_is_within_its_bounds_for_any_failures_and_any_randomness(
            min in prop_oneof![1_u64..100, any::<u64>()], more in any::<u64>(),
            failures in prop_oneof![any::<u32>(), 0_u32..80], random in any::<u64>(),
        ) {
            let min = Duration::from_millis(min.max(1));
            let max = min.saturating_add(Duration::from_secs(more));
            let backoff = Backoff::new(min, max).expect("valid");
            let delay = backoff.delay(failures, random);
            let ceiling = (1..failures.min(200)).fold(min, |wait, _| wait.saturating_mul(2)).min(max);
            prop_assert!(delay <= ceiling, "{:?} over {:?}", delay, ceiling);
            prop_assert!(backoff.delay(failures, random.saturating_add(1)) >= delay);
        }
    }
}
