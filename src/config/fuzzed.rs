//! Configuration files: each mistake is told on one line, and each value that is shown is read back as the same.
use super::keys::Kind;
use super::values::{self, Datum};
use super::{Sources, file, layers};
use ::config::ValueKind;
use std::path::{Path, PathBuf};

/// Stands for a secret in a file that is not TOML.
const SECRET: &str = "sk-PRIVATE-KEY";

/// The bytes are a file. What it names is not opened.
pub(crate) fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    let path = PathBuf::from("f.toml");
    let mut mistakes = Vec::new();
    let raw = layers::stack(
        Some((path.clone(), text.clone())),
        &Sources::default(),
        &mut mistakes,
    );
    for mistake in &mistakes {
        assert!(!mistake.to_string().contains(char::is_control), "{mistake:?}");
    }
    for (path, leaf) in &raw.leaves {
        assert!(!path.is_empty() && leaf.key.path.split('.').count() >= 2);
        match values::read(leaf.key, &leaf.kind) {
            Err(sentence) => assert!(!sentence.contains(char::is_control), "{sentence:?}"),
            // Shown masked.
            Ok(Datum::Secret(_)) => {}
            Ok(Datum::Text(text))
                if leaf.key.kind == Kind::Text && values::without_secrets(&text) != text => {}
            Ok(datum) => {
                let shown = values::show(leaf.key, &datum);
                assert_eq!(
                    values::read(leaf.key, &read_back(&shown)),
                    Ok(datum),
                    "{path} = {shown}"
                );
            }
        }
    }
    // A line that is no TOML is not quoted.
    let broken = format!("[upstream]\napi_key = \"{SECRET}\n{text}");
    if let Err(mistakes) = file::parse(&path, &broken) {
        let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        assert!(!told.concat().contains(SECRET), "{told:?}");
    }
}

fn read_back(shown: &str) -> ValueKind {
    match file::parse(Path::new("shown.toml"), &format!("x = {shown}")) {
        Ok(mut values) => values.remove("x").map_or(ValueKind::Nil, |value| value.kind),
        Err(mistakes) => panic!("{shown} is no TOML: {mistakes:?}"),
    }
}
