//! Cuts the body of a log request into its events while it arrives. Pure.
//!
//! Only the structure is followed: strings, brackets and commas. So a text that is not JSON spoils the event that it
//! stands in, and no other. Whether an event is JSON is for [`crate::event::Event::parse`] to say.
//!
//! Memory is bounded by one event, whatever the body's size: an event that lies within one piece of the body is a part of
//! that piece, and one that does not is collected, up to [`Splitter::new`]'s `hold` bytes.

use super::json::trim_end;
use super::{BATCH_KEY, json};
use memchr::memchr2;

/// Bytes that are kept of an event that is too long to be held.
pub const HEAD_BYTES: usize = 64 * 1024;
/// Longest key that can be [`BATCH_KEY`]: each of its characters as an escape.
const MOST_KEY_BYTES: usize = 6 * BATCH_KEY.len();
/// A buffer that has grown beyond this is given back after its event.
const SMALL_BUFFER: usize = 64 * 1024;
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// What a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `{"batched_log_events": [...]}`. Other keys are passed over.
    Batch,
    /// The same, a list of events, or one event: an object without the key `batched_log_events`.
    Any,
}

/// One event as it stands in a body: any text between two separators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    /// Its bytes, without blanks around them. If it is over `hold`, its first bytes.
    pub text: &'a [u8],
    /// Offset in the body of its first byte.
    pub start: u64,
    /// Its length in bytes, if only its first bytes are here.
    pub cut_from: Option<u64>,
    /// It is the body, and not an element of a list.
    pub is_body: bool,
}

/// Where a body cannot be cut any further, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Offset in the body of the byte that is wrong, from 0; the body's length where it ends too early.
    pub byte: u64,
    /// What is wrong there.
    pub kind: FaultKind,
}

/// What is wrong with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// There is nothing but blanks.
    Empty,
    /// It begins like neither of the forms that the route takes.
    WrongShape,
    /// It is an object that has no list of events.
    NoList,
    /// The key of the list has another value.
    NotAList,
    /// It is not JSON, and no event alone is to blame.
    Syntax(&'static str),
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the body's value, behind so many bytes of a byte order mark.
    Start(u8),
    FirstKey,
    NextKey,
    Key,
    Colon,
    Value,
    /// Within a value of the outermost object that is no event.
    Ignored,
    FirstElement,
    NextElement,
    Element,
    AfterList,
    End,
}

/// What a step found.
enum Found {
    Nothing,
    /// An event begins here.
    Begin,
    /// What was taken for an event is none.
    Discard,
    /// The event that has begun ends before this index of the piece.
    End(usize),
}

/// An event that has begun.
#[derive(Debug)]
struct Begun {
    start: u64,
    /// Bytes of it in earlier pieces.
    length: u64,
    is_body: bool,
}

/// Bytes of a body on their way to being events.
#[derive(Debug)]
pub struct Splitter {
    form: Form,
    hold: usize,
    place: Place,
    /// Brackets that are open within the current value.
    depth: usize,
    in_string: bool,
    /// The last byte was a backslash in a string.
    escaped: bool,
    /// The content of the key that has begun, if it may still be the list's.
    key: Vec<u8>,
    in_object: bool,
    has_list: bool,
    begun: Option<Begun>,
    /// What earlier pieces had of the event that has begun.
    buffer: Vec<u8>,
    /// The buffer holds an event that was given out.
    is_given: bool,
    /// Bytes of all pieces before the current one.
    passed: u64,
}

impl Splitter {
    /// For one body. An event of more than `hold` bytes, blanks behind it included, is cut to its first [`HEAD_BYTES`].
    pub fn new(form: Form, hold: usize) -> Self {
        Self {
            form,
            hold,
            place: Place::Start(0),
            depth: 0,
            in_string: false,
            escaped: false,
            key: Vec::new(),
            in_object: false,
            has_list: false,
            begun: None,
            buffer: Vec::new(),
            is_given: false,
            passed: 0,
        }
    }

