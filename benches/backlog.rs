//! What a backlog costs: how long the daemon takes to accept again, its memory, and the disk before and after draining.
//!
//! `cargo bench --bench backlog [-- GIGABYTES...]`, by default 0 and 1 (the documented figures: 0 2 10). The backlog is made
//! of events of about 1 KB through the library, then the real binary is started on it, without an upstream.
mod common;

use common::daemon::{Daemon, disk_bytes, get};
use common::{GROUP, events};
use phosphod::batch::Limits;
use phosphod::ids::{Kind, Lane, ProjectId};
use phosphod::spool::{Entry, Settings, Spool};
use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn settings(path: &Path) -> Settings {
    Settings {
        path: path.to_owned(),
        max_bytes: u64::MAX,
        min_free_bytes: 0,
        on_full: phosphod::spool::OnFull::Reject,
        generation_bytes: 64 << 20,
        max_projects: 1_000,
        keep_room: Default::default(),
        dead_max_bytes: 1 << 30,
        dead_max_age: Duration::from_secs(86_400),
    }
}

async fn fill(path: &Path, lane: &Lane, events: &[Vec<u8>], bytes: u64) -> Result<usize, Box<dyn Error>> {
    let spool = Spool::open(settings(path))?;
    let mut n = 0;
    while spool.live_bytes() < bytes {
        let records = (n..n + 4 * GROUP).map(|n| events[n % events.len()].clone());
        let entries = records.map(|record| Entry::Queued {
            lane: lane.clone(),
            record,
        });
        spool.append(entries.collect()).await?;
        n += 4 * GROUP;
    }
    spool.close().await;
    Ok(n)
}

async fn drain(path: &Path, lane: &Lane) -> Result<f64, Box<dyn Error>> {
    let spool = Spool::open(settings(path))?;
    let limits = Limits {
        max_events: 500,
        max_bytes: 4 << 20,
        max_age: Duration::ZERO,
    };
    let began = Instant::now();
    while spool.ledger().queued > 0 {
        let leased = spool.lease(lane, &limits).await;
        spool.settle(lane, leased).await;
        // The account is that of the last commit, which comes within a few ms.
        if spool.lanes().borrow().iter().all(|view| view.queued() == 0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let took = began.elapsed().as_secs_f64();
    spool.close().await;
    Ok(took)
}

/// Time until the daemon accepts, and its memory then, in MiB.
fn start(path: &Path, port: u16) -> Result<(f64, f64), Box<dyn Error>> {
    let began = Instant::now();
    let child = Command::new(env!("CARGO_BIN_EXE_phosphod"))
        .args(["run", "--set", &format!("spool.path={}", path.display())])
        .args(["--set", &format!("intake.http=127.0.0.1:{port}")])
        .args(["--set", "upstream.project_id=bench", "--set", "log.level=warn"])
        .current_dir(path.parent().unwrap_or(path))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let daemon = Daemon(child);
    while !accepts(port) {
        if began.elapsed() > Duration::from_secs(60) {
            return Err("the daemon does not come up".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = began.elapsed().as_secs_f64() * 1e3;
    Ok((took, daemon.resident_mib()))
}

fn accepts(port: u16) -> bool {
    get(&format!("127.0.0.1:{port}"), "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let asked: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|arg| arg.parse().ok())
        .collect();
    let sizes = if asked.is_empty() { vec![0, 1] } else { asked };
    let events = events(&mut fastrand::Rng::with_seed(1));
    let lane = Lane {
        project: ProjectId::new("bench")?,
        kind: Kind::Log,
    };
    for gigabytes in sizes {
        let folder = tempfile::tempdir_in(".")?;
        let path = folder.path().join("data");
        let n = fill(&path, &lane, &events, gigabytes * 1_000_000_000).await?;
        let full = disk_bytes(&path.join("spool"))?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (first, _) = start(&path, port)?;
        let (again, rss) = start(&path, port)?;
        let took = drain(&path, &lane).await?;
        println!(
            "{gigabytes:>3} GB, {n:>9} events: accepts after {first:.0} and {again:.0} ms, RSS {rss:.0} MiB; \
             disk {:.0} MiB, after draining {:.0} MiB ({:.0} events/s)",
            full as f64 / f64::from(1 << 20),
            disk_bytes(&path.join("spool"))? as f64 / f64::from(1 << 20),
            n as f64 / took.max(1e-9)
        );
    }
    Ok(())
}
