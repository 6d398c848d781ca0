//! One courier a lane: takes batches from the spool to the API and ends each event by its verdict.
use crate::backoff::Backoff;
use crate::batch::Limits;
use crate::board::Board;
use crate::ids::ProjectId;
use crate::metrics::Metrics;
use crate::secret::Secret;
use crate::spool::Spool;
use crate::upstream::Upstream;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Everything a courier is told by configuration; replaced whole on reload.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[batch]`.
    pub batch: Limits,
    /// `[retry]`.
    pub backoff: Backoff,
    /// `delivery.confirm`. Default true.
    pub confirm: bool,
    /// `delivery.concurrency`: log batches of one project in flight at once. Default 1, which keeps the order of acceptance.
    pub concurrency: usize,
    /// `feedback.wait_max`: how long a feedback waits for its task. Default 1 h.
    pub feedback_wait_max: Duration,
    /// `feedback.concurrency`: tasks whose feedback is in flight at once. Default 16.
    pub feedback_concurrency: usize,
    /// `upstream.api_key`, for every project without a key of its own.
    pub default_key: Option<Secret>,
    /// `upstream.projects.<id>.api_key_file`.
    pub project_keys: BTreeMap<ProjectId, Secret>,
    /// The client to send with.
    pub upstream: Upstream,
}

/// Runs a courier for every lane, present and future, until `shutdown` resolves; then lets attempts in flight finish
/// for up to `grace`, releases the rest, and returns.
pub async fn run(
    _spool: Spool,
    _settings: watch::Receiver<Arc<Settings>>,
    _board: Board,
    _metrics: Arc<Metrics>,
    _shutdown: impl Future<Output = ()> + Send,
    _grace: Duration,
) {
    todo!()
}
