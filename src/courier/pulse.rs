//! Whether the couriers still answer, for the watchdog: the supervisor, and the loop of every lane.
//!
//! A question goes to all lanes at once and counts as answered when each has heard it: its task runs, and its loop turns. A lane that waits
//! for the spool counts as well, since the spool is asked by itself and may have to wait for a disk; attempts in flight run beside the loop, and
//! end by their time limits.

use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Asks the couriers.
#[derive(Debug, Clone)]
pub struct Pulse(mpsc::Sender<oneshot::Sender<()>>);

/// Where the supervisor hears it, and passes it on.
#[derive(Debug)]
pub struct Heart {
    asked: mpsc::Receiver<oneshot::Sender<()>>,
    lanes: Vec<mpsc::Sender<Question>>,
}

/// Where a lane hears it.
#[derive(Debug)]
pub(super) struct Ear(mpsc::Receiver<Question>);

/// One question. Its asker has the answer when nobody holds it any more.
#[derive(Debug, Clone)]
struct Question {
    _answer: Arc<Answer>,
}

#[derive(Debug)]
struct Answer(Option<oneshot::Sender<()>>);

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            // Who no longer asks need not know.
            let _ = answer.send(());
        }
    }
}

/// A pulse, and the heart for [`run`](super::run).
pub fn pulse() -> (Pulse, Heart) {
    let (asks, asked) = mpsc::channel(1);
    let heart = Heart {
        asked,
        lanes: Vec::new(),
    };
    (Pulse(asks), heart)
}

impl Pulse {
    /// Resolves once all couriers have answered; at once when they have ended, which the daemon notices by itself. One asks at a
    /// time: the next question is not heard by a lane that still owes an answer.
    pub async fn felt(&self) {
        let (answer, answered) = oneshot::channel();
        if self.0.send(answer).await.is_ok() {
            let _ = answered.await;
        }
    }
}

impl Heart {
    /// One lane more that has to answer, until it drops this.
    pub(super) fn lane(&mut self) -> Ear {
        let (asks, asked) = mpsc::channel(1);
        self.lanes.retain(|lane| !lane.is_closed());
        self.lanes.push(asks);
        Ear(asked)
    }

    /// Passes the next question on.
    pub(super) async fn beat(&mut self) {
        let Some(answer) = self.asked.recv().await else {
            // Nobody will ask again.
            return std::future::pending().await;
        };
        let question = Question {
            _answer: Arc::new(Answer(Some(answer))),
        };
        for lane in &self.lanes {
            // One that has ended owes nothing.
            let _ = lane.try_send(question.clone());
        }
    }
}

impl Ear {
    /// Hears the next question, which answers it.
    pub(super) async fn answer(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Does something that others bring to its end, and answers meanwhile.
    pub(super) async fn while_doing<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.answer() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::{Pin, pin};
    use std::task::{Context, Waker};

    /// Whether a future is ready now.
    fn now(future: Pin<&mut impl Future>) -> bool {
        future.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn it_is_felt_when_every_lane_has_answered_and_not_before() {
        let (pulse, mut heart) = pulse();
        let (mut first, mut second, ended) = (heart.lane(), heart.lane(), heart.lane());
        drop(ended);
        for _ in 0..3 {
            let mut felt = pin!(pulse.felt());
            assert!(!now(felt.as_mut()), "the supervisor has not heard it");
            heart.beat().await;
            assert!(now(pin!(first.answer())), "it is asked");
            assert!(!now(felt.as_mut()), "the second lane hangs");
            assert!(now(pin!(second.answer())), "it is asked");
            assert!(now(felt), "nobody else owes an answer");
        }
    }

    #[tokio::test]
    async fn a_lane_answers_while_it_waits_for_others() {
        let (pulse, mut heart) = pulse();
        let mut lane = heart.lane();
        let (done, waiting) = oneshot::channel();
        let work = lane.while_doing(waiting);
        let watch = async {
            tokio::join!(pulse.felt(), heart.beat());
            done.send(7)
        };
        let (came, sent) = tokio::join!(work, watch);
        assert_eq!((came, sent), (Ok(7), Ok(())));
    }

    #[tokio::test]
    async fn couriers_that_have_ended_hold_nobody_up() {
        let (pulse, heart) = pulse();
        drop(heart);
        pulse.felt().await;
    }
}
