//! Records: what is written comes back, what was altered does not, and what is intact is found in any bytes.
use super::chunk::{self, Label};
use super::codec::{self, Kind, as_piece, pieces, seal};
use super::key::MAX_VALUE_BYTES;
use super::mark::Mark;
use super::meta::{Cursor, Extent, Head, decode_lane, encode_lane};
use super::scan::{each_value_of, envelope, find_magic};
use super::{Burial, DeadLetter, letter};
use crate::ids::{self, Lane, ProjectId, Seq};

/// The first bytes pick where and how, the rest is content.
pub(crate) fn record(data: &[u8]) {
    let (Some(&[pick, at, flip, part]), Some(content)) = (data.first_chunk(), data.get(4..)) else {
        return;
    };
    let sealed = a_chunk(content, u64::from(pick));
    altered(&sealed, usize::from(at) * 7, flip);
    in_pieces(&sealed, u64::from(pick), 60 + usize::from(part));
    a_letter(content, pick);
    amid(&sealed, content);
    for kind in [
        Kind::Chunk,
        Kind::Head,
        Kind::Lane,
        Kind::Cursor,
        Kind::Extent,
        Kind::Letter,
        Kind::Mark,
        Kind::Piece,
    ] {
        let (head, body) = content.split_at(usize::from(at).min(content.len()));
        any_content(&seal(kind, head, body));
        let mut fixed = codec::MAGIC.to_vec();
        fixed.push(codec::FORMAT);
        fixed.push(kind as u8);
        fixed.extend(content);
        fixed.extend(crc32c::crc32c(&fixed).to_be_bytes());
        any_content(&fixed);
    }
    any_content(content);
}

/// Events come back from a chunk as they were.
fn a_chunk(content: &[u8], first: u64) -> Vec<u8> {
    let events: Vec<&[u8]> = content.split(|byte| *byte == b'|').collect();
    let lengths = events.iter().map(|event| event.len());
    let events = &events[..chunk::cut(lengths)];
    let label = Label {
        lane: first as u32,
        kind: if first.is_multiple_of(2) {
            ids::Kind::Log
        } else {
            ids::Kind::Feedback
        },
        first,
        accepted_at_ms: first << 32,
    };
    let sealed = chunk::encode(&label, events);
    match chunk::decode(&sealed) {
        Ok(read) => {
            assert_eq!((read.label, read.end()), (label, first + events.len() as u64));
            for (seq, event) in (first..).zip(events) {
                assert_eq!(read.event(seq).as_deref(), Some(*event));
            }
            assert_eq!(read.event(read.end()), None);
        }
        Err(error) => panic!("{error}"),
    }
    sealed
}

/// No altered byte goes unnoticed, nor one that is gone or too many.
fn altered(sealed: &[u8], at: usize, flip: u8) {
    let mut other = sealed.to_vec();
    let at = at % other.len();
    other[at] ^= flip.max(1);
    assert!(chunk::decode(&other).is_err() && codec::open(&other).is_err());
    assert!(codec::open(&sealed[..at]).is_err());
    assert!(codec::open(&[sealed, &[flip]].concat()).is_err());
}

fn in_pieces(sealed: &[u8], id: u64, most: usize) {
    let mut joined = Vec::new();
    for value in pieces(sealed.to_vec(), id, most) {
        assert!(value.len() <= most);
        match as_piece(&value) {
            Ok(Some((piece, part))) => {
                assert_eq!(piece.id, id);
                joined.extend(part);
            }
            Ok(None) => joined.extend(value),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(joined, sealed);
}

fn a_letter(content: &[u8], pick: u8) {
    let Ok(project) = ProjectId::new("p/ü") else {
        panic!("it is an id");
    };
    let text = String::from_utf8_lossy(content).into_owned();
    let letter = DeadLetter {
        seq: Seq(u64::from(pick)),
        lane: Lane {
            project,
            kind: ids::Kind::Log,
        },
        buried_at_ms: u64::from(pick) << 40,
        burial: Burial {
            reason: text.chars().take(usize::from(pick)).collect(),
            status: (pick > 100).then_some(u16::from(pick) * 257),
            excerpt: (!pick.is_multiple_of(3)).then_some(text),
            attempts: u32::from(pick) << 24,
        },
        record: content.to_vec(),
    };
    let number = u64::from(pick) << 56;
    assert_eq!(
        letter::decode(&letter::encode(&letter, number)),
        Ok((number, letter))
    );
}

/// The chunk is found with anything before and behind it, and nothing that was not sealed is.
fn amid(sealed: &[u8], noise: &[u8]) {
    if sealed.len() > MAX_VALUE_BYTES {
        return;
    }
    let file = [noise, sealed, &noise[noise.len() / 2..], sealed].concat();
    let read = |window: &mut [u8], at: u64| {
        let rest = &file[usize::try_from(at).unwrap_or(usize::MAX).min(file.len())..];
        let length = window.len().min(rest.len()).min(1000);
        window[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    };
    let mut found = 0;
    each_value_of(file.len() as u64, read, find_magic, envelope, |_, value| {
        let is_one = chunk::decode(value).is_ok();
        found += usize::from(is_one && value == sealed);
        is_one
    });
    assert!(found >= 2, "found {found} of 2");
}

/// What is read is read the same when it is written again.
fn any_content(sealed: &[u8]) {
    if let Ok((kind, head, raw)) = codec::open(sealed) {
        assert_eq!(codec::open(&seal(kind, head, &raw)), Ok((kind, head, raw)));
    }
    if let Ok(read) = chunk::decode(sealed) {
        let events: Vec<_> = (read.label.first..read.end())
            .filter_map(|seq| read.event(seq))
            .collect();
        assert_eq!(chunk::decode(&chunk::encode(&read.label, &events)), Ok(read));
    }
    if let Ok(head) = Head::decode(sealed) {
        assert_eq!(Head::decode(&head.encode()), Ok(head));
        assert!(!head.is_after(&head));
        head.queued();
    }
    if let Ok((lane, cursor)) = Cursor::decode(sealed) {
        assert!(cursor.open.last().is_none_or(|last| *last < cursor.next));
        assert_eq!(Cursor::decode(&cursor.encode(lane)), Ok((lane, cursor)));
    }
    if let Ok((lane, extent)) = Extent::decode(sealed) {
        assert_eq!(Extent::decode(&extent.encode(lane)), Ok((lane, extent)));
    }
    if let Ok((number, lane)) = decode_lane(sealed) {
        assert_eq!(decode_lane(&encode_lane(number, &lane)), Ok((number, lane)));
    }
    if let Ok((number, letter)) = letter::decode(sealed) {
        assert_eq!(
            letter::decode(&letter::encode(&letter, number)),
            Ok((number, letter))
        );
    }
    if let Ok(mark) = Mark::decode(sealed) {
        assert_eq!(Mark::decode(&mark.encode()), Ok(mark));
    }
}
