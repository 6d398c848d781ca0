//! What the black-box tests stand on: the real binary as a child, the sandbox in this process, plain clients.

pub(crate) mod client;
pub(crate) mod daemon;
pub(crate) mod ledger;
pub(crate) mod skip;

use std::future::Future;
use std::time::Duration;

/// Longest that a test waits for anything. Only a broken daemon ever takes this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again until `check` gives a value; fails with `what` when [`PATIENCE`] runs out.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut check: impl FnMut() -> F,
) -> T {
    let asking = async {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        loop {
            tick.tick().await;
            if let Some(value) = check().await {
                return value;
            }
        }
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain for: {what}"),
    }
}
