//! What people are told about new dead letters: a log line at once after a quiet minute, then one a minute at most, and a
//! hint for `/status`. By project and cause, never by content: a reason can quote an event. Pure: time is an argument.
use super::DeadLetter;
use crate::ids::{Kind, ProjectId};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

/// Shortest time between two lines, and how long a quiet time is.
const LINE_EVERY: Duration = Duration::from_secs(60);
/// How long after the latest dead letter the hint stays.
const HINT_FOR: Duration = Duration::from_secs(60 * 60);
/// Most groups that are counted apart; the rest is counted together.
const MAX_GROUPS: usize = 64;
/// Most groups that a sentence names, those with most letters first.
const MAX_NAMED: usize = 4;

/// Dead letters of one kind, for one cause, in one project.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LetterGroup {
    project: ProjectId,
    kind: Kind,
    cause: Cause,
}

/// Why an event was given up, as far as it can be said without quoting it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// It was refused on arrival.
    Invalid,
    /// The API answered with this status.
    Status(u16),
    /// It was given up without an answer about it.
    Unanswered,
}

impl LetterGroup {
    /// Which group a letter belongs to; `on_arrival`: it never was in the queue.
    pub(super) fn of(letter: &DeadLetter, on_arrival: bool) -> Self {
        let cause = match (on_arrival, letter.burial.status) {
            (true, _) => Cause::Invalid,
            (false, Some(status)) => Cause::Status(status),
            (false, None) => Cause::Unanswered,
        };
        Self {
            project: letter.lane.project.clone(),
            kind: letter.lane.kind,
            cause,
        }
    }

    fn phrase(&self, letters: u64) -> String {
        let noun = match (self.kind, letters) {
            (Kind::Log, 1) => "event",
            (Kind::Log, _) => "events",
            (Kind::Feedback, _) => "feedback",
        };
        let project = &self.project;
        match (self.kind, self.cause) {
            (_, Cause::Invalid) => format!("{letters} invalid {noun} of project {project}"),
            (Kind::Log, Cause::Status(status @ 200..=299)) => {
                format!(
                    "{letters} {noun} of project {project} that the API refused or did not store ({status})"
                )
            }
            (Kind::Feedback, Cause::Status(404)) => {
                format!("{letters} {noun} of project {project} whose task the API does not have (404)")
            }
            (_, Cause::Status(status)) => {
                format!("{letters} {noun} of project {project} that the API refused ({status})")
            }
            (_, Cause::Unanswered) => {
                format!("{letters} {noun} of project {project} given up without an answer of the API")
            }
        }
    }
}

/// Counts by group, bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Tally {
    groups: BTreeMap<LetterGroup, u64>,
    /// Of groups that found no room.
    others: u64,
}

impl Tally {
    fn add(&mut self, group: &LetterGroup) {
        let room = self.groups.len() < MAX_GROUPS;
        match self.groups.get_mut(group) {
            Some(letters) => *letters += 1,
            None if room => {
                self.groups.insert(group.clone(), 1);
            }
            None => self.others += 1,
        }
    }

    fn total(&self) -> u64 {
        self.groups.values().sum::<u64>() + self.others
    }

    /// The largest groups, and how many letters are not in them.
    fn sentence(&self) -> String {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|&(group, &letters)| (Reverse(letters), group));
        let named = groups.iter().take(MAX_NAMED);
        let mut phrases: Vec<String> = named.map(|(group, letters)| group.phrase(**letters)).collect();
        let unnamed = groups.iter().skip(MAX_NAMED).map(|(_, letters)| **letters);
        match unnamed.sum::<u64>() + self.others {
            0 => {}
            more => phrases.push(format!("{more} others")),
        }
        phrases.join(", ")
    }
}

/// A log line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Dead letters since the line before.
    pub(super) letters: u64,
    /// Which, by project and cause.
    pub(super) which: String,
    /// The time that they came in; `None` for the first ones after a quiet time.
    pub(super) within: Option<Duration>,
}

