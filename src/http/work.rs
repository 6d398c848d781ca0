//! Work that takes a processor for long, kept off the threads that serve connections.
//!
//! # Where the border lies
//! A few milliseconds, for the worst there is. Checking costs up to 7 ns a byte (docs/performance.md),
//! so [`SHORT_BYTES`] take 2 ms. Redacting costs up to 93 ns a byte, in texts that are made to be slow:
//! where `[redact]` is on the border is an eighth of that, 32 KiB, which take 3 ms. Up to there work
//! stays where it is: what people send takes a twentieth of that, and to change the thread costs time.
//!
//! # What is beyond
//! The thread that comes to it stops serving for as long as the work takes: another thread of
//! tokio's blocking pool takes its place and all its other connections with it. The work is not
//! detached: the request has it done, in its own task, and cannot go away in the middle of it. So
//! nothing is lost or doubled when a client leaves or the daemon stops.
//!
//! # How much at a time
//! One less than there are processors, in each of two lines, first come first served: the large have
//! a line of their own, so that nobody of middle size waits behind them.

use std::sync::Arc;
use std::thread::available_parallelism;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;
use tokio::task::block_in_place;

/// Work on up to so many bytes stays on the thread that serves the connection.
pub const SHORT_BYTES: usize = 256 * 1024;
/// How many times more a byte costs that is redacted as well.
const SCREENED_COST: usize = 8;
/// Work of up to so many times [`SHORT_BYTES`] has the line of the middle.
const MIDDLE_TIMES: usize = 16;

/// Who may work for long, and when. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct LongWork(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// What a byte costs.
    cost: usize,
    middle: Semaphore,
    large: Semaphore,
}

impl LongWork {
    /// For bytes that are redacted if `screened`.
    pub fn new(screened: bool) -> Self {
        let most = at_a_time();
        Self(Arc::new(Inner {
            cost: if screened { SCREENED_COST } else { 1 },
            middle: Semaphore::new(most),
            large: Semaphore::new(most),
        }))
    }

    /// Whether work on so many bytes is long.
    pub fn is_long(&self, bytes: usize) -> bool {
        self.cost(bytes) > SHORT_BYTES
    }

    /// Does work on so many bytes: at once if it is short, else in line, away from those who serve.
    pub async fn run<T>(&self, bytes: usize, work: impl FnOnce() -> T) -> T {
        if !self.is_long(bytes) {
            return work();
        }
        let line = match self.cost(bytes) > MIDDLE_TIMES * SHORT_BYTES {
            true => &self.0.large,
            false => &self.0.middle,
        };
        // It is never closed.
        let _turn = line.acquire().await;
        away(work)
    }

    fn cost(&self, bytes: usize) -> usize {
        bytes.saturating_mul(self.0.cost)
    }

    /// Keeps everybody in line waiting until it is dropped.
    #[cfg(test)]
    pub(crate) async fn hold_up(&self) -> impl Sized + '_ {
        let all = u32::try_from(at_a_time()).unwrap_or(u32::MAX);
        let middle = self.0.middle.acquire_many(all).await;
        (middle, self.0.large.acquire_many(all).await)
    }
}

/// How many may work at a time in a line: a processor is left for those who serve.
fn at_a_time() -> usize {
    available_parallelism().map_or(1, |cores| (cores.get() - 1).max(1))
}

/// Lets another thread serve meanwhile. A runtime of one thread has none.
fn away<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(work),
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use tokio::sync::oneshot;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn the_only_thread_serves_on_while_large_work_is_done() {
        for bytes in [SHORT_BYTES + 1, MIDDLE_TIMES * SHORT_BYTES + 1] {
            let work = LongWork::new(false);
            let (began, has_begun) = oneshot::channel();
            let (go_on, waits) = mpsc::channel();
            let long = tokio::spawn(async move {
                work.run(bytes, move || {
                    began.send(()).expect("it is awaited");
                    waits.recv().expect("it is told to go on")
                })
                .await
            });
            has_begun.await.expect("it begins");
            // The work blocks its thread until another task of the same runtime was served.
            let served = tokio::spawn(async move { go_on.send(7) });
            served.await.expect("it is served").expect("the work waits");
            assert_eq!(long.await.expect("it ends"), 7);
        }
    }

    #[tokio::test]
    async fn short_work_waits_in_no_line_and_what_is_redacted_is_long_earlier() {
        let (plain, screened) = (LongWork::new(false), LongWork::new(true));
        let _held = (plain.hold_up().await, screened.hold_up().await);
        assert_eq!(plain.run(SHORT_BYTES, || 1).await, 1);
        assert_eq!(screened.run(SHORT_BYTES / SCREENED_COST, || 2).await, 2);
        assert!(plain.is_long(SHORT_BYTES + 1) && screened.is_long(SHORT_BYTES / SCREENED_COST + 1));
    }

    #[tokio::test]
    async fn the_middle_does_not_wait_behind_the_large() {
        let work = LongWork::new(false);
        let all = u32::try_from(at_a_time()).expect("a few");
        let _large = work.0.large.acquire_many(all).await;
        assert_eq!(work.run(MIDDLE_TIMES * SHORT_BYTES, || 3).await, 3);
    }
}
