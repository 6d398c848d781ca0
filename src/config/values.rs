//! One written value to one that means something, or a sentence that says why not.
use super::keys::{Default, Key, Kind};
use super::{inline, units};
use crate::ids::Padding;
use crate::secret::Secret;
use crate::visible::is_hidden;
use ::config::ValueKind;
use std::net::SocketAddr;
use std::time::Duration;

/// A value of the right type and within its bounds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Datum {
    /// Written as "": off, or not given after all.
    Nothing,
    Text(String),
    Secret(Secret),
    Flag(bool),
    /// A count, bytes, or permissions.
    Number(u64),
    Time(Duration),
    Address(SocketAddr),
    List(Vec<String>),
}

/// Reads a value. The error is what is wrong and the remedy, without the key's name.
pub(super) fn read(key: &Key, kind: &ValueKind) -> Result<Datum, String> {
    if *kind == ValueKind::String(String::new()) && may_be_empty(key) {
        return Ok(Datum::Nothing);
    }
    match key.kind {
        Kind::Text | Kind::Regex | Kind::Path => text(kind).map(Datum::Text),
        Kind::Secret => secret(kind),
        Kind::Flag => flag(kind),
        Kind::List { .. } => list(kind),
        Kind::Ids { may_be_empty, .. } => ids(kind, may_be_empty),
        Kind::Count { min, max, of } => count(key, kind, min, max, of),
        Kind::Size { min, max } => size(key, kind, min, max),
        Kind::Time { min, max } => time(key, kind, min, max),
        Kind::Address => address(kind),
        Kind::Mode => mode(kind),
        Kind::Group => group(kind),
        Kind::Choice(words) => choice(kind, words),
        Kind::Filter => filter(kind),
    }
}

fn may_be_empty(key: &Key) -> bool {
    key.kind == Kind::Address || matches!(key.default, Default::None | Default::Computed(_))
}

/// A datum as TOML, for `config show`.
pub(super) fn show(key: &Key, datum: &Datum) -> String {
    let quoted = match (datum, key.kind) {
        (Datum::Flag(flag), _) => return flag.to_string(),
        (Datum::Number(number), Kind::Count { .. }) => return number.to_string(),
        (Datum::List(texts), _) => {
            let quoted: Vec<String> = texts.iter().map(|text| quote(text)).collect();
            return format!("[{}]", quoted.join(", "));
        }
        (Datum::Nothing, _) => String::new(),
        (Datum::Secret(secret), _) => secret.to_string(),
        (Datum::Number(number), Kind::Size { .. }) => units::show_size(*number),
        (Datum::Number(number), Kind::Mode) => format!("{number:04o}"),
        (Datum::Number(number), _) => number.to_string(),
        (Datum::Time(duration), _) => units::show_duration(*duration),
        (Datum::Address(address), _) => address.to_string(),
        (Datum::Text(text), Kind::Text) => without_secrets(text),
        (Datum::Text(text), _) => text.clone(),
    };
    quote(&quoted)
}

