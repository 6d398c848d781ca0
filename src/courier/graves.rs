//! Which log events were given up, for feedback about their tasks: it would wait for what never comes.
//!
//! Dead letters are read once a run and only when a feedback meets a 404, a few pages a time, so that neither many of them nor
//! a feedback for a task of elsewhere costs much.

use crate::event;
use crate::ids::{Kind, ProjectId, TaskId};
use crate::spool::{DeadLetter, KeptLetter, Spool};
use std::collections::{BTreeMap, VecDeque};
use tokio::sync::Mutex;

/// Most log events that are remembered; the oldest are forgotten first.
const MOST_KNOWN: usize = 8_192;
/// Most pages of dead letters that one look reads; the next look goes on from there.
const PAGES_A_LOOK: usize = 16;
/// Letters on a page.
const PAGE: usize = 256;
/// Longest part of a letter's reason that goes into another one, in characters.
const MAX_REASON: usize = 500;

/// Where a log event ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grave {
    /// Its dead letter's number.
    pub(super) number: u64,
    /// Why.
    pub(super) reason: String,
}

/// Log events that were given up.
#[derive(Debug, Default)]
pub(super) struct Graves(Mutex<Index>);

impl Graves {
    /// The dead letter of a task's log event, if there is one and it is still kept.
    pub(super) async fn of_log(&self, spool: &Spool, project: &ProjectId, task: &TaskId) -> Option<Grave> {
        let mut index = self.0.lock().await;
        for _ in 0..PAGES_A_LOOK {
            let Ok(page) = spool.dead_letters(index.after, PAGE).await else {
                break;
            };
            let read_all = page.next.is_none();
            page.letters.into_iter().for_each(|kept| index.add(&kept));
            if read_all {
                break;
            }
        }
        let number = index.number_of(project, task)?;
        drop(index);
        // It may have been taken out since.
        let page = spool.dead_letters(number.checked_sub(1), 1).await.ok()?;
        let kept = page.letters.into_iter().find(|kept| kept.number == number)?;
        Some(Grave {
            number,
            reason: kept.letter.ok()?.burial.reason.chars().take(MAX_REASON).collect(),
        })
    }
}

/// Dead letters of log events by project and task.
#[derive(Debug, Default)]
struct Index {
    /// The last letter that was read.
    after: Option<u64>,
    numbers: BTreeMap<(ProjectId, TaskId), u64>,
    order: VecDeque<(ProjectId, TaskId)>,
}

impl Index {
    fn add(&mut self, kept: &KeptLetter) {
        self.after = Some(kept.number);
        let Some(name) = kept.letter.as_ref().ok().and_then(name) else {
            return;
        };
        if self.numbers.insert(name.clone(), kept.number).is_none() {
            self.order.push_back(name);
        }
        if self.order.len() > MOST_KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.numbers.remove(&oldest);
        }
    }

    fn number_of(&self, project: &ProjectId, task: &TaskId) -> Option<u64> {
        self.numbers.get(&(project.clone(), task.clone())).copied()
    }
}

/// Project and task of a log event's letter.
fn name(letter: &DeadLetter) -> Option<(ProjectId, TaskId)> {
    let task = match letter.lane.kind {
        Kind::Log => event::task_of(&letter.record)?,
        Kind::Feedback => return None,
    };
    Some((letter.lane.project.clone(), task))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Lane, Seq};
    use crate::spool::Burial;

    fn project(name: &str) -> ProjectId {
        ProjectId::new(name).expect("an id")
    }

    fn task(n: usize) -> TaskId {
        TaskId::new(&format!("t{n}")).expect("an id")
    }

    fn letter(number: usize, kind: Kind) -> KeptLetter {
        let burial = Burial {
            reason: "no".into(),
            status: None,
            excerpt: None,
            attempts: 1,
        };
        let lane = Lane {
            project: project("p"),
            kind,
        };
        KeptLetter {
            number: number as u64,
            letter: Ok(DeadLetter {
                seq: Seq(0),
                lane,
                buried_at_ms: 0,
                burial,
                record: format!(r#"{{"task_id":"t{number}"}}"#).into_bytes(),
            }),
        }
    }

    #[test]
    fn log_events_are_known_by_project_and_task_and_feedback_is_not() {
        let mut index = Index::default();
        index.add(&letter(4, Kind::Log));
        index.add(&letter(5, Kind::Feedback));
        assert_eq!(index.after, Some(5));
        assert_eq!(index.number_of(&project("p"), &task(4)), Some(4));
        assert_eq!(index.number_of(&project("q"), &task(4)), None);
        assert_eq!(index.number_of(&project("p"), &task(5)), None);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut index = Index::default();
        for n in 0..MOST_KNOWN + 10 {
            index.add(&letter(n, Kind::Log));
        }
        assert_eq!(index.numbers.len(), MOST_KNOWN);
        assert_eq!(index.order.len(), MOST_KNOWN);
        assert_eq!(index.number_of(&project("p"), &task(9)), None);
        assert_eq!(index.number_of(&project("p"), &task(10)), Some(10));
    }
}
