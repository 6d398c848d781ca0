//! The secrets that systemd hands over (`LoadCredential=` and its like): files of fixed names in `$CREDENTIALS_DIRECTORY`. Each stands in
//! for a key of the configuration that names a file, where nobody has written that key.
use super::keys::{KEYS, PROJECT_KEY};
use super::resolve::{BUILT_IN, Resolver};
use super::{Sources, files, layers};
use std::path::{Path, PathBuf};

const FOLDER: &str = "CREDENTIALS_DIRECTORY";

/// The API key. An empty one is none: so a unit can hand over a key if there is one.
const API_KEY: &str = "phospho-api-key";
/// What clients must show over TCP. An empty one is a mistake, or the daemon would ask for nothing where it was meant to.
const TOKEN: &str = "phosphod-token";

/// Fills in what is found. One that was used before and is gone is a mistake.
pub(super) fn fill_in(resolver: &mut Resolver, sources: &Sources) {
    if let Some(folder) = sources.folder(FOLDER) {
        fill_in_from(&folder, resolver);
    }
    if let Some(before) = &sources.again {
        let lost = before.lost_credentials(&resolver.origins.credentials);
        resolver.mistakes.extend(lost);
    }
}

fn fill_in_from(folder: &Path, resolver: &mut Resolver) {
    let written = |key: &str| resolver.values.contains_key(key);
    let (key, token) = (folder.join(API_KEY), folder.join(TOKEN));
    let mut found = Vec::new();
    if !written("upstream.api_key") && !written("upstream.api_key_file") && !files::is_blank(&key) {
        found.push((
            "upstream.api_key_file".to_owned(),
            "upstream.api_key_file",
            None,
            key,
        ));
    }
    if !written("intake.token_file") && token.exists() {
        found.push(("intake.token_file".to_owned(), "intake.token_file", None, token));
    }
    for (project, path) in of_projects(folder) {
        let at = PROJECT_KEY.split('.').map(|part| match part {
            "<id>" => project.clone(),
            part => part.to_owned(),
        });
        let at = layers::dotted(&at.collect::<Vec<_>>());
        if !written(&at) && !files::is_blank(&path) {
            found.push((at, PROJECT_KEY, Some(project), path));
        }
    }
    for (at, key, of, path) in found {
        resolver.origins.credentials.insert(at.clone(), path.clone());
        if let Some(key) = KEYS.iter().find(|known| known.path == key) {
            resolver.put_at(at, key, of, path, format!("{BUILT_IN}, from {FOLDER}"));
        }
    }
}

/// The keys of single projects: `phospho-api-key.PROJECT_ID`.
fn of_projects(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let project = name.strip_prefix(API_KEY)?.strip_prefix('.')?;
            Some((project.to_owned(), entry.path()))
        })
        .collect()
}
