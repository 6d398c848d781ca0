//! The configuration file: which one, and its text to values that remember their line.
use super::mistakes::{Mistake, Warning};
use super::trust::{self, Fault};
use ::config::{Map, Value, ValueKind};
use rustix::fs::OFlags;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// Where it is looked for first when none is named, if the working folder is this user's own. In
/// another folder somebody else may have put it there, to learn the key.
const HERE: &str = "config.toml";
const SYSTEM: &str = "/etc/phosphod/config.toml";

/// The places where a file is looked for, in this order.
fn usual() -> impl Iterator<Item = &'static Path> {
    let here = trust::is_own_folder(Path::new(".")).then_some(HERE);
    here.into_iter().chain([SYSTEM]).map(Path::new)
}

/// Says so where there is a `./config.toml` that is not read because of its folder.
pub(super) fn not_taken() -> Option<Warning> {
    let is_left_out = !trust::is_own_folder(Path::new(".")) && Path::new(HERE).symlink_metadata().is_ok();
    is_left_out.then(|| Warning {
        about: Mistake::new(
            "./config.toml",
            "",
            "is not read, since the working folder is not this user's own: name it with --config if it is meant, or move it \
             to /etc/phosphod/config.toml",
        ),
        is_hint: true,
    })
}

/// The text of a file, and whether it gives that only once.
pub(super) struct Text {
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) once: bool,
}

/// Finds and reads the file: the named one, else the first of the usual ones that exists. `None` if there is none.
pub(super) fn read(named: Option<&Path>) -> Result<Option<Text>, Mistake> {
    if let Some(path) = named {
        return match open(path, OFlags::empty())? {
            Some(text) => Ok(Some(text)),
            None => {
                let sentence = "there is no such file: name one that exists, or leave --config out";
                Err(Mistake::new(path.display().to_string(), "--config", sentence))
            }
        };
    }
    for path in usual() {
        if let Some(text) = open(path, OFlags::empty())? {
            return Ok(Some(text));
        }
    }
    Ok(None)
}

/// Reads a file that must not be a pipe, which could be waited for without end. `None` if it is not
/// there.
pub(super) fn read_plain(path: &Path) -> Result<Option<Text>, Mistake> {
    match open(path, OFlags::NONBLOCK)? {
        Some(text) if text.once => {
            let sentence = "is a pipe now and was a file: put the file back";
            Err(Mistake::new(path.display().to_string(), "", sentence))
        }
        text => Ok(text),
    }
}

/// The first of the usual files that is there.
pub(super) fn first_of_the_usual() -> Option<PathBuf> {
    usual().find(|path| path.exists()).map(Path::to_path_buf)
}

fn open(path: &Path, flags: OFlags) -> Result<Option<Text>, Mistake> {
    let read = trust::open(path, flags).and_then(|mut opened| {
        let kind = opened.of.file_type();
        let once = kind.is_fifo() || kind.is_socket();
        let mut text = String::new();
        // What is refused anyway is not read.
        if !(once && flags.contains(OFlags::NONBLOCK)) {
            opened.file.read_to_string(&mut text)?;
        }
        Ok(Text {
            path: path.to_owned(),
            text,
            once,
        })
    });
    match read {
        Ok(text) => Ok(Some(text)),
        Err(Fault::Io(fault)) if fault.kind() == ErrorKind::NotFound => Ok(None),
        Err(Fault::Io(fault)) => Err(unreadable(path, &fault)),
        Err(Fault::Untrusted(sentence)) => Err(Mistake::new(path.display().to_string(), "", sentence)),
    }
}

/// Whether there is a value in any table.
pub(super) fn has_values(table: &Map<String, Value>) -> bool {
    table.values().any(|value| match &value.kind {
        ValueKind::Table(inner) => has_values(inner),
        _ => true,
    })
}

