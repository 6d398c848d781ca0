//! The size of request that an upstream takes, as learned from what it refuses and from what is lost on the way. Pure: time is an
//! argument. All lanes share one, because they share the way.
//!
//! **Two kinds of evidence.** A 413 is *firm*: so much is too much. A time-out, a cut connection, a 408 or a 504 is *weak*: the way
//! may be too slow for so much, or it may be down for everything. So a weak fault halves what is sent next, but it is only believed
//! to be about size once it comes a second time with smaller requests passing in between. Until then the size doubles with each
//! request that passes, so after an outage it is back at the full one in some ten requests, and after a lost connection in one.
//!
//! **Growing.** Between the largest size that passes and the smallest that is believed to be refused, the bound settles: by halving
//! the distance after firm faults, on what passes after weak ones, which cost a time-out each. What was refused is tried again after
//! [`FIRM_WAIT`] or [`WEAK_WAIT`], and twice as late each time that it is refused again.

use std::time::{Duration, Instant};

/// A bound is never below this, so that a lane keeps moving. Without a bound, weak faults of less than twice of it say nothing.
const FLOOR_BYTES: usize = 4 << 10;
/// A distance between what passes and what is refused of less than this part is not worth another refusal.
const NEAR: usize = 8;
/// When a size is tried again that a 413 refused.
const FIRM_WAIT: Duration = Duration::from_secs(600);
/// The same for one that is believed to be too slow.
const WEAK_WAIT: Duration = Duration::from_secs(60);
/// The longest that either becomes.
const MAX_WAIT: Duration = Duration::from_secs(2 * 3_600);

/// What is known about the largest request that passes. Starts without a bound of its own.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SizeCap {
    /// The bound now.
    cap: Option<usize>,
    /// The largest that passed since there is a bound; 0: none yet.
    passed: usize,
    refused: Option<Refused>,
    /// The last that was heard is a fault.
    failing: bool,
}

/// The smallest size that failed.
#[derive(Debug, Clone, Copy)]
struct Refused {
    bytes: usize,
    /// It is believed to be about size: so much is not tried before this moment, and after it for so long the next time.
    believed: Option<(Instant, Duration)>,
    firm: bool,
}

impl SizeCap {
    /// Notes a 413 for a request of so many bytes.
    pub(super) fn refused(&mut self, bytes: usize, now: Instant) {
        self.fail(bytes, true, true, now);
    }

    /// Notes a fault that may have to do with the size of a request of so many bytes.
    pub(super) fn lost(&mut self, bytes: usize, now: Instant) {
        if self.cap.is_none() && bytes < 2 * FLOOR_BYTES {
            return;
        }
        let first = !std::mem::replace(&mut self.failing, true);
        if first && bytes <= self.passed {
            // As much passes as a rule.
            return;
        }
        let again = first && self.refused.is_some();
        self.fail(bytes, false, again, now);
    }

    /// Notes that a request of so many bytes passed, where `most` are configured. One of less than half of the bound says nothing
    /// about it.
    pub(super) fn passed(&mut self, bytes: usize, most: usize, now: Instant) {
        self.failing = false;
        if self.refused.is_some_and(|refused| bytes >= refused.bytes) {
            self.refused = None;
        }
        let Some(cap) = self.cap else {
            return;
        };
        self.passed = self.passed.max(bytes);
        if bytes < cap / 2 {
            return;
        }
        let doubled = cap.max(bytes).saturating_mul(2);
        let grown = match self.refused {
            Some(Refused {
                bytes: refused,
                believed: Some((until, _)),
                firm,
            }) => {
                let near = self.is_near(refused);
                let between = self.passed + refused.saturating_sub(self.passed) / 2;
                match (firm, now >= until) {
                    // A little over it, because events do not add up to a size exactly.
                    (true, true) => refused + refused / NEAR,
                    (false, true) if near => refused + refused / NEAR,
                    (true, false) if !near => between,
                    (false, true) => between,
                    (_, false) => self.passed,
                }
                .min(doubled)
            }
            _ => doubled,
        };
        self.cap = Some(grown.max(FLOOR_BYTES));
        if grown >= most && self.refused.is_none() {
            *self = Self::default();
        }
    }

    /// The bound to use where `most` bytes are configured.
    pub(super) fn apply(&self, most: usize) -> usize {
        self.cap.map_or(most, |cap| cap.min(most))
    }

    fn is_near(&self, refused: usize) -> bool {
        refused.saturating_sub(self.passed) <= refused / NEAR
    }

