//! How a lane's upstream is doing, as far as the lane has seen. Pure: time and randomness are arguments.

use crate::backoff::Backoff;
use std::time::{Duration, Instant};

/// Steps of the backoff that the waits between the probes of a parked lane, and between the looks for a
/// task that is not there yet, begin at: 4 s with the default `retry.min` of 500 ms.
const PATIENT_START: u32 = 4;

/// Every so many probes, a parked lane tries more than its first event, which may be what is refused.
const COMPARE_EVERY: u32 = 4;

/// What a lane remembers of its faults. All tasks of a lane share one.
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    trouble: Option<Trouble>,
}

#[derive(Debug, Clone)]
struct Trouble {
    since: Instant,
    last: Instant,
    failures: u32,
    until: Instant,
    parked: bool,
    /// Probes in vain since something passed last.
    probes: u32,
    /// The next probe tries a second event whatever its turn is.
    compare: bool,
}

impl Health {
    /// Notes a passing fault of an attempt that began at `began`. Attempts that ran side by side count once. Returns
    /// the failures in a row.
    pub(super) fn failed(
        &mut self,
        began: Instant,
        now: Instant,
        asked: Option<Duration>,
        backoff: &Backoff,
        random: u64,
    ) -> u32 {
        let trouble = self.trouble.get_or_insert(Trouble {
            since: began,
            last: began,
            failures: 0,
            until: now,
            parked: false,
            probes: 0,
            compare: false,
        });
        if trouble.failures == 0 || began >= trouble.last {
            trouble.failures = trouble.failures.saturating_add(1);
            trouble.last = now;
            let asked = asked.map_or(Duration::ZERO, |asked| backoff.cap(asked));
            trouble.until = now + backoff.delay(trouble.failures, random).max(asked);
        }
        trouble.failures
    }

    /// Notes that the lane waits for a person; the next probe comes after a wait that grows.
    pub(super) fn parked(&mut self, began: Instant, now: Instant, backoff: &Backoff, random: u64) {
        let trouble = self.trouble.get_or_insert(Trouble {
            since: began,
            last: began,
            failures: 0,
            until: now,
            parked: true,
            probes: 0,
            compare: false,
        });
        if !trouble.parked {
            trouble.failures = 0;
        }
        (trouble.parked, trouble.compare) = (true, false);
        if trouble.failures == 0 || began >= trouble.last {
            trouble.failures = trouble.failures.saturating_add(1);
            trouble.probes = trouble.probes.saturating_add(1);
            trouble.last = now;
            trouble.until = now + patient(backoff, trouble.failures, random);
        }
    }

    /// Notes that the upstream took something. Returns how long it had not, if it had not.
    pub(super) fn passed(&mut self, now: Instant) -> Option<Duration> {
        self.trouble
            .take()
            .map(|trouble| now.saturating_duration_since(trouble.since))
    }

    /// Notes that the upstream found fault with an event: the key works, so the lane waits for no person any more. It is
    /// troubled still. Returns whether it was parked.
    pub(super) fn unpark(&mut self) -> bool {
        self.trouble
            .as_mut()
            .is_some_and(|trouble| std::mem::take(&mut trouble.parked))
    }

    /// Ends the wait: something changed that may have mended it.
    pub(super) fn wake(&mut self, now: Instant) {
        if let Some(trouble) = &mut self.trouble {
            trouble.until = trouble.until.min(now);
        }
    }

    /// The same for a parked lane that had few events to probe with, and has another now.
    pub(super) fn wake_to_compare(&mut self, now: Instant) {
        self.wake(now);
        if let Some(trouble) = &mut self.trouble {
            trouble.compare = true;
        }
    }

    /// The moment before which nothing is to be sent, if it is still to come.
    pub(super) fn hold(&self, now: Instant) -> Option<Instant> {
        self.trouble
            .as_ref()
            .map(|trouble| trouble.until)
            .filter(|until| *until > now)
    }

