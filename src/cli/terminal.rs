//! The one way of the commands to standard output and standard error. What stands in events, and what others say, cannot
//! move the cursor of a terminal, turn its text, or hide in it.
use crate::visible;
use std::borrow::Cow;
use std::io::{IsTerminal, Write};

/// Prints a text for people, of one or several lines. A reader that closed its pipe has seen enough.
pub(super) fn print(text: &str) {
    let _ = std::io::stdout().write_all(visible::lines(text).as_bytes());
}

/// Prints JSON for programs: byte for byte, unless it goes to a terminal, which shows the same JSON with escapes.
pub(super) fn print_json(text: &[u8]) {
    let _ = std::io::stdout().write_all(&json_for(std::io::stdout().is_terminal(), text));
}

/// JSON as it is written to a terminal, or to anything else.
pub(super) fn json_for(terminal: bool, text: &[u8]) -> Cow<'_, [u8]> {
    match (terminal, String::from_utf8_lossy(text)) {
        (false, _) => Cow::Borrowed(text),
        (true, text) => Cow::Owned(visible::json(&text).into_owned().into_bytes()),
    }
}

/// Writes a line, or several, to stderr. Where nobody can read it, the exit code still says how it went; `eprintln` would
/// panic.
pub(super) fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", visible::lines(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_altered_for_a_terminal_alone_and_means_the_same() {
        let json = "{\"a\":\"\u{202e}\u{9b}\"}\n".as_bytes();
        assert_eq!(json_for(false, json), json);
        assert_eq!(json_for(true, json).as_ref(), b"{\"a\":\"\\u202e\\u009b\"}\n");
        assert_eq!(json_for(false, b"\xff").as_ref(), b"\xff");
        assert_eq!(json_for(true, b"\xff\x1b").as_ref(), "\u{fffd}\\u001b".as_bytes());
    }
}
