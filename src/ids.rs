//! Names that travel through every layer: projects, tasks, lanes and sequence numbers.

mod padding;
mod unfilled;

pub use padding::Padding;
pub use unfilled::Unfilled;

use std::fmt;
use std::sync::Arc;

/// Longest project or task id that is accepted, in bytes.
///
/// The API sets no bound of its own; ours keeps keys, URLs and labels small.
pub const MAX_ID_BYTES: usize = 512;

/// Why a text is not an id. The sentence names the remedy, and holds no text of the client's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The id is the empty string.
    #[error("{0} is empty: send the id itself, or leave the field out")]
    Empty(&'static str),
    /// A client sent a variable that was never filled in, such as `undefined` or `$TASK_ID`.
    #[error("{0} is {1}")]
    Unfilled(&'static str, Unfilled),
    /// The id is over [`MAX_ID_BYTES`].
    #[error("{0} is {1} bytes long: ids of up to {MAX_ID_BYTES} bytes are accepted")]
    TooLong(&'static str, usize),
    /// The id is `.` or `..`, which a URL path resolves away.
    #[error("{0} is {1:?}, which cannot stand in a URL: choose another")]
    Dots(&'static str, &'static str),
    /// The id holds a control character, which no URL path can carry.
    #[error("{0} holds a control character: remove it")]
    Control(&'static str),
    /// No URL of the API names the task ([`TaskId::is_addressable`]).
    #[error(
        "{0} is an id that no URL of the API can name, because it holds a slash or is \".\" or \"..\": choose ids without a slash"
    )]
    Unaddressable(&'static str),
    /// The id has quotes or blanks around it, which a file of variables or a shell left there.
    #[error(
        "{0} has {1} around it: leave them off (a file of variables, such as that of docker --env-file, passes them on)"
    )]
    Padded(&'static str, Padding),
}

fn check(what: &'static str, text: &str) -> Result<(), IdError> {
    match text {
        "" => Err(IdError::Empty(what)),
        t if t.len() > MAX_ID_BYTES => Err(IdError::TooLong(what, t.len())),
        t if t.chars().any(char::is_control) => Err(IdError::Control(what)),
        _ => Ok(()),
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            const WHAT: &'static str = $what;

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($what, ":{}"), &self.0)
            }
        }
    };
}

id!(
    /// A phospho project, as it stands in the URL of a log request.
    ProjectId,
    "project_id"
);
id!(
    /// A phospho task: one logged event, and what feedback is about. The API stores each task id once
    /// (contract.md section 4), which makes resending harmless.
    TaskId,
    "task_id"
);

impl ProjectId {
    /// Checks the text: not empty, not `undefined`, not `.` or `..`, at most [`MAX_ID_BYTES`], no control characters.
    ///
    /// # Errors
    /// The first of these that does not hold.
    pub fn new(text: &str) -> Result<Self, IdError> {
        match text {
            "undefined" => Err(IdError::Unfilled(Self::WHAT, Unfilled::Word("undefined"))),
            "." => Err(IdError::Dots(Self::WHAT, ".")),
            ".." => Err(IdError::Dots(Self::WHAT, "..")),
            _ => check(Self::WHAT, text).map(|()| Self(text.into())),
        }
    }

    /// The id as a client sends it or a person writes it. In addition to the checks of [`ProjectId::new`], no quote and
    /// no blank may stand around it: `docker run --env-file` passes those of its file on as part of the value, and no
    /// project of the API has such an id. What an earlier version stored under such an id is read with `new`.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn from_client(text: &str) -> Result<Self, IdError> {
        let id = Self::new(text)?;
        id.check_unpadded()?;
        Ok(id)
    }

    /// Whether nothing stands around the id.
    ///
    /// # Errors
    /// [`IdError::Padded`] for quotes or blanks.
    pub fn check_unpadded(&self) -> Result<(), IdError> {
        match Padding::of(&self.0) {
            Some(padding) => Err(IdError::Padded("project_id", padding)),
            None => Ok(()),
        }
    }
}

impl TaskId {
    /// Checks the text: not empty, at most [`MAX_ID_BYTES`], no control characters.
    ///
    /// # Errors
    /// The first of these that does not hold.
    pub fn new(text: &str) -> Result<Self, IdError> {
        check(Self::WHAT, text).map(|()| Self(text.into()))
    }

