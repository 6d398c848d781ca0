//! Which strings of an event a rule covers: paths such as `input`, `metadata.*` or `raw_input.messages.*.content`.
use std::borrow::Cow;
use std::fmt;

/// Most steps of a path. What lies deeper is covered by what leads to it.
pub(super) const MOST_STEPS: usize = 32;

/// Identities: the API tells tasks, sessions and versions by them, so they are sent as they came, whatever the rules.
const IDENTITIES: [&str; 6] = [
    "task_id",
    "session_id",
    "project_id",
    "version_id",
    "step_id",
    "test_id",
];

/// The judgement of a task, and its two values.
const JUDGEMENTS: [&str; 2] = ["flag", "human_eval"];

/// Covered only where it is named: it is what users are counted by.
const ON_DEMAND: &str = "user_id";

/// The one field that the API insists on.
const REQUIRED: &str = "input";

/// One step on the way to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<'t> {
    /// A member of an object, by its key.
    Key(Cow<'t, str>),
    /// An element of a list, by its place from 0.
    Index(usize),
}

/// A way as people write it: `metadata.user.mails.0`.
pub fn dotted(path: &[Step<'_>]) -> String {
    let steps = path.iter().map(|step| match step {
        Step::Key(key) => key.to_string(),
        Step::Index(index) => index.to_string(),
    });
    steps.collect::<Vec<_>>().join(".")
}

/// A path out of the configuration: it covers what it leads to and all below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPath(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Any,
    Key(String),
}

/// Why a text is no path; the sentence names the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing between two dots, or nothing at all.
    #[error("{0:?} has an empty step: write a path such as \"metadata.*\"")]
    Empty(String),
    /// It has marks in it that no path of ours has: a list, JSONPath, a JSON pointer, something in quotes.
    #[error(
        "{0:?} is no path: write keys with dots between them, such as \"metadata.headers\", without quotes, brackets, commas \
         and blanks around them; * stands for one whole key or list element"
    )]
    Odd(String),
    /// Too many steps.
    #[error("{0:?} has more than {MOST_STEPS} steps: end it earlier, what lies below is covered too")]
    Long(String),
    /// An identity or the judgement.
    #[error("{0:?} is what the API tells tasks apart by, so it is always sent as it came: leave it out")]
    Protected(String),
    /// It may not be dropped.
    #[error(
        "\"input\" cannot be dropped, because the API refuses events without: empty it by a rule with action \"drop\""
    )]
    Required,
}

impl FieldPath {
    /// Reads a path: keys parted by dots, `*` for any one key or list element, a number for a key or the place of an element.
    /// A key with a dot cannot be named, nor one with quotes, brackets, commas or blanks around it: such a text is more likely
    /// a list or a path of another kind, which would fit nothing.
    ///
    /// # Errors
    /// An empty step, an odd one, too many, or a field that is never altered.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let parts: Vec<Part> = text
            .split('.')
            .map(|part| match part {
                "*" => Part::Any,
                key => Part::Key(key.to_owned()),
            })
            .collect();
        let is_empty = |part: &Part| matches!(part, Part::Key(key) if key.trim().is_empty());
        match parts.as_slice() {
            parts if parts.iter().any(is_empty) => Err(PathError::Empty(text.to_owned())),
            parts if parts.iter().any(is_odd) => Err(PathError::Odd(text.to_owned())),
            parts if parts.len() > MOST_STEPS => Err(PathError::Long(text.to_owned())),
            [Part::Key(key)] if IDENTITIES.contains(&key.as_str()) || JUDGEMENTS.contains(&key.as_str()) => {
                Err(PathError::Protected(text.to_owned()))
            }
            _ => Ok(Self(parts)),
        }
    }

    /// The same for what is to be dropped whole.
    ///
    /// # Errors
    /// Those of [`FieldPath::parse`], and `input`.
    pub fn parse_dropped(text: &str) -> Result<Self, PathError> {
        match text {
            REQUIRED => Err(PathError::Required),
            text => Self::parse(text),
        }
    }

    /// Whether the path leads to the value or to something around it.
    fn covers(&self, path: &[Step<'_>]) -> bool {
        self.0.len() <= path.len()
            && self.0.iter().zip(path).all(|(part, step)| part.fits(step))
            && self.may_begin(path)
    }

    /// Whether the path leads to this member of an object exactly, and the member may be dropped.
    pub(super) fn drops(&self, path: &[Step<'_>]) -> bool {
        let is_needed = matches!(path, [Step::Key(key)] if key == REQUIRED || is_kept(key));
        self.0.len() == path.len()
            && !is_needed
            && matches!(path.last(), Some(Step::Key(_)))
            && self.covers(path)
    }

    /// A `*` does not stand for what must be named.
    fn may_begin(&self, path: &[Step<'_>]) -> bool {
        let on_demand = matches!(path.first(), Some(Step::Key(key)) if key == ON_DEMAND);
        !on_demand || self.0.first() != Some(&Part::Any)
    }
}

impl Part {
    fn fits(&self, step: &Step<'_>) -> bool {
        match (self, step) {
            (Part::Any, _) => true,
            (Part::Key(wanted), Step::Key(key)) => wanted == key,
            // As `phosphod redact test` shows it.
            (Part::Key(wanted), Step::Index(index)) => wanted.parse() == Ok(*index),
        }
    }
}

/// Whether a step is written as nobody writes a key.
fn is_odd(part: &Part) -> bool {
    let Part::Key(key) = part else {
        return false;
    };
    key == "$" || key.trim() != key || key.contains(|c: char| c.is_control() || "\"'`[]{}(),*\\".contains(c))
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, part) in self.0.iter().enumerate() {
            let dot = if place == 0 { "" } else { "." };
            match part {
                Part::Any => write!(f, "{dot}*")?,
                Part::Key(key) => write!(f, "{dot}{key}")?,
            }
        }
        Ok(())
    }
}

