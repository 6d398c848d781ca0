//! From one feedback to what is stored and what is answered. Pure.

use super::log::Door;
use crate::event::{self, Refusal};
use crate::feedback::Feedback;
use crate::ids::{Kind, Lane};
use crate::spool::Entry;
use crate::wire::json;

/// What becomes of one feedback.
#[derive(Debug)]
pub(super) struct Decided {
    /// What to store: the feedback, or a dead letter. `None` for what is no JSON object or belongs to no project.
    pub(super) entry: Option<Entry>,
    /// The feedback, or why it can never be delivered.
    pub(super) outcome: Result<Feedback, Refusal>,
}

/// Decides about one feedback, as [`Door::screened`] gives it. `task` is the id from the URL; without it the body's
/// `task_id` counts.
pub(super) fn decide(raw: &[u8], task: Option<&str>, door: &Door) -> Decided {
    let outcome = Feedback::parse(raw, task, door.project.as_ref());
    let entry = match &outcome {
        Ok(feedback) => Some(Entry::Queued {
            lane: Lane {
                project: feedback.project().clone(),
                kind: Kind::Feedback,
            },
            record: feedback.to_record(),
        }),
        Err(refusal) => refused(raw, task, door, refusal),
    };
    Decided { entry, outcome }
}

fn refused(raw: &[u8], task: Option<&str>, door: &Door, refusal: &Refusal) -> Option<Entry> {
    if matches!(
        refusal,
        Refusal::Json(_) | Refusal::Utf8(_) | Refusal::NotAnObject(_) | Refusal::NoProject
    ) {
        return None;
    }
    let project = event::project_of(raw).or_else(|| door.project.clone())?;
    Some(Entry::Refused {
        lane: Lane {
            project,
            kind: Kind::Feedback,
        },
        record: with_task(raw, task),
        reason: refusal.to_string(),
    })
}

/// The object with the task id of the URL as its last member, which is the one that counts.
fn with_task(object: &[u8], task: Option<&str>) -> Vec<u8> {
    let Some((task, body)) = task.zip(json::trim_end(object).strip_suffix(b"}")) else {
        return object.to_vec();
    };
    let mut record = json::trim_end(body).to_vec();
    if !record.ends_with(b"{") {
        record.push(b',');
    }
    record.extend_from_slice(b"\"task_id\":");
    json::push_string(&mut record, task);
    record.push(b'}');
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ProjectId;

    fn door(project: Option<&str>) -> Door {
        Door {
            project: project.map(|project| ProjectId::new(project).expect("an id")),
            max_event_bytes: 1_000,
            screen: None,
            projects: None,
        }
    }

    fn refused(raw: &str, task: Option<&str>) -> (String, String, String) {
        match decide(raw.as_bytes(), task, &door(Some("p"))).entry {
            Some(Entry::Refused { lane, record, reason }) => {
                (lane.to_string(), String::from_utf8(record).expect("text"), reason)
            }
            other => panic!("{raw}: {other:?}"),
        }
    }

    #[test]
    fn feedback_that_can_never_be_delivered_is_kept_with_its_task_and_the_reason() {
        let (lane, record, reason) = refused(r#"{"flag":"success"}"#, Some("order/17"));
        assert_eq!(lane, "p/feedback");
        assert_eq!(record, r#"{"flag":"success","task_id":"order/17"}"#);
        assert!(reason.contains("no URL of the API"), "{reason}");

        let (lane, record, reason) = refused(
            " {\"flag\":\"success\",\"task_id\":\"a\",\"project_id\":\"own\" } ",
            Some("$TASK_ID"),
        );
        assert_eq!(lane, "own/feedback");
        let kept: serde_json::Value = serde_json::from_str(&record).expect("JSON");
        assert_eq!(kept["task_id"], "$TASK_ID", "the one in the URL counts");
        assert!(reason.contains("variable"), "{reason}");

        let (_, record, _) = refused("{}", Some("t"));
        assert_eq!(record, r#"{"task_id":"t"}"#);
        let whole = r#"{"task_id":"null","flag":"success"}"#;
        assert_eq!(refused(whole, None).1, whole);
    }

    #[test]
    fn what_is_no_object_or_has_no_project_is_not_kept() {
        for raw in ["{", "[1]", "", "{\"flag\":}"] {
            let decided = decide(raw.as_bytes(), Some("t"), &door(Some("p")));
            assert!(decided.entry.is_none() && decided.outcome.is_err(), "{raw}");
        }
        for (raw, task) in [(r#"{"flag":"success"}"#, "t"), (r#"{"flag":"bad"}"#, "a/b")] {
            let decided = decide(raw.as_bytes(), Some(task), &door(None));
            assert!(decided.entry.is_none() && decided.outcome.is_err(), "{raw}");
        }
    }

    #[test]
    fn good_feedback_is_queued() {
        let decided = decide(br#"{"flag":"success"}"#, Some("a%2Fb"), &door(Some("p")));
        assert!(matches!(decided.entry, Some(Entry::Queued { .. })) && decided.outcome.is_ok());
    }
}
