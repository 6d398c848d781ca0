//! From a request's events to what is stored and what is answered. Pure: time and ids are arguments.

use crate::event::{self, Event, Refusal, Stamps};
use crate::http::EVENT_BYTES;
use crate::ids::{Kind, Lane, ProjectId};
use crate::redact::Screen;
use crate::spool::{Entry, ProjectRoom};
use crate::wire::json::JsonKind;
use crate::wire::reply::{LoggedEvent, LoggedEvents};
use crate::wire::split::Element;
use std::borrow::Cow;
use std::collections::BTreeSet;
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
    /// Whether a project has room in the spool. Default: each has.
    pub projects: Option<ProjectRoom>,
}

impl Door {
    /// Whether what is to be queued for a project has room beside `new`, the projects that the same append brings.
    ///
    /// # Errors
    /// Why it has none, in one sentence with the remedy.
    pub fn admit(&self, project: &ProjectId, new: &mut BTreeSet<ProjectId>) -> Result<(), String> {
        let room = self.projects.as_ref();
        room.map_or(Ok(()), |room| room.admit(project, new))
    }

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
        /// What is kept.
        record: Vec<u8>,
        /// One sentence, also for the client.
        reason: String,
    },
}

/// What is kept of a text that is not JSON where something is to be redacted: what to take out of it cannot be told.
const NOT_KEPT: &[u8] =
    b"\"the content was not kept: [redact] is on, and what is not JSON cannot be redacted\"";