/// Dead letters that belong together: with less than [`HINT_FOR`] between any two of them.
#[derive(Debug)]
struct Series {
    since: SystemTime,
    latest: Instant,
    tally: Tally,
}

/// What is to be said about dead letters.
#[derive(Debug, Default)]
pub(super) struct LetterLog {
    unsaid: Tally,
    /// When the last line was, unless it has been quiet since.
    said_at: Option<Instant>,
    series: Option<Series>,
}

impl LetterLog {
    /// Notes letters that are durable. `wall` is the time that people are told.
    pub(super) fn note(&mut self, groups: &[LetterGroup], now: Instant, wall: SystemTime) {
        if groups.is_empty() {
            return;
        }
        if self.series.as_ref().is_some_and(|series| series.is_over(now)) {
            self.series = None;
        }
        let series = self.series.get_or_insert_with(|| Series {
            since: wall,
            latest: now,
            tally: Tally::default(),
        });
        series.latest = now;
        for group in groups {
            series.tally.add(group);
            self.unsaid.add(group);
        }
    }

    /// When [`LetterLog::line`] must be asked again.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        match self.said_at {
            Some(said_at) => Some(said_at + LINE_EVERY),
            None => (self.unsaid.total() > 0).then_some(now),
        }
    }

    /// What is to be said now; all that is unsaid if it is the `last` time.
    pub(super) fn line(&mut self, now: Instant, last: bool) -> Option<Line> {
        let due = self.due(now)?;
        if now < due && !last {
            return None;
        }
        let unsaid = std::mem::take(&mut self.unsaid);
        if unsaid.total() == 0 {
            self.said_at = None;
            return None;
        }
        let before = self.said_at.replace(now);
        Some(Line {
            letters: unsaid.total(),
            which: unsaid.sentence(),
            within: before.map(|before| now.duration_since(before)),
        })
    }

    /// The hint for `/status`, until there was none for an hour.
    pub(super) fn hint(&self, now: Instant) -> Option<String> {
        let series = self.series.as_ref().filter(|series| !series.is_over(now))?;
        let letters = series.tally.total();
        let (noun, verb) = if letters == 1 {
            ("event", "was")
        } else {
            ("events", "were")
        };
        Some(format!(
            "{letters} {noun} {verb} given up since {}: {}; `phosphod dead list` shows why, `dead requeue` sends them again",
            humantime::format_rfc3339_seconds(series.since),
            series.tally.sentence()
        ))
    }

    /// An operator has purged dead letters or queued them again, so the hint has done its work.
    pub(super) fn handled(&mut self) {
        self.series = None;
    }
}

