//! Whose turn it is: what a lane waits for before a request leaves, and the one attempt that then is made.
//!
//! In this order: until the lane does not hold back, one of its streams, a slot of all lanes, the rate limit. A lane in trouble has one
//! stream, so of all that waits in it one request probes. Who has a slot waits for no other, so requests always end.

use super::clock;
use super::line::{Knobs, Line, changed};
use super::outlet::Slot;
use crate::ids::Kind;
use crate::verdict::{Failure, FailureKind, Outcome};
use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// So many connections in a row may close without a reply before that counts as a failure: most often the server had
/// closed them after its reply before, and then the request was not even read.
pub(super) const STALE_CONNECTIONS: u32 = 2;

/// The right to send one log request, or to read one task back.
pub(super) struct Pass<'a> {
    _post: Option<Post<'a>>,
    _slot: Slot,
}

/// One of the log requests that the lane may have in flight.
struct Post<'a>(&'a Line);

impl Drop for Post<'_> {
    fn drop(&mut self) {
        self.0.posts.fetch_sub(1, Ordering::Relaxed);
        self.0.freed.notify_waiters();
    }
}

/// What a request is, as far as its turn goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// So many log events.
    Log(usize),
    /// One feedback.
    Feedback,
    /// A task is read back. That may still be done while the shutdown waits for attempts in flight.
    Read,
}

/// One attempt that was made.
#[derive(Debug)]
pub(super) struct Attempt {
    /// When it left.
    pub(super) began: Instant,
    pub(super) outcome: Outcome,
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Send.
    Go,
    /// The lane waits for a person by now.
    Parked,
    /// Shutdown: send nothing more.
    Stopped,
}

impl Line {
    /// One attempt, for what may be asked twice: a connection that closed without a reply is replaced at once, up to
    /// [`STALE_CONNECTIONS`] times.
    pub(super) async fn ask<F: Future<Output = Outcome>>(
        &self,
        what: Request,
        request: impl Fn() -> F,
    ) -> Result<Attempt, Turn> {
        for _ in 0..STALE_CONNECTIONS {
            let attempt = self.ask_once(what, request()).await?;
            if !is_closed(&attempt.outcome) {
                return Ok(attempt);
            }
            self.count("retry");
        }
        self.ask_once(what, request()).await
    }

    /// One attempt, whatever comes of it, once the rate limit lets it go. `Err`: it was not made; after `Turn::Go`, because
    /// the lane had to hold back by then.
    pub(super) async fn ask_once(
        &self,
        what: Request,
        request: impl Future<Output = Outcome>,
    ) -> Result<Attempt, Turn> {
        let events = if let Request::Log(events) = what {
            events
        } else {
            0
        };
        tokio::select! {
            biased;
            () = self.common.outlet.pace(events) => {}
            () = self.stop().draining(), if what != Request::Read => return Err(Turn::Stopped),
            () = self.stop().aborting() => return Err(Turn::Stopped),
        }
        let last_reads = what == Request::Read && self.stop().is_draining();
        if !last_reads && self.health().hold(clock::now()).is_some() {
            // That came up while it waited for the rate limit.
            return Err(Turn::Go);
        }
        let (began, _departed) = (clock::now(), self.common.outlet.departed(self.lane().kind));
        let outcome = tokio::select! {
            biased;
            outcome = request => outcome,
            () = self.stop().aborting() => return Err(Turn::Stopped),
        };
        self.common
            .metrics
            .delivery_attempt_seconds
            .observe(began.elapsed().as_secs_f64());
        Ok(Attempt { began, outcome })
    }

    /// Waits until the lane may send. A change of the settings ends the wait.
    pub(super) async fn turn(&self, knobs: &mut Knobs) -> Turn {
        let mut waited = false;
        loop {
            let healed = self.healed.notified();
            let (hold, parked) = {
                let health = self.health();
                (health.hold(clock::now()), health.is_parked())
            };
            match hold {
                _ if self.stop().is_draining() => return Turn::Stopped,
                _ if waited && parked => return Turn::Parked,
                None => return Turn::Go,
                Some(until) => tokio::select! {
                    biased;
                    () = self.stop().draining() => return Turn::Stopped,
                    () = healed => {}
                    () = changed(knobs) => self.wake(),
                    () = tokio::time::sleep_until(until.into()) => {}
                },
            }
            waited = true;
        }
    }

    /// Waits until the lane may send a log request: until it is not holding back, one of its streams is free, and so is a
    /// slot. `Err` says why it may not.
    pub(super) async fn admit(&self, knobs: &mut Knobs) -> Result<Pass<'_>, Turn> {
        loop {
            match self.turn(knobs).await {
                Turn::Go => {}
                turn => return Err(turn),
            }
            let (freed, healed) = (self.freed.notified(), self.healed.notified());
            let streams = self.streams(&knobs.borrow());
            let Some(post) = self.enter(streams) else {
                tokio::select! {
                    biased;
                    () = self.stop().draining() => return Err(Turn::Stopped),
                    () = freed => {}
                    () = healed => {}
                    () = changed(knobs) => self.wake(),
                }
                if self.health().is_parked() {
                    return Err(Turn::Parked);
                }
                continue;
            };
            let slot = tokio::select! {
                biased;
                () = self.stop().draining() => return Err(Turn::Stopped),
                slot = self.common.outlet.slot(Kind::Log) => slot,
            };
            // Waiting for the slot may have taken long.
            if self.health().hold(clock::now()).is_none() {
                return Ok(Pass {
                    _post: Some(post),
                    _slot: slot,
                });
            }
        }
    }

    /// The same for reading a task back, which takes no stream while all is well. `None`: shutdown came first.
    pub(super) async fn admit_read(&self, knobs: &mut Knobs) -> Option<Pass<'_>> {
        while self.health().is_troubled() && !self.stop().is_draining() {
            match self.admit(knobs).await {
                Ok(pass) => return Some(pass),
                Err(Turn::Stopped) => return None,
                Err(Turn::Go | Turn::Parked) => {}
            }
        }
        tokio::select! {
            biased;
            () = self.stop().aborting() => None,
            slot = self.common.outlet.slot(Kind::Log) => Some(Pass { _post: None, _slot: slot }),
        }
    }

    /// The same for a feedback. `None`: shutdown came first.
    pub(super) async fn admit_feedback(&self) -> Option<Slot> {
        tokio::select! {
            biased;
            () = self.stop().draining() => None,
            slot = self.common.outlet.slot(Kind::Feedback) => Some(slot),
        }
    }

    fn enter(&self, streams: usize) -> Option<Post<'_>> {
        let more = |posts| (posts < streams).then_some(posts + 1);
        self.posts
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()
            .map(|_| Post(self))
    }
}

/// Whether the connection closed before a reply.
pub(super) fn is_closed(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Failed(Failure {
            kind: FailureKind::Closed,
            ..
        })
    )
}
