//! What is said about dropped events: one line at most every ten seconds. Pure: time is an argument.
use super::dropping::Reason;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Shortest time between two lines.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Most lanes that a line names.
const MAX_NAMED: usize = 8;

/// What was dropped and not told yet.
#[derive(Debug, Default)]
pub(super) struct DropLog {
    /// Events by lane number.
    untold: BTreeMap<u32, u64>,
    reason: Option<Reason>,
    /// Since the last quiet time: when it began, and events in all.
    since: Option<(Instant, u64)>,
    told_at: Option<Instant>,
}

/// What there is to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Events are being dropped.
    Dropped {
        /// Since the line before.
        events: u64,
        /// Lane numbers with their events, those with most first.
        lanes: Vec<(u32, u64)>,
        /// Lanes that are not among them.
        other_lanes: usize,
        /// How long it has been going on, and events in all.
        lasted: Duration,
        total: u64,
        reason: Reason,
    },
    /// It has stopped.
    Stopped {
        /// Events in all.
        total: u64,
    },
}

impl DropLog {
    /// Notes what a durable commit dropped.
    pub(super) fn note(&mut self, lane: u32, events: u64, reason: Reason, now: Instant) {
        *self.untold.entry(lane).or_default() += events;
        self.reason = Some(reason);
        self.since.get_or_insert((now, 0)).1 += events;
    }

    /// When there is next something to say.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.since?;
        Some(self.told_at.map_or(now, |at| at + LINE_EVERY))
    }

    /// What is to be said now; all that is left to say if it is the `last` time.
    pub(super) fn line(&mut self, now: Instant, last: bool) -> Option<Line> {
        let (began, total) = self.since?;
        if !last && self.due(now).is_some_and(|due| now < due) {
            return None;
        }
        self.told_at = Some(now);
        let mut lanes: Vec<(u32, u64)> = std::mem::take(&mut self.untold).into_iter().collect();
        let Some(reason) = self.reason.take() else {
            self.since = None;
            self.told_at = None;
            return Some(Line::Stopped { total });
        };
        lanes.sort_by_key(|&(lane, events)| (std::cmp::Reverse(events), lane));
        let events = lanes.iter().map(|(_, events)| events).sum();
        let other_lanes = lanes.len().saturating_sub(MAX_NAMED);
        lanes.truncate(MAX_NAMED);
        Some(Line::Dropped {
            events,
            lanes,
            other_lanes,
            lasted: now.duration_since(began),
            total,
            reason,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: Option<Line>) -> (u64, u64, usize) {
        match line {
            Some(Line::Dropped {
                events,
                total,
                other_lanes,
                ..
            }) => (events, total, other_lanes),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_drop_is_told_at_once_the_next_ones_together_and_then_that_it_stopped() {
        let (mut log, start) = (DropLog::default(), Instant::now());
        assert_eq!((log.due(start), log.line(start, true)), (None, None));
        log.note(1, 5, Reason::Bytes, start);
        assert_eq!(told(log.line(start, false)), (5, 5, 0));
        log.note(1, 2, Reason::Bytes, start);
        log.note(2, 1, Reason::Disk, start);
        assert_eq!(log.line(start + LINE_EVERY / 2, false), None);
        assert_eq!(log.due(start), Some(start + LINE_EVERY));
        assert_eq!(told(log.line(start + LINE_EVERY, false)), (3, 8, 0));
        assert_eq!(
            log.line(start + 2 * LINE_EVERY, false),
            Some(Line::Stopped { total: 8 })
        );
        assert_eq!(log.due(start), None);
    }

    #[test]
    fn the_last_line_waits_for_nothing_and_names_a_few_lanes() {
        let (mut log, start) = (DropLog::default(), Instant::now());
        log.note(0, 1, Reason::Disk, start);
        log.line(start, false);
        for lane in 0..20 {
            log.note(lane, u64::from(lane) + 1, Reason::Disk, start);
        }
        match log.line(start, true) {
            Some(Line::Dropped {
                lanes, other_lanes, ..
            }) => {
                assert_eq!((lanes[0], lanes.len(), other_lanes), ((19, 20), MAX_NAMED, 12));
            }
            other => panic!("{other:?}"),
        }
    }
}
