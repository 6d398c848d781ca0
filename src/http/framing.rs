//! Holds the bytes of a connection to the letter of RFC 9112, before hyper sees them. Pure.
//!
//! hyper is lenient where the RFC allows it: a bare LF ends a line, and beside `Transfer-Encoding` a `Content-Length` is
//! dropped. Two programs that read such a request differently can be played against each other (request smuggling), and no
//! client that means well sends it. So [`Framing`] follows where heads, bodies and chunks begin and end, and points at the first
//! byte that breaks a rule:
//! - lines of heads, chunk sizes and trailers end with CRLF, and neither CR nor LF stands alone; no line is folded;
//! - a head has one `Content-Length` of digits, or one `Transfer-Encoding: chunked` (not in HTTP/1.0), or neither;
//! - a chunk's size is up to 16 hexadecimal digits, and its data ends where it says.
//!
//! It judges nothing else: the rest of HTTP is hyper's, and who may call is the gate's.

/// Bytes of a line that are looked at; of a framing header more is refused, of others the rest does not matter.
const LINE_BYTES: usize = 128;
/// Longest line of a chunk's size with its extensions.
const CHUNK_LINE_BYTES: usize = 4096;

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before a request line; empty lines are skipped (RFC 9112 section 2.2).
    Start,
    RequestLine,
    Header,
    Body(u64),
    ChunkSize,
    ChunkData(u64),
    /// The CRLF behind a chunk's data.
    ChunkEnd,
    Trailer,
}

/// Where a connection's bytes stand.
#[derive(Debug)]
pub(super) struct Framing {
    place: Place,
    /// The beginning of the current line, without its end.
    line: Vec<u8>,
    /// Bytes of the current line.
    length: usize,
    /// The last byte was a CR, which an LF must follow.
    cr: bool,
    /// The last byte of the line so far.
    last: u8,
    http_1_0: bool,
    body: Option<u64>,
    chunked: bool,
}

/// A rule was broken.
#[derive(Debug, PartialEq, Eq)]
struct Broken;

impl Framing {
    pub(super) fn new() -> Self {
        Self {
            place: Place::Start,
            line: Vec::with_capacity(LINE_BYTES),
            length: 0,
            cr: false,
            last: 0,
            http_1_0: false,
            body: None,
            chunked: false,
        }
    }

    /// Follows the next bytes. `Some`: the index of the first one that breaks a rule; what comes after it means nothing.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            match &mut self.place {
                Place::Body(left) | Place::ChunkData(left) => {
                    let step =
                        usize::try_from(*left).map_or(bytes.len() - at, |left| left.min(bytes.len() - at));
                    *left -= step as u64;
                    at += step;
                    if *left == 0 {
                        self.place = match self.place {
                            Place::ChunkData(_) => Place::ChunkEnd,
                            _ => Place::Start,
                        };
                    }
                }
                _ => {
                    if self.take(bytes[at]).is_err() {
                        return Some(at);
                    }
                    at += 1;
                }
            }
        }
        None
    }

    /// How much is still to come of the body, as far as is known.
    pub(super) fn body_bytes(&self) -> u64 {
        match self.place {
            Place::Body(left) => left,
            Place::ChunkSize | Place::ChunkData(_) | Place::ChunkEnd => u64::MAX,
            _ => 0,
        }
    }

    /// Takes a byte of a line.
    fn take(&mut self, byte: u8) -> Result<(), Broken> {
        match (self.cr, byte) {
            (true, b'\n') => {
                self.cr = false;
                let ended = self.end_of_line();
                self.line.clear();
                self.length = 0;
                self.last = 0;
                ended
            }
            (true, _) | (false, b'\n') => Err(Broken),
            (false, b'\r') => {
                self.cr = true;
                Ok(())
            }
            (false, _) => self.push(byte),
        }
    }

    fn push(&mut self, byte: u8) -> Result<(), Broken> {
        match self.place {
            Place::Start => self.place = Place::RequestLine,
            // The data of the chunk goes on where its size ends.
            Place::ChunkEnd => return Err(Broken),
            Place::ChunkSize if self.length >= CHUNK_LINE_BYTES => return Err(Broken),
            Place::Header | Place::Trailer if self.length == 0 && matches!(byte, b' ' | b'\t') => {
                return Err(Broken);
            }
            _ => {}
        }
        if self.line.len() < LINE_BYTES {
            self.line.push(byte);
        }
        self.length = self.length.saturating_add(1);
        self.last = byte;
        Ok(())
    }

    fn end_of_line(&mut self) -> Result<(), Broken> {
        match self.place {
            Place::RequestLine => {
                self.http_1_0 = self.last == b'0';
                (self.body, self.chunked) = (None, false);
                self.place = Place::Header;
            }
            Place::Header if self.length == 0 => self.place = self.end_of_head()?,
            Place::Header => self.header()?,
            Place::ChunkSize => {
                self.place = match self.chunk_size()? {
                    0 => Place::Trailer,
                    size => Place::ChunkData(size),
                };
            }
            Place::ChunkEnd => self.place = Place::ChunkSize,
            Place::Trailer if self.length == 0 => self.place = Place::Start,
            Place::Start | Place::Trailer | Place::Body(_) | Place::ChunkData(_) => {}
        }
        Ok(())
    }

    fn header(&mut self) -> Result<(), Broken> {
        let Some(colon) = self.line.iter().position(|byte| *byte == b':') else {
            return Ok(());
        };
        let (name, value) = self.line.split_at(colon);
        let length = name.eq_ignore_ascii_case(b"content-length");
        if !length && !name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Ok(());
        }
        let value = value[1..].trim_ascii();
        if self.length > LINE_BYTES || self.body.is_some() || self.chunked {
            return Err(Broken);
        }
        if length {
            self.body = Some(number(value, 10)?);
        } else if value.eq_ignore_ascii_case(b"chunked") && !self.http_1_0 {
            self.chunked = true;
        } else {
            return Err(Broken);
        }
        Ok(())
    }

    fn end_of_head(&self) -> Result<Place, Broken> {
        Ok(match (self.chunked, self.body) {
            (true, None) => Place::ChunkSize,
            (false, None | Some(0)) => Place::Start,
            (false, Some(length)) => Place::Body(length),
            (true, Some(_)) => return Err(Broken),
        })
    }

    fn chunk_size(&self) -> Result<u64, Broken> {
        let size = self.line.split(|byte| *byte == b';').next().unwrap_or_default();
        if size.len() > 16 {
            return Err(Broken);
        }
        number(size, 16)
    }
}

