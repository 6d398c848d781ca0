//! What a configuration holds that is secret: keys, the token, and what URLs carry beside their address.
use super::keys::Kind;
use super::resolve::Resolver;
use super::values::Datum;
use super::{DeliverySettings, IntakeSettings};
use crate::secret::Secret;
use percent_encoding::percent_decode_str;

/// Everything that was read and is secret, also of a configuration that has mistakes.
pub(super) fn secrets(
    resolver: &Resolver,
    delivery: Option<&DeliverySettings>,
    intake: &IntakeSettings,
) -> Vec<Secret> {
    let mut all: Vec<Secret> = Vec::new();
    for resolved in resolver.values.values() {
        let urls = match (&resolved.datum, resolved.key.kind) {
            (Datum::Secret(secret), _) => {
                all.push(secret.clone());
                continue;
            }
            (Datum::Text(text), Kind::Text) => std::slice::from_ref(text),
            // Anything may be written there, a URL with a password as well.
            (Datum::List(texts), _) if resolved.key.path.ends_with("origins") => texts.as_slice(),
            _ => continue,
        };
        let secrets = urls.iter().flat_map(|text| of_url(text));
        all.extend(secrets.filter_map(|text| Secret::new(&text)));
    }
    if let Some(delivery) = delivery {
        all.extend(delivery.default_key.clone());
        all.extend(delivery.project_keys.values().cloned());
    }
    all.extend(intake.gate.token.clone());
    all
}

/// Password, user and password together, and the values of the query of a URL; the user where there is no password. As
/// written and with percent-coding undone. Empty for what is no URL.
fn of_url(text: &str) -> Vec<String> {
    let Some((_, rest)) = text.split_once("://") else {
        return Vec::new();
    };
    let (authority, query) = parts(rest);
    let mut found: Vec<&str> = Vec::new();
    if let Some((user_info, _)) = authority.rsplit_once('@') {
        found.push(user_info);
        found.extend(user_info.split_once(':').map(|(_, password)| password));
    }
    let values = query.split(['?', '&', '#']);
    found.extend(values.map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value)));
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    found
        .iter()
        .flat_map(|text| [(*text).to_owned(), decoded(text)])
        .collect()
}

/// The authority of a URL, and all that follows its first `?` or `#`.
fn parts(rest: &str) -> (&str, &str) {
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let query = rest.find(['?', '#']).unwrap_or(rest.len());
    (&rest[..authority], &rest[query..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load, show};
    use std::collections::BTreeMap;

    #[test]
    fn what_a_url_carries_beside_its_address_is_secret() {
        for (url, secrets) in [
            ("http://proxy.example:3128/a@b", vec![""]),
            (
                "http://me:p%40ss@host",
                vec!["me:p%40ss", "me:p@ss", "p%40ss", "p@ss", ""],
            ),
            ("http://token@host/x", vec!["token", ""]),
            ("https://host/x?key=abc&def#g", vec!["", "abc", "def", "g"]),
            ("me:pw@host", vec![]),
        ] {
            let mut found = of_url(url);
            found.sort();
            found.dedup();
            let mut secrets = secrets;
            secrets.sort_unstable();
            assert_eq!(found, secrets, "{url}");
        }
    }

    fn sources(set: &[&str]) -> Sources {
        Sources {
            set: set.iter().map(|text| (*text).to_owned()).collect(),
            env: BTreeMap::from([("PHOSPHO_API_KEY".to_owned(), "sk-canary-1".into())]),
            ..Sources::default()
        }
    }

    #[test]
    fn all_that_is_secret_is_known_and_no_sentence_quotes_it() {
        let right = sources(&["upstream.proxy=http://me:canary-2@proxy:3128/?k=canary-3"]);
        let settings = load(&right).expect("right");
        for text in ["sk-canary-1", "canary-2", "canary-3", "bWU6Y2FuYXJ5LTI="] {
            assert!(settings.secrets.mask(text).contains("***"), "{text}");
        }
        for wrong in [
            "upstream.base_url=https://me:canary-2@host?k=canary-3#canary-4",
            "upstream.base_url=ftp://host/?canary-2",
            "upstream.base_url=http://host.example/?k=canary-2",
            "upstream.base_url=me:canary-2@host",
            "upstream.base_url=sk-canary-1",
            "upstream.proxy=nothing://me:canary-2@host?k=canary-3",
            "upstream.proxy=host?k=canary-2",
            "upstream.proxy=http://?canary-2",
            "intake.origins=http://me:canary-2@host?k=canary-3",
            "batch.max_events=sk-canary-1",
            "retry.min=http://host/?k=canary-2",
            "sk-canary-1=1",
        ] {
            let sources = sources(&[wrong]);
            let mistakes = load(&sources).expect_err(wrong).to_string();
            let (shown, _) = show(&sources);
            for told in [mistakes, shown] {
                assert!(!told.contains("canary"), "{wrong}: {told}");
            }
        }
        let (shown, _) = show(&right);
        assert!(!shown.contains("canary"), "{shown}");
        assert!(shown.contains("http://***@proxy:3128/?***"), "{shown}");
    }
}
