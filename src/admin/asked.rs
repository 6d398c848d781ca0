//! What a request asks to do with dead letters. Pure.

use crate::spool::{DeadLetter, KeptLetter, MAX_LETTERS};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeSet;

/// How a request is written, for sentences.
const FORMS: &str = "send {\"ids\": [1, 2]} or {\"all\": true}";

/// The body, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Body<'a> {
    id: Option<u64>,
    #[serde(borrow)]
    record: Option<&'a RawValue>,
    ids: Option<Vec<u64>>,
    all: bool,
    project: Option<String>,
    reason_contains: Option<String>,
    buried_before_ms: Option<u64>,
}

/// Which dead letters are meant.
#[derive(Debug)]
pub(super) enum Asked<'a> {
    /// These, by their numbers.
    These(BTreeSet<u64>),
    /// This one, with another record in place of its own.
    Edited(u64, &'a RawValue),
    /// All that pass.
    All(Filter),
}

/// What a letter must be to be meant. What is `None` does not matter.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    project: Option<String>,
    reason_contains: Option<String>,
    buried_before_ms: Option<u64>,
}

impl Filter {
    /// Whether a letter is meant. One that cannot be read is, where all are.
    pub(super) fn passes(&self, kept: &KeptLetter) -> bool {
        match &kept.letter {
            Ok(letter) => self.passes_letter(letter),
            Err(_) => *self == Filter::default(),
        }
    }

    fn passes_letter(&self, letter: &DeadLetter) -> bool {
        let (project, reason) = (letter.lane.project.as_str(), &letter.burial.reason);
        self.project.as_ref().is_none_or(|wanted| wanted == project)
            && self
                .reason_contains
                .as_ref()
                .is_none_or(|part| reason.contains(part))
            && self
                .buried_before_ms
                .is_none_or(|moment| letter.buried_at_ms < moment)
    }
}

impl<'a> Asked<'a> {
    /// From a request's body; an error is a sentence with the remedy.
    pub(super) fn of(body: &'a [u8]) -> Result<Self, String> {
        let body: Body<'a> = serde_json::from_slice(body)
            .map_err(|error| format!("the body makes no sense ({error}): {FORMS}"))?;
        let filter = Filter {
            project: body.project,
            reason_contains: body.reason_contains,
            buried_before_ms: body.buried_before_ms,
        };
        let named = usize::from(body.id.is_some()) + usize::from(body.ids.is_some()) + usize::from(body.all);
        if named != 1 {
            return Err(format!(
                "it must say which dead letters are meant, in one way: {FORMS}"
            ));
        }
        if !body.all && filter != Filter::default() {
            return Err(
                "project, reason_contains and buried_before_ms choose among all: send them with \"all\": true"
                    .into(),
            );
        }
        match (body.id, body.record, body.ids) {
            (Some(id), Some(record), _) => Ok(Self::Edited(id, record)),
            (_, Some(_), _) => {
                Err("record goes with the id of one dead letter: send {\"id\": 1, \"record\": {...}}".into())
            }
            (Some(id), None, _) => Ok(Self::These(BTreeSet::from([id]))),
            (None, None, Some(ids)) if ids.is_empty() || ids.len() > MAX_LETTERS => Err(format!(
                "ids must name 1 to {MAX_LETTERS} dead letters: send the rest in another request"
            )),
            (None, None, Some(ids)) => Ok(Self::These(ids.into_iter().collect())),
            (None, None, None) => Ok(Self::All(filter)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Kind, Lane, ProjectId, Seq};
    use crate::spool::Burial;

    #[test]
    fn a_body_says_in_one_way_which_letters_are_meant() {
        let of = |body: &'static str| Asked::of(body.as_bytes());
        assert!(matches!(of(r#"{"ids":[3,1,3]}"#), Ok(Asked::These(ids)) if ids == BTreeSet::from([1, 3])));
        assert!(matches!(of(r#"{"id":7}"#), Ok(Asked::These(ids)) if ids == BTreeSet::from([7])));
        assert!(
            matches!(of(r#"{"id":7,"record":{"n": 1.50}}"#), Ok(Asked::Edited(7, record)) if record.get() == r#"{"n": 1.50}"#)
        );
        assert!(
            matches!(of(r#"{"all":true,"project":"p"}"#), Ok(Asked::All(filter)) if filter.project == Some("p".into()))
        );
        for (body, told) in [
            ("", "makes no sense"),
            ("{}", "in one way"),
            (r#"{"ids":[1],"all":true}"#, "in one way"),
            (r#"{"ids":[]}"#, "1 to 1000"),
            (r#"{"ids":[1],"project":"p"}"#, "\"all\": true"),
            (r#"{"ids":[1],"record":{}}"#, "record goes with"),
            (r#"{"all":true,"reason":"x"}"#, "makes no sense"),
        ] {
            let error = of(body).expect_err(body);
            assert!(error.contains(told), "{body}: {error}");
        }
    }

    #[test]
    fn a_filter_takes_only_what_passes_all_of_it() {
        let letter = |project: &str, reason: &str, buried_at_ms| KeptLetter {
            number: 1,
            letter: Ok(DeadLetter {
                seq: Seq(1),
                lane: Lane {
                    project: ProjectId::new(project).expect("an id"),
                    kind: Kind::Log,
                },
                buried_at_ms,
                burial: Burial {
                    reason: reason.into(),
                    status: None,
                    excerpt: None,
                    attempts: 0,
                },
                record: Vec::new(),
            }),
        };
        let filter = Filter {
            project: Some("p".into()),
            reason_contains: Some("422".into()),
            buried_before_ms: Some(10),
        };
        assert!(filter.passes(&letter("p", "upstream said 422", 9)));
        for other in [
            letter("q", "upstream said 422", 9),
            letter("p", "upstream said 400", 9),
            letter("p", "upstream said 422", 10),
        ] {
            assert!(!filter.passes(&other), "{other:?}");
        }
        let unreadable = KeptLetter {
            number: 2,
            letter: Err("why".into()),
        };
        assert!(!filter.passes(&unreadable) && Filter::default().passes(&unreadable));
    }
}
