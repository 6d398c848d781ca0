//! What each lane is doing, what became of the latest events, and what is wrong with the listeners, for people: written where it
//! happens, read by `/status`, `/readyz` and `/events`.
use crate::fates::Fates;
use crate::ids::Lane;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What a lane is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LaneState {
    /// Nothing to send, or sending.
    Flowing,
    /// Waiting after a passing fault.
    BackingOff {
        /// Attempts in a row that failed.
        failures: u32,
        /// The fault, in one sentence.
        reason: String,
    },
    /// Waiting for a person.
    Parked {
        /// What is wrong and what to do, in one sentence.
        reason: String,
    },
    /// No key is configured for its project: events are kept and not sent.
    QueueingOnly {
        /// What to do, in one sentence.
        reason: String,
    },
}

impl LaneState {
    /// `flowing`, `backing_off`, `parked` or `queueing_only`, as used in metrics and status.
    pub fn name(&self) -> &'static str {
        match self {
            LaneState::Flowing => "flowing",
            LaneState::BackingOff { .. } => "backing_off",
            LaneState::Parked { .. } => "parked",
            LaneState::QueueingOnly { .. } => "queueing_only",
        }
    }
}

/// What was learned of the upstream about events that break its tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenCountsState {
    /// Whether it loses them unless they carry token counts.
    pub needed: bool,
    /// When that was learned, in milliseconds since 1970.
    pub since_ms: u64,
}

/// What each part has to say, by the part's name.
type Notices = Arc<Mutex<BTreeMap<&'static str, String>>>;

/// All lanes' states. Cheap to clone; all clones show the same.
#[derive(Debug, Clone, Default)]
pub struct Board {
    lanes: Arc<Mutex<BTreeMap<Lane, LaneState>>>,
    fates: Fates,
    notices: Notices,
    token_counts: Arc<Mutex<Option<TokenCountsState>>>,
}

/// Where one part of the daemon, such as a listener, says what is wrong with it.
#[derive(Debug, Clone)]
pub struct Notice {
    part: &'static str,
    notices: Notices,
}

impl Notice {
    /// Puts a sentence in place of the one before; `None` when all is well again.
    pub fn set(&self, sentence: Option<&str>) {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        match sentence {
            Some(sentence) => notices.insert(self.part, format!("{}: {sentence}", self.part)),
            None => notices.remove(self.part),
        };
    }
}

impl Board {
    /// Writes a lane's state down. Returns whether it changed in kind, which is when a log line is due.
    pub fn set(&self, lane: &Lane, state: LaneState) -> bool {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = lanes
            .get(lane)
            .is_none_or(|old| std::mem::discriminant(old) != std::mem::discriminant(&state));
        lanes.insert(lane.clone(), state);
        changed
    }

    /// Where the part of that name says what is wrong with it.
    pub fn notice(&self, part: &'static str) -> Notice {
        let notices = self.notices.clone();
        Notice { part, notices }
    }

    /// All that parts have to say, one sentence each.
    pub fn notices(&self) -> Vec<String> {
        let notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        notices.values().cloned().collect()
    }

    /// Writes down what was learned of the upstream; `None` for another upstream, of which nothing is known.
    pub fn set_token_counts(&self, state: Option<TokenCountsState>) {
        let mut token_counts = self.token_counts.lock().unwrap_or_else(PoisonError::into_inner);
        *token_counts = state;
    }

    /// What was learned of the upstream; `None`: nothing yet.
    pub fn token_counts(&self) -> Option<TokenCountsState> {
        *self.token_counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of the latest events.
    pub fn fates(&self) -> &Fates {
        &self.fates
    }

    /// A lane's state; a lane that nobody wrote down is flowing.
    pub fn get(&self, lane: &Lane) -> LaneState {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.get(lane).cloned().unwrap_or(LaneState::Flowing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Kind, ProjectId};

    #[test]
    fn only_a_change_of_kind_is_worth_a_log_line() {
        let board = Board::default();
        let lane = Lane {
            project: ProjectId::new("p").expect("an id"),
            kind: Kind::Log,
        };
        let failing = |failures| LaneState::BackingOff {
            failures,
            reason: "down".into(),
        };
        assert_eq!(board.get(&lane), LaneState::Flowing);
        assert!(board.set(&lane, failing(1)));
        assert!(!board.set(&lane, failing(2)));
        assert_eq!(board.get(&lane), failing(2));
        assert!(board.set(&lane, LaneState::Flowing));
    }

    #[test]
    fn a_part_has_one_thing_to_say_at_a_time() {
        let board = Board::default();
        let notice = board.clone().notice("the TCP listener");
        notice.set(Some("crowded"));
        notice.set(Some("full"));
        board.notice("another").set(None);
        assert_eq!(board.notices(), ["the TCP listener: full"]);
        notice.set(None);
        assert_eq!(board.notices(), [""; 0]);
    }

    #[test]
    fn the_name_of_a_state_is_what_status_shows() {
        let reason = String::new();
        for state in [
            LaneState::Flowing,
            LaneState::Parked {
                reason: reason.clone(),
            },
            LaneState::QueueingOnly {
                reason: reason.clone(),
            },
            LaneState::BackingOff { failures: 1, reason },
        ] {
            let json = serde_json::to_value(&state).expect("it serializes");
            assert_eq!(json["state"], state.name());
        }
    }
}
