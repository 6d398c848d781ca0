//! How a shutdown reaches the lanes: first nothing new is sent, then what is still in flight is given up.

use super::news::News;

/// How far the shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// No shutdown.
    Running,
    /// Nothing new is sent; what is in flight may finish.
    Draining,
    /// What is in flight is given up.
    Aborting,
}

/// Tells a lane's tasks how far the shutdown has come. Once the sender is gone, all is given up.
#[derive(Debug, Clone)]
pub(super) struct Stop(News<Phase>);

impl Stop {
    pub(super) fn new(phase: News<Phase>) -> Self {
        Self(phase)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.0.borrow() >= Phase::Draining || self.0.is_closed()
    }

    /// Resolves once nothing new may be sent.
    pub(super) async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Resolves once attempts in flight are to be given up.
    pub(super) async fn aborting(&self) {
        self.reached(Phase::Aborting).await;
    }

    async fn reached(&self, phase: Phase) {
        self.0.wait_for(|now| *now >= phase).await;
    }
}
