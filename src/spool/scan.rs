//! The raw scan: finds what checks out in the bytes of a sled file, without sled. Every stored value is an envelope of its
//! own (`codec.rs`) and at most [`MAX_VALUE_BYTES`] long, so a small window over the file is enough.
//!
//! A record in the middle of an event cannot be mistaken for one: the magic is no valid UTF-8, and events are.
use super::chunk::{self, Chunk};
use super::codec::{self, FIXED_BYTES, Kind, MAGIC, Piece};
use super::durable::StorageError;
use super::key::MAX_VALUE_BYTES;
use super::meta::{Cursor, Head, decode_lane};
use crate::ids::Lane;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes that are looked through at once.
const WINDOW_BYTES: usize = 1024 * 1024;
/// Bytes that are given up where the disk does not give them back.
const UNREADABLE_STEP: u64 = 4096;

/// Where an envelope lies in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) at: u64,
    pub(super) len: u32,
}

/// Everything that checks out in a file.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) lanes: BTreeMap<u32, Lane>,
    /// The latest of each lane.
    pub(super) cursors: BTreeMap<u32, Cursor>,
    /// The latest.
    pub(super) head: Option<Head>,
    /// Chunks by lane and first sequence; the parts of each.
    pub(super) chunks: BTreeMap<(u32, u64), Vec<Spot>>,
    file: Option<File>,
}

/// Pieces by id and count, then by number.
type Pieces = BTreeMap<(u64, u16), BTreeMap<u16, Spot>>;

/// Looks through a file. One that is not there holds nothing.
pub(super) fn scan(path: &Path) -> io::Result<Scan> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Scan::default()),
        opened => opened?,
    };
    let mut scan = Scan::default();
    let mut pieces = Pieces::new();
    each_envelope(&file, |at, sealed| scan.take(at, sealed, &mut pieces))?;
    scan.file = Some(file);
    scan.join(pieces);
    Ok(scan)
}

impl Scan {
    /// Reads a chunk that was found.
    pub(super) fn chunk(&self, spots: &[Spot]) -> Option<(Vec<u8>, Chunk)> {
        let sealed = read_spots(self.file.as_ref()?, spots).ok()?;
        let chunk = chunk::decode(&sealed).ok()?;
        Some((sealed, chunk))
    }

    /// Notes an envelope; whether it checks out.
    fn take(&mut self, at: u64, sealed: &[u8], pieces: &mut Pieces) -> bool {
        let spot = Spot {
            at,
            len: sealed.len() as u32,
        };
        let Ok((kind, head, _)) = codec::open(sealed) else {
            return false;
        };
        match kind {
            Kind::Chunk => {
                let Ok(chunk) = chunk::decode(sealed) else {
                    return false;
                };
                self.chunks
                    .insert((chunk.label.lane, chunk.label.first), vec![spot]);
            }
            Kind::Piece => {
                let Some(piece) = Piece::parse(head) else {
                    return false;
                };
                let parts = pieces.entry((piece.id, piece.count)).or_default();
                parts.insert(piece.number, spot);
            }
            Kind::Lane => {
                if let Ok((number, lane)) = decode_lane(sealed) {
                    self.lanes.insert(number, lane);
                }
            }
            Kind::Cursor => {
                if let Ok((lane, cursor)) = Cursor::decode(sealed) {
                    merge_cursor(&mut self.cursors, lane, cursor);
                }
            }
            Kind::Head => {
                if let Ok(head) = Head::decode(sealed)
                    && self.head.is_none_or(|known| head.is_after(&known))
                {
                    self.head = Some(head);
                }
            }
            Kind::Extent | Kind::Letter | Kind::Mark | Kind::Requeued => {}
        }
        true
    }

    /// Makes chunks of those pieces of which all were found.
    fn join(&mut self, pieces: Pieces) {
        for ((_, count), parts) in pieces {
            if parts.len() != usize::from(count) {
                continue;
            }
            let spots: Vec<Spot> = parts.into_values().collect();
            if let Some((_, chunk)) = self.chunk(&spots) {
                self.chunks.insert((chunk.label.lane, chunk.label.first), spots);
            }
        }
    }
}

/// Keeps the later of two cursors of a lane.
pub(super) fn merge_cursor(cursors: &mut BTreeMap<u32, Cursor>, lane: u32, cursor: Cursor) {
    match cursors.get(&lane) {
        Some(known) if !cursor.is_after(known) => {}
        _ => {
            cursors.insert(lane, cursor);
        }
    }
}

