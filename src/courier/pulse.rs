//! Whether the couriers still answer, for the watchdog.

use tokio::sync::{mpsc, oneshot};

/// Asks the couriers.
#[derive(Debug, Clone)]
pub struct Pulse(mpsc::Sender<oneshot::Sender<()>>);

/// Where the couriers hear it.
#[derive(Debug)]
pub struct Heart(mpsc::Receiver<oneshot::Sender<()>>);

/// A pulse, and the heart for [`run`](super::run).
pub fn pulse() -> (Pulse, Heart) {
    let (asks, asked) = mpsc::channel(1);
    (Pulse(asks), Heart(asked))
}

impl Pulse {
    /// Resolves once the couriers have answered; at once when they have ended, which the daemon notices by itself.
    pub async fn felt(&self) {
        let (answer, answered) = oneshot::channel();
        if self.0.send(answer).await.is_ok() {
            let _ = answered.await;
        }
    }
}

impl Heart {
    /// Answers the next question.
    pub(super) async fn beat(&mut self) {
        match self.0.recv().await {
            Some(answer) => {
                let _ = answer.send(());
            }
            // Nobody will ask again.
            None => std::future::pending().await,
        }
    }
}
