//! How large a JSON value is as BSON, which is what the API's database counts.

use super::scan::{self, Kind};

/// Bytes of a document's length and its closing zero.
const FRAME: usize = 5;

/// Size of a JSON object or list as a BSON document, in bytes. In a list each element has its index as its key.
pub(super) fn document(value: &str) -> usize {
    let members: usize = match scan::kind(value) {
        Kind::List => scan::elements(value)
            .into_iter()
            .enumerate()
            .map(|(at, element)| member(digits(at), element))
            .sum(),
        _ => scan::fields(value)
            .into_iter()
            .map(|(key, value)| member(key.len(), value))
            .sum(),
    };
    FRAME + members
}

/// Type, key, a zero, and the value.
fn member(key_bytes: usize, value: &str) -> usize {
    let value_bytes = match scan::kind(value) {
        Kind::Null => 0,
        Kind::Bool => 1,
        Kind::Integer if value.parse::<i32>().is_ok() => 4,
        Kind::Integer | Kind::Float => 8,
        Kind::Text => FRAME + scan::text_of(value).len(),
        Kind::List | Kind::Object => document(value),
    };
    1 + key_bytes + 1 + value_bytes
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::document;

    #[test]
    fn sizes_are_those_of_the_bson_specification() {
        // {"hello": "world"} is the specification's own example.
        assert_eq!(document(r#"{"hello":"world"}"#), 22);
        // So is {"BSON": ["awesome", 5.05, 1986]}.
        assert_eq!(document(r#"{"BSON":["awesome",5.05,1986]}"#), 49);
        assert_eq!(document("{}"), 5);
        assert_eq!(document(r#"{"a":null,"b":true,"c":3000000000}"#), 5 + 3 + 4 + 11);
        assert_eq!(document(r#"{"\u00fc":"\n"}"#), 5 + 1 + 2 + 1 + 4 + 2);
    }

    #[test]
    fn a_list_of_a_million_small_numbers_takes_over_eleven_bytes_each() {
        let list = format!("[{}]", vec!["1"; 1_000_000].join(","));
        assert!(list.len() < 2_100_000);
        assert!(document(&format!("{{\"n\":{list}}}")) > 11_000_000);
    }
}
