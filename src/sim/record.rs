//! The events and the feedback of a schedule, and what must become of them.

use crate::feedback::Feedback;
use fastrand::Rng;

/// What is to become of a log event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Stored.
    Good,
    /// Stored once it has token counts: it breaks the API's tokenizer.
    Curable,
    /// Accepted and never stored, with all that is sent beside it.
    Lost,
    /// 422 for the whole request.
    Refused,
    /// 500 for the whole request, every time.
    Fails,
    /// `error_in_log`.
    InLog,
    /// 413.
    TooLarge,
    /// Something in between refuses each request with it, until all is mended.
    Evil,
    /// Each request with it runs out of time at something in between, until all is mended; then it is stored.
    Stuck,
}

/// What a firewall dislikes.
const ATTACK: &str = "union select";
/// What holds a proxy up.
const SLUGGISH: &str = "sluggish";

/// Kinds of trouble.
pub(super) const BAD: [Kind; 8] = [
    Kind::Curable,
    Kind::Lost,
    Kind::Refused,
    Kind::Fails,
    Kind::InLog,
    Kind::TooLarge,
    Kind::Evil,
    Kind::Stuck,
];

/// What may stand in any event, unusual but harmless.
const ODD: [&str; 6] = [
    "",
    "",
    ",\"created_at\":1700000000123",
    ",\"metadata\":{\"prompt_tokens\":null,\"a\":[[[{}]]]}",
    ",\"raw_output\":[null,\"\\u00e9 \\ud83d\\ude00\"]",
    ",\"unknown\":{\"task_id\":\"not this\",\"\\u0001\":1e300}",
];

/// A log event.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) kind: Kind,
    pub(super) project: usize,
    pub(super) task: String,
    /// Of its project.
    pub(super) session: Option<u8>,
    pub(super) record: Vec<u8>,
    /// The same without what is wrong with it.
    pub(super) mended: Vec<u8>,
}

/// A feedback. Its notes name it.
#[derive(Debug, Clone)]
pub(super) struct Note {
    pub(super) project: usize,
    pub(super) task: String,
    pub(super) record: Vec<u8>,
    /// Larger than the API takes.
    pub(super) too_large: bool,
    /// Something in between refuses it, until all is mended.
    pub(super) evil: bool,
}

/// The largest body that the API of a schedule with `Kind::TooLarge` takes.
pub(super) const SMALL_BODY: usize = 3_000;

impl Event {
    /// Number `nr` of a schedule.
    pub(super) fn new(
        nr: usize,
        kind: Kind,
        project: usize,
        task: String,
        session: Option<u8>,
        rng: &mut Rng,
    ) -> Event {
        let filler = "x".repeat(rng.usize(0..300));
        let odd = rng.choice(&ODD).expect("one");
        let wrong = match kind {
            Kind::Good => String::new(),
            Kind::Curable => ",\"raw_input\":[{\"role\":\"user\",\"content\":null}]".into(),
            Kind::Lost => ",\"big\":123456789012345678901234567890".into(),
            Kind::Refused => ",\"output\":5".into(),
            Kind::Fails => ",\"bad\":\"\\ud83d\"".into(),
            Kind::InLog => ",\"flag\":\"bad\"".into(),
            Kind::TooLarge => format!(",\"output\":\"{}\"", "y".repeat(SMALL_BODY)),
            Kind::Evil => format!(",\"output\":\"1 {ATTACK} 2\""),
            Kind::Stuck => format!(",\"output\":\"{SLUGGISH}\""),
        };
        let of_session = session.map_or(String::new(), |session| {
            format!(",\"session_id\":\"p{project}s{session}\"")
        });
        let with = |wrong: &str| {
            let record = format!(
                "{{\"task_id\":\"{task}\",\"nr\":{nr},\"project_id\":\"p{project}\",\"client_created_at\":1700000000\
                 {of_session},\"input\":\"{filler}\"{odd}{wrong}}}"
            );
            record.into_bytes()
        };
        let (record, mended) = (with(&wrong), with(""));
        Event {
            kind,
            project,
            task,
            session,
            record,
            mended,
        }
    }
}

impl Note {
    /// Number `nr` of a schedule.
    pub(super) fn new(
        nr: usize,
        project: usize,
        task: String,
        (too_large, evil): (bool, bool),
        rng: &mut Rng,
    ) -> Note {
        let flag = if rng.bool() { "success" } else { "failure" };
        let source = if rng.bool() { ",\"source\":\"user\"" } else { "" };
        let filler = if too_large {
            "z".repeat(SMALL_BODY)
        } else if evil {
            ATTACK.into()
        } else {
            String::new()
        };
        let text = format!(
            "{{\"task_id\":\"{task}\",\"project_id\":\"p{project}\",\"flag\":\"{flag}\"{source},\"notes\":\"n{nr}.{filler}\"}}"
        );
        let feedback = Feedback::parse(text.as_bytes(), None, None).expect("feedback");
        Note {
            project,
            task,
            record: feedback.to_record(),
            too_large,
            evil,
        }
    }
}

/// Whether a request holds what a firewall dislikes.
pub(super) fn is_attack(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok_and(|text| text.contains(ATTACK))
}

/// Whether it holds what a proxy cannot cope with.
pub(super) fn is_sluggish(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok_and(|text| text.contains(SLUGGISH))
}

/// The numbers of the events in a body or a record, in order.
pub(super) fn events_in(body: &[u8]) -> Vec<usize> {
    numbers(body, "\"nr\":")
}

/// The number of the feedback in a body, a record or its notes.
pub(super) fn note_in(body: &[u8]) -> Option<usize> {
    numbers(body, "\"notes\":\"n").first().copied()
}

fn numbers(body: &[u8], before: &str) -> Vec<usize> {
    let text = std::str::from_utf8(body).expect("text");
    let parts = text.split(before).skip(1);
    parts
        .map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[..end].parse().expect("a number")
        })
        .collect()
}
