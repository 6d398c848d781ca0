//! When a batch closes, what goes into it, and how it is written. Pure: time is an argument.
use std::time::{Duration, Instant};

const HEAD: &[u8] = b"{\"batched_log_events\":[";
const TAIL: &[u8] = b"]}";

/// Bounds of one batch (`[batch]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most events in a batch; at least 1. Default 500.
    pub max_events: usize,
    /// Most bytes of request body; a single larger event still goes, alone. Default 4 MiB.
    pub max_bytes: usize,
    /// Longest that an event waits for company. Default 500 ms.
    pub max_age: Duration,
}

/// What of a lane is ready to be leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ready {
    /// Events that can be leased now; never more than a lane may have on lease at once.
    pub events: u64,
    /// Payload bytes of all that is queued and not leased.
    pub bytes: u64,
    /// When the oldest of them became ready. `None` while there are none.
    pub oldest: Option<Instant>,
}

/// What a courier should do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing is ready.
    Idle,
    /// Wait for more until this moment.
    WaitUntil(Instant),
    /// Take a batch now.
    Close,
}

impl Limits {
    /// Closes on count, bytes or age.
    pub fn decide(&self, ready: &Ready, now: Instant) -> Decision {
        if ready.events == 0 {
            return Decision::Idle;
        }
        let envelope = (HEAD.len() + TAIL.len()) as u64;
        // Every event but the first brings a comma.
        let bytes = ready
            .bytes
            .saturating_add(envelope)
            .saturating_add(ready.events - 1);
        if ready.events >= self.max_events as u64 || bytes >= self.max_bytes as u64 {
            return Decision::Close;
        }
        // Without a moment, or with one that no clock can reach, there is nothing to wait for or until.
        match ready.oldest.and_then(|oldest| oldest.checked_add(self.max_age)) {
            Some(due) if due > now => Decision::WaitUntil(due),
            _ => Decision::Close,
        }
    }

    /// How many of the next events, given their lengths in order, make one batch: at least one, if
    /// there is one, and never over the limits otherwise. The envelope and commas count.
    pub fn cut(&self, lengths: impl IntoIterator<Item = usize>) -> usize {
        let mut size = HEAD.len() + TAIL.len();
        let mut count = 0;
        for length in lengths {
            let grown = size.saturating_add(length).saturating_add(usize::from(count > 0));
            if count > 0 && (count >= self.max_events || grown > self.max_bytes) {
                break;
            }
            size = grown;
            count += 1;
        }
        count
    }
}

/// Request body `{"batched_log_events":[...]}` with the events byte for byte.
pub fn body<'a>(events: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let events: Vec<&[u8]> = events.into_iter().collect();
    let payload: usize = events.iter().map(|event| event.len()).sum();
    let mut out = Vec::with_capacity(HEAD.len() + payload + events.len().saturating_sub(1) + TAIL.len());
    out.extend_from_slice(HEAD);
    for (at, event) in events.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(event);
    }
    out.extend_from_slice(TAIL);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::split::Form;
    use crate::wire::split_whole;
    use proptest::prelude::*;

    fn limits(max_events: usize, max_bytes: usize) -> Limits {
        Limits {
            max_events,
            max_bytes,
            max_age: Duration::from_millis(500),
        }
    }

    #[test]
    fn a_batch_closes_on_count_bytes_or_age() {
        let limits = limits(10, 125);
        let start = Instant::now();
        let ready = |events, bytes| Ready {
            events,
            bytes,
            oldest: Some(start),
        };
        let due = start + limits.max_age;
        assert_eq!(limits.decide(&Ready::default(), start), Decision::Idle);
        assert_eq!(limits.decide(&ready(9, 18), start), Decision::WaitUntil(due));
        assert_eq!(limits.decide(&ready(10, 20), start), Decision::Close);
        assert_eq!(limits.decide(&ready(2, 98), start), Decision::WaitUntil(due));
        assert_eq!(limits.decide(&ready(2, 99), start), Decision::Close);
        assert_eq!(
            limits.decide(&ready(1, 2), due - Duration::from_nanos(1)),
            Decision::WaitUntil(due)
        );
        assert_eq!(limits.decide(&ready(1, 2), due), Decision::Close);
        assert_eq!(limits.decide(&ready(u64::MAX, u64::MAX), start), Decision::Close);
    }

    #[test]
    fn the_envelope_and_the_commas_count_towards_the_bytes() {
        let three = body([b"{}".as_slice(), b"{}", b"{}"]);
        assert_eq!(three, br#"{"batched_log_events":[{},{},{}]}"#);
        assert_eq!(limits(10, three.len()).cut([2, 2, 2, 2]), 3);
        assert_eq!(limits(10, three.len() - 1).cut([2, 2, 2, 2]), 2);
        assert_eq!(limits(2, 1000).cut([2, 2, 2, 2]), 2);
    }

    #[test]
    fn a_single_event_over_the_limits_goes_alone() {
        assert_eq!(limits(10, 100).cut([usize::MAX, 1]), 1);
        assert_eq!(limits(10, 100).cut([1, usize::MAX]), 1);
        assert_eq!(limits(10, 100).cut([]), 0);
        assert_eq!(limits(0, 0).cut([5, 5]), 1);
    }

    proptest! {
        #[test]
        fn repeated_cuts_lose_nothing_double_nothing_and_keep_order_and_bounds(
            events in prop::collection::vec("\\{\"[a-z]{0,40}\": *-?[1-9][0-9]{0,30}\\.[0-9]{1,5}\\}", 0..60),
            max_events in 1_usize..20,
            max_bytes in 0_usize..300,
        ) {
            let limits = limits(max_events, max_bytes);
            let mut left: &[String] = &events;
            let mut seen = Vec::new();
            while !left.is_empty() {
                let count = limits.cut(left.iter().map(String::len));
                prop_assert!(count >= 1 && count <= left.len());
                let (batch, rest) = left.split_at(count);
                let body = body(batch.iter().map(|event| event.as_bytes()));
                prop_assert_eq!(body.capacity(), body.len());
                prop_assert!(count == 1 || (count <= max_events && body.len() <= max_bytes));
                if let Some(next) = rest.first() {
                    // The next one would not have fitted.
                    prop_assert!(count == max_events || body.len() + 1 + next.len() > max_bytes);
                }
                let cut = split_whole(&body, Form::Batch, usize::MAX, usize::MAX).expect("a batch");
                seen.extend(cut.into_iter().flatten().map(|event| String::from_utf8_lossy(event.text).into_owned()));
                left = rest;
            }
            prop_assert_eq!(seen, events);
        }

        #[test]
        fn what_decides_to_close_never_waits_past_the_age(
            events in any::<u64>(), bytes in any::<u64>(), waited_ms in 0_u64..2_000,
        ) {
            let limits = limits(500, 4 << 20);
            let start = Instant::now();
            let now = start + Duration::from_millis(waited_ms);
            match limits.decide(&Ready { events, bytes, oldest: Some(start) }, now) {
                Decision::Idle => prop_assert_eq!(events, 0),
                Decision::WaitUntil(due) => prop_assert!(due > now && due == start + limits.max_age),
                Decision::Close => prop_assert!(events > 0),
            }
        }
    }
}
