//! A generation that takes no more writes, read without sled.
//!
//! sled zeroes what follows a place that it cannot read as soon as it opens a file, intact or not. So a sealed generation is
//! never given to it again: every chunk is an envelope of its own that is found by looking through the file once, and
//! one that is damaged harms no other.
use super::chunk::{self, Chunk};
use super::codec::{self, Kind, Piece};
use super::durable::{Database, StorageError};
use super::key;
use super::scan::{Spot, each_envelope, read_spots};
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

/// Where a chunk lies.
#[derive(Debug, Clone, Copy)]
struct Found {
    lane: u32,
    first: u64,
    /// How many events.
    count: u32,
    /// Its envelope or its pieces: from there on in [`Sealed::spots`].
    from: u32,
    pieces: u16,
}

/// A piece of a chunk.
struct Part {
    piece: Piece,
    spot: Spot,
    /// Lane, first sequence and count, which only the first piece tells.
    label: Option<(u32, u64, u32)>,
}

/// An open sealed generation. It takes 48 bytes of memory for each chunk, which are far fewer than the chunk's own:
/// a few MB for a full generation of single small events, and less than 1 MB for one of batches.
pub(super) struct Sealed {
    file: File,
    /// By lane and first sequence.
    chunks: Vec<Found>,
    spots: Vec<Spot>,
}

impl Sealed {
    /// Looks through a file. What does not check out is as if it were not there.
    pub(super) fn open(path: &Path) -> Result<Sealed, StorageError> {
        let file = File::open(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => StorageError::damaged("its file is gone"),
            _ => error.into(),
        })?;
        let (mut chunks, mut spots, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        each_envelope(&file, |at, sealed| {
            let Ok(found) = codec::check(sealed) else {
                return false;
            };
            let spot = Spot {
                at,
                len: sealed.len() as u32,
            };
            match found.kind {
                Kind::Chunk => {
                    if let Some((lane, first, count)) = label(found.head) {
                        let from = spots.len() as u32;
                        chunks.push(Found {
                            lane,
                            first,
                            count,
                            from,
                            pieces: 1,
                        });
                        spots.push(spot);
                    }
                }
                Kind::Piece => parts.extend(part(found.head, found.stored, spot)),
                _ => {}
            }
            true
        })?;
        join(parts, &mut chunks, &mut spots);
        chunks.sort_unstable_by_key(|found| (found.lane, found.first, found.from));
        // A chunk that sled moved is there twice.
        chunks.dedup_by_key(|found| (found.lane, found.first));
        chunks.shrink_to_fit();
        spots.shrink_to_fit();
        Ok(Sealed { file, chunks, spots })
    }

    /// The chunks of a lane that may hold any of these events: their first sequences and ends.
    pub(super) fn chunks(&self, lane: u32, from: u64, last: u64) -> impl Iterator<Item = (u64, u64)> {
        let start = self
            .chunks
            .partition_point(|found| (found.lane, found.first) <= (lane, from));
        let found = self.chunks[start.saturating_sub(1)..].iter();
        found
            .skip_while(move |found| found.lane != lane && (found.lane, found.first) < (lane, from))
            .take_while(move |found| found.lane == lane && found.first <= last)
            .map(|found| (found.first, found.first + u64::from(found.count)))
    }

    fn floor(&self, lane: u32, seq: u64) -> Option<u64> {
        let after = self
            .chunks
            .partition_point(|found| (found.lane, found.first) <= (lane, seq));
        let found = self.chunks[..after].last()?;
        (found.lane == lane).then_some(found.first)
    }

    fn ceiling(&self, lane: u32, seq: u64) -> Option<u64> {
        let at = self
            .chunks
            .partition_point(|found| (found.lane, found.first) < (lane, seq));
        let found = self.chunks.get(at)?;
        (found.lane == lane).then_some(found.first)
    }

