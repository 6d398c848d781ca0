//! The fault suite: what must hold whatever happens to process, disk, clock and upstream, each on the real binary with the
//! sandbox behind it. docs/faults.md is its table; CONTRIBUTING.md says how to run it larger.

#![allow(
    clippy::expect_used,
    reason = "helpers of tests are no test functions, but may fail like them"
)]

mod cgroup;
mod clock;
mod damage;
mod full;
mod image;
mod kill;
mod memory;
mod owner;
mod points;
mod power;
mod promises;
mod racing;
mod reach;
mod relay;
mod scale;
mod sync;
mod wire;
mod wreck;

#[path = "../support/mod.rs"]
mod support;
