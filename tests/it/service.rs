//! The daemon as a service: signals, systemd's notifications and sockets, its unit files.

use crate::support::client::batch;
use crate::support::daemon::{Daemon, Setup};
use crate::support::skip::skip;
use crate::support::{Pair, client, eventually};
use serde_json::json;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

#[tokio::test]
async fn sigterm_ends_with_the_backlog_on_disk_and_the_next_start_goes_on() {
    let mut pair = Pair::start().await;
    pair.upstream.switch(json!({"down": true})).await;
    let events: Vec<String> = (0..500)
        .map(|n| json!({"input": "x", "task_id": format!("t{n}")}).to_string())
        .collect();
    assert_eq!(pair.post("/v2/log/p", batch(&events)).await.status, 200);
    pair.daemon.signal(rustix::process::Signal::TERM);
    assert!(pair.daemon.exited().await.success());
    assert!(!pair.daemon.unix.exists(), "its socket is gone");

    pair.daemon = pair.setup.start().await;
    assert_eq!(pair.daemon.ledger().await.queued, 500);
    pair.upstream.switch(json!({"down": false})).await;
    pair.upstream.stored(500).await;
    assert_eq!(pair.finish().await.delivered, 500);
}

#[tokio::test]
async fn its_socket_is_gone_before_its_lock_is_given_back() {
    let mut pair = Pair::start_with(|setup| {
        setup
            .with("shutdown.grace", "5 min")
            .with("upstream.timeout", "5 min")
    })
    .await;
    pair.upstream.switch(json!({"delay_ms": 300_000})).await;
    assert_eq!(pair.post("/log", r#"{"input":"x"}"#).await.status, 200);
    pair.upstream.reached("requests", 1, |state| state.requests).await;
    pair.daemon.signal(rustix::process::Signal::TERM);
    // The attempt in flight holds the end up for minutes, and the lock with it.
    eventually("the socket's removal", || async {
        (!pair.daemon.unix.exists()).then_some(())
    })
    .await;
    let second = pair.setup.fails().await;
    assert!(second.1.contains("in use by another phosphod"), "{second:?}");
    pair.daemon.kill_hard();
}

#[tokio::test]
async fn a_request_in_progress_is_finished_before_the_end() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut pair = Pair::start().await;
    let body = r#"{"input":"x","task_id":"late"}"#;
    let (first, rest) = body.split_at(10);
    let mut stream = tokio::net::TcpStream::connect(pair.daemon.url.trim_start_matches("http://"))
        .await
        .expect("it listens");
    let head = format!(
        "POST /log HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("it reads");
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.expect("it asks for the body");
    stream.write_all(first.as_bytes()).await.expect("it reads");
    pair.daemon.signal(rustix::process::Signal::TERM);
    pair.daemon.logged("stopping").await;
    stream.write_all(rest.as_bytes()).await.expect("it still reads");
    let mut reply = String::new();
    stream
        .read_to_string(&mut reply)
        .await
        .expect("a reply, then the end");
    assert!(
        reply.contains("HTTP/1.1 200") && reply.contains("late"),
        "{reply}"
    );
    assert!(pair.daemon.exited().await.success());
    pair.daemon = pair.setup.start().await;
    pair.upstream.stored(1).await;
    pair.finish().await;
}

#[tokio::test]
async fn an_invalid_file_changes_nothing_on_reload_and_says_why() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let file = folder.path().join("config.toml");
    std::fs::write(&file, "[batch]\nmax_events = 10\n").expect("write");
    let setup = Setup::new(folder.path(), "http://127.0.0.1:9");
    let mut command = setup.command();
    command.arg("--config").arg(&file);
    let mut daemon = Daemon::spawn(command).accepting().await;
    std::fs::write(&file, "[batch]\nmax_evnts = 10\n").expect("write");
    daemon.signal(rustix::process::Signal::HUP);
    let line = daemon
        .logged("configuration not reloaded: nothing has changed")
        .await;
    assert!(
        line["why"]
            .as_str()
            .is_some_and(|why| why.contains("batch.max_events")),
        "{line}"
    );
    let http = reqwest::Client::new();
    let reply = client::post(&http, &format!("{}/log", daemon.url), r#"{"input":"x"}"#).await;
    assert_eq!(reply.status, 200, "it goes on");
}

#[tokio::test]
async fn systemd_is_told_when_it_is_ready_and_when_it_stops() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("bind");
    let setup = Setup::new(folder.path(), "http://127.0.0.1:9");
    let mut command = setup.command();
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    let daemon = Daemon::spawn(command).accepting().await;
    let told = told_until(&socket, "READY=1").await;
    assert!(told.contains("STATUS="), "{told}");
    told_until(&socket, "WATCHDOG=1").await;
    told_until(&socket, "WATCHDOG=1").await;
    let http = reqwest::Client::new();
    client::post(
        &http,
        &format!("{}/v2/log/p", daemon.url),
        r#"{"batched_log_events":[{"input":"x"}]}"#,
    )
    .await;
    let told = told_until(&socket, "; upstream: no connection could be made").await;
    assert!(
        told.contains("STATUS=1 queued, 0 dead letters; upstream:"),
        "why nothing is sent: {told}"
    );
    assert!(daemon.terminate().await.success());
    told_until(&socket, "STOPPING=1").await;
}

/// What systemd would have read up to a word.
async fn told_until(socket: &UnixDatagram, word: &str) -> String {
    socket.set_nonblocking(true).expect("a socket");
    let told = std::cell::RefCell::new(String::new());
    eventually(word, || async {
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            told.borrow_mut()
                .push_str(&String::from_utf8_lossy(&buffer[..length]));
            told.borrow_mut().push('\n');
        }
        told.borrow().contains(word).then_some(())
    })
    .await;
    told.into_inner()
}

