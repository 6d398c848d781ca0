//! A text with the escapes in it read, however deeply they are nested.
//!
//! The arguments of a tool call are JSON within a string of JSON, so a line break in them is a
//! backslash and an `n`, or several backslashes. To a detector, the `n` then looks like a part of
//! the word behind it. Here, a run of backslashes with what it escapes is one character, at any
//! depth, and so are a percent-coded byte and a colour code of a terminal.
use super::steps;
use super::text::{Piece, PieceText, located};
use memchr::memchr3;
use std::ops::Range;

/// The beginning of a colour code.
const ESCAPE: char = '\u{1b}';

/// Most parameters of a colour code, in bytes.
const MOST_PARAMETERS: usize = 32;

/// What a text consists of: rows of plain characters, and escapes.
#[derive(Clone)]
pub(super) struct Escapes<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Escapes<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    /// Where the next piece begins.
    pub(super) fn at(&self) -> usize {
        self.at
    }
}

impl<'t> Iterator for Escapes<'t> {
    type Item = Piece<'t>;

    fn next(&mut self) -> Option<Piece<'t>> {
        let (at, rest) = (self.at, self.text.get(self.at..)?);
        if rest.is_empty() {
            return None;
        }
        let text = match memchr3(b'\\', b'%', ESCAPE as u8, rest.as_bytes()) {
            Some(0) => match read(rest) {
                Ok((c, length)) => {
                    self.at += length;
                    PieceText::Escaped(c)
                }
                Err(length) => {
                    self.at += length;
                    PieceText::Plain(&rest[..length])
                }
            },
            found => {
                let plain = found.map_or(rest, |end| &rest[..end]);
                self.at += plain.len();
                PieceText::Plain(plain)
            }
        };
        steps::add(self.at - at);
        Some(Piece { at, text })
    }
}

/// The character that `rest` begins with in the form of an escape, and the bytes of that. `Err`
/// has the bytes of what begins like one and is none.
fn read(rest: &str) -> Result<(char, usize), usize> {
    let (c, length) = match rest.as_bytes().first() {
        Some(b'%') => percent_coded(rest).ok_or(1_usize)?,
        Some(b'\\') => {
            let run = backslashes(rest);
            let (c, length) = escaped(&rest[run..], run).ok_or(run)?;
            (c, run + length)
        }
        _ => (ESCAPE, 1),
    };
    let behind = rest.get(length..).unwrap_or_default();
    match c == ESCAPE {
        true => Ok((c, length + colour(behind))),
        false => Ok((c, length)),
    }
}

/// The bytes of the backslashes at the beginning, those that are written `\u005c` among them.
fn backslashes(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut length = 0;
    loop {
        match bytes.get(length..).unwrap_or_default() {
            [b'\\', ..] => length += 1,
            [b'u', b'0', b'0', b'5', b'c' | b'C', ..] => length += 5,
            _ => return length,
        }
    }
}

/// What stands behind a run of backslashes: the character that they escape, and its bytes.
fn escaped(rest: &str, run: usize) -> Option<(char, usize)> {
    let bytes = rest.as_bytes();
    let c = match bytes.first()? {
        b'n' => '\n',
        b't' => '\t',
        b'r' => '\r',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'u' => return unit(rest, run),
        b'U' => return hex(rest, 1, 8).map(|value| (from_code(value), 9)),
        b'x' => return hex(rest, 1, 2).map(|value| (from_code(value), 3)),
        b'e' if bytes.get(1) == Some(&b'[') => ESCAPE,
        b'0' if rest.starts_with("033[") => return Some((ESCAPE, 3)),
        // Of JSON, and what other languages, Markdown and LaTeX escape.
        byte if byte.is_ascii_punctuation() => char::from(*byte),
        _ => return None,
    };
    Some((c, 1))
}