    fn fail(&mut self, bytes: usize, firm: bool, believe: bool, now: Instant) {
        let believed = match self.refused.and_then(|before| before.believed) {
            // It was time to try it again, and it fails still.
            Some((until, wait)) if believe && now >= until => {
                let wait = (wait * 2).min(MAX_WAIT);
                Some((now + wait, wait))
            }
            None if believe => {
                let wait = if firm { FIRM_WAIT } else { WEAK_WAIT };
                Some((now + wait, wait))
            }
            before => before,
        };
        let smallest = self.refused.filter(|before| before.bytes <= bytes);
        let refused = Refused {
            bytes: smallest.map_or(bytes, |before| before.bytes),
            believed,
            firm: smallest.map_or(firm, |before| before.firm),
        };
        self.refused = Some(refused);
        if self.passed >= refused.bytes {
            self.passed = 0;
        }
        let bound = match (refused.believed.is_some(), self.passed) {
            (false, _) | (true, 0) => refused.bytes / 2,
            (true, passed) if !refused.firm || self.is_near(refused.bytes) => passed,
            (true, passed) => passed + (refused.bytes - passed) / 2,
        };
        self.cap = Some(self.cap.map_or(bound, |cap| cap.min(bound)).max(FLOOR_BYTES));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOST: usize = 4 << 20;
    const SECOND: Duration = Duration::from_secs(1);

    /// How a way with a limit fares: requests of the bound's size, one a `step`, for so many of them.
    struct Drive {
        cap: SizeCap,
        now: Instant,
        refusals: usize,
    }

    impl Drive {
        fn new() -> Self {
            Self {
                cap: SizeCap::default(),
                now: Instant::now(),
                refusals: 0,
            }
        }

        /// One request that is as large as it may be, less a part of an event.
        fn send(&mut self, limit: usize, firm: bool, slack: usize) -> usize {
            let bound = self.cap.apply(MOST);
            let bytes = bound - slack.min(bound / 20);
            self.now += SECOND;
            match (bytes > limit, firm) {
                (false, _) => self.cap.passed(bytes, MOST, self.now),
                (true, true) => self.cap.refused(bytes, self.now),
                (true, false) => self.cap.lost(bytes, self.now),
            }
            self.refusals += usize::from(bytes > limit);
            bytes
        }
    }

    #[test]
    fn after_an_outage_the_full_size_is_back_in_some_ten_requests() {
        let mut drive = Drive::new();
        for _ in 0..50 {
            drive.send(0, false, 0);
        }
        assert_eq!(drive.cap.apply(MOST), FLOOR_BYTES);
        for _ in 0..10 {
            drive.send(MOST, false, 0);
        }
        assert_eq!(drive.cap.apply(MOST), MOST);
    }

    #[test]
    fn a_lost_connection_costs_one_request_of_half_the_size() {
        let mut drive = Drive::new();
        drive.send(MOST, false, 0);
        drive.cap.lost(MOST, drive.now);
        assert_eq!(drive.cap.apply(MOST), MOST / 2);
        drive.send(MOST, false, 0);
        assert_eq!(drive.cap.apply(MOST), MOST);
        drive.cap.lost(5_000, drive.now);
        assert_eq!(drive.cap.apply(MOST), MOST, "so little says nothing about size");
    }

    #[test]
    fn a_way_that_becomes_wide_is_used_again() {
        for firm in [true, false] {
            let mut drive = Drive::new();
            for _ in 0..100 {
                drive.send(300_000, firm, 0);
            }
            assert!(drive.cap.apply(MOST) <= 300_000, "{firm}");
            let (mut requests, before) = (0, drive.cap.apply(MOST));
            while drive.cap.apply(MOST) < MOST {
                requests += 1;
                drive.send(MOST, firm, 0);
                assert!(requests < 4_000, "{firm}: {}", drive.cap.apply(MOST));
            }
            println!("firm {firm}: from {before} to all after {requests} s");
        }
    }

    #[test]
    fn a_size_that_passes_as_a_rule_is_not_given_up_for_one_lost_connection() {
        let mut drive = Drive::new();
        for _ in 0..20 {
            drive.send(300_000, false, 0);
        }
        let bound = drive.cap.apply(MOST);
        drive.cap.lost(bound, drive.now);
        assert_eq!(drive.cap.apply(MOST), bound);
        drive.cap.lost(bound, drive.now);
        assert!(drive.cap.apply(MOST) < bound, "twice in a row is another matter");
    }

    proptest! {
        #[test]
        fn few_requests_are_refused_and_most_of_what_passes_is_used(
            limit in FLOOR_BYTES..MOST, firm: bool, slack in 0usize..10_000,
        ) {
            let mut drive = Drive::new();
            let mut last = 0;
            for _ in 0..200 {
                last = drive.send(limit, firm, slack);
            }
            prop_assert!(drive.refusals <= 18, "{} refusals", drive.refusals);
            prop_assert!(last <= limit && last >= limit / 3, "{last} of {limit}");
            for _ in 200..86_400 {
                last = drive.send(limit, firm, slack);
            }
            prop_assert!(drive.refusals <= 60, "{} refusals in a day", drive.refusals);
            prop_assert!(last >= limit / 2 || last > limit, "{last} of {limit} after a day");
        }

        #[test]
        fn whatever_comes_the_bound_is_within_the_limits_and_comes_back(
            news in prop::collection::vec((0u8..3, 1usize..(8 << 20), 0u64..5_000), 0..200),
        ) {
            let mut drive = Drive::new();
            for (kind, bytes, seconds) in news {
                drive.now += Duration::from_secs(seconds);
                match kind {
                    0 => drive.cap.passed(bytes, MOST, drive.now),
                    1 => drive.cap.refused(bytes, drive.now),
                    _ => drive.cap.lost(bytes, drive.now),
                }
                let bound = drive.cap.apply(MOST);
                prop_assert!((FLOOR_BYTES..=MOST).contains(&bound), "{bound}");
            }
            for _ in 0..4 * 3_600 {
                drive.send(usize::MAX, false, 0);
            }
            prop_assert_eq!(drive.cap.apply(MOST), MOST);
        }
    }
}
