//! How large a JSON value is as BSON, which is what the API's database counts.

use super::scan::{self, Kind};
use std::collections::HashMap;

/// Bytes of a document's length and its closing zero; a text has as many.
const FRAME: usize = 5;

/// Bytes of a value as BSON, without its type and its key. Expects text that a JSON parser has accepted, of no more depth than the
/// API takes.
pub(super) fn value_bytes(value: &str) -> usize {
    match scan::kind(value) {
        Kind::Null => 0,
        Kind::Bool => 1,
        Kind::Integer if value.parse::<i32>().is_ok() => 4,
        Kind::Integer | Kind::Float => 8,
        Kind::Text => FRAME + scan::text_of(value).len(),
        Kind::List => {
            // Each element has its index as its key.
            let elements = scan::elements(value).into_iter().enumerate();
            FRAME
                + elements
                    .map(|(at, element)| member(digits(at), element))
                    .sum::<usize>()
        }
        Kind::Object => {
            // Of a key that stands twice the last value is kept.
            let fields: HashMap<_, _> = scan::fields(value).into_iter().collect();
            FRAME
                + fields
                    .iter()
                    .map(|(key, value)| member(key.len(), value))
                    .sum::<usize>()
        }
    }
}

/// Type, key, a zero, and the value.
fn member(key_bytes: usize, value: &str) -> usize {
    1 + key_bytes + 1 + value_bytes(value)
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::value_bytes;

    #[test]
    fn sizes_are_those_of_the_bson_specification() {
        // {"hello": "world"} is the specification's own example.
        assert_eq!(value_bytes(r#"{"hello":"world"}"#), 22);
        // So is {"BSON": ["awesome", 5.05, 1986]}.
        assert_eq!(value_bytes(r#"{"BSON":["awesome",5.05,1986]}"#), 49);
        assert_eq!(value_bytes("{}"), 5);
        assert_eq!(
            value_bytes(r#"{"a":null,"b":true,"c":3000000000}"#),
            5 + 3 + 4 + 11
        );
        assert_eq!(value_bytes(r#"{"\u00fc":"\n"}"#), 5 + 1 + 2 + 1 + 4 + 2);
        assert_eq!(value_bytes(r#"{"a":1,"\u0061":"\u00e9"}"#), 5 + 3 + 7);
        assert_eq!(value_bytes("2147483648"), 8);
        assert_eq!(value_bytes("[null,true]"), 5 + 3 + 4);
    }

    #[test]
    fn a_list_of_a_million_small_numbers_takes_over_eleven_bytes_each() {
        let list = format!("[{}]", vec!["1"; 1_000_000].join(","));
        assert!(list.len() < 2_100_000);
        assert!(value_bytes(&format!("{{\"n\":{list}}}")) > 11_000_000);
    }
}
