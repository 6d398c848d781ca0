//! The quotes of a text in which JSON may stand within strings of JSON: which one closes a value,
//! and which one closes the string around it.
use super::nested::Escapes;
use super::steps;
use super::text::PieceText;
use memchr::{memchr2, memchr3};
use std::ops::Range;

/// Most depths that are told apart.
const DEPTHS: usize = 12;

/// Most blanks behind a closing quote that are passed over.
const MOST_BLANKS: usize = 64;

/// Finds closing quotes. How deep a quote is, is known by the backslashes before it.
pub(super) struct Quotes<'s> {
    /// The text with its escapes read.
    text: &'s str,
    /// The text before that.
    source: &'s str,
    cursor: Cursor<'s>,
    /// Up to where the strings are known that are open.
    known: usize,
    /// The depths of these strings.
    open: [bool; DEPTHS],
}

/// What a quote before a value does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quoted {
    /// It opens the value, and the one at that place closes it.
    To(usize),
    /// It opens the value, which nothing closes.
    CutOff,
    /// It closes the string around the name: there is no value.
    Nothing,
}

impl<'s> Quotes<'s> {
    pub(super) fn of(text: &'s str, source: &'s str) -> Self {
        Self {
            text,
            source,
            cursor: Cursor::of(source),
            known: 0,
            open: [false; DEPTHS],
        }
    }

    /// What the quote at `at` does. Places come in rising order.
    pub(super) fn look(&mut self, at: usize) -> Quoted {
        let Some(quote) = self.text.as_bytes().get(at).copied() else {
            return Quoted::Nothing;
        };
        self.know(at);
        self.cursor.go_to(at);
        let depth = self.cursor.depth(self.source);
        if quote == b'"' && self.closed(depth).is_some() && self.ends_string(at) {
            return Quoted::Nothing;
        }
        match self.closing(quote, at, depth) {
            Some(end) => Quoted::To(end),
            None => Quoted::CutOff,
        }
    }

    /// Follows the strings up to a place.
    fn know(&mut self, place: usize) {
        let bytes = self.text.as_bytes();
        let part = |known: usize| bytes.get(known..place).unwrap_or_default();
        while let Some(found) = memchr2(b'"', b'\n', part(self.known)) {
            let at = self.known + found;
            steps::add(found + 1);
            self.cursor.go_to(at);
            self.known = at + 1;
            if bytes[at] == b'"' {
                let depth = self.cursor.depth(self.source);
                match self.closed(depth) {
                    Some(depth) => self.open[depth..].fill(false),
                    None => {
                        if let Some(depth) = depth {
                            self.open[depth] = true;
                        }
                    }
                }
            } else if self.cursor.is_plain {
                // No string of JSON has a line break that is not escaped.
                self.open = [false; DEPTHS];
            }
        }
        self.known = self.known.max(place);
    }

    /// The depth of the open string that such a quote closes.
    fn closed(&self, quote: Option<usize>) -> Option<usize> {
        let quote = quote?;
        let mut depths = self.open.iter().enumerate();
        depths.position(|(depth, is_open)| *is_open && quote <= depth)
    }

    /// Whether the quote at `at` stands before what follows a string in JSON.
    fn ends_string(&self, at: usize) -> bool {
        let rest = self.text.as_bytes().get(at + 1..).unwrap_or_default();
        let mut rest = rest
            .iter()
            .take(MOST_BLANKS)
            .skip_while(|byte| byte.is_ascii_whitespace());
        matches!(rest.next(), None | Some(b',' | b'}' | b']' | b':' | b'"'))
    }

    /// The place of what closes the quote at `at`, on the same line: another such, or one that
    /// closes the string around it. If nothing does, the next quote is deeper: so no part of a text
    /// is looked through more often than there are depths.
    fn closing(&self, quote: u8, at: usize, depth: Option<usize>) -> Option<usize> {
        let bytes = self.text.as_bytes();
        let mut ahead = self.cursor.clone();
        let mut from = at + 1;
        while let Some(found) = memchr3(quote, b'"', b'\n', bytes.get(from..)?) {
            let at = from + found;
            steps::add(found + 1);
            ahead.go_to(at);
            let other = ahead.depth(self.source);
            // One of a string around it closes it too.
            let closes = other.is_some() == depth.is_some() && other <= depth;
            match bytes[at] {
                b'\n' if ahead.is_plain => return None,
                b'\n' => {}
                found if found == quote && closes => return Some(at),
                b'"' if self.closed(other).is_some() && self.ends_string(at) => return Some(at),
                _ => {}
            }
            from = at + 1;
        }
        None
    }
}

/// The piece of the source that a place of the text comes from.
#[derive(Clone)]
struct Cursor<'s> {
    pieces: Escapes<'s>,
    /// Where it stands in the source.
    piece: Range<usize>,
    /// Where it ends in the text.
    end: usize,
    is_plain: bool,
}

impl<'s> Cursor<'s> {
    fn of(source: &'s str) -> Self {
        Self {
            pieces: Escapes::of(source),
            piece: 0..0,
            end: 0,
            is_plain: true,
        }
    }

    fn go_to(&mut self, place: usize) {
        while self.end <= place {
            let Some(piece) = self.pieces.next() else { return };
            self.piece = piece.at..self.pieces.at();
            self.end += piece.text.len();
            self.is_plain = matches!(piece.text, PieceText::Plain(_));
        }
    }

