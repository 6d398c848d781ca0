//! Keys inside a sled folder, and how a value is laid over several of them. Numbers are big-endian, so that
//! keys sort as the numbers do.
//!
//! ```text
//! generation:    'e' lane u32, sequence u64                  slot of the chunk that starts there
//!                's' slot u32                                a chunk or a piece of one; empty if not used yet
//!                'm' 'h'                                     head: next sequence, ledger
//!                'm' 'l' lane u32                            which lane that number is
//!                'm' 'c' lane u32                            cursor of the lane
//!                'm' 'x' lane u32, sequence u64              what the lane has from there on
//!                'm' 'r'                                     dead letters that are queued again and are to be removed
//! dead letters:  'd' number u64                               slot of the letter
//!                's' slot u32                                a letter or a piece of one; empty if not used
//!                'm' 'h'                                     summary of the folder
//! ```

/// Longest value that is given to sled. A leaf holds up to 17 values and may be written whole; over a quarter of
/// the segment it would go to `blobs/`, which sled never syncs (design.md section 3). 17 times this and the keys
/// stay under a quarter of [`super::durable::SEGMENT_BYTES`].
pub(super) const MAX_VALUE_BYTES: usize = 24 * 1024;

const EVENT: u8 = b'e';
const SLOT: u8 = b's';
const META: u8 = b'm';
const DEAD: u8 = b'd';

/// The key of the head, in a generation and in a folder of dead letters.
pub(super) const HEAD: [u8; 2] = [META, b'h'];
/// What all lane names, cursors and extents start with.
pub(super) const LANES: [u8; 2] = [META, b'l'];
pub(super) const CURSORS: [u8; 2] = [META, b'c'];
pub(super) const EXTENTS: [u8; 2] = [META, b'x'];
/// The key of the note about dead letters that are queued again.
pub(super) const REQUEUED: [u8; 2] = [META, b'r'];
/// What all slots start with.
pub(super) const SLOTS: [u8; 1] = [SLOT];
/// What all dead letters start with.
pub(super) const LETTERS: [u8; 1] = [DEAD];

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// Where the chunk lies that starts with `seq`.
pub(super) fn event(lane: u32, seq: u64) -> Vec<u8> {
    join(&[&[EVENT], &lane.to_be_bytes(), &seq.to_be_bytes()])
}

/// Lane and first sequence of an event key.
pub(super) fn parse_event(key: &[u8]) -> Option<(u32, u64)> {
    let mut fields = super::codec::Fields(key.strip_prefix(&[EVENT])?);
    let parsed = (fields.u32()?, fields.u64()?);
    fields.0.is_empty().then_some(parsed)
}

/// A slot.
pub(super) fn slot(number: u32) -> [u8; 5] {
    let [a, b, c, d] = number.to_be_bytes();
    [SLOT, a, b, c, d]
}

/// Number of a slot.
pub(super) fn parse_slot(key: &[u8]) -> Option<u32> {
    let mut fields = super::codec::Fields(key.strip_prefix(&[SLOT])?);
    let number = fields.u32()?;
    fields.0.is_empty().then_some(number)
}

/// Name of a lane.
pub(super) fn lane(id: u32) -> Vec<u8> {
    join(&[&LANES, &id.to_be_bytes()])
}

/// Cursor of a lane.
pub(super) fn cursor(id: u32) -> Vec<u8> {
    join(&[&CURSORS, &id.to_be_bytes()])
}

/// Extent of a lane that starts with a sequence.
pub(super) fn extent(id: u32, first: u64) -> Vec<u8> {
    join(&[&EXTENTS, &id.to_be_bytes(), &first.to_be_bytes()])
}

/// A dead letter.
pub(super) fn letter(number: u64) -> Vec<u8> {
    join(&[&[DEAD], &number.to_be_bytes()])
}

/// Number of a dead letter's key.
pub(super) fn parse_letter(key: &[u8]) -> Option<u64> {
    let mut fields = super::codec::Fields(key.strip_prefix(&[DEAD])?);
    let number = fields.u64()?;
    fields.0.is_empty().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_numbers_do_and_read_back() {
        let keys = [event(1, 255), event(1, 256), event(256, 1)];
        assert!(keys.is_sorted());
        assert_eq!(parse_event(&keys[1]), Some((1, 256)));
        assert_eq!(parse_event(&HEAD), None);
        assert!(slot(255) < slot(256));
        assert_eq!(parse_slot(&slot(7)), Some(7));
        assert_eq!(parse_letter(&letter(7)), Some(7));
    }

    #[test]
    fn a_full_leaf_stays_under_the_blob_threshold() {
        let leaf = 17 * (MAX_VALUE_BYTES + 64);
        assert!(leaf < super::super::durable::SEGMENT_BYTES / 4);
    }
}
