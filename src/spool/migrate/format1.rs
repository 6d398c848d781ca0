//! Reading format 1: frozen, and with nothing of the present format in it but number fields and lane names.
//!
//! ```text
//! envelope:  format u8 = 1 | flags u8 | head length u16 | raw length u32 | stored length u32 | head | stored | CRC32C u32
//! keys:      'e' lane u32, sequence u64, fragment u16    a chunk
//!            'm' 'h'                                     head
//!            'm' 'l' lane u32                            name of a lane
//!            'm' 'c' lane u32                            cursor
//!            'm' 'x' lane u32, generation u64            what the lane has in a generation
//!            'd' sequence u64, fragment u16              a dead letter, in a folder of their own
//! ```
//! An envelope of more than 24 KiB is cut into fragments, plain parts of it.
use crate::ids::{Kind, Lane, ProjectId, Seq};
use crate::spool::codec::Fields;
use crate::spool::durable::{Database, StorageError};
use crate::spool::key::MAX_VALUE_BYTES;
use crate::spool::scan::each_value;
use crate::spool::{Burial, DeadLetter};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;

const FORMAT: u8 = 1;
const FLAG_LZ4: u8 = 1;
/// Bytes of the head of a chunk.
const CHUNK_HEAD_BYTES: u8 = 25;
/// Bytes of an envelope beside its head and what is stored.
const FIXED_BYTES: usize = 16;

/// How everything stood, as the newest generation says.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) head: Head,
    /// By number.
    pub(super) lanes: Vec<LaneState>,
}

/// The account.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Head {
    pub(super) next_seq: u64,
    pub(super) accepted: u64,
    pub(super) delivered: u64,
    pub(super) dead: u64,
    pub(super) dropped: u64,
}

/// A lane.
#[derive(Debug)]
pub(super) struct LaneState {
    pub(super) number: u32,
    pub(super) lane: Lane,
    pub(super) cursor: Cursor,
    /// By generation.
    pub(super) extents: BTreeMap<u64, Extent>,
}

/// What of a lane has not ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Cursor {
    /// The first event that was never leased.
    pub(super) next: u64,
    /// Events below it that have not ended.
    pub(super) open: BTreeSet<u64>,
}

impl Cursor {
    pub(super) fn is_live(&self, seq: u64) -> bool {
        seq >= self.next || self.open.contains(&seq)
    }
}

/// What can be read of a state, where the whole cannot.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pub(super) head: Option<Head>,
    pub(super) names: BTreeMap<u32, Lane>,
    pub(super) cursors: BTreeMap<u32, Cursor>,
    /// By lane and generation.
    pub(super) extents: BTreeMap<(u32, u64), Extent>,
}

/// What a lane has in a generation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) first: u64,
    pub(super) last: u64,
    /// Events that have not ended.
    pub(super) live: u64,
}

/// Consecutive events of a lane.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) kind: Kind,
    pub(super) lane: u32,
    pub(super) accepted_at_ms: u64,
    pub(super) first: u64,
    pub(super) events: Vec<Vec<u8>>,
}

/// Reads the state out of a generation; `None` if it was never finished.
pub(super) fn read_state(db: &Database) -> Result<Option<State>, StorageError> {
    let Some(stored) = db.get(b"mh")? else {
        return Ok(None);
    };
    let head = head(&stored).ok_or_else(|| unreadable("head"))?;
    let mut extents: BTreeMap<u32, BTreeMap<u64, Extent>> = BTreeMap::new();
    for kv in db.scan(b"mx") {
        let (key, value) = kv?;
        let (lane, generation, extent) = extent(&key, &value).ok_or_else(|| unreadable("extent"))?;
        extents.entry(lane).or_default().insert(generation, extent);
    }
    let mut lanes = Vec::new();
    for (number, kv) in (0u32..).zip(db.scan(b"ml")) {
        let (key, value) = kv?;
        let lane = (key == lane_key(b'l', number))
            .then(|| lane_name(&value))
            .flatten();
        let cursor = match db.get(&lane_key(b'c', number))? {
            None => Cursor::default(),
            Some(stored) => cursor(&stored).ok_or_else(|| unreadable("cursor"))?,
        };
        lanes.push(LaneState {
            number,
            lane: lane.ok_or_else(|| unreadable("lane name"))?,
            cursor,
            extents: extents.remove(&number).unwrap_or_default(),
        });
    }
    Ok(Some(State { head, lanes }))
}