    /// How often the quote of the piece has to be decoded to open or close a string. `None` if it
    /// is none of JSON.
    fn depth(&self, source: &str) -> Option<usize> {
        let written = source.get(self.piece.clone()).unwrap_or_default();
        if self.is_plain {
            return Some(0);
        }
        if !written.starts_with('\\') || written.ends_with("x22") || written.ends_with("x27") {
            return None;
        }
        Some(depth(written).min(DEPTHS - 1))
    }
}

/// How often a quote behind a run of backslashes has to be decoded until none escapes it.
fn depth(written: &str) -> usize {
    if written.contains("u005") {
        return depth_by_decoding(written);
    }
    let run = written.bytes().take_while(|byte| *byte == b'\\').count();
    // Decoding halves a run; what is left over of it escapes what stands behind.
    let pairs = match written.as_bytes().get(run) {
        Some(b'u') => {
            let halved = run.trailing_zeros();
            return (halved + 1 + (run >> halved >> 1).trailing_ones()) as usize;
        }
        _ => run.trailing_ones(),
    };
    pairs as usize
}

/// The same where backslashes are coded too.
fn depth_by_decoding(written: &str) -> usize {
    let mut current = written.to_owned();
    for depth in 0..DEPTHS {
        let mut decoded = String::new();
        let mut rest = current.as_str();
        while let Some(c) = rest.chars().next() {
            let escaped = rest.get(1..2).filter(|_| c == '\\');
            let (c, length) = match escaped {
                None if matches!(c, '"' | '\'' | '`') => return depth,
                None => (c, c.len_utf8()),
                Some("u") => match rest.get(2..6).and_then(|code| u32::from_str_radix(code, 16).ok()) {
                    Some(code) => (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 6),
                    None => (c, 1),
                },
                Some(escaped) => (escaped.chars().next().unwrap_or(c), 2),
            };
            decoded.push(c);
            rest = &rest[length..];
        }
        current = decoded;
    }
    DEPTHS - 1
}

#[cfg(test)]
mod tests {
    use super::super::nested::resolve;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// What the quote does that stands behind the mark `=` of the source.
    fn look(source: &str) -> Quoted {
        let text = resolve(source).unwrap_or_else(|| source.to_owned());
        let at = text.find('=').expect("it has a mark") + 1;
        Quotes::of(&text, source).look(at)
    }

    #[test]
    fn a_quote_is_closed_by_one_of_its_depth_or_of_the_string_around_it() {
        for (source, quoted) in [
            (r#"="ab" c"#, Quoted::To(4)),
            (r#"="a\"b" c"#, Quoted::To(5)),
            (r#"="a\\"b" c"#, Quoted::To(3)),
            (r#"="a\\\"b" c"#, Quoted::To(5)),
            (r#"=\"a\\\"b\" c"#, Quoted::To(5)),
            (r#"=\u0022a\\u0022b\u0022 c"#, Quoted::To(5)),
            (r#"="a'b" c"#, Quoted::To(5)),
            (r#"='a"b' c"#, Quoted::To(5)),
            (r#"{"k":"='a","l":"b'"}"#, Quoted::To(9)),
            (r#"{"k":"=\"a"}"#, Quoted::To(9)),
            ("=%22ab%22 c", Quoted::To(4)),
            (r#"{"k":"%22=%22a","l":"%22"}"#, Quoted::To(10)),
            (r#"="ab"#, Quoted::CutOff),
            ("=\"a\n\"", Quoted::CutOff),
            (r#"="a\n""#, Quoted::To(4)),
            (r#"{"k":"=","l":"b"}"#, Quoted::Nothing),
            (r#"{"k":"{\"a\":\"=\",\"b\":1}"}"#, Quoted::Nothing),
            (r#"a 5" screen ="ab" c"#, Quoted::To(16)),
        ] {
            assert_eq!(look(source), quoted, "{source}");
        }
    }

    #[test]
    fn a_quote_is_as_deep_as_it_has_to_be_decoded() {
        for (written, deep) in [
            (r#"\""#, 1),
            (r#"\\""#, 0),
            (r#"\\\""#, 2),
            (r#"\\\\\""#, 1),
            (r"\u0022", 1),
            (r"\\u0022", 2),
            (r"\\\u0022", 2),
            (r#"\u005c""#, 0),
            (r#"\\u005c""#, 0),
            (r"\u005cu0022", 2),
            (r#"\u005c\u0022"#, 2),
        ] {
            assert_eq!(depth(written), deep, "{written}");
        }
    }

    proptest! {
        #[test]
        fn it_is_one_deeper_with_each_encoding(text in r#"(\\{0,9}|(\\u005[cC]){1,2})["']"#, is_coded: bool) {
            let text = if is_coded { text.replace('"', r"\u0022") } else { text };
            prop_assert_eq!(depth(&text).min(DEPTHS - 1), depth_by_decoding(&text));
            let encoded = json!(text).to_string();
            let encoded = &encoded[1..encoded.len() - 1];
            if text.ends_with('"') {
                prop_assert_eq!(depth(encoded), depth(&text) + 1, "{}", text);
            }
        }
    }
}
