//! Churn: does anything grow while events come and go for long? The real binary on a disk, and the sandbox as upstream.
//!
//! `cargo bench --bench churn [MINUTES]`, 30 unless told. Eight projects, half of the events alone and half in requests of 20,
//! and a thousandth to a project that stays parked because its key is refused. First the rate at which events
//! go all the way through, closed loop; then, on a new folder, half of that for so long, open loop, with a sample each second in a
//! CSV file (`benches/plot.py` draws it). Fails when the ledger is off or the disk held more than
//! twice the live bytes and two generations.
#[path = "../common/mod.rs"]
mod common;
mod load;
mod sample;
mod stage;

use common::Failure;
use load::{Load, Pace, Tally};
use sample::Sample;
use stage::{Ledger, Stage};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How long the full rate is looked for.
const FULL: Duration = Duration::from_secs(30);

fn main() -> Result<ExitCode, Failure> {
    let minutes = common::number_wanted(30) as u64;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let rate = full_rate(&runtime)? / 2.0;
    println!("churn: {rate:.0} events/s for {minutes} min");
    let kept = churn(&runtime, rate, minutes * 60)?;
    Ok(if kept {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Events a second that are both accepted and delivered.
fn full_rate(runtime: &Runtime) -> Result<f64, Failure> {
    let stage = Stage::set(runtime)?;
    let (load, begun) = (Load::start(&stage.address, Pace::Closed)?, Instant::now());
    std::thread::sleep(FULL);
    let tally = load.stop()?;
    let loaded = begun.elapsed().as_secs_f64();
    let meanwhile = stage.status()?.ledger.delivered as f64 / loaded;
    stage.drain()?;
    let accepted = tally.accepted.load(Relaxed) as f64;
    let through = accepted / begun.elapsed().as_secs_f64();
    println!(
        "full: {:.0} events/s accepted, {meanwhile:.0} delivered meanwhile; {through:.0} all the way through, draining included",
        accepted / loaded
    );
    Ok(through)
}

fn churn(runtime: &Runtime, rate: f64, seconds: u64) -> Result<bool, Failure> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("churn.csv");
    let mut file = File::create(&path)?;
    writeln!(file, "{}", sample::HEAD)?;
    println!("samples: {}", path.display());
    let stage = Stage::set(runtime)?;
    let (load, begun) = (Load::start(&stage.address, Pace::Open(rate))?, Instant::now());
    let mut samples = Vec::new();
    for second in 1..=seconds {
        let due = begun + Duration::from_secs(second);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let sample = Sample::take(&stage, &load.tally, begun.elapsed())?;
        sample.write(&mut file)?;
        samples.push(sample);
    }
    let tally = load.stop()?;
    let took = begun.elapsed().as_secs_f64();
    let ledger = stage.drain()?.ledger;
    let accepted = tally.accepted.load(Relaxed);
    println!(
        "{accepted} events, {:.2} GB, {:.0} a second; {} to the parked project; {} requests refused",
        tally.bytes.load(Relaxed) as f64 / 1e9,
        accepted as f64 / took,
        tally.parked.load(Relaxed),
        tally.refused.load(Relaxed)
    );
    sample::compare(&samples);
    let within = sample::disk_kept_within_bound(&samples);
    Ok(nothing_lost(&stage, &tally, ledger) && within)
}

/// Compares what the clients were told, what the daemon says, and what the sandbox has.
fn nothing_lost(stage: &Stage, tally: &Tally, ledger: Ledger) -> bool {
    let upstream = stage.upstream.state();
    let (accepted, parked) = (tally.accepted.load(Relaxed), tally.parked.load(Relaxed));
    let Ledger {
        delivered,
        dead,
        dropped,
        queued,
        ..
    } = ledger;
    let good = ledger.accepted == delivered + dead + dropped + queued
        && ledger.accepted == accepted
        && (dead, dropped, queued) == (0, 0, parked)
        && upstream.stored == delivered;
    println!(
        "acknowledged {accepted}; ledger: {} accepted = {delivered} delivered + {dead} dead + {dropped} dropped + {queued} queued; \
         the sandbox stored {}, and {} twice: {}",
        ledger.accepted,
        upstream.stored,
        upstream.duplicates,
        if good { "pass" } else { "FAIL" }
    );
    good
}
