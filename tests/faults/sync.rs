//! Syncs that fail: nothing of such a group commit is acknowledged, and the store works again by itself.

use crate::promises::Promises;
use crate::scale::{figure, rounds};
use crate::support::client::{self, batch};
use crate::support::daemon::{Daemon, Setup};
use crate::support::load::{Load, event};
use crate::support::skip::{missing, skip, tool};
use crate::support::upstream::Upstream;
use crate::support::{PATIENCE, eventually};
use serde_json::json;
use std::path::Path;

/// From the fifth on, every ninth fdatasync of each thread fails.
const FAILING: &str = "inject=fdatasync:error=EIO:when=5+9";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_is_never_acknowledged_and_passes() {
    const NAME: &str = "a_failed_sync_is_never_acknowledged_and_passes";
    if let Some(why) = missing(&[("strace", "strace")]) {
        return skip(NAME, &why);
    }
    let probe = tool("strace").args(["-o", "/dev/null", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        return skip(NAME, "strace may not trace here (ptrace is forbidden)");
    }
    let folder = tempfile::tempdir().expect("a temp folder");
    let trace = folder.path().join("trace");
    let upstream = Upstream::start().await;
    // Nothing is delivered while syncs fail, so that no settling syncs between an append and its answer.
    upstream.switch(json!({"down": true})).await;
    let setup = Setup::new(folder.path(), &upstream.url());
    let mut daemon = setup.clone().through(&tracer(&trace)).start().await;
    let mut promises = Promises::default();

    let (alone, refused) = one_by_one(&daemon, rounds(40, 400)).await;
    let acknowledged = alone.len();
    promises.add(vec![alone]);
    // The tracer may write a reply down a little after the client has it.
    let seen = eventually("a trace of all replies", || async {
        let seen = Seen::of(&std::fs::read_to_string(&trace).expect("a trace"));
        (seen.acknowledged == acknowledged).then_some(seen)
    })
    .await;
    assert_eq!(
        seen.false_acks, 0,
        "200s that no successful fdatasync stands before"
    );
    assert!(seen.failed > 0 && refused > 0, "the fault was met: {seen:?}");

    // The same under load, over some more failures.
    let goal = recoveries(&daemon) + rounds(4, 40);
    let load = Load::start(&daemon.url, "under", 4);
    eventually("storage that works again, several times", || async {
        (recoveries(&daemon) >= goal).then_some(())
    })
    .await;
    let loaded = load.refusals().requests;
    promises.add(load.stop().await);
    let recoveries = recoveries(&daemon);
    daemon.kill_hard();

    let daemon = setup.start().await;
    promises.are_accounted_for(&daemon, &upstream).await;
    upstream.switch(json!({"down": false})).await;
    daemon.drained().await;
    promises.are_kept(&upstream);
    figure(&format!(
        "sync fails: {recoveries} recoveries without a restart, {} requests refused, {} events acknowledged, \
         {} false acks, 0 lost",
        refused + loaded,
        promises.count(),
        seen.false_acks
    ));
    drop(daemon);
    upstream.finish().await;
}

fn tracer(trace: &Path) -> Vec<String> {
    // With -D the daemon is our own child, not the tracer's, so that it ends with the test.
    let words = "strace -D -f -y -qq -s 256 -e trace=pwrite64,fdatasync,write,writev,sendto -e";
    let mut words: Vec<String> = words.split(' ').map(str::to_owned).collect();
    words.extend([FAILING, "-o", trace.to_str().expect("a temp path is text")].map(str::to_owned));
    words
}

fn recoveries(daemon: &Daemon) -> usize {
    let again = |line: &&String| line.contains("storage works again");
    daemon.said().iter().filter(again).count()
}

/// Logs one event after the other, so that no group commit serves two of them, until so many were acknowledged. Gives
/// their ids, and how often it was refused.
async fn one_by_one(daemon: &Daemon, goal: usize) -> (Vec<String>, u64) {
    let http = reqwest::Client::new();
    let (mut taken, mut refused) = (Vec::new(), 0);
    let trying = async {
        for n in 0.. {
            if taken.len() == goal {
                break;
            }
            let id = format!("alone-{n}");
            let url = format!("{}/v2/log/load-0", daemon.url);
            let reply = client::post(&http, &url, batch(&[event(&id, 0).to_string()])).await;
            match reply.status {
                200 => taken.push(id),
                503 => {
                    refused += 1;
                    assert!(!reply.detail().is_empty());
                    accepting_again(daemon).await;
                }
                other => panic!("{other}: {reply:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, trying)
        .await
        .expect("it works again each time");
    (taken, refused)
}

async fn accepting_again(daemon: &Daemon) {
    let url = format!("{}/readyz", daemon.url);
    eventually("readiness", || async {
        let reply = reqwest::get(&url).await.expect("the daemon answers");
        reply.status().is_success().then_some(())
    })
    .await;
}

/// What a trace shows of the daemon.
#[derive(Debug, Default)]
struct Seen {
    /// Log requests answered with 200.
    acknowledged: usize,
    /// Of these, those with no successful fdatasync after what was written since the one before.
    false_acks: usize,
    /// Syncs that failed.
    failed: usize,
}

impl Seen {
    fn of(trace: &str) -> Self {
        let mut seen = Seen::default();
        let mut begun = std::collections::HashSet::new();
        let (mut written, mut safe) = (false, false);
        for line in trace.lines() {
            let Some((thread, call)) = line.split_once(' ') else {
                continue;
            };
            let call = call.trim_start();
            let of_ours = call.contains("/gen-") && call.contains("/db>");
            let sync = call.starts_with("fdatasync(") && of_ours;
            if call.starts_with("pwrite64(") && of_ours {
                (written, safe) = (true, false);
            } else if sync && call.contains("unfinished") {
                begun.insert(thread);
            } else if sync || (call.contains("fdatasync resumed") && begun.remove(thread)) {
                safe = written && call.ends_with("= 0");
                seen.failed += usize::from(call.contains("EIO"));
            } else if call.contains("\"HTTP/1.1 200 OK") && call.contains("logged_events") {
                seen.acknowledged += 1;
                seen.false_acks += usize::from(!safe);
                (written, safe) = (false, false);
            }
        }
        seen
    }
}
