//! One string: what the rules find in it, and what it is without that.
use super::fields::Step;
use super::finds::{Find, MOST_FINDS};
use super::secret_name::Secret;
use super::text::{decode, written};
use super::{Action, Redactor};

use aws_lc_rs::hmac;
use std::borrow::Cow;
use std::fmt::Write as _;

/// Digits of a hash in a mark.
pub(super) const HASH_DIGITS: usize = 16;

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

impl Redactor {
    /// What becomes of the string at `path`, given by what stands between its quotes. `None` if
    /// nothing is found in it. `secret` is what its name says of it.
    pub(super) fn mask(&self, raw: &str, path: &[Step<'_>], secret: Option<Secret>) -> Option<Masked> {
        let mut current = Cow::Borrowed(raw);
        let mut rules = Vec::new();
        for round in 1.. {
            let text = decode(&current);
            let finds = self.finds(&text, path, secret);
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
