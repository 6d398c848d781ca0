//! From a request's events to what is stored and what is answered. Pure: time and ids are arguments.

use crate::event::{self, Event, Refusal, Stamps};
use crate::ids::{Kind, Lane, ProjectId};
use crate::redact::Screen;
use crate::spool::Entry;
use crate::wire::json::Malformed;
use crate::wire::reply::LoggedEvent;
use serde_json::value::RawValue;
use std::borrow::Cow;
use uuid::Uuid;

/// What holds for all events of a request or a connection.
#[derive(Debug, Clone)]
pub struct Door {
    /// For events that name no project: the one in the path, else the configured one.
    pub project: Option<ProjectId>,
    /// `intake.max_event_bytes`.
    pub max_event_bytes: usize,
    /// What is taken out of everything before it is looked at. Default: nothing.
    pub screen: Option<Screen>,
}

impl Door {
    /// What is stored of it, if anything is: without what the screen takes out.
    pub fn screened<'a>(&self, raw: &'a [u8]) -> Cow<'a, [u8]> {
        let altered = self.screen.as_ref().and_then(|screen| screen.apply(raw));
        altered.map_or(Cow::Borrowed(raw), Cow::Owned)
    }
}

/// What becomes of one event.
#[derive(Debug)]
pub enum Fate {
    /// It is stored.
    Accepted(Event),
    /// It can never be delivered, and is kept as a dead letter.
    Refused {
        /// Of its own project, else of the door's.
        lane: Lane,
        /// One sentence, also for the client.
        reason: String,
    },
}

/// Decides about one event, as [`Door::screened`] gives it. What belongs to no project, and what is not even JSON, cannot be kept: that is an error.
pub fn decide(raw: &[u8], door: &Door, now_s: i64, task: Uuid) -> Result<Fate, Refusal> {
    let refused = |reason: String| {
        let project = event::project_of(raw)
            .or_else(|| door.project.clone())
            .ok_or(Refusal::NoProject)?;
        Ok(Fate::Refused {
            lane: Lane {
                project,
                kind: Kind::Log,
            },
            reason,
        })
    };
    if raw.len() > door.max_event_bytes {
        // A line is not known to be JSON yet.
        let text = std::str::from_utf8(raw).map_err(|e| Refusal::Utf8(e.valid_up_to()))?;
        serde_json::from_str::<&RawValue>(text).map_err(|error| Malformed::new(text, &error))?;
        return refused(format!(
            "the event has {} bytes, over the limit of {} (intake.max_event_bytes): shorten it, or raise the limit",
            raw.len(),
            door.max_event_bytes
        ));
    }
    let stamps = Stamps {
        project: door.project.as_ref(),
        now_s,
        task,
    };
    match Event::parse(raw, &stamps) {
        Ok(event) => Ok(Fate::Accepted(event)),
        Err(refusal @ (Refusal::NoProject | Refusal::Json(_) | Refusal::Utf8(_))) => Err(refusal),
        Err(refusal) => refused(refusal.to_string()),
    }
}

/// The entry of an accepted event.
pub(super) fn queued(event: Event) -> Entry {
    Entry::Queued {
        lane: Lane {
            project: event.project().clone(),
            kind: Kind::Log,
        },
        record: event.into_json(),
    }
}

/// What a log request stores, and what it is answered once that is on disk.
#[derive(Debug)]
pub struct Plan {
    entries: Vec<Entry>,
    reply: Vec<u8>,
    /// Events that will be delivered.
    pub accepted: u64,
    /// Events that become dead letters.
    pub refused: u64,
    /// Projects of accepted events whose times the API will replace ([`Event::has_odd_time`]), one an event.
    pub odd_times: Vec<ProjectId>,
}

impl Plan {
    /// An empty plan with room for that many events.
    pub fn for_events(count: usize) -> Self {
        let mut reply = Vec::with_capacity(count * 128 + 32);
        reply.extend_from_slice(b"{\"logged_events\":[");
        Self {
            entries: Vec::with_capacity(count),
            reply,
            accepted: 0,
            refused: 0,
            odd_times: Vec::new(),
        }
    }

    /// Adds the next event. An error ends the whole request: nothing says which project the event belongs to.
    pub fn add(&mut self, raw: &[u8], door: &Door, now_s: i64, task: Uuid) -> Result<(), Refusal> {
        let raw = door.screened(raw);
        let fate = decide(&raw, door, now_s, task)?;
        if !self.entries.is_empty() {
            self.reply.push(b',');
        }
        match fate {
            Fate::Accepted(event) => {
                self.accepted += 1;
                let (task_id, project_id) = (event.task().as_str(), event.project().as_str());
                LoggedEvent::Accepted {
                    task_id,
                    project_id,
                    session_id: event.session(),
                }
                .write(&mut self.reply);
                if event.has_odd_time() {
                    self.odd_times.push(event.project().clone());
                }
                self.entries.push(queued(event));
            }
            Fate::Refused { lane, reason } => {
                self.refused += 1;
                LoggedEvent::Refused {
                    error_in_log: &reason,
                }
                .write(&mut self.reply);
                self.entries.push(Entry::Refused {
                    lane,
                    record: raw.into_owned(),
                    reason,
                });
            }
        }
        Ok(())
    }

