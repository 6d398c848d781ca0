//! Moves what is queued of a project to another one: events that were queued under a wrong project id.
//!
//! A group at a time is taken on lease and put into the other project's lane in one commit ([`Spool::transfer`]), the logs
//! first, then the feedback. Couriers get none of it meanwhile. What one has on lease meanwhile is waited for, for a while, and else left where it is.

use crate::batch::Limits;
use crate::event;
use crate::ids::{Kind, Lane, ProjectId};
use crate::spool::{LaneView, Leased, Spool};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Bounds of a group: other callers of the spool wait for no more than one of these.
const GROUP: Limits = Limits {
    max_events: 500,
    max_bytes: 2 * 1024 * 1024,
    max_age: Duration::ZERO,
};

/// How long events that are being sent are waited for, in each of the two lanes.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked meanwhile whether they have ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a move did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Log events that are in the other project's lane now.
    pub logs: u64,
    /// Feedback that is.
    pub feedback: u64,
    /// Events of both kinds that are still in the old lanes: they are being sent, or came since it began.
    pub left: u64,
}

/// Why a move ended early, and what it did before. Nothing is lost: the rest is where it was.
#[derive(Debug)]
pub struct Stopped {
    /// What was moved before.
    pub done: Moved,
    /// Why it ended.
    pub sentence: String,
}

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Moved { logs, feedback, .. } = self.done;
        match logs + feedback {
            0 => f.write_str(&self.sentence),
            _ => write!(
                f,
                "{logs} log events and {feedback} feedback are moved, the rest is not: {}",
                self.sentence
            ),
        }
    }
}

/// What a request asks for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    from: String,
    to: String,
}

/// The two projects of a request, `{"from": "OLD", "to": "NEW"}`. The old id may be one that is not accepted any more.
///
/// # Errors
/// Not such an object, or an id that is none. The sentence names the remedy.
pub(super) fn asked(body: &[u8]) -> Result<(ProjectId, ProjectId), String> {
    let asked: Asked = serde_json::from_slice(body)
        .map_err(|error| format!("send {{\"from\": \"OLD\", \"to\": \"NEW\"}}, two project ids ({error})"))?;
    projects(&asked.from, &asked.to)
}

/// The ids of the project that events are queued for, and of the one that they are to go to.
///
/// # Errors
/// One of them is none; the second may have no quotes or blanks around it. The sentence names the remedy.
pub fn projects(from: &str, to: &str) -> Result<(ProjectId, ProjectId), String> {
    let from = ProjectId::new(from).map_err(|error| format!("from: {error}"))?;
    let to = ProjectId::from_client(to).map_err(|error| format!("to: {error}"))?;
    Ok((from, to))
}

/// Moves all that is queued of `from` when it begins behind what is queued of `to`, in order.
///
/// # Errors
/// The two are the same, or the spool cannot be written.
pub async fn move_project(spool: &Spool, from: &ProjectId, to: &ProjectId) -> Result<Moved, Stopped> {
    let mut done = Moved::default();
    if from == to {
        let sentence = "both projects are the same: name the one that the events are to go to".to_owned();
        return Err(Stopped { done, sentence });
    }
    // The logs first: feedback must not come before them in the other lane.
    for kind in [Kind::Log, Kind::Feedback] {
        let of = |project: &ProjectId| Lane {
            project: project.clone(),
            kind,
        };
        let views = spool.lanes().borrow().clone();
        let Some(view) = views.iter().find(|view| *view.lane() == of(from)) else {
            continue;
        };
        let moved = match kind {
            Kind::Log => &mut done.logs,
            Kind::Feedback => &mut done.feedback,
        };
        let ended = move_lane(spool, view, &of(to), moved).await;
        done.left += view.queued();
        if let Err(sentence) = ended {
            return Err(Stopped { done, sentence });
        }
    }
    Ok(done)
}

async fn move_lane(spool: &Spool, view: &LaneView, to: &Lane, moved: &mut u64) -> Result<(), String> {
    // What comes later comes from an application that is not mended yet.
    let Some((_, last)) = view.pending() else {
        return Ok(());
    };
    let until = Instant::now() + PATIENCE;
    loop {
        let leased = spool.claim(view.lane(), &GROUP).await;
        let (meant, later): (Vec<Leased>, Vec<Leased>) =
            leased.into_iter().partition(|event| event.seq() <= last);
        if !later.is_empty() {
            spool.release(view.lane(), later).await;
        }
        if !meant.is_empty() {
            let events: Vec<_> = meant
                .into_iter()
                .map(|event| {
                    let record = event::with_project(event.record(), &to.project);
                    (event, record)
                })
                .collect();
            let count = events.len() as u64;
            let transferred = spool.transfer(events, to).await;
            transferred.map_err(|error| error.to_string())?;
            *moved += count;
            continue;
        }
        let is_over = view.pending().is_none_or(|(first, _)| first > last);
        let now = Instant::now();
        if is_over || now >= until {
            return Ok(());
        }
        sleep_until(until.min(now + LOOK_EVERY)).await;
    }
}
