//! How many log requests of a lane may be in flight at once, by how the upstream takes them. Pure: time is an argument.
//!
//! Between 1 and `delivery.concurrency`. Up by one with each answer at first, and by one a full window of answers from half of where
//! it last had to come down; only while more is waiting than the window lets go. Down to a half on a passing fault (a 429 or a 503, a
//! time-out, a lost connection) or when answers become slow, once a round trip at most; down to 1 when a second attempt in a row
//! fails, which is an outage.
//!
//! **Slow** is relative, because a request of 4 MiB takes longer than one of 4 KiB. Requests are told apart by the binary
//! logarithm of their size. Each class remembers its shortest time of the last one to two minutes; a request is
//! as slow as its time is to that, scaled up if it is larger than the one that set it. The mean of that over the last few requests
//! must pass [`SLOW`], and the request itself must have taken [`SLACK`] longer, so that a few milliseconds of jitter mean nothing.

use std::time::{Duration, Instant};

/// So many times the best recent time is slow.
const SLOW: f64 = 2.0;
/// What a request may always take longer than the best one.
const SLACK: Duration = Duration::from_millis(50);
/// The share of the last request in the mean.
const WEIGHT: f64 = 0.25;
/// How long a best time is looked for; it stands for as long again.
const RECENT: Duration = Duration::from_secs(60);
/// Classes of size: up to 1 B, 2 B, 4 B, ... 2 GiB.
const CLASSES: usize = 32;

/// One lane's window.
#[derive(Debug)]
pub(super) struct Window {
    allowed: usize,
    /// Up to here it grows fast.
    threshold: usize,
    /// Answers since it grew last.
    answers: usize,
    /// Faults and slowness of what was sent before this are answered already.
    cut: Option<Instant>,
    slowness: f64,
    classes: [Option<Best>; CLASSES],
}

/// The best of one class.
#[derive(Debug, Clone, Copy)]
struct Best {
    since: Instant,
    now: Sample,
    before: Sample,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    took: Duration,
    bytes: usize,
}

impl Window {
    pub(super) fn new() -> Self {
        Self {
            allowed: 1,
            threshold: usize::MAX,
            answers: 0,
            cut: None,
            slowness: 1.0,
            classes: [None; CLASSES],
        }
    }

    /// Requests that may be in flight, where `most` (at least 1) are configured.
    pub(super) fn allowed(&self, most: usize) -> usize {
        self.allowed.min(most).max(1)
    }

    /// Notes an answer to a request of so many bytes that was sent at `began`. `wanted`: more would have been sent if it had been
    /// allowed.
    pub(super) fn answered(&mut self, began: Instant, now: Instant, bytes: usize, most: usize, wanted: bool) {
        if self.is_slow(now.saturating_duration_since(began), bytes, now) {
            self.slowness = 1.0;
            return self.halve(began, now);
        }
        if !wanted {
            return;
        }
        self.allowed = self.allowed(most);
        self.answers += 1;
        if self.allowed < self.threshold || self.answers >= self.allowed {
            self.allowed = (self.allowed + 1).min(most.max(1));
            self.answers = 0;
        }
    }

    /// Notes that an attempt that was sent at `began` met a passing fault, the `failures`th in a row.
    pub(super) fn failed(&mut self, failures: u32, began: Instant, now: Instant) {
        self.halve(began, now);
        if failures > 1 {
            self.allowed = 1;
        }
    }

    fn halve(&mut self, began: Instant, now: Instant) {
        if self.cut.is_some_and(|cut| began < cut) {
            return;
        }
        self.cut = Some(now);
        self.threshold = (self.allowed / 2).max(1);
        self.allowed = self.threshold;
        self.answers = 0;
    }

    fn is_slow(&mut self, took: Duration, bytes: usize, now: Instant) -> bool {
        let sample = Sample { took, bytes };
        let class = &mut self.classes[(bytes.max(1).ilog2() as usize).min(CLASSES - 1)];
        let best = class.get_or_insert(Best {
            since: now,
            now: sample,
            before: sample,
        });
        let expected = best.expected(bytes);
        best.note(sample, now);
        let slowness = took.as_secs_f64() / expected.as_secs_f64().max(1e-6);
        self.slowness += WEIGHT * (slowness - self.slowness);
        self.slowness > SLOW && slowness > SLOW && took > expected + SLACK
    }
}

impl Best {
    /// What a request of so many bytes would take if all were well.
    fn expected(&self, bytes: usize) -> Duration {
        let expected = |sample: Sample| {
            let larger = (bytes.max(1) as f64 / sample.bytes.max(1) as f64).max(1.0);
            sample.took.mul_f64(larger)
        };
        expected(self.now).min(expected(self.before))
    }

