//! The envelope around everything that the spool keeps: format version, kind, optional lz4, CRC32C. Pure.
//!
//! ```text
//! magic u24 | format u8 | kind u8 | flags u8 | head length u16 | raw length u32 | stored length u32 | head | stored | CRC32C u32
//! ```
//! Numbers are big-endian. The CRC covers all that stands before it. `head` is never compressed, so that
//! tools can read it cheaply; `stored` is the raw body, compressed when that made it smaller. Magic, kind and lengths
//! stand in front so that an envelope is found again in the bytes of a file that nothing else can read any more.

/// Format of everything inside a generation and among the dead letters. A newer one is not read.
pub(super) const FORMAT: u8 = 2;
/// What every envelope starts with. No valid UTF-8 does.
pub(super) const MAGIC: [u8; 3] = [0xf7, b'p', b'd'];

/// The body is an lz4 block.
const FLAG_LZ4: u8 = 1;
/// Everything before the head.
pub(super) const FIXED_BYTES: usize = 16;
const CRC_BYTES: usize = 4;
/// A byte of an lz4 block stands for up to 255 of what it holds.
const MOST_LZ4_RATIO: usize = 256;
/// Bodies below this are not worth compressing.
const MIN_COMPRESSED_BYTES: usize = 128;

/// What an envelope holds. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Events of one lane (`chunk.rs`).
    Chunk = 1,
    /// Part of an envelope that is too long for one value.
    Piece = 2,
    /// The counts of the whole spool, or of the dead letters.
    Head = 3,
    /// Which lane a number stands for.
    Lane = 4,
    /// How far a lane has come.
    Cursor = 5,
    /// What a lane has in a generation.
    Extent = 6,
    /// A dead letter.
    Letter = 7,
    /// The high-water mark outside sled.
    Mark = 8,
    /// Which dead letters are queued again.
    Requeued = 9,
}

impl Kind {
    /// The kind that a number on disk stands for.
    pub(super) fn of(code: u8) -> Option<Kind> {
        use Kind::{Chunk, Cursor, Extent, Head, Lane, Letter, Mark, Piece, Requeued};
        let all = [Chunk, Piece, Head, Lane, Cursor, Extent, Letter, Mark, Requeued];
        all.into_iter().find(|&kind| kind as u8 == code)
    }
}

/// Why stored bytes could not be read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum CodecError {
    /// Fewer bytes than were written.
    #[error("it is cut short")]
    Truncated,
    /// The bytes changed after they were written.
    #[error("its checksum does not match")]
    Checksum,
    /// Not what this version writes.
    #[error("it has format {0}, which this version does not know")]
    Format(u8),
    /// Something else stands in its place.
    #[error("it is not what should stand there")]
    Kind,
    /// The checksum is right and the content still makes no sense.
    #[error("its {0} makes no sense")]
    Malformed(&'static str),
}

/// A body as it will be stored, compressed when that made it smaller. The costly part of sealing, and the part that needs to
/// know nothing about where the body will stand.
#[derive(Debug)]
pub(super) struct Packed {
    flags: u8,
    raw_len: u32,
    stored: Vec<u8>,
}

impl Packed {
    /// Compresses a body.
    pub(super) fn new(raw: Vec<u8>) -> Packed {
        let raw_len = raw.len() as u32;
        let packed = (raw.len() >= MIN_COMPRESSED_BYTES).then(|| lz4_flex::block::compress(&raw));
        match packed {
            Some(stored) if stored.len() < raw.len() => Packed {
                flags: FLAG_LZ4,
                raw_len,
                stored,
            },
            _ => Packed {
                flags: 0,
                raw_len,
                stored: raw,
            },
        }
    }
}

/// Puts `head` and `raw` into one checked envelope.
pub(super) fn seal(kind: Kind, head: &[u8], raw: &[u8]) -> Vec<u8> {
    seal_packed(kind, head, &Packed::new(raw.to_vec()))
}

/// Puts `head` and a packed body into one checked envelope.
pub(super) fn seal_packed(kind: Kind, head: &[u8], body: &Packed) -> Vec<u8> {
    let Packed {
        flags,
        raw_len,
        stored,
    } = body;
    let mut out = Vec::with_capacity(FIXED_BYTES + head.len() + stored.len() + CRC_BYTES);
    out.extend(MAGIC);
    out.extend([FORMAT, kind as u8, *flags]);
    out.extend((head.len() as u16).to_be_bytes());
    out.extend(raw_len.to_be_bytes());
    out.extend((stored.len() as u32).to_be_bytes());
    out.extend(head);
    out.extend(stored);
    let crc = crc32c::crc32c(&out);
    out.extend(crc.to_be_bytes());
    out
}

/// Checks an envelope of a known kind and gives back its head and its body.
pub(super) fn unseal(kind: Kind, sealed: &[u8]) -> Result<(&[u8], Vec<u8>), CodecError> {
    let (found, head, raw) = open(sealed)?;
    match found == kind {
        true => Ok((head, raw)),
        false => Err(CodecError::Kind),
    }
}

