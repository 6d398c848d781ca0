//! A text that never shows itself: API keys and bearer tokens.

mod known;

pub use known::Secrets;

use std::fmt;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// A secret text. `Debug` and `Display` print `***`; only [`Secret::expose`] gives it away.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Takes a secret as read from a file or the environment; surrounding white space is cut.
    /// Returns `None` where nothing is left.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.into()))
    }

    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares without telling by its duration where the two differ.
    pub fn matches(&self, other: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(other).into()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.0.as_bytes())
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_as_stars_and_compares_by_content() {
        let key = Secret::new(" sk-123\n").expect("not empty");
        assert_eq!(format!("{key} {key:?}"), "*** ***");
        assert!(key.matches(b"sk-123"));
        assert!(!key.matches(b"sk-124"));
        assert!(!key.matches(b"sk-1234"));
        assert!(Secret::new(" \n").is_none());
    }
}
