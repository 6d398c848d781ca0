//! The Debian package and the Containerfile: built from the binary that Cargo has just built, installed, upgraded and taken
//! away again in a root that is thrown away. What it does under a running systemd is in `tests/boot/`.

#![allow(clippy::expect_used)] // A test's helpers fail by panicking, as it does itself.

mod container;
mod deb;
mod install;
mod life;
mod pages;
mod root;
#[path = "../support/mod.rs"]
mod support;