    /// How many bytes of an event that has begun are held.
    pub fn held(&self) -> usize {
        self.buffer.len()
    }

    /// The next event that ends in `piece`, which is cut off at its front. `None` when all of the piece is used up.
    ///
    /// # Errors
    /// The body cannot be cut. Nothing that follows means anything.
    pub fn next<'s, 'p: 's>(&'s mut self, piece: &mut &'p [u8]) -> Result<Option<Element<'s>>, Fault> {
        self.forget_given();
        let bytes = *piece;
        // Where the bytes of the event that has begun, and that are not in the buffer, begin.
        let (mut at, mut from) = (0, 0);
        while at < bytes.len() {
            let (next, found) = self.step(bytes, at)?;
            match found {
                Found::Nothing => {}
                Found::Begin => {
                    from = at;
                    self.begun = Some(Begun {
                        start: self.passed + at as u64,
                        length: 0,
                        is_body: self.place == Place::FirstKey,
                    });
                }
                Found::Discard => {
                    self.begun = None;
                    self.buffer = Vec::new();
                }
                Found::End(end) => {
                    self.passed += next as u64;
                    *piece = &bytes[next..];
                    return Ok(self.give(&bytes[from..end]));
                }
            }
            at = next;
        }
        if self.begun.is_some() {
            self.keep(&bytes[from..]);
        }
        self.passed += bytes.len() as u64;
        *piece = &[];
        Ok(None)
    }

    /// The body has ended: whether it ended where it should.
    pub fn finish(&self) -> Result<(), Fault> {
        let kind = match self.place {
            Place::End => return Ok(()),
            Place::Start(_) => FaultKind::Empty,
            _ if self.in_string || self.place == Place::Key => {
                FaultKind::Syntax("EOF while parsing a string")
            }
            Place::FirstElement | Place::NextElement | Place::Element => {
                FaultKind::Syntax("EOF while parsing a list")
            }
            _ => FaultKind::Syntax("EOF while parsing an object"),
        };
        Err(Fault {
            byte: self.passed,
            kind,
        })
    }

    fn forget_given(&mut self) {
        if std::mem::take(&mut self.is_given) {
            self.buffer.clear();
            self.buffer.shrink_to(SMALL_BUFFER);
        }
    }

    /// Appends what a piece has of the event that has begun.
    fn keep(&mut self, bytes: &[u8]) {
        let Some(begun) = &mut self.begun else { return };
        begun.length += bytes.len() as u64;
        if begun.length <= self.hold as u64 {
            self.buffer.extend_from_slice(bytes);
            return;
        }
        let missing = HEAD_BYTES.saturating_sub(self.buffer.len()).min(bytes.len());
        self.buffer.extend_from_slice(&bytes[..missing]);
        self.buffer.truncate(HEAD_BYTES);
        self.buffer.shrink_to(HEAD_BYTES);
    }

    /// The event that ends with these bytes of the current piece.
    fn give<'s>(&'s mut self, last: &'s [u8]) -> Option<Element<'s>> {
        let length = self.begun.as_ref()?.length;
        let text = if length == 0 {
            last
        } else {
            self.keep(last);
            self.is_given = true;
            &self.buffer
        };
        let begun = self.begun.take()?;
        let length = length + last.len() as u64;
        let cut_from = (length > self.hold as u64).then_some(length);
        Some(Element {
            text: match cut_from {
                Some(_) => &text[..text.len().min(HEAD_BYTES)],
                None => trim_end(text),
            },
            start: begun.start,
            cut_from,
            is_body: begun.is_body,
        })
    }

