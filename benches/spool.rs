//! The spool beside a plain file with one fdatasync a group, in the same run: what durability costs here, and
//! how much of it is ours (goals in docs/design.md).
//!
//! `cargo bench --bench spool [-- EVENTS]`: events of about 1 KB, groups of up to 256, synced before they count.
mod common;

use common::{GROUP, Measured, events, plain_file, resident_mib, written_so_far};
use phosphod::batch::Limits;
use phosphod::ids::{Kind, Lane, ProjectId};
use phosphod::spool::{Entry, Settings, Spool};
use std::error::Error;
use std::time::{Duration, Instant};

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
        name: "spool, append".into(),
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
        name: "spool, lease and settle".into(),
        events: total,
        took,
        commits,
        written,
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let total = common::number_wanted(500_000);
    let events = events(&mut fastrand::Rng::with_seed(1));
    let folder = tempfile::tempdir_in(".")?;
    let settings = Settings {
        path: folder.path().join("data"),
        max_bytes: u64::MAX,
        on_full: phosphod::spool::OnFull::default(),
        min_free_bytes: 0,
        generation_bytes: 64 << 20,
        max_projects: 1_000,
        keep_room: Default::default(),
        dead_max_bytes: 1 << 30,
        dead_max_age: Duration::from_secs(86_400),
    };
    let mut plain = plain_file(&events, total)?;
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
        resident_mib("self")
    );
    drain(&spool, &lane, total).await?.print();
    println!("{:<28} {:>9.0} MiB", "RSS", resident_mib("self"));
    spool.close().await;
    Ok(())
}
