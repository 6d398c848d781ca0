//! What a configuration was read from, so that a reload reads the same again and never goes on with
//! less.
//!
//! A file that is away for a moment, because an editor or a deployment replaces it, must not look
//! like the wish to go on with the built-in defaults: events for a test server would leave for the
//! public API.
use super::mistakes::Mistake;
use super::{file, files};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The file and the credentials that a configuration came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    /// The file; `None` if there was none.
    pub(super) file: Option<ConfigFile>,
    /// The secrets that systemd handed over and that were used, by the key that each stands for.
    pub(super) credentials: BTreeMap<String, PathBuf>,
}

/// A configuration file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConfigFile {
    pub(super) path: PathBuf,
    /// It gives its text only once: a pipe, such as a process substitution.
    pub(super) once: bool,
    /// There was at least one value in it.
    pub(super) has_values: bool,
}

impl Origins {
    /// Reads the file again. Without one at the start there is none now.
    pub(super) fn read_again(&self) -> Result<Option<file::Text>, Mistake> {
        let Some(known) = &self.file else {
            return Ok(None);
        };
        if known.once {
            let sentence = "was read from a pipe at the start, and a pipe gives its text only once: restart the daemon, or \
                            name a file with --config";
            return Err(mistake(&known.path, sentence));
        }
        match file::read_plain(&known.path)? {
            Some(text) => Ok(Some(text)),
            None => Err(mistake(
                &known.path,
                "is not there any more: put it back and reload, or restart the daemon to go on without it",
            )),
        }
    }

    /// What is wrong with a file that was read again, if anything is: it holds nothing, and did
    /// before.
    pub(super) fn emptied(&self, now: &ConfigFile) -> Option<Mistake> {
        let had_values = self.file.as_ref().is_some_and(|known| known.has_values);
        (had_values && !now.has_values).then(|| {
            mistake(
                &now.path,
                "holds no setting any more, and did before: write it again and reload, or restart the daemon to go on with \
                 the built-in defaults",
            )
        })
    }

    /// What is wrong with the credentials that are found again, if anything is: one that was used
    /// is gone, or empty.
    pub(super) fn lost_credentials(&self, now: &BTreeMap<String, PathBuf>) -> Vec<Mistake> {
        let gone = |key: &str, path: &Path| !now.contains_key(key) && files::is_blank(path);
        let lost = self.credentials.iter().filter(|(key, path)| gone(key, path));
        lost.map(|(key, path)| {
            let sentence = format!(
                "{} was handed over at the start and is gone or empty: put it back and reload, or restart the daemon to go \
                 on without it",
                path.display()
            );
            Mistake::new(key, "CREDENTIALS_DIRECTORY", sentence)
        })
        .collect()
    }

    /// The file that a start would read now, where that is another one than this.
    pub(super) fn passed_over(&self) -> Option<PathBuf> {
        let found = file::first_of_the_usual()?;
        let known = self.file.as_ref().map(|known| known.path.as_path());
        (known != Some(&found)).then_some(found)
    }
}

fn mistake(path: &Path, sentence: &str) -> Mistake {
    Mistake::new(path.display().to_string(), "", sentence)
}
