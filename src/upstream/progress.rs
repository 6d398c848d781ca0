//! How long an attempt may go on, by what moves. A large request on a slow line takes long and is not at fault for it, so the
//! time limit counts while nothing moves.
//!
//! What moves is seen where the transport takes the next piece of the request, and where a piece of the reply comes in. What the
//! transport has taken may still wait in buffers of this machine (up to a few MiB). So once it has taken all of the request, the
//! answer may take as long again as that took, beside the limit.
//!
//! **The bound.** A peer that takes a byte now and then would hold its place for ever. So an attempt as a whole may take twice the
//! limit, and what moves has to move at [`SLOWEST`] beyond that.

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// Bytes a second that an attempt has to move, all in all.
const SLOWEST: u64 = 16 << 10;
/// Bytes of a piece of the request.
const PIECE: usize = 16 << 10;

/// What has moved of one attempt so far. Pure: time is an argument.
#[derive(Debug, Clone)]
struct Moved {
    began: Instant,
    last: Instant,
    /// Bytes of the request, and of the reply so far.
    bytes: u64,
    /// When the transport had taken all of the request.
    sent: Option<Instant>,
    /// Since when nothing is to move, because this side makes the other wait.
    paused: Option<Instant>,
}

impl Moved {
    fn new(now: Instant, request: usize) -> Self {
        Self {
            began: now,
            last: now,
            bytes: request as u64,
            sent: (request == 0).then_some(now),
            paused: None,
        }
    }

    /// A piece of the request went, and this much is left.
    fn took(&mut self, now: Instant, left: usize) {
        self.last = now;
        if left == 0 {
            self.sent.get_or_insert(now);
        }
    }

    /// A piece of the reply came.
    fn came(&mut self, now: Instant, bytes: usize) {
        self.last = now;
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// It goes on after a pause, which does not count.
    fn resume(&mut self, now: Instant) {
        let Some(since) = self.paused.take() else { return };
        let waited = now.saturating_duration_since(since);
        self.began += waited;
        self.last += waited;
        self.sent = self.sent.map(|sent| sent + waited);
    }

    /// When the attempt is over unless something moves before.
    fn deadline(&self, limit: Duration) -> Instant {
        let buffered = self.sent.map_or(Duration::ZERO, |sent| sent - self.began);
        let idle = self.last + limit + buffered;
        let most = self.began + 2 * limit + Duration::from_secs(self.bytes / SLOWEST);
        idle.min(most)
    }
}

/// The progress of one attempt, shared by its body and whoever watches it.
#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<Mutex<Moved>>);

impl Progress {
    /// An attempt with a request of so many bytes begins now.
    pub(super) fn new(request: usize) -> Self {
        Self(Arc::new(Mutex::new(Moved::new(Instant::now(), request))))
    }

    fn moved(&self) -> MutexGuard<'_, Moved> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that so many bytes of the reply came in.
    pub(super) fn came(&self, bytes: usize) {
        self.moved().came(Instant::now(), bytes);
    }

    /// Nothing is to move until [`Progress::resume`].
    pub(super) fn pause(&self) {
        self.moved().paused = Some(Instant::now());
    }

    /// It goes on.
    pub(super) fn resume(&self) {
        self.moved().resume(Instant::now());
    }

    /// Resolves once the attempt has taken too long.
    pub(super) async fn stalled(&self, limit: Duration) {
        loop {
            let now = Instant::now();
            let deadline = {
                let moved = self.moved();
                match moved.paused {
                    Some(_) => now + limit,
                    None => moved.deadline(limit),
                }
            };
            if deadline <= now {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}

/// The body of a request, handed out in pieces as the transport takes them.
#[derive(Debug)]
pub(super) struct Upload {
    rest: Bytes,
    progress: Progress,
}

impl Upload {
    pub(super) fn new(body: Vec<u8>, progress: &Progress) -> Self {
        Self {
            rest: body.into(),
            progress: progress.clone(),
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            return Poll::Ready(None);
        }
        let piece = this.rest.split_to(PIECE.min(this.rest.len()));
        this.progress.moved().took(Instant::now(), this.rest.len());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: Duration = Duration::from_secs(30);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_limit_counts_from_what_moved_last() {
        let start = Instant::now();
        let mut moved = Moved::new(start, 4 << 20);
        assert_eq!(moved.deadline(LIMIT), start + LIMIT);
        moved.took(start + 25 * SECOND, 3 << 20);
        moved.took(start + 50 * SECOND, 2 << 20);
        assert_eq!(moved.deadline(LIMIT), start + 80 * SECOND);
        moved.took(start + 70 * SECOND, 0);
        let buffered = start + 70 * SECOND + LIMIT + 70 * SECOND;
        assert_eq!(
            moved.deadline(LIMIT),
            buffered,
            "what is in buffers takes as long again"
        );
        moved.came(start + 100 * SECOND, 500);
        assert_eq!(moved.deadline(LIMIT), start + 200 * SECOND);
    }

    #[test]
    fn a_pause_of_this_side_does_not_count() {
        let start = Instant::now();
        let mut moved = Moved::new(start, 0);
        moved.paused = Some(start + 20 * SECOND);
        moved.resume(start + 500 * SECOND);
        assert_eq!(moved.deadline(LIMIT), start + 480 * SECOND + LIMIT);
        moved.resume(start + 900 * SECOND);
        assert_eq!(moved.deadline(LIMIT), start + 480 * SECOND + LIMIT);
    }

    #[test]
    fn a_request_without_a_body_has_the_limit_alone() {
        let start = Instant::now();
        assert_eq!(Moved::new(start, 0).deadline(LIMIT), start + LIMIT);
    }

    proptest! {
        #[test]
        fn a_peer_that_takes_a_little_now_and_then_is_left_in_the_end(
            request in 1usize..(64 << 20), steps in prop::collection::vec(0u64..60_000, 0..2_000),
        ) {
            let start = Instant::now();
            let (mut moved, mut now) = (Moved::new(start, request), start);
            for step in steps {
                now += Duration::from_millis(step);
                if now >= moved.deadline(LIMIT) {
                    break;
                }
                moved.took(now, 1);
            }
            let most = start + 2 * LIMIT + Duration::from_secs(request as u64 / SLOWEST);
            prop_assert!(now < most + Duration::from_secs(60));
            prop_assert!(moved.deadline(LIMIT) <= most);
            prop_assert!(moved.deadline(LIMIT) >= (moved.last + LIMIT).min(most));
        }
    }
}
