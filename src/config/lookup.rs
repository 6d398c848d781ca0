//! From a written path to the key that it is, or was most likely meant to be.
use super::keys::{KEYS, Key};

/// The key at a path, and what its `<...>` stands for, where it has one: a project id, or the name of a rule.
pub(super) fn find(path: &[String]) -> Option<(&'static Key, Option<&str>)> {
    KEYS.iter().find_map(|key| {
        let mut of = None;
        leads_to(key.path, path, &mut of).then_some((key, of))
    })
}

/// Whether a path is that of a key.
fn leads_to<'a>(key: &str, path: &'a [String], of: &mut Option<&'a str>) -> bool {
    let steps = key.split('.');
    steps.clone().count() == path.len()
        && steps.zip(path).all(|(step, written)| {
            if step.starts_with('<') {
                *of = Some(written);
            }
            step.starts_with('<') || step == written
        })
}

/// The known key or section that an unknown one was most likely meant to be.
pub(super) fn nearest(path: &[String]) -> Option<String> {
    let dotted = path.join(".").to_lowercase().replace('-', "_");
    let name = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let written = name(&dotted);
    let distance = |path: &str| {
        let whole = strsim::damerau_levenshtein(&dotted, path);
        // The right name in the wrong section is nearer than most typing errors.
        let name = name(path);
        match strsim::damerau_levenshtein(&written, &name) {
            near if near <= 1.max(name.len() / 4) => whole.min(near + 2),
            _ => whole,
        }
    };
    let near_key = KEYS
        .iter()
        .map(|key| (distance(key.path), 2.max(key.path.len() / 4), key.path.to_owned()));
    let near_section = KEYS.iter().filter_map(|key| {
        let (section, _) = key.path.split_once('.')?;
        Some((
            strsim::damerau_levenshtein(&dotted, section),
            1.max(section.len() / 4),
            format!("[{section}]"),
        ))
    });
    let near = near_key
        .chain(near_section)
        .filter(|(distance, most, _)| distance <= most);
    near.min_by_key(|(distance, _, _)| *distance)
        .map(|(_, _, path)| path)
}

/// Whether keys stand below this path, so that it is a section.
pub(super) fn is_section(path: &[String]) -> bool {
    KEYS.iter().any(|key| {
        let steps = key.path.split('.');
        steps.clone().count() > path.len()
            && path
                .iter()
                .zip(steps)
                .all(|(written, step)| step == written || step.starts_with('<'))
    })
}

#[cfg(test)]
mod tests {
    use super::super::keys::PROJECT_KEY;
    use super::*;

    fn path(dotted: &str) -> Vec<String> {
        dotted.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn the_nearest_key_is_found_through_typing_errors_and_wrong_sections() {
        for (written, meant) in [
            ("upstream.base_ulr", Some("upstream.base_url")),
            ("upstraem.base_url", Some("upstream.base_url")),
            ("base_url", Some("upstream.base_url")),
            ("batch.max-events", Some("batch.max_events")),
            ("log.levle", Some("log.level")),
            ("api_kye", Some("upstream.api_key")),
            ("upstraem", Some("[upstream]")),
            ("quite.something.else", None),
            ("foo", None),
        ] {
            assert_eq!(nearest(&path(written)).as_deref(), meant, "{written}");
        }
    }

    #[test]
    fn a_projects_key_is_found_under_any_id() {
        let written: Vec<String> = ["upstream", "projects", "a.b", "api_key_file"]
            .map(str::to_owned)
            .to_vec();
        let found = find(&written).map(|(key, id)| (key.path, id));
        assert_eq!(found, Some((PROJECT_KEY, Some("a.b"))));
        assert!(find(&path("upstream.projects.x.api_key")).is_none());
        assert!(
            is_section(&path("upstream.projects.x")) && is_section(&path("log")) && !is_section(&path("lo"))
        );
    }

    #[test]
    fn a_rules_keys_are_found_under_any_name() {
        let written = path("redact.rules.ticket.regex");
        let found = find(&written).map(|(key, of)| (key.path, of));
        assert_eq!(found, Some(("redact.rules.<name>.regex", Some("ticket"))));
        assert!(find(&path("redact.rules.ticket")).is_none() && is_section(&path("redact.rules.ticket")));
        assert!(is_section(&path("redact.rules")) && !is_section(&path("redact.detect")));
    }

    #[test]
    fn no_two_keys_share_a_path() {
        let mut paths: Vec<_> = KEYS.iter().map(|key| key.path).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), KEYS.len());
    }
}
