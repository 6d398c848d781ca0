//! Quotes and blanks around a value that a file of variables, a shell or a copy left there.

use std::fmt;

/// What stands around a value and is no part of it. Holds no text of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// A quotation mark at one of its ends.
    Quotes,
    /// A blank or another character without width at one of its ends.
    Blanks,
}

impl Padding {
    /// What stands around a text; `None` if nothing does.
    pub fn of(text: &str) -> Option<Self> {
        let ends = || text.chars().next().into_iter().chain(text.chars().next_back());
        if ends().any(is_blank) {
            return Some(Padding::Blanks);
        }
        ends().any(is_quote).then_some(Padding::Quotes)
    }
}

impl fmt::Display for Padding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Padding::Quotes => "quotation marks",
            Padding::Blanks => "blanks",
        })
    }
}

/// Also what text editors put in the place of `"` and `'`.
fn is_quote(c: char) -> bool {
    matches!(
        c,
        '"' | '\'' | '`' | '\u{ab}' | '\u{bb}' | '\u{2018}'..='\u{201f}'
    )
}

/// Also the zero width space and the byte order mark, which nobody sees.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{200b}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_ends_of_a_text_count() {
        for text in ["\"a\"", "'a'", "\"a", "a\"", "`a`", "“a”", "«a»", "\""] {
            assert_eq!(Padding::of(text), Some(Padding::Quotes), "{text:?}");
        }
        for text in [
            " a",
            "a ",
            "a\t",
            "\r\n",
            "\u{a0}a",
            "a\u{200b}",
            "\u{feff}a",
            "\"a\" ",
        ] {
            assert_eq!(Padding::of(text), Some(Padding::Blanks), "{text:?}");
        }
        for text in ["", "a", "a b", "a\"b", "it's", "ü"] {
            assert_eq!(Padding::of(text), None, "{text:?}");
        }
    }
}
