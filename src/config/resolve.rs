//! From raw values to [`Settings`]: types first, then the rules that hold between keys. Every mistake is collected.
use super::keys::{KEYS, Key, PROJECT_KEY};
use super::layers::{self, Raw};
use super::mistakes::{Mistake, Warning};
use super::origins::Origins;
use super::values::{self, Datum};
use super::{Sources, credentials, files, rules, trust};
use crate::ids::ProjectId;
use crate::redact::HashKey;
use crate::secret::Secret;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A resolved value and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    pub(super) key: &'static Key,
    /// What the `<...>` of its key stands for, where it has one.
    pub(super) of: Option<String>,
    pub(super) datum: Datum,
    pub(super) origin: String,
}

/// Everything that could be read, by dotted path, and everything that is wrong.
#[derive(Debug)]
pub(super) struct Resolver {
    pub(super) values: BTreeMap<String, Resolved>,
    pub(super) mistakes: Vec<Mistake>,
    pub(super) warnings: Vec<Warning>,
    pub(super) file: Option<PathBuf>,
    /// What a reload has to read again.
    pub(super) origins: Origins,
}

/// What a built-in default says of its origin.
pub(super) const BUILT_IN: &str = "default";

/// The origin of a default that follows from something else.
pub(super) fn derived_from(what: &str) -> String {
    format!("{BUILT_IN}, from {what}")
}

fn is_default(origin: &str) -> bool {
    origin == BUILT_IN || origin.starts_with("default, from ")
}

impl Resolver {
    /// Gathers and reads all keys; the rules between them are not looked at yet.
    pub(super) fn new(sources: &Sources) -> Self {
        let mut mistakes = Vec::new();
        let (raw, config_file) = layers::gather(sources, &mut mistakes);
        let Raw {
            leaves,
            file,
            warnings,
        } = raw;
        let origins = Origins {
            file: config_file,
            ..Origins::default()
        };
        let mut resolver = Self {
            values: BTreeMap::new(),
            mistakes,
            warnings,
            file,
            origins,
        };
        for (path, leaf) in leaves {
            let origin = leaf.origin.unwrap_or_else(|| BUILT_IN.to_owned());
            match values::read(leaf.key, &leaf.kind) {
                Ok(datum) => {
                    let resolved = Resolved {
                        key: leaf.key,
                        of: leaf.of,
                        datum,
                        origin,
                    };
                    resolver.values.insert(path, resolved);
                }
                Err(sentence) => {
                    resolver.mistakes.push(Mistake::new(&path, &origin, sentence));
                    // Written all the same: what is computed where it is absent must not take its place.
                    let resolved = Resolved {
                        key: leaf.key,
                        of: leaf.of,
                        datum: Datum::Nothing,
                        origin,
                    };
                    resolver.values.insert(path, resolved);
                }
            }
        }
        resolver.compute(sources);
        credentials::fill_in(&mut resolver, sources);
        resolver
    }

    /// Fills in the two defaults that depend on the surroundings.
    fn compute(&mut self, sources: &Sources) {
        let folder = |name: &str| sources.folder(name).map(|path| (path, derived_from(name)));
        if self.text("spool.path").is_none() {
            let (path, origin) =
                folder("STATE_DIRECTORY").unwrap_or_else(|| (PathBuf::from("./data"), BUILT_IN.to_owned()));
            self.put("spool.path", path, origin);
        }
        if !self.values.contains_key("intake.unix") {
            let (path, origin) = folder("RUNTIME_DIRECTORY")
                .or_else(|| folder("XDG_RUNTIME_DIR"))
                .unwrap_or_else(|| {
                    (
                        self.path("spool.path").unwrap_or_default(),
                        derived_from("spool.path"),
                    )
                });
            self.put("intake.unix", path.join("phosphod.sock"), origin);
        }
    }

    fn put(&mut self, path: &str, value: PathBuf, origin: String) {
        if let Some(key) = KEYS.iter().find(|key| key.path == path) {
            self.put_at(path.to_owned(), key, None, value, origin);
        }
    }

    /// Puts a path where nobody wrote a value; `of` is what the `<...>` of the key stands for.
    pub(super) fn put_at(
        &mut self,
        path: String,
        key: &'static Key,
        of: Option<String>,
        value: PathBuf,
        origin: String,
    ) {
        let datum = Datum::Text(value.display().to_string());
        let resolved = Resolved {
            key,
            of,
            datum,
            origin,
        };
        self.values.insert(path, resolved);
    }

    fn datum(&self, path: &str) -> Option<&Datum> {
        self.values.get(path).map(|resolved| &resolved.datum)
    }

