//! One line of NDJSON: cutting lines out of what arrives, and deciding about each. Pure.

use super::feedback::{self, Decided};
use super::log::{Door, Fate, decide, json_fault, malformed, queued};
use crate::event::Refusal;
use crate::ids::{Kind, ProjectId};
use crate::spool::Entry;
use crate::wire::json::{push_string, trim_end, trim_start, without_mark};
use bytes::BytesMut;
use std::borrow::Cow;
use std::ops::Range;
use uuid::Uuid;

/// A line as it was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Complete, without its newline.
    Whole(BytesMut),
    /// Over the limit. The rest of it, up to its newline, is thrown away as it comes.
    TooLong,
}

/// Bytes of a connection on their way to being lines.
#[derive(Debug, Default)]
pub struct Splitter {
    /// What arrived and is no line yet: append to it.
    pub buffer: BytesMut,
    /// How much of it is known to hold no newline.
    searched: usize,
    skipping: bool,
}

impl Splitter {
    /// The next line, if all of it is there.
    pub fn next_line(&mut self, max_bytes: usize) -> Option<Line> {
        loop {
            let fresh = self.buffer.get(self.searched..).unwrap_or_default();
            let Some(found) = fresh.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                let too_long = !self.skipping && self.buffer.len() > max_bytes;
                if self.skipping || too_long {
                    self.give_up();
                }
                return too_long.then_some(Line::TooLong);
            };
            let mut line = self.buffer.split_to(self.searched + found + 1);
            self.searched = 0;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            line.truncate(line.len() - 1);
            return Some(if line.len() > max_bytes {
                Line::TooLong
            } else {
                Line::Whole(line)
            });
        }
    }

    /// What is left at the end of the connection: a last line without newline.
    pub fn last_line(&mut self) -> Option<Line> {
        let rest = self.buffer.split();
        self.searched = 0;
        (!self.skipping && !rest.is_empty()).then_some(Line::Whole(rest))
    }

    /// Throws the line that has begun away, the rest of it as it comes.
    pub fn give_up(&mut self) {
        self.buffer.clear();
        self.searched = 0;
        self.skipping = true;
    }

    /// Whether a line has begun and not ended.
    pub fn is_amid_line(&self) -> bool {
        self.skipping || !self.buffer.is_empty()
    }
}

/// What a line asks for.
#[derive(Debug)]
pub struct Outcome {
    /// What to store, if anything, of which kind, and whether as a dead letter.
    pub entry: Option<Entry>,
    /// Log or feedback.
    pub kind: Kind,
    /// The project of an event whose times the API will replace.
    pub odd_time: Option<ProjectId>,
    /// The line of answer, with its newline; holds once the entry is stored.
    pub answer: Vec<u8>,
}

/// A line of answer that says what is wrong.
pub fn error_line(sentence: &str) -> Vec<u8> {
    answer_line(b"{\"error\":", sentence)
}

fn answer_line(key: &[u8], text: &str) -> Vec<u8> {
    let mut line = Vec::with_capacity(key.len() + text.len() + 4);
    line.extend_from_slice(key);
    push_string(&mut line, text);
    line.extend_from_slice(b"}\n");
    line
}

/// Decides about one line; `None` for an empty one, which gets no answer.
///
/// Its `kind` is ours and not the event's: where it is `"log"` or `"feedback"` it is cut out before the event is stored. With any other
/// value it is taken for a field of the event's own, and stays.
pub fn plan(line: &Line, door: &Door, now_s: i64, task: Uuid) -> Option<Outcome> {
    let raw = match line {
        Line::Whole(raw) => trim_start(without_mark(trim_start(trim_end(raw)))),
        Line::TooLong => {
            let sentence = format!(
                "the line is over the limit of {} bytes (intake.max_event_bytes) and was not kept: shorten it, or \
                 raise intake.max_event_bytes",
                door.max_event_bytes
            );
            return Some(Outcome {
                entry: None,
                kind: Kind::Log,
                odd_time: None,
                answer: error_line(&sentence),
            });
        }
    };
    if raw.is_empty() {
        return None;
    }
    let (kind, own) = match find_kind(raw) {
        None => (Kind::Log, Cow::Borrowed(raw)),
        Some((kind, member)) => (kind, Cow::Owned(without(raw, member))),
    };
    let screened = door.screened(&own);
    let mut outcome = match kind {
        Kind::Log => plan_log(raw, &screened, door, now_s, task),
        Kind::Feedback => plan_feedback(&screened, door),
    };
    if outcome.entry.is_none()
        && let Some(refusal) = json_fault(raw)
    {
        // The position must be that in the line as it was sent.
        outcome.answer = error_line(&refusal.to_string());
    }
    Some(outcome)
}

