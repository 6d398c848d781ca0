//! NDJSON: lines out of what arrives, and what becomes of each.
use super::{is_json, project, redact};
use crate::intake::line::{Line, Outcome, Splitter, plan};
use crate::intake::log::Door;
use crate::metrics::Metrics;
use crate::redact::Screen;
use crate::spool::Entry;
use crate::wire::json::without_mark;
use bytes::BytesMut;
use std::sync::{Arc, LazyLock};
use uuid::Uuid;

/// A door without a screen, and one with.
static DOORS: LazyLock<[Door; 2]> = LazyLock::new(|| {
    let door = |screen| Door {
        project: Some(project()),
        max_event_bytes: 300,
        screen,
        projects: None,
    };
    let screen = Screen::new(Arc::new(redact::dropping()), &Metrics::new());
    [door(None), door(Some(screen))]
});

/// The first byte says in which pieces the rest arrives, and how long a line may be.
pub fn ndjson(data: &[u8]) {
    let Some((pick, text)) = data.split_first() else {
        return;
    };
    let (piece, most) = (1 + usize::from(pick & 7) * 5, 4 + usize::from(pick >> 3) * 20);
    let found = arriving(text, piece, most);
    assert_eq!(found, at_leisure(text, most));
    for line in found.iter().flatten() {
        for door in DOORS.iter() {
            let whole = Line::Whole(BytesMut::from(line.as_slice()));
            match plan(&whole, door, 1_700_000_000, Uuid::from_u128(1)) {
                None => assert!(line.trim_ascii().is_empty()),
                Some(outcome) => check(line, door, &outcome),
            }
        }
    }
}

/// The lines; `None` for one that is too long.
fn arriving(text: &[u8], piece: usize, most: usize) -> Vec<Option<Vec<u8>>> {
    let mut splitter = Splitter::default();
    let mut found = Vec::new();
    let of = |line| match line {
        Line::Whole(line) => Some(line.to_vec()),
        Line::TooLong => None,
    };
    for piece in text.chunks(piece) {
        splitter.buffer.extend_from_slice(piece);
        while let Some(line) = splitter.next_line(most) {
            found.push(of(line));
        }
        assert!(
            splitter.buffer.len() <= most,
            "no more is kept than a line may have"
        );
    }
    found.extend(splitter.last_line().map(of));
    found
}

fn at_leisure(text: &[u8], most: usize) -> Vec<Option<Vec<u8>>> {
    let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    lines.pop_if(|last| last.is_empty());
    let kept = |line: &[u8]| (line.len() <= most).then(|| line.to_vec());
    lines.into_iter().map(kept).collect()
}

fn check(line: &[u8], door: &Door, outcome: &Outcome) {
    let Some(answer) = outcome.answer.strip_suffix(b"\n") else {
        panic!("an answer without its newline");
    };
    assert!(is_json(answer) && !answer.contains(&b'\n'));
    let has = |key: &str| crate::wire::json::field(answer, key).is_some();
    assert_eq!(has("error"), !has("task_id"));
    match &outcome.entry {
        None => assert!(has("error")),
        Some(Entry::Queued { lane, record }) => {
            assert!(has("task_id") && is_json(without_mark(line.trim_ascii_start())) && is_json(record));
            assert_eq!(lane.kind, outcome.kind);
        }
        Some(Entry::Refused { lane, record, .. }) => {
            assert!(has("error") && lane.kind == outcome.kind);
            // What is not JSON cannot be redacted, so nothing of it is kept then.
            assert!(is_json(record) || (door.screen.is_none() && !is_json(line)));
        }
    }
}
