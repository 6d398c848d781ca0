//! What stands around a find: whether it is a thing of its own, or a piece of a longer token.

/// Whether nothing before `start` says that a number there is a part of something longer.
pub(super) fn is_free_before(text: &str, start: usize) -> bool {
    let mut before = text.get(..start).unwrap_or_default().chars().rev();
    let (last, but_one) = (before.next(), before.next());
    match last {
        None => true,
        Some(c) if is_word(c) => false,
        Some('-') => !but_one.is_some_and(is_word),
        Some('.' | '/' | ':') => !but_one.is_some_and(|c| c.is_ascii_digit()),
        Some(_) => true,
    }
}

/// Whether nothing after `end` says so.
pub(super) fn is_free_after(text: &str, end: usize) -> bool {
    let mut after = text.get(end..).unwrap_or_default().chars();
    let (first, second) = (after.next(), after.next());
    match first {
        None => true,
        Some(c) if is_word(c) => false,
        Some('-') => !second.is_some_and(is_word),
        Some('.' | '/' | ':') => !second.is_some_and(|c| c.is_ascii_digit()),
        Some(_) => true,
    }
}

/// Whether a character carries a token on.
pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_free_unless_it_goes_on() {
        for (before, after) in [
            ("", ""),
            ("tel:", "."),
            ("(", ")"),
            ("see ", ", "),
            ("x. ", "/me"),
            ("a,", "!"),
        ] {
            let text = format!("{before}12{after}");
            assert!(is_free_before(&text, before.len()), "{text}");
            assert!(is_free_after(&text, before.len() + 2), "{text}");
        }
        for before in ["a", "é", "_", "a-", "1.", "1/", "1:"] {
            assert!(!is_free_before(&format!("{before}12"), before.len()), "{before}");
        }
        for after in ["a", "é", "_", "-a", ".1", "/1", ":1"] {
            assert!(!is_free_after(&format!("12{after}"), 2), "{after}");
        }
    }
}
