//! Reading JSON as text: what stands where, and what the API chokes on.
//!
//! Everything here expects text that a JSON parser has accepted; it cuts it into pieces without copying, so that
//! what arrived is kept byte for byte.

use std::borrow::Cow;

/// What a JSON text holds that the API cannot take. Found in one pass.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hazards {
    /// Deepest nesting of lists and objects.
    pub(super) depth: usize,
    /// Half of a surrogate pair stands alone in a string or key.
    pub(super) lone_surrogate: bool,
    /// A number that a double cannot hold, such as `1e400`.
    pub(super) beyond_double: bool,
    /// An integer that does not fit into signed 64 bits.
    pub(super) wide_integer: bool,
    /// A key holds a NUL character.
    pub(super) nul_key: bool,
}

/// Looks through a whole JSON text for [`Hazards`].
pub(super) fn hazards(text: &str) -> Hazards {
    let bytes = text.as_bytes();
    let mut found = Hazards::default();
    let (mut depth, mut at) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'{' | b'[' => {
                depth += 1;
                found.depth = found.depth.max(depth);
                at += 1;
            }
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            b'"' => {
                let end = string_end(bytes, at);
                let escapes = escapes(&text[at + 1..end - 1]);
                found.lone_surrogate |= escapes.lone_surrogate;
                found.nul_key |= escapes.nul && bytes.get(skip_space(bytes, end)) == Some(&b':');
                at = end;
            }
            b'-' | b'0'..=b'9' => {
                let end = scalar_end(bytes, at);
                number(&text[at..end], &mut found);
                at = end;
            }
            _ => at += 1,
        }
    }
    found
}

fn number(text: &str, found: &mut Hazards) {
    if text.bytes().any(|b| matches!(b, b'.' | b'e' | b'E')) {
        found.beyond_double |= text.parse::<f64>().is_ok_and(f64::is_infinite);
    } else if text.len() > 18 {
        found.wide_integer |= text.parse::<i64>().is_err();
    }
}

#[derive(Default)]
struct Escapes {
    lone_surrogate: bool,
    nul: bool,
}

/// Looks at the `\u` escapes of a string's inner text.
fn escapes(inner: &str) -> Escapes {
    let mut found = Escapes::default();
    let mut high = false;
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        let unit = rest[at + 1..]
            .strip_prefix('u')
            .and_then(|r| u16::from_str_radix(r.get(..4)?, 16).ok());
        // A high half only pairs with a low half that follows at once.
        if high && (at != 0 || !matches!(unit, Some(0xdc00..=0xdfff))) {
            found.lone_surrogate = true;
        }
        match unit {
            Some(0xd800..=0xdbff) => high = true,
            Some(0xdc00..=0xdfff) => {
                found.lone_surrogate |= !high;
                high = false;
            }
            other => {
                found.nul |= other == Some(0);
                high = false;
            }
        }
        rest = &rest[at + if unit.is_some() { 6 } else { 2 }..];
    }
    found.lone_surrogate |= high;
    found
}

/// What a JSON value is, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// A number without fraction and exponent.
    Integer,
    /// Any other number.
    Float,
    /// A string.
    Text,
    /// A list.
    List,
    /// An object.
    Object,
}

/// Tells what a JSON value is.
pub(super) fn kind(value: &str) -> Kind {
    match value.as_bytes().first() {
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::List,
        Some(b'"') => Kind::Text,
        Some(b't' | b'f') => Kind::Bool,
        Some(b'n') | None => Kind::Null,
        Some(_) if value.bytes().any(|b| matches!(b, b'.' | b'e' | b'E')) => Kind::Float,
        Some(_) => Kind::Integer,
    }
}

/// Cuts an object into keys (decoded) and values (as they stand), in order. Empty for anything else.
pub(super) fn fields(object: &str) -> Vec<(Cow<'_, str>, &str)> {
    let bytes = object.as_bytes();
    let mut out = Vec::new();
    if bytes.first() != Some(&b'{') {
        return out;
    }
    let mut at = skip_space(bytes, 1);
    while bytes.get(at) == Some(&b'"') {
        let key_end = string_end(bytes, at);
        let key = text_of(&object[at..key_end]);
        let start = skip_space(bytes, skip_space(bytes, key_end) + 1);
        let end = value_end(bytes, start);
        out.push((key, &object[start..end]));
        at = skip_space(bytes, skip_space(bytes, end) + 1);
    }
    out
}