    /// The same for an id that a client sends: nor may it be a variable that was never filled in ([`Unfilled`]).
    ///
    /// # Errors
    /// The first of these that does not hold.
    pub fn from_client(text: &str) -> Result<Self, IdError> {
        match Unfilled::of(text) {
            Some(shape) => Err(IdError::Unfilled(Self::WHAT, shape)),
            None => Self::new(text),
        }
    }

    /// Whether a URL of the API can name the task. The API decodes a path before it routes it, so a coded slash parts the
    /// path all the same; and HTTP clients resolve `.` and `..` away, coded or not. Such a task is stored, but
    /// can neither be read back nor be given feedback.
    pub fn is_addressable(&self) -> bool {
        !self.0.contains('/') && !matches!(&*self.0, "." | "..")
    }

    /// Whether no router, proxy or firewall has a reason to treat the id's URL as anything special: ASCII letters, digits,
    /// `-` and `_`, which are never percent-encoded.
    pub fn is_plain(&self) -> bool {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        self.0.bytes().all(plain)
    }
}

/// What a lane carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Log events, sent in batches.
    Log,
    /// User feedback, sent one by one, after the logs that came before it.
    Feedback,
}

impl Kind {
    /// `log` or `feedback`, as used in metrics, status and NDJSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Log => "log",
            Kind::Feedback => "feedback",
        }
    }
}

/// A queue of its own, with its own retries and parking: one project's logs, or its feedback.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Lane {
    /// The project that the events go to.
    pub project: ProjectId,
    /// Logs or feedback.
    pub kind: Kind,
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.kind.as_str())
    }
}

/// Place of an event in the order of acceptance. One row of numbers serves all lanes, so that
/// feedback can be compared with the logs that came before it. Starts at 1; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_would_collide_or_break_a_url_is_refused_with_the_reason() {
        assert_eq!(TaskId::new(""), Err(IdError::Empty("task_id")));
        let undefined = Unfilled::Word("undefined");
        assert_eq!(
            ProjectId::new("undefined"),
            Err(IdError::Unfilled("project_id", undefined))
        );
        assert_eq!(ProjectId::new(".."), Err(IdError::Dots("project_id", "..")));
        assert_eq!(ProjectId::new("a\nb"), Err(IdError::Control("project_id")));
        assert_eq!(
            TaskId::new(&"x".repeat(513)),
            Err(IdError::TooLong("task_id", 513))
        );
        assert_eq!(TaskId::new("a/b?ü").map(|t| t.to_string()), Ok("a/b?ü".into()));
    }

    #[test]
    fn a_clients_variable_that_was_never_filled_in_is_refused_but_read_back_from_disk() {
        for text in ["undefined", "$TASK_ID", "null", "{{task_id}}"] {
            assert!(
                matches!(TaskId::from_client(text), Err(IdError::Unfilled("task_id", _))),
                "{text}"
            );
            assert!(TaskId::new(text).is_ok(), "{text}");
        }
        assert_eq!(TaskId::from_client(""), Err(IdError::Empty("task_id")));
        assert!(TaskId::from_client("order/17").is_ok());
    }

    #[test]
    fn only_a_slash_and_dot_segments_keep_an_id_out_of_every_url() {
        let of = |text: &str| TaskId::new(text).expect("an id");
        for text in ["order/17", "folder/", "/", "/a", "a//b", "../a", ".", ".."] {
            assert!(!of(text).is_addressable(), "{text}");
        }
        for text in [
            "a", "...", ".a", "a.", "a%2Fb", "%", "%2e%2e", "?", "#", "\\", "a b", " ", "ü", ";", "+",
        ] {
            assert!(of(text).is_addressable(), "{text}");
        }
        assert!(of("abc-DEF_9").is_plain());
        for text in ["a.b", "a b", "a%b", "ü", "a/b", "a:b"] {
            assert!(!of(text).is_plain(), "{text}");
        }
    }

    #[test]
    fn a_project_id_with_quotes_or_blanks_is_refused_from_clients_and_read_from_disk() {
        for text in ["\"p\"", "'p'", "p ", " p", "\"p", "p'", "\u{a0}p", "“p”"] {
            assert!(
                matches!(
                    ProjectId::from_client(text),
                    Err(IdError::Padded("project_id", _))
                ),
                "{text:?}"
            );
            assert!(ProjectId::new(text).is_ok(), "{text:?}");
        }
        assert_eq!(
            ProjectId::from_client("undefined"),
            Err(IdError::Unfilled("project_id", Unfilled::Word("undefined")))
        );
        assert!(ProjectId::from_client("my project's id").is_ok());
    }
}
