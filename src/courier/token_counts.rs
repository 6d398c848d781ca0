//! Whether the upstream needs token counts on the events that break its tokenizer. Pure: time is an argument.
//!
//! One batch of such events goes without counts, apart from all others: the *question*. If it is stored, the upstream needs none;
//! if it is lost, and stored once the counts are added, it does. Until that is known, other such events get the counts, because
//! one without them may lose everything in its batch. What was learned is about one base URL, is shared by all lanes, and stands
//! for [`VALID`]. After that, and for another base URL, a question of one event is enough.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long what was learned stands.
const VALID: Duration = Duration::from_secs(24 * 3600);

/// `delivery.token_counts`: whether events that break the API's tokenizer get token counts of 0 before they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenCounts {
    /// If the upstream is known to lose them without; asks it where that is not known.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never, and no other event either: what the API cannot store without counts becomes a dead letter.
    Never,
}

/// What to do with events that break the tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// Whether they get counts.
    pub(super) adds: bool,
    /// So many of them go apart and without counts: the question. 0: it is not asked now.
    pub(super) ask: usize,
}

/// What is known, for all lanes. Cheap to clone; all clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Knowledge(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// The upstream that this is about.
    base_url: String,
    /// What was learned last; `None`: nothing yet.
    needed: Option<bool>,
    /// When that was; `None`: it stands no longer.
    since: Option<Instant>,
    /// A question is on its way.
    is_asking: bool,
    /// Some question was answered, of whatever upstream.
    has_asked: bool,
    /// Goes up with each question and each change of the upstream.
    turn: u64,
}

impl Knowledge {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to do now. `can_tell`: what is stored is read back, so that a question can be answered.
    pub(super) fn plan(&self, setting: TokenCounts, base_url: &str, can_tell: bool, now: Instant) -> Plan {
        match setting {
            TokenCounts::Always => return Plan { adds: true, ask: 0 },
            TokenCounts::Never => return Plan { adds: false, ask: 0 },
            TokenCounts::Auto => {}
        }
        let mut known = self.known();
        known.turn_to(base_url);
        let stands = known
            .since
            .is_some_and(|since| now.saturating_duration_since(since) < VALID);
        let ask = match (stands || known.is_asking || !can_tell, known.has_asked) {
            (true, _) => 0,
            (false, false) => usize::MAX,
            (false, true) => 1,
        };
        let adds = known.needed.unwrap_or(true);
        Plan { adds, ask }
    }

    /// Opens a question, unless another one is open.
    pub(super) fn ask(&self, base_url: &str) -> Option<Question> {
        let mut known = self.known();
        known.turn_to(base_url);
        if known.is_asking {
            return None;
        }
        known.is_asking = true;
        known.turn += 1;
        let turn = known.turn;
        Some(Question(Arc::new(Open {
            knowledge: self.clone(),
            turn,
        })))
    }

    /// A batch without counts was lost although the upstream was known to need none: it is asked anew.
    pub(super) fn doubt(&self) {
        let mut known = self.known();
        (known.needed, known.since) = (None, None);
    }
}

impl Known {
    fn turn_to(&mut self, base_url: &str) {
        if self.base_url != base_url {
            *self = Known {
                base_url: base_url.to_owned(),
                has_asked: self.has_asked,
                turn: self.turn + 1,
                ..Known::default()
            };
        }
    }
}

/// The question that is on its way. Once all clones are gone without an answer, it can be asked again.
#[derive(Debug, Clone)]
pub(super) struct Question(Arc<Open>);

#[derive(Debug)]
struct Open {
    knowledge: Knowledge,
    turn: u64,
}

