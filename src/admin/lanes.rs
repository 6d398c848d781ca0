//! Moves what is queued of a project to another one: events that were queued under a wrong project
//! id.
//!
//! A group at a time is taken on lease and put into the other project's lanes in one commit
//! ([`Spool::transfer`]). Couriers get none of it meanwhile. What one of them has on lease is
//! waited for, for a while, and else everything is left where it is.

use crate::batch::Limits;
use crate::event;
use crate::ids::ProjectId;
use crate::spool::{LaneView, Spool};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Bounds of the logs in a group: other callers of the spool wait for no more than one of these.
const GROUP: Limits = Limits {
    max_events: 500,
    max_bytes: 2 * 1024 * 1024,
    max_age: Duration::ZERO,
};

/// How long events that are being sent are waited for.
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
    /// Events of both kinds that are still in the old lanes: some are being sent, or they came
    /// since it began.
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

/// The two projects of a request, `{"from": "OLD", "to": "NEW"}`. The old id may be one that is not
/// accepted any more.
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
/// One of them is none; the second may have no quotes or blanks around it. The sentence names the
/// remedy.
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
    let ended = move_lanes(spool, &lanes_of(spool, from), (from, to), &mut done).await;
    done.left = lanes_of(spool, from).iter().map(LaneView::queued).sum();
    match ended {
        Ok(()) => Ok(done),
        Err(sentence) => Err(Stopped { done, sentence }),
    }
}

fn lanes_of(spool: &Spool, project: &ProjectId) -> Vec<LaneView> {
    let lanes = spool.lanes().borrow().clone();
    let own = lanes.iter().filter(|view| view.lane().project == *project);
    own.cloned().collect()
}

async fn move_lanes(
    spool: &Spool,
    lanes: &[LaneView],
    (from, to): (&ProjectId, &ProjectId),
    done: &mut Moved,
) -> Result<(), String> {
    // What comes later comes from an application that is not mended yet.
    let Some(last) = lanes.iter().filter_map(|view| Some(view.pending()?.1)).max() else {
        return Ok(());
    };
    let is_over = || {
        let mut pending = lanes.iter().filter_map(LaneView::pending);
        pending.all(|(first, _)| first > last)
    };
    let mut until = Instant::now() + PATIENCE;
    while !is_over() {
        let claimed = spool.claim(from, last, &GROUP).await;
        if claimed.is_empty() {
            let now = Instant::now();
            if now >= until {
                break;
            }
            sleep_until(until.min(now + LOOK_EVERY)).await;
            continue;
        }
        let events = claimed.into_iter().map(|event| {
            let record = event::with_project(event.record(), to);
            (event, record)
        });
        let moved = spool.transfer(events.collect(), to).await;
        let moved = moved.map_err(|error| error.to_string())?;
        done.logs += moved.logs;
        done.feedback += moved.feedback;
        until = Instant::now() + PATIENCE;
    }
    Ok(())
}