    pub(super) fn text(&self, path: &str) -> Option<&str> {
        match self.datum(path)? {
            Datum::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn path(&self, path: &str) -> Option<PathBuf> {
        self.text(path).map(PathBuf::from)
    }

    pub(super) fn number(&self, path: &str) -> Option<u64> {
        match self.datum(path)? {
            Datum::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn time(&self, path: &str) -> Option<Duration> {
        match self.datum(path)? {
            Datum::Time(duration) => Some(*duration),
            _ => None,
        }
    }

    pub(super) fn flag(&self, path: &str) -> Option<bool> {
        match self.datum(path)? {
            Datum::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    pub(super) fn address(&self, path: &str) -> Option<std::net::SocketAddr> {
        match self.datum(path)? {
            Datum::Address(address) => Some(*address),
            _ => None,
        }
    }

    /// The texts of a list; none where it is not set.
    pub(super) fn list(&self, path: &str) -> &[String] {
        match self.datum(path) {
            Some(Datum::List(texts)) => texts,
            _ => &[],
        }
    }

    pub(super) fn secret(&self, path: &str) -> Option<Secret> {
        match self.datum(path)? {
            Datum::Secret(secret) => Some(secret.clone()),
            _ => None,
        }
    }

    /// Where a key's value came from.
    pub(super) fn origin(&self, path: &str) -> &str {
        self.values
            .get(path)
            .map_or(BUILT_IN, |resolved| &resolved.origin)
    }

    /// Whether a mistake about a key is known already.
    pub(super) fn is_wrong(&self, path: &str) -> bool {
        self.mistakes.iter().any(|mistake| mistake.subject == path)
    }

    /// Notes a mistake about a key, with its origin.
    pub(super) fn wrong(&mut self, path: &str, sentence: impl Into<String>) {
        let origin = self.origin(path).to_owned();
        self.mistakes.push(Mistake::new(path, origin, sentence));
    }

    /// Notes what is most likely not meant.
    pub(super) fn warn(&mut self, path: &str, is_hint: bool, sentence: impl Into<String>) {
        let origin = self.origin(path).to_owned();
        let about = Mistake::new(path, origin, sentence);
        self.warnings.push(Warning { about, is_hint });
    }

    /// Whether a person set a key, or tried to.
    pub(super) fn is_set(&self, path: &str) -> bool {
        self.values
            .get(path)
            .is_some_and(|resolved| !is_default(&resolved.origin))
            || self.is_wrong(path)
    }

    /// Whether a person set a key to a value, rather than to "".
    pub(super) fn is_given(&self, path: &str) -> bool {
        self.is_set(path) && self.datum(path) != Some(&Datum::Nothing)
    }

    /// Notes a mistake if there is one.
    pub(super) fn note<T>(&mut self, path: &str, result: Result<T, String>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(sentence) => {
                self.wrong(path, sentence);
                None
            }
        }
    }

    /// Reads the secret in the file that a key names.
    pub(super) fn secret_file(&mut self, path: &str) -> Option<Secret> {
        let file = self.path(path)?;
        let secret = files::secret(&file);
        self.warn_of_readers(path, &file);
        self.note(path, secret)
    }

    /// Says so where every user may read the secret in the file that a key names.
    fn warn_of_readers(&mut self, path: &str, file: &Path) {
        if trust::others_read(file) {
            let sentence = format!("{} may be read by every user: chmod o-r it", file.display());
            self.warn(path, false, sentence);
        }
    }

    /// The paths under which a key with a `<...>` was written, and what that stands for in each.
    pub(super) fn written(&self, key: &str) -> Vec<(String, String)> {
        let written = self
            .values
            .iter()
            .filter(|(_, resolved)| resolved.key.path == key);
        written
            .filter_map(|(path, resolved)| Some((path.clone(), resolved.of.clone()?)))
            .collect()
    }

    /// Reads the key for hashes in the file that a key names.
    pub(super) fn hash_key_file(&mut self, path: &str) -> Option<HashKey> {
        let file = self.path(path)?;
        let key = files::hash_key(&file);
        self.warn_of_readers(path, &file);
        self.note(path, key)
    }

    /// The default project.
    pub(super) fn project(&mut self) -> Option<ProjectId> {
        let text = self.text("upstream.project_id")?.to_owned();
        let project = ProjectId::from_client(&text).map_err(|fault| fault.to_string());
        self.note("upstream.project_id", project)
    }

    /// The keys of single projects.
    pub(super) fn project_keys(&mut self) -> BTreeMap<ProjectId, Secret> {
        let written = self.written(PROJECT_KEY);
        let mut keys = BTreeMap::new();
        for (path, id) in written {
            let project = ProjectId::from_client(&id).map_err(|fault| fault.to_string());
            let project = self.note(&path, project);
            let secret = self.secret_file(&path);
            if let (Some(project), Some(secret)) = (project, secret) {
                keys.insert(project, secret);
            }
        }
        keys
    }

    /// The trusted certificates are read to see that they can be; the client reads them again.
    pub(super) fn check_files(&mut self) {
        if let Some(path) = self.path("upstream.ca_file") {
            let checked = files::certificates(&path);
            self.note("upstream.ca_file", checked);
        }
    }

    /// Looks at the rules that hold between keys.
    pub(super) fn check_rules(&mut self) {
        rules::check(self);
    }
}
