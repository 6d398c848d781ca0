//! The clocks of the couriers.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Now, by the runtime's clock: a test that pauses it decides about time.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The wall clock, milliseconds since 1970: to be told to people, never to be compared.
pub(super) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
