//! The reply to a log request, as the SDKs expect it (contract.md section 6).
use super::json::push_string;

/// What is said about one event, at its own place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoggedEvent<'a> {
    /// It is on disk.
    Accepted {
        /// Own or stamped.
        task_id: &'a str,
        /// Own or stamped.
        project_id: &'a str,
        /// Null where the event has none.
        session_id: Option<&'a str>,
    },
    /// It can never be stored by the API.
    Refused {
        /// Why, in one sentence.
        error_in_log: &'a str,
    },
}

impl LoggedEvent<'_> {
    /// Appends the element as JSON: `{"task_id", "project_id", "session_id"}` or `{"error_in_log"}`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            LoggedEvent::Accepted {
                task_id,
                project_id,
                session_id,
            } => {
                out.extend_from_slice(b"{\"task_id\":");
                push_string(out, task_id);
                out.extend_from_slice(b",\"project_id\":");
                push_string(out, project_id);
                out.extend_from_slice(b",\"session_id\":");
                match session_id {
                    Some(session_id) => push_string(out, session_id),
                    None => out.extend_from_slice(b"null"),
                }
            }
            LoggedEvent::Refused { error_in_log } => {
                out.extend_from_slice(b"{\"error_in_log\":");
                push_string(out, error_in_log);
            }
        }
        out.push(b'}');
    }
}

/// The whole reply, `{"logged_events":[...]}`, one element an event, in the order sent.
pub fn logged_events<'a>(elements: impl IntoIterator<Item = LoggedEvent<'a>>) -> Vec<u8> {
    let elements = elements.into_iter();
    let mut out = Vec::with_capacity(32 + 128 * elements.size_hint().0);
    out.extend_from_slice(b"{\"logged_events\":[");
    for (at, element) in elements.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        element.write(&mut out);
    }
    out.extend_from_slice(b"]}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_has_its_element_in_order() {
        let reply = logged_events([
            LoggedEvent::Accepted {
                task_id: "t\"1",
                project_id: "p",
                session_id: Some("s\n"),
            },
            LoggedEvent::Refused {
                error_in_log: "input is null",
            },
            LoggedEvent::Accepted {
                task_id: "t2",
                project_id: "p",
                session_id: None,
            },
        ]);
        let reply: serde_json::Value = serde_json::from_slice(&reply).expect("JSON");
        assert_eq!(
            reply,
            serde_json::json!({"logged_events": [
                {"task_id": "t\"1", "project_id": "p", "session_id": "s\n"},
                {"error_in_log": "input is null"},
                {"task_id": "t2", "project_id": "p", "session_id": null},
            ]})
        );
        assert_eq!(logged_events([]), b"{\"logged_events\":[]}");
    }
}