/// Reads what can be read of the state in a damaged generation.
pub(super) fn read_pieces(db: &Database) -> Pieces {
    let readable = |prefix: &[u8]| db.scan(prefix).map_while(Result::ok);
    let number = |key: &[u8]| Fields(key.get(2..)?).u32();
    let head = db.get(b"mh").ok().flatten().and_then(|stored| head(&stored));
    let names = readable(b"ml").filter_map(|(key, value)| Some((number(&key)?, lane_name(&value)?)));
    let cursors = readable(b"mc").filter_map(|(key, value)| Some((number(&key)?, cursor(&value)?)));
    let extents = readable(b"mx").filter_map(|(key, value)| {
        let (lane, generation, extent) = extent(&key, &value)?;
        Some(((lane, generation), extent))
    });
    Pieces {
        head,
        names: names.collect(),
        cursors: cursors.collect(),
        extents: extents.collect(),
    }
}

/// Bytes that a chunk begins with which is not laid over several keys: format, flags, and the length of its head.
fn find_chunk(bytes: &[u8]) -> Option<usize> {
    let is_start = |start: &[u8]| matches!(start, [FORMAT, 0 | FLAG_LZ4, 0, CHUNK_HEAD_BYTES]);
    bytes.windows(4).position(is_start)
}

/// The bytes of the envelope that seems to begin here.
fn envelope(bytes: &[u8]) -> Option<&[u8]> {
    let stored = Fields(bytes.get(8..)?).u32()? as usize;
    let len = FIXED_BYTES + usize::from(CHUNK_HEAD_BYTES) + stored;
    (len <= MAX_VALUE_BYTES).then(|| bytes.get(..len)).flatten()
}

/// Gives each chunk that is found in the bytes of a file, but for those that are laid over several keys.
pub(super) fn each_raw_chunk(file: &File, mut give: impl FnMut(Chunk)) -> io::Result<()> {
    each_value(file, find_chunk, envelope, |_, sealed| {
        let found = chunk(sealed);
        let is_one = found.is_some();
        found.into_iter().for_each(&mut give);
        is_one
    })
}

