//! What the benches share: events, a plain file to compare with, figures; the daemon and requests to it.
#![allow(dead_code, reason = "each bench uses its part")]
pub(crate) mod daemon;
pub(crate) mod http;

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

/// Whatever went wrong.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Events in a group commit.
pub(crate) const GROUP: usize = 256;
/// Bytes of an event.
pub(crate) const EVENT_BYTES: usize = 1_024;

/// What one run took.
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) events: usize,
    pub(crate) took: Duration,
    pub(crate) commits: Vec<Duration>,
    pub(crate) written: u64,
}

impl Measured {
    pub(crate) fn per_second(&self) -> f64 {
        self.events as f64 / self.took.as_secs_f64()
    }

    pub(crate) fn print(&mut self) {
        self.commits.sort();
        let at = |share: f64| {
            let n = ((self.commits.len() as f64 * share) as usize).min(self.commits.len().saturating_sub(1));
            self.commits.get(n).copied().unwrap_or_default().as_secs_f64() * 1e3
        };
        let written = self.written as f64 / (self.events * EVENT_BYTES) as f64;
        println!(
            "{:<30} {:>9.0} ev/s   commit p50 {:.2} ms, p99 {:.2} ms   written per payload byte {:.2}",
            self.name,
            self.per_second(),
            at(0.5),
            at(0.99),
            written
        );
    }
}

/// The first number on the command line.
pub(crate) fn number_wanted(default: usize) -> usize {
    let numbers = std::env::args().skip(1);
    numbers
        .filter_map(|arg| arg.parse().ok())
        .next()
        .unwrap_or(default)
}

/// Bytes that this process has sent to the disk so far, as the kernel counts them.
pub(crate) fn written_so_far() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Memory of a process, by its id or as "self".
pub(crate) fn resident_mib(process: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .and_then(|l| l.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0.0);
    kib / 1024.0
}

/// Events as an app logs them: JSON with the same keys each time, and text in which a few words are common.
pub(crate) fn events(random: &mut fastrand::Rng) -> Vec<Vec<u8>> {
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

/// The limit: the same groups written to one file, with one fdatasync each.
pub(crate) fn plain_file(events: &[Vec<u8>], total: usize) -> Result<Measured, Box<dyn Error>> {
    let folder = tempfile::tempdir_in(".")?;
    let mut file = File::create(folder.path().join("plain"))?;
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
        name: "plain file + fdatasync".into(),
        events: total,
        took,
        commits,
        written,
    })
}
