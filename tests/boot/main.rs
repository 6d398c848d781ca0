//! The service under a real systemd, booted in a container. One boot, and one story: what happens, in this order, to one installation
//! (systemd/) from its first start to its last stop. Every event that was acknowledged on the way is looked for after each step. docs/faults.md has the
//! figures; `PHOSPHOD_FAULTS=large` ends with a backlog of 1 GiB.

#![allow(
    clippy::expect_used,
    reason = "helpers of tests are no test functions, but may fail like them"
)]

mod ends;
mod machine;
mod memory_group;
mod starts;
mod world;

#[allow(dead_code, reason = "each test binary uses a part of it")]
#[path = "../support/executable.rs"]
mod executable;
#[allow(dead_code, reason = "each test binary uses a part of it")]
#[path = "../support/notes.rs"]
mod notes;
#[path = "../support/skip.rs"]
mod skip;

use machine::Machine;
use std::time::Instant;
use world::{World, figure, seconds};

/// A step of the story.
type Scenario = fn(&mut World);

#[test]
fn the_service_holds_its_promises_under_a_real_systemd() {
    const NAME: &str = "the_service_holds_its_promises_under_a_real_systemd";
    let since = Instant::now();
    let machine = match Machine::boot(world::install) {
        Ok(machine) => machine,
        Err(why) => return skip::skip(NAME, &why),
    };
    figure(&format!("the container is up after {}", seconds(since.elapsed())));
    let mut world = World::begin(machine);
    let story: [(&str, Scenario); 9] = [
        ("start", starts::notify_and_user),
        ("sockets", starts::sockets),
        ("credential", starts::credential),
        ("reload", starts::reload_and_journal),
        ("watchdog", ends::watchdog),
        ("memory", ends::memory_limit),
        ("restarts", ends::restarts),
        ("canary", ends::canary),
        ("stop", ends::stop_with_backlog),
    ];
    for (name, scenario) in story {
        let since = Instant::now();
        scenario(&mut world);
        figure(&format!("({name} took {})", seconds(since.elapsed())));
    }
}