/// Whether a rule for these fields covers the string at `path`; no fields are all but `user_id`. What stands in no object is always covered: no path could name it.
pub(super) fn cover(fields: &[FieldPath], path: &[Step<'_>]) -> bool {
    match path.first() {
        Some(Step::Key(key)) if fields.is_empty() => key != ON_DEMAND,
        Some(Step::Key(_)) => fields.iter().any(|field| field.covers(path)),
        _ => true,
    }
}

/// Whether the string at `path` is sent as it came, whatever the rules. `content` is what stands between its quotes.
pub(super) fn is_protected(path: &[Step<'_>], content: &str) -> bool {
    match path {
        [Step::Key(key)] if IDENTITIES.contains(&key.as_ref()) => true,
        [Step::Key(key)] if JUDGEMENTS.contains(&key.as_ref()) => matches!(content, "success" | "failure"),
        _ => false,
    }
}

fn is_kept(key: &str) -> bool {
    IDENTITIES.contains(&key) || JUDGEMENTS.contains(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<Step<'_>> {
        let steps = text.split('.').filter(|step| !step.is_empty());
        steps
            .map(|step| match step.parse() {
                Ok(index) => Step::Index(index),
                Err(_) => Step::Key(step.into()),
            })
            .collect()
    }

    fn covers(field: &str, at: &str) -> bool {
        cover(&[FieldPath::parse(field).expect(field)], &path(at))
    }

    #[test]
    fn a_path_covers_what_it_leads_to_and_all_below() {
        for (field, at) in [
            ("input", "input"),
            ("metadata", "metadata.a.b"),
            ("metadata.*", "metadata.a"),
            ("metadata.*", "metadata.a.0.b"),
            ("raw_input.messages.*.content", "raw_input.messages.3.content"),
            ("*", "anything.at.all"),
            ("user_id", "user_id"),
            ("metadata.0", "metadata.0"),
            ("raw_input.1.content", "raw_input.1.content"),
        ] {
            assert!(covers(field, at), "{field} {at}");
        }
        for (field, at) in [
            ("input", "output"),
            ("metadata.*", "metadata"),
            ("metadata.a", "metadata.b"),
            ("metadata.0", "metadata.1"),
            ("metadata.00", "metadata.x"),
            ("*", "user_id"),
            ("raw_input.*.content", "raw_input.0.role"),
        ] {
            assert!(!covers(field, at), "{field} {at}");
        }
    }

    #[test]
    fn what_only_looks_like_a_path_is_refused() {
        for odd in [
            "[\"metadata.headers\"]",
            "metadata[0].x",
            "metadata['x']",
            "\"input\"",
            "'input'",
            "`input`",
            "$.input",
            "metadata. x",
            " input",
            "metadata.x ",
            "{input}",
            "input,output",
            "meta*",
            "**",
            "metadata.\\*",
            "metadata\n.x",
            "len(input)",
        ] {
            assert_eq!(
                FieldPath::parse(odd),
                Err(PathError::Odd(odd.to_owned())),
                "{odd}"
            );
            assert_eq!(
                FieldPath::parse_dropped(odd),
                Err(PathError::Odd(odd.to_owned())),
                "{odd}"
            );
        }
        for fine in [
            "metadata.First Name",
            "metadata.x-y",
            "metadata.$schema",
            "metadata.x:y",
            "metadata.ü",
            "metadata.7",
        ] {
            assert!(FieldPath::parse(fine).is_ok(), "{fine}");
        }
    }

    #[test]
    fn without_fields_all_is_covered_but_the_user_and_identities_never_are() {
        assert!(cover(&[], &path("notes")) && cover(&[], &path("metadata.user_id")));
        assert!(!cover(&[], &path("user_id")));
        assert!(cover(&[FieldPath::parse("input").expect("a path")], &[]));
        for kept in IDENTITIES {
            assert!(is_protected(&path(kept), "bob@example.com"), "{kept}");
            assert!(
                !is_protected(&path(&format!("metadata.{kept}")), "bob@example.com"),
                "{kept}"
            );
        }
        assert!(is_protected(&path("flag"), "success"));
        assert!(!is_protected(&path("flag"), "bob@example.com"));
    }

    #[test]
    fn what_must_stay_cannot_be_named_or_dropped() {
        for wrong in ["", "metadata.", ".a", "a..b", "task_id", "session_id", "flag"] {
            assert!(FieldPath::parse(wrong).is_err(), "{wrong}");
        }
        assert!(FieldPath::parse(&"a.".repeat(MOST_STEPS)).is_err());
        assert_eq!(FieldPath::parse_dropped("input"), Err(PathError::Required));
        let any = FieldPath::parse_dropped("*").expect("a path");
        assert!(any.drops(&path("output")) && !any.drops(&path("input")) && !any.drops(&path("task_id")));
        assert!(!any.drops(&path("output.a")) && !any.drops(&path("user_id")));
        let deep = FieldPath::parse_dropped("metadata.*.secret").expect("a path");
        assert!(deep.drops(&path("metadata.2.secret")) && !deep.drops(&path("metadata.2")));
        assert_eq!(deep.to_string(), "metadata.*.secret");
    }
}
