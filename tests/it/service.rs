//! The daemon as a service: signals, reload, what it tells systemd and its journal, the key as a credential.

use crate::support::client::batch;
use crate::support::daemon::{Daemon, Setup};
use crate::support::upstream::Upstream;
use crate::support::{Pair, client, eventually};
use serde_json::json;
use std::os::unix::net::UnixDatagram;

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
    let mut pair = Pair::start_in_flight().await;
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
async fn who_has_just_connected_is_answered_although_it_stops() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let pair = Pair::start().await;
    let address = pair.daemon.url.trim_start_matches("http://");
    let mut tcp = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let mut unix = tokio::net::UnixStream::connect(&pair.daemon.unix)
        .await
        .expect("it listens");
    let mut lines = tokio::net::UnixStream::connect(&pair.daemon.unix)
        .await
        .expect("it listens");
    // Who is answered on a later connection shows that these were accepted.
    pair.daemon.status().await;
    let later = client::unix(&pair.daemon.unix);
    client::send(later.get("http://localhost/healthz")).await;
    let Pair {
        mut daemon, upstream, ..
    } = pair;
    daemon.signal(rustix::process::Signal::TERM);
    daemon.logged("stopping").await;
    let body = r#"{"input":"x"}"#;
    let request = format!(
        "POST /log HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    tcp.write_all(request.as_bytes()).await.expect("it reads");
    unix.write_all(request.as_bytes()).await.expect("it reads");
    lines
        .write_all(format!("{body}\n").as_bytes())
        .await
        .expect("it reads");
    let (mut first, mut second, mut third) = (String::new(), String::new(), String::new());
    tcp.read_to_string(&mut first)
        .await
        .expect("a reply, then the end");
    unix.read_to_string(&mut second)
        .await
        .expect("a reply, then the end");
    lines
        .read_to_string(&mut third)
        .await
        .expect("an answer, then the end");
    for reply in [&first, &second] {
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    }
    assert!(third.contains("task_id"), "{third}");
    assert!(daemon.exited().await.success());
    drop(upstream);
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
    daemon.signal(rustix::process::Signal::HUP);
    let told = told_until(&socket, "READY=1").await;
    assert!(
        told.contains("RELOADING=1\nMONOTONIC_USEC="),
        "systemd 253 asks for the time: {told}"
    );
    assert!(
        told.contains("READY=1\nSTATUS=1 queued, 0 dead letters; upstream:"),
        "it stands as before: {told}"
    );
    assert!(daemon.terminate().await.success());
    let told = told_until(&socket, "STOPPING=1").await;
    assert!(
        told.contains("STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000\n"),
        "twice the grace, and a commit: {told}"
    );
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
async fn a_credential_is_the_key_and_is_read_again_on_reload() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let upstream = Upstream::start().await;
    let key = folder.path().join("phospho-api-key");
    std::fs::write(&key, "\n").expect("write");
    let setup = Setup::new(folder.path(), &upstream.url())
        .without("upstream.api_key")
        .env("CREDENTIALS_DIRECTORY", folder.path().to_str().expect("text"));
    let mut daemon = setup.start().await;
    daemon
        .logged("no API key: events are only queued; set PHOSPHO_API_KEY or upstream.api_key_file")
        .await;
    let http = reqwest::Client::new();
    client::post(&http, &format!("{}/log", daemon.url), r#"{"input":"x"}"#).await;
    std::fs::write(&key, "sk-1").expect("write");
    daemon.signal(rustix::process::Signal::HUP);
    assert_eq!(daemon.drained().await.delivered, 1);
    drop(daemon);
    upstream.finish().await;
}

#[tokio::test]
async fn a_redaction_field_that_is_no_field_of_an_event_is_in_the_log_and_among_the_hints() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let setup = Setup::new(folder.path(), "http://127.0.0.1:9")
        .with("redact.detect", "email")
        .with("redact.fields", "[\"inptu\", \"own_field\"]");
    let mut daemon = setup.start().await;
    let sentence =
        "redact.fields (--set): \"inptu\" begins with what is no field of an event; did you mean \"input\"?";
    daemon.logged(&format!("configuration: {sentence}")).await;
    let hints = eventually("the hint", || async {
        let hints = daemon.status().await["hints"].clone();
        (hints != serde_json::json!([])).then_some(hints)
    })
    .await;
    assert_eq!(hints, serde_json::json!([format!("configuration: {sentence}")]));
    let own = daemon.said().join("\n").contains("\\\"own_field\\\" begins with");
    assert!(own, "a field that clients may send is in the log alone");
}

#[tokio::test]
async fn lines_for_the_journal_begin_with_their_priority() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().expect("a temp folder");
    let (file, said) = (folder.path().join("c.toml"), folder.path().join("said"));
    std::fs::write(&file, "").expect("write");
    let journal = std::fs::File::create(&said).expect("a file");
    let about = journal.metadata().expect("open");
    let setup = Setup::new(folder.path(), "http://127.0.0.1:9");
    let spoken = || std::fs::read_to_string(&said).expect("text");
    for same in [true, false] {
        journal.set_len(0).expect("emptied");
        let inode = about.ino() + u64::from(!same);
        let mut command = setup.command();
        command
            .arg("--config")
            .arg(&file)
            .args(["--set", "log.format=auto"])
            .env("JOURNAL_STREAM", format!("{}:{inode}", about.dev()))
            .stderr(std::fs::File::options().append(true).open(&said).expect("a file"));
        let mut child = command.spawn().expect("the binary starts");
        let pid = rustix::process::Pid::from_child(&child);
        eventually("accepting", || async {
            spoken().contains("accepting").then_some(())
        })
        .await;
        std::fs::write(&file, "nonsense = 1").expect("write");
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("a child");
        eventually("a refusal", || async {
            spoken().contains("nothing has changed").then_some(())
        })
        .await;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a child");
        child.wait().expect("it ends");
        std::fs::write(&file, "").expect("write");
        let text = spoken();
        let priority = |part: &str| {
            let line = text.lines().find(|line| line.contains(part));
            line.unwrap_or_else(|| panic!("no {part} in {text}"))
                .split_inclusive('>')
                .next()
                .unwrap_or_default()
        };
        if same {
            assert_eq!(
                (priority("accepting"), priority("nothing has changed")),
                ("<6>", "<3>")
            );
            assert!(text.lines().all(|line| line.starts_with('<')), "{text}");
        } else {
            assert!(
                text.lines().all(|line| line.starts_with('{')),
                "JSON for others: {text}"
            );
        }
    }
}
