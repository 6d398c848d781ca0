//! One string: what the rules find in it, and what it is without that.
use super::detector::Traits;
use super::fields::{Step, cover};
use super::text::{decode, written};
use super::{Action, Redactor};

use aws_lc_rs::hmac;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt::Write as _;
use std::ops::Range;

/// Digits of a hash in a mark.
pub(super) const HASH_DIGITS: usize = 16;

/// Finds in one string beyond which it is masked as a whole, so that the time that finding takes stays bounded.
const MOST_FINDS: usize = 10_000;

/// How often a string is looked at again, since what was put in can let something else stand by itself. What goes on
/// longer is masked as a whole.
const MOST_ROUNDS: usize = 6;

/// A string without its finds.
#[derive(Debug)]
pub(super) struct Masked {
    /// What stands between its quotes now.
    pub(super) raw: String,
    /// The rule of each find.
    pub(super) rules: Vec<usize>,
}

#[derive(Debug, PartialEq, Eq)]
struct Find {
    place: Range<usize>,
    rule: usize,
}

impl Redactor {
    /// What becomes of the string at `path`, given by what stands between its quotes. `None` if nothing is found in it.
    pub(super) fn mask(&self, raw: &str, path: &[Step<'_>]) -> Option<Masked> {
        let mut current = Cow::Borrowed(raw);
        let mut rules = Vec::new();
        for round in 1.. {
            let text = decode(&current);
            let finds = self.finds(&text, path);
            let Some(first) = finds.first() else { break };
            rules.extend(finds.iter().map(|find| find.rule));
            if finds
                .iter()
                .any(|find| self.matchers[find.rule].action == Action::Drop)
            {
                return Some(Masked {
                    raw: String::new(),
                    rules,
                });
            }
            if round == MOST_ROUNDS || finds.len() > MOST_FINDS {
                let raw = self.mark(first.rule, &text);
                return Some(Masked { raw, rules });
            }
            let spliced = self.splice(&current, &text, &finds);
            current = Cow::Owned(spliced);
        }
        match current {
            Cow::Borrowed(_) => None,
            Cow::Owned(raw) => Some(Masked { raw, rules }),
        }
    }

    /// What the rules for that path find, in order, without overlaps, outside of marks.
    fn finds(&self, text: &str, path: &[Step<'_>]) -> Vec<Find> {
        let traits = Traits::of(text);
        let mut finds = Vec::new();
        for (rule, matcher) in self.matchers.iter().enumerate() {
            if cover(&matcher.fields, path) {
                matcher.finder.find(text, traits, MOST_FINDS, &mut |place| {
                    if !place.is_empty() && finds.len() <= MOST_FINDS {
                        finds.push(Find { place, rule });
                    }
                });
            }
        }
        if finds.is_empty() {
            return finds;
        }
        let drops = |rule: usize| self.matchers[rule].action == Action::Drop;
        outside(
            joined(finds, drops),
            self.marks.find_iter(text).map(|mark| mark.range()),
        )
    }

    /// The string as it was written, with marks for finds.
    fn splice(&self, raw: &str, text: &str, finds: &[Find]) -> String {
        let places: Vec<usize> = finds
            .iter()
            .flat_map(|find| [find.place.start, find.place.end])
            .collect();
        let places = written(raw, &places);
        let mut spliced = String::with_capacity(raw.len());
        let mut copied = 0;
        for (find, place) in finds.iter().zip(places.chunks_exact(2)) {
            spliced.push_str(&raw[copied..place[0]]);
            spliced.push_str(&self.mark(find.rule, &text[find.place.clone()]));
            copied = place[1];
        }
        spliced.push_str(&raw[copied..]);
        spliced
    }

    /// What takes the place of a find.
    fn mark(&self, rule: usize, found: &str) -> String {
        let matcher = &self.matchers[rule];
        let mut mark = format!("[{}", matcher.name);
        if let (Action::Hash, Some(key)) = (matcher.action, &self.key) {
            mark.push(':');
            for byte in hmac::sign(key, found.as_bytes())
                .as_ref()
                .iter()
                .take(HASH_DIGITS / 2)
            {
                let _ = write!(mark, "{byte:02x}"); // Writing to a String does not fail.
            }
        }
        mark.push(']');
        mark
    }
}

/// Finds in order; those that overlap are one, of the rule that begins first and reaches furthest, or of one that drops the string.
fn joined(mut finds: Vec<Find>, drops: impl Fn(usize) -> bool) -> Vec<Find> {
    finds.sort_by_key(|find| (find.place.start, Reverse(find.place.end), find.rule));
    finds.dedup_by(|next, kept| {
        let overlaps = next.place.start < kept.place.end;
        if overlaps {
            kept.place.end = kept.place.end.max(next.place.end);
            if drops(next.rule) && !drops(kept.rule) {
                kept.rule = next.rule;
            }
        }
        overlaps
    });
    finds
}

/// What of the finds stands outside of marks; both are in order.
fn outside(finds: Vec<Find>, marks: impl Iterator<Item = Range<usize>>) -> Vec<Find> {
    let mut marks = marks.peekable();
    let mut left = Vec::with_capacity(finds.len());
    for Find { place, rule } in finds {
        let mut start = place.start;
        while marks.next_if(|mark| mark.end <= start).is_some() {}
        while let Some(mark) = marks.peek().filter(|mark| mark.start < place.end).cloned() {
            if start < mark.start {
                left.push(Find {
                    place: start..mark.start,
                    rule,
                });
            }
            start = mark.end;
            if mark.end > place.end {
                break;
            }
            marks.next();
        }
        if start < place.end {
            left.push(Find {
                place: start..place.end,
                rule,
            });
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(place: Range<usize>, rule: usize) -> Find {
        Find { place, rule }
    }

    #[test]
    fn finds_that_overlap_are_one() {
        let finds = vec![
            find(5..9, 1),
            find(0..6, 0),
            find(9..12, 2),
            find(20..21, 3),
            find(0..2, 1),
        ];
        assert_eq!(
            joined(finds, |_| false),
            [find(0..9, 0), find(9..12, 2), find(20..21, 3)]
        );
        let finds = vec![find(0..6, 0), find(3..9, 1), find(9..12, 0)];
        assert_eq!(joined(finds, |rule| rule == 1), [find(0..9, 1), find(9..12, 0)]);
    }

    #[test]
    fn marks_are_cut_out_of_finds() {
        let of =
            |finds, marks: &[(usize, usize)]| outside(finds, marks.iter().map(|&(start, end)| start..end));
        assert_eq!(
            of(vec![find(0..10, 0)], &[(2, 4), (6, 7)]),
            [find(0..2, 0), find(4..6, 0), find(7..10, 0)]
        );
        assert_eq!(of(vec![find(3..5, 0), find(6..8, 1)], &[(2, 7)]), [find(7..8, 1)]);
        assert_eq!(of(vec![find(0..2, 0)], &[(2, 3)]), [find(0..2, 0)]);
        assert!(of(vec![find(2..3, 0)], &[(2, 3)]).is_empty());
        assert_eq!(of(vec![find(4..6, 0)], &[(1, 2)]), [find(4..6, 0)]);
    }
}
