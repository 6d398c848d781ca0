//! The process among others: a log that nobody reads, signals at any moment, limits that come as
//! signals.

use crate::support::client::{self, batch};
use crate::support::daemon::{Daemon, Setup};
use crate::support::{PATIENCE, Pair, eventually};
use rustix::process::Signal;
use serde_json::json;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const NOWHERE: &str = "http://127.0.0.1:9";

/// A pipe in which there is no room any more.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let (sender, filled) = std::sync::mpsc::channel();
    let mut into = writer.try_clone().expect("a second handle");
    rustix::io::ioctl_fionbio(&into, true).expect("a pipe that does not block");
    std::thread::spawn(move || {
        while into.write(b" ").is_ok() {}
        let _ = sender.send(());
    });
    filled.recv().expect("it is full");
    rustix::io::ioctl_fionbio(&writer, false).expect("a pipe that blocks");
    writer.flush().expect("nothing to do");
    (reader, writer)
}

/// A child that is killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Killed {
    fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).expect("our child can be signalled");
    }

    async fn exit_code(&mut self) -> Option<i32> {
        let child = std::cell::RefCell::new(&mut self.0);
        let status = eventually("the end", || async {
            child.borrow_mut().try_wait().expect("it can be waited for")
        });
        status.await.code()
    }
}

/// Waits until a process has a handler for a signal.
async fn handles(pid: u32, signal: Signal) {
    let bit = 1_u64 << (signal.as_raw() - 1);
    eventually("a handler", || async {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
        (caught & bit != 0).then_some(())
    })
    .await;
}

/// The value of a metric, over the Unix socket.
async fn metric(unix: &reqwest::Client, name: &str) -> u64 {
    let reply = client::send(unix.get("http://localhost/metrics")).await;
    let page = String::from_utf8(reply.body).expect("text");
    let value = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {page}"))
}

/// A daemon whose standard error is full from the beginning, once it answers.
async fn mute(at: &Path) -> (Killed, PipeReader, reqwest::Client) {
    let (reader, writer) = full_pipe();
    // Each project without a key is a line.
    let setup = Setup::new(at, NOWHERE).without("upstream.api_key");
    let mut command = setup.command();
    let child = Killed(command.stderr(writer).spawn().expect("the binary starts"));
    drop(command);
    let unix = client::unix(&at.join("s.sock"));
    eventually("an answer", || async {
        let asked = unix.get("http://localhost/healthz").send().await.ok()?;
        asked.status().is_success().then_some(())
    })
    .await;
    (child, reader, unix)
}

async fn many_lines(unix: &reqwest::Client) {
    for part in 0..6 {
        let events: Vec<String> = (0..1_000)
            .map(|n| json!({"input": "x", "project_id": format!("p{part}-{n}")}).to_string())
            .collect();
        let posting = client::post(unix, "http://localhost/log", batch(&events));
        let reply = tokio::time::timeout(PATIENCE, posting).await.expect("an answer");
        assert_eq!(reply.status, 200, "{reply:?}");
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_nobody_up() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let (mut child, mut reader, unix) = mute(folder.path()).await;
    many_lines(&unix).await;
    eventually("lines that found no room", || async {
        (metric(&unix, "phosphod_log_lines_dropped_total").await > 0).then_some(())
    })
    .await;
    let health = client::send(unix.get("http://localhost/healthz")).await;
    assert_eq!(health.status, 200);

    // The reader wakes up: it is told what it missed.
    let (sender, mut heard) = tokio::sync::watch::channel(String::new());
    let listening = std::thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok(length @ 1..) = reader.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            sender.send_modify(|heard| heard.push_str(text.trim_start()));
        }
    });
    let told = heard.wait_for(|heard| heard.contains("lines of this log were dropped"));
    tokio::time::timeout(PATIENCE, told)
        .await
        .expect("it is told")
        .expect("the pipe is open");
    child.signal(Signal::TERM);
    assert_eq!(child.exit_code().await, Some(0));
    listening.join().expect("the reader ends with the pipe");
    let heard = heard.borrow();
    for message in ["\"accepting\"", "\"stopping\"", "\"stopped\""] {
        assert!(
            heard.contains(message),
            "{message}: the first and the last lines are there"
        );
    }
}