/// An envelope that checks out, with its body as it is stored.
pub(super) struct Checked<'a> {
    pub(super) kind: Kind,
    pub(super) head: &'a [u8],
    pub(super) stored: &'a [u8],
    flags: u8,
    /// Bytes of the body once it is unpacked, as the envelope says.
    pub(super) raw_len: u32,
}

impl Checked<'_> {
    /// Unpacks the body.
    pub(super) fn body(&self) -> Result<Vec<u8>, CodecError> {
        let raw = match self.flags {
            0 => self.stored.to_vec(),
            // Room is taken for what the length says, before anything is known of what it holds.
            FLAG_LZ4 if self.raw_len as usize / MOST_LZ4_RATIO > self.stored.len() => {
                return Err(CodecError::Malformed("body length"));
            }
            FLAG_LZ4 => lz4_flex::block::decompress(self.stored, self.raw_len as usize)
                .map_err(|_| CodecError::Malformed("compressed body"))?,
            _ => return Err(CodecError::Malformed("flags field")),
        };
        if raw.len() != self.raw_len as usize {
            return Err(CodecError::Malformed("body length"));
        }
        Ok(raw)
    }
}

/// Checks an envelope and gives back what it holds, its head and its body.
pub(super) fn open(sealed: &[u8]) -> Result<(Kind, &[u8], Vec<u8>), CodecError> {
    let found = check(sealed)?;
    let raw = found.body()?;
    Ok((found.kind, found.head, raw))
}

/// Checks an envelope. Does not decompress the body.
pub(super) fn check(sealed: &[u8]) -> Result<Checked<'_>, CodecError> {
    let len = sealed_len(sealed)?;
    if len > sealed.len() {
        return Err(CodecError::Truncated);
    }
    if len < sealed.len() {
        return Err(CodecError::Malformed("length"));
    }
    let (covered, crc) = sealed
        .split_last_chunk::<CRC_BYTES>()
        .ok_or(CodecError::Truncated)?;
    if crc32c::crc32c(covered) != u32::from_be_bytes(*crc) {
        return Err(CodecError::Checksum);
    }
    let mut fields = Fields(&covered[4..]);
    let (Some(kind), Some(flags), Some(head_len), Some(raw_len), Some(_)) =
        (fields.u8(), fields.u8(), fields.u16(), fields.u32(), fields.u32())
    else {
        return Err(CodecError::Truncated);
    };
    let kind = Kind::of(kind).ok_or(CodecError::Kind)?;
    let head = fields.take(head_len as usize).ok_or(CodecError::Truncated)?;
    Ok(Checked {
        kind,
        head,
        stored: fields.0,
        flags,
        raw_len,
    })
}

/// The head of the envelope that starts here, of which the rest may be cut off: nothing is checked yet.
pub(super) fn head_at(start: &[u8]) -> Option<&[u8]> {
    sealed_len(start).ok()?;
    let mut fields = Fields(start);
    fields.take(6)?;
    let len = fields.u16()? as usize;
    start.get(FIXED_BYTES..FIXED_BYTES + len)
}

/// How long the envelope is that starts here, if one does, going by its first bytes alone: nothing is checked yet.
pub(super) fn sealed_len(start: &[u8]) -> Result<usize, CodecError> {
    let mut fields = Fields(start);
    if fields.take(MAGIC.len()) != Some(&MAGIC) {
        return Err(CodecError::Malformed("beginning"));
    }
    let format = fields.u8().ok_or(CodecError::Truncated)?;
    if format != FORMAT {
        return Err(CodecError::Format(format));
    }
    let (Some(_), Some(_), Some(head), Some(_), Some(stored)) =
        (fields.u8(), fields.u8(), fields.u16(), fields.u32(), fields.u32())
    else {
        return Err(CodecError::Truncated);
    };
    Ok(FIXED_BYTES + head as usize + stored as usize + CRC_BYTES)
}

/// Most pieces of one envelope: 65,535 of them hold about 1.5 GiB.
const MAX_PIECES: usize = u16::MAX as usize;

/// Cuts an envelope into values of at most `max_bytes`, each an envelope of its own. `id` is the sequence that the
/// whole belongs to. One that fits is left as it is.
pub(super) fn pieces(sealed: Vec<u8>, id: u64, max_bytes: usize) -> Vec<Vec<u8>> {
    if sealed.len() <= max_bytes {
        return vec![sealed];
    }
    let room = max_bytes - PIECE_BYTES;
    let count = pieces_of(sealed.len(), max_bytes);
    let cut = |(number, part): (u16, &[u8])| {
        let mut head = Vec::with_capacity(PIECE_HEAD_BYTES);
        head.extend(id.to_be_bytes());
        head.extend(number.to_be_bytes());
        head.extend(count.to_be_bytes());
        let part = Packed {
            flags: 0,
            raw_len: part.len() as u32,
            stored: part.to_vec(),
        };
        seal_packed(Kind::Piece, &head, &part)
    };
    (0u16..).zip(sealed.chunks(room)).map(cut).collect()
}