/// Reads an envelope that lies whole in one place, or in pieces in several.
pub(super) fn read_spots(file: &File, spots: &[Spot]) -> Result<Vec<u8>, StorageError> {
    let mut sealed = Vec::new();
    for spot in spots {
        let mut part = vec![0; spot.len as usize];
        file.read_exact_at(&mut part, spot.at)?;
        if spots.len() == 1 {
            return Ok(part);
        }
        match codec::as_piece(&part) {
            Ok(Some((_, bytes))) => sealed.extend(bytes),
            Ok(None) => return Err(StorageError::damaged("a piece is gone")),
            Err(error) => return Err(StorageError::damaged(format!("a piece is unreadable: {error}"))),
        }
    }
    Ok(sealed)
}

/// Shows every place where an envelope could be, with its bytes. `take` says whether it is one.
pub(super) fn each_envelope(file: &File, take: impl FnMut(u64, &[u8]) -> bool) -> io::Result<()> {
    each_value(file, find_magic, envelope, take)
}

/// The same for values of any form, of at most [`MAX_VALUE_BYTES`]: `find` gives the next place where one could begin, and
/// `cut` those of the bytes from there on that would be it.
pub(super) fn each_value(
    file: &File,
    find: fn(&[u8]) -> Option<usize>,
    cut: fn(&[u8]) -> Option<&[u8]>,
    take: impl FnMut(u64, &[u8]) -> bool,
) -> io::Result<()> {
    let end = file.metadata()?.len();
    each_value_of(end, |window, at| file.read_at(window, at), find, cut, take);
    Ok(())
}

/// The same for `end` bytes that `read` gives, as [`FileExt::read_at`] does.
pub(super) fn each_value_of(
    end: u64,
    read: impl Fn(&mut [u8], u64) -> io::Result<usize>,
    find: fn(&[u8]) -> Option<usize>,
    cut: fn(&[u8]) -> Option<&[u8]>,
    mut take: impl FnMut(u64, &[u8]) -> bool,
) {
    let mut window = vec![0; usize::try_from(end).map_or(WINDOW_BYTES, |end| end.min(WINDOW_BYTES))];
    let mut base = 0;
    while base < end {
        let (len, is_cut) = fill(&read, &mut window, base);
        if len == 0 {
            // A bad place on the disk. What lies around it is still wanted.
            base += UNREADABLE_STEP;
            continue;
        }
        let bytes = &window[..len];
        let last = base + len as u64 >= end;
        // What begins near the end of the window is looked at again at the beginning of the next. What reaches into a bad place
        // is lost.
        let stop = match last || is_cut {
            true => len,
            false => len.saturating_sub(MAX_VALUE_BYTES).max(1),
        };
        let mut at = 0;
        while let Some(found) = find(&bytes[at..])
            .map(|found| at + found)
            .filter(|&found| found < stop)
        {
            let sealed = cut(&bytes[found..]);
            at = match sealed {
                Some(sealed) if take(base + found as u64, sealed) => found + sealed.len(),
                _ => found + 1,
            };
        }
        base += at.max(stop) as u64;
    }
}

/// The bytes of the envelope that seems to begin here.
pub(super) fn envelope(bytes: &[u8]) -> Option<&[u8]> {
    let len = codec::sealed_len(bytes.get(..FIXED_BYTES)?).ok()?;
    (len <= MAX_VALUE_BYTES).then(|| bytes.get(..len)).flatten()
}

/// Bytes that are looked at together: a whole block without the first byte of the magic is passed over quickly.
const BLOCK_BYTES: usize = 64;

pub(super) fn find_magic(bytes: &[u8]) -> Option<usize> {
    for (start, block) in (0..).step_by(BLOCK_BYTES).zip(bytes.chunks(BLOCK_BYTES)) {
        let any = block.iter().fold(false, |any, &byte| any | (byte == MAGIC[0]));
        if !any {
            continue;
        }
        let mut starts = start..start + block.len();
        if let Some(found) = starts.find(|&at| bytes[at..].starts_with(&MAGIC)) {
            return Some(found);
        }
    }
    None
}