    /// Follows the body from the byte at `at` on. The index to go on from, and what was found before it.
    fn step(&mut self, bytes: &[u8], at: usize) -> Result<(usize, Found), Fault> {
        let next = Ok((at + 1, Found::Nothing));
        let byte = bytes[at];
        match self.place {
            Place::Key => return Ok((self.follow_key(bytes, at), Found::Nothing)),
            Place::Ignored | Place::Element => return self.follow_value(bytes, at),
            Place::Start(mark) => return self.start(bytes, at, mark),
            _ if json::is_blank(byte) => return Ok((behind_blanks(bytes, at), Found::Nothing)),
            Place::Value if self.is_list_key() => return self.list(byte, at),
            Place::FirstKey | Place::NextKey if byte == b'"' => {
                self.key.clear();
                self.in_string = true;
                self.place = Place::Key;
            }
            Place::FirstKey if byte == b'}' => return self.end_of_object(at),
            Place::NextKey if byte == b'}' => return Err(self.syntax(at, "trailing comma")),
            Place::FirstKey | Place::NextKey => return Err(self.syntax(at, "key must be a string")),
            Place::Colon if byte == b':' => self.place = Place::Value,
            Place::Colon => return Err(self.syntax(at, "expected `:`")),
            Place::FirstElement if byte == b']' => self.end_of_list(),
            Place::NextElement if byte == b']' => return Err(self.syntax(at, "trailing comma")),
            Place::Value | Place::FirstElement | Place::NextElement if matches!(byte, b',' | b']' | b'}') => {
                return Err(self.syntax(at, "expected value"));
            }
            Place::Value => {
                self.place = Place::Ignored;
                return Ok((at, Found::Nothing));
            }
            Place::FirstElement | Place::NextElement => {
                self.place = Place::Element;
                return Ok((at, Found::Begin));
            }
            Place::AfterList if byte == b',' => self.place = Place::NextKey,
            Place::AfterList if byte == b'}' => return self.end_of_object(at),
            Place::AfterList => return Err(self.syntax(at, "expected `,` or `}`")),
            Place::End => return Err(self.syntax(at, "trailing characters")),
        }
        next
    }

    fn start(&mut self, bytes: &[u8], at: usize, mark: u8) -> Result<(usize, Found), Fault> {
        let byte = bytes[at];
        let is_first = self.passed + at as u64 == u64::from(mark);
        if is_first && BYTE_ORDER_MARK.get(usize::from(mark)) == Some(&byte) {
            self.place = Place::Start(mark + 1);
            return Ok((at + 1, Found::Nothing));
        }
        let is_whole = matches!(mark, 0 | 3);
        match byte {
            _ if is_whole && json::is_blank(byte) => Ok((behind_blanks(bytes, at), Found::Nothing)),
            b'{' if is_whole => {
                self.place = Place::FirstKey;
                self.in_object = true;
                let found = match self.form {
                    Form::Batch => Found::Nothing,
                    // Until the key of a list is seen, it may be one event.
                    Form::Any => Found::Begin,
                };
                Ok((at + 1, found))
            }
            b'[' if is_whole && self.form == Form::Any => {
                self.place = Place::FirstElement;
                Ok((at + 1, Found::Nothing))
            }
            _ => Err(self.fault(at, FaultKind::WrongShape)),
        }
    }

    /// The value of the list's key.
    fn list(&mut self, byte: u8, at: usize) -> Result<(usize, Found), Fault> {
        if byte != b'[' {
            return Err(self.fault(at, FaultKind::NotAList));
        }
        self.has_list = true;
        self.place = Place::FirstElement;
        Ok((at + 1, Found::Discard))
    }

    fn end_of_list(&mut self) {
        self.place = if self.in_object {
            Place::AfterList
        } else {
            Place::End
        };
    }

    /// The outermost object ends with the brace at `at`.
    fn end_of_object(&mut self, at: usize) -> Result<(usize, Found), Fault> {
        self.place = Place::End;
        match (self.has_list, self.form) {
            (true, _) => Ok((at + 1, Found::Nothing)),
            (false, Form::Any) => Ok((at + 1, Found::End(at + 1))),
            (false, Form::Batch) => Err(self.fault(at, FaultKind::NoList)),
        }
    }

