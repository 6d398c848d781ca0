//! Keys inside a sled folder, and how a value is laid over several of them. Numbers are big-endian, so that
//! keys sort as the numbers do.
//!
//! ```text
//! generation:    'e' lane u32, sequence u64, fragment u16    a chunk
//!                'f' 0 to 16                                 dividers, empty
//!                'm' 'h'                                     head: next sequence, ledger
//!                'm' 'l' lane u32                            which lane that number is
//!                'm' 'c' lane u32                            cursor of the lane
//!                'm' 'x' lane u32, generation u64            what the lane has in a generation
//! dead letters:  'd' sequence u64, fragment u16              a dead letter
//!                'a' buried at u64, sequence u64             by age: bytes on disk
//!                'm' 'h'                                     totals
//! ```

/// Longest value that is given to sled. A leaf holds up to 17 values and is written whole; over a quarter of
/// the segment it would go to `blobs/`, which sled never syncs (design.md section 3). 17 times this and the keys
/// stay under a quarter of [`super::durable::SEGMENT_BYTES`].
pub(super) const MAX_VALUE_BYTES: usize = 24 * 1024;

/// Empty keys between chunks and the rest, as many as a leaf may hold: the keys that every commit changes must not share
/// a leaf with chunks, or the chunks are rewritten with them.
pub(super) const DIVIDERS: u8 = 17;

const EVENT: u8 = b'e';
const DIVIDER: u8 = b'f';
const META: u8 = b'm';
const DEAD: u8 = b'd';
const AGE: u8 = b'a';

/// The key of the head, in a generation and among the dead letters.
pub(super) const HEAD: [u8; 2] = [META, b'h'];
/// What all lane names, cursors and extents start with.
pub(super) const LANES: [u8; 2] = [META, b'l'];
pub(super) const CURSORS: [u8; 2] = [META, b'c'];
pub(super) const EXTENTS: [u8; 2] = [META, b'x'];
/// What all age entries start with.
pub(super) const AGES: [u8; 1] = [AGE];

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// Fragment of the chunk that starts with `seq`.
pub(super) fn event(lane: u32, seq: u64, fragment: u16) -> Vec<u8> {
    join(&[
        &[EVENT],
        &lane.to_be_bytes(),
        &seq.to_be_bytes(),
        &fragment.to_be_bytes(),
    ])
}

/// A divider behind all chunks.
pub(super) fn divider(number: u8) -> Vec<u8> {
    vec![DIVIDER, number]
}

/// Lane, first sequence and fragment of an event key.
pub(super) fn parse_event(key: &[u8]) -> Option<(u32, u64, u16)> {
    let mut fields = super::codec::Fields(key.strip_prefix(&[EVENT])?);
    let parsed = (fields.u32()?, fields.u64()?, fields.u16()?);
    fields.0.is_empty().then_some(parsed)
}

/// Name of a lane.
pub(super) fn lane(id: u32) -> Vec<u8> {
    join(&[&LANES, &id.to_be_bytes()])
}

/// Cursor of a lane.
pub(super) fn cursor(id: u32) -> Vec<u8> {
    join(&[&CURSORS, &id.to_be_bytes()])
}

/// Extent of a lane in a generation.
pub(super) fn extent(id: u32, generation: u64) -> Vec<u8> {
    join(&[&EXTENTS, &id.to_be_bytes(), &generation.to_be_bytes()])
}

/// Fragment of a dead letter.
pub(super) fn letter(seq: u64, fragment: u16) -> Vec<u8> {
    join(&[&[DEAD], &seq.to_be_bytes(), &fragment.to_be_bytes()])
}

/// Sequence and fragment of a dead letter's key.
pub(super) fn parse_letter(key: &[u8]) -> Option<(u64, u16)> {
    let mut fields = super::codec::Fields(key.strip_prefix(&[DEAD])?);
    let parsed = (fields.u64()?, fields.u16()?);
    fields.0.is_empty().then_some(parsed)
}

/// Age entry of a dead letter.
pub(super) fn age(buried_at_ms: u64, seq: u64) -> Vec<u8> {
    join(&[&[AGE], &buried_at_ms.to_be_bytes(), &seq.to_be_bytes()])
}

/// Time of burial and sequence of an age entry.
pub(super) fn parse_age(key: &[u8]) -> Option<(u64, u64)> {
    let mut fields = super::codec::Fields(key.strip_prefix(&[AGE])?);
    let parsed = (fields.u64()?, fields.u64()?);
    fields.0.is_empty().then_some(parsed)
}

/// Cuts a value into fragments that sled may be given. There is always at least one.
pub(super) fn fragments(value: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    (0u16..).zip(value.chunks(MAX_VALUE_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_numbers_do_and_read_back() {
        let keys = [
            event(1, 255, 9),
            event(1, 256, 0),
            event(1, 256, 1),
            event(256, 1, 0),
        ];
        assert!(keys.is_sorted());
        assert_eq!(parse_event(&keys[2]), Some((1, 256, 1)));
        assert_eq!(parse_event(&HEAD), None);
        assert_eq!(parse_letter(&letter(7, 3)), Some((7, 3)));
        assert_eq!(parse_age(&age(5, 6)), Some((5, 6)));
    }

    #[test]
    fn a_full_leaf_stays_under_the_blob_threshold() {
        let leaf = 17 * (MAX_VALUE_BYTES + 64);
        assert!(leaf < super::super::durable::SEGMENT_BYTES / 4);
    }
}
