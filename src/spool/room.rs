//! Whether there is room for more: live payload against its bound, the disk against its floor, and the ballast in its place.
use super::ballast::{BALLAST_BYTES, Ballast};
use super::disk::Disk;
use super::{OnFull, Settings};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Longest that a figure of free disk space is believed, unless much was written since.
pub(super) const FREE_CHECK_EVERY: Duration = Duration::from_millis(100);
/// Bytes after which it is not.
const FREE_CHECK_BYTES: u64 = 16 * 1024 * 1024;
/// Free space that the ballast is made in: as much as it takes, and as much again to go on with.
const BALLAST_ROOM_BYTES: u64 = 2 * BALLAST_BYTES;

/// Decides on admission.
pub(super) struct Room {
    path: PathBuf,
    disk: Disk,
    max_bytes: u64,
    on_full: OnFull,
    min_free_bytes: u64,
    ballast: Ballast,
    /// When free space was last asked for, what was admitted since, and the answer.
    checked: Option<(Instant, u64, u64)>,
    full: Option<Full>,
    /// What was free when events were last dropped for the disk.
    free_at_drop: Option<u64>,
}

/// Nothing more is taken.
struct Full {
    sentence: String,
    /// Bytes that were to be added, and for which there must be room before the spool says that it accepts again.
    adding: u64,
}

impl Room {
    /// Gives the ballast of the run before up at once if the disk is full: opening what is stored writes a little.
    pub(super) fn new(settings: &Settings, disk: &Disk) -> Room {
        let mut room = Room {
            path: settings.path.clone(),
            disk: disk.clone(),
            max_bytes: settings.max_bytes,
            on_full: settings.on_full,
            min_free_bytes: settings.min_free_bytes,
            ballast: Ballast::find(&settings.path, disk.max_file_bytes),
            checked: None,
            full: None,
            free_at_drop: None,
        };
        if room.disk_is_full() {
            room.release_ballast();
        }
        room
    }

    /// Why the spool is full, if it is.
    pub(super) fn full(&self) -> Option<&String> {
        self.full.as_ref().map(|full| &full.sentence)
    }

    /// Most payload bytes that may be live.
    pub(super) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Whether the oldest events make room for new ones.
    pub(super) fn drops_oldest(&self) -> bool {
        self.on_full == OnFull::DropOldest
    }

    /// Whether `adding` bytes may be put beside `live` ones; otherwise why not.
    pub(super) fn admit(&mut self, live: u64, adding: u64, now: Instant) -> Result<(), String> {
        let refusal = self
            .over_bytes(live, adding)
            .or_else(|| self.short_of_disk(adding, now));
        match refusal {
            None => Ok(()),
            Some(sentence) => {
                // An append that could never fit says nothing about the spool.
                if adding <= self.max_bytes {
                    self.set_full(sentence.clone(), adding);
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
        if self.over_bytes(live, adding).is_none() && self.short_of_disk(0, now).is_none() {
            self.full = None;
            tracing::info!("the spool has room again");
        }
    }

    /// Why nothing can be written for want of disk space, if so. Makes the ballast as soon as there is space for it.
    pub(super) fn short_of_disk(&mut self, adding: u64, now: Instant) -> Option<String> {
        let free = self.free_bytes(adding, now);
        self.without_ballast(free).or_else(|| self.under_floor(free))
    }

    /// What is free, if the disk has room once `droppable` bytes are deleted. Not if others fill it: they took more than that,
    /// or what was dropped before gave nothing back so far.
    pub(super) fn worth_dropping(&mut self, droppable: u64, now: Instant) -> Option<u64> {
        let free = self.free_bytes(0, now);
        let (own, needed) = match self.ballast.is_held() {
            true => (self.ballast.bytes(), self.min_free_bytes),
            false => (
                0,
                BALLAST_ROOM_BYTES.max(self.min_free_bytes.saturating_add(BALLAST_BYTES)),
            ),
        };
        let all = free.saturating_add(own);
        let gave_back = self.free_at_drop.is_none_or(|before| all > before);
        (gave_back && needed.saturating_sub(free) <= droppable).then_some(all)
    }

    /// Events were dropped for the disk; `None`: it has room.
    pub(super) fn set_free_at_drop(&mut self, free: Option<u64>) {
        self.free_at_drop = free;
    }

    /// Free space is asked for again: something was deleted.
    pub(super) fn forget_free_bytes(&mut self) {
        self.checked = None;
    }

    /// Makes the ballast for the first time; without it nothing is accepted.
    pub(super) fn prepare(&mut self, now: Instant) {
        if let Some(sentence) = self.short_of_disk(0, now) {
            self.set_full(sentence, 0);
        }
    }

    /// Something could not be written, and the disk is full: gives the ballast up for what has to be written before
    /// anything is freed. Whether that gained anything.
    pub(super) fn give_way(&mut self, disk_full: bool) -> bool {
        (disk_full || self.disk_is_full()) && self.release_ballast()
    }

    fn release_ballast(&mut self) -> bool {
        let released = self.ballast.release();
        self.forget_free_bytes();
        if released {
            tracing::warn!("the disk is full: the ballast was given up, so that delivery can go on");
            self.prepare(Instant::now());
        }
        released
    }

    fn set_full(&mut self, sentence: String, adding: u64) {
        if self.full.is_none() {
            tracing::warn!(reason = %sentence, "the spool is full");
            self.full = Some(Full { sentence, adding });
        }
    }

    fn over_bytes(&self, live: u64, adding: u64) -> Option<String> {
        if live.saturating_add(adding) <= self.max_bytes {
            return None;
        }
        let held = match self.on_full {
            OnFull::Reject => "are queued",
            OnFull::DropOldest => "are being sent or stored right now",
        };
        Some(format!(
            "no room in the spool: {live} bytes {held} and {adding} more would pass spool.max_bytes = {}: \
             see why the upstream does not take them, or raise spool.max_bytes",
            self.max_bytes
        ))
    }

    fn without_ballast(&mut self, free: u64) -> Option<String> {
        if self.ballast.is_held() {
            return None;
        }
        let failed = match free >= BALLAST_ROOM_BYTES {
            true => self.ballast.make().err(),
            false => None,
        };
        if self.ballast.is_held() {
            self.forget_free_bytes();
            return None;
        }
        let failed = failed.map(|error| format!(" ({error})")).unwrap_or_default();
        Some(format!(
            "the disk is full: {free} bytes are free under {} and {BALLAST_ROOM_BYTES} are needed before more is \
             accepted{failed}: free some space; what is queued is delivered meanwhile",
            self.path.display()
        ))
    }

    fn under_floor(&self, free: u64) -> Option<String> {
        (free < self.min_free_bytes).then(|| {
            format!(
                "the disk is nearly full: {free} bytes are free under {} and spool.min_free_bytes = {}: \
                 free some space, or lower spool.min_free_bytes",
                self.path.display(),
                self.min_free_bytes
            )
        })
    }

    fn disk_is_full(&self) -> bool {
        (self.disk.free_bytes)(&self.path).is_ok_and(|free| free < BALLAST_BYTES)
    }

    fn free_bytes(&mut self, adding: u64, now: Instant) -> u64 {
        match self.checked {
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
        }
    }
}
