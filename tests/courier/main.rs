//! Couriers between a real spool and the sandbox, in one process.

#![allow(
    clippy::expect_used,
    reason = "helpers of tests are no test functions, but may fail like them"
)]

mod bench;
mod feedback;
mod flow;
mod outage;
mod parking;
mod random;
mod refused;
mod repair;
mod stored;
