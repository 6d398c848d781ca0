//! The open connections of a listener, and which of them goes when there are as many as may be.

use super::activity::Activity;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::timeout;

/// How long a connection that was asked to leave is waited for. It goes at once, unless a request of it began in the same moment.
const LEAVING: Duration = Duration::from_millis(100);

/// Whether another connection may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// There are fewer than may be.
    Free,
    /// One that rested has left.
    Made,
    /// All are busy.
    None,
}

/// The connections, each a task.
pub(super) struct Crowd {
    tasks: JoinSet<()>,
    activities: HashMap<Id, Arc<Activity>>,
    most: usize,
}

impl Crowd {
    pub(super) fn new(most: usize) -> Self {
        Self {
            tasks: JoinSet::new(),
            activities: HashMap::new(),
            most,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(super) fn admit(
        &mut self,
        activity: Arc<Activity>,
        connection: impl Future<Output = ()> + Send + 'static,
    ) {
        let id = self.tasks.spawn(connection).id();
        self.activities.insert(id, activity);
    }

    /// Resolves when a connection has ended; `None` if there is none.
    pub(super) async fn ended(&mut self) -> Option<()> {
        let ended = self.tasks.join_next_with_id().await?;
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        self.activities.remove(&id);
        if let Err(error) = ended
            && error.is_panic()
        {
            tracing::error!(%error, "a connection's task panicked; please report this");
        }
        Some(())
    }

    /// Makes room for one more: asks the one that rests longest to leave, and waits until one has.
    pub(super) async fn make_room(&mut self) -> Room {
        if self.len() < self.most {
            return Room::Free;
        }
        let resting = self.activities.values();
        let resting = resting.filter_map(|activity| Some((activity.resting_since()?, activity)));
        let longest = resting.min_by_key(|(since, _)| *since);
        if !longest.is_some_and(|(_, activity)| activity.ask_to_leave()) {
            return Room::None;
        }
        match timeout(LEAVING, self.ended()).await {
            Ok(Some(())) => Room::Made,
            _ => Room::None,
        }
    }

    /// Waits until all have ended, for so long at most; then cuts off those that are left, and tells how many.
    pub(super) async fn drain(&mut self, patience: Duration) -> usize {
        let all = timeout(patience, async { while self.ended().await.is_some() {} });
        if all.await.is_ok() {
            return 0;
        }
        let left = self.len();
        self.tasks.shutdown().await;
        left
    }
}
