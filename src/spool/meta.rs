//! What a generation says about the whole spool: head, lanes, cursors, extents. Pure.
//!
//! A snapshot of all of it goes into the first batch of each generation, and whatever changed into every later
//! batch, so that the newest generation alone is enough to start from.
use super::chunk::{kind_code, kind_of};
use super::codec::{CodecError, Fields, Kind, put_bytes, put_varint, seal, unseal};
use super::queue::MAX_OPEN;
use crate::ids::{Lane, ProjectId};
use std::collections::BTreeSet;

/// Counts that belong to the spool as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// The next sequence to be given out.
    pub(super) next_seq: u64,
    /// Ledger, without `queued`, which the extents give.
    pub(super) accepted: u64,
    pub(super) delivered: u64,
    pub(super) dead: u64,
    pub(super) dropped: u64,
    /// Bytes written to this generation so far.
    pub(super) written: u64,
    /// Dead letters from this number on do not count: their burial was not committed here. 0 if that is not known, which a
    /// head that may not be the last one must say.
    pub(super) uncounted_from: u64,
    /// Numbers (from, and up to but not including) of dead letters below it that do not count either.
    pub(super) void: (u64, u64),
    /// Events that salvage carried over from damaged generations.
    pub(super) saved: u64,
    /// Events that were there and could not be found in damaged generations. They count as dropped, too.
    pub(super) lost: u64,
}

/// How far a lane has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The lane's first event that was never leased, or one after its last. Everything below has been settled,
    /// except `open`.
    pub(super) next: u64,
    /// Events below `next` that have not ended.
    pub(super) open: BTreeSet<u64>,
}

/// Consecutive events of a lane that lie in the same generation, as far as they have not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// Where they lie.
    pub(super) generation: u64,
    /// Not above the first of them.
    pub(super) first: u64,
    /// The last of them, or later.
    pub(super) last: u64,
    /// How many have not ended.
    pub(super) live: u64,
    /// Their payload bytes.
    pub(super) live_bytes: u64,
}

impl Extent {
    /// This extent with others added that follow it in the same generation.
    pub(super) fn extended(self, by: &Extent) -> Extent {
        Extent {
            last: by.last,
            live: self.live + by.live,
            live_bytes: self.live_bytes + by.live_bytes,
            ..self
        }
    }
}

impl Head {
    pub(super) fn encode(&self) -> Vec<u8> {
        seal_numbers(
            Kind::Head,
            &[
                self.next_seq,
                self.accepted,
                self.delivered,
                self.dead,
                self.dropped,
                self.written,
                self.uncounted_from,
                self.void.0,
                self.void.1,
                self.saved,
                self.lost,
            ],
        )
    }

    pub(super) fn decode(sealed: &[u8]) -> Result<Head, CodecError> {
        let numbers = unseal_numbers(Kind::Head, sealed)?;
        let [
            next_seq,
            accepted,
            delivered,
            dead,
            dropped,
            written,
            ref rest @ ..,
        ]: [u64; 11] = numbers;
        let [uncounted_from, void_from, void_to, saved, lost] = *rest;
        Ok(Head {
            next_seq,
            accepted,
            delivered,
            dead,
            dropped,
            written,
            uncounted_from,
            void: (void_from, void_to),
            saved,
            lost,
        })
    }

    /// Events that have ended.
    pub(super) fn ended(&self) -> u64 {
        self.delivered
            .saturating_add(self.dead)
            .saturating_add(self.dropped)
    }

    /// An event that was on lease while its place was found lost has ended after all: it no longer counts as dropped. Whether
    /// there can have been one.
    pub(super) fn find_again(&mut self) -> bool {
        let any = self.dropped > 0;
        self.dropped -= u64::from(any);
        any
    }

    /// Events that have not.
    pub(super) fn queued(&self) -> u64 {
        self.accepted.saturating_sub(self.ended())
    }

    /// Whether it was written after another of the same generation.
    pub(super) fn is_after(&self, other: &Head) -> bool {
        let order = |head: &Head| (head.next_seq, head.accepted, head.ended());
        order(self) > order(other)
    }
}

