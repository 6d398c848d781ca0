//! The sandbox against the contract, over HTTP and in this process.

// Helpers outside of test functions may expect, too: a failure there fails the test.
#![allow(clippy::expect_used)]

#[path = "../support/address.rs"]
mod address;
mod control;
mod feedback;
mod log;
mod support;
mod trouble;
