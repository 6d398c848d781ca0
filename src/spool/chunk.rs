//! A chunk: consecutive events of one lane, as they lie in a generation. Pure.
//!
//! Head of the envelope: lane kind u8, lane number u32, first sequence u64, count u32, accepted at u64 (wall
//! clock, milliseconds since 1970). Body: the events one after the other, each behind its length (u32).
use super::codec::{self, CodecError, Fields, Packed, seal_packed};
use crate::ids::Kind;
use bytes::Bytes;

/// Most events in a chunk, unless a measurement says otherwise (design.md section 3).
pub(super) const MAX_EVENTS: usize = 32;
/// Bytes at which a chunk is closed. A single larger event still makes one.
pub(super) const MAX_BYTES: usize = 48 * 1024;

/// Most events of a chunk that is read. More than any version wrote; it bounds what a crafted one costs.
const MAX_EVENTS_READ: u32 = 4096;
/// Most uncompressed bytes of a chunk that is read, if it holds several events. Any version closed it at far fewer.
const MAX_BYTES_READ: u32 = 16 << 20;

/// Whose events they are, and where they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label {
    /// Number of the lane in this data folder.
    pub(super) lane: u32,
    /// What the lane carries, for tools that find a chunk without its lane's name.
    pub(super) kind: Kind,
    /// Sequence of the first event; the others follow without a gap.
    pub(super) first: u64,
    /// Wall clock at the commit, milliseconds since 1970.
    pub(super) accepted_at_ms: u64,
}

/// A chunk read back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) label: Label,
    body: Bytes,
    /// Where each event stands in the body.
    spans: Vec<(u32, u32)>,
}

/// Number that stands for a kind on disk.
pub(super) fn kind_code(kind: Kind) -> u8 {
    match kind {
        Kind::Log => 1,
        Kind::Feedback => 2,
    }
}

/// The kind that a number on disk stands for.
pub(super) fn kind_of(code: u8) -> Option<Kind> {
    match code {
        1 => Some(Kind::Log),
        2 => Some(Kind::Feedback),
        _ => None,
    }
}

/// How many of the next events, given their lengths, make one chunk.
pub(super) fn cut(lengths: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0;
    lengths
        .take(MAX_EVENTS)
        .enumerate()
        .take_while(|&(n, len)| {
            bytes += len;
            n == 0 || bytes <= MAX_BYTES
        })
        .count()
}

/// Events that will make one chunk, packed before it is known where they stand.
#[derive(Debug)]
pub(super) struct Bundle {
    /// How many.
    pub(super) events: u64,
    /// Their payload bytes.
    pub(super) bytes: u64,
    body: Packed,
}

impl Bundle {
    /// Packs events, which must be no more than [`cut`] allows.
    pub(super) fn new<E: AsRef<[u8]>>(events: &[E]) -> Bundle {
        let bytes: usize = events.iter().map(|event| event.as_ref().len()).sum();
        let mut body = Vec::with_capacity(bytes + 4 * events.len());
        for event in events {
            body.extend((event.as_ref().len() as u32).to_be_bytes());
            body.extend(event.as_ref());
        }
        Bundle {
            events: events.len() as u64,
            bytes: bytes as u64,
            body: Packed::new(body),
        }
    }

    /// Writes the chunk.
    pub(super) fn seal(&self, label: &Label) -> Vec<u8> {
        let mut head = Vec::with_capacity(25);
        head.push(kind_code(label.kind));
        head.extend(label.lane.to_be_bytes());
        head.extend(label.first.to_be_bytes());
        head.extend((self.events as u32).to_be_bytes());
        head.extend(label.accepted_at_ms.to_be_bytes());
        seal_packed(codec::Kind::Chunk, &head, &self.body)
    }
}

/// Writes a chunk.
pub(super) fn encode<E: AsRef<[u8]>>(label: &Label, events: &[E]) -> Vec<u8> {
    Bundle::new(events).seal(label)
}

/// What the head of a chunk says: whose events, and how many.
pub(super) fn parse_head(head: &[u8]) -> Option<(Label, u32)> {
    let mut fields = Fields(head);
    let kind = fields.u8().and_then(kind_of)?;
    let label = Label {
        lane: fields.u32()?,
        kind,
        first: fields.u64()?,
        accepted_at_ms: 0,
    };
    let count = fields.u32()?;
    let accepted_at_ms = fields.u64()?;
    label.first.checked_add(u64::from(count))?;
    Some((
        Label {
            accepted_at_ms,
            ..label
        },
        count,
    ))
}

