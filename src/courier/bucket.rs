//! A bucket of tokens that fills with time. Pure: time is an argument.

use std::time::{Duration, Instant};

/// What one bucket holds. It may go below nothing for a taking that is larger than the bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    /// `None`: full.
    state: Option<(f64, Instant)>,
}

impl Bucket {
    /// A full one.
    pub(super) fn new() -> Self {
        Self { state: None }
    }

    /// Takes `cost` tokens, or says how long to wait before they are there. It fills at `rate` (more than 0) a second and holds a
    /// second's worth, at least one token; a larger cost waits until so much has come since.
    pub(super) fn take(&mut self, now: Instant, rate: f64, cost: f64) -> Result<(), Duration> {
        let capacity = rate.max(1.0);
        // A cost over the capacity is waited for as a debt would be paid off.
        let most = capacity.max(cost);
        let (level, since) = self.state.unwrap_or((capacity, now));
        let level = (level + rate * now.saturating_duration_since(since).as_secs_f64()).min(most);
        // A rounding error must not make anybody wait for a nanosecond.
        if level + 1e-6 >= cost {
            self.state = Some(((level - cost).max(0.0).min(capacity), now));
            return Ok(());
        }
        self.state = Some((level, now));
        Err(Duration::from_secs_f64(((cost - level) / rate).min(1e9)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_second_s_worth_goes_at_once_and_the_rest_as_it_comes() {
        let (mut bucket, start) = (Bucket::new(), Instant::now());
        for _ in 0..10 {
            assert_eq!(bucket.take(start, 10.0, 1.0), Ok(()));
        }
        let wait = bucket.take(start, 10.0, 1.0).expect_err("it is empty");
        assert!(
            wait.abs_diff(Duration::from_millis(100)) < Duration::from_millis(1),
            "{wait:?}"
        );
        assert_eq!(bucket.take(start + wait, 10.0, 1.0), Ok(()));
    }

    #[test]
    fn what_is_larger_than_the_bucket_passes_once_so_much_has_come() {
        let (mut bucket, start) = (Bucket::new(), Instant::now());
        let wait = bucket.take(start, 100.0, 500.0).expect_err("only 100 are there");
        assert!(
            wait.abs_diff(Duration::from_secs(4)) < Duration::from_millis(1),
            "{wait:?}"
        );
        assert!(bucket.take(start + wait / 2, 100.0, 500.0).is_err());
        assert_eq!(bucket.take(start + wait, 100.0, 500.0), Ok(()));
        assert!(
            bucket.take(start + wait, 100.0, 1.0).is_err(),
            "nothing is left over"
        );
    }

    proptest! {
        #[test]
        fn never_more_is_taken_than_the_rate_allows(
            rate in 0.5_f64..1000.0, asks in prop::collection::vec((0_u32..2_000, 1_u32..800), 1..100),
        ) {
            let (mut bucket, start) = (Bucket::new(), Instant::now());
            let (mut now, mut taken) = (start, 0.0);
            for (pause_ms, cost) in asks {
                now += Duration::from_millis(u64::from(pause_ms));
                let cost = f64::from(cost);
                if let Err(wait) = bucket.take(now, rate, cost) {
                    now += wait;
                    prop_assert_eq!(bucket.take(now, rate, cost), Ok(()), "who waits as told gets it");
                }
                taken += cost;
                let come = rate.max(1.0) + rate * (now - start).as_secs_f64();
                prop_assert!(taken <= come + 0.01, "{} of {}", taken, come);
            }
        }
    }
}
