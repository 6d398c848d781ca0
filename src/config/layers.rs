//! From defaults, file, environment and `--set` to one tree of raw values that remember where they came from.
use super::keys::{self, KEYS, Key, Kind};
use super::mistakes::{Mistake, Warning};
use super::origins::ConfigFile;
use super::{Sources, file, inline, lookup, trust, values};
use ::config::{Config, ConfigError, Map, Source, Value, ValueKind};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const PREFIX: &str = "PHOSPHOD__";

/// The origin of what stands on the command line.
const ARGUMENT: &str = "--set";

/// The SDKs' own variables and the keys that they stand for.
const SDK: [(&str, [&str; 2]); 2] = [
    ("PHOSPHO_API_KEY", ["upstream", "api_key"]),
    ("PHOSPHO_PROJECT_ID", ["upstream", "project_id"]),
];

/// A value as it was written.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pub(super) key: &'static Key,
    /// What its `<...>` stands for, where it has one.
    pub(super) of: Option<String>,
    pub(super) kind: ValueKind,
    /// `None` for a built-in default.
    pub(super) origin: Option<String>,
}

/// All layers in one, by dotted path.
#[derive(Debug, Clone, Default)]
pub(super) struct Raw {
    pub(super) leaves: BTreeMap<String, Leaf>,
    pub(super) file: Option<PathBuf>,
    /// Secrets where others can read them, and a file that was not taken.
    pub(super) warnings: Vec<Warning>,
}

/// One layer, ready to be stacked by the `config` crate.
#[derive(Debug, Clone, Default)]
struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

impl Layer {
    /// A text as it is: the SDKs read their variables in the same way.
    fn set(&mut self, path: &[String], origin: &str, text: &str) {
        let value = Value::new(Some(&origin.to_owned()), text);
        place(&mut self.0, path, value);
    }

    /// A text that may have TOML's form.
    fn read(&mut self, path: &[String], origin: &str, text: &str, mistakes: &mut Vec<Mistake>) {
        match inline::read(path, origin, text) {
            Ok(value) => place(&mut self.0, path, value),
            Err(mistake) => mistakes.push(mistake),
        }
    }
}

/// A table adds to one that is there; any other value takes the place of what is there.
fn merge(table: &mut Map<String, Value>, name: &str, value: Value) {
    match (table.get_mut(name).map(|old| &mut old.kind), value) {
        (
            Some(ValueKind::Table(old)),
            Value {
                kind: ValueKind::Table(new),
                ..
            },
        ) => {
            for (name, value) in new {
                merge(old, &name, value);
            }
        }
        (_, value) => {
            table.insert(name.to_owned(), value);
        }
    }
}

fn place(table: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [last] => merge(table, last, value),
        [first, rest @ ..] => {
            let child = table
                .entry(first.clone())
                .or_insert_with(|| Map::<String, Value>::new().into());
            if !matches!(child.kind, ValueKind::Table(_)) {
                child.kind = ValueKind::Table(Map::new());
            }
            if let ValueKind::Table(table) = &mut child.kind {
                place(table, rest, value);
            }
        }
    }
}

/// Stacks the layers. What cannot be read or is not known goes to `mistakes`.
pub(super) fn gather(sources: &Sources, mistakes: &mut Vec<Mistake>) -> (Raw, Option<ConfigFile>) {
    let read = match &sources.again {
        None => file::read(sources.file.as_deref()),
        Some(origins) => origins.read_again(),
    };
    let read = read.unwrap_or_else(|mistake| {
        mistakes.push(mistake);
        None
    });
    let of = read.as_ref().map(|read| ConfigFile {
        path: read.path.clone(),
        once: read.once,
        has_values: file::parse(&read.path, &read.text).is_ok_and(|values| file::has_values(&values)),
    });
    let mut raw = stack(read.map(|read| (read.path, read.text)), sources, mistakes);
    let is_here = of.as_ref().is_some_and(|of| of.path.is_relative());
    if sources.file.is_none() && !is_here {
        raw.warnings.extend(file::not_taken());
    }
    if let (Some(origins), Some(now), true) = (&sources.again, &of, mistakes.is_empty()) {
        mistakes.extend(origins.emptied(now));
    }
    (raw, of)
}

