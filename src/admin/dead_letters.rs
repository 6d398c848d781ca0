//! The pages of `/dead_letters`. Pure.

use crate::secret::Secrets;
use crate::spool::{DeadLetter, KeptLetter};
use serde::Serialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Dead letters on a page unless the query says otherwise, and at most.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// Which dead letters are asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// Number of the last letter that was read.
    pub(super) after: Option<u64>,
    pub(super) limit: usize,
}

impl Page {
    /// From the query's values.
    pub(super) fn of(after: Option<&str>, limit: Option<&str>) -> Result<Self, &'static str> {
        let after = after.map(str::parse).transpose();
        let after = after
            .map_err(|_| "after must be the number of the last dead letter that was read, a whole number")?;
        let limit = limit.map_or(Ok(DEFAULT_LIMIT), str::parse);
        match limit {
            Ok(limit @ 1..=MAX_LIMIT) => Ok(Self { after, limit }),
            _ => Err("limit must be a whole number from 1 to 1000"),
        }
    }
}

/// Where the next page is, as a `Link` header tells it.
pub(super) fn link(next: u64, limit: usize) -> String {
    format!("</dead_letters?after={next}&limit={limit}>; rel=\"next\"")
}

/// A dead letter as it is shown, or why it cannot be.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Shown<'a> {
    Letter(Letter<'a>),
    Unreadable { number: u64, unreadable: &'a str },
}

impl<'a> Shown<'a> {
    /// `secrets` are masked in its reason and excerpt: an older version kept them as they came.
    pub(super) fn new(kept: &'a KeptLetter, secrets: &Secrets) -> Self {
        let number = kept.number;
        match &kept.letter {
            Ok(letter) => Self::Letter(Letter::new(number, letter, secrets)),
            Err(unreadable) => Self::Unreadable { number, unreadable },
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Letter<'a> {
    number: u64,
    seq: u64,
    project: &'a str,
    kind: &'static str,
    reason: Cow<'a, str>,
    status: Option<u16>,
    excerpt: Option<Cow<'a, str>>,
    attempts: u32,
    buried_at_ms: u64,
    record: Record<'a>,
}

/// The JSON as it was accepted, or what was sent instead of JSON, as text.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Record<'a> {
    Json(&'a RawValue),
    Text(Cow<'a, str>),
}

impl<'a> Letter<'a> {
    fn new(number: u64, letter: &'a DeadLetter, secrets: &Secrets) -> Self {
        let record = match serde_json::from_slice(&letter.record) {
            Ok(json) => Record::Json(json),
            Err(_) => Record::Text(String::from_utf8_lossy(&letter.record)),
        };
        Self {
            number,
            seq: letter.seq.0,
            project: letter.lane.project.as_str(),
            kind: letter.lane.kind.as_str(),
            reason: secrets.mask(&letter.burial.reason),
            status: letter.burial.status,
            excerpt: letter
                .burial
                .excerpt
                .as_deref()
                .map(|excerpt| secrets.mask(excerpt)),
            attempts: letter.burial.attempts,
            buried_at_ms: letter.buried_at_ms,
            record,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Kind, Lane, ProjectId, Seq};
    use crate::secret::Secret;
    use crate::spool::Burial;

    #[test]
    fn a_page_is_bounded_and_continues_after_the_last_one() {
        assert_eq!(
            Page::of(None, None),
            Ok(Page {
                after: None,
                limit: 100
            })
        );
        assert_eq!(
            Page::of(Some("7"), Some("3")),
            Ok(Page {
                after: Some(7),
                limit: 3
            })
        );
        for (after, limit) in [
            (Some("x"), None),
            (Some(""), None),
            (None, Some("0")),
            (None, Some("1001")),
            (None, Some("-1")),
        ] {
            assert!(Page::of(after, limit).is_err(), "{after:?} {limit:?}");
        }
    }

    fn secrets() -> Secrets {
        let secrets = Secrets::default();
        secrets.learn(Secret::new("sk-canary"));
        secrets
    }

    fn shown(record: &[u8]) -> String {
        let letter = DeadLetter {
            seq: Seq(3),
            lane: Lane {
                project: ProjectId::new("p").expect("an id"),
                kind: Kind::Log,
            },
            buried_at_ms: 5,
            burial: Burial {
                reason: "why sk-canary".into(),
                status: Some(422),
                excerpt: Some("got c2stY2FuYXJ5".into()),
                attempts: 2,
            },
            record: record.to_vec(),
        };
        let kept = KeptLetter {
            number: 9,
            letter: Ok(letter),
        };
        serde_json::to_string(&Shown::new(&kept, &secrets())).expect("JSON")
    }

    #[test]
    fn a_record_is_shown_byte_for_byte_and_as_text_where_it_is_not_json() {
        let page = shown(br#"{"n": 1.50,"a":12345678901234567890123}"#);
        assert!(
            page.contains(r#""record":{"n": 1.50,"a":12345678901234567890123}"#),
            "{page}"
        );
        assert!(
            page.contains(r#"{"number":9,"seq":3,"project":"p","kind":"log","reason":"why ***","status":422,"excerpt":"got ***""#),
            "{page}"
        );
        assert!(shown(b"{\"half").contains(r#""record":"{\"half""#));
    }

    #[test]
    fn a_letter_that_cannot_be_read_keeps_its_place() {
        let kept = KeptLetter {
            number: 9,
            letter: Err("why".into()),
        };
        let page = serde_json::to_string(&Shown::new(&kept, &secrets())).expect("JSON");
        assert_eq!(page, r#"{"number":9,"unreadable":"why"}"#);
    }
}
