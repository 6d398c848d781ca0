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

/// The reply that grows by an element an event, in the order sent: `{"logged_events":[...]}`.
///
/// It is bounded: past its bound the events are only counted, and the reply says how many were not listed, as
/// `{"logged_events":[...],"omitted":{"accepted":7,"refused":1}}`. What is refused is a dead letter all the same.
#[derive(Debug)]
pub struct LoggedEvents {
    text: Vec<u8>,
    most_bytes: usize,
    listed: Count,
    omitted: Count,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    accepted: u64,
    refused: u64,
}

impl Count {
    fn add(&mut self, event: &LoggedEvent<'_>) {
        match event {
            LoggedEvent::Accepted { .. } => self.accepted += 1,
            LoggedEvent::Refused { .. } => self.refused += 1,
        }
    }

    fn sum(self) -> u64 {
        self.accepted + self.refused
    }
}

const HEAD: &[u8] = b"{\"logged_events\":[";

impl LoggedEvents {
    /// For about `expected` events. Elements are listed up to the first that makes it longer than `most_bytes`.
    pub fn new(expected: usize, most_bytes: usize) -> Self {
        let mut text = Vec::with_capacity((expected * 128 + 32).min(most_bytes));
        text.extend_from_slice(HEAD);
        Self {
            text,
            most_bytes,
            listed: Count::default(),
            omitted: Count::default(),
        }
    }

    /// Adds the next event.
    pub fn push(&mut self, event: &LoggedEvent<'_>) {
        let length = self.text.len();
        if self.omitted.sum() == 0 {
            if self.listed.sum() > 0 {
                self.text.push(b',');
            }
            event.write(&mut self.text);
            if self.text.len() <= self.most_bytes {
                return self.listed.add(event);
            }
            self.text.truncate(length);
        }
        self.omitted.add(event);
    }

    /// How many bytes it holds.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Gives its memory back: no event is listed any more, and none will be.
    pub fn omit_all(&mut self) {
        self.text = HEAD.to_vec();
        self.omitted.accepted += self.listed.accepted;
        self.omitted.refused += self.listed.refused;
        self.listed = Count::default();
        self.most_bytes = 0;
    }

    /// The whole reply.
    pub fn finish(mut self) -> Vec<u8> {
        self.text.push(b']');
        let Count { accepted, refused } = self.omitted;
        if self.omitted.sum() > 0 {
            let omitted = format!(",\"omitted\":{{\"accepted\":{accepted},\"refused\":{refused}}}");
            self.text.extend_from_slice(omitted.as_bytes());
        }
        self.text.push(b'}');
        self.text
    }
}

/// The whole reply, one element an event, in the order sent.
pub fn logged_events<'a>(elements: impl IntoIterator<Item = LoggedEvent<'a>>) -> Vec<u8> {
    let elements = elements.into_iter();
    let mut reply = LoggedEvents::new(elements.size_hint().0, usize::MAX);
    elements.for_each(|element| reply.push(&element));
    reply.finish()
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

    #[test]
    fn past_its_bound_events_are_counted_and_no_longer_listed() {
        let accepted = LoggedEvent::Accepted {
            task_id: "t",
            project_id: "p",
            session_id: None,
        };
        let refused = LoggedEvent::Refused { error_in_log: "why" };
        for most in 0..400 {
            let mut reply = LoggedEvents::new(9, most);
            for _ in 0..3 {
                reply.push(&accepted);
                reply.push(&refused);
                assert!(reply.bytes() <= most.max(HEAD.len()));
            }
            let listed = reply.listed.sum();
            let reply: serde_json::Value = serde_json::from_slice(&reply.finish()).expect("JSON");
            let list = reply["logged_events"].as_array().expect("a list");
            assert_eq!(list.len() as u64, listed);
            let omitted = |of: &str| reply["omitted"][of].as_u64().unwrap_or_default();
            assert_eq!(listed + omitted("accepted") + omitted("refused"), 6);
            assert_eq!(
                omitted("accepted"),
                3 - listed.div_ceil(2),
                "the first ones are listed"
            );
            assert_eq!(reply.get("omitted").is_none(), listed == 6);
        }
        let mut reply = LoggedEvents::new(2, 400);
        reply.push(&accepted);
        reply.omit_all();
        reply.push(&refused);
        assert_eq!(
            reply.finish(),
            br#"{"logged_events":[],"omitted":{"accepted":1,"refused":1}}"#
        );
    }
}