#[tokio::test]
async fn sigterm_ends_a_daemon_whose_log_nobody_reads() {
    for many in [false, true] {
        let folder = tempfile::tempdir().expect("a temp folder");
        let (mut child, reader, unix) = mute(folder.path()).await;
        if many {
            many_lines(&unix).await;
        }
        child.signal(Signal::TERM);
        assert_eq!(child.exit_code().await, Some(0));
        drop(reader);
    }
}

#[tokio::test]
async fn mistakes_that_nobody_reads_do_not_keep_it_from_ending() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let (_reader, writer) = full_pipe();
    let mut command = Setup::new(folder.path(), NOWHERE).with("no.key", "1").command();
    // Both ways out are the same pipe, as behind `2>&1 |`.
    let out = writer.try_clone().expect("a second handle");
    let mut child = Killed(
        command
            .stdout(out)
            .stderr(writer)
            .spawn()
            .expect("the binary starts"),
    );
    assert_eq!(child.exit_code().await, Some(78));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once_and_loses_nothing() {
    for (first, second, code) in [
        (Signal::TERM, Signal::TERM, 143),
        (Signal::INT, Signal::INT, 130),
        (Signal::TERM, Signal::INT, 130),
    ] {
        let mut pair = Pair::start_in_flight().await;
        pair.daemon.signal(first);
        pair.daemon.logged("stopping").await;
        assert!(
            pair.daemon.has_ended().is_none(),
            "the attempt in flight holds it up"
        );
        // In the first moment it is taken for the same wish as the first.
        let daemon = std::cell::RefCell::new(&mut pair.daemon);
        let status = eventually("an end at once", || async {
            daemon.borrow().signal(second);
            daemon.borrow_mut().has_ended()
        })
        .await;
        assert_eq!(status.code(), Some(code));
        pair.upstream.switch(json!({"delay_ms": 0})).await;
        pair.daemon = pair.setup.start().await;
        let counts = pair.daemon.drained().await;
        assert_eq!((counts.accepted, counts.delivered), (1, 1));
    }
}

#[tokio::test]
async fn two_signals_at_the_same_moment_are_one_wish() {
    // `timeout` sends each signal twice.
    let folder = tempfile::tempdir().expect("a temp folder");
    let mut daemon = Setup::new(folder.path(), NOWHERE).start().await;
    daemon.signal(Signal::TERM);
    daemon.signal(Signal::INT);
    assert_eq!(daemon.exited().await.code(), Some(0));
    assert!(daemon.said().iter().any(|line| line.contains("\"stopped\"")));
}

#[tokio::test]
async fn a_limit_on_cpu_time_ends_it_in_order() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let mut daemon = Setup::new(folder.path(), NOWHERE).start().await;
    daemon.signal(Signal::XCPU);
    assert_eq!(daemon.logged("stopping").await["signal"], "SIGXCPU");
    assert_eq!(daemon.exited().await.code(), Some(0));
}

#[tokio::test]
async fn signals_are_heard_before_the_configuration_is_read() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let pipe = folder.path().join("config.toml");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    // Nobody writes into the pipe: it waits in its start.
    let start = || {
        let mut command = Setup::new(folder.path(), NOWHERE).command();
        let child = command.stderr(Stdio::null()).spawn().expect("the binary starts");
        Killed(child)
    };
    let mut stopped = start();
    handles(stopped.0.id(), Signal::TERM).await;
    stopped.signal(Signal::HUP);
    stopped.signal(Signal::TERM);
    assert_eq!(stopped.exit_code().await, Some(0));

    let mut command = Setup::new(folder.path(), NOWHERE).command();
    command.arg("--config").arg(&pipe);
    let mut daemon = Daemon::spawn(command);
    handles(daemon.pid(), Signal::HUP).await;
    daemon.signal(Signal::HUP);
    assert!(daemon.has_ended().is_none());
    let writing = std::thread::spawn(move || std::fs::write(pipe, "[batch]\nmax_events = 7\n"));
    let daemon = daemon.accepting().await;
    writing.join().expect("no panic").expect("written");
    assert!(daemon.terminate().await.success());
}

