//! A page of dead letters: bounded by count and by bytes.
use super::super::DeadLetter;

/// Bytes of letters at which a page ends. One letter is shown whatever its size.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// What a letter counts beside its texts and its record.
const LETTER_BYTES: usize = 256;

/// A dead letter in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptLetter {
    /// Names it: goes up with each burial and is never given out twice.
    pub number: u64,
    /// The letter, or why it cannot be read.
    pub letter: Result<DeadLetter, String>,
}

/// Dead letters in the order of their burial.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadPage {
    /// At most as many as were asked for, and about 4 MiB.
    pub letters: Vec<KeptLetter>,
    /// After which number to go on; `None` if there are no more.
    pub next: Option<u64>,
    /// The number that the next letter will get, or a higher one.
    pub end: u64,
}

/// Why dead letters could not be read. The sentence names the remedy.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeadLettersError {
    /// The disk or sled failed.
    #[error("{0}")]
    Storage(String),
    /// The spool is shutting down.
    #[error("the daemon is shutting down: ask again in a moment")]
    Closed,
}

/// A page that is being filled.
pub(super) struct Filling {
    page: DeadPage,
    limit: usize,
    bytes: usize,
}

impl Filling {
    pub(super) fn new(limit: usize, end: u64) -> Filling {
        Filling {
            page: DeadPage {
                end,
                ..DeadPage::default()
            },
            limit,
            bytes: 0,
        }
    }

    /// Takes the next letter; false if it does not fit any more, and the page is done.
    pub(super) fn take(&mut self, kept: KeptLetter) -> bool {
        let bytes = kept.letter.as_ref().map_or(0, size) + LETTER_BYTES;
        let last = self.page.letters.last().map(|last| last.number);
        if self.page.letters.len() >= self.limit || (last.is_some() && self.bytes + bytes > PAGE_BYTES) {
            self.page.next = last.or(kept.number.checked_sub(1));
            return false;
        }
        self.bytes += bytes;
        self.page.letters.push(kept);
        true
    }

    pub(super) fn done(self) -> DeadPage {
        self.page
    }
}

/// What a letter takes, about.
pub(super) fn size(letter: &DeadLetter) -> usize {
    let excerpt = letter.burial.excerpt.as_ref().map_or(0, String::len);
    letter.record.len() + letter.burial.reason.len() + excerpt
}
