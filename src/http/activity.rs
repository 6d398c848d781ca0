//! What a connection is doing, as seen from its bytes, and until when it may.
//!
//! hyper's own `header_read_timeout` starts as soon as it waits for a head, so it would close a keep-alive
//! connection between two requests after 5 s; SDKs keep theirs for longer than that. Here the clock of a head
//! starts with its first byte, and a connection at rest has a clock of its own.

use super::Limits;
use super::framing::Framing;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a connection is read on after a reply that left part of a request unread: closing at once would
/// make the kernel send a reset, which can overtake the reply.
const LINGER: Duration = Duration::from_secs(2);

/// Most that is read at once of what may be heads: requests that are sent ahead wait in the client's
/// buffers, not in ours.
const HEAD_READ_BYTES: u64 = 8 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Between requests.
    Idle,
    /// A head has begun.
    Head,
    /// A request is being answered; its body has a limit of its own.
    Request,
    /// The reply is out; what the client still sends is thrown away.
    Linger,
}

#[derive(Debug)]
struct State {
    /// Nothing has come yet.
    fresh: bool,
    phase: Phase,
    since: Instant,
    /// Since when the client takes nothing of a reply.
    stalled: Option<Instant>,
    linger: bool,
    /// Others need its place.
    leaving: bool,
}

impl State {
    /// Whether nothing would be lost if the connection ended now.
    fn rests(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Head) && self.stalled.is_none()
    }
}

/// Shared by the connection's socket, its service and its watcher, which all live in one task.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
    leave: Notify,
    /// The client takes replies again.
    taken: Notify,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                fresh: true,
                phase: Phase::Idle,
                since: Instant::now(),
                stalled: None,
                linger: false,
                leaving: false,
            }),
            leave: Notify::new(),
            taken: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing has come yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.state().fresh
    }

    /// A request's head is complete.
    pub(super) fn request_began(&self) {
        self.state().phase = Phase::Request;
    }

    /// Resolves once the client takes what was written for it. Until then no further request of it is
    /// answered, or what is written would pile up behind a client that asks and does not read.
    pub(super) async fn taken(&self) {
        while self.state().stalled.is_some() {
            self.taken.notified().await;
        }
    }

    /// Its reply is ready.
    ///
    /// The start of a next head that came in one packet with this request is not seen; such a connection
    /// counts as idle, which is bounded as well.
    pub(super) fn request_ended(&self) {
        let mut state = self.state();
        state.phase = Phase::Idle;
        state.since = Instant::now();
    }

    /// The request was answered without reading all of its body.
    pub(super) fn linger(&self) {
        self.state().linger = true;
    }

    /// Since when the connection rests: no request of it is read or answered, although a head may have begun. `None` if it
    /// does not, or was asked to leave already.
    pub(super) fn resting_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.rests() && !state.leaving).then_some(state.since)
    }

    /// Asks the connection to end, because others need its place. Whether it rested; a request that begins in the same moment is
    /// answered first.
    pub(super) fn ask_to_leave(&self) -> bool {
        let mut state = self.state();
        state.leaving |= state.rests();
        if state.leaving {
            self.leave.notify_one();
        }
        state.leaving
    }

    /// Resolves once it is asked to.
    pub(super) async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }

    /// When the connection has had its time, if what it does now has a limit.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<Instant> {
        let state = self.state();
        if state.leaving && state.rests() {
            return Some(state.since);
        }
        let phase = match state.phase {
            Phase::Idle => Some(state.since + limits.idle),
            Phase::Head => Some(state.since + limits.header),
            Phase::Request => None,
            Phase::Linger => Some(state.since + LINGER.min(limits.idle)),
        };
        let stalled = state.stalled.map(|since| since + limits.idle);
        match (phase, stalled) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn bytes_came(&self) {
        let mut state = self.state();
        state.fresh = false;
        if state.phase == Phase::Idle {
            state.phase = Phase::Head;
            state.since = Instant::now();
        }
    }

    fn wrote(&self, pending: bool) {
        let mut state = self.state();
        match (pending, state.stalled) {
            (true, None) => state.stalled = Some(Instant::now()),
            (false, Some(_)) => {
                state.stalled = None;
                self.taken.notify_one();
            }
            _ => {}
        }
    }

    /// Whether to read on after the last reply.
    fn begin_linger(&self) -> bool {
        let mut state = self.state();
        if state.linger && state.phase != Phase::Linger {
            state.phase = Phase::Linger;
            state.since = Instant::now();
        }
        state.linger
    }
}

/// A socket that notes in its [`Activity`] what passes through it, and holds it to its [`Framing`].
///
/// From the first byte on that breaks a rule, hyper is given NULs. No head and no chunk's size may hold one, so it answers 400
/// and closes; nothing of what the client meant by the rest is ever read as a request.
#[derive(Debug)]
pub(super) struct Watched<S> {
    inner: S,
    activity: Arc<Activity>,
    /// `None` once a rule was broken.
    framing: Option<Framing>,
    write_closed: bool,
}

impl<S> Watched<S> {
    pub(super) fn new(inner: S, activity: Arc<Activity>) -> Self {
        Self {
            inner,
            activity,
            framing: Some(Framing::new()),
            write_closed: false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let most = self.framing.as_ref().map_or(HEAD_READ_BYTES, |framing| {
            framing.body_bytes().saturating_add(HEAD_READ_BYTES)
        });
        ready!(Pin::new(&mut (&mut self.inner).take(most)).poll_read(cx, buf))?;
        let came = &mut buf.filled_mut()[before..];
        if !came.is_empty() {
            self.activity.bytes_came();
        }
        let spoiled_from = match &mut self.framing {
            Some(framing) => framing.follow(came),
            None => Some(0),
        };
        if let Some(at) = spoiled_from {
            self.framing = None;
            came[at..].fill(0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.activity.wrote(wrote.is_pending());
        wrote
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.activity.wrote(wrote.is_pending());
        wrote
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.write_closed {
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
            self.write_closed = true;
        }
        if !self.activity.begin_linger() {
            return Poll::Ready(Ok(()));
        }
        let mut waste = [0; 8192];
        loop {
            let mut buf = ReadBuf::new(&mut waste);
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                // The client is done, or gone: either way nothing is left to wait for.
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}