#[tokio::test]
async fn many_sighups_keep_no_sigterm_waiting() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let mut daemon = Setup::new(folder.path(), NOWHERE).start().await;
    for _ in 0..5_000 {
        daemon.signal(Signal::HUP);
    }
    daemon.signal(Signal::TERM);
    let mut more = 0;
    while daemon.has_ended().is_none() && more < 1_000_000 {
        daemon.signal(Signal::HUP);
        more += 1;
    }
    assert!(daemon.exited().await.success(), "after {more} more");
}

/// A daemon under `ulimit`, with these options.
fn limited(at: &Path, upstream: &str, options: &str) -> Setup {
    let script = format!("ulimit -c 0; ulimit {options} && exec \"$0\" \"$@\"");
    Setup::new(at, upstream).through(&["bash", "-c", &script])
}

/// Text that cannot be packed.
fn noise(bytes: usize) -> String {
    std::iter::repeat_with(fastrand::alphanumeric)
        .take(bytes)
        .collect()
}

#[tokio::test]
async fn a_limit_on_file_sizes_is_lived_with() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let setup = limited(folder.path(), NOWHERE, "-f 32768").with("spool.generation_bytes", "1 GiB");
    let daemon = setup.start().await;
    let http = reqwest::Client::new();
    let events: Vec<String> = (0..700)
        .map(|_| json!({"input": noise(3_000)}).to_string())
        .collect();
    let body = batch(&events);
    for _ in 0..25 {
        let reply = client::post(&http, &format!("{}/v2/log/p", daemon.url), body.clone()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    assert!(daemon.terminate().await.success());
    let daemon = setup.start().await;
    assert_eq!(daemon.ledger().await.queued, 25 * 700);
    assert!(daemon.terminate().await.success());
}

#[tokio::test]
async fn what_no_file_may_hold_is_refused_with_the_reason_and_all_else_goes_on() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let setup = limited(folder.path(), NOWHERE, "-f 16384");
    let daemon = setup.start().await;
    let http = reqwest::Client::new();
    let at = format!("{}/v2/log/p", daemon.url);
    let large = json!({"input": noise((16 << 20) - 4096)}).to_string();
    let small = batch(&[json!({"input": "x"}).to_string()]);
    let mut taken = 0;
    let take = async |body: &str| client::post(&http, &at, body.to_owned()).await;
    assert_eq!(take(&small).await.status, 200);
    taken += 1;
    let reply = take(&batch(&[large])).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    let why = reply.detail();
    assert!(why.contains("LimitFSIZE") && why.contains("ulimit -f"), "{why}");
    eventually("room for what is small", || async {
        (take(&small).await.status == 200).then_some(())
    })
    .await;
    taken += 1;
    let counts = daemon.ledger().await;
    assert_eq!((counts.accepted, counts.queued), (taken, taken));
    assert!(daemon.terminate().await.success());
    let daemon = setup.start().await;
    assert_eq!(daemon.ledger().await.queued, taken);
}

#[tokio::test]
async fn a_limit_that_leaves_no_room_is_a_sentence_at_the_start() {
    let folder = tempfile::tempdir().expect("a temp folder");
    for (options, parts) in [
        ("-f 1024", ["limit on file sizes is 1048576 bytes", "LimitFSIZE"]),
        ("-f 0", ["limit on file sizes is 0 bytes", "LimitFSIZE"]),
        ("-n 16", ["limit on open files is 16", "LimitNOFILE"]),
        (
            "-v 100000",
            ["limit on address space is 102400000 bytes", "LimitAS"],
        ),
    ] {
        let (code, said) = limited(folder.path(), NOWHERE, options).fails().await;
        assert_eq!(code, Some(1), "{said}");
        for part in parts {
            assert!(said.contains(part), "{part:?} is not in {said:?}");
        }
    }
}
