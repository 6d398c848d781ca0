//! Power-safe by construction: every acknowledgement comes after its event was written and fdatasynced.

use crate::support::client::{self, batch};
use crate::support::daemon::{Daemon, Setup};
use crate::support::eventually;
use crate::support::skip::skip;
use std::process::Command;

/// One system call of a trace that matters here.
#[derive(Debug, PartialEq, Clone, Copy)]
enum Call {
    /// Something was written to a queue file.
    Write,
    /// fdatasync of a queue file.
    Sync,
    /// A 200 to a client.
    Acknowledged,
}

#[tokio::test]
async fn each_acknowledgement_follows_an_fdatasync_of_its_own() {
    const NAME: &str = "each_acknowledgement_follows_an_fdatasync_of_its_own";
    let Ok(probe) = Command::new("strace").args(["-o", "/dev/null", "true"]).output() else {
        return skip(NAME, "strace is not installed (Debian package strace)");
    };
    if !probe.status.success() {
        return skip(NAME, "strace may not trace here (ptrace is forbidden)");
    }
    let folder = tempfile::tempdir().expect("a temp folder");
    // Nothing is ever delivered, so that no settling writes between an append and its acknowledgement.
    let setup = Setup::new(folder.path(), "http://127.0.0.1:9");
    let trace = folder.path().join("trace");
    let original = setup.command();
    let mut command = Command::new("strace");
    command
        .args([
            // The daemon is our own child, not the tracer's, so that it ends with the test.
            "-D",
            "-f",
            "-y",
            "-qq",
            "-s",
            "64",
            "-e",
            "trace=pwrite64,fdatasync,write,writev,sendto",
            "-o",
        ])
        .arg(&trace);
    command.arg(original.get_program()).args(original.get_args());
    command
        .env_clear()
        .envs(crate::support::daemon::environment(&original))
        .env("PATH", "/usr/bin:/bin")
        .stderr(std::process::Stdio::piped());
    let daemon = Daemon::spawn(command).accepting().await;

    // One after the other, so that no group commit serves two of them.
    const REQUESTS: usize = 20;
    let http = reqwest::Client::new();
    for n in 0..REQUESTS {
        let event = format!(r#"{{"input":"x","task_id":"s{n}"}}"#);
        let reply = client::post(&http, &format!("{}/v2/log/p", daemon.url), batch(&[event])).await;
        assert_eq!(reply.status, 200);
    }
    // The tracer may write a reply down a little after the client has it.
    let calls = eventually("a trace of all replies", || async {
        let calls = calls(&std::fs::read_to_string(&trace).expect("a trace"));
        let acknowledged = calls.iter().filter(|call| **call == Call::Acknowledged).count();
        (acknowledged == REQUESTS).then_some(calls)
    })
    .await;
    drop(daemon);
    let (mut written, mut safe) = (false, false);
    for (place, call) in calls.iter().enumerate() {
        match call {
            Call::Write => (written, safe) = (true, false),
            Call::Sync => safe = written,
            Call::Acknowledged => {
                assert!(
                    safe,
                    "call {place} is a 200 for what was not written and synced since the last one: {calls:?}"
                );
                (written, safe) = (false, false);
            }
        }
    }
}

/// Writes and finished syncs of a generation's `db`, and replies, in order.
fn calls(trace: &str) -> Vec<Call> {
    let mut begun = std::collections::HashSet::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let rest = rest.trim_start();
        if rest.starts_with("pwrite64(") && rest.contains("/gen-") && rest.contains("/db>") {
            calls.push(Call::Write);
        } else if rest.starts_with("fdatasync(") && rest.contains("/gen-") && rest.contains("/db>") {
            if rest.contains("unfinished") {
                begun.insert(thread.to_owned());
            } else if rest.ends_with("= 0") {
                calls.push(Call::Sync);
            }
        } else if rest.contains("fdatasync resumed") && begun.remove(thread) && rest.ends_with("= 0") {
            calls.push(Call::Sync);
        } else if rest.contains("\"HTTP/1.1 200 OK") {
            calls.push(Call::Acknowledged);
        }
    }
    calls
}
