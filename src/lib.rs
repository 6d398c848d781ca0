//! A local daemon that takes LLM log events and user feedback, keeps them on disk, and forwards them to the
//! phospho API.
//!
//! The layers, lowest first; each imports only from those below (`tests/tidy.rs` holds them to it):
//!
//! | layer | modules | what they are |
//! |---|---|---|
//! | 0 | [`ids`], [`wire`], [`secret`], [`visible`], [`ledger`], [`metrics`] | names and shapes |
//! | 1 | [`event`], [`feedback`], [`redact`], [`batch`], [`backoff`], [`verdict`], [`board`], [`fates`] | pure decisions |
//! | 2 | [`spool`], [`upstream`], [`http`] | the disk, one HTTP attempt, the HTTP server's plumbing |
//! | 3 | [`intake`], [`courier`], [`admin`], [`notify`], [`sandbox`] | listeners, lanes, what operators see |
//! | 4 | [`config`] | settings |
//! | 5 | [`daemon`] | wires it all, supervises, shuts down |
//! | 6 | [`cli`] | the commands |
//! | 7 | `sim`, `fuzzing` | the couriers on virtual time, what holds for any bytes; in tests only |

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

pub mod ids;
pub mod ledger;
pub mod metrics;
pub mod secret;
pub mod visible;
pub mod wire;

pub mod backoff;
pub mod batch;
pub mod board;
pub mod event;
pub mod fates;
pub mod feedback;
pub mod redact;
pub mod verdict;

pub mod http;
pub mod spool;
pub mod upstream;

pub mod admin;
pub mod courier;
pub mod intake;
pub mod notify;
pub mod sandbox;

pub mod config;

pub mod daemon;
#[cfg(test)]
mod sim;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;

pub mod cli;
