//! What is wrong with a configuration, all of it at once.
use crate::secret::Secrets;
use std::borrow::Cow;
use std::fmt;

/// One thing that is wrong: which key, where it was written, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key, or what else the sentence is about (a file, an argument).
    pub subject: String,
    /// File and line, environment variable or `--set`; empty where the subject says it already.
    pub origin: String,
    /// What is wrong and the remedy. Never holds a secret.
    pub sentence: String,
}

impl Mistake {
    pub(super) fn new(
        subject: impl Into<String>,
        origin: impl Into<String>,
        sentence: impl Into<String>,
    ) -> Self {
        Self {
            subject: subject.into(),
            origin: origin.into(),
            sentence: sentence.into(),
        }
    }
}

impl Mistake {
    /// Masks what is known to be secret: it can stand where another value belongs.
    pub(super) fn mask(&mut self, secrets: &Secrets) {
        for text in [&mut self.subject, &mut self.origin, &mut self.sentence] {
            if let Cow::Owned(masked) = secrets.mask(text) {
                *text = masked;
            }
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin.as_str() {
            "" => write!(f, "{}: {}", self.subject, self.sentence),
            origin => write!(f, "{} ({origin}): {}", self.subject, self.sentence),
        }
    }
}

/// Something that can be followed, but is most likely not what was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Which key, where it was written, what to do.
    pub about: Mistake,
    /// Whether the running daemon shows it among the hints of `/status`, too: it is almost surely a slip.
    pub is_hint: bool,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.about.fmt(f)
    }
}

/// Every mistake of a configuration; at least one. Prints one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub(super) Vec<Mistake>);

impl Mistakes {
    /// The mistakes: first what could not be read, then the values, then the rules between them.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.0.iter()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}
