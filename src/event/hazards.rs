//! What the API can never store, wherever in an event it stands (contract.md section 1): it answers 500 to the whole batch for
//! some of it, and loses the whole batch after its 200 for the rest. Found in one pass, without recursion.

use memchr::memchr2;
use std::fmt;

/// Deepest nesting of lists and objects that is sent, the event's own braces included. The API takes 250 levels of a body,
/// of which the batch around an event takes two, and fails at 500.
pub(super) const MAX_DEPTH: usize = 200;

/// Digits, and the sign, of an integer that certainly fits into 64 bits.
const SURELY_NARROW: usize = 18;
/// Length of a number without an exponent that certainly is a double.
const SURELY_FINITE: usize = 300;

/// Something that the API can never store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hazard {
    /// Half of a surrogate pair in an escape, such as `"\ud83d"`, in a string or a key.
    Surrogate,
    /// Lists and objects in each other, over 200 deep.
    Depth,
    /// `\u0000` in a key.
    NulKey,
    /// An integer that does not fit into signed 64 bits.
    WideInteger,
    /// A number that no double can hold.
    BeyondDouble,
}

impl fmt::Display for Hazard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hazard::Surrogate => "holds half a surrogate pair (a \\ud83d without its \\ude00)",
            Hazard::Depth => "is nested over 200 deep",
            Hazard::NulKey => "has a key with a NUL character (\\u0000)",
            Hazard::WideInteger => "holds an integer beyond signed 64 bits",
            Hazard::BeyondDouble => "holds a number beyond a double's range, such as 1e400",
        })
    }
}

impl Hazard {
    /// What to do about it.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Hazard::Surrogate => "send whole characters",
            Hazard::Depth => "send it flatter, or as a string",
            Hazard::NulKey => "rename the key",
            Hazard::WideInteger | Hazard::BeyondDouble => "send it as a string",
        }
    }
}

/// The first hazard in a text that is known to be JSON, and at which byte it stands.
pub(super) fn first(text: &str) -> Option<(Hazard, usize)> {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let string = skim(bytes, at + 1);
                if let Some(half) = string.half {
                    return Some((Hazard::Surrogate, half));
                }
                if let Some(nul) = string.nul
                    && is_key(bytes, string.end)
                {
                    return Some((Hazard::NulKey, nul));
                }
                at = string.end;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Some((Hazard::Depth, at));
                }
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let (end, hazard) = number(text, at);
                if let Some(hazard) = hazard {
                    return Some((hazard, at));
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    None
}

/// What a string holds.
#[derive(Default)]
struct Skimmed {
    /// The place after its closing quote.
    end: usize,
    /// Where the first half of a surrogate pair stands alone.
    half: Option<usize>,
    /// Where a `\u0000` stands.
    nul: Option<usize>,
}

/// Goes over the string whose content begins at `start`. Most strings have no escapes: then this is one search.
fn skim(bytes: &[u8], start: usize) -> Skimmed {
    let mut found = Skimmed::default();
    // A high half only pairs with a low half that follows at once.
    let mut high = None;
    let mut from = start;
    while let Some(next) = bytes.get(from..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        let at = from + next;
        if bytes[at] == b'"' {
            found.half = found.half.or(high);
            found.end = at + 1;
            return found;
        }
        let unit = unit(bytes, at);
        let is_pair = matches!(unit, Some(0xdc00..=0xdfff)) && high.is_some_and(|high| high + 6 == at);
        let before = high.take();
        if !is_pair {
            found.half = found.half.or(before);
            match unit {
                Some(0xd800..=0xdbff) => high = Some(at),
                Some(0xdc00..=0xdfff) => found.half = found.half.or(Some(at)),
                Some(0) => found.nul = found.nul.or(Some(at)),
                _ => {}
            }
        }
        from = at + if unit.is_some() { 6 } else { 2 };
    }
    found.end = bytes.len();
    found
}

/// The UTF-16 unit of the escape whose backslash stands at `at`, if it is a `\u`.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let escape = bytes.get(at + 1..at + 6)?;
    let digits = escape.strip_prefix(b"u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Whether the string that ended before `end` is a key.
fn is_key(bytes: &[u8], end: usize) -> bool {
    let rest = bytes.get(end..).unwrap_or_default();
    rest.trim_ascii_start().first() == Some(&b':')
}

/// The place after the number that begins at `start`, and what is wrong with it.
fn number(text: &str, start: usize) -> (usize, Option<Hazard>) {
    let bytes = &text.as_bytes()[start..];
    let (mut length, mut is_integer, mut has_exponent) = (0, true, false);
    for byte in bytes {
        match byte {
            b'0'..=b'9' | b'-' | b'+' => {}
            b'.' => is_integer = false,
            b'e' | b'E' => (is_integer, has_exponent) = (false, true),
            _ => break,
        }
        length += 1;
    }
    let end = start + length;
    let token = || text.get(start..end).unwrap_or_default();
    let hazard = if is_integer {
        (length > SURELY_NARROW && token().parse::<i64>().is_err()).then_some(Hazard::WideInteger)
    } else {
        ((has_exponent || length > SURELY_FINITE) && !token().parse::<f64>().is_ok_and(f64::is_finite))
            .then_some(Hazard::BeyondDouble)
    };
    (end, hazard)
}

#[cfg(test)]
mod tests;
