//! Lines that are written by a thread of their own: who has something to say never waits for who
//! reads.
//!
//! Standard error is often a pipe, and its reader may stop reading. Lines then find no room in the
//! queue, are dropped and counted, and the count is told once there is room again. The queue and
//! the thread are those of `tracing-appender`. Its guard is dropped only while the queue is empty.
//! Dropped with a full queue it would print to standard output, which may be the same full pipe.

use crate::secret::Secrets;
use crate::visible;
use prometheus_client::metrics::counter::Counter;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// Lines that wait for the reader at most.
const LINES: usize = 4_096;
/// How long the last lines may take when the process ends.
pub(super) const LAST_LINES: Duration = Duration::from_secs(1);
/// How often dropped lines are told while more and more are dropped.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// Pause before another try where the reader's end does not block but has no room.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(10);

/// The way to the thread that writes. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Background {
    queue: NonBlocking,
    secrets: Secrets,
    shared: Arc<Shared>,
    guard: Arc<Mutex<Option<WorkerGuard>>>,
}

/// What both sides of the queue know.
#[derive(Debug, Default)]
struct Shared {
    /// Lines that were to be queued.
    offered: AtomicU64,
    /// Of these, the queue's own count of those that found no room.
    no_room: OnceLock<ErrorCounter>,
    /// Lines that were queued and could not be written: the reader is gone.
    unwritten: AtomicU64,
    /// Lines that the thread is done with.
    done: Mutex<u64>,
    progress: Condvar,
    /// Lines that nobody will read, for the metrics.
    dropped: Counter,
}

impl Background {
    /// Starts the thread that writes to `out`. It counts lost lines in `dropped`, and hands their
    /// number to `tell` from time to time. Nothing may panic here, so that a thread that cannot be
    /// started has to be found out before.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        dropped: Counter,
        tell: impl FnMut(u64) + Send + 'static,
    ) -> Self {
        Self::with_room(LINES, out, dropped, tell)
    }

    fn with_room(
        lines: usize,
        out: impl Write + Send + 'static,
        dropped: Counter,
        tell: impl FnMut(u64) + Send + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            dropped,
            ..Shared::default()
        });
        let writer = Writer {
            out,
            shared: shared.clone(),
            tell,
            told: 0,
            told_at: None,
        };
        let builder = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(lines)
            .thread_name("log");
        let (queue, guard) = builder.finish(writer);
        // Set once, here.
        let _ = shared.no_room.set(queue.error_counter());
        Self {
            queue,
            secrets: Secrets::default(),
            shared,
            guard: Arc::new(Mutex::new(Some(guard))),
        }
    }

    /// The same with secrets that are masked in every line.
    pub(super) fn masking(self, secrets: Secrets) -> Self {
        Self { secrets, ..self }
    }

    /// Queues whole lines; or drops them where there is no room. Never waits.
    pub(super) fn write(&self, lines: &[u8]) {
        self.shared.offered.fetch_add(1, Ordering::AcqRel);
        // What has no room is counted by the queue; there is no error.
        let _ = self.queue.clone().write_all(&self.secrets.mask_bytes(lines));
        self.shared.count();
    }

    /// Queues a text as a line.
    pub(super) fn line(&self, text: &str) {
        self.write(format!("{}\n", visible::lines(text)).as_bytes());
    }

    /// Waits until all that was queued is written, but not longer than `limit`. Nothing that is
    /// queued later is sure to be written. Call it at the end of the process.
    pub(super) fn finish(&self, limit: Duration) {
        let guard = locked(&self.guard).take();
        let end = Instant::now() + limit;
        let mut done = locked(&self.shared.done);
        while *done + self.shared.no_room() < self.shared.offered.load(Ordering::Acquire) {
            let Some(left) = end
                .checked_duration_since(Instant::now())
                .filter(|left| !left.is_zero())
            else {
                // The thread goes with the process.
                std::mem::forget(guard);
                return;
            };
            let waited = self.shared.progress.wait_timeout(done, left);
            done = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(done);
        drop(guard);
    }
}

impl Shared {
    fn no_room(&self) -> u64 {
        let lines = self.no_room.get().map_or(0, ErrorCounter::dropped_lines);
        u64::try_from(lines).unwrap_or(u64::MAX)
    }

    /// Lines that nobody will read.
    fn lost(&self) -> u64 {
        self.no_room()
            .saturating_add(self.unwritten.load(Ordering::Acquire))
    }

    fn count(&self) {
        self.dropped.inner().fetch_max(self.lost(), Ordering::AcqRel);
    }
}

/// The thread's side.
struct Writer<W, T> {
    out: W,
    shared: Arc<Shared>,
    tell: T,
    told: u64,
    told_at: Option<Instant>,
}

impl<W: Write, T: FnMut(u64)> Writer<W, T> {
    /// Says how many lines were lost, if that is new. The line that says so may find no room
    /// itself, and is lost as well; then it is said again.
    fn tell_lost(&mut self) {
        let lost = self.shared.lost();
        if lost > self.told {
            (self.tell)(lost);
            if self.shared.lost() == lost {
                self.told = lost;
                self.told_at = Some(Instant::now());
            }
        }
    }
}

impl<W: Write, T: FnMut(u64)> Write for Writer<W, T> {
    /// Takes every line, so that one that cannot be written keeps no other from being tried.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = write_patiently(&mut self.out, line);
        if written.is_err() {
            self.shared.unwritten.fetch_add(1, Ordering::AcqRel);
            self.shared.count();
        } else if self.told_at.is_none_or(|at| at.elapsed() >= TOLD_EVERY) {
            self.tell_lost();
        }
        *locked(&self.shared.done) += 1;
        self.shared.progress.notify_all();
        Ok(line.len())
    }

    /// Called when the queue is empty: what was not yet told is told now.
    fn flush(&mut self) -> io::Result<()> {
        self.tell_lost();
        Ok(())
    }
}

/// Writes all of a line, and waits where another process has set the pipe or terminal not to block.
fn write_patiently(out: &mut impl Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match out.write(line) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(length) => line = line.get(length..).unwrap_or_default(),
            Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
            Err(fault) if fault.kind() == ErrorKind::WouldBlock => std::thread::sleep(NO_ROOM_PAUSE),
            Err(fault) => return Err(fault),
        }
    }
    out.flush()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
