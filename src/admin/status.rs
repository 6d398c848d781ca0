//! The page of `/status`. Pure.

use crate::board::{LaneState, TokenCountsState};
use crate::ids;
use crate::ledger::Ledger;
use crate::secret::Secrets;
use crate::spool;
use crate::visible::is_hidden;
use serde::Serialize;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashSet;
use std::time::Duration;

/// Most lanes on the page: each project that a client names has two.
const MOST_LANES: usize = 256;
/// Most hints on the page: a reason can name its project.
const MOST_HINTS: usize = 16;

#[derive(Debug, Serialize)]
pub(super) struct Status<'a> {
    version: &'static str,
    uptime_s: u64,
    ledger: Ledger,
    lanes: Vec<Lane>,
    /// How many further lanes there are.
    more_lanes: usize,
    spool: Spool,
    upstream: Upstream<'a>,
    /// Why something is not accepted, not sent, or was given up, one sentence each; empty when all is well.
    hints: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Upstream<'a> {
    base_url: &'a str,
    /// Whether tool calls and the like need token counts to be stored: `needed`, `not_needed` or `unknown`.
    token_counts: &'static str,
    /// When that was learned, in milliseconds since 1970.
    token_counts_since_ms: Option<u64>,
}

impl<'a> Upstream<'a> {
    fn new(base_url: &'a str, learned: Option<TokenCountsState>) -> Self {
        let token_counts = match learned.map(|state| state.needed) {
            Some(true) => "needed",
            Some(false) => "not_needed",
            None => "unknown",
        };
        Self {
            base_url,
            token_counts,
            token_counts_since_ms: learned.map(|state| state.since_ms),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Spool {
    pub(super) live_bytes: u64,
    pub(super) refusing: Option<String>,
    pub(super) damage: Damage,
}

/// What became of damaged files of the queue.
#[derive(Debug, Default, Serialize)]
pub(super) struct Damage {
    saved: u64,
    lost: u64,
    /// Names of the folders under `quarantine/` in `spool.path`.
    quarantined: Vec<String>,
}

impl From<spool::Damage> for Damage {
    fn from(damage: spool::Damage) -> Self {
        let spool::Damage {
            saved,
            lost,
            quarantined,
        } = damage;
        Self {
            saved,
            lost,
            quarantined,
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Lane {
    project: String,
    kind: &'static str,
    queued: u64,
    ready: u64,
    state: &'static str,
    reason: Option<String>,
    failures: u32,
}

/// Names of the lanes' states, as in `/status` and in `phosphod_lanes`.
const STATES: [&str; 4] = ["flowing", "backing_off", "parked", "queueing_only"];

fn place(state: &LaneState) -> usize {
    match state {
        LaneState::Flowing => 0,
        LaneState::BackingOff { .. } => 1,
        LaneState::Parked { .. } => 2,
        LaneState::QueueingOnly { .. } => 3,
    }
}

/// How many lanes are in which state.
#[derive(Debug, Default)]
pub(super) struct StateCounts([i64; STATES.len()]);

impl StateCounts {
    pub(super) fn add(&mut self, state: &LaneState) {
        self.0[place(state)] += 1;
    }

    /// Every state, those without lanes too, so that a gauge goes back to 0.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, i64)> {
        STATES.into_iter().zip(self.0)
    }
}

impl Lane {
    pub(super) fn new(lane: &ids::Lane, queued: u64, ready: u64, state: LaneState) -> Self {
        let name = STATES[place(&state)];
        let (reason, failures) = match state {
            LaneState::Flowing => (None, 0),
            LaneState::BackingOff { failures, reason } => (Some(reason), failures),
            LaneState::Parked { reason } | LaneState::QueueingOnly { reason } => (Some(reason), 0),
        };
        let (project, kind) = (lane.project.to_string(), lane.kind.as_str());
        Self {
            project,
            kind,
            queued,
            ready,
            state: name,
            reason,
            failures,
        }
    }
}

impl<'a> Status<'a> {
    pub(super) fn new(
        (base_url, learned): (&'a str, Option<TokenCountsState>),
        uptime: Duration,
        ledger: Ledger,
        lanes: Vec<Lane>,
        spool: Spool,
        notices: &[String],
        given_up: &[String],
    ) -> Self {
        let hints = hints(&lanes, &spool, notices, given_up);
        let (lanes, more_lanes) = shown(lanes);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: uptime.as_secs(),
            ledger,
            lanes,
            more_lanes,
            spool,
            upstream: Upstream::new(base_url, learned),
            hints,
        }
    }
}

impl Status<'_> {
    /// The page without the daemon's secrets, which an application can name as its project.
    pub(super) fn masked(mut self, secrets: &Secrets) -> Self {
        let lanes = self.lanes.iter_mut();
        let words = lanes.flat_map(|lane| [Some(&mut lane.project), lane.reason.as_mut()]);
        for text in words.flatten().chain(&mut self.hints) {
            if let Cow::Owned(masked) = secrets.mask(text) {
                *text = masked;
            }
        }
        self
    }

    /// The page in one line.
    pub(super) fn sentence(&self) -> String {
        let Ledger { queued, dead, .. } = self.ledger;
        let mut said = format!("{queued} queued, {dead} dead letters");
        match self.hints.as_slice() {
            [] => {}
            [hint] => said.extend(["; ", hint]),
            [hint, more @ ..] => {
                said.extend(["; ", hint, &format!(" (and {} more: see /status)", more.len())])
            }
        }
        // One line, whatever the upstream is quoted with.
        said.replace(is_hidden, " ")
    }
}

/// The lanes for the page, and how many are left out: where there are too many, those in trouble come first, then those with most
/// queued.
fn shown(mut lanes: Vec<Lane>) -> (Vec<Lane>, usize) {
    let more = lanes.len().saturating_sub(MOST_LANES);
    if more > 0 {
        lanes.sort_by_key(|lane| (lane.reason.is_none(), Reverse(lane.queued)));
        lanes.truncate(MOST_LANES);
    }
    (lanes, more)
}

/// Each reason once, however many lanes it holds up; what holds up most comes first. `given_up` is about single events.
fn hints(lanes: &[Lane], spool: &Spool, notices: &[String], given_up: &[String]) -> Vec<String> {
    let waiting = lanes
        .iter()
        .filter(|lane| lane.queued > 0)
        .filter_map(|lane| lane.reason.as_ref());
    let (mut told, mut hints) = (HashSet::new(), Vec::new());
    let held_up = spool.refusing.iter().chain(notices).chain(waiting);
    for reason in held_up.chain(given_up) {
        if told.insert(reason) && hints.len() < MOST_HINTS {
            hints.push(reason.clone());
        }
    }
    if told.len() > hints.len() {
        hints.push(format!("and {} further reasons", told.len() - hints.len()));
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Kind, ProjectId};
    use serde_json::{Value, json};

    fn lane(project: &str, queued: u64, state: LaneState) -> Lane {
        let project = ProjectId::new(project).expect("an id");
        Lane::new(
            &ids::Lane {
                project,
                kind: Kind::Log,
            },
            queued,
            queued,
            state,
        )
    }

    #[test]
    fn a_secret_shows_nowhere_on_the_page() {
        let parked = LaneState::Parked {
            reason: "refused sk-canary".into(),
        };
        let spool = Spool {
            live_bytes: 10,
            refusing: None,
            damage: Damage::default(),
        };
        let lanes = vec![lane("sk-canary", 2, parked)];
        let ledger = Ledger::default();
        let page = Status::new(
            ("http://up", None),
            Duration::ZERO,
            ledger,
            lanes,
            spool,
            &[],
            &[],
        );
        assert!(page.sentence().contains("sk-canary"));
        let secrets = Secrets::default();
        secrets.learn(crate::secret::Secret::new("sk-canary"));
        let page = page.masked(&secrets);
        let said = page.sentence() + &serde_json::to_string(&page).expect("JSON");
        assert!(
            !said.contains("sk-canary") && said.contains("refused ***"),
            "{said}"
        );
    }

    #[test]
    fn the_page_says_once_why_nothing_is_sent() {
        let no_key = || LaneState::QueueingOnly {
            reason: "no key: set PHOSPHO_API_KEY".into(),
        };
        let failing = LaneState::BackingOff {
            failures: 3,
            reason: "refused".into(),
        };
        let lanes = vec![
            lane("a", 2, no_key()),
            lane("b", 1, no_key()),
            lane("c", 0, failing),
        ];
        let spool = Spool {
            live_bytes: 10,
            refusing: None,
            damage: Damage::default(),
        };
        let learned = TokenCountsState {
            needed: true,
            since_ms: 1_700_000_000_000,
        };
        let page = Status::new(
            ("http://up", Some(learned)),
            Duration::from_secs(9),
            Ledger::default(),
            lanes,
            spool,
            &["TCP: crowded".to_owned()],
            &["2 events were given up".to_owned()],
        );
        let sentence = page.sentence();
        let page = serde_json::to_value(&page).expect("JSON");
        assert_eq!(
            page["hints"],
            json!([
                "TCP: crowded",
                "no key: set PHOSPHO_API_KEY",
                "2 events were given up"
            ])
        );
        assert_eq!(page["more_lanes"], 0);
        assert_eq!(page["uptime_s"], 9);
        assert_eq!(
            sentence,
            "0 queued, 0 dead letters; TCP: crowded (and 2 more: see /status)"
        );
        assert_eq!(
            page["upstream"],
            json!({"base_url": "http://up", "token_counts": "needed", "token_counts_since_ms": 1_700_000_000_000_u64})
        );
        let unknown = serde_json::to_value(Upstream::new("http://up", None)).expect("JSON");
        assert_eq!(unknown["token_counts"], "unknown");
        assert_eq!(page["lanes"][0]["state"], "queueing_only");
        assert_eq!(page["lanes"][2]["failures"], 3);
        assert_eq!(page["spool"]["refusing"], Value::Null);
        assert_eq!(page["ledger"]["accepted"], 0);
    }

    #[test]
    fn the_page_stays_small_however_many_lanes_there_are() {
        let lanes: Vec<Lane> = (0..1_000)
            .map(|n| {
                let parked = LaneState::Parked {
                    reason: format!("wrong key for p{n}"),
                };
                let state = if n < 100 { LaneState::Flowing } else { parked };
                lane(&format!("p{n}"), n % 500, state)
            })
            .collect();
        let hints = hints(
            &lanes,
            &Spool {
                live_bytes: 0,
                refusing: None,
                damage: Damage::default(),
            },
            &[],
            &[],
        );
        // Of the 900 that are parked one has nothing queued: p500.
        assert_eq!(hints.len(), MOST_HINTS + 1);
        assert_eq!(
            hints[MOST_HINTS],
            format!("and {} further reasons", 899 - MOST_HINTS)
        );
        let (shown, more) = shown(lanes);
        assert_eq!((shown.len(), more), (MOST_LANES, 1_000 - MOST_LANES));
        assert!(shown.iter().all(|lane| lane.state == "parked"));
        assert!(shown.is_sorted_by_key(|lane| Reverse(lane.queued)));
    }

    #[test]
    fn every_state_is_counted_even_when_no_lane_is_in_it() {
        let mut counts = StateCounts::default();
        counts.add(&LaneState::Parked {
            reason: String::new(),
        });
        let all: Vec<_> = counts.all().collect();
        assert_eq!(
            all,
            [
                ("flowing", 0),
                ("backing_off", 0),
                ("parked", 1),
                ("queueing_only", 0)
            ]
        );
    }
}