/// The same with a file that was read.
pub(super) fn stack(file: Option<(PathBuf, String)>, sources: &Sources, mistakes: &mut Vec<Mistake>) -> Raw {
    let (path, from_file) = match file {
        None => (None, Layer::default()),
        Some((path, text)) => {
            let values = file::parse(&path, &text).unwrap_or_else(|found| {
                mistakes.extend(found);
                Map::new()
            });
            (Some(path), Layer(values))
        }
    };
    let mut warnings = Vec::from_iter(exposed_in_file(path.as_deref(), &from_file));
    let layers = [
        from_file,
        sdk(sources, mistakes),
        environment(sources, mistakes),
        arguments(sources, mistakes, &mut warnings),
    ];
    let mut builder = Config::builder();
    for key in KEYS {
        let value = match key.default {
            keys::Default::Text(text) | keys::Default::Bare(text) => Value::new(None, text),
            keys::Default::None | keys::Default::Computed(_) => continue,
        };
        builder = match builder.set_default(key.path, value) {
            Ok(builder) => builder,
            Err(fault) => {
                mistakes.push(Mistake::new(key.path, "built-in default", fault.to_string()));
                return Raw {
                    file: path,
                    ..Raw::default()
                };
            }
        };
    }
    for layer in layers {
        unknown(&mut Vec::new(), &layer.0, None, mistakes);
        builder = builder.add_source(layer);
    }
    let mut raw = Raw {
        file: path,
        warnings,
        ..Raw::default()
    };
    match builder.build() {
        Ok(config) => known(&mut Vec::new(), &config.cache, &mut raw.leaves),
        Err(fault) => mistakes.push(Mistake::new("configuration", "", fault.to_string())),
    }
    raw
}

fn sdk(sources: &Sources, mistakes: &mut Vec<Mistake>) -> Layer {
    let mut layer = Layer::default();
    for (name, path) in SDK {
        match sources.text(name) {
            Ok(Some(text)) if !text.is_empty() => layer.set(&path.map(str::to_owned), name, text),
            Ok(_) => {}
            Err(mistake) => mistakes.push(mistake),
        }
    }
    layer
}

fn environment(sources: &Sources, mistakes: &mut Vec<Mistake>) -> Layer {
    let mut layer = Layer::default();
    for name in sources.env.keys() {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            mistakes.extend(misspelt(name));
            continue;
        };
        let mut path: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
        // A project id keeps its case.
        if let ([upstream, projects, id, ..], Some(written)) = (path.as_mut_slice(), rest.split("__").nth(2))
            && upstream == "upstream"
            && projects == "projects"
        {
            written.clone_into(id);
        }
        match sources.text(name) {
            Ok(Some(text)) => layer.read(&path, name, text, mistakes),
            Ok(None) => {}
            Err(mistake) => mistakes.push(mistake),
        }
    }
    layer
}

/// A variable that spells a key with single underscores would be passed over in silence.
fn misspelt(name: &str) -> Option<Mistake> {
    let rest = name.strip_prefix("PHOSPHOD_")?.to_lowercase();
    let key = KEYS.iter().find(|key| key.path.replace('.', "_") == rest)?;
    let right = format!("{PREFIX}{}", key.path.replace('.', "__").to_uppercase());
    Some(Mistake::new(
        name,
        "environment",
        format!("this name is not read: write {right}"),
    ))
}

fn arguments(sources: &Sources, mistakes: &mut Vec<Mistake>, warnings: &mut Vec<Warning>) -> Layer {
    let mut layer = Layer::default();
    for argument in &sources.set {
        match argument.split_once('=') {
            Some((key, text)) => {
                let mut one = Layer::default();
                one.read(&split(key.trim()), ARGUMENT, text, mistakes);
                exposed_in_argument(&one, mistakes, warnings);
                for (name, value) in one.0 {
                    merge(&mut layer.0, &name, value);
                }
            }
            None => {
                let sentence = "has no \"=\": write --set section.key=value";
                mistakes.push(Mistake::new("--set", "", sentence));
            }
        }
    }
    layer
}

/// Refuses a key on the command line, which every user of the machine can read. A URL with a secret
/// is a warning.
fn exposed_in_argument(layer: &Layer, mistakes: &mut Vec<Mistake>, warnings: &mut Vec<Warning>) {
    for (key, kind) in secrets(&mut Vec::new(), &layer.0) {
        if kind == Kind::Secret {
            let sentence = format!(
                "a secret on the command line can be read by every user of this machine (ps): put it into a file that \
                 {key}_file names, or into the variable PHOSPHO_API_KEY"
            );
            mistakes.push(Mistake::new(key, ARGUMENT, sentence));
        } else {
            let sentence = "a password or a query on the command line can be read by every user of this machine (ps): write \
                            it into the configuration file";
            warnings.push(Warning {
                about: Mistake::new(key, ARGUMENT, sentence),
                is_hint: false,
            });
        }
    }
}

