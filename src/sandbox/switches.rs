//! What can be made to go wrong, and when.

use super::store::Keep;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that can be switched. All off by default; a JSON object changes what it names, `null` restores the
/// default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Switches {
    /// Connections are taken and then reset without a reply, and so are requests on older connections.
    pub down: bool,
    /// The API listener is closed: connecting is refused, and older connections are reset at
    /// their next request. Switch it off through the control listener.
    pub refuse: bool,
    /// Each reply waits this long, in milliseconds.
    pub delay_ms: u64,
    /// Answer this status (200 to 599) and do nothing else.
    pub status: Option<u16>,
    /// The `detail` text of the reply to `status`.
    pub detail: Option<String>,
    /// `Retry-After` beside `status` and `maintenance`: seconds, or any text such as an HTTP date.
    pub retry_after: Option<Value>,
    /// Drop the connection after each whole reply. The request has had its effect.
    pub close_after_reply: bool,
    /// Send the head and half of the body, then drop the connection. The request has had its effect.
    pub truncate_reply: bool,
    /// Reset the connection instead of replying. The request has had its effect.
    pub drop_reply: bool,
    /// Answer bytes that are not HTTP, and do nothing else.
    pub garbage: bool,
    /// How many API requests meet the failures above (all but `refuse`) before these are cleared. Absent: no end.
    pub times: Option<u64>,
    /// Which API requests meet the failures above (all but `down` and `refuse`): any of "log", "feedback", "task",
    /// "health". Empty: all.
    pub only: Vec<String>,
    /// Logs allowed per project; further ones are stored, but answered with the quota error.
    pub quota: BTreeMap<String, u64>,
    /// Projects that are unknown (404) or of another organisation (403). All others exist.
    pub projects: BTreeMap<String, u16>,
    /// Events answered with `error_in_log` and not stored: task id and reason.
    pub refuse_events: BTreeMap<String, String>,
    /// Events that make the API fail on their whole batch: task id and status (400 to 599).
    pub fail_events: BTreeMap<String, u16>,
    /// Events that are answered with 200 and whose batch is then lost silently: task ids.
    pub lose_events: BTreeSet<String>,
    /// The good keys. Absent: every key is good.
    pub keys: Option<Vec<String>>,
    /// Log requests are answered with 503 after the checks of key and shape.
    pub maintenance: bool,
    /// How many of the next batches are lost silently after their 200.
    pub lose: u64,
    /// The tokenizer takes everything, so tool calls and special tokens are stored without token counts.
    pub tokenizer_mended: bool,
    /// How long feedback for an unknown task waits until its 404, in milliseconds. The API's is 31,000; the moments
    /// at which it looks shrink alike.
    pub eval_wait_ms: u64,
    /// How long after the reply a batch is stored, in milliseconds.
    pub store_delay_ms: u64,
    /// Largest body that is not answered with 413, in bytes; at most 64 MiB.
    pub max_body_bytes: usize,
    /// Keep the events' text. Off: a long run needs less memory, and tasks can be counted but not read.
    pub keep_raw: bool,
    /// How many of the newest tasks stay in memory, at least 1; older ones are forgotten as if they had never been
    /// stored, and only their counts stay. Absent: all.
    pub keep_tasks: Option<usize>,
}

/// Largest body that the sandbox reads, in bytes.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

impl Default for Switches {
    fn default() -> Self {
        Self {
            down: false,
            refuse: false,
            delay_ms: 0,
            status: None,
            detail: None,
            retry_after: None,
            close_after_reply: false,
            truncate_reply: false,
            drop_reply: false,
            garbage: false,
            times: None,
            only: Vec::new(),
            quota: BTreeMap::new(),
            projects: BTreeMap::new(),
            refuse_events: BTreeMap::new(),
            fail_events: BTreeMap::new(),
            lose_events: BTreeSet::new(),
            keys: None,
            maintenance: false,
            lose: 0,
            tokenizer_mended: false,
            eval_wait_ms: 31_000,
            store_delay_ms: 0,
            max_body_bytes: MAX_BODY_BYTES,
            keep_raw: true,
            keep_tasks: None,
        }
    }
}

/// What the next API request meets.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    pub(super) delay_ms: u64,
    pub(super) status: Option<(u16, String)>,
    pub(super) retry_after: Option<String>,
    pub(super) close_after_reply: bool,
    pub(super) truncate_reply: bool,
    pub(super) drop_reply: bool,
    pub(super) garbage: bool,
}

impl Switches {
    /// The switches after a partial change.
    ///
    /// # Errors
    /// A sentence that names what is wrong, and the known names where one is unknown. Nothing is changed then.
    pub fn changed(&self, change: &Value) -> Result<Self, String> {
        let Value::Object(change) = change else {
            return Err("switches are a JSON object, such as {\"down\": true}".into());
        };
        let mut all = as_map(self)?;
        let defaults = as_map(&Self::default())?;
        for (name, value) in change {
            let Some(default) = defaults.get(name) else {
                let known: Vec<_> = defaults.keys().map(String::as_str).collect();
                return Err(format!(
                    "there is no switch \"{name}\"; there are {}",
                    known.join(", ")
                ));
            };
            all.insert(
                name.clone(),
                if value.is_null() {
                    default.clone()
                } else {
                    value.clone()
                },
            );
        }
        let new: Self = serde_json::from_value(Value::Object(all))
            .map_err(|e| format!("a switch's value is wrong: {e}"))?;
        new.check()?;
        Ok(new)
    }

