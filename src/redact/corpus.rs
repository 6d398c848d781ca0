//! Texts and events as logs of language models hold them, with what is left of each. A text is tried
//! as it stands, as JSON in a string, as JSON in a string of JSON in a string, and so on.
use super::{Detector, HashKey, Redactor, Rules};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How deep a row is wrapped.
const DEPTHS: usize = 6;

/// Fewest rows of a kind, near misses (`none`) among them.
const FEWEST: usize = 6;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// What is found: a detector, or `none`.
    kind: String,
    /// A string, or `event`: an object.
    text: Option<String>,
    event: Option<Value>,
    /// What is left of it, if something is found.
    left: Option<Value>,
}

fn rows() -> impl Iterator<Item = Row> {
    let lines = include_str!("corpus.ndjson").lines();
    lines.map(|line| serde_json::from_str(line).expect(line))
}

fn redactor(detect: &[Detector]) -> Redactor {
    let rules = Rules {
        detect: detect.to_vec(),
        hash_key: HashKey::new(&[7; 32]),
        ..Rules::default()
    };
    Redactor::new(rules).expect("the rules are right")
}

/// The value as a text within a string of a member, so many times.
fn wrapped(value: &Value, depth: usize) -> Value {
    (0..depth).fold(
        value.clone(),
        |inner, _| json!({"arguments": inner.to_string(), "n": 1}),
    )
}

fn applied(redactor: &Redactor, event: &Value) -> String {
    let event = event.to_string();
    match redactor.apply(event.as_bytes()) {
        None => event,
        Some(altered) => {
            assert_eq!(redactor.apply(&altered), None, "once is enough");
            String::from_utf8(altered).expect("it stays text")
        }
    }
}

#[test]
fn every_row_is_found_or_left_alone_at_every_depth() {
    let all = redactor(&Detector::ALL);
    for row in rows() {
        let (came, left) = match (&row.text, &row.event) {
            (Some(text), None) => (
                json!({"input": text}),
                row.left.map(|left| json!({"input": left})),
            ),
            (None, Some(event)) => (event.clone(), row.left),
            _ => panic!("a row has a text or an event"),
        };
        assert_eq!(row.kind == "none", left.is_none(), "{came}");
        let left = left.unwrap_or_else(|| came.clone());
        for depth in 0..DEPTHS {
            let (came, left) = (wrapped(&came, depth), wrapped(&left, depth).to_string());
            assert_eq!(applied(&all, &came), left, "depth {depth}: {came}");
        }
    }
}

#[test]
fn each_kind_is_found_by_its_detector_alone_and_has_enough_rows() {
    let mut counts = BTreeMap::new();
    for row in rows() {
        *counts.entry(row.kind.clone()).or_insert(0) += 1;
        let Some(detector) = Detector::from_name(&row.kind) else {
            assert_eq!(row.kind, "none");
            continue;
        };
        let came = row.event.or(row.text.map(Value::from)).expect("a row has either");
        let left = row.left.expect("something is found").to_string();
        assert_eq!(applied(&redactor(&[detector]), &came), left, "{came}");
    }
    let kinds = Detector::ALL.map(Detector::name);
    for kind in kinds.into_iter().chain(["none"]) {
        assert!(
            counts.get(kind).is_some_and(|count| *count >= FEWEST),
            "{kind}: {counts:?}"
        );
    }
}
