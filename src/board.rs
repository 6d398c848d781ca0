//! What each lane is doing, what became of the latest events, and what is wrong with the listeners, for people: written where it
//! happens, read by `/status`, `/readyz` and `/events`.
use crate::fates::Fates;
use crate::ids::{Lane, Seq};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

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

/// How long a feedback may wait for its task before it is worth a hint.
const WAIT_UNHINTED: Duration = Duration::from_secs(60);

/// Feedback that the API has no task for yet, by its place in the order of acceptance, and since when. A courier holds a bounded
/// number of them.
type Waiting = Arc<Mutex<BTreeMap<Lane, BTreeMap<Seq, (Instant, SystemTime)>>>>;

/// All lanes' states. Cheap to clone; all clones show the same.
#[derive(Debug, Clone, Default)]
pub struct Board {
    lanes: Arc<Mutex<BTreeMap<Lane, LaneState>>>,
    fates: Fates,
    notices: Notices,
    waiting: Waiting,
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

    /// A lane's courier begins. Gives what the lane was doing before, if it had one.
    pub fn begin(&self, lane: &Lane) -> Option<LaneState> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.insert(lane.clone(), LaneState::Flowing)
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

    /// Notes since when the API has no task for a feedback of a lane. `wall` is the same moment as people are told it.
    pub fn waits_for_task(&self, lane: &Lane, seq: Seq, since: Instant, wall: SystemTime) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.get_mut(lane) {
            Some(waiting) => waiting.entry(seq).or_insert((since, wall)),
            None => waiting
                .entry(lane.clone())
                .or_default()
                .entry(seq)
                .or_insert((since, wall)),
        };
    }

    /// A feedback of a lane waits for its task no more.
    pub fn waits_no_more(&self, lane: &Lane, seq: Seq) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_lane) = waiting.get_mut(lane) {
            of_lane.remove(&seq);
            if of_lane.is_empty() {
                waiting.remove(lane);
            }
        }
    }

    /// One sentence for each lane with feedback that has waited for its task for over a minute.
    pub fn waiting(&self, now: Instant) -> Vec<String> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let sentences = waiting.iter().filter_map(|(lane, of_lane)| {
            let long = |(since, _): &&(Instant, SystemTime)| now.duration_since(*since) > WAIT_UNHINTED;
            let feedback = of_lane.values().filter(long).count();
            let oldest = of_lane.values().filter(long).map(|(_, wall)| *wall).min()?;
            Some(waiting_sentence(lane, feedback, oldest))
        });
        sentences.collect()
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

fn waiting_sentence(lane: &Lane, feedback: usize, oldest: SystemTime) -> String {
    let verb = if feedback == 1 { "waits" } else { "wait" };
    format!(
        "{feedback} feedback of project {} {verb} for a task that the API does not have, the first since {}: see that the task is \
         logged, and to this account; what still waits after feedback.wait_max becomes a dead letter",
        lane.project,
        humantime::format_rfc3339_seconds(oldest)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Kind, ProjectId};

    #[test]
    fn feedback_that_waits_for_its_task_is_a_hint_after_a_minute_and_until_it_ends() {
        let (board, start) = (Board::default(), Instant::now());
        let project = ProjectId::new("p").expect("an id");
        let lane = Lane {
            project,
            kind: Kind::Feedback,
        };
        let wall = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        board.waits_for_task(&lane, Seq(1), start, wall(0));
        board.waits_for_task(&lane, Seq(2), start + WAIT_UNHINTED, wall(60));
        // Noted again at each look; the first moment counts.
        board.waits_for_task(&lane, Seq(1), start + WAIT_UNHINTED, wall(60));
        assert_eq!(
            board.waiting(start + WAIT_UNHINTED),
            [""; 0],
            "not over a minute yet"
        );
        let said = board.waiting(start + WAIT_UNHINTED * 3 / 2);
        let [hint] = said.as_slice() else {
            panic!("{said:?}")
        };
        assert!(hint.starts_with("1 feedback of project p waits "), "{hint}");
        assert!(hint.contains("the first since 1970-01-01T00:00:00Z"), "{hint}");

        let said = board.waiting(start + 3 * WAIT_UNHINTED);
        assert!(said[0].starts_with("2 feedback of project p wait "), "{said:?}");
        board.waits_no_more(&lane, Seq(1));
        let said = board.waiting(start + 3 * WAIT_UNHINTED);
        assert!(said[0].contains("since 1970-01-01T00:01:00Z"), "{said:?}");
        board.waits_no_more(&lane, Seq(2));
        assert_eq!(board.waiting(start + 3 * WAIT_UNHINTED), [""; 0]);
    }

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