/// How many values [`pieces`] makes of an envelope of this length.
pub(super) fn pieces_of(sealed_len: usize, max_bytes: usize) -> u16 {
    match sealed_len <= max_bytes {
        true => 1,
        false => sealed_len.div_ceil(max_bytes - PIECE_BYTES).min(MAX_PIECES) as u16,
    }
}

/// Head of a piece: id u64, number u16, count u16.
const PIECE_HEAD_BYTES: usize = 12;
/// A piece beside what it carries.
const PIECE_BYTES: usize = FIXED_BYTES + PIECE_HEAD_BYTES + CRC_BYTES;

/// Which part of what a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// What was given to [`pieces`].
    pub(super) id: u64,
    /// From 0 on.
    pub(super) number: u16,
    /// Pieces of the whole.
    pub(super) count: u16,
}

impl Piece {
    /// Reads the head of a piece.
    pub(super) fn parse(head: &[u8]) -> Option<Piece> {
        let mut fields = Fields(head);
        let piece = Piece {
            id: fields.u64()?,
            number: fields.u16()?,
            count: fields.u16()?,
        };
        (fields.0.is_empty() && piece.number < piece.count).then_some(piece)
    }
}

/// Whether a value is a piece, and which; checks all of it.
pub(super) fn as_piece(value: &[u8]) -> Result<Option<(Piece, Vec<u8>)>, CodecError> {
    if value.get(4) != Some(&(Kind::Piece as u8)) {
        return Ok(None);
    }
    let (head, part) = unseal(Kind::Piece, value)?;
    let piece = Piece::parse(head).ok_or(CodecError::Malformed("piece"))?;
    Ok(Some((piece, part)))
}

/// Reads big-endian fields from the front of a slice; `None` when it is too short.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next `n` bytes.
    pub(super) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A number as [`put_varint`] writes it.
    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// Bytes as [`put_bytes`] writes them.
    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.varint()?;
        self.take(usize::try_from(len).ok()?)
    }

    /// Text as [`put_bytes`] writes it.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

/// Appends a number in as few bytes as it needs, seven bits a byte, low bits first.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length and the bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_sealed_comes_out_again(head: Vec<u8>, raw: Vec<u8>, times in 1..20usize) {
            let raw = raw.repeat(times);
            let sealed = seal(Kind::Chunk, &head, &raw);
            prop_assert_eq!(sealed_len(&sealed), Ok(sealed.len()));
            prop_assert_eq!(unseal(Kind::Chunk, &sealed), Ok((head.as_slice(), raw)));
            prop_assert_eq!(unseal(Kind::Letter, &sealed), Err(CodecError::Kind));
        }

        #[test]
        fn any_flipped_bit_is_noticed(raw: Vec<u8>, at: prop::sample::Index, bit in 0..8u8) {
            let mut sealed = seal(Kind::Chunk, b"head", &raw);
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(open(&sealed).is_err());
        }

        #[test]
        fn any_truncation_is_an_error(raw: Vec<u8>, at: prop::sample::Index) {
            let sealed = seal(Kind::Chunk, b"head", &raw);
            prop_assert!(open(&sealed[..at.index(sealed.len())]).is_err());
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(garbage: Vec<u8>) {
            prop_assert!(open(&garbage).is_err());
        }

        #[test]
        fn pieces_are_short_and_join_to_the_whole(
            raw in prop::collection::vec(any::<u8>(), 0..20_000), max in 100..3_000usize, id: u64,
        ) {
            let whole = seal(Kind::Chunk, b"head", &raw);
            let mut joined = Vec::new();
            let cut = pieces(whole.clone(), id, max);
            for (number, value) in cut.iter().enumerate() {
                prop_assert!(value.len() <= max);
                match as_piece(value) {
                    Ok(Some((piece, part))) => {
                        prop_assert_eq!((piece.id, piece.number as usize, piece.count as usize), (id, number, cut.len()));
                        joined.extend(part);
                    }
                    other => {
                        prop_assert_eq!(other, Ok(None));
                        joined.extend(value);
                    }
                }
            }
            prop_assert_eq!(joined, whole);
        }

        #[test]
        fn varints_round_trip(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(Fields(&out).varint(), Some(value));
        }
    }

    #[test]
    fn a_length_that_no_block_can_have_takes_no_memory() {
        let packed = |raw_len| Packed {
            flags: FLAG_LZ4,
            raw_len,
            stored: vec![0; 100],
        };
        let sealed = seal_packed(Kind::Chunk, b"", &packed(u32::MAX));
        assert_eq!(open(&sealed), Err(CodecError::Malformed("body length")));
        let zeros = seal(Kind::Chunk, b"", &vec![0; 1 << 20]);
        assert_eq!(open(&zeros), Ok((Kind::Chunk, b"".as_slice(), vec![0; 1 << 20])));
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut sealed = seal(Kind::Chunk, b"", b"x");
        sealed[3] = FORMAT + 1;
        assert_eq!(open(&sealed), Err(CodecError::Format(FORMAT + 1)));
    }
}