fn unreadable(path: &Path, fault: &std::io::Error) -> Mistake {
    let remedy = match fault.kind() {
        ErrorKind::InvalidData => "save it as UTF-8",
        ErrorKind::IsADirectory => "name the file itself",
        ErrorKind::PermissionDenied => "let the daemon's user read it, or run this as a user who may",
        _ => "mend it, or name another with --config",
    };
    Mistake::new(
        path.display().to_string(),
        "",
        format!("cannot be read ({fault}): {remedy}"),
    )
}

/// Parses TOML. Every value's origin is `path:line`; every syntax error is told by line and column, without the text
/// of the line, which may hold a secret.
pub(super) fn parse(path: &Path, text: &str) -> Result<Map<String, Value>, Vec<Mistake>> {
    let (table, faults) = DeTable::parse_recoverable(text);
    let source = Source { path, text };
    if faults.is_empty() {
        return source.table(table.get_ref()).map_err(|mistake| vec![mistake]);
    }
    let mut mistakes: Vec<Mistake> = faults.iter().map(|fault| source.syntax(fault)).collect();
    mistakes.dedup();
    Err(mistakes)
}

struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    /// Line and column of a byte, both from 1.
    fn place(&self, byte: usize) -> (usize, usize) {
        let before = self.text.get(..byte).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }

    fn syntax(&self, fault: &toml::de::Error) -> Mistake {
        let (line, column) = self.place(fault.span().map_or(0, |span| span.start));
        let what = fault.message().replace('\n', ", ");
        let sentence = format!("line {line}, column {column}: not TOML: {what}; mend that line");
        Mistake::new(self.path.display().to_string(), "", sentence)
    }

    fn table(&self, table: &DeTable<'_>) -> Result<Map<String, Value>, Mistake> {
        let mut values = Map::new();
        for (key, value) in table {
            let (line, _) = self.place(key.span().start);
            let origin = format!("{}:{line}", self.path.display());
            values.insert(key.get_ref().to_string(), self.value(value.get_ref(), &origin)?);
        }
        Ok(values)
    }

    fn value(&self, value: &DeValue<'_>, origin: &String) -> Result<Value, Mistake> {
        let kind = match value {
            DeValue::String(text) => ValueKind::String(text.to_string()),
            DeValue::Boolean(flag) => ValueKind::Boolean(*flag),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => ValueKind::I64(number),
                Err(_) => {
                    let sentence = "a number in this line is beyond 64 bits: write a smaller one";
                    return Err(Mistake::new(origin.clone(), "", sentence));
                }
            },
            DeValue::Float(number) => ValueKind::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Datetime(date) => ValueKind::String(date.to_string()),
            DeValue::Table(table) => ValueKind::Table(self.table(table)?),
            DeValue::Array(list) => {
                let values = list.iter().map(|value| self.value(value.get_ref(), origin));
                ValueKind::Array(values.collect::<Result<_, _>>()?)
            }
        };
        Ok(Value::new(Some(origin), kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_remember_their_line() {
        let text = "[batch]\nmax_events = 7\n\n[upstream.projects.\"a.b\"]\napi_key_file = 'x'\n";
        let values = parse(Path::new("c.toml"), text).expect("valid");
        let batch = values["batch"].clone().into_table().expect("a table");
        assert_eq!(batch["max_events"].origin(), Some("c.toml:2"));
        let project = values["upstream"].clone().into_table().expect("a table")["projects"].clone();
        let project = project.into_table().expect("a table")["a.b"]
            .clone()
            .into_table()
            .expect("a table");
        assert_eq!(project["api_key_file"].origin(), Some("c.toml:5"));
    }

    #[test]
    fn a_syntax_error_tells_its_place_and_not_the_text() {
        let text = "[upstream]\napi_key = \"sk-hidden\n";
        let mistakes = parse(Path::new("c.toml"), text).expect_err("an open quote");
        let told = mistakes
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n");
        assert!(
            told.contains("c.toml") && told.contains("line 2, column"),
            "{told}"
        );
        assert!(!told.contains("sk-hidden"), "{told}");
    }
}
