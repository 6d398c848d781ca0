//! Redaction.
use super::is_json;
use crate::redact::{Action, Detector, FieldPath, HashKey, OwnRule, Redactor, Rules, Seen};
use crate::wire::json::push_string;
use serde_json::Value;
use std::sync::LazyLock;

/// Most depths at which a text is JSON within a string.
const MOST_DEPTH: usize = 5;

/// What is planted, one of each detector's and more of keys.
const SECRETS: [&str; 10] = [
    "bob@example.com",
    "+33 6 12 34 56 78",
    "4111 1111 1111 1111",
    "sk-abcdefghijklmnop0123",
    "DE89 3704 0044 0532 0130 00",
    "203.0.113.7",
    "2001:db8::17",
    "ghp_0123456789abcdefghij0123",
    "AKIAIOSFODNN7EXAMPLE",
    "eyJhbGciOiJIUzI1.eyJzdWIiOiIx.sig-1",
];

/// The beginning of what a member's name alone says is secret.
const NAMED: &str = "hunter2";

static REDACTORS: LazyLock<[Redactor; 3]> = LazyLock::new(|| {
    let hashing = Rules {
        action: Action::Hash,
        own: vec![own("word", "(?i)secret[a-z]*|[a-z]+-[0-9]+", Action::Replace)],
        ..rules()
    };
    [ready(rules()), ready(hashing), dropping()]
});

fn rules() -> Rules {
    Rules {
        detect: Detector::ALL.to_vec(),
        hash_key: HashKey::new(&[7; 32]),
        ..Rules::default()
    }
}

fn own(name: &str, regex: &str, action: Action) -> OwnRule {
    OwnRule {
        name: name.to_owned(),
        regex: regex.to_owned(),
        fields: Vec::new(),
        action,
    }
}

fn ready(rules: Rules) -> Redactor {
    match Redactor::new(rules) {
        Ok(redactor) => redactor,
        Err(error) => panic!("{error}"),
    }
}

/// All detectors, a rule that empties texts, and fields that are dropped.
pub(super) fn dropping() -> Redactor {
    let dropped = ["metadata.a", "raw_input.*.content", "x"];
    let dropped = dropped.into_iter().map(FieldPath::parse_dropped);
    ready(Rules {
        own: vec![own("wipe", "wipe|@corp", Action::Drop)],
        drop_fields: dropped.filter_map(Result::ok).collect(),
        ..rules()
    })
}

/// As an event, and as text around what must not be left.
pub fn redact(data: &[u8]) {
    for redactor in REDACTORS.iter() {
        event(redactor, data);
    }
    let text = String::from_utf8_lossy(data);
    let pick = usize::from(data.first().copied().unwrap_or_default());
    let secret = SECRETS[pick % SECRETS.len()];
    let middle = text
        .char_indices()
        .map(|(at, _)| at)
        .nth(text.chars().count() / 2)
        .unwrap_or(0);
    let (before, after) = text.split_at(middle);
    let planted = format!("{before}\n{secret}\n{after}");
    let depth = usize::from(data.last().copied().unwrap_or_default()) % (MOST_DEPTH + 1);
    for redactor in REDACTORS.iter() {
        let left = unwrapped(
            &event(redactor, wrapped("input", &planted, depth).as_bytes()),
            depth,
        );
        let lines = left["input"].as_str().unwrap_or_default().split('\n');
        // What came beside it may have been the same.
        assert!(lines.clone().all(|line| line != secret), "{secret} in {left:?}");
        let named = wrapped("apiKey", &format!("{NAMED}{text}"), depth);
        let left = unwrapped(&event(redactor, named.as_bytes()), depth);
        let key = left["apiKey"].as_str().unwrap_or_default();
        assert!(!key.contains(NAMED), "{left:?} of {text:?}");
    }
}

/// A text as a member of an object, which is the text of a member, and so on.
fn wrapped(name: &str, text: &str, depth: usize) -> String {
    let member = |name: &str, text: &str| {
        let mut object = b"{\"".to_vec();
        object.extend_from_slice(name.as_bytes());
        object.extend_from_slice(b"\":");
        push_string(&mut object, text);
        object.push(b'}');
        String::from_utf8_lossy(&object).into_owned()
    };
    (0..depth).fold(member(name, text), |inner, _| member("arguments", &inner))
}

/// The innermost object of those. Each is still one, unless the string that held it was emptied.
fn unwrapped(event: &[u8], depth: usize) -> Value {
    let parsed = |text: &[u8]| match serde_json::from_slice(text) {
        Ok(value @ Value::Object(_)) => value,
        _ => panic!("it stays an object: {}", String::from_utf8_lossy(text)),
    };
    let mut object = parsed(event);
    for _ in 0..depth {
        object = match object["arguments"].as_str() {
            Some(inner) if !inner.is_empty() => parsed(inner.as_bytes()),
            _ => return Value::Null,
        };
    }
    object
}

/// What is left of it.
fn event(redactor: &Redactor, event: &[u8]) -> Vec<u8> {
    let mut told = 0;
    let names = redactor.names().count();
    let altered = redactor.apply_and_tell(event, &mut |seen| {
        told += 1;
        if let Seen::Masked {
            before, after, rules, ..
        } = seen
        {
            assert!(before != after && !rules.is_empty() && rules.iter().all(|rule| *rule < names));
            assert_kept(redactor, before, after);
        }
    });
    let Some(altered) = altered else {
        assert_eq!(told, 0);
        return event.to_vec();
    };
    assert_eq!(
        is_json(&altered),
        is_json(event),
        "JSON stays JSON, and what is none stays none"
    );
    assert!(told > 0 || !is_json(event));
    let again = redactor
        .apply(&altered)
        .map(|text| String::from_utf8_lossy(&text).into_owned());
    assert_eq!(again, None, "once is enough");
    if redactor != &REDACTORS[2]
        && let (Ok(before), Ok(after)) = (serde_json::from_slice(event), serde_json::from_slice(&altered))
    {
        assert_eq!(shape(before), shape(after));
    }
    altered
}

/// What stands between the marks is what stood there, in order.
fn assert_kept(redactor: &Redactor, before: &str, after: &str) {
    let is_mark = |text: &str| {
        let name = text.split(':').next().unwrap_or_default();
        redactor.names().any(|known| known == name)
    };
    let mut rest = before;
    let mut kept = String::new();
    let mut see = |kept: &mut String| {
        let at = rest.find(kept.as_str());
        let Some(at) = at else {
            panic!("{kept:?} of {after:?} is not in {before:?}");
        };
        rest = &rest[at + kept.len()..];
        kept.clear();
    };
    for part in after.split_inclusive([']', '[']) {
        match part.strip_suffix(']') {
            Some(mark) if kept.ends_with('[') && is_mark(mark) => {
                kept.pop();
                see(&mut kept);
            }
            _ => kept.push_str(part),
        }
    }
    see(&mut kept);
}

/// The same structure with every string made the same.
fn shape(value: Value) -> Value {
    match value {
        Value::String(_) => Value::Null,
        Value::Array(list) => list.into_iter().map(shape).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, shape(value))).collect(),
        other => other,
    }
}
