//! Whether there is room for more: live payload against its bound, the disk against its floor.
use super::Settings;
use super::disk::Disk;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Longest that a figure of free disk space is believed, unless much was written since.
pub(super) const FREE_CHECK_EVERY: Duration = Duration::from_millis(100);
/// Bytes after which it is not.
const FREE_CHECK_BYTES: u64 = 16 * 1024 * 1024;

/// Decides on admission.
pub(super) struct Room {
    path: PathBuf,
    disk: Disk,
    max_bytes: u64,
    min_free_bytes: u64,
    /// When free space was last asked for, what was admitted since, and the answer.
    checked: Option<(Instant, u64, u64)>,
    full: Option<Full>,
}

/// Something was refused.
struct Full {
    sentence: String,
    /// Bytes that were to be added, and for which there must be room before the spool says that it accepts again.
    adding: u64,
}

impl Room {
    pub(super) fn new(settings: &Settings, disk: &Disk) -> Room {
        Room {
            path: settings.path.clone(),
            disk: disk.clone(),
            max_bytes: settings.max_bytes,
            min_free_bytes: settings.min_free_bytes,
            checked: None,
            full: None,
        }
    }

    /// Why the spool is full, if it is.
    pub(super) fn full(&self) -> Option<&String> {
        self.full.as_ref().map(|full| &full.sentence)
    }

    /// Whether `adding` bytes may be put beside `live` ones; otherwise why not.
    pub(super) fn admit(&mut self, live: u64, adding: u64, now: Instant) -> Result<(), String> {
        let refusal = self
            .over_bytes(live, adding)
            .or_else(|| self.under_floor(adding, now));
        match refusal {
            None => Ok(()),
            Some(sentence) => {
                // An append that could never fit says nothing about the spool.
                if adding <= self.max_bytes && self.full.is_none() {
                    tracing::warn!(reason = %sentence, "the spool is full");
                    self.full = Some(Full {
                        sentence: sentence.clone(),
                        adding,
                    });
                }
                Err(sentence)
            }
        }
    }

    /// Looks again whether a full spool has room.
    pub(super) fn recheck(&mut self, live: u64, now: Instant) {
        let Some(adding) = self.full.as_ref().map(|full| full.adding) else {
            return;
        };
        if self.over_bytes(live, adding).is_none() && self.under_floor(0, now).is_none() {
            self.full = None;
            tracing::info!("the spool has room again");
        }
    }

    fn over_bytes(&self, live: u64, adding: u64) -> Option<String> {
        if live.saturating_add(adding) <= self.max_bytes {
            return None;
        }
        Some(format!(
            "no room in the spool: {live} bytes are queued and {adding} more would pass spool.max_bytes = {}: \
             see why the upstream does not take them, or raise spool.max_bytes",
            self.max_bytes
        ))
    }

    fn under_floor(&mut self, adding: u64, now: Instant) -> Option<String> {
        let free = match self.checked {
            Some((at, admitted, free)) if now < at + FREE_CHECK_EVERY && admitted < FREE_CHECK_BYTES => {
                self.checked = Some((at, admitted + adding, free));
                free
            }
            _ => {
                // A file system that does not say is not taken for full: a failing write will tell.
                let free = (self.disk.free_bytes)(&self.path).unwrap_or(u64::MAX);
                self.checked = Some((now, adding, free));
                free
            }
        };
        (free < self.min_free_bytes).then(|| {
            format!(
                "the disk is nearly full: {free} bytes are free under {} and spool.min_free_bytes = {}: \
                 free some space, or lower spool.min_free_bytes",
                self.path.display(),
                self.min_free_bytes
            )
        })
    }
}