/// Of a line that is not JSON what looks like an event is kept, as it was sent.
fn plan_log(sent: &[u8], raw: &[u8], door: &Door, now_s: i64, task: Uuid) -> Outcome {
    let mut odd_time = None;
    let decided = match decide(raw, door, now_s, task) {
        Err(refusal @ (Refusal::Json(_) | Refusal::Utf8(_))) if sent.starts_with(b"{") => {
            malformed(sent, door, refusal)
        }
        decided => decided,
    };
    let (entry, answer) = match decided {
        Ok(Fate::Accepted(event)) => {
            odd_time = event.has_odd_time().then(|| event.project().clone());
            let answer = answer_line(b"{\"task_id\":", event.task().as_str());
            (Some(queued(event)), answer)
        }
        Ok(Fate::Refused { lane, record, reason }) => {
            let answer = error_line(&reason);
            (Some(Entry::Refused { lane, record, reason }), answer)
        }
        Err(refusal) => (None, error_line(&refusal.to_string())),
    };
    Outcome {
        entry,
        kind: Kind::Log,
        odd_time,
        answer,
    }
}

fn plan_feedback(raw: &[u8], door: &Door) -> Outcome {
    let Decided { entry, outcome } = feedback::decide(raw, None, door);
    let answer = match outcome {
        Ok(feedback) => answer_line(b"{\"task_id\":", feedback.task().as_str()),
        Err(refusal) => error_line(&refusal.to_string()),
    };
    Outcome {
        entry,
        kind: Kind::Feedback,
        odd_time: None,
        answer,
    }
}