    /// What to append, and the body of the reply that may follow.
    pub fn finish(mut self) -> (Vec<Entry>, Vec<u8>) {
        self.reply.extend_from_slice(b"]}");
        (self.entries, self.reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn door(project: Option<&str>) -> Door {
        Door {
            project: project.map(|p| ProjectId::new(p).expect("an id")),
            max_event_bytes: 200,
            screen: None,
        }
    }

    fn plan(events: &[&str], door: &Door) -> Result<(Vec<Entry>, Value), Refusal> {
        let mut plan = Plan::for_events(events.len());
        for (n, raw) in events.iter().enumerate() {
            plan.add(raw.as_bytes(), door, 1_700_000_000, Uuid::from_u128(n as u128))?;
        }
        let (entries, reply) = plan.finish();
        Ok((
            entries,
            serde_json::from_slice(&reply).expect("the reply is JSON"),
        ))
    }

    #[test]
    fn each_event_is_answered_in_its_place_whether_it_is_kept_or_refused() {
        let events = [
            r#"{"input":"a","task_id":"t1","session_id":"s1"}"#,
            r#"{"input":"b","metadata":[1]}"#,
            r#"{"input":"c","project_id":"other"}"#,
        ];
        let (entries, reply) = plan(&events, &door(Some("p"))).expect("all have a project");
        let logged = reply["logged_events"].as_array().expect("a list");
        assert_eq!(logged.len(), 3);
        assert_eq!(
            logged[0],
            json!({"task_id": "t1", "project_id": "p", "session_id": "s1"})
        );
        assert!(
            logged[1]["error_in_log"]
                .as_str()
                .is_some_and(|reason| reason.contains("metadata")),
            "{reply}"
        );
        assert_eq!(logged[2]["project_id"], "other");
        assert_eq!(logged[2]["session_id"], Value::Null);
        assert_eq!(logged[2]["task_id"], Uuid::from_u128(2).to_string());
        match &entries[..] {
            [
                Entry::Queued { lane: first, .. },
                Entry::Refused {
                    lane: second, record, ..
                },
                Entry::Queued { lane: third, .. },
            ] => {
                assert_eq!(first.to_string(), "p/log");
                assert_eq!(
                    (second.to_string(), record.as_slice()),
                    ("p/log".into(), events[1].as_bytes())
                );
                assert_eq!(third.to_string(), "other/log");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_event_over_the_limit_is_kept_as_a_dead_letter_that_names_the_key() {
        let large = format!(r#"{{"input":"{}"}}"#, "x".repeat(200));
        let (entries, reply) = plan(&[&large], &door(Some("p"))).expect("it has a project");
        let reason = reply["logged_events"][0]["error_in_log"]
            .as_str()
            .unwrap_or_default();
        assert!(reason.contains("intake.max_event_bytes"), "{reason}");
        assert!(matches!(&entries[..], [Entry::Refused { record, .. }] if record == large.as_bytes()));
    }

    #[test]
    fn a_project_in_quotes_is_the_events_own_fault_wherever_it_stands() {
        let own = r#"{"input":"a","project_id":"'p'"}"#;
        for (raw, project) in [(r#"{"input":"a"}"#, "\"p\""), (own, "'p'"), (own, "q")] {
            let (entries, reply) = plan(&[raw, r#"{"input":"b","project_id":"r"}"#], &door(Some(project)))
                .expect("the request is taken");
            let reason = reply["logged_events"][0]["error_in_log"].as_str();
            assert!(
                reason.is_some_and(|reason| reason.contains("quotation marks around it")),
                "{reply}"
            );
            assert_eq!(reply["logged_events"][1]["project_id"], "r");
            assert!(
                matches!(&entries[..], [Entry::Refused { record, .. }, Entry::Queued { .. }] if record == raw.as_bytes())
            );
        }
        assert!(
            plan(&[own], &door(None)).is_ok(),
            "it is kept without any other project, too"
        );
    }

    #[test]
    fn what_is_too_large_and_no_json_is_not_kept() {
        let broken = format!("{{\"input\":\"{}\"", "x".repeat(300));
        let fate = decide(
            broken.as_bytes(),
            &door(Some("p")),
            1_700_000_000,
            Uuid::from_u128(1),
        );
        assert!(matches!(fate, Err(Refusal::Json(_))), "{fate:?}");
    }

    #[test]
    fn without_any_project_the_whole_request_is_refused() {
        let good = r#"{"input":"a","project_id":"own"}"#;
        assert!(plan(&[good], &door(None)).is_ok());
        let refusal = plan(&[good, r#"{"input":"b"}"#], &door(None)).expect_err("the second belongs nowhere");
        assert!(refusal.to_string().contains("PHOSPHO_PROJECT_ID"), "{refusal}");
        assert!(plan(&[r#"{"input":1}"#], &door(None)).is_err());
        let (entries, _) =
            plan(&[r#"{"input":1,"project_id":"own"}"#], &door(None)).expect("its own project");
        assert!(matches!(&entries[..], [Entry::Refused { lane, .. }] if lane.to_string() == "own/log"));
    }

    #[test]
    fn an_empty_batch_stores_nothing_and_is_answered_with_an_empty_list() {
        let (entries, reply) = plan(&[], &door(Some("p"))).expect("nothing to refuse");
        assert!(entries.is_empty());
        assert_eq!(reply, json!({"logged_events": []}));
    }
}