/// Reads a chunk and checks all of it.
pub(super) fn decode(sealed: &[u8]) -> Result<Chunk, CodecError> {
    let found = codec::check(sealed)?;
    if found.kind != codec::Kind::Chunk {
        return Err(CodecError::Kind);
    }
    let (label, count) = parse_head(found.head).ok_or(CodecError::Malformed("head"))?;
    if count > MAX_EVENTS_READ || count > 1 && found.raw_len > MAX_BYTES_READ {
        return Err(CodecError::Malformed("count"));
    }
    let body = found.body()?;
    let mut spans = Vec::with_capacity(count as usize);
    let mut rest = Fields(&body);
    while !rest.0.is_empty() {
        if spans.len() == count as usize {
            return Err(CodecError::Malformed("count"));
        }
        let len = rest.u32().ok_or(CodecError::Malformed("event length"))?;
        let start = body.len() - rest.0.len();
        rest.take(len as usize)
            .ok_or(CodecError::Malformed("event length"))?;
        spans.push((start as u32, start as u32 + len));
    }
    if spans.len() != count as usize || spans.is_empty() {
        return Err(CodecError::Malformed("count"));
    }
    Ok(Chunk {
        label,
        body: body.into(),
        spans,
    })
}

impl Chunk {
    /// The sequence after the last event.
    pub(super) fn end(&self) -> u64 {
        self.label.first + self.spans.len() as u64
    }

    /// Uncompressed bytes that it holds in memory.
    pub(super) fn bytes(&self) -> usize {
        self.body.len()
    }

    /// The event with this sequence; `None` if it is not in the chunk. Shares the chunk's memory.
    pub(super) fn event(&self, seq: u64) -> Option<Bytes> {
        let at = usize::try_from(seq.checked_sub(self.label.first)?).ok()?;
        let &(start, end) = self.spans.get(at)?;
        Some(self.body.slice(start as usize..end as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::codec::seal;
    use proptest::prelude::*;

    fn label(first: u64) -> Label {
        Label {
            lane: 7,
            kind: Kind::Feedback,
            first,
            accepted_at_ms: 1_700_000_000_123,
        }
    }

    /// A chunk whose head says that it holds `count` events, over any body.
    fn crafted(count: u32, body: Vec<u8>) -> Vec<u8> {
        let bundle = Bundle {
            events: u64::from(count),
            bytes: 0,
            body: Packed::new(body),
        };
        bundle.seal(&label(1))
    }

    #[test]
    fn what_a_crafted_chunk_costs_is_bounded_by_what_is_there() {
        // Each empty event takes four bytes of length, which are all zero and pack very well.
        for (count, events) in [
            (MAX_EVENTS_READ + 1, MAX_EVENTS_READ as usize + 1),
            (2, (MAX_BYTES_READ as usize / 4) + 1),
            (2, 1_000_000),
            (2, 1),
            (0, 0),
        ] {
            let sealed = crafted(count, vec![0; 4 * events]);
            let refused = decode(&sealed).map(|chunk| chunk.end());
            assert_eq!(refused, Err(CodecError::Malformed("count")), "{count}, {events}");
        }
        let most = MAX_EVENTS_READ as usize;
        assert!(decode(&crafted(MAX_EVENTS_READ, vec![0; 4 * most])).is_ok());
        assert!(decode(&encode(&label(1), &[vec![0_u8; MAX_BYTES_READ as usize + 1]])).is_ok());
    }

    proptest! {
        #[test]
        fn events_come_back_in_order_byte_for_byte(
            events in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..40),
            first in 1..u64::MAX / 2,
        ) {
            let chunk = decode(&encode(&label(first), &events)).unwrap();
            prop_assert_eq!(chunk.label, label(first));
            prop_assert_eq!(chunk.end(), first + events.len() as u64);
            for (at, event) in events.iter().enumerate() {
                let read = chunk.event(first + at as u64);
                prop_assert_eq!(read.as_deref(), Some(event.as_slice()));
            }
            prop_assert_eq!(chunk.event(first - 1), None);
            prop_assert_eq!(chunk.event(chunk.end()), None);
        }

        #[test]
        fn any_flipped_bit_of_a_chunk_is_noticed(
            event: Vec<u8>, at: prop::sample::Index, bit in 0..8u8,
        ) {
            let mut sealed = encode(&label(1), &[event]);
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(decode(&sealed).is_err());
        }

        #[test]
        fn a_sealed_body_that_is_no_chunk_is_an_error(head: Vec<u8>, body: Vec<u8>) {
            prop_assume!(head.len() < 25);
            prop_assert!(decode(&seal(codec::Kind::Chunk, &head, &body)).is_err());
        }

        #[test]
        fn a_cut_takes_at_least_one_and_stays_within_bounds(
            lengths in prop::collection::vec(0..100_000usize, 1..100),
        ) {
            let n = cut(lengths.iter().copied());
            prop_assert!((1..=MAX_EVENTS).contains(&n));
            prop_assert!(n == 1 || lengths[..n].iter().sum::<usize>() <= MAX_BYTES);
        }
    }
}