    /// Whether the last that was heard is a fault. Then one attempt at a time is enough.
    pub(super) fn is_troubled(&self) -> bool {
        self.trouble.is_some()
    }

    /// How many of the first events the next probe of a parked lane may try: more and more, every [`COMPARE_EVERY`] probes; else
    /// one. `None` if the lane is not parked.
    pub(super) fn probe(&self) -> Option<usize> {
        let trouble = self.trouble.as_ref().filter(|trouble| trouble.parked)?;
        let (rounds, rest) = (trouble.probes / COMPARE_EVERY, trouble.probes % COMPARE_EVERY);
        let few = rest > 0 || rounds == 0;
        Some(if few && !trouble.compare {
            1
        } else {
            8 << rounds.min(20)
        })
    }

    /// Whether the lane waits for a person.
    pub(super) fn is_parked(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.parked)
    }
}

/// A wait that grows with `times` (at least 1) from some seconds to `retry.max`, half of it at random.
pub(super) fn patient(backoff: &Backoff, times: u32, random: u64) -> Duration {
    let step = times.saturating_add(PATIENT_START - 1);
    backoff.delay(step, u64::MAX) / 2 + backoff.delay(step, random) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_millis(500), Duration::from_secs(60)).expect("bounds are in order")
    }

    #[test]
    fn attempts_side_by_side_count_as_one_failure() {
        let (mut health, start) = (Health::default(), Instant::now());
        let later = start + Duration::from_secs(1);
        assert_eq!(health.failed(start, later, None, &backoff(), 1), 1);
        assert_eq!(
            health.failed(start, later + Duration::from_secs(1), None, &backoff(), 1),
            1
        );
        let next = later + Duration::from_secs(5);
        assert_eq!(health.failed(next, next, None, &backoff(), 1), 2);
        assert_eq!(health.passed(next), Some(next - start));
        assert_eq!(health.passed(next), None);
    }

    #[test]
    fn retry_after_is_honoured_and_capped() {
        let (mut health, now) = (Health::default(), Instant::now());
        health.failed(now, now, Some(Duration::from_secs(7)), &backoff(), 0);
        assert_eq!(health.hold(now), Some(now + Duration::from_secs(7)));
        let mut health = Health::default();
        health.failed(now, now, Some(Duration::from_secs(86_400)), &backoff(), 0);
        assert_eq!(health.hold(now), Some(now + Duration::from_secs(60)));
    }

    #[test]
    fn probes_of_a_parked_lane_grow_rarer_and_a_wake_ends_the_wait() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..8 {
            health.parked(now, now, &backoff(), u64::MAX);
            let until = health.hold(now).expect("it waits");
            waits.push(until - now);
            now = until;
        }
        assert!(waits.is_sorted(), "{waits:?}");
        assert!(waits[0] >= Duration::from_secs(2), "{waits:?}");
        assert!(waits[7] <= Duration::from_secs(60), "{waits:?}");
        health.parked(now, now, &backoff(), 0);
        health.wake(now);
        assert_eq!(health.hold(now), None);
        assert_eq!(health.probe(), Some(1));
        let probes: Vec<_> = (0..12)
            .map(|_| {
                let probe = health.probe();
                now += Duration::from_secs(100);
                health.parked(now, now, &backoff(), 0);
                probe
            })
            .collect();
        let more = probes.iter().filter(|probe| **probe > Some(1));
        assert_eq!(
            more.collect::<Vec<_>>(),
            [&Some(64), &Some(128), &Some(256)],
            "{probes:?}"
        );
        assert!(health.is_parked(), "it is parked until something is taken");
        health.parked(now, now, &backoff(), 0);
        assert_eq!(health.probe(), Some(1));
        health.wake_to_compare(now);
        assert!(health.hold(now).is_none() && health.probe() > Some(1));
        health.parked(now, now, &backoff(), 0);
        assert_eq!(health.probe(), Some(1), "once");
        assert!(health.unpark());
        assert!(health.is_troubled() && !health.is_parked());
        assert!(!health.unpark());
    }
}