/// Digits and nothing else.
fn number(digits: &[u8], radix: u32) -> Result<u64, Broken> {
    if !digits.iter().all(|digit| (*digit as char).is_digit(radix)) {
        return Err(Broken);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Broken)?;
    u64::from_str_radix(text, radix).map_err(|_| Broken)
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &[&str] = &[
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\nPOST / HTTP/1.1\r\ncontent-LENGTH: 5 \r\n\r\na\nb\rc",
        "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3;ext=\"1\"\r\na\r\n\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n",
        "POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\nx",
    ];

    /// Request, and up to where it is fine.
    const BAD: &[(&str, &str)] = &[
        ("GET / HTTP/1.1", "\nHost: a\n\n"),
        ("GET / HTTP/1.1\r\nHost: a", "\n\r\n"),
        ("GET / HTTP/1.1\r\nHost: a\r", "b\r\n\r\n"),
        ("GET / HTTP/1.1\r\nHost: a\r\n", " folded\r\n\r\n"),
        ("", "\nGET / HTTP/1.1\r\n\r\n"),
        (
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r",
            "\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r",
            "\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r",
            "\n\r\n",
        ),
        ("POST / HTTP/1.1\r\nContent-Length: 5, 5\r", "\n\r\n"),
        ("POST / HTTP/1.1\r\nContent-Length: +5\r", "\n\r\n"),
        ("POST / HTTP/1.1\r\nContent-Length: 0x5\r", "\n\r\n"),
        ("POST / HTTP/1.1\r\nContent-Length:\r", "\n\r\n"),
        (
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r",
            "\n\r\n",
        ),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r", "\n\r\n"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: identity\r", "\n\r\n"),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r",
            "\n\r\n",
        ),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r", "\n\r\n"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3", "\nabc"),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc",
            "d\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-3\r",
            "\nabc",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n 3\r",
            "\nabc",
        ),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\r", "\nabc"),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r",
            "\nabc",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: x",
            "\n\r\n",
        ),
    ];

    /// Where it breaks when it comes in pieces of so many bytes.
    fn broken_at(text: &[u8], piece: usize) -> Option<usize> {
        let mut framing = Framing::new();
        for (n, bytes) in text.chunks(piece).enumerate() {
            if let Some(at) = framing.follow(bytes) {
                return Some(n * piece + at);
            }
        }
        None
    }

    #[test]
    fn good_requests_pass_one_after_the_other() {
        let all = GOOD.concat();
        for piece in [1, 2, 7, all.len()] {
            assert_eq!(broken_at(all.as_bytes(), piece), None, "in pieces of {piece}");
        }
    }

    #[test]
    fn the_byte_that_breaks_a_rule_is_found_also_behind_good_requests() {
        for (fine, rest) in BAD {
            for before in ["".to_owned(), GOOD.concat()] {
                let text = format!("{before}{fine}{rest}");
                for piece in [1, 3, text.len()] {
                    let at = before.len() + fine.len();
                    assert_eq!(broken_at(text.as_bytes(), piece), Some(at), "{fine:?} {rest:?}");
                }
            }
        }
    }

    #[test]
    fn a_line_of_any_length_takes_no_memory() {
        let mut framing = Framing::new();
        assert_eq!(framing.follow(b"GET / HTTP/1.1\r\nX: "), None);
        for _ in 0..1000 {
            assert_eq!(framing.follow(&[b'x'; 1000]), None);
        }
        assert!(framing.line.capacity() <= 2 * LINE_BYTES);
        let long = format!("\r\nContent-Length: {}5\r\n", "0".repeat(LINE_BYTES));
        assert!(framing.follow(long.as_bytes()).is_some());
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(picks in prop::collection::vec(0..GOOD.len(), 0..6), noise in "[\r\n:a0 ]{0,20}", piece in 1usize..40) {
            let text: String = picks.iter().map(|pick| GOOD[*pick]).chain([noise.as_str()]).collect();
            prop_assert_eq!(broken_at(text.as_bytes(), piece), broken_at(text.as_bytes(), usize::MAX >> 1));
        }
    }
}