impl Series {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.latest) >= HINT_FOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn group(project: &str, kind: Kind, cause: Cause) -> LetterGroup {
        let project = ProjectId::new(project).expect("an id");
        LetterGroup { project, kind, cause }
    }

    fn invalid(project: &str) -> LetterGroup {
        group(project, Kind::Log, Cause::Invalid)
    }

    fn wall(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_is_said_at_once_and_what_follows_once_a_minute_until_it_is_quiet() {
        let (mut log, start) = (LetterLog::default(), Instant::now());
        assert_eq!((log.due(start), log.line(start, false)), (None, None));
        log.note(&[invalid("p"), invalid("p")], start, wall(0));
        assert_eq!(log.due(start), Some(start), "the owner has to be woken for it");
        let first = log.line(start, false).expect("a line at once");
        assert_eq!((first.letters, first.within), (2, None));
        assert_eq!(first.which, "2 invalid events of project p");

        log.note(&[invalid("p")], start + LINE_EVERY / 3, wall(20));
        log.note(&[invalid("q")], start + LINE_EVERY / 2, wall(30));
        assert_eq!(
            log.line(start + LINE_EVERY / 2, false),
            None,
            "not twice in a minute"
        );
        assert_eq!(log.due(start), Some(start + LINE_EVERY));
        let second = log.line(start + LINE_EVERY, false).expect("a summary");
        assert_eq!((second.letters, second.within), (2, Some(LINE_EVERY)));

        assert_eq!(log.line(start + 2 * LINE_EVERY, false), None, "nothing new");
        assert_eq!(log.due(start), None, "and nothing to wake up for");
        let later = start + 3 * LINE_EVERY;
        log.note(&[invalid("p")], later, wall(180));
        assert_eq!(log.line(later, false).expect("at once again").within, None);
    }

    #[test]
    fn the_last_line_waits_for_nothing() {
        let (mut log, start) = (LetterLog::default(), Instant::now());
        log.note(&[invalid("p")], start, wall(0));
        log.line(start, false);
        assert_eq!(log.line(start, true), None, "all is said");
        log.note(&[invalid("p")], start, wall(0));
        assert_eq!(log.line(start, true).map(|line| line.letters), Some(1));
    }

    #[test]
    fn each_cause_has_its_words_and_none_comes_from_an_event() {
        let phrase = |kind, cause, letters| group("p", kind, cause).phrase(letters);
        for (kind, cause, letters, expected) in [
            (Kind::Log, Cause::Invalid, 1, "1 invalid event of project p"),
            (
                Kind::Feedback,
                Cause::Invalid,
                2,
                "2 invalid feedback of project p",
            ),
            (
                Kind::Log,
                Cause::Status(422),
                3,
                "3 events of project p that the API refused (422)",
            ),
            (
                Kind::Log,
                Cause::Status(200),
                1,
                "1 event of project p that the API refused or did not store (200)",
            ),
            (
                Kind::Feedback,
                Cause::Status(404),
                1,
                "1 feedback of project p whose task the API does not have (404)",
            ),
            (
                Kind::Log,
                Cause::Unanswered,
                1,
                "1 event of project p given up without an answer of the API",
            ),
        ] {
            assert_eq!(phrase(kind, cause, letters), expected);
        }
    }

    #[test]
    fn the_hint_says_how_many_by_cause_since_when_until_it_is_handled_or_an_hour_old() {
        let (mut log, start) = (LetterLog::default(), Instant::now());
        assert_eq!(log.hint(start), None);
        log.note(&[invalid("p")], start, wall(0));
        log.line(start, false);
        let later = start + HINT_FOR / 2;
        let refused = group("p", Kind::Log, Cause::Status(422));
        log.note(&[refused.clone(), refused], later, wall(1_800));
        let hint = log.hint(later).expect("a hint");
        let expected = "3 events were given up since 1970-01-01T00:00:00Z: 2 events of project p that the API refused (422), \
                        1 invalid event of project p; ";
        assert!(hint.starts_with(expected), "{hint}");
        assert!(
            log.hint(start + HINT_FOR).is_some(),
            "the latest is half an hour old"
        );
        assert_eq!(log.hint(later + HINT_FOR), None);

        log.note(&[invalid("p")], later + HINT_FOR, wall(5_400));
        let hint = log.hint(later + HINT_FOR).expect("a new series");
        assert!(
            hint.starts_with("1 event was given up since 1970-01-01T01:30:00Z"),
            "{hint}"
        );
        log.handled();
        assert_eq!(log.hint(later + HINT_FOR), None);
    }

    proptest! {
        #[test]
        fn every_letter_is_counted_in_one_line_however_many_groups_there_are(
            steps in prop::collection::vec((0..200_u32, 0..90_u64), 1..300),
        ) {
            let (mut log, mut now) = (LetterLog::default(), Instant::now());
            let (mut said, mut lines, began) = (0, 0_u32, now);
            for (project, seconds) in &steps {
                now += Duration::from_secs(*seconds);
                log.note(&[invalid(&format!("p{project}"))], now, wall(0));
                if let Some(line) = log.line(now, false) {
                    said += line.letters;
                    lines += 1;
                    prop_assert!(line.which.len() < 1_000, "{}", line.which);
                }
            }
            said += log.line(now, true).map_or(0, |line| line.letters);
            prop_assert_eq!(said, steps.len() as u64);
            let minutes = u32::try_from((now - began).as_secs() / LINE_EVERY.as_secs()).expect("small");
            prop_assert!(lines <= minutes + 1, "{} lines in {} minutes", lines, minutes);
        }
    }
}