    fn follow_key(&mut self, bytes: &[u8], at: usize) -> usize {
        let end = self.end_of_string(bytes, at);
        let content = &bytes[at..end.map_or(bytes.len(), |end| end - 1)];
        // One byte too many is kept, so that a longer key is not taken for what it begins with.
        let free = (MOST_KEY_BYTES + 1).saturating_sub(self.key.len());
        self.key.extend_from_slice(&content[..content.len().min(free)]);
        if end.is_some() {
            self.place = Place::Colon;
        }
        end.unwrap_or(bytes.len())
    }

    fn is_list_key(&self) -> bool {
        if !self.key.contains(&b'\\') {
            return self.key == BATCH_KEY.as_bytes();
        }
        let token = [b"\"", self.key.as_slice(), b"\""].concat();
        serde_json::from_slice::<String>(&token).is_ok_and(|key| key == BATCH_KEY)
    }

    fn follow_value(&mut self, bytes: &[u8], at: usize) -> Result<(usize, Found), Fault> {
        let Some(end) = self.end_of_value(bytes, at) else {
            return Ok((bytes.len(), Found::Nothing));
        };
        let is_element = self.place == Place::Element;
        match (bytes[end], is_element) {
            (b',', true) => self.place = Place::NextElement,
            (b']', true) => self.end_of_list(),
            (_, true) => return Err(self.syntax(end, "expected `,` or `]`")),
            (b',', false) => self.place = Place::NextKey,
            (b'}', false) => return self.end_of_object(end),
            (_, false) => return Err(self.syntax(end, "expected `,` or `}`")),
        }
        let found = if is_element {
            Found::End(end)
        } else {
            Found::Nothing
        };
        Ok((end + 1, found))
    }

    /// The index of the comma or bracket that ends the current value; `None` if the piece ends before.
    fn end_of_value(&mut self, bytes: &[u8], mut at: usize) -> Option<usize> {
        loop {
            if self.in_string {
                at = self.end_of_string(bytes, at)?;
            }
            let rest = bytes.get(at..)?;
            at += rest.iter().position(|byte| IS_STRUCTURAL[usize::from(*byte)])?;
            match bytes[at] {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                _ if self.depth == 0 => return Some(at),
                b'}' | b']' => self.depth -= 1,
                _ => {}
            }
            at += 1;
        }
    }

    /// The index behind the closing quote of the string that `at` stands in; `None` if the piece ends before.
    fn end_of_string(&mut self, bytes: &[u8], mut at: usize) -> Option<usize> {
        if self.escaped && at < bytes.len() {
            self.escaped = false;
            at += 1;
        }
        while let Some(found) = memchr2(b'"', b'\\', bytes.get(at..)?) {
            at += found;
            if bytes[at] == b'"' {
                self.in_string = false;
                return Some(at + 1);
            }
            self.escaped = at + 1 == bytes.len();
            at += 2;
        }
        None
    }

    fn fault(&self, at: usize, kind: FaultKind) -> Fault {
        Fault {
            byte: self.passed + at as u64,
            kind,
        }
    }

    fn syntax(&self, at: usize, what: &'static str) -> Fault {
        self.fault(at, FaultKind::Syntax(what))
    }
}

/// The index of the first byte from `at` on that is not blank. Blanks may be many, and are passed over at once.
fn behind_blanks(bytes: &[u8], at: usize) -> usize {
    bytes.len() - json::trim_start(&bytes[at..]).len()
}

/// Which bytes outside of strings tell where a value ends.
const IS_STRUCTURAL: [bool; 256] = {
    let mut table = [false; 256];
    let structural = b"\"{}[],";
    let mut n = 0;
    while n < structural.len() {
        table[structural[n] as usize] = true;
        n += 1;
    }
    table
};

#[cfg(test)]
mod tests;