#[tokio::test]
async fn sockets_that_systemd_holds_are_taken_over_whatever_their_order() {
    const NAME: &str = "sockets_that_systemd_holds_are_taken_over_whatever_their_order";
    if Command::new("systemd-socket-activate")
        .arg("--version")
        .output()
        .is_err()
    {
        return skip(
            NAME,
            "systemd-socket-activate is not installed (Debian package systemd)",
        );
    }
    for unix_first in [false, true] {
        let folder = tempfile::tempdir().expect("a temp folder");
        let unix = folder.path().join("held.sock");
        let port = {
            let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            free.local_addr().expect("bound").port()
        };
        let tcp = format!("127.0.0.1:{port}");
        let mut order = [tcp.clone(), unix.to_str().expect("text").to_owned()];
        if unix_first {
            order.reverse();
        }
        let setup = Setup::new(folder.path(), "http://127.0.0.1:9");
        let original = setup.command();
        let mut command = Command::new("systemd-socket-activate");
        for address in &order {
            command.args(["-l", address]);
        }
        command.arg(original.get_program()).args(original.get_args());
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .current_dir(folder.path());
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped());
        let daemon = Daemon::spawn(command);
        // The first connection starts it; until then systemd's stand-in may not listen yet.
        eventually("the held port", || async {
            tokio::net::TcpStream::connect(&tcp).await.ok()
        })
        .await;
        let daemon = daemon.accepting().await;
        assert_eq!(daemon.url, format!("http://{tcp}"));
        let http = reqwest::Client::new();
        let event = r#"{"input":"x"}"#;
        assert_eq!(
            client::post(&http, &format!("http://{tcp}/log"), event)
                .await
                .status,
            200
        );
        assert_eq!(
            client::post(&client::unix(&unix), "http://localhost/log", event)
                .await
                .status,
            200
        );
        assert!(daemon.terminate().await.success());
        assert!(unix.exists(), "the socket is systemd's, so it stays");
    }
}

#[test]
fn the_units_pass_systemds_own_check() {
    const NAME: &str = "the_units_pass_systemds_own_check";
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return skip(NAME, "systemd-analyze is not installed (Debian package systemd)");
    }
    let folder = tempfile::tempdir().expect("a temp folder");
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let mut paths = Vec::new();
    for name in ["phosphod.service", "phosphod.socket"] {
        let text = std::fs::read_to_string(units.join(name)).expect("a unit");
        // The check wants the binary to be where the unit says; here it is where it was built.
        let text = text.replace("/usr/bin/phosphod", env!("CARGO_BIN_EXE_phosphod"));
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("write");
        paths.push(path);
    }
    let output = Command::new("systemd-analyze")
        .arg("verify")
        .args(&paths)
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<_> = said.lines().filter(|line| line.contains("phosphod")).collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");
}