/// Says so where every user may read a file that holds a secret.
fn exposed_in_file(path: Option<&Path>, layer: &Layer) -> Option<Warning> {
    let path = path?;
    let (key, _) = secrets(&mut Vec::new(), &layer.0).into_iter().next()?;
    trust::others_read(path).then(|| Warning {
        about: Mistake::new(
            path.display().to_string(),
            "",
            format!("holds a secret ({key}) and may be read by every user: chmod o-r it"),
        ),
        is_hint: false,
    })
}

/// The keys whose values are secret, or hold what is.
fn secrets(path: &mut Vec<String>, table: &Map<String, Value>) -> Vec<(String, Kind)> {
    let mut found = Vec::new();
    for (name, value) in table {
        path.push(name.clone());
        let kind = lookup::find(path).map(|(key, _)| key.kind);
        match (&value.kind, kind) {
            (ValueKind::Table(inner), _) => found.extend(secrets(path, inner)),
            (ValueKind::String(text), Some(Kind::Secret)) if text.trim().is_empty() => {}
            (_, Some(Kind::Secret)) => found.push((dotted(path), Kind::Secret)),
            (ValueKind::String(text), Some(Kind::Text)) if values::without_secrets(text) != *text => {
                found.push((dotted(path), Kind::Text));
            }
            _ => {}
        }
        path.pop();
    }
    found
}

/// Splits a dotted key; the project id in the middle may hold dots itself.
fn split(key: &str) -> Vec<String> {
    let id = key
        .strip_prefix("upstream.projects.")
        .and_then(|rest| rest.strip_suffix(".api_key_file"));
    match id {
        Some(id) => ["upstream", "projects", id.trim_matches('"'), "api_key_file"]
            .map(str::to_owned)
            .to_vec(),
        None => key.split('.').map(str::to_owned).collect(),
    }
}

/// Finds what no key is called.
fn unknown(
    path: &mut Vec<String>,
    table: &Map<String, Value>,
    origin: Option<&str>,
    mistakes: &mut Vec<Mistake>,
) {
    if table.is_empty() && !path.is_empty() && !lookup::is_section(path) {
        mistakes.push(unknown_mistake(path, origin));
    }
    let mut names: Vec<_> = table.iter().collect();
    names.sort_by_key(|(name, _)| *name);
    for (name, value) in names {
        path.push(name.clone());
        match &value.kind {
            ValueKind::Table(inner) => unknown(path, inner, value.origin(), mistakes),
            _ if lookup::find(path).is_some() => {}
            _ => mistakes.push(unknown_mistake(path, value.origin())),
        }
        path.pop();
    }
}

fn unknown_mistake(path: &[String], origin: Option<&str>) -> Mistake {
    let dotted = dotted(path);
    let sentence = if lookup::is_section(path) {
        format!("this is a section, not a key: write [{dotted}] and its keys below it")
    } else {
        match lookup::nearest(path) {
            Some(near) => format!("unknown key; did you mean {near}?"),
            None => "unknown key: remove it; `phosphod config show` lists all that there are".to_owned(),
        }
    };
    Mistake::new(dotted, origin.unwrap_or_default(), sentence)
}

/// Collects what is known.
fn known(path: &mut Vec<String>, value: &Value, leaves: &mut BTreeMap<String, Leaf>) {
    if let ValueKind::Table(table) = &value.kind {
        for (name, value) in table {
            path.push(name.clone());
            known(path, value, leaves);
            path.pop();
        }
    } else if let Some((key, of)) = lookup::find(path) {
        let of = of.map(str::to_owned);
        let origin = value.origin().map(str::to_owned);
        leaves.insert(
            dotted(path),
            Leaf {
                key,
                of,
                kind: value.kind.clone(),
                origin,
            },
        );
    }
}

/// A path as TOML writes it, with quotes where a part needs them.
pub(super) fn dotted(path: &[String]) -> String {
    let bare = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    };
    let parts: Vec<String> = path
        .iter()
        .map(|part| {
            if bare(part) {
                part.clone()
            } else {
                format!("{part:?}")
            }
        })
        .collect();
    parts.join(".")
}
