//! Redaction: private text is taken out of events before anything of them touches the disk.
//!
//! [`Redactor::apply`] goes over the bytes of one event and rewrites strings in which a rule finds something. All else
//! stays as it came: keys, numbers, order, white space, and in a rewritten string every byte outside the finds. What a
//! rule put in is never a find again, so applying it twice is the same as once. No step is longer than the text allows:
//! there is no recursion, and regexes cannot backtrack.
//!
//! Escapes in a string are read however deeply they are nested (`nested`), since tool calls hold
//! JSON within a string; a find never cuts one. Not looked at: keys, numbers, what is encoded
//! (base64, an image). Not altered: identities such as `task_id` and `session_id`. What is found and
//! what is not stands in `docs/redaction.md`, and `corpus` holds it to that.
mod api_key;
mod around;
mod basic;
mod card;
mod detector;
mod digits;
mod fields;
mod finds;
mod iban;
mod ip;
mod mask;
mod named;
mod nested;
mod phone;
mod quotes;
mod screen;
mod secret_name;
mod steps;
mod text;
mod url;
mod walk;

pub use detector::Detector;
pub use fields::{FieldPath, PathError, Step, dotted};
pub use screen::Screen;

use aws_lc_rs::hmac;
use detector::Finder;
use regex::{Regex, RegexBuilder};
use std::fmt;
use walk::Walk;

/// What becomes of a find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    /// `[email]` takes its place.
    #[default]
    Replace,
    /// `[email:9f2c61d04be8a377]` does: the beginning of its HMAC-SHA256, so that equal texts stay recognisable as equal.
    Hash,
    /// The whole string becomes empty.
    Drop,
}

impl Action {
    /// Its names in the configuration.
    pub const NAMES: [&'static str; 3] = ["replace", "hash", "drop"];

    /// The one with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "replace" => Some(Action::Replace),
            "hash" => Some(Action::Hash),
            "drop" => Some(Action::Drop),
            _ => None,
        }
    }
}

/// The key of [`Action::Hash`]. Never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub struct HashKey(Vec<u8>);

impl HashKey {
    /// Fewest bytes: less could be guessed.
    pub const FEWEST_BYTES: usize = 16;

    /// From the content of a file, white space around it cut. `None` if that is too short.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.trim_ascii();
        (bytes.len() >= Self::FEWEST_BYTES).then(|| Self(bytes.to_vec()))
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A rule of the operator's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnRule {
    /// What its marks and its counter are called: lower-case letters, digits and `_`.
    pub name: String,
    /// What it finds, in the syntax of the crate `regex`.
    pub regex: String,
    /// Where it looks; empty for everywhere.
    pub fields: Vec<FieldPath>,
    /// What becomes of a find.
    pub action: Action,
}

/// What is taken out, where, and what takes its place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// Built-in detectors that look.
    pub detect: Vec<Detector>,
    /// Where they look; empty for everywhere.
    pub fields: Vec<FieldPath>,
    /// What becomes of what they find.
    pub action: Action,
    /// Members of objects that go with all that is in them.
    pub drop_fields: Vec<FieldPath>,
    /// Further rules.
    pub own: Vec<OwnRule>,
    /// For [`Action::Hash`].
    pub hash_key: Option<HashKey>,
}

impl Rules {
    /// Whether they never alter anything.
    pub fn are_off(&self) -> bool {
        self.detect.is_empty() && self.own.is_empty() && self.drop_fields.is_empty()
    }
}

/// Why rules cannot be followed. The sentence names the remedy, not the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A regex that cannot be read, or that would take too much memory.
    #[error(
        "{fault}: write it in the syntax of https://docs.rs/regex, which has no look-around and no back-references"
    )]
    Regex {
        /// Which rule.
        rule: String,
        /// What is wrong with it.
        fault: String,
    },
    /// A regex that finds nothing everywhere.
    #[error("it fits an empty text, so it would be found everywhere: let it ask for one character at least")]
    FitsNothing {
        /// Which rule.
        rule: String,
    },
    /// An action that needs a key, and none is there.
    #[error(
        "\"hash\" needs a key: make one (openssl rand -hex 32) and name its file in redact.hash_key_file, or write \"replace\""
    )]
    NoKey {
        /// Which rule, or `None` for the detectors.
        rule: Option<String>,
    },
}

/// Most memory that one own regex may take, in bytes.
const MOST_REGEX_BYTES: usize = 4 << 20;

/// How the drop of a whole field is called among the rules.
const DROPPED: &str = "drop_fields";

