//! The resolved settings for people: valid TOML, secrets masked, each with where it came from.
use super::keys::KEYS;
use super::resolve::{Resolved, Resolver};
use super::{Mistakes, Sources, check, values};

/// One line a key, `key = value  # origin`, in the order of `config.toml`; keys that nobody set and that have no
/// default are named in comments. The mistakes come along, if there are any.
pub fn show(sources: &Sources) -> (String, Option<Mistakes>) {
    let (settings, resolver) = check(sources);
    let from = match &resolver.file {
        Some(file) => format!("# file: {}\n", file.display()),
        None => "# file: none\n".to_owned(),
    };
    let text = from + &render(&resolver);
    (sources.secrets.mask(&text).into_owned(), settings.err())
}

fn render(resolver: &Resolver) -> String {
    let mut lines = Vec::new();
    for key in KEYS {
        let mut set: Vec<(&String, &Resolved)> = resolver
            .values
            .iter()
            .filter(|(_, resolved)| resolved.key.path == key.path)
            .collect();
        set.sort_by_key(|(path, _)| *path);
        if set.is_empty() {
            lines.push((format!("# {} is not set", key.path), String::new()));
        }
        for (path, resolved) in set {
            let wrong = resolver.mistakes.iter().any(|mistake| mistake.subject == *path);
            let note = if wrong {
                format!("{} (see the mistakes)", resolved.origin)
            } else {
                resolved.origin.clone()
            };
            lines.push((format!("{path} = {}", values::show(key, &resolved.datum)), note));
        }
    }
    let width = lines
        .iter()
        .filter(|(_, origin)| !origin.is_empty())
        .map(|(line, _)| line.chars().count())
        .max();
    let width = width.unwrap_or_default().min(60);
    let rows = lines.into_iter().map(|(line, origin)| match origin.as_str() {
        "" => format!("{line}\n"),
        origin => format!("{line:<width$}  # {origin}\n"),
    });
    rows.collect()
}