/// Gives each chunk of all lanes in a generation, until the first place that cannot be read.
pub(super) fn each_chunk_before_damage(db: &Database, give: impl FnMut(Chunk)) -> Result<(), StorageError> {
    let mut give = give;
    for found in joined(db, b"e") {
        match found {
            Ok(sealed) => chunk(&sealed).into_iter().for_each(&mut give),
            Err(error) if error.damage => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Gives each chunk of a lane in a generation, in order. One that is damaged is left out.
pub(super) fn each_chunk(
    db: &Database,
    number: u32,
    mut give: impl FnMut(Chunk) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let prefix = [b"e".as_slice(), &number.to_be_bytes()].concat();
    for found in joined(db, &prefix) {
        if let Some(chunk) = chunk(&found?) {
            give(chunk)?;
        }
    }
    Ok(())
}

/// Gives each dead letter in order; `None` for one that is damaged.
pub(super) fn letters(db: &Database) -> impl Iterator<Item = Result<Option<DeadLetter>, StorageError>> {
    joined(db, b"d").map(|found| found.map(|sealed| letter(&sealed)))
}

/// Values that are laid over several keys, joined: keys that differ in their last two bytes alone belong together.
fn joined(db: &Database, prefix: &[u8]) -> impl Iterator<Item = Result<Vec<u8>, StorageError>> + use<> {
    let mut parts = db.scan(prefix).peekable();
    std::iter::from_fn(move || {
        let (key, value) = match parts.next()? {
            Ok(first) => first,
            Err(error) => return Some(Err(error)),
        };
        let name = key.get(..key.len().saturating_sub(2)).unwrap_or_default();
        let mut whole = value.to_vec();
        while let Some(Ok((_, more))) = parts.next_if(
            |part| matches!(part, Ok((other, _)) if other.len() == key.len() && other.starts_with(name)),
        ) {
            whole.extend_from_slice(&more);
        }
        Some(Ok(whole))
    })
}

fn unreadable(what: &str) -> StorageError {
    StorageError::damaged(format!("a {what} of format 1 cannot be read"))
}

fn lane_key(which: u8, number: u32) -> Vec<u8> {
    [&[b'm', which], number.to_be_bytes().as_slice()].concat()
}

/// Head and body of an envelope.
fn unseal(sealed: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (covered, crc) = sealed.split_last_chunk::<4>()?;
    if crc32c::crc32c(covered) != u32::from_be_bytes(*crc) {
        return None;
    }
    let mut fields = Fields(covered);
    let (format, flags) = (fields.u8()?, fields.u8()?);
    let (head_len, raw_len, stored_len) = (fields.u16()?, fields.u32()?, fields.u32()?);
    let head = fields.take(head_len as usize)?.to_vec();
    let stored = fields.take(stored_len as usize)?;
    let raw = match flags {
        0 => stored.to_vec(),
        FLAG_LZ4 => lz4_flex::block::decompress(stored, raw_len as usize).ok()?,
        _ => return None,
    };
    (format == FORMAT && fields.0.is_empty() && raw.len() == raw_len as usize).then_some((head, raw))
}

fn numbers<const N: usize>(head: &[u8]) -> Option<[u64; N]> {
    let mut fields = Fields(head);
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = fields.varint()?;
    }
    Some(numbers)
}

fn extent(key: &[u8], value: &[u8]) -> Option<(u32, u64, Extent)> {
    let mut key = Fields(key.strip_prefix(b"mx")?);
    let (lane, generation) = (key.u32()?, key.u64()?);
    let (head, _) = unseal(value)?;
    let [first, last, events, _bytes, ended, _ended_bytes] = numbers(&head)?;
    let live = events.checked_sub(ended)?;
    Some((lane, generation, Extent { first, last, live }))
}

fn head(sealed: &[u8]) -> Option<Head> {
    let (head, _) = unseal(sealed)?;
    let [next_seq, accepted, delivered, dead, dropped, _written] = numbers(&head)?;
    Some(Head {
        next_seq,
        accepted,
        delivered,
        dead,
        dropped,
    })
}

fn cursor(sealed: &[u8]) -> Option<Cursor> {
    let (head, body) = unseal(sealed)?;
    let next = Fields(&head).varint()?;
    let mut open = BTreeSet::new();
    let mut fields = Fields(&body);
    let mut after = 0u64;
    while !fields.0.is_empty() {
        let start = after.checked_add(fields.varint()?)?;
        let end = start.checked_add(fields.varint()?)?.checked_add(1)?;
        if end > next {
            return None;
        }
        open.extend(start..end);
        after = end;
    }
    Some(Cursor { next, open })
}

fn kind_of(code: u8) -> Option<Kind> {
    match code {
        1 => Some(Kind::Log),
        2 => Some(Kind::Feedback),
        _ => None,
    }
}

fn lane_name(sealed: &[u8]) -> Option<Lane> {
    let (head, _) = unseal(sealed)?;
    let mut fields = Fields(&head);
    let kind = kind_of(fields.u8()?)?;
    let project = ProjectId::new(fields.text()?).ok()?;
    Some(Lane { project, kind })
}

/// Head: lane kind u8, lane number u32, first sequence u64, count u32, accepted at u64. Body: events behind their lengths.
fn chunk(sealed: &[u8]) -> Option<Chunk> {
    let (head, body) = unseal(sealed)?;
    let mut head = Fields(&head);
    let (kind, lane, first, count) = (kind_of(head.u8()?)?, head.u32()?, head.u64()?, head.u32()?);
    let accepted_at_ms = head.u64()?;
    let mut events = Vec::new();
    let mut rest = Fields(&body);
    while !rest.0.is_empty() {
        let len = rest.u32()?;
        events.push(rest.take(len as usize)?.to_vec());
    }
    first.checked_add(u64::from(count))?;
    (events.len() == count as usize).then_some(Chunk {
        kind,
        lane,
        accepted_at_ms,
        first,
        events,
    })
}

/// Head: lane kind u8, sequence u64, buried at u64. Body: project, reason, status, excerpt, attempts, record.
fn letter(sealed: &[u8]) -> Option<DeadLetter> {
    let (head, body) = unseal(sealed)?;
    let mut head = Fields(&head);
    let (kind, seq, buried_at_ms) = (kind_of(head.u8()?)?, Seq(head.u64()?), head.u64()?);
    let mut body = Fields(&body);
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
    Some(DeadLetter {
        seq,
        lane: Lane { project, kind },
        buried_at_ms,
        burial: Burial {
            reason,
            status,
            excerpt,
            attempts,
        },
        record: body.0.to_vec(),
    })
}
