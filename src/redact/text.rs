//! The content of a JSON string: its text, and the way back from a place in that to the bytes as they were written.
use std::borrow::Cow;

/// What a string consists of: rows of plain characters, and escapes of one character each.
struct Pieces<'t> {
    raw: &'t str,
    at: usize,
}

/// A part of a text that holds escapes.
pub(super) struct Piece<'t> {
    /// Where it stands as it was written.
    pub(super) at: usize,
    /// What it stands for.
    pub(super) text: PieceText<'t>,
}

/// What a [`Piece`] stands for.
#[derive(Clone, Copy)]
pub(super) enum PieceText<'t> {
    /// Itself.
    Plain(&'t str),
    /// One character, which an escape stands for.
    Escaped(char),
}

impl PieceText<'_> {
    /// Bytes of what it stands for.
    pub(super) fn len(&self) -> usize {
        match self {
            PieceText::Plain(plain) => plain.len(),
            PieceText::Escaped(c) => c.len_utf8(),
        }
    }
}

impl<'t> Iterator for Pieces<'t> {
    type Item = Piece<'t>;

    fn next(&mut self) -> Option<Piece<'t>> {
        let (at, rest) = (self.at, self.raw.get(self.at..)?);
        let text = match rest.find('\\') {
            _ if rest.is_empty() => return None,
            Some(0) => {
                let (c, length) = escape(rest);
                self.at += length;
                PieceText::Escaped(c)
            }
            found => {
                let plain = found.map_or(rest, |end| &rest[..end]);
                self.at += plain.len();
                PieceText::Plain(plain)
            }
        };
        Some(Piece { at, text })
    }
}

/// The character of the escape that `rest` begins with, and how many bytes it takes. Half a surrogate pair stands for
/// U+FFFD, and what is no escape for its backslash.
fn escape(rest: &str) -> (char, usize) {
    let simple = |c| (c, 2);
    match rest.as_bytes().get(1) {
        Some(b'n') => simple('\n'),
        Some(b't') => simple('\t'),
        Some(b'r') => simple('\r'),
        Some(b'b') => simple('\u{8}'),
        Some(b'f') => simple('\u{c}'),
        Some(byte @ (b'"' | b'\\' | b'/')) => simple(char::from(*byte)),
        Some(b'u') => match (unit(rest, 0), unit(rest, 6)) {
            (Some(high @ 0xd800..=0xdbff), Some(low @ 0xdc00..=0xdfff)) => {
                let joined = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                (char::from_u32(joined).unwrap_or(char::REPLACEMENT_CHARACTER), 12)
            }
            (Some(unit), _) => (char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER), 6),
            (None, _) => ('\\', 1),
        },
        _ => ('\\', 1),
    }
}

/// The UTF-16 unit of the `\u` escape at `at`.
fn unit(rest: &str, at: usize) -> Option<u32> {
    let digits = rest.get(at..at + 6)?.strip_prefix("\\u")?;
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

/// The text of a string, from what stands between its quotes.
pub(super) fn decode(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    let mut text = String::with_capacity(raw.len());
    for piece in (Pieces { raw, at: 0 }) {
        match piece.text {
            PieceText::Plain(plain) => text.push_str(plain),
            PieceText::Escaped(c) => text.push(c),
        }
    }
    Cow::Owned(text)
}

/// Where places of the decoded text stand in what was written. Both are in rising order; each place begins a character, or is the end.
pub(super) fn written(raw: &str, places: &[usize]) -> Vec<usize> {
    if !raw.contains('\\') {
        return places.to_vec();
    }
    located(Pieces { raw, at: 0 }, places, raw.len())
}

/// The same for any pieces, which end at `length`.
pub(super) fn located<'t>(
    pieces: impl Iterator<Item = Piece<'t>>,
    places: &[usize],
    length: usize,
) -> Vec<usize> {
    let mut found = Vec::with_capacity(places.len());
    let mut wanted = places.iter().copied().peekable();
    let mut decoded = 0;
    for piece in pieces {
        let end = decoded + piece.text.len();
        while let Some(place) = wanted.next_if(|place| *place < end) {
            found.push(piece.at + (place - decoded));
        }
        decoded = end;
    }
    found.extend(wanted.map(|_| length));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_are_read_and_what_is_none_stays_as_it_is() {
        assert_eq!(decode(r#"a\n\t\"\\\/\u0041\u00e9"#), "a\n\t\"\\/Aé");
        assert_eq!(decode(r"\ud83d\ude00!"), "😀!");
        assert_eq!(decode(r"\ud83d!\udc00"), "\u{fffd}!\u{fffd}");
        assert_eq!(decode(r"\x \u12 \"), r"\x \u12 \");
        assert!(matches!(decode("plain é"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_place_in_the_text_is_found_in_what_was_written() {
        let raw = r"a\n\u0062c\ud83d\ude00d";
        let text = decode(raw);
        assert_eq!(text, "a\nbc😀d");
        let places: Vec<usize> = text
            .char_indices()
            .map(|(at, _)| at)
            .chain([text.len()])
            .collect();
        assert_eq!(written(raw, &places), [0, 1, 3, 9, 10, 22, 23]);
        assert_eq!(written("abc", &[1, 3]), [1, 3]);
    }

    proptest! {
        #[test]
        fn what_is_cut_where_it_was_written_decodes_to_the_parts(raw in r#"([a-zé]|\\n|\\u00e9|\\ud83d\\ude00|\\\\){0,20}"#, cut: prop::sample::Index) {
            let text = decode(&raw);
            let cuts: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            let at = cuts[cut.index(cuts.len())];
            let there = written(&raw, &[at])[0];
            prop_assert_eq!(decode(&raw[..there]).into_owned() + &decode(&raw[there..]), text.clone().into_owned());
            prop_assert_eq!(decode(&raw[..there]), &text[..at]);
        }
    }
}
