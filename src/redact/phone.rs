//! Telephone numbers: with a country code, or in a national form that nothing else is written in.
//!
//! Ten digits without any mark are as often an id or a time, so they are no telephone number.
use super::around::{is_free_after, is_free_before};
use super::digits::{self, Group, Groups, MOST_GROUPS};
use std::ops::Range;

/// Fewest digits that can be one.
pub(super) const FEWEST_DIGITS: usize = 8;

/// Hands the place of each to `hit`.
pub(super) fn find(text: &str, hit: &mut dyn FnMut(Range<usize>)) {
    digits::for_each_group(text, |start| {
        let (begin, has_plus) = opening(text, start);
        if !is_free_before(text, begin) {
            return None;
        }
        let groups = Groups::from(text, start);
        let groups = groups.as_slice();
        // The longest first: what follows may belong to it.
        let fits = |count: &usize| {
            let of_it = &groups[..*count];
            of_it.last().is_some_and(|last| is_free_after(text, last.end)) && is_phone(text, of_it, has_plus)
        };
        let count = (1..=groups.len()).rev().find(fits)?;
        let end = groups[count - 1].end;
        // A bracket belongs to it only if it is closed within.
        let closes = groups[..count].iter().any(|group| group.gap.contains(')'));
        let bracket = usize::from(closes && text[..begin].ends_with('('));
        hit(begin - bracket..end);
        Some(end)
    });
}

/// Where a number begins whose first digit stands at `start`, and whether there is a `+`.
fn opening(text: &str, start: usize) -> (usize, bool) {
    let before = text.as_bytes().get(..start).unwrap_or_default();
    match before {
        [.., b'+', b'('] => (start - 2, true),
        [.., b'+'] => (start - 1, true),
        _ => (start, false),
    }
}

fn is_phone(text: &str, groups: &[Group<'_>], has_plus: bool) -> bool {
    let mut first = digits::values(text, groups);
    let (first, second, third) = (first.next(), first.next(), first.next());
    let count = digits::count(groups);
    if is_date(groups) || is_decimal(groups) {
        return false;
    }
    match (has_plus, first, second, third) {
        (true, Some(1..), ..) => (8..=15).contains(&count),
        (true, ..) => false,
        (false, Some(0), Some(0), Some(1..)) => (least(groups, 10, 12)..=17).contains(&count),
        (false, Some(0), Some(1..), _) => {
            let whole = groups.first().is_some_and(|group| group.len() > 1);
            whole
                && groups.len() <= 6
                && (least(groups, 9, 10)..=if groups.len() == 1 { 11 } else { 12 }).contains(&count)
        }
        _ => is_north_american(text, groups),
    }
}

/// Fewest digits: more where nothing parts them, since that may be a number of any kind.
fn least(groups: &[Group<'_>], parted: usize, whole: usize) -> usize {
    if groups.len() == 1 { whole } else { parted }
}

/// `555-123-4567`, `(555) 123-4567`, `1 555 123 4567`.
fn is_north_american(text: &str, groups: &[Group<'_>]) -> bool {
    let mut lengths = [0; MOST_GROUPS];
    for (length, group) in lengths.iter_mut().zip(groups) {
        *length = group.len();
    }
    let (country, area) = match lengths {
        [3, 3, 4, 0, ..] => (None, groups.first()),
        [1, 3, 3, 4, 0, ..] => (groups.first(), groups.get(1)),
        _ => return false,
    };
    let first = |group: Option<&Group<'_>>| {
        digits::values(text, group.map(std::slice::from_ref).unwrap_or_default()).next()
    };
    country.is_none_or(|country| first(Some(country)) == Some(1)) && matches!(first(area), Some(2..))
}

/// Begins as `2024-01-15`, `15.01.2024` or `15/01/24`, however it goes on.
fn is_date(groups: &[Group<'_>]) -> bool {
    let [a, b, c, rest @ ..] = groups else {
        return false;
    };
    let is_parted = b.gap == c.gap && matches!(b.gap, "-" | "/" | "." | "\u{2011}" | "\u{2013}");
    let goes_on = rest.first().is_some_and(|next| next.gap == b.gap);
    let lengths = matches!(
        (a.len(), b.len(), c.len()),
        (4, 1..=2, 1..=2) | (1..=2, 1..=2, 4) | (2, 2, 2)
    );
    is_parted && !goes_on && lengths
}

/// `0.12345678`, `3.14159265`.
fn is_decimal(groups: &[Group<'_>]) -> bool {
    matches!(groups, [_, after] if after.gap == ".")
}

#[cfg(test)]
mod tests {
    use super::super::detector;
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        detector::found(text, find)
    }

    #[test]
    fn telephone_numbers_are_found_as_people_write_them() {
        for phone in [
            "+33 6 12 34 56 78",
            "+33612345678",
            "+1 (555) 123-4567",
            "+49 (0)30 123456",
            "+44\u{a0}20\u{a0}7946\u{a0}0958",
            "(+49) 30 1234567",
            "0033 6 12 34 56 78",
            "0612345678",
            "06 12 34 56 78",
            "06.12.34.56.78",
            "030/1234567",
            "020 7946 0958",
            "(555) 123-4567",
            "555-123-4567",
            "555.123.4567",
            "1-800-555-1234",
        ] {
            for text in [
                phone.to_owned(),
                format!("Call {phone}."),
                format!("tel:{phone},"),
                format!("a: {phone} b"),
            ] {
                assert_eq!(found(&text), [phone], "{text}");
            }
        }
        assert_eq!(found("on 2024-01-15 555-123-4567 rang"), ["555-123-4567"]);
        assert_eq!(found("(+33612345678)"), ["+33612345678"]);
        assert_eq!(
            found("555-123-4567 and +33 612345678"),
            ["555-123-4567", "+33 612345678"]
        );
    }

    #[test]
    fn what_only_looks_like_one_is_left_alone() {
        for text in [
            "2024-01-15 10:30:00",
            "2024-01-15T10:30:00Z",
            "2024-01-15 10",
            "15.01.2024 1030",
            "01/02/2024 1234",
            "1700000000",
            "1700000000123",
            "1.2.3.4",
            "192.168.100.200",
            "3.1415926535",
            "0.123456789",
            "+0.12345678",
            "1 234 567 890",
            "123e4567-e89b-12d3-a456-426614174000",
            "12345678-1234-1234-1234-123456789012",
            "4111 1111 1111 1111",
            "order 5551234567",
            "id-555-123-4567",
            "v555.123.4567",
            "10:20:30 40",
            "978-3-16-148410-0",
            "$1,234,567,890.12",
            "x",
            "",
        ] {
            assert_eq!(found(text), Vec::<&str>::new(), "{text}");
        }
    }
}
