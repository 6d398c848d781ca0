//! Black-box tests of the real binary against the sandbox.

mod bad_input;
mod clients;
mod crash;
mod delivery;
mod demo;
mod documented_curl;
mod durable;
mod intake;
mod observability;
mod outage;
mod service;
mod support;
mod surroundings;
