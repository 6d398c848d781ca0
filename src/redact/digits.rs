//! Groups of digits with small gaps between, as people write telephone and card numbers.

/// Most groups that one number is looked for in.
pub(super) const MOST_GROUPS: usize = 8;
/// Digits of a group beyond which it is no part of such a number.
pub(super) const MOST_DIGITS: usize = 19;
/// Most characters in a gap, such as the two of `) `.
const MOST_GAP: usize = 3;

/// One group: its place, and what stands between it and the one before.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Group<'t> {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Empty for the first.
    pub(super) gap: &'t str,
}

impl Group<'_> {
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }
}

/// The groups from one on, as far as they may belong together. Bounded, so that a text is read a few times at most.
#[derive(Debug)]
pub(super) struct Groups<'t> {
    all: [Group<'t>; MOST_GROUPS],
    count: usize,
}

impl<'t> Groups<'t> {
    /// From the group whose first digit stands at `start`.
    pub(super) fn from(text: &'t str, start: usize) -> Self {
        let mut this = Self {
            all: [Group::default(); MOST_GROUPS],
            count: 0,
        };
        let (mut at, mut gap) = (start, "");
        while this.count < MOST_GROUPS {
            let digits = leading_digits(text, at);
            if digits == 0 || digits > MOST_DIGITS {
                break;
            }
            let end = at + digits;
            this.all[this.count] = Group { start: at, end, gap };
            this.count += 1;
            gap = gap_at(text, end);
            if gap.is_empty() {
                break;
            }
            at = end + gap.len();
        }
        this
    }

    pub(super) fn as_slice(&self) -> &[Group<'t>] {
        &self.all[..self.count]
    }
}

/// How many digits stand at `at`; counted no further than it takes to see that they are too many.
fn leading_digits(text: &str, at: usize) -> usize {
    let rest = text.as_bytes().get(at..).unwrap_or_default();
    let digits = rest.iter().take(MOST_DIGITS + 1);
    digits.take_while(|byte| byte.is_ascii_digit()).count()
}

/// What stands at `at` that may part two groups.
fn gap_at(text: &str, at: usize) -> &str {
    let rest = text.get(at..).unwrap_or_default();
    let chars = rest.chars().take(MOST_GAP).take_while(|c| is_gap(*c));
    rest.get(..chars.map(char::len_utf8).sum()).unwrap_or_default()
}

/// Blanks (also those that do not break), hyphens and dashes, dots, slashes, brackets.
fn is_gap(c: char) -> bool {
    matches!(
        c,
        ' ' | '-' | '.' | '/' | '(' | ')' | '\u{a0}' | '\u{202f}' | '\u{2010}'..='\u{2013}'
    )
}

/// Hands the first digit of every group to `see`, which says from where on to look further, if not from its end.
pub(super) fn for_each_group(text: &str, mut see: impl FnMut(usize) -> Option<usize>) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(next) = bytes
        .get(at..)
        .and_then(|rest| rest.iter().position(u8::is_ascii_digit))
    {
        let start = at + next;
        at = see(start).unwrap_or_else(|| {
            let rest = bytes.get(start..).unwrap_or_default();
            let digits = rest.iter().position(|byte| !byte.is_ascii_digit());
            digits.map_or(bytes.len(), |digits| start + digits)
        });
    }
}

/// The digits of some groups, in order, as numbers.
pub(super) fn values<'a>(
    text: &'a str,
    groups: &'a [Group<'_>],
) -> impl DoubleEndedIterator<Item = u32> + 'a {
    let bytes = groups
        .iter()
        .flat_map(|group| text.as_bytes().get(group.start..group.end).unwrap_or_default());
    bytes.map(|byte| u32::from(byte - b'0'))
}

/// How many digits some groups have together.
pub(super) fn count(groups: &[Group<'_>]) -> usize {
    groups.iter().map(Group::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(text: &str) -> Vec<(&str, &str)> {
        let found = Groups::from(
            text,
            text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len()),
        );
        let parts = found.as_slice().iter();
        parts
            .map(|group| (group.gap, &text[group.start..group.end]))
            .collect()
    }

    #[test]
    fn groups_end_where_something_else_stands() {
        assert_eq!(groups("+(12) 3-45, 6"), [("", "12"), (") ", "3"), ("-", "45")]);
        assert_eq!(
            groups("12\u{a0}34\u{2011}56"),
            [("", "12"), ("\u{a0}", "34"), ("\u{2011}", "56")]
        );
        assert_eq!(groups("1    2"), [("", "1")]);
        assert_eq!(groups(&"1 ".repeat(100)).len(), MOST_GROUPS);
        assert!(groups(&"1".repeat(MOST_DIGITS + 1)).is_empty());
        assert!(groups("none").is_empty());
    }

    #[test]
    fn every_group_is_seen_once() {
        let mut seen = Vec::new();
        for_each_group("a12b3 45", |start| {
            seen.push(start);
            None
        });
        assert_eq!(seen, [1, 4, 6]);
    }
}
