//! `/events/{task_id}`: all that is known of one task: what is queued, dead, or was delivered lately.

use super::dead_letters::Shown;
use crate::board::Board;
use crate::event;
use crate::fates::{Delivery, MAX_DELIVERIES, Reach};
use crate::ids::TaskId;
use crate::secret::Secrets;
use crate::spool::{KeptLetter, Place, Spool};
use serde::Serialize;

/// Letters that are read at once, while others wait for the spool's thread.
const PORTION: usize = 50;

/// All that is known of a task.
#[derive(Debug)]
pub(super) struct Fate {
    pub(super) places: Vec<Place>,
    /// Events that could not be read.
    pub(super) unreadable: u64,
    pub(super) letters: Vec<KeptLetter>,
    pub(super) deliveries: Vec<Delivery>,
}

/// Looks everywhere. In the order in which events go, so that one that moves on meanwhile is still met.
pub(super) async fn look(spool: &Spool, board: &Board, task: &TaskId) -> Result<Fate, String> {
    let found = spool.find(task).await.map_err(|error| error.to_string())?;
    let letters = letters(spool, task).await?;
    Ok(Fate {
        places: found.places,
        unreadable: found.unreadable,
        letters,
        deliveries: board.fates().of(task),
    })
}

async fn letters(spool: &Spool, task: &TaskId) -> Result<Vec<KeptLetter>, String> {
    let mut letters = Vec::new();
    let mut after = None;
    loop {
        let page = spool.dead_letters(after, PORTION).await;
        let page = page.map_err(|error| error.to_string())?;
        let of_task = |kept: &KeptLetter| {
            let letter = kept.letter.as_ref().ok();
            letter.and_then(|letter| event::task_of(&letter.record)).as_ref() == Some(task)
        };
        letters.extend(page.letters.into_iter().filter(of_task));
        after = page.next;
        if after.is_none() {
            return Ok(letters);
        }
        tokio::task::yield_now().await;
    }
}

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Told<'a> {
    task_id: &'a str,
    records: Vec<Record<'a>>,
    /// Queued events that could not be read, and may be of the task.
    unreadable: u64,
    memory: Memory,
}

/// How far back deliveries are remembered.
#[derive(Debug, Serialize)]
struct Memory {
    deliveries: usize,
    /// Absent: since the daemon started.
    #[serde(skip_serializing_if = "Option::is_none")]
    since_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum Record<'a> {
    Queued(Queued<'a>),
    InFlight(Queued<'a>),
    Delivered {
        project: &'a str,
        kind: &'static str,
        delivered_at_ms: u64,
        confirmed: bool,
        proof: &'static str,
    },
    Dead {
        letter: Shown<'a>,
    },
}

#[derive(Debug, Serialize)]
struct Queued<'a> {
    project: &'a str,
    kind: &'static str,
    seq: u64,
    generation: u64,
    accepted_at_ms: u64,
    ahead: u64,
    lane: crate::board::LaneState,
}

impl<'a> Told<'a> {
    /// `None` if nothing is known.
    pub(super) fn new(
        task: &'a TaskId,
        fate: &'a Fate,
        board: &Board,
        secrets: &Secrets,
        reach: Reach,
    ) -> Option<Self> {
        let queued = fate.places.iter().map(|place| {
            let queued = Queued {
                project: place.lane.project.as_str(),
                kind: place.lane.kind.as_str(),
                seq: place.seq.0,
                generation: place.generation,
                accepted_at_ms: place.accepted_at_ms,
                ahead: place.ahead,
                lane: board.get(&place.lane),
            };
            match place.leased {
                true => Record::InFlight(queued),
                false => Record::Queued(queued),
            }
        });
        let dead = fate.letters.iter().map(|kept| Record::Dead {
            letter: Shown::new(kept, secrets),
        });
        let delivered = fate.deliveries.iter().map(|delivery| Record::Delivered {
            project: delivery.lane.project.as_str(),
            kind: delivery.lane.kind.as_str(),
            delivered_at_ms: delivery.at_ms,
            confirmed: delivery.proof.is_confirmed(),
            proof: delivery.proof.as_str(),
        });
        let records: Vec<_> = delivered.chain(queued).chain(dead).collect();
        (!records.is_empty()).then(|| Self {
            task_id: task.as_str(),
            records,
            unreadable: fate.unreadable,
            memory: Memory {
                deliveries: reach.deliveries,
                since_ms: reach.since_ms,
            },
        })
    }
}

/// What it can mean that nothing is known.
pub(super) fn unknown(task: &TaskId, unreadable: u64, reach: Reach) -> String {
    let back = match reach.since_ms {
        Some(ms) => format!("since {ms} (milliseconds since 1970), the last {MAX_DELIVERIES}"),
        None => "since the daemon started".to_owned(),
    };
    let damaged = match unreadable {
        0 => String::new(),
        count => format!("; {count} queued events cannot be read, and it may be one of them"),
    };
    format!(
        "nothing is known of task {task:?}: it is neither queued nor dead, and not among the deliveries that are remembered \
         ({back}){damaged}. It was never logged here, or it was delivered before that, or its dead letter was purged or dropped",
        task = task.as_str()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fates::Proof;
    use crate::ids::{Kind, Lane, ProjectId, Seq};

    fn task() -> TaskId {
        TaskId::new("t").expect("an id")
    }

    fn reach(since_ms: Option<u64>) -> Reach {
        Reach {
            deliveries: 3,
            since_ms,
        }
    }

    #[test]
    fn every_record_says_where_it_is() {
        let project = ProjectId::new("p").expect("an id");
        let lane = |kind| Lane {
            project: project.clone(),
            kind,
        };
        let place = |seq, leased| Place {
            lane: lane(Kind::Feedback),
            seq: Seq(seq),
            generation: 2,
            accepted_at_ms: 7,
            leased,
            ahead: 4,
        };
        let fate = Fate {
            places: vec![place(5, true), place(6, false)],
            unreadable: 0,
            letters: vec![KeptLetter {
                number: 9,
                letter: Err("why".into()),
            }],
            deliveries: vec![Delivery {
                lane: lane(Kind::Log),
                at_ms: 8,
                proof: Proof::ReadBack,
            }],
        };
        let (task, board) = (task(), Board::default());
        let told =
            Told::new(&task, &fate, &board, &Secrets::default(), reach(None)).expect("something is known");
        let told = serde_json::to_value(&told).expect("JSON");
        let states: Vec<_> = told["records"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|record| record["state"].clone())
            .collect();
        assert_eq!(states, ["delivered", "in_flight", "queued", "dead"]);
        assert_eq!(told["records"][0]["confirmed"], true);
        assert_eq!(told["records"][2]["lane"]["state"], "flowing");
        assert_eq!(told["records"][3]["letter"]["number"], 9);
        assert_eq!(told["memory"], serde_json::json!({"deliveries": 3}));
    }

    #[test]
    fn where_nothing_is_known_it_says_how_far_that_goes_back() {
        let fate = Fate {
            places: Vec::new(),
            unreadable: 0,
            letters: Vec::new(),
            deliveries: Vec::new(),
        };
        let task = task();
        assert!(Told::new(&task, &fate, &Board::default(), &Secrets::default(), reach(None)).is_none());
        assert!(unknown(&task, 0, reach(None)).contains("since the daemon started"));
        let sentence = unknown(&task, 2, reach(Some(77)));
        assert!(
            sentence.contains("since 77") && sentence.contains("2 queued events"),
            "{sentence}"
        );
    }
}
