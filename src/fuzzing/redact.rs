//! Redaction.
use super::is_json;
use crate::redact::{Action, Detector, FieldPath, HashKey, OwnRule, Redactor, Rules, Seen};
use crate::wire::json::push_string;
use serde_json::Value;
use std::sync::LazyLock;

/// What is planted, one of each detector's.
const SECRETS: [&str; 7] = [
    "bob@example.com",
    "+33 6 12 34 56 78",
    "4111 1111 1111 1111",
    "sk-abcdefghijklmnop0123",
    "DE89 3704 0044 0532 0130 00",
    "203.0.113.7",
    "2001:db8::17",
];

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
    let mut planted = b"{\"input\":".to_vec();
    push_string(&mut planted, &format!("{before}\n{secret}\n{after}"));
    planted.push(b'}');
    for redactor in REDACTORS.iter() {
        let left = event(redactor, &planted);
        let Ok(Value::Object(left)) = serde_json::from_slice(&left) else {
            panic!("it stays an object");
        };
        let lines = left["input"].as_str().unwrap_or_default().split('\n');
        // What came beside it may have been the same.
        assert!(lines.clone().all(|line| line != secret), "{secret} in {left:?}");
    }
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

/// The same structure with every string made the same.
fn shape(value: Value) -> Value {
    match value {
        Value::String(_) => Value::Null,
        Value::Array(list) => list.into_iter().map(shape).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, shape(value))).collect(),
        other => other,
    }
}
