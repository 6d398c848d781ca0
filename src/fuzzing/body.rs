//! Bodies of requests, log events and feedback.
use super::{assert_is_sentence, is_json, project};
use crate::batch;
use crate::event::{self, Event, Refusal, Stamps};
use crate::feedback::Feedback;
use crate::http::fuzzed::at_once;
use crate::sandbox;
use crate::verdict::{Answer, Fate, LogVerdict, Outcome, of_log};
use crate::wire::split::{Element, Form, Splitter};
use crate::wire::{BodyError, json, split_whole};
use uuid::Uuid;

/// As many events are cut out of a body.
const MOST: usize = 64;
const NOW_S: i64 = 1_700_000_000;

/// Longest event that is held.
const HOLD: usize = 300;

/// A body is cut into pieces of itself, and what is accepted of them stays what it was.
pub fn body(data: &[u8]) {
    let batch = split_whole(data, Form::Batch, HOLD, MOST);
    let any = split_whole(data, Form::Any, HOLD, MOST);
    for split in [&batch, &any] {
        match split {
            Ok(events) => pieces(data, events.as_deref().unwrap_or_default()),
            Err(error) => {
                assert_is_sentence(&error.to_string());
                let is_malformed = matches!(
                    error,
                    BodyError::Malformed { .. } | BodyError::Utf8 { .. } | BodyError::Empty { .. }
                );
                assert!(!is_malformed || !is_json(json::without_mark(data)), "{error}");
            }
        }
    }
    if batch.is_ok() {
        assert_eq!(any, batch, "the batched form is taken by both");
    }
    event(data);
    feedback(data);
}

/// The first byte says in which pieces the rest arrives: that makes no difference.
pub fn stream(data: &[u8]) {
    let Some((pick, body)) = data.split_first() else {
        return;
    };
    let (piece, hold) = (1 + usize::from(pick & 15) * 7, 1 + usize::from(pick >> 4) * 16);
    for form in [Form::Batch, Form::Any] {
        let found = arriving(body, form, hold, piece);
        assert_eq!(found, arriving(body, form, hold, body.len().max(1)));
        let whole = split_whole(body, form, hold, usize::MAX);
        assert_eq!(whole.is_ok(), found.1, "{whole:?}");
        if let Ok(Some(events)) = whole {
            let texts: Vec<_> = events.iter().map(|event| event.text.to_vec()).collect();
            assert_eq!(texts, found.0);
        }
    }
}

/// The events, and whether the body could be cut to its end.
fn arriving(body: &[u8], form: Form, hold: usize, piece: usize) -> (Vec<Vec<u8>>, bool) {
    let mut splitter = Splitter::new(form, hold);
    let mut found = Vec::new();
    for mut piece in body.chunks(piece) {
        loop {
            match splitter.next(&mut piece) {
                Ok(Some(event)) => found.push(event.text.to_vec()),
                Ok(None) => break,
                Err(_) => return (found, false),
            }
        }
    }
    let is_whole = splitter.finish().is_ok();
    (found, is_whole)
}

/// They stand in the body, in order and apart.
fn pieces(body: &[u8], events: &[Element<'_>]) {
    assert!(events.len() <= MOST);
    let mut from = 0;
    for piece in events {
        let start = usize::try_from(piece.start).unwrap_or(usize::MAX);
        assert!(start >= from && body[start..].starts_with(piece.text));
        from = start + piece.text.len();
        event(piece.text);
    }
}

fn stamps<'a>(project: &'a crate::ids::ProjectId, task: u128, now_s: i64) -> Stamps<'a> {
    Stamps {
        project: Some(project),
        now_s,
        task: Uuid::from_u128(task),
    }
}

fn event(raw: &[u8]) {
    let project = project();
    let event = match Event::parse(raw, &stamps(&project, 1, NOW_S)) {
        Ok(event) => event,
        Err(refusal) => {
            assert_is_sentence(&refusal.to_string());
            let is_malformed = matches!(refusal, Refusal::Json(_) | Refusal::Utf8(_));
            assert_eq!(is_malformed, !is_json(raw), "{refusal}");
            return;
        }
    };
    // Every byte that came is there, behind the brace and the stamps.
    let text = json::trim(std::str::from_utf8(raw).unwrap_or_default());
    let sent = event.json();
    assert!(is_json(sent) && sent.starts_with(b"{") && sent.ends_with(&text.as_bytes()[1..]));
    let stamped = &sent[1..=sent.len() - text.len()];
    assert!(stamped.len() < 1200 && stamped.is_empty() == (sent.len() == text.len()));
    // What is stamped is stamped once.
    let again = match Event::parse(sent, &stamps(&project, 2, NOW_S + 1)) {
        Ok(again) => again,
        Err(refusal) => panic!("refused the second time: {refusal}"),
    };
    assert_eq!(again.json(), sent);
    assert_eq!((again.task(), again.project()), (event.task(), event.project()));
    assert_eq!(again.session(), event.session());
    assert_eq!(event::task_of(sent).as_ref(), Some(event.task()));
    of_the_api(&event);
}

/// The stand-in for the API, which checks events with code of its own, takes what was accepted.
fn of_the_api(event: &Event) {
    let api = sandbox::Handle::default();
    let path = format!("/v2/log/{}", project());
    let said = at_once(api.ask(&path, "good-p", Some(batch::body([event.json()]))));
    let answer = Outcome::Answered(Answer {
        status: said.status,
        retry_after: None,
        body: said.body,
    });
    match of_log(&answer, 1, 1) {
        LogVerdict::Answered(fates) if fates == [Fate::Accepted] => {}
        // Of another project.
        LogVerdict::Answered(fates) if event.project() != &project() => assert_eq!(fates.len(), 1),
        other => panic!("{other:?} for {}", String::from_utf8_lossy(event.json())),
    }
}

fn feedback(raw: &[u8]) {
    let project = project();
    let feedback = match Feedback::parse(raw, None, Some(&project)) {
        Ok(feedback) => feedback,
        Err(refusal) => return assert_is_sentence(&refusal.to_string()),
    };
    assert!(is_json(raw));
    assert_eq!(
        Feedback::from_record(&feedback.to_record()).as_ref(),
        Some(&feedback)
    );
    let body = feedback.upstream_body();
    assert_eq!(
        Feedback::parse(&body, Some(feedback.task().as_str()), None),
        Ok(feedback)
    );
}