/// The character of a UTF-16 unit, or of a pair with as many backslashes before the second.
fn unit(rest: &str, run: usize) -> Option<(char, usize)> {
    let high = hex(rest, 1, 4)?;
    if (0xd800..=0xdbff).contains(&high) {
        let second = rest.get(5..)?;
        let again = second.bytes().take(run).take_while(|byte| *byte == b'\\').count();
        let low = (again > 0 && second.as_bytes().get(again) == Some(&b'u'))
            .then(|| hex(second, again + 1, 4))
            .flatten();
        if let Some(low @ 0xdc00..=0xdfff) = low {
            let joined = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
            return Some((from_code(joined), 5 + again + 5));
        }
    }
    Some((from_code(high), 5))
}

/// The byte that is written `%2B`, or `%252B`, or the UTF-8 character that several are.
fn percent_coded(rest: &str) -> Option<(char, usize)> {
    let (first, mut length) = percent_byte(rest)?;
    let more = match first {
        0..=0x7f => return Some((char::from(first), length)),
        0xc0..=0xdf => 1,
        0xe0..=0xef => 2,
        0xf0..=0xf7 => 3,
        _ => return Some((char::REPLACEMENT_CHARACTER, length)),
    };
    let mut bytes = [first, 0, 0, 0];
    for place in &mut bytes[1..=more] {
        let Some((byte, further)) = rest.get(length..).and_then(percent_byte) else {
            return Some((char::REPLACEMENT_CHARACTER, percent_byte(rest)?.1));
        };
        *place = byte;
        length += further;
    }
    let c = std::str::from_utf8(&bytes[..=more])
        .ok()
        .and_then(|text| text.chars().next());
    Some((c.unwrap_or(char::REPLACEMENT_CHARACTER), length))
}

/// One byte, with its length as it is written. `%25` is a percent sign, which begins another.
fn percent_byte(rest: &str) -> Option<(u8, usize)> {
    let mut digits = 1;
    let value = |at| hex(rest, at, 2).filter(|_| rest.starts_with('%'));
    while rest.get(digits..digits + 2) == Some("25") && value(digits + 2).is_some() {
        digits += 2;
    }
    let byte = u8::try_from(value(digits)?).ok()?;
    Some((byte, digits + 2))
}

/// The bytes of a colour code behind its first character.
fn colour(rest: &str) -> usize {
    let Some(parameters) = rest.strip_prefix('[') else {
        return 0;
    };
    let is_parameter = |byte: &u8| matches!(byte, b'0'..=b'?');
    let count = parameters
        .bytes()
        .take(MOST_PARAMETERS)
        .take_while(is_parameter)
        .count();
    match parameters.as_bytes().get(count) {
        Some(letter) if letter.is_ascii_alphabetic() => count + 2,
        _ => 0,
    }
}

