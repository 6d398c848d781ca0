//! What must hold whatever bytes come: one function an entrance, which panics where it does not.
//!
//! `fuzz/` runs them on bytes that a fuzzer makes up, and the tests here on the corpus that it left and on what chance makes of that.
//! Those of private modules stand beside them (`fuzzed`). In no release.
mod body;
mod ndjson;
mod redact;
mod reply;
#[cfg(test)]
mod tests;

pub use body::{body, stream};
pub use ndjson::ndjson;
pub use redact::redact;
pub use reply::reply;

use crate::ids::ProjectId;
use serde_json::value::RawValue;

/// One entrance: panics where something does not hold.
pub type Property = fn(&[u8]);

/// All of them, by the names that their targets and their folders of the corpus have.
pub const ALL: [(&str, Property); 8] = [
    ("body", body),
    ("config", config),
    ("framing", framing),
    ("ndjson", ndjson),
    ("record", record),
    ("redact", redact),
    ("reply", reply),
    ("stream", stream),
];

/// The configuration file.
pub fn config(data: &[u8]) {
    crate::config::fuzzed::config(data);
}

/// Where the requests of a connection begin and end.
pub fn framing(data: &[u8]) {
    crate::http::fuzzed::framing(data);
}

/// What the spool writes and reads.
pub fn record(data: &[u8]) {
    crate::spool::fuzzed::record(data);
}

fn is_json(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| serde_json::from_str::<&RawValue>(text).is_ok())
}

/// A sentence for a log line or an answer: one line, without what a terminal would obey.
fn assert_is_sentence(text: &str) {
    assert!(!text.is_empty() && !text.contains(char::is_control), "{text:?}");
}

fn project() -> ProjectId {
    let Ok(project) = ProjectId::new("p") else {
        panic!("it is an id");
    };
    project
}
