//! A connection that can be made to end badly at a chosen byte.
//!
//! hyper writes the replies; what stands between it and the socket here counts the last reply's bytes, so that the
//! connection is dropped after exactly as much as was wished, and never before that has been handed to the kernel.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// How long a connection that is to be dropped waits for the client's next request, so as to reset it in the middle;
/// then it is closed.
const LINGER: Duration = Duration::from_millis(100);

/// How a connection goes on after the next reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// As usual.
    Open,
    /// The next reply is the last.
    Last(Last),
    /// The last reply is out: the next request meets a reset, or the connection is closed.
    Dropping { linger: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Last {
    /// Bytes of the blank line after the head that have been seen.
    blank: usize,
    /// Body bytes still to be let through.
    left: usize,
    /// Make all bytes unreadable.
    garbage: bool,
    linger: bool,
}

/// The side of a [`Line`] that the request handler holds.
#[derive(Debug, Clone)]
pub(super) struct Fate(Arc<Mutex<(Mode, bool)>>);

impl Fate {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new((Mode::Open, false))))
    }

    /// The next reply, with a body of `body_bytes`, is the last one; then the connection is dropped.
    pub(super) fn drop_after_reply(&self, body_bytes: usize) {
        self.last(body_bytes, false, true);
    }

    /// Of the next reply's body only `body_bytes` get through; then the connection is closed.
    pub(super) fn cut_reply(&self, body_bytes: usize) {
        self.last(body_bytes, false, false);
    }

    /// The next reply gets through as bytes that are not HTTP; then the connection is closed.
    pub(super) fn garble_reply(&self, body_bytes: usize) {
        self.last(body_bytes, true, false);
    }

    /// The connection is reset when it is dropped, rather than closed.
    pub(super) fn reset(&self) {
        self.lock().1 = true;
    }

    /// Whether the last reply has been promised or sent.
    pub(super) fn is_sealed(&self) -> bool {
        self.lock().0 != Mode::Open
    }

    fn last(&self, left: usize, garbage: bool, linger: bool) {
        self.lock().0 = Mode::Last(Last {
            blank: 0,
            left,
            garbage,
            linger,
        });
    }

    fn lock(&self) -> MutexGuard<'_, (Mode, bool)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A TCP connection with a [`Fate`].
#[derive(Debug)]
pub(super) struct Line {
    stream: TcpStream,
    fate: Fate,
    linger: Option<Pin<Box<Sleep>>>,
}

impl Line {
    pub(super) fn new(stream: TcpStream, fate: Fate) -> Self {
        Self {
            stream,
            fate,
            linger: None,
        }
    }
}

impl Last {
    /// How many of these bytes still belong to what is let through.
    fn share(&self, bytes: &[u8]) -> (usize, Self) {
        const BLANK: &[u8] = b"\r\n\r\n";
        let mut next = *self;
        let mut head = 0;
        while next.blank < BLANK.len() && head < bytes.len() {
            let fits = bytes[head] == BLANK[next.blank];
            next.blank = if fits {
                next.blank + 1
            } else {
                usize::from(bytes[head] == b'\r')
            };
            head += 1;
        }
        let body = next.left.min(bytes.len() - head);
        (head + body, next)
    }

    /// The state after `written` of the bytes went out.
    fn after(&self, bytes: &[u8]) -> Mode {
        let (share, mut next) = self.share(bytes);
        let before = Self { left: 0, ..*self };
        let head = before.share(bytes).0;
        next.left -= share - head;
        if next.blank == 4 && next.left == 0 {
            Mode::Dropping { linger: next.linger }
        } else {
            Mode::Last(next)
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mode = self.fate.lock().0;
        let Mode::Dropping { linger } = mode else {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        };
        let mut byte = [0];
        let mut next = ReadBuf::new(&mut byte);
        match Pin::new(&mut self.stream).poll_read(cx, &mut next) {
            Poll::Ready(Ok(())) if !next.filled().is_empty() => self.fate.reset(),
            Poll::Ready(_) => {}
            Poll::Pending if linger => {
                ready!(
                    self.linger
                        .get_or_insert_with(|| Box::pin(sleep(LINGER)))
                        .as_mut()
                        .poll(cx)
                );
            }
            Poll::Pending => {}
        }
        Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mode = self.fate.lock().0;
        match mode {
            Mode::Open => Pin::new(&mut self.stream).poll_write(cx, buf),
            Mode::Dropping { .. } => Poll::Ready(Ok(buf.len())),
            Mode::Last(last) => {
                let (share, _) = last.share(buf);
                let out = if last.garbage {
                    vec![b'#'; share]
                } else {
                    buf[..share].to_vec()
                };
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &out))?;
                self.fate.lock().0 = last.after(&buf[..written]);
                Poll::Ready(Ok(written))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.fate.lock().1 {
            // Without it the connection is closed instead of reset, which is bad enough for the client.
            let _ = self.stream.set_zero_linger();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reply_is_counted_by_body_bytes_however_it_is_cut() {
        let reply = b"HTTP/1.1 200 OK\r\na: b\r\n\r\nbody";
        for cut in 1..reply.len() {
            let last = Last {
                blank: 0,
                left: 4,
                garbage: false,
                linger: true,
            };
            let Mode::Last(rest) = last.after(&reply[..cut]) else {
                panic!("over after {cut} bytes")
            };
            assert_eq!(
                rest.after(&reply[cut..]),
                Mode::Dropping { linger: true },
                "cut at {cut}"
            );
        }
        let half = Last {
            blank: 0,
            left: 2,
            garbage: false,
            linger: false,
        };
        assert_eq!(half.share(reply).0, reply.len() - 2);
    }
}
