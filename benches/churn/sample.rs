//! What is looked at each second, and what it says in the end.
use crate::common::{Failure, resident_mib};
use crate::load::Tally;
use crate::stage::Stage;
use std::io::Write;
use std::time::Duration;

const MIB: f64 = 1_048_576.0;
/// `spool.generation_bytes`, which is left at its default.
const GENERATION_MIB: f64 = 64.0;
/// What sled may put on a generation in whole segments of 2 MiB.
const ROUNDED_UP_MIB: f64 = 4.0;
/// First line of the file.
pub(crate) const HEAD: &str = "s,rss_mib,disk_mib,folder_mib,bound_mib,live_mib,queued,p50_ms,p99_ms,max_ms,accepted,delivered,bench_rss_mib";

/// A figure of a second.
type Figure = fn(&Sample) -> f64;

/// One second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    seconds: f64,
    rss_mib: f64,
    disk_mib: f64,
    folder_mib: f64,
    live_mib: f64,
    queued: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    accepted: u64,
    delivered: u64,
    bench_rss_mib: f64,
}

impl Sample {
    pub(crate) fn take(stage: &Stage, tally: &Tally, since: Duration) -> Result<Sample, Failure> {
        let latencies = tally.latencies();
        let at = |share: f64| {
            let place = (latencies.len().saturating_sub(1) as f64 * share) as usize;
            // Nothing was answered for a whole second.
            latencies
                .get(place)
                .map_or(1e3, |latency| latency.as_secs_f64() * 1e3)
        };
        let status = stage.status()?;
        Ok(Sample {
            seconds: since.as_secs_f64(),
            rss_mib: stage.daemon.resident_mib(),
            disk_mib: stage.queue_bytes()? as f64 / MIB,
            folder_mib: stage.folder_bytes()? as f64 / MIB,
            live_mib: status.spool.live_bytes as f64 / MIB,
            queued: status.ledger.queued,
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            max_ms: at(1.0),
            accepted: status.ledger.accepted,
            delivered: status.ledger.delivered,
            bench_rss_mib: resident_mib("self"),
        })
    }

    /// Most that the queue may take on the disk, but for the rounding up.
    fn bound_mib(&self) -> f64 {
        2.0 * (self.live_mib + GENERATION_MIB)
    }

    pub(crate) fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        writeln!(
            out,
            "{:.1},{:.2},{:.2},{:.2},{:.2},{:.2},{},{:.3},{:.3},{:.3},{},{},{:.1}",
            self.seconds,
            self.rss_mib,
            self.disk_mib,
            self.folder_mib,
            self.bound_mib(),
            self.live_mib,
            self.queued,
            self.p50_ms,
            self.p99_ms,
            self.max_ms,
            self.accepted,
            self.delivered,
            self.bench_rss_mib
        )
    }
}

/// Prints whether the figures of the last fifth are those of the first.
pub(crate) fn compare(samples: &[Sample]) {
    let fifth = samples.len().div_ceil(5);
    let figures: [(&str, Figure); 6] = [
        ("RSS, MiB", |s| s.rss_mib),
        ("queue on disk, MiB", |s| s.disk_mib),
        ("data folder, MiB", |s| s.folder_mib),
        ("p50, ms", |s| s.p50_ms),
        ("p99, ms", |s| s.p99_ms),
        ("RSS of this bench, MiB", |s| s.bench_rss_mib),
    ];
    println!(
        "{:<24} {:>18} {:>18}",
        "median / maximum", "first fifth", "last fifth"
    );
    for (name, figure) in figures {
        let first = middle_and_top(samples.iter().take(fifth).map(figure));
        let last = middle_and_top(samples.iter().rev().take(fifth).map(figure));
        println!("{name:<24} {first:>18} {last:>18}");
    }
}

fn middle_and_top(figures: impl Iterator<Item = f64>) -> String {
    let mut all: Vec<f64> = figures.collect();
    all.sort_unstable_by(f64::total_cmp);
    match (all.get(all.len() / 2), all.last()) {
        (Some(middle), Some(top)) => format!("{middle:.1} / {top:.1}"),
        _ => "-".into(),
    }
}

/// Prints the moment at which the disk was nearest to its bound, and tells whether it kept within it.
pub(crate) fn disk_kept_within_bound(samples: &[Sample]) -> bool {
    let over = |sample: &Sample| sample.disk_mib - sample.bound_mib();
    let Some(worst) = samples.iter().max_by(|a, b| over(a).total_cmp(&over(b))) else {
        return false;
    };
    let kept = over(worst) <= 2.0 * ROUNDED_UP_MIB;
    println!(
        "queue on disk at its nearest to 2 x live + 2 x {GENERATION_MIB} MiB: {:.1} MiB of {:.1} (live {:.1} MiB), \
         over it in {} of {} samples; with {ROUNDED_UP_MIB} MiB a generation for sled's whole segments: {}",
        worst.disk_mib,
        worst.bound_mib(),
        worst.live_mib,
        samples.iter().filter(|sample| over(sample) > 0.0).count(),
        samples.len(),
        if kept { "pass" } else { "FAIL" }
    );
    kept
}
