//! The answers of an NDJSON connection on their way to its client.

use crate::http::Limits;
use bytes::{Buf, BytesMut};
use std::io;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until};

/// Bytes of answers that wait for a client to read them. With more no line is read.
pub(super) const MOST_ANSWERS: usize = 1024 * 1024;

/// Answers that wait to be written.
///
/// A client that reads none of them for [`Limits::idle`] gets no more: its reading half is closed, so that it sees where they
/// end. What it writes is taken all the same.
#[derive(Debug)]
pub(super) struct Answers {
    waiting: BytesMut,
    limits: Limits,
    /// Since when the client has read nothing.
    since: Instant,
    /// The client gets no more.
    closed: bool,
    /// It can see that.
    is_ended: bool,
}

impl Answers {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            waiting: BytesMut::new(),
            limits,
            since: Instant::now(),
            closed: false,
            is_ended: false,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether more lines may be read.
    pub(super) fn may_grow(&self) -> bool {
        self.bytes() < MOST_ANSWERS
    }

    pub(super) fn push(&mut self, text: &[u8]) {
        if self.closed {
            return;
        }
        if self.is_empty() {
            self.since = Instant::now();
        }
        self.waiting.extend_from_slice(text);
    }

    /// Writes what the client has room for.
    pub(super) fn write(&mut self, stream: &UnixStream) {
        while !self.is_empty() {
            match stream.try_write(&self.waiting) {
                Ok(written) => {
                    self.waiting.advance(written);
                    self.since = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.close(&error.to_string()),
            }
        }
        // A large buffer is not kept for a connection that rests.
        self.waiting = BytesMut::new();
    }

    /// Resolves when there may be something to write, or the client had its time.
    pub(super) async fn wait(&mut self, stream: &UnixStream) {
        tokio::select! {
            biased;
            // An error is met again by the write that follows.
            _ = stream.writable() => {}
            () = sleep_until(self.since + self.limits.idle) => {
                self.close("the client does not read its answers");
            }
        }
    }

    /// Writes until less than `below` bytes wait.
    pub(super) async fn deliver(&mut self, stream: &UnixStream, below: usize) {
        while self.bytes() >= below {
            self.wait(stream).await;
            self.write(stream);
        }
    }

    /// Closes the client's reading half if it gets no more.
    pub(super) async fn end(&mut self, stream: &mut UnixStream) {
        if self.closed && !std::mem::replace(&mut self.is_ended, true) {
            // It may be gone.
            let _ = stream.shutdown().await;
        }
    }

    fn close(&mut self, why: &str) {
        tracing::debug!(
            why,
            bytes = self.bytes(),
            "answers of an NDJSON connection found no reader"
        );
        self.closed = true;
        self.waiting = BytesMut::new();
    }
}
