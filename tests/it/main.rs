//! Black-box tests of the real binary against the sandbox.

#![allow(
    clippy::expect_used,
    reason = "helpers of tests are no test functions, but may fail like them"
)]

mod activation;
mod bad_input;
mod browser;
mod canary;
mod chromium;
mod clients;
mod dead_letters;
mod delivery;
mod demo;
mod documented_curl;
mod durable;
mod echo;
mod fate;
mod feedback;
mod floods;
mod foreign_files;
mod http_attacks;
mod intake;
mod log_injection;
mod many_projects;
mod memory;
mod moving;
mod observability;
mod other_uid;
mod outage;
mod prewire;
mod process;
mod redact;
mod reload;
mod service;
mod site;
mod spool_tools;
mod streams;
mod surroundings;
mod units;

#[path = "../support/mod.rs"]
mod support;
