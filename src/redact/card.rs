//! Numbers of payment cards: an issuer's prefix with its length, the usual groups, and the check digit of Luhn.
use super::around::{is_free_after, is_free_before};
use super::digits::{self, Group, Groups, MOST_GROUPS};
use std::ops::Range;

/// Fewest digits that can be one.
pub(super) const FEWEST_DIGITS: usize = 13;

/// Hands the place of each to `hit`.
pub(super) fn find(text: &str, hit: &mut dyn FnMut(Range<usize>)) {
    digits::for_each_group(text, |start| {
        if !is_free_before(text, start) {
            return None;
        }
        let groups = Groups::from(text, start);
        let groups = groups.as_slice();
        let fits = |count: &usize| {
            let of_it = &groups[..*count];
            of_it.last().is_some_and(|last| is_free_after(text, last.end)) && is_card(text, of_it)
        };
        let count = (1..=groups.len()).rev().find(fits)?;
        let end = groups[count - 1].end;
        hit(start..end);
        Some(end)
    });
}

fn is_card(text: &str, groups: &[Group<'_>]) -> bool {
    is_grouped(groups) && is_issued(text, groups) && is_luhn(text, groups)
}

/// In one piece, or in the groups of plastic, with one and the same blank or hyphen between.
fn is_grouped(groups: &[Group<'_>]) -> bool {
    let mut lengths = [0; MOST_GROUPS];
    for (length, group) in lengths.iter_mut().zip(groups) {
        *length = group.len();
    }
    let mut gaps = groups.iter().skip(1).map(|group| group.gap);
    let one_kind = match gaps.next() {
        None => true,
        Some(gap) => {
            gap.chars().count() == 1
                && !matches!(gap, "." | "/" | "(" | ")")
                && gaps.all(|other| other == gap)
        }
    };
    let usual = matches!(
        lengths,
        [13..=19, 0, ..] | [4, 4, 4, 4, 0, ..] | [4, 4, 4, 4, 3, 0, ..] | [4, 6, 4 | 5, 0, ..]
    );
    one_kind && usual
}

/// Whether an issuer gives out numbers that begin so and are that long.
fn is_issued(text: &str, groups: &[Group<'_>]) -> bool {
    let prefix = digits::values(text, groups)
        .take(4)
        .fold(0, |number, digit| number * 10 + digit);
    let lengths = match prefix {
        4000..=4999 => return matches!(digits::count(groups), 13 | 16 | 19),
        3400..=3499 | 3700..=3799 => 15..=15,
        3000..=3059 | 3600..=3699 | 3800..=3999 => 14..=14,
        2221..=2720 | 5100..=5599 => 16..=16,
        3528..=3589 | 5000..=5099 | 5600..=5899 | 6000..=6999 => 16..=19,
        _ => return false,
    };
    lengths.contains(&digits::count(groups))
}

fn is_luhn(text: &str, groups: &[Group<'_>]) -> bool {
    let doubled = |digit: u32| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let from_the_right = digits::values(text, groups).rev().enumerate();
    let sum: u32 = from_the_right
        .map(|(place, digit)| if place % 2 == 1 { doubled(digit) } else { digit })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::super::detector;
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        detector::found(text, find)
    }

    #[test]
    fn card_numbers_are_found_in_one_piece_and_in_groups() {
        for card in [
            "4111111111111111",
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            "5555555555554444",
            "2223003122003222",
            "3782 822463 10005",
            "378282246310005",
            "6011111111111117",
            "3056 930902 5904",
            "4222222222222",
        ] {
            for text in [
                card.to_owned(),
                format!("card {card}."),
                format!("({card}) 12/26 123"),
                format!("\"{card}\""),
            ] {
                assert_eq!(found(&text), [card], "{text}");
            }
        }
    }

    #[test]
    fn a_wrong_check_digit_prefix_length_or_shape_is_no_card() {
        for text in [
            "4111111111111112",
            "4111 1111 1111 1112",
            "9111111111111111",
            "41111111111111",
            "4111.1111.1111.1111",
            "4111 1111-1111 1111",
            "411111 1111111111",
            "0.4111111111111111",
            "a4111111111111111",
            "41111111111111110",
            "0000 0000 0000 0000",
            "1700000000000",
            "12344111-1111-1111-1111-111122223333",
        ] {
            assert_eq!(found(text), Vec::<&str>::new(), "{text}");
        }
    }
}
