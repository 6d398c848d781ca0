//! kill -9 at named points: right before a system call of creating, sealing or deleting a generation, or of a commit.

use crate::promises::Promises;
use crate::scale::figure;
use crate::support::daemon::{Daemon, Setup};
use crate::support::eventually;
use crate::support::load::{Load, Shape};
use crate::support::skip::{missing, skip, tool};
use crate::support::upstream::Upstream;

/// Enough that a generation of 1 MiB is full after a few requests.
const FILLER: usize = 20_000;

/// System calls, and before which of them (counted by each thread) the daemon is killed. Making a generation is a `mkdir`, the
/// first commit (`fdatasync`), and an `fsync` of each file, of its folder and of the row's; deleting one is an
/// `unlink` of its mark, then `unlinkat`s of the rest, then an `fsync` of the row's.
const POINTS: [(&str, &[u32]); 5] = [
    ("mkdir", &[1, 3, 4]),
    ("fdatasync", &[1, 2, 25]),
    ("fsync", &[1, 3, 6, 9, 10, 14, 15]),
    ("unlink", &[1, 2]),
    ("unlinkat", &[1, 2, 3, 4, 5, 8]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_step_of_creating_sealing_or_deleting_loses_nothing() {
    const NAME: &str = "a_kill_at_any_step_of_creating_sealing_or_deleting_loses_nothing";
    if let Some(why) = missing(&[("strace", "strace")]) {
        return skip(NAME, &why);
    }
    let probe = tool("strace").args(["-o", "/dev/null", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        return skip(NAME, "strace may not trace here (ptrace is forbidden)");
    }
    let folder = tempfile::tempdir().expect("a temp folder");
    let upstream = Upstream::start().await;
    let setup = Setup::new(folder.path(), &upstream.url()).with("spool.generation_bytes", "1 MiB");
    let mut promises = Promises::with_filler(FILLER);
    let mut killed = 0;
    for (call, counts) in POINTS {
        for count in counts {
            let prefix = format!("{call}{count}");
            promises.add(run_until_killed(&setup, call, *count, &prefix).await);
            killed += 1;
            // Not drained: the next one starts on a backlog.
            let mut daemon = setup.start().await;
            promises.are_accounted_for(&daemon, &upstream).await;
            daemon.kill_hard();
        }
    }
    let daemon = setup.start().await;
    daemon.drained().await;
    promises.are_kept(&upstream);
    figure(&format!(
        "kill at named points: {killed} points, {} acknowledged, 0 lost, 0 out of order",
        promises.count()
    ));
    drop(daemon);
    upstream.finish().await;
}

/// Loads a daemon that is killed right before the given system call. Gives what was promised until then.
async fn run_until_killed(setup: &Setup, call: &str, count: u32, prefix: &str) -> Vec<Vec<String>> {
    let trace = format!("trace={call}");
    let inject = format!("inject={call}:signal=SIGKILL:when={count}");
    // With -D the daemon is our own child, not the tracer's.
    let tracer = [
        "strace",
        "-D",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        &trace,
        "-e",
        &inject,
    ];
    let mut daemon = Daemon::spawn(setup.clone().through(&tracer).command());
    let accepts = |daemon: &Daemon| {
        daemon
            .said()
            .iter()
            .any(|line| line.contains(r#""message":"accepting""#))
    };
    let up = {
        let daemon = std::cell::RefCell::new(&mut daemon);
        eventually("a daemon that accepts or is dead", || async {
            let mut daemon = daemon.borrow_mut();
            let ended = daemon.has_ended().is_some();
            (ended || accepts(&daemon)).then_some(!ended)
        })
        .await
    };
    if !up {
        let ended = daemon.exited().await;
        assert_eq!(
            ended.signal(),
            Some(9),
            "it was not killed, it ended by itself: {:?}",
            daemon.said()
        );
        return Vec::new();
    }
    let mut daemon = daemon.accepting().await;
    let shape = Shape {
        project: "load",
        clients: 2,
        events: 3,
        filler: FILLER,
    };
    let load = Load::shaped(&daemon.url, prefix, shape);
    let status = daemon.exited().await;
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(
        status.signal(),
        Some(9),
        "killed at {call} {count}:\n{}",
        daemon.said().join("\n")
    );
    load.stop().await
}