/// Cuts a list into its values as they stand, in order. Empty for anything else.
pub(super) fn elements(list: &str) -> Vec<&str> {
    let bytes = list.as_bytes();
    let mut out = Vec::new();
    if bytes.first() != Some(&b'[') {
        return out;
    }
    let mut at = skip_space(bytes, 1);
    while at < bytes.len() && bytes[at] != b']' {
        let end = value_end(bytes, at);
        out.push(&list[at..end]);
        at = skip_space(bytes, end);
        if bytes.get(at) == Some(&b',') {
            at = skip_space(bytes, at + 1);
        }
    }
    out
}

/// Decodes a JSON string. One that cannot be decoded (a lone surrogate) is given as it stands.
pub(super) fn text_of(value: &str) -> Cow<'_, str> {
    let inner = value.get(1..value.len().saturating_sub(1)).unwrap_or_default();
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    serde_json::from_str::<String>(value).map_or(Cow::Borrowed(inner), Cow::Owned)
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// Index behind the closing quote of the string that begins at `start`.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn scalar_end(bytes: &[u8], start: usize) -> usize {
    let ends = |b: &u8| matches!(b, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
    bytes[start..]
        .iter()
        .position(ends)
        .map_or(bytes.len(), |n| start + n)
}

fn value_end(bytes: &[u8], start: usize) -> usize {
    match bytes.get(start) {
        Some(b'"') => string_end(bytes, start),
        Some(b'{' | b'[') => {
            let (mut depth, mut at) = (0, start);
            while at < bytes.len() {
                match bytes[at] {
                    b'"' => {
                        at = string_end(bytes, at);
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    break;
                }
            }
            at
        }
        _ => scalar_end(bytes, start),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_cut_into_its_fields_as_they_stand() {
        let cut = fields(r#" {"a" : "x\"}", "\u0062":[1,{"c":"]"}] ,"d":-1.50,"e":{} }"#.trim());
        let cut: Vec<_> = cut.iter().map(|(k, v)| (k.as_ref(), *v)).collect();
        let want = [
            ("a", r#""x\"}""#),
            ("b", r#"[1,{"c":"]"}]"#),
            ("d", "-1.50"),
            ("e", "{}"),
        ];
        assert_eq!(cut, want);
        assert_eq!(
            elements(r#"[ 1 , "a,]" ,[2], null]"#),
            ["1", r#""a,]""#, "[2]", "null"]
        );
        assert!(elements("[ ]").is_empty() && fields("{ }").is_empty());
    }

    #[test]
    fn hazards_are_found_where_they_are_and_nowhere_else() {
        let none = Hazards::default();
        let table = [
            (r#""\ud83d\ude00 \\ud800""#, none),
            (
                r#""\ud83d x""#,
                Hazards {
                    lone_surrogate: true,
                    ..none
                },
            ),
            (
                r#""\ud83d\n\ude00""#,
                Hazards {
                    lone_surrogate: true,
                    ..none
                },
            ),
            (
                r#""\ude00""#,
                Hazards {
                    lone_surrogate: true,
                    ..none
                },
            ),
            (
                r#""a\ud83d""#,
                Hazards {
                    lone_surrogate: true,
                    ..none
                },
            ),
            (
                r#""\ud83d\ud83d\ude00""#,
                Hazards {
                    lone_surrogate: true,
                    ..none
                },
            ),
            ("1e308", none),
            (
                "-1e400",
                Hazards {
                    beyond_double: true,
                    ..none
                },
            ),
            ("9223372036854775807", none),
            ("-9223372036854775808", none),
            (
                "9223372036854775808",
                Hazards {
                    wide_integer: true,
                    ..none
                },
            ),
            ("99999999999999999999.5", none),
            (r#""99999999999999999999""#, none),
            (
                r#"{"a\u0000" : 1}"#,
                Hazards {
                    nul_key: true,
                    depth: 1,
                    ..none
                },
            ),
            (r#"{"a":"\u0000"}"#, Hazards { depth: 1, ..none }),
            (r#"[[{}],"[[[["]"#, Hazards { depth: 3, ..none }),
        ];
        for (text, want) in table {
            assert_eq!(hazards(text), want, "{text}");
        }
    }
}