/// The value of so many hexadecimal digits.
fn hex(text: &str, at: usize, count: usize) -> Option<u32> {
    let digits = text.get(at..at + count)?;
    let are_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    are_hex.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

fn from_code(code: u32) -> char {
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The text with its escapes read; `None` if it has none.
pub(super) fn resolve(text: &str) -> Option<String> {
    let is_escaped = |piece: &Piece<'_>| matches!(piece.text, PieceText::Escaped(_));
    let first = Escapes::of(text).find(is_escaped)?;
    let mut resolved = String::with_capacity(text.len());
    resolved.push_str(&text[..first.at]);
    for piece in (Escapes { text, at: first.at }) {
        match piece.text {
            PieceText::Plain(plain) => resolved.push_str(plain),
            PieceText::Escaped(c) => resolved.push(c),
        }
    }
    Some(resolved)
}

/// Where places of the resolved text stand in the text; they are in rising order.
pub(super) fn origins(text: &str, places: &[usize]) -> Vec<usize> {
    located(Escapes::of(text), places, text.len())
}

/// For each place of the text, in rising order: the escape that it stands amid, if it does.
pub(super) fn amid(text: &str, places: &[usize]) -> Vec<Option<Range<usize>>> {
    let mut found = Vec::with_capacity(places.len());
    let mut wanted = places.iter().copied().peekable();
    let mut pieces = Escapes::of(text);
    while let Some(piece) = pieces.next() {
        let end = pieces.at();
        while let Some(place) = wanted.next_if(|place| *place < end) {
            let is_amid = place > piece.at && matches!(piece.text, PieceText::Escaped(_));
            found.push(is_amid.then_some(piece.at..end));
        }
        if wanted.peek().is_none() {
            break;
        }
    }
    found.extend(wanted.map(|_| None));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_escape_of_any_depth_is_one_character() {
        for (text, resolved) in [
            (r"a\nb", "a\nb"),
            (r"a\\nb\\\\tc", "a\nb\tc"),
            (r#"{\"a\":\\\"b\\\\\\\"}"#, r#"{"a":"b"}"#),
            (r"\u000a\\u000A4\u005cn5", "\n\n4\n5"),
            (r"\\u0022x\\\u00e9", "\"xé"),
            (r"\ud83d\ude00 \\ud83d\\ude00 \ud83d!", "😀 😀 \u{fffd}!"),
            (r"https:\/\/a\_b\@c", "https://a_b@c"),
            (r"\x0a\U0001f600", "\n😀"),
            (r"\u001b[\n4", "\u{1b}[\n4"),
            ("%0A%2B33%252B%C3%A9%C3!%ff", "\n+33+é\u{fffd}!\u{fffd}"),
            (
                "\u{1b}[1;31m7\\u001b[0m8\\x1b[K9\\e[m1\\033[2J2",
                "\u{1b}7\u{1b}8\u{1b}9\u{1b}1\u{1b}2",
            ),
        ] {
            assert_eq!(resolve(text).as_deref(), Some(resolved), "{text}");
        }
        for text in [
            "",
            "plain é",
            r"C:\Users\d",
            "100% of",
            r"\",
            "%",
            "%2",
            "%x0",
            r"\\",
            r"\x",
            r"\u12",
        ] {
            assert_eq!(resolve(text), None, "{text}");
        }
    }

    #[test]
    fn a_place_amid_an_escape_is_told() {
        let text = r"a\\nb%41c";
        assert_eq!(
            amid(text, &[0, 1, 2, 3, 4, 5, 6, 8, 9]),
            [
                None,
                None,
                Some(1..4),
                Some(1..4),
                None,
                None,
                Some(5..8),
                None,
                None
            ]
        );
        assert_eq!(origins(text, &[0, 1, 2, 3, 4, 5]), [0, 1, 4, 5, 8, 9]);
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_text_and_what_is_cut_between_them_reads_as_the_parts(
            text in r#"([a-c5é"%u\[]|\\|\\n|u005c|u0022|25|0A|\\ud83d|\\ude00|\x1b){0,24}"#,
            cut: prop::sample::Index,
        ) {
            let mut pieces = Escapes::of(&text);
            let mut ends = vec![0];
            while let Some(piece) = pieces.next() {
                prop_assert_eq!(Some(&piece.at), ends.last());
                prop_assert!(pieces.at() > piece.at);
                ends.push(pieces.at());
            }
            prop_assert_eq!(ends.last(), Some(&text.len()));
            let resolved = resolve(&text).unwrap_or_else(|| text.clone());
            let places: Vec<usize> = resolved.char_indices().map(|(at, _)| at).collect();
            let origins = origins(&text, &places);
            prop_assert!(origins.is_sorted());
            prop_assert!(amid(&text, &origins).iter().all(Option::is_none));
            if !places.is_empty() {
                let nth = cut.index(places.len());
                let before = &text[..origins[nth]];
                prop_assert_eq!(resolve(before).unwrap_or_else(|| before.into()), &resolved[..places[nth]]);
            }
        }
    }
}
