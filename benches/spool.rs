//! The spool beside a plain file with one fdatasync a group, in the same run: what durability costs here, and
//! how much of it is ours (goals in docs/design.md).
//!
//! `cargo bench --bench spool [-- EVENTS]`: events of about 1 KB, groups of up to 256, synced before they count.
use phosphod::batch::Limits;
use phosphod::ids::{Kind, Lane, ProjectId};
use phosphod::spool::{Entry, Settings, Spool};
use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

const GROUP: usize = 256;
const EVENT_BYTES: usize = 1_024;

/// What one run took.
struct Measured {
    name: &'static str,
    events: usize,
    took: Duration,
    commits: Vec<Duration>,
    written: u64,
}

impl Measured {
    fn per_second(&self) -> f64 {
        self.events as f64 / self.took.as_secs_f64()
    }

    fn print(&mut self) {
        self.commits.sort();
        let at = |share: f64| {
            let n = ((self.commits.len() as f64 * share) as usize).min(self.commits.len().saturating_sub(1));
            self.commits.get(n).copied().unwrap_or_default().as_secs_f64() * 1e3
        };
        let written = self.written as f64 / (self.events * EVENT_BYTES) as f64;
        println!(
            "{:<28} {:>9.0} ev/s   commit p50 {:.2} ms, p99 {:.2} ms   written per payload byte {:.2}",
            self.name,
            self.per_second(),
            at(0.5),
            at(0.99),
            written
        );
    }
}

/// Bytes that this process has sent to the disk so far, as the kernel counts them.
fn written_so_far() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Events as an app logs them: JSON with the same keys each time, and text in which a few words are common.
fn events(random: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let words: Vec<String> = (0..4_000)
        .map(|_| (0..random.usize(2..10)).map(|_| random.lowercase()).collect())
        .collect();
    let text = |random: &mut fastrand::Rng, len: usize| {
        let mut text = String::new();
        while text.len() < len {
            let rare = random.f64().powi(4) * words.len() as f64;
            text.push_str(&words[rare as usize]);
            text.push(' ');
        }
        text.truncate(len);
        text
    };
    let mut event = |n: usize| {
        let mut event = format!(
            r#"{{"client_created_at":17000{n:05},"project_id":"bench","session_id":"session-{:04}","task_id":"{:016x}{:016x}","user_id":"user-{:03}","metadata":{{"model":"a-model","environment":"production"}},"input":"{}","output":""#,
            n / 8,
            random.u64(..),
            random.u64(..),
            n % 300,
            text(random, 200),
        );
        event.push_str(&text(random, EVENT_BYTES - 2 - event.len()));
        event.push_str("\"}");
        event.into_bytes()
    };
    (0..GROUP * 64).map(&mut event).collect()
}

fn plain_file(folder: &Path, events: &[Vec<u8>], total: usize) -> Result<Measured, Box<dyn Error>> {
    let mut file = File::create(folder.join("plain"))?;
    let (before, start) = (written_so_far(), Instant::now());
    let mut commits = Vec::new();
    for group in (0..total).step_by(GROUP) {
        let began = Instant::now();
        let mut buffer = Vec::with_capacity(GROUP * (EVENT_BYTES + 4));
        for n in group..(group + GROUP).min(total) {
            let event = events[n % events.len()].clone();
            buffer.extend((event.len() as u32).to_be_bytes());
            buffer.extend(event);
        }
        file.write_all(&buffer)?;
        file.sync_data()?;
        commits.push(began.elapsed());
    }
    let (took, written) = (start.elapsed(), written_so_far() - before);
    Ok(Measured {
        name: "plain file + fdatasync",
        events: total,
        took,
        commits,
        written,
    })
}

/// Two callers, so that one group gathers while the other is being synced, as under load.
async fn appends(
    spool: &Spool,
    lane: &Lane,
    events: &[Vec<u8>],
    total: usize,
) -> Result<Measured, Box<dyn Error>> {
    let (before, start) = (written_so_far(), Instant::now());
    let caller = async |first: usize| {
        let mut commits = Vec::new();
        for group in (first * GROUP..total).step_by(2 * GROUP) {
            let records = (group..(group + GROUP).min(total)).map(|n| events[n % events.len()].clone());
            let entries = records
                .map(|record| Entry::Queued {
                    lane: lane.clone(),
                    record,
                })
                .collect();
            let began = Instant::now();
            spool.append(entries).await?;
            commits.push(began.elapsed());
        }
        Ok::<_, phosphod::spool::AppendError>(commits)
    };
    let (one, two) = tokio::join!(caller(0), caller(1));
    let commits = [one?, two?].concat();
    let (took, written) = (start.elapsed(), written_so_far() - before);
    Ok(Measured {
        name: "spool, append",
        events: total,
        took,
        commits,
        written,
    })
}

async fn drain(spool: &Spool, lane: &Lane, total: usize) -> Result<Measured, Box<dyn Error>> {
    let limits = Limits {
        max_events: 500,
        max_bytes: 4 << 20,
        max_age: Duration::ZERO,
    };
    let (before, start) = (written_so_far(), Instant::now());
    let (mut commits, mut drained) = (Vec::new(), 0);
    while drained < total {
        let began = Instant::now();
        let leased = spool.lease(lane, &limits).await;
        if leased.is_empty() {
            return Err(format!("{drained} of {total} events came back").into());
        }
        drained += leased.len();
        spool.settle(lane, leased).await;
        commits.push(began.elapsed());
    }
    let (took, written) = (start.elapsed(), written_so_far() - before);
    Ok(Measured {
        name: "spool, lease and settle",
        events: total,
        took,
        commits,
        written,
    })
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .and_then(|l| l.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0.0);
    kib / 1024.0
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let total = std::env::args()
        .skip(1)
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(500_000);
    let events = events(&mut fastrand::Rng::with_seed(1));
    let folder = tempfile::tempdir_in(".")?;
    let settings = Settings {
        path: folder.path().join("data"),
        max_bytes: u64::MAX,
        on_full: phosphod::spool::OnFull::default(),
        min_free_bytes: 0,
        generation_bytes: 64 << 20,
        dead_max_bytes: 1 << 30,
        dead_max_age: Duration::from_secs(86_400),
    };
    let mut plain = plain_file(folder.path(), &events, total)?;
    plain.print();
    let lane = Lane {
        project: ProjectId::new("bench")?,
        kind: Kind::Log,
    };
    let spool = Spool::open(settings.clone())?;
    let mut appended = appends(&spool, &lane, &events, total).await?;
    appended.print();
    println!(
        "{:<28} {:>9.2}",
        "ratio to the plain file",
        appended.per_second() / plain.per_second()
    );
    spool.close().await;
    let began = Instant::now();
    let spool = Spool::open(settings)?;
    println!(
        "{:<28} {:>9.1} ms, RSS {:.0} MiB",
        "opening the backlog",
        began.elapsed().as_secs_f64() * 1e3,
        resident_mib()
    );
    drain(&spool, &lane, total).await?.print();
    println!("{:<28} {:>9.0} MiB", "RSS", resident_mib());
    spool.close().await;
    Ok(())
}
