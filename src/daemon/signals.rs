//! The signals of the process: what each does, from the first moment on.
//!
//! | signal | what it does |
//! |---|---|
//! | SIGTERM, SIGINT | stops in order; a second one, a moment later, ends it at once (128 + number) |
//! | SIGHUP | reads the configuration again |
//! | SIGXCPU | stops as SIGTERM does: the limit on CPU time is reached |
//! | SIGXFSZ | nothing: the write fails instead, and is treated like a full disk |
//! | SIGPIPE | nothing, as in every Rust program |
//!
//! An end without order loses nothing that was acknowledged: that is on disk, as after kill -9.

use rustix::process::Signal as Number;
use signal_hook::flag;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a shell adds to the number of the signal that ended a program.
const ENDED_BY_SIGNAL: i32 = 128;

/// How long after the first signal a second one is taken for the same wish. `timeout` of coreutils
/// sends each signal twice, and so does a parent that passes on what the terminal has sent to both.
const SAME_WISH: Duration = Duration::from_millis(250);

/// A write past the limit on file sizes fails from now on, where it would end the process without a
/// word. For every command that writes files.
///
/// # Errors
/// When the system refuses.
pub fn survive_file_size_limit() -> io::Result<()> {
    // A handler that only sets a flag is enough: what counts is that there is one. Unlike an
    // ignored signal, it is not inherited by child processes.
    flag::register(Number::XFSZ.as_raw(), Arc::new(AtomicBool::new(false))).map(|_| ())
}

/// What is arranged before there is a runtime: no signal of the table ends the process by itself
/// any more, but for the second SIGTERM or SIGINT.
#[derive(Debug)]
pub struct Early {
    /// The number of the signal that asked for a stop; 0: none has.
    number: Arc<AtomicUsize>,
    /// From now on a signal that asks for a stop ends the process.
    armed: Arc<AtomicBool>,
}

impl Early {
    /// Arranges it. Called first thing, so that the first milliseconds are covered as well.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn arrange() -> io::Result<Self> {
        let number = Arc::new(AtomicUsize::new(0));
        let armed = Arc::new(AtomicBool::new(false));
        for kind in [Number::HUP, Number::XCPU] {
            flag::register(kind.as_raw(), Arc::new(AtomicBool::new(false)))?;
        }
        for kind in [Number::TERM, Number::INT] {
            let raw = kind.as_raw();
            // In the handler, so that nothing that hangs can keep the process from its end.
            flag::register_conditional_shutdown(raw, ENDED_BY_SIGNAL + raw, armed.clone())?;
            flag::register_usize(raw, number.clone(), raw.unsigned_abs() as usize)?;
        }
        Ok(Self { number, armed })
    }

    /// The name of the signal that has asked for a stop.
    fn asked(&self) -> Option<&'static str> {
        let number = self.number.load(Ordering::Acquire);
        let is = |kind: Number| kind.as_raw().unsigned_abs() as usize == number;
        match number {
            0 => None,
            _ if is(Number::INT) => Some("SIGINT"),
            _ => Some("SIGTERM"),
        }
    }
}

/// The signals as the daemon waits for them.
#[derive(Debug)]
pub struct Signals {
    stops: Stops,
    hangup: Signal,
}

#[derive(Debug)]
struct Stops {
    early: Early,
    terminate: Signal,
    interrupt: Signal,
    cpu: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// An end, by the signal of this name.
    Stop(&'static str),
    /// A new look at the configuration.
    Reload,
}

impl Signals {
    /// Listens. Needs a runtime.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen(early: Early) -> io::Result<Self> {
        let stops = Stops {
            early,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            cpu: signal(SignalKind::from_raw(Number::XCPU.as_raw()))?,
        };
        let hangup = signal(SignalKind::hangup())?;
        Ok(Self { stops, hangup })
    }

    /// Resolves when the daemon is to stop, with the name of the signal. A SIGHUP meanwhile is kept
    /// for later.
    pub async fn stop(&mut self) -> &'static str {
        self.stops.next().await
    }

    /// Does the work of the end, once a signal asked for it. Another signal, unless it comes at the
    /// same moment, ends the process.
    pub async fn last<T>(&self, work: impl Future<Output = T>) -> T {
        arming(&self.stops.early.armed, work).await
    }

    /// Resolves with the next signal. However many SIGHUPs there are, a stop comes first.
    pub(super) async fn next(&mut self) -> Asked {
        let Self { stops, hangup } = self;
        tokio::select! {
            biased;
            name = stops.next() => Asked::Stop(name),
            _ = hangup.recv() => Asked::Reload,
        }
    }
}

/// Does the work, and arms when that takes longer than a moment.
async fn arming<T>(armed: &AtomicBool, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = tokio::time::sleep(SAME_WISH) => {}
    }
    armed.store(true, Ordering::Release);
    work.await
}

impl Stops {
    async fn next(&mut self) -> &'static str {
        // One that came before anybody listened.
        if let Some(name) = self.early.asked() {
            return name;
        }
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.cpu.recv() => "SIGXCPU",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_counts_only_after_a_moment() {
        let armed = AtomicBool::new(false);
        let is_armed = || armed.load(Ordering::Acquire);
        let work = async {
            tokio::time::sleep(SAME_WISH - Duration::from_millis(1)).await;
            assert!(!is_armed(), "the same signal from two senders");
            tokio::time::sleep(Duration::from_millis(2)).await;
            assert!(is_armed(), "a person who wants it to end now");
            "done"
        };
        assert_eq!(arming(&armed, work).await, "done");
        let short = AtomicBool::new(false);
        arming(&short, async {}).await;
        assert!(!short.load(Ordering::Acquire));
    }
}
