//! Text that a terminal shows as it is: what would move its cursor, turn its direction or not be seen is escaped.

use std::borrow::Cow;

/// Whether a character is shown by its escape: C0, DEL and C1; what sets the direction of text (`Bidi_Control`); line and
/// paragraph separators; what is not seen (`Default_Ignorable_Code_Point`, tags and fillers among them).
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// A text on one line, with what is hidden escaped: `\n`, `\u{202e}`.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false, |c, out| out.extend(c.escape_default()))
}

/// The same for a text of several lines, which stay lines.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\n', |c, out| out.extend(c.escape_default()))
}

/// The same for JSON, which stays the same JSON: `\u202e`. Outside of its strings it has no such characters but blanks.
pub fn json(text: &str) -> Cow<'_, str> {
    let blank = |c| matches!(c, '\n' | '\r' | '\t');
    escaped(text, blank, |c, out| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    })
}

fn escaped(text: &str, keep: impl Fn(char) -> bool, escape: impl Fn(char, &mut String)) -> Cow<'_, str> {
    let hidden = |c: char| is_hidden(c) && !keep(c);
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match hidden(c) {
            true => escape(c, &mut out),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_terminal_would_obey_or_not_show_is_escaped() {
        for c in [
            '\0',
            '\n',
            '\u{1b}',
            '\u{7f}',
            '\u{9b}',
            '\u{ad}',
            '\u{61c}',
            '\u{180e}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{2028}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{206f}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{fff9}',
            '\u{e0001}',
            '\u{e0041}',
        ] {
            assert!(is_hidden(c), "{c:?}");
        }
        assert_eq!(line("a\u{202e}b\u{1b}[31m\nc"), "a\\u{202e}b\\u{1b}[31m\\nc");
        assert_eq!(lines("a\u{9b}\nb\r\n"), "a\\u{9b}\nb\\r\n");
        assert_eq!(
            json("{\"a\":\n\"\u{202e}\u{e0041}\"}"),
            "{\"a\":\n\"\\u202e\\udb40\\udc41\"}"
        );
        for plain in ["", "Grüße, 日本語 👩 – “x”", "a b"] {
            assert!(matches!(line(plain), Cow::Borrowed(_)), "{plain}");
        }
    }

    proptest! {
        #[test]
        fn nothing_hidden_is_left_and_json_means_the_same(text in any::<String>(), tail in "[\u{0}-\u{a0}\u{200b}-\u{206f}\u{e0000}-\u{e0fff}]{0,8}") {
            let text = text + &tail;
            prop_assert!(!line(&text).contains(is_hidden));
            prop_assert!(!lines(&text).replace('\n', "").contains(is_hidden));
            let written = serde_json::to_string(&text).expect("text");
            let shown = json(&written);
            prop_assert!(!shown.contains(is_hidden));
            prop_assert_eq!(serde_json::from_str::<String>(&shown).expect("JSON"), text);
        }
    }
}
