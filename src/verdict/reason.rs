//! Why something went wrong, in two versions.

use std::fmt;

/// A sentence of ours about an answer. Prints as what anybody may see: the class of the fault and its status. The
/// upstream's own words can quote an event, so they are for its dead letter alone ([`Reason::for_letter`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    shown: String,
    /// With the upstream's words, if there are any.
    told: Option<String>,
}

impl Reason {
    /// `sentence` makes it of what stands for the answer: its status, or its status and words.
    pub(super) fn new(status: u16, words: Option<String>, sentence: impl Fn(&str) -> String) -> Self {
        Self {
            shown: sentence(&status.to_string()),
            told: words.map(|words| sentence(&format!("{status}: {words}"))),
        }
    }

    /// The whole of it, for a dead letter.
    pub fn for_letter(self) -> String {
        self.told.unwrap_or(self.shown)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl From<String> for Reason {
    fn from(shown: String) -> Self {
        Self { shown, told: None }
    }
}

impl From<&str> for Reason {
    fn from(shown: &str) -> Self {
        shown.to_owned().into()
    }
}