    fn note(&mut self, sample: Sample, now: Instant) {
        if now.saturating_duration_since(self.since) >= RECENT {
            (self.since, self.before, self.now) = (now, self.now, sample);
        } else if sample.took < self.now.took {
            self.now = sample;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    /// Answers of 100 ms each, one after the other, from `at` on.
    fn answers(window: &mut Window, at: &mut Instant, count: usize, most: usize) {
        for _ in 0..count {
            let began = *at;
            *at += 100 * MS;
            window.answered(began, *at, 1000, most, true);
        }
    }

    #[test]
    fn it_opens_fast_at_first_and_by_one_a_window_above_half_of_where_it_was_cut() {
        let (mut window, mut at) = (Window::new(), Instant::now());
        assert_eq!(window.allowed(16), 1);
        answers(&mut window, &mut at, 15, 16);
        assert_eq!(window.allowed(16), 16);
        answers(&mut window, &mut at, 50, 16);
        assert_eq!(window.allowed(16), 16, "never over what is configured");
        window.failed(1, at, at);
        assert_eq!(window.allowed(16), 8);
        answers(&mut window, &mut at, 7, 16);
        assert_eq!(window.allowed(16), 8);
        answers(&mut window, &mut at, 1, 16);
        assert_eq!(window.allowed(16), 9, "a full window of answers");
    }

    #[test]
    fn what_was_sent_side_by_side_halves_it_once() {
        let (mut window, mut at) = (Window::new(), Instant::now());
        answers(&mut window, &mut at, 15, 16);
        for _ in 0..5 {
            window.failed(1, at - 50 * MS, at);
        }
        assert_eq!(window.allowed(16), 8);
        window.failed(1, at + MS, at + 2 * MS);
        assert_eq!(window.allowed(16), 4, "this one was sent after the cut");
    }

    #[test]
    fn an_outage_closes_it_to_one_and_it_opens_slowly_afterwards() {
        let (mut window, mut at) = (Window::new(), Instant::now());
        answers(&mut window, &mut at, 15, 16);
        for failures in 1..5 {
            at += 100 * MS;
            window.failed(failures, at, at);
        }
        assert_eq!(window.allowed(16), 1);
        answers(&mut window, &mut at, 1, 16);
        assert_eq!(window.allowed(16), 2);
        answers(&mut window, &mut at, 1, 16);
        assert_eq!(window.allowed(16), 2);
        answers(&mut window, &mut at, 1, 16);
        assert_eq!(window.allowed(16), 3);
    }

    #[test]
    fn it_does_not_open_for_a_lane_that_needs_no_more() {
        let (mut window, at) = (Window::new(), Instant::now());
        for _ in 0..100 {
            window.answered(at, at + MS, 1000, 16, false);
        }
        assert_eq!(window.allowed(16), 1);
    }

    #[test]
    fn answers_that_take_over_twice_as_long_halve_it_and_a_larger_batch_does_not() {
        let (mut window, mut at) = (Window::new(), Instant::now());
        answers(&mut window, &mut at, 15, 16);
        for (bytes, took_ms) in [(1_900, 190), (4_000_000, 5_000), (10, 1), (1_000, 140)] {
            for _ in 0..10 {
                window.answered(at, at + took_ms * MS, bytes, 16, true);
            }
            assert_eq!(window.allowed(16), 16, "{bytes} bytes in {took_ms} ms");
        }
        window.answered(at, at + 300 * MS, 1_000, 16, true);
        assert_eq!(window.allowed(16), 16, "one slow answer is no trend");
        for _ in 0..4 {
            window.answered(at, at + 300 * MS, 1_000, 16, true);
        }
        assert_eq!(window.allowed(16), 8);
    }

    #[test]
    fn what_was_best_long_ago_is_forgotten() {
        let (mut window, mut at) = (Window::new(), Instant::now());
        answers(&mut window, &mut at, 15, 16);
        at += 3 * RECENT;
        for _ in 0..3 {
            window.answered(at, at + 500 * MS, 1000, 16, true);
            at += RECENT;
        }
        for _ in 0..300 {
            let began = at;
            at += 500 * MS;
            window.answered(began, at, 1000, 16, true);
        }
        assert_eq!(window.allowed(16), 16, "this is how it is now");
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(
            steps in prop::collection::vec((0_u8..4, 0_u64..5_000, 0_usize..10_000_000, 1_usize..70, any::<bool>()), 0..200),
        ) {
            let (mut window, mut now) = (Window::new(), Instant::now());
            for (what, ms, bytes, most, wanted) in steps {
                let began = now;
                now += u32::try_from(ms).expect("small") * MS;
                let before = window.allowed(most);
                match what {
                    0 => window.failed(1, began, now),
                    1 => window.failed(2, began, now),
                    _ => window.answered(began, now, bytes, most, wanted),
                }
                let after = window.allowed(most);
                prop_assert!((1..=most).contains(&after));
                prop_assert!(after <= before + 1, "never more than one at a time");
                prop_assert!(after >= before / 2 || what == 1, "never less than a half but in an outage");
            }
        }
    }
}