/// A TOML basic string.
pub(super) fn quote(text: &str) -> String {
    use std::fmt::Write;
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if is_hidden(c) => {
                // Writing to a String does not fail.
                let _ = match u32::from(c) {
                    code @ ..=0xffff => write!(quoted, "\\u{code:04X}"),
                    code => write!(quoted, "\\U{code:08X}"),
                };
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The text with a URL's user and password, query and fragment masked. It need not be a whole URL: what stands before
/// the last `@` of the authority goes.
pub(super) fn without_secrets(text: &str) -> String {
    let start = text.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = text.split_at(start);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (user, rest) = match rest.get(..end).and_then(|authority| authority.rfind('@')) {
        Some(at) => ("***", &rest[at..]),
        None => ("", rest),
    };
    match rest.find(['?', '#']) {
        Some(at) if at + 1 < rest.len() => format!("{scheme}{user}{}***", &rest[..=at]),
        _ => format!("{scheme}{user}{rest}"),
    }
}

fn found(kind: &ValueKind) -> String {
    match kind {
        ValueKind::Nil => "nothing".to_owned(),
        ValueKind::Boolean(flag) => format!("{flag}"),
        ValueKind::Float(number) => format!("the number {number}"),
        ValueKind::String(text) => {
            // First the password: what is cut off may be what tells it.
            let text = without_secrets(text);
            let mut short: String = text.chars().take(80).collect();
            if short.len() < text.len() {
                short.push('…');
            }
            quote(&short)
        }
        ValueKind::Table(_) => "a section".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
        number => format!("the number {number}"),
    }
}

fn text(kind: &ValueKind) -> Result<String, String> {
    match kind {
        ValueKind::String(text) if !text.is_empty() => Ok(text.clone()),
        other => Err(format!(
            "expected a text, found {}: put it in quotes",
            found(other)
        )),
    }
}

/// A list of texts, or one text with commas, as variables and `--set` have it.
fn list(kind: &ValueKind) -> Result<Datum, String> {
    let texts: Option<Vec<String>> = match kind {
        ValueKind::Array(values) => values
            .iter()
            .map(|value| match &value.kind {
                ValueKind::String(text) => Some(text.trim().to_owned()),
                _ => None,
            })
            .collect(),
        ValueKind::String(text) => Some(text.split(',').map(|part| part.trim().to_owned()).collect()),
        _ => None,
    };
    // An address of version 6 has brackets, too.
    let is_list = |text: &String| text.starts_with('[') && !inline::is_address(text);
    match texts {
        Some(texts) if texts.iter().any(is_list) => {
            Err("has a list in quotes in it: write [\"a\", \"b\"] without quotes around the list".to_owned())
        }
        Some(texts) if texts.iter().any(String::is_empty) => {
            Err("has an empty text in it: leave it out".to_owned())
        }
        Some(texts) => Ok(Datum::List(texts)),
        None => Err(format!(
            "expected a list of texts, found {}: write [\"a\", \"b\"]",
            found(kind)
        )),
    }
}

/// A list of numbers, with or without quotes, or one text with commas.
fn ids(kind: &ValueKind, may_be_empty: bool) -> Result<Datum, String> {
    let parts: Vec<ValueKind> = match kind {
        ValueKind::Array(values) => values.iter().map(|value| value.kind.clone()).collect(),
        ValueKind::String(text) => text
            .split(',')
            .map(|part| ValueKind::String(part.to_owned()))
            .collect(),
        other => vec![other.clone()],
    };
    if parts.is_empty() && !may_be_empty {
        return Err(
            "is an empty list, which would let in whoever can open the socket: name some, or leave it out"
                .to_owned(),
        );
    }
    // The largest number means "nobody in particular" to the kernel.
    let id = |part: &ValueKind| whole(part).filter(|id| *id < u64::from(u32::MAX));
    let texts = parts
        .iter()
        .map(|part| id(part).map(|id| id.to_string()).ok_or(part));
    texts
        .collect::<Result<Vec<String>, _>>()
        .map(Datum::List)
        .map_err(|part| {
            let found = found(part);
            format!("expected numbers, found {found}: write [1000, 1001] (`id -u NAME` and `id -g NAME` tell them)")
        })
}

fn secret(kind: &ValueKind) -> Result<Datum, String> {
    let ValueKind::String(text) = kind else {
        return Err("expected a text: put it in quotes".to_owned());
    };
    match Secret::new(text) {
        Some(secret) => check_secret(&secret).map(|()| Datum::Secret(secret)),
        None => Err("there is only white space: write the key, or leave it out".to_owned()),
    }
}

/// Why a secret cannot travel in a header.
pub(super) const UNSENDABLE: &str =
    "holds characters that no HTTP header can carry: write the key alone, on one line";

/// Whether a secret can stand in a header and is meant as it stands. Blanks around it are cut already.
pub(super) fn check_secret(secret: &Secret) -> Result<(), String> {
    let text = secret.expose();
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(UNSENDABLE.to_owned());
    }
    match Padding::of(text) {
        Some(padding) => Err(format!(
            "has {padding} around it: leave them off (a file of variables, such as that of docker --env-file, passes them on)"
        )),
        None => Ok(()),
    }
}

fn flag(kind: &ValueKind) -> Result<Datum, String> {
    match kind {
        ValueKind::Boolean(flag) => Ok(Datum::Flag(*flag)),
        ValueKind::String(text) if text == "true" => Ok(Datum::Flag(true)),
        ValueKind::String(text) if text == "false" => Ok(Datum::Flag(false)),
        other => Err(format!(
            "expected true or false, found {}: write one of the two",
            found(other)
        )),
    }
}

fn whole(kind: &ValueKind) -> Option<u64> {
    match kind {
        ValueKind::I64(number) => u64::try_from(*number).ok(),
        ValueKind::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn example(key: &Key) -> String {
    let name = key.path.rsplit('.').next().unwrap_or_default();
    format!("for example {name} = {}", key.default.documented())
}

fn count(key: &Key, kind: &ValueKind, min: u64, max: u64, of: &str) -> Result<Datum, String> {
    match whole(kind) {
        Some(number) if (min..=max).contains(&number) => Ok(Datum::Number(number)),
        _ => Err(format!(
            "expected a whole number of {of} from {min} to {max}, found {}: write one, {}",
            found(kind),
            example(key)
        )),
    }
}

fn size(key: &Key, kind: &ValueKind, min: u64, max: u64) -> Result<Datum, String> {
    let bytes = match kind {
        ValueKind::String(text) => units::parse_size(text),
        other => whole(other),
    };
    let sentence = match bytes {
        Some(bytes) if (min..=max).contains(&bytes) => return Ok(Datum::Number(bytes)),
        Some(_) => format!("{} is out of bounds", found(kind)),
        None => format!(
            "expected a whole number with B, KiB, MiB or GiB, found {}",
            found(kind)
        ),
    };
    let (min, max) = (units::show_size(min), units::show_size(max));
    Err(format!(
        "{sentence}: write a size from {min} to {max}, {}",
        example(key)
    ))
}

fn time(key: &Key, kind: &ValueKind, min: Duration, max: Duration) -> Result<Datum, String> {
    let duration = match kind {
        ValueKind::String(text) => units::parse_duration(text),
        _ => None,
    };
    let sentence = match duration {
        Some(duration) if (min..=max).contains(&duration) => return Ok(Datum::Time(duration)),
        Some(_) => format!("{} is out of bounds", found(kind)),
        None => format!(
            "expected a text with a number and ms, s, min, h or d, found {}",
            found(kind)
        ),
    };
    let (min, max) = (units::show_duration(min), units::show_duration(max));
    Err(format!(
        "{sentence}: write a duration from {min} to {max}, {}",
        example(key)
    ))
}

fn address(kind: &ValueKind) -> Result<Datum, String> {
    let parsed = match kind {
        ValueKind::String(text) => text.parse().ok(),
        _ => None,
    };
    parsed.map(Datum::Address).ok_or_else(|| {
        let found = found(kind);
        format!(
            "expected an IP address and a port, found {found}: write \"127.0.0.1:4710\", or \"\" for none"
        )
    })
}

fn mode(kind: &ValueKind) -> Result<Datum, String> {
    let parsed = match kind {
        ValueKind::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            u64::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777)
        }
        _ => None,
    };
    parsed.map(Datum::Number).ok_or_else(|| {
        format!(
            "expected octal permissions up to \"0777\", found {}: write \"0660\" in quotes",
            found(kind)
        )
    })
}

/// Names are looked up in `/etc/group`; a directory service's groups have to be given by number.
fn group(kind: &ValueKind) -> Result<Datum, String> {
    if let Some(gid) = whole(kind).filter(|gid| *gid < u64::from(u32::MAX)) {
        return Ok(Datum::Number(gid));
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let named = |line: &str, name: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(name))
            .then(|| fields.nth(1)?.parse().ok())
            .flatten()
    };
    let gid = match kind {
        ValueKind::String(name) => groups.lines().find_map(|line| named(line, name)),
        _ => None,
    };
    gid.map(Datum::Number).ok_or_else(|| {
        format!(
            "no group in /etc/group is called {}: make it (groupadd), or give its number",
            found(kind)
        )
    })
}