impl Extent {
    pub(super) fn encode(&self, lane: u32) -> Vec<u8> {
        seal_numbers(
            Kind::Extent,
            &[
                u64::from(lane),
                self.generation,
                self.first,
                self.last,
                self.live,
                self.live_bytes,
            ],
        )
    }

    /// Number of the lane and the extent.
    pub(super) fn decode(sealed: &[u8]) -> Result<(u32, Extent), CodecError> {
        let [lane, generation, first, last, live, live_bytes] = unseal_numbers(Kind::Extent, sealed)?;
        let malformed = CodecError::Malformed("extent");
        // No sequence is the last that there can be: what follows it is counted with.
        if first > last || last == u64::MAX || live > last - first + 1 {
            return Err(malformed);
        }
        let lane = u32::try_from(lane).map_err(|_| malformed)?;
        Ok((
            lane,
            Extent {
                generation,
                first,
                last,
                live,
                live_bytes,
            },
        ))
    }
}

/// Most open events that a cursor is read with: many times what a lane holds open, and no more than there is room for in memory.
const MOST_OPEN: u64 = 16 * MAX_OPEN as u64;

impl Cursor {
    /// Whether an event that an extent covers has not ended.
    pub(super) fn is_live(&self, seq: u64) -> bool {
        seq >= self.next || self.open.contains(&seq)
    }

    /// Whether it was written after another of the same lane: cursors only move forward.
    pub(super) fn is_after(&self, other: &Cursor) -> bool {
        let order = |cursor: &Cursor| (cursor.next, std::cmp::Reverse(cursor.open.len()));
        order(self) > order(other)
    }

    /// `next`, then runs of consecutive open events, each as the gap before it and its length less one.
    pub(super) fn encode(&self, lane: u32) -> Vec<u8> {
        let mut head = Vec::new();
        put_varint(&mut head, u64::from(lane));
        put_varint(&mut head, self.next);
        let mut body = Vec::new();
        let mut open = self.open.iter().copied().peekable();
        let mut after = 0;
        while let Some(start) = open.next() {
            let mut end = start + 1;
            while open.next_if_eq(&end).is_some() {
                end += 1;
            }
            put_varint(&mut body, start - after);
            put_varint(&mut body, end - start - 1);
            after = end;
        }
        seal(Kind::Cursor, &head, &body)
    }

    /// Number of the lane and its cursor.
    pub(super) fn decode(sealed: &[u8]) -> Result<(u32, Cursor), CodecError> {
        let (head, body) = unseal(Kind::Cursor, sealed)?;
        let malformed = CodecError::Malformed("cursor");
        let mut head = Fields(head);
        let lane = head
            .varint()
            .and_then(|n| u32::try_from(n).ok())
            .ok_or(malformed)?;
        let next = head.varint().ok_or(malformed)?;
        let mut open = BTreeSet::new();
        let mut fields = Fields(&body);
        let mut after = 0u64;
        while !fields.0.is_empty() {
            let gap = fields.varint().ok_or(malformed)?;
            let more = fields.varint().ok_or(malformed)?;
            let start = after.checked_add(gap).ok_or(malformed)?;
            let end = start
                .checked_add(more)
                .and_then(|e| e.checked_add(1))
                .ok_or(malformed)?;
            if end > next || (open.len() as u64).saturating_add(end - start) > MOST_OPEN {
                return Err(malformed);
            }
            open.extend(start..end);
            after = end;
        }
        Ok((lane, Cursor { next, open }))
    }
}

/// Writes the name of a lane.
pub(super) fn encode_lane(number: u32, lane: &Lane) -> Vec<u8> {
    let mut head = number.to_be_bytes().to_vec();
    head.push(kind_code(lane.kind));
    put_bytes(&mut head, lane.project.as_str().as_bytes());
    seal(Kind::Lane, &head, &[])
}

/// Reads the number and the name of a lane.
pub(super) fn decode_lane(sealed: &[u8]) -> Result<(u32, Lane), CodecError> {
    let (head, _) = unseal(Kind::Lane, sealed)?;
    let mut fields = Fields(head);
    let parsed = fields.u32().and_then(|number| {
        let kind = kind_of(fields.u8()?)?;
        let project = ProjectId::new(fields.text()?).ok()?;
        Some((number, Lane { project, kind }))
    });
    parsed.ok_or(CodecError::Malformed("lane"))
}

