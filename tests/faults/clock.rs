//! The wall clock jumps by a year, both ways, while the daemon runs and over a restart.

use crate::promises::Promises;
use crate::scale::{figure, rounds};
use crate::support::client::{self, batch};
use crate::support::daemon::{Daemon, Setup};
use crate::support::load::Load;
use crate::support::skip::skip;
use crate::support::upstream::Upstream;
use crate::support::{dead_letters, eventually};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A wall clock for one daemon, moved by writing to a file. Other clocks stay as they are.
struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// One that goes right, kept in `folder`; `None` without libfaketime.
    fn right(folder: &Path) -> Option<Self> {
        let library = std::fs::read_dir("/usr/lib")
            .ok()?
            .filter_map(Result::ok)
            .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"))
            .find(|path| path.exists())?;
        let this = Self {
            library,
            file: folder.join("clock"),
        };
        this.jump("+0");
        Some(this)
    }

    /// Moves it to so far from the real time, such as `-1y`.
    fn jump(&self, offset: &str) {
        let draft = self.file.with_extension("new");
        std::fs::write(&draft, format!("{offset}\n")).expect("a file");
        std::fs::rename(&draft, &self.file).expect("renamed");
    }

    /// A daemon that goes by it.
    fn given_to(&self, setup: Setup) -> Setup {
        let text = |path: &Path| path.to_str().expect("text").to_owned();
        setup
            .env("LD_PRELOAD", &text(&self.library))
            .env("FAKETIME_TIMESTAMP_FILE", &text(&self.file))
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    }
}

/// The day that a task was stamped with, since 1970.
fn stamped(upstream: &Upstream, task: &str) -> i64 {
    let at = upstream.event(task)["client_created_at"].clone();
    at.as_i64().unwrap_or_else(|| panic!("a stamp in seconds: {at}")) / (24 * 3_600)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jumps_of_a_year_stall_nothing_and_keep_the_order() {
    const NAME: &str = "jumps_of_a_year_stall_nothing_and_keep_the_order";
    let folder = tempfile::tempdir().expect("a temp folder");
    let Some(clock) = Clock::right(folder.path()) else {
        return skip(NAME, "libfaketime is not installed (Debian package faketime)");
    };
    let upstream = Upstream::start().await;
    let setup = clock.given_to(Setup::new(folder.path(), &upstream.url()));
    let mut daemon = setup.start().await;
    let mut promises = Promises::default();
    // Its task comes after all the jumps: it must wait for it on a clock that does not jump.
    let early = r#"{"task_id":"jumps-over","flag":"success"}"#;
    assert_eq!(post(&daemon, "/feedback", early).await, 200);

    let offsets = ["+1y", "-1y", "+0"].repeat(rounds(2, 20));
    let jumps = offsets.len();
    for (n, offset) in offsets.into_iter().enumerate() {
        let load = Load::start(&daemon.url, &format!("j{n}"), 3);
        goes_on(&load).await;
        clock.jump(offset);
        goes_on(&load).await;
        let stored = upstream.state().stored;
        upstream.stored(stored + 100).await;
        if n % 2 == 1 {
            // Over a restart, with a backlog from before the jump.
            upstream.switch(json!({"down": true})).await;
            goes_on(&load).await;
            daemon.kill_hard();
            clock.jump("-2y");
            daemon = setup.start().await;
            upstream.switch(json!({"down": false})).await;
        }
        promises.add(load.stop().await);
    }
    clock.jump("+1y");
    let event = json!({"input": "x", "task_id": "ahead", "project_id": "other"}).to_string();
    assert_eq!(post(&daemon, "/log", &event).await, 200);
    clock.jump("-1y");
    assert_eq!(
        post(&daemon, "/log", &event.replace("ahead", "behind")).await,
        200
    );
    let event = r#"{"input":"x","task_id":"jumps-over"}"#;
    assert_eq!(post(&daemon, "/log", event).await, 200);
    upstream.evaluated(1).await;
    let counts = daemon.drained().await;
    promises.are_kept(&upstream);
    assert_eq!(counts.dead, 0, "nothing grew old by a jump");
    let apart = stamped(&upstream, "ahead") - stamped(&upstream, "behind");
    assert!(apart > 700, "the daemon saw the jumps: {apart} days");
    figure(&format!(
        "wall clock: {jumps} jumps of a year and {} over a restart, 0 stalls, {} acknowledged, 0 lost, 0 out of order",
        jumps / 2,
        promises.count()
    ));
    drop(daemon);
    upstream.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jump_of_a_year_makes_no_dead_letter_old() {
    const NAME: &str = "a_jump_of_a_year_makes_no_dead_letter_old";
    let folder = tempfile::tempdir().expect("a temp folder");
    let Some(clock) = Clock::right(folder.path()) else {
        return skip(NAME, "libfaketime is not installed (Debian package faketime)");
    };
    let upstream = Upstream::start().await;
    // Kept for 30 days, by default.
    let setup = clock.given_to(Setup::new(folder.path(), &upstream.url()));
    let mut daemon = setup.start().await;
    refuse_one(&daemon, 1).await;
    let mut refused = 1;
    for offset in ["+1y", "-1y", "+0"] {
        clock.jump(offset);
        refused += 1;
        refuse_one(&daemon, refused).await;
        // Looked through at once after a start.
        daemon.kill_hard();
        daemon = setup.start().await;
        refused += 1;
        refuse_one(&daemon, refused).await;
    }
    assert_eq!(daemon.ledger().await.dead, refused as u64);
    figure(&format!(
        "wall clock: 3 jumps of a year, each over a restart too: {refused} dead letters, 0 evicted"
    ));
    drop(daemon);
    upstream.finish().await;
}

/// Logs what can only become a dead letter, after which so many must be there.
async fn refuse_one(daemon: &Daemon, so_many: usize) {
    let http = reqwest::Client::new();
    let url = format!("{}/v2/log/p", daemon.url);
    let reply = client::post(&http, &url, batch(&[r#"{"no":"input"}"#])).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let kept: Vec<Value> = dead_letters(daemon).await;
    assert_eq!(kept.len(), so_many, "none was dropped for its age");
}

async fn post(daemon: &Daemon, path: &str, body: &str) -> u16 {
    let url = format!("{}{path}", daemon.url);
    client::post(&reqwest::Client::new(), &url, body.to_owned())
        .await
        .status
}

/// Some more of the load is acknowledged.
async fn goes_on(load: &Load) {
    let before = load.count();
    eventually("acknowledgements", || async {
        (load.count() >= before + 60).then_some(())
    })
    .await;
}
