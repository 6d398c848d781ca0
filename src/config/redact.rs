//! `[redact]`: from texts to rules that can be followed.
mod fields;

use super::keys::RULE_KEYS;
use super::resolve::Resolver;
use super::values;
use crate::redact::{Action, Detector, FieldPath, OwnRule, PathError, Redactor, RuleError, Rules};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Stands for every detector.
const ALL: &str = "all";
/// Longest name of an own rule, which is in every mark that it leaves.
const MOST_NAME_BYTES: usize = 24;
/// Most own rules: each costs time for each text.
const MOST_RULES: usize = 50;

/// What takes private text out; `None` if nothing is to be, or if there are mistakes, which were noted.
pub(super) fn redactor(resolver: &mut Resolver) -> Option<Arc<Redactor>> {
    let before = resolver.mistakes.len();
    let fields = paths(resolver, "redact.fields", FieldPath::parse);
    let action = action(resolver, "redact.action").unwrap_or_default();
    let rules = Rules {
        detect: detectors(resolver),
        action,
        drop_fields: paths(resolver, "redact.drop_fields", FieldPath::parse_dropped),
        own: own_rules(resolver, &fields, action),
        hash_key: resolver.hash_key_file("redact.hash_key_file"),
        fields,
    };
    if resolver.mistakes.len() > before {
        return None;
    }
    fields::check(resolver);
    if rules.are_off() {
        warn_of_no_rule(resolver);
        return None;
    }
    match Redactor::new(rules) {
        Ok(redactor) => Some(Arc::new(redactor)),
        Err(error) => {
            let path = key_at_fault(resolver, &error);
            resolver.wrong(&path, error.to_string());
            None
        }
    }
}

/// A setting that says how to redact protects nothing where nothing is to be taken out.
fn warn_of_no_rule(resolver: &mut Resolver) {
    let how = ["redact.fields", "redact.action", "redact.hash_key_file"];
    for key in how {
        if !resolver.is_given(key) {
            continue;
        }
        let sentence = "redaction is off all the same, because nothing says what to take out: set redact.detect = \"all\", or leave it out";
        resolver.warn(key, true, sentence);
    }
}

fn detectors(resolver: &mut Resolver) -> Vec<Detector> {
    let mut found = BTreeSet::new();
    for name in resolver.list("redact.detect").to_vec() {
        match Detector::from_name(&name) {
            Some(detector) => {
                found.insert(detector);
            }
            None if name == ALL => found.extend(Detector::ALL),
            None => resolver.wrong("redact.detect", no_detector(&name)),
        }
    }
    found.into_iter().collect()
}

fn no_detector(name: &str) -> String {
    let names: Vec<&str> = Detector::ALL.iter().map(|detector| detector.name()).collect();
    let nearest = names
        .iter()
        .min_by_key(|known| strsim::damerau_levenshtein(known, name));
    format!(
        "{} is no detector; did you mean {}? There are all, {}; what else is to be found is a rule of your own: \
         [redact.rules.<name>] with a regex",
        values::quote(name),
        values::quote(nearest.unwrap_or(&ALL)),
        names.join(", ")
    )
}

fn paths(
    resolver: &mut Resolver,
    key: &str,
    parse: impl Fn(&str) -> Result<FieldPath, PathError>,
) -> Vec<FieldPath> {
    let texts = resolver.list(key).to_vec();
    let read = |text: &String| {
        let path = parse(text).map_err(|fault| fault.to_string());
        resolver.note(key, path)
    };
    texts.iter().filter_map(read).collect()
}

fn action(resolver: &Resolver, key: &str) -> Option<Action> {
    Action::from_name(resolver.text(key)?)
}

/// The operator's own rules. What one does not say is as for the detectors.
fn own_rules(resolver: &mut Resolver, fields: &[FieldPath], default: Action) -> Vec<OwnRule> {
    let written = RULE_KEYS.iter().flat_map(|key| resolver.written(key));
    // Each name with one of its keys, which says where it was written.
    let names: BTreeMap<String, String> = written.map(|(path, name)| (name, path)).collect();
    if let Some((_, path)) = names.iter().nth(MOST_RULES) {
        let sentence = format!("there are more than {MOST_RULES} rules: join some, as \"this|that\"");
        resolver.wrong(path, sentence);
    }
    let mut rules = Vec::new();
    for (name, path) in names {
        let key = |last: &str| format!("redact.rules.{name}.{last}");
        if let Err(sentence) = check_name(&name) {
            resolver.wrong(&path, sentence);
            continue;
        }
        let own = paths(resolver, &key("fields"), FieldPath::parse);
        let regex = resolver.text(&key("regex")).map(str::to_owned);
        let action = action(resolver, &key("action")).unwrap_or(default);
        match regex {
            Some(regex) => rules.push(OwnRule {
                name,
                regex,
                fields: if own.is_empty() { fields.to_vec() } else { own },
                action,
            }),
            None if resolver
                .mistakes
                .iter()
                .any(|mistake| mistake.subject == key("regex")) => {}
            None => {
                let sentence = format!("the rule has no regex: write {}, or remove it", key("regex"));
                resolver.wrong(&path, sentence);
            }
        }
    }
    rules
}

fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if name.is_empty() || name.len() > MOST_NAME_BYTES || !name.bytes().all(is_plain) {
        return Err(format!(
            "{} is no name for a rule: use up to {MOST_NAME_BYTES} lower-case letters, digits and _",
            values::quote(name)
        ));
    }
    match Detector::from_name(name).is_some() || name == "drop_fields" {
        true => Err(format!(
            "the name {} is taken: choose another",
            values::quote(name)
        )),
        false => Ok(()),
    }
}

/// The key that an error is about.
fn key_at_fault(resolver: &Resolver, error: &RuleError) -> String {
    let of_rule = |rule: &str, last: &str| format!("redact.rules.{rule}.{last}");
    match error {
        RuleError::Regex { rule, .. } | RuleError::FitsNothing { rule } => of_rule(rule, "regex"),
        RuleError::NoKey { rule: None } => "redact.action".to_owned(),
        RuleError::NoKey { rule: Some(rule) } => match of_rule(rule, "action") {
            path if resolver.values.contains_key(&path) => path,
            _ => "redact.action".to_owned(),
        },
    }
}
