//! The high-water mark: a file outside sled that says how far the newest generation had come, so that a cut tail
//! differs from an empty queue.
//!
//! Written after each durable commit and synced only when a generation is sealed or closed. After a power cut it may lag
//! behind; it is never ahead of what is durable.
use super::codec::{self, CodecError, Fields, Kind, seal, unseal};
use super::meta::Head;
use super::parts;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// The generation that took the commit.
    pub(super) generation: u64,
    /// The counts of that commit.
    pub(super) head: Head,
}

impl Mark {
    /// Always as long as any other, so that each covers the one before.
    pub(super) fn encode(&self) -> Vec<u8> {
        let head = &self.head;
        let numbers = [
            self.generation,
            head.next_seq,
            head.accepted,
            head.delivered,
            head.dead,
            head.dropped,
            head.written,
            head.saved,
            head.lost,
        ];
        seal(Kind::Mark, &numbers.map(u64::to_be_bytes).concat(), &[])
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Mark, CodecError> {
        let len = codec::sealed_len(bytes)?;
        let sealed = bytes.get(..len).ok_or(CodecError::Truncated)?;
        let (head, _) = unseal(Kind::Mark, sealed)?;
        let mut fields = Fields(head);
        let mut next = || fields.u64().ok_or(CodecError::Malformed("numbers"));
        Ok(Mark {
            generation: next()?,
            head: Head {
                next_seq: next()?,
                accepted: next()?,
                delivered: next()?,
                dead: next()?,
                dropped: next()?,
                written: next()?,
                saved: next()?,
                lost: next()?,
                ..Head::default()
            },
        })
    }
}

/// What the file in a data folder says, without making or telling anything; `None` if there is none, or an empty one.
pub(super) fn look(folder: &Path) -> Result<Option<Mark>, String> {
    match std::fs::read(folder.join("high-water")) {
        Ok(bytes) if bytes.is_empty() => Ok(None),
        Ok(bytes) => Mark::decode(&bytes).map(Some).map_err(|error| error.to_string()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// The file. A mark that cannot be written makes nothing fail: it only tells less about a later damage.
pub(super) struct MarkFile {
    path: PathBuf,
    file: Option<File>,
    warned: bool,
}

impl MarkFile {
    /// Opens or makes the file in a data folder.
    pub(super) fn open(folder: &Path) -> MarkFile {
        let path = folder.join("high-water");
        let mut opened = MarkFile {
            path,
            file: None,
            warned: false,
        };
        let made = parts::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&opened.path);
        opened.file = opened.noted(made);
        opened
    }

    /// What it says; `None` if that cannot be read. `expected`: the folder is not new.
    pub(super) fn read(&self, expected: bool) -> Option<Mark> {
        let read = match std::fs::read(&self.path) {
            Ok(bytes) if bytes.is_empty() && !expected => return None,
            Ok(bytes) => Mark::decode(&bytes).map_err(|error| error.to_string()),
            Err(error) if error.kind() == ErrorKind::NotFound && !expected => return None,
            Err(error) => Err(error.to_string()),
        };
        read.inspect_err(|reason| {
            tracing::warn!(path = %self.path.display(), reason, "the high-water mark cannot be read: a cut tail would not be noticed this time");
        })
        .ok()
    }

    /// Says how far a generation has come, as is durable.
    pub(super) fn write(&mut self, generation: u64, head: &Head) {
        let mark = Mark {
            generation,
            head: *head,
        };
        let written = match &self.file {
            Some(file) => file.write_all_at(&mark.encode(), 0),
            None => return,
        };
        self.noted(written);
    }

    /// Makes it durable.
    pub(super) fn sync(&mut self) {
        let synced = match &self.file {
            Some(file) => file.sync_all(),
            None => return,
        };
        self.noted(synced);
    }

    /// Tells of the first failure.
    fn noted<T>(&mut self, done: io::Result<T>) -> Option<T> {
        done.inspect_err(|error| {
            if !self.warned {
                self.warned = true;
                tracing::warn!(path = %self.path.display(), %error, "the high-water mark cannot be written: see that the file is ours and the disk works");
            }
        })
        .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_comes_back_and_covers_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = MarkFile::open(folder.path());
        assert_eq!(file.read(false), None);
        let mut head = Head {
            next_seq: u64::MAX,
            accepted: 1 << 40,
            ..Head::default()
        };
        file.write(u64::MAX, &head);
        head.next_seq = 2;
        file.write(3, &head);
        file.sync();
        let again = MarkFile::open(folder.path());
        assert_eq!(again.read(true), Some(Mark { generation: 3, head }));
    }

    #[test]
    fn a_damaged_mark_is_no_mark() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = MarkFile::open(folder.path());
        file.write(3, &Head::default());
        let path = folder.path().join("high-water");
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, &bad).unwrap();
            assert_eq!(MarkFile::open(folder.path()).read(true), None);
            std::fs::write(&path, &good[..at]).unwrap();
            assert_eq!(MarkFile::open(folder.path()).read(true), None);
        }
    }
}