/// The first top-level `"kind": "log"` or `"kind": "feedback"`: which, and where the member stands, from the quote of its key to
/// that of its value. Malformed JSON may be misread here; it stays malformed without the member, and is refused right after.
fn find_kind(object: &[u8]) -> Option<(Kind, Range<usize>)> {
    if object.first() != Some(&b'{') {
        return None;
    }
    let mut depth = 0_usize;
    let mut at = 0;
    // Where the last string at the top level stands, which is the key once a colon follows.
    let mut last = 0..0;
    let mut key = None;
    while let Some(byte) = object.get(at) {
        match byte {
            b'"' => {
                let string = at..end_of_string(object, at)?;
                at = string.end;
                if depth == 1 {
                    let found = key.take().and_then(|key| kind_of(object, key, &string));
                    if found.is_some() {
                        return found;
                    }
                    last = string;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b':' if depth == 1 => key = Some(last.clone()),
            b',' if depth == 1 => key = None,
            _ => {}
        }
        at += 1;
    }
    None
}

fn kind_of(object: &[u8], key: Range<usize>, value: &Range<usize>) -> Option<(Kind, Range<usize>)> {
    if object.get(key.clone())? != b"\"kind\"" {
        return None;
    }
    let kind = match object.get(value.clone())? {
        b"\"log\"" => Kind::Log,
        b"\"feedback\"" => Kind::Feedback,
        _ => return None,
    };
    let is_member =
        trim_start(trim_end(object.get(key.end..value.start)?)) == b":" && is_parted(object, &key, value);
    is_member.then_some((kind, key.start..value.end))
}

/// Whether commas stand around a member as they should: none of them may go with it that had no place there.
fn is_parted(object: &[u8], key: &Range<usize>, value: &Range<usize>) -> bool {
    let before = trim_end(object.get(..key.start).unwrap_or_default());
    let after = trim_start(object.get(value.end..).unwrap_or_default());
    match (before, after) {
        ([b'{'], [b'}', ..]) => true,
        ([before @ .., b','], [b'}', ..]) => !trim_end(before).ends_with(b"{"),
        ([b'{'] | [.., b','], [b',', rest @ ..]) => trim_start(rest).starts_with(b"\""),
        _ => false,
    }
}

/// The place after a string's closing quote; `start` is that of its opening one.
fn end_of_string(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// An object without one member and without the comma that parted it from its neighbour.
fn without(object: &[u8], member: Range<usize>) -> Vec<u8> {
    let (before, after) = (&object[..member.start], &object[member.end..]);
    let (before, after) = match trim_start(after) {
        [b',', rest @ ..] => (before, trim_start(rest)),
        _ => (trim_end(before).strip_suffix(b",").unwrap_or(before), after),
    };
    [before, after].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::redact::{Detector, Redactor, Rules, Screen};
    use std::sync::Arc;

    fn door() -> Door {
        Door {
            project: Some(ProjectId::new("p").expect("an id")),
            max_event_bytes: 100,
            screen: None,
            projects: None,
        }
    }

    fn cut(object: &str) -> Option<(Kind, String)> {
        let (kind, member) = find_kind(object.as_bytes())?;
        Some((
            kind,
            String::from_utf8(without(object.as_bytes(), member)).expect("text"),
        ))
    }

    #[test]
    fn only_the_kind_at_the_top_is_cut_out_and_all_else_stays_byte_for_byte() {
        let log = |rest: &str| Some((Kind::Log, rest.to_owned()));
        assert_eq!(cut(r#"{"kind":"log","a": 1.50}"#), log(r#"{"a": 1.50}"#));
        assert_eq!(cut(r#"{"a": 1.50 , "kind" : "log"}"#), log(r#"{"a": 1.50 }"#));
        assert_eq!(
            cut(r#"{ "a":1, "kind":"log", "b":2 }"#),
            log(r#"{ "a":1, "b":2 }"#)
        );
        assert_eq!(cut(r#"{"kind":"log"}"#), log("{}"));
        assert_eq!(
            cut(r#"{"kind":"feedback","x":"\"kind\""}"#),
            Some((Kind::Feedback, r#"{"x":"\"kind\""}"#.into()))
        );
        assert_eq!(cut(r#"{"kind":"chat","a":"log"}"#), None);
        assert_eq!(cut(r#"{"metadata":{"kind":"log"},"list":["kind","log"]}"#), None);
        assert_eq!(cut(r#"{"a":"kind","b":"log"}"#), None);
        assert_eq!(cut(r#"{"kind":"#), None);
        assert_eq!(cut("}}}\"kind\":\"log\""), None);
    }

    fn answer(line: &str) -> (Option<Entry>, String) {
        let line = Line::Whole(BytesMut::from(line));
        let outcome = plan(&line, &door(), 7, Uuid::nil()).expect("an answer");
        (outcome.entry, String::from_utf8(outcome.answer).expect("text"))
    }

    #[test]
    fn a_line_is_an_event_unless_it_says_feedback() {
        let (entry, text) = answer(r#"{"input":"a","task_id":"t","kind":"chat"}"#);
        assert_eq!(text, "{\"task_id\":\"t\"}\n");
        assert!(matches!(entry, Some(Entry::Queued { lane, record })
            if lane.kind == Kind::Log && String::from_utf8_lossy(&record).contains(r#""kind":"chat""#)));
        let (entry, text) = answer(r#"{"kind":"feedback","task_id":"t","flag":"success"}"#);
        assert_eq!(text, "{\"task_id\":\"t\"}\n");
        assert!(matches!(entry, Some(Entry::Queued { lane, .. }) if lane.kind == Kind::Feedback));
    }

    #[test]
    fn a_refused_event_is_kept_and_so_is_one_that_is_not_json() {
        let (entry, text) = answer(r#"{"kind":"log","input":1}"#);
        assert!(matches!(entry, Some(Entry::Refused { record, .. }) if record == br#"{"input":1}"#));
        assert!(text.starts_with("{\"error\":\"input is"), "{text}");
        let malformed = r#"{"kind":"log","input":}"#;
        let (entry, text) = answer(malformed);
        assert!(matches!(entry, Some(Entry::Refused { record, .. }) if record == malformed.as_bytes()));
        assert!(text.contains("column 23"), "{text}");
        let (entry, text) = answer(r#"{"kind":"feedback","task_id":"null","flag":"success"}"#);
        assert!(matches!(entry, Some(Entry::Refused { lane, record, .. })
            if lane.kind == Kind::Feedback && record == br#"{"task_id":"null","flag":"success"}"#));
        assert!(text.contains("variable"), "{text}");
        let (entry, text) = answer("\u{feff} {\"input\":NaN}");
        assert!(matches!(entry, Some(Entry::Refused { record, .. }) if record == b"{\"input\":NaN}"));
        assert!(text.contains("NaN is no value in JSON"), "{text}");
        // Neither of these looks like an event.
        for line in ["nonsense", "[1,", "\"", r#"{"kind":"feedback","flag":NaN}"#] {
            let (entry, text) = answer(line);
            assert!(
                entry.is_none() && text.contains("not valid JSON"),
                "{line}: {text}"
            );
        }
        let line = Line::Whole(BytesMut::from(&b"{\"input\":\"\xff\"}"[..]));
        let outcome = plan(&line, &door(), 7, Uuid::nil()).expect("an answer");
        assert!(matches!(outcome.entry, Some(Entry::Refused { .. })));
        assert!(outcome.answer.starts_with(b"{\"error\":"));
    }

    #[test]
    fn what_is_kept_and_told_is_what_the_screen_leaves() {
        let rules = Rules {
            detect: Detector::ALL.to_vec(),
            ..Rules::default()
        };
        let redactor = Arc::new(Redactor::new(rules).expect("rules"));
        let door = Door {
            screen: Some(Screen::new(redactor, &Metrics::new())),
            ..door()
        };
        let of = |line: &str| {
            let outcome = plan(&Line::Whole(BytesMut::from(line)), &door, 7, Uuid::nil()).expect("an answer");
            (outcome.entry, String::from_utf8(outcome.answer).expect("text"))
        };
        let (entry, _) = of(r#"{"kind":"log","input":["a@b.co"]}"#);
        assert!(
            matches!(entry, Some(Entry::Refused { record, .. }) if record == br#"{"input":["[email]"]}"#)
        );
        let (entry, _) = of(r#"{"kind":"feedback","task_id":"t","flag":"success","notes":"a@b.co"}"#);
        assert!(matches!(entry, Some(Entry::Queued { record, .. })
            if String::from_utf8_lossy(&record).contains(r#""notes":"[email]""#)));
        // A fault stands where the client wrote it.
        for line in [
            r#"{"output":"a@b.co","input":}"#,
            r#"{"kind":"log","output":"a@b.co","input":}"#,
        ] {
            let (entry, answer) = of(line);
            assert!(matches!(entry, Some(Entry::Refused { record, reason, .. })
                    if !record.windows(6).any(|part| part == b"a@b.co") && answer.contains(&reason)));
            let column = format!("column {}", line.len());
            assert!(answer.contains(&column), "{answer}");
        }
    }

    #[test]
    fn a_malformed_line_does_not_become_an_event_by_losing_its_kind() {
        for line in [
            r#"{"input":"x" "kind":"log"}"#,
            r#"{"input":"x","kind" 5 : "log"}"#,
            r#"{"input":"x","kind"::"log"}"#,
            r#"{"kind":"log",}"#,
            r#"{,"kind":"log"}"#,
            r#"{"input":"x",,"kind":"log"}"#,
            r#"["kind":"log"]"#,
            "{\"input\":\"x\",\u{c}\"kind\":\"log\"}",
            "{\"input\":\"x\",\"kind\"\u{c}:\"log\"}",
            "{\"input\":\"x\"}\u{c}",
            r#"{"input":"x","kind":"log" "output":"y"}"#,
        ] {
            let (entry, text) = answer(line);
            assert!(!matches!(entry, Some(Entry::Queued { .. })), "{line}");
            assert!(text.contains("not valid JSON"), "{line}: {text}");
        }
    }

    #[test]
    fn an_empty_line_has_no_answer() {
        assert!(plan(&Line::Whole(BytesMut::from(" \r")), &door(), 7, Uuid::nil()).is_none());
    }

    fn lines(pieces: &[&str], max: usize) -> Vec<Option<String>> {
        let mut splitter = Splitter::default();
        let mut found = Vec::new();
        let mut keep = |line| match line {
            Line::Whole(line) => found.push(Some(String::from_utf8(line.to_vec()).expect("text"))),
            Line::TooLong => found.push(None),
        };
        for piece in pieces {
            splitter.buffer.extend_from_slice(piece.as_bytes());
            while let Some(line) = splitter.next_line(max) {
                keep(line);
            }
        }
        if let Some(line) = splitter.last_line() {
            keep(line);
        }
        found
    }

    #[test]
    fn lines_are_found_however_the_bytes_arrive() {
        let some = |text: &str| Some(text.to_owned());
        let text = "ab\n\ncdefgh\ni\nrest";
        let expected = [some("ab"), some(""), None, some("i"), some("rest")];
        assert_eq!(lines(&[text], 4), expected);
        let bytes: Vec<String> = text.chars().map(String::from).collect();
        let bytes: Vec<&str> = bytes.iter().map(String::as_str).collect();
        assert_eq!(lines(&bytes, 4), expected);
        assert_eq!(lines(&["abcdefgh"], 4), [None]);
    }
}
