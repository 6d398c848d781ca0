//! The way through one event: which string stands where, and what is copied as it came.
use super::fields::{MOST_STEPS, is_protected};
use super::secret_name::Secret;
use super::text::decode;
use super::{Redactor, Seen, Step};
use crate::wire::json::{is_blank, trim_end, trim_start};
use memchr::memchr2;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// An event on the way. Depth costs nothing beyond [`MOST_STEPS`].
pub(super) struct Walk<'r, 't> {
    redactor: &'r Redactor,
    text: &'t str,
    /// What is looked at next.
    at: usize,
    /// Up to where `out` has what it should.
    copied: usize,
    out: Vec<u8>,
    is_altered: bool,
    /// How many lists and objects are open.
    depth: usize,
    /// Where in each of them, the outermost first, as far as paths reach.
    path: Vec<Step<'t>>,
    /// What the name says of the value that comes next, or of those in a list.
    secret: Option<Secret>,
    seen: &'r mut dyn FnMut(Seen<'_>),
}

impl<'r, 't> Walk<'r, 't> {
    pub(super) fn new(redactor: &'r Redactor, text: &'t str, seen: &'r mut dyn FnMut(Seen<'_>)) -> Self {
        Self {
            redactor,
            text,
            at: 0,
            copied: 0,
            out: Vec::new(),
            is_altered: false,
            depth: 0,
            path: Vec::new(),
            secret: None,
            seen,
        }
    }

    /// To the end. `None` if nothing was altered.
    pub(super) fn run(mut self) -> Option<Vec<u8>> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'"' => {
                    self.string();
                    continue;
                }
                b'{' => {
                    self.secret = None;
                    self.open(Step::Key(Cow::Borrowed("")));
                }
                b'[' => self.open(Step::Index(0)),
                b'}' | b']' => self.close(*byte == b'}'),
                b',' if self.depth <= MOST_STEPS => {
                    if let Some(Step::Index(index)) = self.path.last_mut() {
                        *index += 1;
                    }
                }
                _ => {}
            }
            self.at += 1;
        }
        if !self.is_altered {
            return None;
        }
        self.copy_to(bytes.len());
        Some(self.out)
    }

    fn open(&mut self, step: Step<'t>) {
        self.depth += 1;
        if self.depth <= MOST_STEPS {
            self.path.push(step);
        }
    }

    fn close(&mut self, is_object: bool) {
        self.depth = self.depth.saturating_sub(1);
        self.path.truncate(self.depth);
        if is_object {
            // The object may have stood in a list with a name. Deeper than paths reach, that is
            // forgotten.
            let steps = self.path.iter().rev();
            let mut names = steps.skip_while(|step| matches!(step, Step::Index(_)));
            let name = (self.depth <= MOST_STEPS).then(|| names.next()).flatten();
            self.secret = match name {
                Some(Step::Key(name)) => Secret::named(name),
                _ => None,
            };
        }
    }

    /// A key or a value.
    fn string(&mut self) {
        let (text, start) = (self.text, self.at);
        let Some(end) = end_of_string(text.as_bytes(), start) else {
            // It never ends, so it is not JSON.
            self.at = text.len();
            return;
        };
        self.at = end;
        let content = &text[start + 1..end - 1];
        let follows = next_place(text.as_bytes(), end);
        if text.as_bytes().get(follows) == Some(&b':') {
            self.key(start, content, follows + 1);
        } else if !is_protected(&self.path, content)
            && let Some(masked) = self.redactor.mask(content, &self.path, self.secret)
        {
            if !is_json(&text[start..end]) {
                return self.give_up(start);
            }
            (self.seen)(Seen::Masked {
                path: &self.path,
                before: content,
                after: &masked.raw,
                rules: &masked.rules,
            });
            self.copy_to(start + 1);
            self.out.extend_from_slice(masked.raw.as_bytes());
            self.copied = end - 1;
            self.is_altered = true;
        }
    }

    /// The key that stands at `start`; its value does at `value` or behind it.
    fn key(&mut self, start: usize, content: &'t str, value: usize) {
        let name = decode(content);
        self.secret = Secret::named(&name);
        if self.depth > MOST_STEPS {
            return;
        }
        if let Some(step) = self.path.last_mut() {
            *step = Step::Key(name);
        }
        let mut dropped = self.redactor.rules.drop_fields.iter();
        if dropped.any(|field| field.drops(&self.path)) {
            let end = end_of_value(self.text.as_bytes(), value);
            if !self.is_member(start, value, end) {
                return self.give_up(start);
            }
            (self.seen)(Seen::Dropped { path: &self.path });
            self.drop_member(start, end);
        }
    }

    /// Whether what stands from the key at `start` to the end of its value is a member of an object: what is no JSON must not
    /// become it by losing its fault.
    fn is_member(&mut self, start: usize, value: usize, end: usize) -> bool {
        let bytes = self.text.as_bytes();
        let key = self.text[start..value].trim_end_matches(':');
        self.copy_to(start);
        let before = trim_end(&self.out);
        let rest = bytes.get(next_place(bytes, end)..).unwrap_or_default();
        // Commas where they should be: none may go with the member that had no place there.
        let is_parted = match (before, rest) {
            ([.., b'{'], [b'}', ..]) => true,
            ([before @ .., b','], [b'}', ..]) => !trim_end(before).ends_with(b"{"),
            ([.., b'{' | b','], [b',', rest @ ..]) => trim_start(rest).starts_with(b"\""),
            _ => false,
        };
        is_parted && is_json(key) && is_json(&self.text[value..end])
    }

    /// Ends here, because it is no JSON: what is left is none either, and holds nothing of the rest.
    fn give_up(&mut self, start: usize) {
        self.copy_to(start);
        // A string that never ends.
        self.out.push(b'"');
        self.at = self.text.len();
        self.copied = self.at;
        self.is_altered = true;
    }

    /// Leaves a member out, with the comma that parts it from its neighbour and the blanks before it: were these kept, each further
    /// one that is left out would look through them again.
    fn drop_member(&mut self, start: usize, end: usize) {
        let bytes = self.text.as_bytes();
        self.copy_to(start);
        self.out.truncate(trim_end(&self.out).len());
        let follows = next_place(bytes, end);
        if bytes.get(follows) == Some(&b',') {
            self.at = follows + 1;
        } else {
            if self.out.last() == Some(&b',') {
                self.out.pop();
            }
            self.at = end;
        }
        self.copied = self.at;
        self.is_altered = true;
    }

    /// Copies what comes up to there as it is.
    fn copy_to(&mut self, end: usize) {
        if self.out.capacity() == 0 {
            self.out.reserve(self.text.len() + self.text.len() / 8);
        }
        self.out
            .extend_from_slice(&self.text.as_bytes()[self.copied..end]);
        self.copied = end;
    }
}

/// Whether a text is one JSON value.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// The place after a string's closing quote; `start` is that of its opening one.
fn end_of_string(bytes: &[u8], start: usize) -> Option<usize> {
    let mut from = start + 1;
    loop {
        let at = from + memchr2(b'"', b'\\', bytes.get(from..)?)?;
        match bytes[at] {
            b'"' => return Some(at + 1),
            _ => from = at + 2,
        }
    }
}

/// The first place from `at` on that is no white space.
fn next_place(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    bytes.len() - trim_start(rest).len()
}

/// The place after the value that begins at `start` or behind white space there.
fn end_of_value(bytes: &[u8], start: usize) -> usize {
    let mut at = next_place(bytes, start);
    let mut depth = 0_usize;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at).unwrap_or(bytes.len()),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' | b',' if depth == 0 => return at,
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            byte if depth == 0 && is_blank(*byte) => return at,
            _ => {
                at += 1;
                continue;
            }
        }
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}