    fn check(&self) -> Result<(), String> {
        if self.status.is_some_and(|status| !(200..600).contains(&status)) {
            return Err("status must be from 200 to 599".into());
        }
        if self.times == Some(0) {
            return Err("times must be 1 or more: leave it out (null) for no end".into());
        }
        if let Some((id, status)) = self
            .projects
            .iter()
            .find(|(_, status)| !matches!(status, 403 | 404))
        {
            return Err(format!(
                "projects: \"{id}\" is {status}, but only 404 (unknown) and 403 (another's) are known"
            ));
        }
        if let Some((id, status)) = self
            .fail_events
            .iter()
            .find(|(_, status)| !(400..600).contains(*status))
        {
            return Err(format!(
                "fail_events: \"{id}\" is {status}, but it must be from 400 to 599"
            ));
        }
        if let Some(name) = self
            .only
            .iter()
            .find(|n| !["log", "feedback", "task", "health"].contains(&n.as_str()))
        {
            return Err(format!(
                "only: \"{name}\" is not one of log, feedback, task, health"
            ));
        }
        if !matches!(
            &self.retry_after,
            None | Some(Value::Number(_) | Value::String(_))
        ) {
            return Err("retry_after must be seconds or a text".into());
        }
        if self.keep_tasks == Some(0) {
            return Err("keep_tasks must be 1 or more: leave it out (null) to keep all".into());
        }
        if self.max_body_bytes > MAX_BODY_BYTES {
            return Err(format!("max_body_bytes must be at most {MAX_BODY_BYTES}"));
        }
        Ok(())
    }

    /// What of the stored tasks stays in memory.
    pub(super) fn keep(&self) -> Keep {
        Keep {
            raw: self.keep_raw,
            tasks: self.keep_tasks.unwrap_or(usize::MAX),
        }
    }

    /// `Retry-After` as text.
    pub(super) fn retry_after(&self) -> Option<String> {
        self.retry_after.as_ref().map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }

    /// What a request of this kind meets, counted off `times`.
    pub(super) fn take(&mut self, kind: &str) -> Faults {
        let hit = self.only.is_empty() || self.only.iter().any(|name| name == kind);
        if !hit {
            return Faults::default();
        }
        let faults = Faults {
            delay_ms: self.delay_ms,
            status: self
                .status
                .map(|status| (status, self.detail.clone().unwrap_or_else(|| "switched".into()))),
            retry_after: self.retry_after(),
            close_after_reply: self.close_after_reply,
            truncate_reply: self.truncate_reply,
            drop_reply: self.drop_reply,
            garbage: self.garbage,
        };
        let any = faults.delay_ms > 0
            || faults.status.is_some()
            || faults.close_after_reply
            || faults.truncate_reply
            || faults.drop_reply
            || faults.garbage;
        if any {
            self.count_down();
        }
        faults
    }

    /// Counts a connection or request that met `down` off `times`.
    pub(super) fn take_down(&mut self) {
        if self.down {
            self.count_down();
        }
    }

    fn count_down(&mut self) {
        let Some(left) = self.times.map(|times| times.saturating_sub(1)) else {
            return;
        };
        self.times = Some(left);
        if left == 0 {
            self.times = None;
            self.down = false;
            self.delay_ms = 0;
            (self.status, self.detail, self.retry_after) = (None, None, None);
            (self.close_after_reply, self.truncate_reply) = (false, false);
            (self.drop_reply, self.garbage) = (false, false);
        }
    }
}

fn as_map(switches: &Switches) -> Result<Map<String, Value>, String> {
    match serde_json::to_value(switches) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err("the switches are not an object".into()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_change_touches_what_it_names_and_null_restores_the_default() {
        let one = Switches::default()
            .changed(&json!({"delay_ms": 5, "keys": ["k"]}))
            .expect("good");
        let two = one.changed(&json!({"down": true, "keys": null})).expect("good");
        assert_eq!(
            two,
            Switches {
                down: true,
                delay_ms: 5,
                ..Switches::default()
            }
        );
    }

    #[test]
    fn a_wrong_change_is_refused_with_the_reason() {
        let refuse = |change: Value| Switches::default().changed(&change).expect_err("refused");
        assert!(refuse(json!({"dwon": true})).contains("close_after_reply"));
        assert!(refuse(json!({"status": 42})).contains("200 to 599"));
        assert!(refuse(json!({"projects": {"p": 500}})).contains("404"));
        assert!(refuse(json!({"only": ["logs"]})).contains("feedback"));
        assert!(refuse(json!({"down": 1})).contains("boolean"));
        assert!(refuse(json!([])).contains("object"));
    }

    #[test]
    fn times_counts_only_the_requests_that_meet_the_failure() {
        let mut on = Switches::default()
            .changed(&json!({"status": 500, "times": 2, "only": ["log"]}))
            .expect("good");
        assert!(on.take("task").status.is_none());
        assert!(on.take("log").status.is_some() && on.take("log").status.is_some());
        assert!(on.take("log").status.is_none());
        assert_eq!(on.times, None);
    }
}