fn seal_numbers(kind: Kind, numbers: &[u64]) -> Vec<u8> {
    let mut head = Vec::new();
    for &number in numbers {
        put_varint(&mut head, number);
    }
    seal(kind, &head, &[])
}

fn unseal_numbers<const N: usize>(kind: Kind, sealed: &[u8]) -> Result<[u64; N], CodecError> {
    let (head, _) = unseal(kind, sealed)?;
    let mut fields = Fields(head);
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = fields.varint().ok_or(CodecError::Malformed("numbers"))?;
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_comes_back_as_it_was(open in prop::collection::btree_set(1..2_000u64, 0..300)) {
            let cursor = Cursor { next: 2_000, open };
            prop_assert_eq!(Cursor::decode(&cursor.encode(7)), Ok((7, cursor)));
        }

        #[test]
        fn garbage_in_the_envelope_is_an_error_or_a_value_and_never_a_panic(head: Vec<u8>, body: Vec<u8>) {
            let sealed = |kind| seal(kind, &head, &body);
            let _ = (
                Head::decode(&sealed(Kind::Head)),
                Extent::decode(&sealed(Kind::Extent)),
                decode_lane(&sealed(Kind::Lane)),
            );
            if let Ok((_, cursor)) = Cursor::decode(&seal(Kind::Cursor, &[1, 0xff, 0x0f], &body)) {
                prop_assert!(cursor.open.iter().all(|&seq| seq < cursor.next));
            }
        }
    }

    #[test]
    fn numbers_that_cannot_be_take_neither_memory_nor_the_daemon_down() {
        let (mut head, mut body) = (Vec::new(), Vec::new());
        put_varint(&mut head, 1);
        put_varint(&mut head, u64::MAX);
        put_varint(&mut body, 5);
        put_varint(&mut body, 1 << 40);
        let cursor = seal(Kind::Cursor, &head, &body);
        assert_eq!(Cursor::decode(&cursor), Err(CodecError::Malformed("cursor")));
        let all = seal_numbers(Kind::Extent, &[1, 2, 0, u64::MAX, 1, 1]);
        assert_eq!(Extent::decode(&all), Err(CodecError::Malformed("extent")));
        let head = Head {
            delivered: u64::MAX,
            dead: 1,
            ..Head::default()
        };
        assert_eq!((head.ended(), head.queued()), (u64::MAX, 0));
    }

    #[test]
    fn heads_extents_and_lanes_come_back_as_they_were() {
        let head = Head {
            next_seq: u64::MAX,
            accepted: 5,
            delivered: 3,
            dead: 1,
            dropped: 0,
            written: 1 << 40,
            uncounted_from: 8,
            void: (3, u64::MAX),
            saved: 7,
            lost: 8,
        };
        assert_eq!(Head::decode(&head.encode()), Ok(head));
        let extent = Extent {
            generation: 3,
            first: 1,
            last: 9,
            live: 5,
            live_bytes: 500,
        };
        assert_eq!(Extent::decode(&extent.encode(u32::MAX)), Ok((u32::MAX, extent)));
        let lane = Lane {
            project: ProjectId::new("prøject/1").unwrap(),
            kind: ids::Kind::Feedback,
        };
        assert_eq!(decode_lane(&encode_lane(5, &lane)), Ok((5, lane)));
    }

    #[test]
    fn the_largest_cursor_fits_into_one_value() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut seq = 1;
        // Each open event far from the next, as in a lane with little traffic beside busy ones.
        let open: BTreeSet<u64> = std::iter::repeat_with(|| {
            seq += random.u64(1..1 << 28);
            seq
        })
        .take(crate::spool::queue::MAX_OPEN)
        .collect();
        let cursor = Cursor { next: seq + 1, open };
        assert!(cursor.encode(u32::MAX).len() <= crate::spool::key::MAX_VALUE_BYTES);
    }
}
