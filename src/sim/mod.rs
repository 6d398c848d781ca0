//! The real couriers on virtual time, against a spool without files and an API without sockets (tests only).
//!
//! A schedule is made from one number: what is logged when, what goes wrong when, when the daemon is killed or restarted.
//! At the end everything is mended, the couriers get virtual hours to deliver the rest, and what reached the API, the dead
//! letters and the account are checked. The same number gives the same run, to the last request:
//! `PHOSPHOD_SEED=17 cargo test --lib sim` repeats one and prints what was asked and answered; `PHOSPHOD_SCHEDULES=100000`
//! runs more of them, and `PHOSPHOD_FIRST_SEED=50000` others.
//!
//! `plan` makes the schedule, `record` its events and feedback, `drive` carries it out, `world` is network and API, `fault`
//! what may go wrong with a request, `check` holds the promises. The real parts are `courier`, `verdict`, the state of the
//! spool in memory, and the sandbox as the API.

mod check;
mod drive;
mod fault;
mod plan;
mod record;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Schedules of a usual test run.
const SCHEDULES: u64 = 10_000;
/// Failing schedules after which a run gives up.
const ENOUGH: usize = 5;

/// What a schedule came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    /// Of all requests and answers, with their times.
    hash: u64,
    requests: u64,
    events: u64,
    restarts: u64,
    /// Events that the API stored and got again.
    again: u64,
    faults: BTreeMap<&'static str, u64>,
    /// Promises that were broken, one sentence each.
    broken: Vec<String>,
    /// What was asked and answered, if that was wanted.
    trace: Vec<String>,
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

#[test]
fn every_schedule_keeps_the_promises() {
    if let Some(seed) = number("PHOSPHOD_SEED") {
        let report = drive::run(seed, true);
        println!("{}", report.trace.join("\n"));
        assert!(report.broken.is_empty(), "seed {seed}: {:#?}", report.broken);
        return;
    }
    let first = number("PHOSPHOD_FIRST_SEED").unwrap_or(0);
    let end = first + number("PHOSPHOD_SCHEDULES").unwrap_or(SCHEDULES);
    let (next, failed) = (AtomicU64::new(first), AtomicUsize::new(0));
    let total = Mutex::new(Report::default());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.load(Ordering::Relaxed) < ENOUGH {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let report = drive::run(seed, false);
                    failed.fetch_add(usize::from(!report.broken.is_empty()), Ordering::Relaxed);
                    add(&mut total.lock().expect("not poisoned"), seed, report);
                }
            });
        }
    });
    let total = total.into_inner().expect("not poisoned");
    println!("seeds {first} to {}: {total:#?}", end - 1);
    assert!(total.broken.is_empty(), "{:#?}", total.broken);
    if end - first >= 1_000 {
        for fault in fault::NAMES {
            assert!(
                total.faults.contains_key(fault),
                "no schedule met the fault {fault}"
            );
        }
    }
}

fn add(total: &mut Report, seed: u64, report: Report) {
    total.requests += report.requests;
    total.events += report.events;
    total.restarts += report.restarts;
    total.again += report.again;
    for (name, times) in report.faults {
        *total.faults.entry(name).or_default() += times;
    }
    let broken = report.broken.into_iter();
    total
        .broken
        .extend(broken.map(|what| format!("PHOSPHOD_SEED={seed} cargo test --lib sim: {what}")));
}

#[test]
fn a_seed_gives_the_same_run_each_time() {
    for seed in 0..40 {
        let first = drive::run(seed, true);
        let again = drive::run(seed, true);
        let differs = first
            .trace
            .iter()
            .zip(&again.trace)
            .find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first, again, "seed {seed}");
    }
}