fn choice(kind: &ValueKind, words: &[&str]) -> Result<Datum, String> {
    match kind {
        ValueKind::String(text) if words.contains(&text.as_str()) => Ok(Datum::Text(text.clone())),
        other => Err(format!(
            "{} is not known: write one of \"{}\"",
            found(other),
            words.join("\", \"")
        )),
    }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

fn filter(kind: &ValueKind) -> Result<Datum, String> {
    let text = text(kind)?;
    for part in text.split(',').map(str::trim) {
        // A lone word that is no level would be taken for a target, and everything else would fall silent.
        let level = part.rsplit('=').next().unwrap_or_default();
        let known = LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level));
        if !known && !part.contains('[') {
            let near = LEVELS
                .into_iter()
                .min_by_key(|known| strsim::damerau_levenshtein(known, level));
            let found = quote(level);
            return Err(format!(
                "{found} is no level: write {}, or one of {}",
                near.unwrap_or("info"),
                LEVELS.join(", ")
            ));
        }
    }
    match tracing_subscriber::EnvFilter::try_new(&text) {
        Ok(_) => Ok(Datum::Text(text)),
        Err(fault) => Err(format!(
            "cannot be read ({fault}): write a level, or target=level pairs with commas"
        )),
    }
}

#[cfg(test)]
mod tests;
