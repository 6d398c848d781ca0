//! The envelope around everything that the spool keeps: format version, optional lz4, CRC32C. Pure.
//!
//! ```text
//! format u8 | flags u8 | head length u16 | raw length u32 | stored length u32 | head | stored | CRC32C u32
//! ```
//! Numbers are big-endian. The CRC covers all that stands before it. `head` is never compressed, so that
//! tools can read it cheaply; `stored` is the raw body, compressed when that made it smaller.

/// Format of everything inside a generation and among the dead letters. A newer one is not read.
pub(super) const FORMAT: u8 = 1;

/// The body is an lz4 block.
const FLAG_LZ4: u8 = 1;
/// Everything before the head.
const FIXED_BYTES: usize = 12;
const CRC_BYTES: usize = 4;
/// Bodies below this are not worth compressing.
const MIN_COMPRESSED_BYTES: usize = 128;

/// Why stored bytes could not be read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum CodecError {
    /// Fewer bytes than were written.
    #[error("it is cut short")]
    Truncated,
    /// The bytes changed after they were written.
    #[error("its checksum does not match")]
    Checksum,
    /// Written by a newer phosphod.
    #[error("it has format {0}, which this version does not know")]
    Format(u8),
    /// The checksum is right and the content still makes no sense.
    #[error("its {0} makes no sense")]
    Malformed(&'static str),
}

/// Puts `head` and `raw` into one checked envelope.
pub(super) fn seal(head: &[u8], raw: &[u8]) -> Vec<u8> {
    let packed = (raw.len() >= MIN_COMPRESSED_BYTES).then(|| lz4_flex::block::compress(raw));
    let (flags, stored) = match &packed {
        Some(packed) if packed.len() < raw.len() => (FLAG_LZ4, packed.as_slice()),
        _ => (0, raw),
    };
    let mut out = Vec::with_capacity(FIXED_BYTES + head.len() + stored.len() + CRC_BYTES);
    out.extend([FORMAT, flags]);
    out.extend((head.len() as u16).to_be_bytes());
    out.extend((raw.len() as u32).to_be_bytes());
    out.extend((stored.len() as u32).to_be_bytes());
    out.extend(head);
    out.extend(stored);
    let crc = crc32c::crc32c(&out);
    out.extend(crc.to_be_bytes());
    out
}

/// Checks an envelope and gives back its head and its body.
pub(super) fn unseal(sealed: &[u8]) -> Result<(&[u8], Vec<u8>), CodecError> {
    let (covered, crc) = sealed
        .split_last_chunk::<CRC_BYTES>()
        .ok_or(CodecError::Truncated)?;
    let mut fields = Fields(covered);
    let (Some(format), Some(flags), Some(head_len), Some(raw_len), Some(stored_len)) =
        (fields.u8(), fields.u8(), fields.u16(), fields.u32(), fields.u32())
    else {
        return Err(CodecError::Truncated);
    };
    if crc32c::crc32c(covered) != u32::from_be_bytes(*crc) {
        return Err(CodecError::Checksum);
    }
    if format != FORMAT {
        return Err(CodecError::Format(format));
    }
    let head = fields.take(head_len as usize).ok_or(CodecError::Truncated)?;
    let stored = fields.take(stored_len as usize).ok_or(CodecError::Truncated)?;
    if !fields.0.is_empty() {
        return Err(CodecError::Malformed("length"));
    }
    let raw = match flags {
        0 => stored.to_vec(),
        FLAG_LZ4 => lz4_flex::block::decompress(stored, raw_len as usize)
            .map_err(|_| CodecError::Malformed("compressed body"))?,
        _ => return Err(CodecError::Malformed("flags field")),
    };
    if raw.len() != raw_len as usize {
        return Err(CodecError::Malformed("body length"));
    }
    Ok((head, raw))
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
            let sealed = seal(&head, &raw);
            prop_assert_eq!(unseal(&sealed), Ok((head.as_slice(), raw)));
        }

        #[test]
        fn any_flipped_bit_is_noticed(raw: Vec<u8>, at: prop::sample::Index, bit in 0..8u8) {
            let mut sealed = seal(b"head", &raw);
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(unseal(&sealed).is_err());
        }

        #[test]
        fn any_truncation_is_an_error(raw: Vec<u8>, at: prop::sample::Index) {
            let sealed = seal(b"head", &raw);
            prop_assert!(unseal(&sealed[..at.index(sealed.len())]).is_err());
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(garbage: Vec<u8>) {
            prop_assert!(unseal(&garbage).is_err());
        }

        #[test]
        fn varints_round_trip(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(Fields(&out).varint(), Some(value));
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut sealed = seal(b"", b"x");
        sealed[0] = FORMAT + 1;
        let covered = sealed.len() - CRC_BYTES;
        let crc = crc32c::crc32c(&sealed[..covered]);
        sealed.truncate(covered);
        sealed.extend(crc.to_be_bytes());
        assert_eq!(unseal(&sealed), Err(CodecError::Format(FORMAT + 1)));
    }
}
