//! Text of clients and of the upstream in the daemon's own log: it neither begins a line nor moves a terminal's cursor.

use crate::support::client::{Lines, post, raw_tcp, send, unix};
use crate::support::daemon::{Daemon, Setup};
use crate::support::eventually;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A line of its own with a priority for systemd, a colour, and a control sequence in one character.
const EVIL: &str = "a\n<0>fake\r\u{1b}[31mred\u{9b}2J\u{7}";
/// The same in a path.
const PATH: &str = "a%0A%3C0%3Efake%0D%1B%5B31mred%C2%9B2J%07";

/// An upstream that refuses everything, in evil words.
async fn upstream() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            tokio::spawn(async move {
                let mut waste = [0; 4096];
                while stream.read(&mut waste).await.is_ok_and(|read| read > 0) {
                    let body = json!({"detail": format!("upstream {EVIL}")}).to_string();
                    let reply = format!(
                        "HTTP/1.1 503 Unavailable\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    if stream.write_all(reply.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

/// Evil text by every way in.
async fn attack(daemon: &Daemon) {
    let client = unix(&daemon.unix);
    let at = |path: &str| format!("http://localhost{path}");
    let event = json!({
        "input": EVIL, "task_id": EVIL, "session_id": EVIL, "project_id": EVIL, "user_id": EVIL,
        // Milliseconds, which the project is warned of by name.
        "client_created_at": 1_700_000_000_000_u64,
    })
    .to_string();
    let feedback =
        json!({"task_id": EVIL, "project_id": EVIL, "flag": "success", "notes": EVIL, "source": EVIL})
            .to_string();
    for (path, body) in [
        ("/log", event.as_str()),
        (
            &format!("/v2/log/{PATH}"),
            &format!("{{\"batched_log_events\":[{event}]}}"),
        ),
        ("/log", r#"{"input":"x","project_id":"plain"}"#),
        ("/log", EVIL),
        ("/feedback", &feedback),
        (&format!("/v2/tasks/{PATH}/flag"), r#"{"flag":"success"}"#),
        (&format!("/{PATH}"), "{}"),
        ("/dead_letters/requeue", EVIL),
    ] {
        post(&client, &at(path), body.to_owned()).await;
    }
    send(client.get(at(&format!("/events/{PATH}")))).await;
    let mut lines = Lines::connect(&daemon.unix).await;
    lines.ask(&event).await;
    lines.ask("{\u{1b}[31m").await;
}

/// Heads that no HTTP library would send.
async fn raw_heads(url: &str) {
    for request in [
        "GET /a\u{1b}[31m HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /a\n<0>fake HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n<0>fake\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: evil\u{9b}2J\r\nX: \u{1b}[31m\r\n\r\n",
        "POST /log HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nUser-Agent: \u{9b}2J\r\n\r\n{",
    ] {
        raw_tcp(url, request.as_bytes()).await;
    }
}

/// A daemon that says all it can, a line about the upstream among it.
async fn attacked(format: &str) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a temp folder");
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = port.local_addr().expect("bound").to_string();
    drop(port);
    let setup = Setup::new(folder.path(), &upstream().await)
        .with("intake.http", &address)
        .with("log.level", "trace");
    let mut command = setup.command();
    command.args(["--set", &format!("log.format={format}")]);
    let mut daemon = Daemon::spawn(command);
    daemon.unix = folder.path().join("s.sock");
    daemon.url = format!("http://{address}");
    let ready = async || TcpStream::connect(&address).await.ok();
    eventually("a listener", ready).await;
    attack(&daemon).await;
    raw_heads(&daemon.url).await;
    // The lane of a project with a plain name is told of, without what the upstream said.
    let told = || async {
        let mut lines = daemon.said().into_iter();
        lines.find(|line| line.contains("delivery is failing"))
    };
    eventually("a line about the upstream", told).await;
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.exited().await.success());
    daemon.said()
}

#[tokio::test]
async fn text_of_others_stays_within_its_line_in_a_log_of_text() {
    let said = attacked("text").await;
    // What others say is not quoted any more; a line that would be has to stay one all the same.
    let evil: Vec<_> = said.iter().filter(|line| line.contains("fake")).collect();
    assert!(evil.is_empty(), "{evil:#?}");
    for line in &said {
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(line.starts_with("20"), "no line but the daemon's own: {line:?}");
    }
    eprintln!("{} lines of text", said.len());
}

#[tokio::test]
async fn text_of_others_stays_within_its_line_in_a_log_of_json() {
    let said = attacked("json").await;
    // What others say is not quoted any more; a line that would be has to stay one all the same.
    let evil: Vec<_> = said.iter().filter(|line| line.contains("fake")).collect();
    assert!(evil.is_empty(), "{evil:#?}");
    for line in &said {
        let fields: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line:?}"));
        assert!(
            fields["level"].is_string() && fields["timestamp"].is_string(),
            "{line}"
        );
        assert!(!line.contains(['\r', '\u{1b}', '\u{7}']), "{line:?}");
    }
    eprintln!("{} lines of JSON", said.len());
}