/// Decides about one event, as [`Door::screened`] gives it. What belongs to no project is an error, and so is what is not JSON:
/// [`malformed`] goes on with that.
pub fn decide(raw: &[u8], door: &Door, now_s: i64, task: Uuid) -> Result<Fate, Refusal> {
    let refused = |reason: String| {
        let project = event::project_of(raw)
            .or_else(|| door.project.clone())
            .ok_or(Refusal::NoProject)?;
        Ok(Fate::Refused {
            lane: log_lane(project),
            record: kept(raw, door),
            reason,
        })
    };
    if raw.len() > door.max_event_bytes {
        return refused(too_large(raw.len() as u64, door));
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

/// Decides about an event that is not JSON, as it was sent: the fault is told where the client wrote it. Without a project of
/// the door's it cannot be kept, since its own cannot be read.
pub fn malformed(raw: &[u8], door: &Door, refusal: Refusal) -> Result<Fate, Refusal> {
    let refusal = json_fault(raw).unwrap_or(refusal);
    let Some(project) = door.project.clone() else {
        return Err(refusal);
    };
    Ok(Fate::Refused {
        lane: log_lane(project),
        record: kept(raw, door),
        reason: refusal.to_string(),
    })
}

/// Decides about an event of `length` bytes of which only the beginning is here.
fn cut_short(head: &[u8], length: u64, door: &Door) -> Result<Fate, Refusal> {
    let project = door.project.clone().ok_or(Refusal::NoProject)?;
    let reason = format!(
        "{}. The first {} bytes of it are kept",
        too_large(length, door),
        head.len()
    );
    Ok(Fate::Refused {
        lane: log_lane(project),
        record: match door.screen {
            Some(_) => NOT_KEPT.to_vec(),
            None => head.to_vec(),
        },
        reason,
    })
}

fn log_lane(project: ProjectId) -> Lane {
    Lane {
        project,
        kind: Kind::Log,
    }
}

fn too_large(length: u64, door: &Door) -> String {
    format!(
        "the event has {length} bytes, over the limit of {} (intake.max_event_bytes): shorten it, or raise the limit",
        door.max_event_bytes
    )
}

fn kept(raw: &[u8], door: &Door) -> Vec<u8> {
    match door.screen {
        Some(_) if json_fault(raw).is_some() => NOT_KEPT.to_vec(),
        _ => raw.to_vec(),
    }
}

/// Why bytes are not JSON, if they are not.
pub(super) fn json_fault(raw: &[u8]) -> Option<Refusal> {
    let text = match std::str::from_utf8(raw) {
        Ok(text) => text,
        Err(error) => return Some(Refusal::Utf8(error.valid_up_to())),
    };
    JsonKind::of_text(text).err().map(Refusal::Json)
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

/// Events of a log request that are stored together.
#[derive(Debug, Default)]
pub struct Plan {
    /// What to append.
    pub entries: Vec<Entry>,
    /// What the entries count in the budget of memory.
    pub weight: usize,
    /// Events that will be delivered.
    pub accepted: u64,
    /// Events that become dead letters.
    pub refused: u64,
    /// Projects of which nothing was queued so far.
    pub new_projects: BTreeSet<ProjectId>,
    /// Why events were not taken for want of room for their projects, if any were not. Nothing is kept of these.
    pub no_room: Option<String>,
    /// Projects of accepted events whose times the API will replace ([`Event::has_odd_time`]), one an event.
    pub odd_times: Vec<ProjectId>,
}

impl Plan {
    /// Adds the next event, and says in `reply` what becomes of it once it is on disk. An error ends the whole request: nothing
    /// says which project the event belongs to, or the event is the body and not JSON.
    pub fn add(
        &mut self,
        element: &Element<'_>,
        door: &Door,
        now_s: i64,
        task: Uuid,
        reply: &mut LoggedEvents,
    ) -> Result<(), Refusal> {
        let fate = match element.cut_from {
            Some(length) => cut_short(element.text, length, door)?,
            None => match decide(&door.screened(element.text), door, now_s, task) {
                Err(refusal @ (Refusal::Json(_) | Refusal::Utf8(_))) if !element.is_body => {
                    malformed(element.text, door, refusal)?
                }
                decided => decided?,
            },
        };
        let length = match fate {
            Fate::Accepted(event) => {
                if let Err(reason) = door.admit(event.project(), &mut self.new_projects) {
                    reply.push(&LoggedEvent::Refused {
                        error_in_log: &reason,
                    });
                    self.no_room = Some(reason);
                    return Ok(());
                }
                self.accepted += 1;
                reply.push(&LoggedEvent::Accepted {
                    task_id: event.task().as_str(),
                    project_id: event.project().as_str(),
                    session_id: event.session(),
                });
                if event.has_odd_time() {
                    self.odd_times.push(event.project().clone());
                }
                let length = event.json().len();
                self.entries.push(queued(event));
                length
            }
            Fate::Refused { lane, record, reason } => {
                self.refused += 1;
                reply.push(&LoggedEvent::Refused {
                    error_in_log: &reason,
                });
                let length = record.len();
                self.entries.push(Entry::Refused { lane, record, reason });
                length
            }
        };
        self.weight += length.max(EVENT_BYTES);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::redact::{Detector, Redactor, Rules};
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn door(project: Option<&str>) -> Door {
        Door {
            project: project.map(|p| ProjectId::new(p).expect("an id")),
            max_event_bytes: 200,
            screen: None,
            projects: None,
        }
    }

    fn element(text: &[u8]) -> Element<'_> {
        Element {
            text,
            start: 0,
            cut_from: None,
            is_body: false,
        }
    }

    fn planned(events: &[Element<'_>], door: &Door) -> Result<(Vec<Entry>, Value), Refusal> {
        let mut plan = Plan::default();
        let mut reply = LoggedEvents::new(events.len(), usize::MAX);
        for (n, event) in events.iter().enumerate() {
            let task = Uuid::from_u128(n as u128);
            plan.add(event, door, 1_700_000_000, task, &mut reply)?;
        }
        assert_eq!(plan.accepted + plan.refused, events.len() as u64);
        assert!(plan.weight >= EVENT_BYTES * events.len());
        let reply = serde_json::from_slice(&reply.finish()).expect("the reply is JSON");
        Ok((plan.entries, reply))
    }

    fn plan(events: &[&str], door: &Door) -> Result<(Vec<Entry>, Value), Refusal> {
        let events: Vec<_> = events.iter().map(|text| element(text.as_bytes())).collect();
        planned(&events, door)
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

    fn screen() -> Screen {
        let rules = Rules {
            detect: Detector::ALL.to_vec(),
            ..Rules::default()
        };
        let redactor = Arc::new(Redactor::new(rules).expect("rules"));
        Screen::new(redactor, &Metrics::new())
    }

    #[test]
    fn what_is_not_json_is_kept_alone_with_a_sentence_that_names_the_word() {
        let bad = r#"{"input":"b","metadata":{"score":NaN}}"#;
        let events = [r#"{"input":"a"}"#, bad, r#"{"input":"c"}"#];
        let (entries, reply) = plan(&events, &door(Some("p"))).expect("it has a project");
        let logged = reply["logged_events"].as_array().expect("a list");
        assert!(logged[0]["task_id"].is_string() && logged[2]["task_id"].is_string());
        let why = logged[1]["error_in_log"].as_str().unwrap_or_default();
        assert!(
            why.contains("(byte 33): NaN is no value in JSON, null is"),
            "{why}"
        );
        assert!(matches!(&entries[1], Entry::Refused { record, reason, .. }
                if record == bad.as_bytes() && reason == why));
        let (entries, _) = planned(&[element(b"{\"input\":\"\xff\"}")], &door(Some("p"))).expect("kept");
        assert!(matches!(&entries[..], [Entry::Refused { record, reason, .. }]
                if record == b"{\"input\":\"\xff\"}" && reason.contains("UTF-8 at byte 10")));
        // Nobody knows where it belongs.
        assert!(matches!(plan(&[bad], &door(None)), Err(Refusal::Json(_))));
        // The body is one event: whoever sends that reads the answer.
        let body = Element {
            is_body: true,
            ..element(bad.as_bytes())
        };
        assert!(matches!(
            planned(&[body], &door(Some("p"))),
            Err(Refusal::Json(_))
        ));
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
    fn of_an_event_that_is_far_too_long_the_head_is_kept() {
        let event = Element {
            cut_from: Some(5_000_000),
            ..element(b"{\"input\":\"xxx")
        };
        let (entries, reply) = planned(&[event], &door(Some("p"))).expect("it has a project");
        let why = reply["logged_events"][0]["error_in_log"]
            .as_str()
            .unwrap_or_default();
        assert!(
            why.contains("5000000 bytes, over the limit of 200 (intake.max_event_bytes)"),
            "{why}"
        );
        assert!(why.contains("The first 13 bytes"), "{why}");
        assert!(matches!(&entries[..], [Entry::Refused { record, .. }] if record == event.text));
        assert!(matches!(planned(&[event], &door(None)), Err(Refusal::NoProject)));
    }

    #[test]
    fn what_cannot_be_redacted_is_not_kept() {
        let door = Door {
            screen: Some(screen()),
            ..door(Some("p"))
        };
        let long = format!("{{\"input\":\"a@b.co{}\"", "x".repeat(300));
        let cut = Element {
            cut_from: Some(5_000_000),
            ..element(b"{\"input\":\"a@b.co")
        };
        let events = [
            element(br#"{"input":'a@b.co',"score":NaN}"#),
            element(b"{\"input\":\"a@b.co\xff\"}"),
            element(long.as_bytes()),
            cut,
        ];
        let (entries, _) = planned(&events, &door).expect("it has a project");
        for entry in &entries {
            assert!(
                matches!(entry, Entry::Refused { record, .. } if record == NOT_KEPT),
                "{entry:?}"
            );
        }
        let (entries, _) = planned(&[element(br#"{"input":["a@b.co"]}"#)], &door).expect("a project");
        assert!(
            matches!(&entries[..], [Entry::Refused { record, .. }] if record == br#"{"input":["[email]"]}"#)
        );
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
