//! A dead letter as it lies on disk. Pure.
//!
//! Head of the envelope: number u64, lane kind u8, sequence u64, buried at u64 (wall clock, milliseconds since 1970). Body:
//! project, reason, status, excerpt, attempts, and the record to the end.
use super::chunk::{kind_code, kind_of};
use super::codec::{self, CodecError, Fields, put_bytes, put_varint, seal, unseal};
use super::{Burial, DeadLetter};
use crate::ids::{Lane, ProjectId, Seq};

/// Writes a dead letter under its number.
pub(super) fn encode(letter: &DeadLetter, number: u64) -> Vec<u8> {
    let mut head = number.to_be_bytes().to_vec();
    head.push(kind_code(letter.lane.kind));
    head.extend(letter.seq.0.to_be_bytes());
    head.extend(letter.buried_at_ms.to_be_bytes());
    let burial = &letter.burial;
    let mut body = Vec::with_capacity(letter.record.len() + burial.reason.len() + 64);
    put_bytes(&mut body, letter.lane.project.as_str().as_bytes());
    put_bytes(&mut body, burial.reason.as_bytes());
    put_varint(&mut body, burial.status.map_or(0, |status| u64::from(status) + 1));
    match &burial.excerpt {
        None => body.push(0),
        Some(excerpt) => {
            body.push(1);
            put_bytes(&mut body, excerpt.as_bytes());
        }
    }
    put_varint(&mut body, u64::from(burial.attempts));
    body.extend(&letter.record);
    seal(codec::Kind::Letter, &head, &body)
}

/// Reads a dead letter and its number, and checks all of it.
pub(super) fn decode(sealed: &[u8]) -> Result<(u64, DeadLetter), CodecError> {
    let (head, body) = unseal(codec::Kind::Letter, sealed)?;
    parse(head, &body).ok_or(CodecError::Malformed("dead letter"))
}

fn parse(head: &[u8], body: &[u8]) -> Option<(u64, DeadLetter)> {
    let mut head = Fields(head);
    let number = head.u64()?;
    let (kind, seq, buried_at_ms) = (kind_of(head.u8()?)?, Seq(head.u64()?), head.u64()?);
    let mut body = Fields(body);
    let project = ProjectId::new(body.text()?).ok()?;
    let reason = body.text()?.to_owned();
    let status = match body.varint()? {
        0 => None,
        status => Some(u16::try_from(status - 1).ok()?),
    };
    let excerpt = match body.u8()? {
        0 => None,
        _ => Some(body.text()?.to_owned()),
    };
    let attempts = u32::try_from(body.varint()?).ok()?;
    let burial = Burial {
        reason,
        status,
        excerpt,
        attempts,
    };
    let letter = DeadLetter {
        seq,
        lane: Lane { project, kind },
        buried_at_ms,
        burial,
        record: body.0.to_vec(),
    };
    Some((number, letter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Kind;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_letter_comes_back_as_it_was_and_any_flipped_bit_is_noticed(
            record: Vec<u8>, reason: String, status: Option<u16>, excerpt: Option<String>, attempts: u32,
            number: u64, at: prop::sample::Index, bit in 0..8u8,
        ) {
            let lane = Lane { project: ProjectId::new("p/ü").unwrap(), kind: Kind::Feedback };
            let burial = Burial { reason, status, excerpt, attempts };
            let letter = DeadLetter { seq: Seq(9), lane, buried_at_ms: 1 << 40, burial, record };
            let mut sealed = encode(&letter, number);
            prop_assert_eq!(decode(&sealed), Ok((number, letter)));
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(decode(&sealed).is_err());
        }

        #[test]
        fn a_sealed_body_that_is_no_letter_is_an_error_or_a_value_and_never_a_panic(
            head in prop::collection::vec(any::<u8>(), 0..20), body: Vec<u8>,
        ) {
            let _ = decode(&seal(codec::Kind::Letter, &head, &body));
        }
    }
}