    fn chunk(&self, lane: u32, first: u64) -> Result<Vec<u8>, StorageError> {
        let at = self
            .chunks
            .binary_search_by_key(&(lane, first), |found| (found.lane, found.first));
        let found = at.ok().and_then(|at| self.chunks.get(at));
        let spots = found.and_then(|found| {
            let from = found.from as usize;
            self.spots.get(from..from + usize::from(found.pieces))
        });
        read_spots(
            &self.file,
            spots.ok_or_else(|| StorageError::damaged("it is missing"))?,
        )
    }
}

fn label(head: &[u8]) -> Option<(u32, u64, u32)> {
    let (label, count) = chunk::parse_head(head)?;
    Some((label.lane, label.first, count))
}

fn part(head: &[u8], stored: &[u8], spot: Spot) -> Option<Part> {
    let piece = Piece::parse(head)?;
    let label = match piece.number {
        0 => Some(label(codec::head_at(stored)?)?),
        _ => None,
    };
    Some(Part { piece, spot, label })
}

/// Notes the chunks of which all pieces are there.
fn join(mut parts: Vec<Part>, chunks: &mut Vec<Found>, spots: &mut Vec<Spot>) {
    let order = |part: &Part| (part.piece.id, part.piece.count, part.piece.number);
    parts.sort_by_key(order);
    parts.dedup_by_key(|part| order(part));
    for whole in parts.chunk_by(|a, b| (a.piece.id, a.piece.count) == (b.piece.id, b.piece.count)) {
        let pieces = whole[0].piece.count;
        if let Some((lane, first, count)) = whole[0].label
            && whole.len() == usize::from(pieces)
        {
            let from = spots.len() as u32;
            chunks.push(Found {
                lane,
                first,
                count,
                from,
                pieces,
            });
            spots.extend(whole.iter().map(|part| part.spot));
        }
    }
}

/// A generation to read events from.
pub(super) enum Source<'a> {
    /// The newest, which takes the writes.
    Live(&'a Database),
    /// Any other.
    Sealed(&'a Sealed),
}

impl Source<'_> {
    /// First sequence of the lane's last chunk that does not begin after an event.
    pub(super) fn floor(&self, lane: u32, seq: u64) -> Result<Option<u64>, StorageError> {
        match self {
            Source::Sealed(sealed) => Ok(sealed.floor(lane, seq)),
            Source::Live(db) => {
                let key = db.floor(&key::event(lane, seq))?.map(|(key, _)| key);
                Ok(of_lane(lane, key))
            }
        }
    }

    /// First sequence of the lane's first chunk that does not begin before an event.
    pub(super) fn ceiling(&self, lane: u32, seq: u64) -> Result<Option<u64>, StorageError> {
        match self {
            Source::Sealed(sealed) => Ok(sealed.ceiling(lane, seq)),
            Source::Live(db) => Ok(of_lane(lane, db.ceiling(&key::event(lane, seq))?)),
        }
    }

    /// The lane's chunk that begins with an event.
    pub(super) fn chunk(&self, lane: u32, first: u64) -> Result<Chunk, StorageError> {
        let sealed = match self {
            Source::Sealed(sealed) => sealed.chunk(lane, first)?,
            Source::Live(db) => {
                let slot = db.get(&key::event(lane, first))?;
                let slot = slot.ok_or_else(|| StorageError::damaged("it is missing"))?;
                db.long(&slot, first)?
            }
        };
        let chunk = chunk::decode(&sealed).map_err(|error| StorageError::damaged(error.to_string()))?;
        match chunk.label.lane == lane && chunk.label.first == first {
            true => Ok(chunk),
            false => Err(StorageError::damaged("another chunk stands in its place")),
        }
    }
}

/// The first sequence in an event key, if it is of that lane.
fn of_lane(lane: u32, key: Option<sled::IVec>) -> Option<u64> {
    let (of, first) = key::parse_event(&key?)?;
    (of == lane).then_some(first)
}