/// Rules that are ready to be followed. Equal if the rules are.
#[derive(Debug, Clone)]
pub struct Redactor {
    rules: Rules,
    matchers: Vec<Matcher>,
    /// What takes the place of finds, `[email]` and the like.
    marks: Regex,
    key: Option<hmac::Key>,
}

/// One rule, built-in or own.
#[derive(Debug, Clone)]
struct Matcher {
    name: String,
    finder: Finder,
    fields: Vec<FieldPath>,
    action: Action,
}

/// What was altered in an event. Where it is, as the walk came there.
#[derive(Debug)]
pub enum Seen<'a> {
    /// A string was rewritten.
    Masked {
        /// Its place.
        path: &'a [Step<'a>],
        /// What stood between its quotes.
        before: &'a str,
        /// What does now.
        after: &'a str,
        /// The rule of each find, as an index of [`Redactor::names`].
        rules: &'a [usize],
    },
    /// A member was dropped.
    Dropped {
        /// Its place.
        path: &'a [Step<'a>],
    },
}

impl PartialEq for Redactor {
    fn eq(&self, other: &Self) -> bool {
        self.rules == other.rules
    }
}

impl Eq for Redactor {}

impl Redactor {
    /// Makes rules ready.
    ///
    /// # Errors
    /// The first rule that cannot be followed.
    pub fn new(rules: Rules) -> Result<Self, RuleError> {
        let mut matchers = Vec::new();
        for detector in &rules.detect {
            let name = detector.name().to_owned();
            let finder = Finder::of(*detector).map_err(|fault| regex_error(&name, &fault))?;
            let (fields, action) = (rules.fields.clone(), rules.action);
            if action == Action::Hash && rules.hash_key.is_none() {
                return Err(RuleError::NoKey { rule: None });
            }
            matchers.push(Matcher {
                name,
                finder,
                fields,
                action,
            });
        }
        for own in &rules.own {
            if own.action == Action::Hash && rules.hash_key.is_none() {
                return Err(RuleError::NoKey {
                    rule: Some(own.name.clone()),
                });
            }
            matchers.push(Matcher {
                name: own.name.clone(),
                finder: Finder::Own(own_regex(own)?),
                fields: own.fields.clone(),
                action: own.action,
            });
        }
        // All names there could be: what another configuration put in is no find either.
        let of_detectors = Detector::ALL.iter().map(|detector| detector.name().to_owned());
        let of_rules = rules.own.iter().map(|own| regex::escape(&own.name));
        let names: Vec<String> = of_detectors.chain(of_rules).collect();
        let marks = format!(
            r"\[(?:{})(?::[0-9a-f]{{{}}})?\]",
            names.join("|"),
            mask::HASH_DIGITS
        );
        Ok(Self {
            marks: Regex::new(&marks).map_err(|fault| regex_error("marks", &fault))?,
            key: rules
                .hash_key
                .as_ref()
                .map(|key| hmac::Key::new(hmac::HMAC_SHA256, &key.0)),
            rules,
            matchers,
        })
    }

    /// The names of all rules; the last is that of dropped fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.matchers
            .iter()
            .map(|matcher| matcher.name.as_str())
            .chain([DROPPED])
    }

    /// The event without what the rules take out; `None` if they find nothing in it. What is not JSON comes back as
    /// something that is not JSON.
    pub fn apply(&self, event: &[u8]) -> Option<Vec<u8>> {
        self.apply_and_tell(event, &mut |_| {})
    }

    /// The same, and tells what was altered, in order.
    pub fn apply_and_tell(&self, event: &[u8], seen: &mut dyn FnMut(Seen<'_>)) -> Option<Vec<u8>> {
        // What is not UTF-8 is never stored.
        let text = std::str::from_utf8(event).ok()?;
        Walk::new(self, text, seen).run()
    }
}

fn own_regex(rule: &OwnRule) -> Result<Regex, RuleError> {
    let built = RegexBuilder::new(&rule.regex)
        .size_limit(MOST_REGEX_BYTES)
        .build();
    let regex = built.map_err(|fault| regex_error(&rule.name, &fault))?;
    match regex.is_match("") {
        true => Err(RuleError::FitsNothing {
            rule: rule.name.clone(),
        }),
        false => Ok(regex),
    }
}

fn regex_error(rule: &str, fault: &regex::Error) -> RuleError {
    let whole = fault.to_string();
    // Of a syntax error the last line alone says what is wrong; those before draw where.
    let last = whole.lines().last().unwrap_or_default();
    RuleError::Regex {
        rule: rule.to_owned(),
        fault: last.trim().trim_start_matches("error: ").to_owned(),
    }
}

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod tests;
