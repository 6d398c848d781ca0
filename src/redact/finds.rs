//! What the rules find in one string, in the text as it stands and with its escapes read.
use super::detector::{Finder, Traits, View};
use super::fields::{Step, cover};
use super::nested::{amid, origins, resolve};
use super::secret_name::Secret;
use super::{Action, Redactor};
use std::cmp::Reverse;
use std::ops::Range;

/// Finds in one string beyond which it is masked as a whole, so that the time that finding takes
/// stays bounded.
pub(super) const MOST_FINDS: usize = 10_000;

/// A place of a text, and the rule that found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Find {
    pub(super) place: Range<usize>,
    pub(super) rule: usize,
}

impl Redactor {
    /// What the rules for that path find, in order, without overlaps, outside of marks. What the
    /// name of the string says is secret is found in whole.
    pub(super) fn finds(&self, text: &str, path: &[Step<'_>], secret: Option<Secret>) -> Vec<Find> {
        let drops = |rule: usize| self.matchers[rule].action == Action::Drop;
        let resolved = resolve(text);
        let source = resolved.is_none().then_some(text);
        let mut finds = self.look(View { text, source }, path);
        if let Some(resolved) = resolved {
            let view = View {
                text: &resolved,
                source: Some(text),
            };
            let read = joined(self.look(view, path), drops);
            let read = located(read, |places| origins(text, places));
            finds = around_escapes(joined(finds, drops), &read, text, drops);
            finds.extend(read);
        }
        finds.extend(self.named(text, path, secret));
        if finds.is_empty() {
            return finds;
        }
        outside(
            joined(finds, drops),
            self.marks.find_iter(text).map(|mark| mark.range()),
        )
    }

    /// What the rules find in a view of the string: no more than just over the most.
    fn look(&self, view: View<'_>, path: &[Step<'_>]) -> Vec<Find> {
        let traits = Traits::of(view.text);
        let mut finds = Vec::new();
        for (rule, matcher) in self.matchers.iter().enumerate() {
            if cover(&matcher.fields, path) {
                matcher.finder.find(view, traits, MOST_FINDS, &mut |place| {
                    if !place.is_empty() && finds.len() <= MOST_FINDS {
                        finds.push(Find { place, rule });
                    }
                });
            }
        }
        finds
    }

    /// The string that its name calls a secret, if a rule looks for such.
    fn named(&self, text: &str, path: &[Step<'_>], secret: Option<Secret>) -> Option<Find> {
        let secret = secret?;
        let mut matchers = self.matchers.iter();
        let rule = matchers.position(|matcher| {
            matches!(matcher.finder, Finder::ApiKey(_)) && cover(&matcher.fields, path)
        })?;
        let place = secret.within(text)?;
        Some(Find { place, rule })
    }
}

/// Finds at the places that theirs come from. They are in order, without overlaps.
fn located(mut finds: Vec<Find>, origins: impl Fn(&[usize]) -> Vec<usize>) -> Vec<Find> {
    let origins = origins(&places(&finds));
    for (find, place) in finds.iter_mut().zip(origins.chunks_exact(2)) {
        find.place = place[0]..place[1];
    }
    finds
}

fn places(finds: &[Find]) -> Vec<usize> {
    finds
        .iter()
        .flat_map(|find| [find.place.start, find.place.end])
        .collect()
}

/// Finds in the text as it stands, so that none begins or ends amid an escape: JSON within the
/// string would be none afterwards. Where `read`, the finds with the escapes read, has something at
/// the same place, the escape stays; else it goes with the find, since it need not be one. A find
/// that drops the whole string may lie anywhere.
fn around_escapes(
    mut finds: Vec<Find>,
    read: &[Find],
    text: &str,
    drops: impl Fn(usize) -> bool,
) -> Vec<Find> {
    let escapes = amid(text, &places(&finds));
    let mut read = read.iter().peekable();
    for (find, escapes) in finds.iter_mut().zip(escapes.chunks_exact(2)) {
        while read.next_if(|read| read.place.end <= find.place.start).is_some() {}
        let is_read = read.peek().is_some_and(|read| read.place.start < find.place.end);
        if drops(find.rule) {
            continue;
        }
        if let Some(escape) = &escapes[0] {
            find.place.start = if is_read { escape.end } else { escape.start };
        }
        if let Some(escape) = &escapes[1] {
            find.place.end = if is_read { escape.start } else { escape.end };
        }
    }
    finds.retain(|find| !find.place.is_empty());
    finds
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
    fn no_find_begins_or_ends_amid_an_escape() {
        let text = r"a\nb\tc";
        let of = |finds, read: &[Find]| around_escapes(finds, read, text, |rule| rule == 1);
        // The escapes are 1..3 and 4..6.
        assert_eq!(of(vec![find(2..5, 0)], &[find(3..4, 0)]), [find(3..4, 0)]);
        assert_eq!(of(vec![find(2..5, 0)], &[]), [find(1..6, 0)]);
        assert_eq!(of(vec![find(2..3, 0)], &[]), [find(1..3, 0)]);
        assert!(of(vec![find(2..3, 0)], &[find(2..4, 0)]).is_empty());
        assert_eq!(of(vec![find(2..5, 1)], &[]), [find(2..5, 1)]);
        assert_eq!(
            of(vec![find(1..3, 0), find(6..7, 2)], &[]),
            [find(1..3, 0), find(6..7, 2)]
        );
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
