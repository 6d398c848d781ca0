//! Whether the upstream tells which tasks it has stored. Pure: time is an argument.
//!
//! A proxy that is being restarted answers for a moment as if there were no `GET /v2/tasks/{task_id}`. So one such answer means nothing:
//! the same question is asked again, with growing waits. Reading back is given up once it met [`TIMES_UNSEEN`] of them in a row and
//! the upstream has never told anything, or [`TIMES_SEEN`] where it had; any word about a task, from any lane, starts
//! that anew. Then it is tried again every [`AGAIN`] with one question. A question that is never answered while others are
//! is given up alone after [`TIMES_SEEN`]. A task whose URL alone is answered oddly ([`crosscheck`](super::crosscheck)) is
//! remembered, so that it is not asked for again.

use crate::ids::TaskId;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Answers without a word in a row that say enough about an upstream that has never told anything.
const TIMES_UNSEEN: u32 = 3;
/// The same for one that has told before: about five minutes with the default `[retry]`.
const TIMES_SEEN: u32 = 10;
/// How long until an upstream that does not tell is asked again.
const AGAIN: Duration = Duration::from_secs(3600);

/// Tasks without a URL that are remembered; beyond that all are forgotten.
const MOST_UNNAMED: usize = 1_024;

/// What all lanes know about it; made anew when the settings change.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// It has shown a stored task.
    shown: bool,
    /// It has said something about a task.
    told: bool,
    /// Answers without a word since then.
    silent: u32,
    /// Since when it is not asked.
    off: Option<Instant>,
    /// Tasks that no URL seems to name, though others are told about.
    unnamed: HashSet<TaskId>,
}

/// What to do after an answer without a word about the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// Ask again later.
    AskAgain,
    /// Believe the upstream that it stored this one.
    Believe,
    /// From now on believe all; people are to be told.
    GivenUp,
}

impl Telling {
    /// Whether to ask now. Of those who come after an hour of not asking one is let through.
    pub(super) fn may_ask(&mut self, now: Instant) -> bool {
        match &mut self.off {
            Some(since) if now.saturating_duration_since(*since) < AGAIN => false,
            Some(since) => {
                *since = now;
                true
            }
            None => true,
        }
    }

    /// Whether reading back was given up, for now.
    pub(super) fn is_off(&self) -> bool {
        self.off.is_some()
    }

    /// Notes a word about a task: stored or not. Returns whether it had been given up.
    pub(super) fn told(&mut self, stored: bool) -> bool {
        self.told = true;
        self.shown |= stored;
        self.silent = 0;
        self.off.take().is_some()
    }

    /// Notes that the URL of one task was answered `times` times in a row as if there were no such route, or in another way
    /// that says nothing, while that of a plain id was answered properly each time. Returns whether the task is taken to have
    /// no URL from now on: [`TIMES_UNSEEN`] such answers are needed for the first, fewer once there is one.
    pub(super) fn unnamed(&mut self, task: &TaskId, times: u32) -> bool {
        let enough = if self.unnamed.is_empty() {
            TIMES_UNSEEN
        } else {
            TIMES_UNSEEN - 1
        };
        if times < enough {
            return false;
        }
        if self.unnamed.len() >= MOST_UNNAMED {
            self.unnamed.clear();
        }
        self.unnamed.insert(task.clone());
        true
    }

    /// Whether a URL names the task, as far as is known.
    pub(super) fn names(&self, task: &TaskId) -> bool {
        task.is_addressable() && !self.unnamed.contains(task)
    }

    /// Whether the upstream has shown a stored task.
    pub(super) fn has_shown(&self) -> bool {
        self.shown
    }

    /// Notes that the same question was answered `times` times in a row without a word.
    pub(super) fn silent(&mut self, times: u32, now: Instant) -> Silence {
        if self.off.is_some() {
            return Silence::Believe;
        }
        self.silent = self.silent.saturating_add(1);
        let enough = if self.told { TIMES_SEEN } else { TIMES_UNSEEN };
        // Many lanes that meet one short fault are no proof, so the question itself must have been asked that often.
        match times >= enough {
            true if self.silent >= enough => {
                self.off = Some(now);
                Silence::GivenUp
            }
            true => Silence::Believe,
            false => Silence::AskAgain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_that_never_tells_is_given_up_after_three_answers_to_one_question() {
        let (mut telling, now) = (Telling::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(
                telling.silent(1, now),
                Silence::AskAgain,
                "many lanes in one moment"
            );
        }
        assert_eq!(telling.silent(2, now), Silence::AskAgain);
        assert_eq!(telling.silent(3, now), Silence::GivenUp);
        assert!(!telling.may_ask(now));
        assert_eq!(
            telling.silent(1, now),
            Silence::Believe,
            "one that was on its way"
        );
    }

    #[test]
    fn one_that_told_before_is_given_up_after_many_only() {
        let (mut telling, now) = (Telling::default(), Instant::now());
        assert!(!telling.told(true));
        for times in 1..10 {
            assert_eq!(telling.silent(times, now), Silence::AskAgain);
        }
        assert_eq!(telling.silent(10, now), Silence::GivenUp);
        assert!(telling.has_shown());
    }

    #[test]
    fn a_question_without_an_answer_is_given_up_alone_while_others_are_answered() {
        let (mut telling, now) = (Telling::default(), Instant::now());
        for times in 1..=10 {
            telling.told(false);
            let expected = if times < 10 {
                Silence::AskAgain
            } else {
                Silence::Believe
            };
            assert_eq!(telling.silent(times, now), expected);
        }
        assert!(telling.may_ask(now));
        assert!(!telling.has_shown(), "a missing task is a word, and shows none");
    }

    #[test]
    fn it_is_asked_again_once_an_hour_and_trusted_as_soon_as_it_tells() {
        let (mut telling, now) = (Telling::default(), Instant::now());
        for times in 1..=3 {
            telling.silent(times, now);
        }
        let (before, after) = (now + AGAIN - Duration::from_secs(1), now + AGAIN);
        assert!(!telling.may_ask(before));
        assert!(telling.may_ask(after));
        assert!(!telling.may_ask(after), "one is enough");
        assert_eq!(telling.silent(1, after), Silence::Believe);
        assert!(telling.may_ask(after + AGAIN));
        assert!(telling.told(true));
        assert!(telling.may_ask(after + AGAIN));
    }

    #[test]
    fn a_task_without_a_url_is_known_after_some_answers_and_turns_nothing_off() {
        let task = |name: &str| TaskId::new(name).expect("an id");
        let (mut telling, now) = (Telling::default(), Instant::now());
        assert!(
            !telling.names(&task("a/b")) && !telling.names(&task("..")),
            "by its text"
        );
        assert!(telling.names(&task("a:b")));
        assert!(!telling.unnamed(&task("a:b"), 1) && !telling.unnamed(&task("a:b"), 2));
        assert!(telling.names(&task("a:b")));
        assert!(telling.unnamed(&task("a:b"), 3));
        assert!(!telling.names(&task("a:b")) && telling.names(&task("a:c")));
        assert!(!telling.unnamed(&task("a:c"), 1) && telling.unnamed(&task("a:c"), 2));
        assert!(telling.may_ask(now));
        for nr in 0..2 * MOST_UNNAMED {
            telling.unnamed(&task(&format!("n{nr}")), 3);
        }
        assert!(telling.unnamed.len() <= MOST_UNNAMED);
    }
}
