//! What the documents show is run: each fenced block of README.md, docs/sandbox.md and docs/operations.md by the real binary, the real
//! SDKs and the real tools. What a test has to change in a block, such as a port, stands beside it. A block that no test takes fails.
//! And what README quotes stands in the source.

#![allow(clippy::expect_used)] // A test's helpers fail by panicking, as it does itself.

mod document;
mod operations;
mod quotes;
mod readme;
#[allow(dead_code, reason = "each test binary uses a part of it")]
#[path = "../package/root.rs"]
mod root;
mod sandbox_page;
#[path = "../support/mod.rs"]
mod support;
mod systemd;
mod world;