impl Question {
    /// Notes the answer. Returns whether it is news; not if the upstream has changed since.
    pub(super) fn answer(&self, needed: bool, now: Instant) -> bool {
        let mut known = self.0.knowledge.known();
        if known.turn != self.0.turn {
            return false;
        }
        let is_news = known.needed != Some(needed);
        (known.needed, known.since, known.has_asked) = (Some(needed), Some(now), true);
        is_news
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut known = self.knowledge.known();
        if known.turn == self.turn {
            known.is_asking = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://one";

    fn auto(knowledge: &Knowledge, base_url: &str, now: Instant) -> Plan {
        knowledge.plan(TokenCounts::Auto, base_url, true, now)
    }

    #[test]
    fn the_settings_that_are_no_question_ask_none() {
        let (knowledge, now) = (Knowledge::default(), Instant::now());
        let plan = |setting| knowledge.plan(setting, URL, true, now);
        assert_eq!(plan(TokenCounts::Always), Plan { adds: true, ask: 0 });
        assert_eq!(plan(TokenCounts::Never), Plan { adds: false, ask: 0 });
    }

    #[test]
    fn an_unknown_upstream_is_asked_once_at_a_time_and_others_get_counts_meanwhile() {
        let (knowledge, now) = (Knowledge::default(), Instant::now());
        assert_eq!(
            auto(&knowledge, URL, now),
            Plan {
                adds: true,
                ask: usize::MAX
            }
        );
        let question = knowledge.ask(URL).expect("none is open");
        assert!(knowledge.ask(URL).is_none(), "one is open");
        assert_eq!(auto(&knowledge, URL, now), Plan { adds: true, ask: 0 });
        let clone = question.clone();
        drop(question);
        assert_eq!(auto(&knowledge, URL, now).ask, 0, "a clone is still on its way");
        drop(clone);
        assert_eq!(
            auto(&knowledge, URL, now).ask,
            usize::MAX,
            "it was never answered"
        );
    }

    #[test]
    fn what_was_learned_stands_for_a_day_and_then_one_event_asks_again() {
        for needed in [true, false] {
            let (knowledge, now) = (Knowledge::default(), Instant::now());
            let question = knowledge.ask(URL).expect("none is open");
            assert!(question.answer(needed, now));
            assert!(!question.answer(needed, now), "that is no news");
            drop(question);
            let known = Plan { adds: needed, ask: 0 };
            assert_eq!(auto(&knowledge, URL, now), known);
            assert_eq!(auto(&knowledge, URL, now + VALID - Duration::from_secs(1)), known);
            let later = now + VALID;
            assert_eq!(auto(&knowledge, URL, later), Plan { adds: needed, ask: 1 });
            let question = knowledge.ask(URL).expect("none is open");
            assert_eq!(
                auto(&knowledge, URL, later),
                known,
                "as before until that is answered"
            );
            assert!(question.answer(!needed, later));
            assert_eq!(
                auto(&knowledge, URL, later),
                Plan {
                    adds: !needed,
                    ask: 0
                }
            );
        }
    }

    #[test]
    fn another_base_url_is_asked_anew_with_one_event_and_an_old_answer_says_nothing_about_it() {
        let (knowledge, now) = (Knowledge::default(), Instant::now());
        let question = knowledge.ask(URL).expect("none is open");
        question.answer(false, now);
        assert_eq!(auto(&knowledge, "http://two", now), Plan { adds: true, ask: 1 });
        assert!(!question.answer(false, now), "it was about another");
        let second = knowledge.ask("http://two").expect("none is open");
        drop(question);
        assert_eq!(
            auto(&knowledge, "http://two", now).ask,
            0,
            "the second is still open"
        );
        assert!(second.answer(true, now));
        assert_eq!(auto(&knowledge, "http://two", now), Plan { adds: true, ask: 0 });
    }

    #[test]
    fn a_loss_that_what_is_known_does_not_explain_is_a_reason_to_ask_anew() {
        let (knowledge, now) = (Knowledge::default(), Instant::now());
        knowledge.ask(URL).expect("none is open").answer(false, now);
        knowledge.doubt();
        assert_eq!(auto(&knowledge, URL, now), Plan { adds: true, ask: 1 });
    }

    #[test]
    fn where_nothing_is_read_back_nothing_is_asked_and_counts_are_added() {
        let (knowledge, now) = (Knowledge::default(), Instant::now());
        let plan = knowledge.plan(TokenCounts::Auto, URL, false, now);
        assert_eq!(plan, Plan { adds: true, ask: 0 });
    }
}
