//! Reads the body of an answer: as much as there is use for, in proportion to what was sent, and within a bound over all
//! requests together. An upstream decides how long its answers are, and they are kept in memory.

use super::progress::Progress;
use super::{fault, garbled};
use crate::verdict::Failure;
use bytes::{Bytes, BytesMut};
use reqwest::Response;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most bytes of a body that is no success; what is beyond is cut off, because only an excerpt of it is of use.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// Most bytes of bodies of success in memory, over all requests. A single one may be half of it.
const ALL_BYTES: usize = 128 << 20;
/// Most bytes of a body that nobody needs that are read, so that its connection can be used again. A task is no larger.
const DRAINED_BYTES: usize = 16 << 20;
/// Bytes of a permit.
const UNIT: usize = 1 << 10;

/// An answer to a log request is the batch again, with what the API adds: so many bytes in any case, an event, and
/// multiples of what was sent. It writes fields that it does not know a second time, and some values longer.
const ECHO_BASE: usize = 64 << 10;
const ECHO_EVENT: usize = 2 << 10;
const ECHO_FACTOR: usize = 4;
/// Largest body of a success that is kept.
const MAX_KEPT: usize = ALL_BYTES / 2;

/// What is needed of the body of a success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Its status says all.
    Nothing,
    /// All of it, if it has no more bytes than this.
    UpTo(usize),
}

impl Need {
    /// Of the answer to a log request with this body. Each event that leaves bears its task id.
    pub(super) fn echo_of(body: &[u8]) -> Self {
        let events = memchr::memmem::find_iter(body, b"\"task_id\"").count();
        let most = ECHO_FACTOR
            .saturating_mul(body.len())
            .saturating_add(ECHO_EVENT.saturating_mul(events))
            .saturating_add(ECHO_BASE);
        Self::UpTo(most.min(MAX_KEPT))
    }

    /// Of a task that is read. It can be far larger than the feedback that it is read for.
    pub(super) const fn task() -> Self {
        Self::UpTo(2 * DRAINED_BYTES)
    }
}

/// The room that all bodies of success share.
#[derive(Debug, Clone)]
pub(super) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ALL_BYTES / UNIT)))
    }
}

impl Room {
    /// Waits for so many bytes. Whoever has room waits for no other, so it always becomes free.
    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = bytes.div_ceil(UNIT).clamp(1, ALL_BYTES / UNIT);
        let units = u32::try_from(units).ok()?;
        self.0.clone().acquire_many_owned(units).await.ok()
    }
}

/// A body and its room, which is free again once nobody has the body any more.
struct Kept {
    body: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// Reads the body of a success.
pub(super) async fn success(
    mut response: Response,
    need: Need,
    room: &Room,
    progress: &Progress,
) -> Result<Bytes, Failure> {
    let Need::UpTo(most) = need else {
        drain(response, progress).await?;
        return Ok(Bytes::new());
    };
    let too_large = || {
        garbled(
            "the upstream's reply is far larger than what it answers: is upstream.base_url the phospho API?",
        )
    };
    let stated = response
        .content_length()
        .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    if stated.is_some_and(|bytes| bytes > most) {
        return Err(too_large());
    }
    progress.pause();
    let taken = room.take(stated.unwrap_or(most)).await;
    progress.resume();
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|err| fault::while_reading(&err))? {
        progress.came(chunk.len());
        if body.len() + chunk.len() > most {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Bytes::from_owner(Kept {
        body: body.freeze(),
        _room: taken,
    }))
}

/// Reads a body and keeps nothing of it. What is too long is left, and its connection with it.
async fn drain(mut response: Response, progress: &Progress) -> Result<(), Failure> {
    let mut left = DRAINED_BYTES;
    while let Some(chunk) = response.chunk().await.map_err(|err| fault::while_reading(&err))? {
        progress.came(chunk.len());
        match left.checked_sub(chunk.len()) {
            Some(less) => left = less,
            None => return Ok(()),
        }
    }
    Ok(())
}

/// As much of a refusal's body as an excerpt needs.
pub(super) async fn refusal(
    mut response: Response,
    status: u16,
    progress: &Progress,
) -> Result<Bytes, Failure> {
    // What says these about a large request often does not read the rest of it, so the connection breaks.
    let enough = matches!(status, 408 | 413 | 504 | 524);
    let mut body = BytesMut::new();
    loop {
        let chunk = response.chunk().await;
        if let Ok(Some(chunk)) = &chunk {
            progress.came(chunk.len());
        }
        match chunk {
            Ok(None) => return Ok(body.freeze()),
            Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_ERROR_BYTES => body.extend_from_slice(&chunk),
            Ok(Some(chunk)) => {
                body.extend_from_slice(&chunk[..MAX_ERROR_BYTES - body.len()]);
                return Ok(body.freeze());
            }
            // The status is worth more than the rest of its explanation.
            Err(_) if enough || !body.is_empty() => return Ok(body.freeze()),
            Err(err) => return Err(fault::while_reading(&err)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_an_echo_is_in_proportion_to_what_was_sent() {
        let event = br#"{"task_id":"t","input":"a"}"#;
        assert_eq!(
            Need::echo_of(event),
            Need::UpTo(ECHO_BASE + ECHO_EVENT + ECHO_FACTOR * event.len())
        );
        assert_eq!(Need::echo_of(b""), Need::UpTo(ECHO_BASE));
        assert_eq!(Need::echo_of(&vec![b' '; MAX_KEPT]), Need::UpTo(MAX_KEPT));
    }

    #[tokio::test]
    async fn all_bodies_share_one_room_which_is_free_again_with_the_last_copy() {
        let room = Room::default();
        let permits = || room.0.available_permits();
        let all = permits();
        let body = Bytes::from_owner(Kept {
            body: Bytes::from_static(b"abc"),
            _room: room.take(3 * UNIT).await,
        });
        let copy = body.slice(1..);
        assert_eq!(permits(), all - 3);
        drop(body);
        assert_eq!(permits(), all - 3);
        drop(copy);
        assert_eq!(permits(), all);
        let whole = room.take(usize::MAX).await;
        assert_eq!(permits(), 0, "more than all there is is all there is");
        drop(whole);
    }
}
