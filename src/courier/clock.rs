//! The monotonic clock of the couriers.

use std::time::Instant;

/// Now, by the runtime's clock: a test that pauses it decides about time.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
