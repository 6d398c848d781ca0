//! How many bytes a JSON value takes in the API's database.

use super::scan::{self, Kind};
use std::collections::HashMap;

/// Bytes of a value as BSON, without its type and its key. Expects text that a JSON parser has accepted, of no more depth than the
/// API takes.
pub(super) fn value_bytes(value: &str) -> usize {
    match scan::kind(value) {
        Kind::Null => 0,
        Kind::Bool => 1,
        Kind::Integer if value.parse::<i32>().is_ok() => 4,
        Kind::Integer | Kind::Float => 8,
        Kind::Text => 5 + scan::text_of(value).len(),
        Kind::List => {
            let elements = scan::elements(value);
            let sizes = elements.iter().enumerate();
            5 + sizes
                .map(|(at, element)| 2 + at.to_string().len() + value_bytes(element))
                .sum::<usize>()
        }
        Kind::Object => {
            // Of a key that stands twice the last value is kept.
            let fields: HashMap<_, _> = scan::fields(value).into_iter().collect();
            5 + fields
                .iter()
                .map(|(key, value)| 2 + key.len() + value_bytes(value))
                .sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_take_what_the_specification_of_bson_says() {
        assert_eq!(value_bytes(r#"{"BSON":["awesome",5.05,1986]}"#), 0x31);
        assert_eq!(value_bytes(r#"{"hello":"world"}"#), 0x16);
        assert_eq!(value_bytes(r#"{"a":1,"\u0061":"\u00e9"}"#), 5 + 3 + 7);
        assert_eq!(value_bytes("2147483648"), 8);
        assert_eq!(value_bytes("[null,true]"), 5 + 3 + 4);
    }
}