/// Reads until the window is full, the file ends, or a place comes that cannot be read; how much, and whether that was why.
fn fill(read: &impl Fn(&mut [u8], u64) -> io::Result<usize>, window: &mut [u8], from: u64) -> (usize, bool) {
    let mut len = 0;
    while len < window.len() {
        match read(&mut window[len..], from + len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return (len, true),
        }
    }
    (len, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids;
    use crate::spool::chunk::{Label, encode};
    use crate::spool::codec::{pieces, seal};
    use proptest::prelude::*;

    fn label(first: u64) -> Label {
        Label {
            lane: 3,
            kind: ids::Kind::Log,
            first,
            accepted_at_ms: 1,
        }
    }

    /// First sequence of a chunk, where it lies, and the chunk as it was sealed.
    type Laid = (u64, std::ops::Range<usize>, Vec<u8>);

    /// A file of chunks with noise between them.
    fn file_of(seed: u64) -> (Vec<u8>, Vec<Laid>) {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut bytes, mut chunks) = (Vec::new(), Vec::new());
        for first in 1..60u64 {
            bytes.extend((0..random.usize(..3_000)).map(|_| random.u8(..)));
            let len = if random.u8(..) < 20 {
                100_000
            } else {
                random.usize(..20_000)
            };
            let event: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
            let sealed = encode(&label(first), &[event]);
            let start = bytes.len();
            for piece in pieces(sealed.clone(), first, MAX_VALUE_BYTES) {
                bytes.extend(piece);
                bytes.extend(b"\xf7pd\x02 not one");
            }
            chunks.push((first, start..bytes.len(), sealed));
        }
        (bytes, chunks)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn what_is_intact_is_found_and_what_is_found_is_intact(
            seed: u64, hits in prop::collection::vec(any::<prop::sample::Index>(), 0..20), cut: Option<prop::sample::Index>,
        ) {
            let (mut bytes, chunks) = file_of(seed);
            let whole = bytes.clone();
            for hit in &hits {
                bytes[hit.index(whole.len())] ^= 0x41;
            }
            bytes.truncate(cut.map_or(whole.len(), |cut| cut.index(whole.len())));
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &bytes).unwrap();
            let found = scan(file.path()).unwrap();
            for (first, range, sealed) in &chunks {
                let intact = bytes.get(range.clone()) == Some(&whole[range.clone()]);
                match found.chunks.get(&(3, *first)) {
                    Some(spots) => prop_assert_eq!(&found.chunk(spots).unwrap().0, sealed),
                    None => prop_assert!(!intact, "chunk {} was missed", first),
                }
            }
        }
    }

    /// Chunks whose files' places cannot be read: all that lie beside them are found.
    #[test]
    fn what_lies_beside_a_bad_place_on_the_disk_is_found() {
        const PAGE: usize = 4096;
        for seed in 0..10 {
            let (bytes, chunks) = file_of(seed);
            let mut random = fastrand::Rng::with_seed(seed);
            let pages = bytes.len() / PAGE;
            let bad: Vec<usize> = (0..6).map(|_| random.usize(..pages)).collect();
            // As much as there is before the next bad page, as the kernel does.
            let read = |window: &mut [u8], at: u64| {
                let at = at as usize;
                let readable = bad.iter().filter(|page| (*page + 1) * PAGE > at);
                let end = readable.map(|page| page * PAGE).min().unwrap_or(bytes.len());
                if end <= at && at < bytes.len() {
                    return Err(io::Error::other("a bad place"));
                }
                let len = window.len().min(end.saturating_sub(at));
                window[..len].copy_from_slice(&bytes[at..at + len]);
                Ok(len)
            };
            let mut found = Vec::new();
            each_value_of(bytes.len() as u64, read, find_magic, envelope, |at, sealed| {
                let is_one = codec::open(sealed).is_ok();
                found.extend(is_one.then_some(at as usize));
                is_one
            });
            for (first, range, sealed) in &chunks {
                let is_whole = sealed.len() <= MAX_VALUE_BYTES;
                let end = range.start + sealed.len();
                let is_hit = bad
                    .iter()
                    .any(|page| page * PAGE < end && range.start < (page + 1) * PAGE);
                if is_whole && !is_hit {
                    assert!(
                        found.contains(&range.start),
                        "chunk {first} beside {bad:?}, seed {seed}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_latest_cursor_and_head_are_kept_whatever_their_order() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let cursor = |next, open: &[u64]| Cursor {
            next,
            open: open.iter().copied().collect(),
        };
        let head = |next_seq, delivered| Head {
            next_seq,
            delivered,
            ..Head::default()
        };
        let values = [
            cursor(9, &[1, 2]).encode(3),
            cursor(9, &[2]).encode(3),
            cursor(5, &[]).encode(3),
            head(10, 4).encode(),
            head(10, 6).encode(),
            head(9, 7).encode(),
            seal(Kind::Letter, b"", b"another kind"),
        ];
        std::fs::write(file.path(), values.concat()).unwrap();
        let found = scan(file.path()).unwrap();
        assert_eq!(found.cursors, BTreeMap::from([(3, cursor(9, &[2]))]));
        assert_eq!(found.head, Some(head(10, 6)));
    }
}
