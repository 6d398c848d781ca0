//! One HTTP attempt against scripted servers: what goes over the wire, and how faults are named.

#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "support/address.rs"]
mod address;

use address::own_host;
use phosphod::ids::{ProjectId, TaskId};
use phosphod::secret::Secret;
use phosphod::upstream::{Settings, Upstream};
use phosphod::verdict::{FailureKind, Outcome};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longest wait for what must happen.
const LONG: Duration = Duration::from_secs(120);

fn settings(base_url: String) -> Settings {
    Settings {
        base_url,
        timeout: LONG,
        ca_file: None,
        proxy: None,
    }
}

fn key() -> Secret {
    Secret::new("sk-canary").expect("not empty")
}

fn project() -> ProjectId {
    ProjectId::new("my/project").expect("an id")
}

async fn post(settings: &Settings) -> Outcome {
    let upstream = Upstream::new(settings).expect("a client");
    upstream
        .post_log(&project(), &key(), b"{\"batched_log_events\":[]}".to_vec())
        .await
}

async fn listen() -> (TcpListener, String) {
    listen_on(Ipv4Addr::LOCALHOST).await
}

async fn listen_on(host: Ipv4Addr) -> (TcpListener, String) {
    let listener = TcpListener::bind((host, 0)).await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    (listener, addr.to_string())
}

/// Reads one request: head and body.
async fn request(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await.expect("readable");
        text.extend_from_slice(&buffer[..count]);
        let seen = String::from_utf8_lossy(&text).into_owned();
        if count == 0 || seen.starts_with("GET") && seen.ends_with("\r\n\r\n") || seen.ends_with("[]}") {
            return seen;
        }
    }
}

/// A server that gives one connection this reply and closes it; returns the request and what the client made of it.
async fn served(reply: &'static [u8]) -> (String, Outcome) {
    let (listener, addr) = listen().await;
    let settings = settings(format!("http://{addr}/"));
    let serve = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let seen = request(&mut stream).await;
        stream.write_all(reply).await.expect("writable");
        seen
    };
    tokio::join!(serve, post(&settings))
}

fn kind(outcome: &Outcome) -> Option<FailureKind> {
    match outcome {
        Outcome::Failed(failure) => {
            assert!(
                !failure.detail.is_empty() && !failure.detail.contains("canary"),
                "{failure:?}"
            );
            Some(failure.kind)
        }
        Outcome::Answered(_) => None,
    }
}

#[tokio::test]
async fn a_request_bears_the_key_and_its_body_goes_uncompressed() {
    let (seen, outcome) =
        served(b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy").await;
    let lower = seen.to_ascii_lowercase();
    assert!(
        seen.starts_with("POST /v2/log/my%2Fproject HTTP/1.1\r\n"),
        "{seen}"
    );
    assert!(seen.contains("Bearer sk-canary\r\n"), "{seen}");
    assert!(lower.contains("content-type: application/json\r\n"), "{seen}");
    assert!(
        lower.contains(concat!(
            "user-agent: phosphod/",
            env!("CARGO_PKG_VERSION"),
            "\r\n"
        )),
        "{seen}"
    );
    assert!(
        !lower.contains("-encoding:"),
        "neither compressed nor asking for it: {seen}"
    );
    assert!(seen.ends_with("\r\n\r\n{\"batched_log_events\":[]}"), "{seen}");
    let Outcome::Answered(answer) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        (answer.status, answer.retry_after),
        (503, Some(Duration::from_secs(7)))
    );
    assert_eq!(answer.body, "busy");
}

#[tokio::test]
async fn a_redirect_is_handed_back_and_not_followed() {
    for head in [
        "301 Moved Permanently",
        "302 Found",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        let (elsewhere, other) = listen().await;
        let reply =
            format!("HTTP/1.1 {head}\r\nLocation: http://{other}/v2/log/p\r\nContent-Length: 0\r\n\r\n");
        let (_, outcome) = served(reply.leak().as_bytes()).await;
        let Outcome::Answered(answer) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(answer.status.to_string(), head[..3]);
        // The attempt is over; whoever connects now is this test, and nobody came before.
        let mut own = TcpStream::connect(&other).await.expect("it listens");
        let (mut first, _) = elsewhere.accept().await.expect("a connection");
        own.write_all(b"own").await.expect("writable");
        let mut hello = [0; 3];
        first.read_exact(&mut hello).await.expect("readable");
        assert_eq!(&hello, b"own", "the key went elsewhere");
    }
}

#[tokio::test]
async fn faults_below_http_are_told_apart() {
    let (_, outcome) = served(b"").await;
    assert_eq!(kind(&outcome), Some(FailureKind::Closed), "{outcome:?}");
    let (_, outcome) = served(b"\x00\x01 not HTTP\r\n\r\n").await;
    assert_eq!(kind(&outcome), Some(FailureKind::Garbled), "{outcome:?}");
    let (_, outcome) = served(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"logged").await;
    assert_eq!(kind(&outcome), Some(FailureKind::Garbled), "{outcome:?}");
    let (_, outcome) = served(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n{\"logged").await;
    assert_eq!(kind(&outcome), Some(FailureKind::Garbled), "{outcome:?}");

    let (listener, addr) = listen_on(own_host()).await;
    drop(listener);
    let outcome = post(&settings(format!("http://{addr}"))).await;
    assert_eq!(kind(&outcome), Some(FailureKind::Connect), "{outcome:?}");
    let outcome = post(&settings("http://no-such-host.invalid".into())).await;
    assert_eq!(kind(&outcome), Some(FailureKind::Dns), "{outcome:?}");
}

#[tokio::test]
async fn a_silent_server_meets_the_time_limit() {
    let (listener, addr) = listen().await;
    let settings = Settings {
        timeout: Duration::from_secs(1),
        ..settings(format!("http://{addr}"))
    };
    let serve = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        request(&mut stream).await;
        stream
    };
    let (_stream, outcome) = tokio::join!(serve, post(&settings));
    assert_eq!(kind(&outcome), Some(FailureKind::Timeout), "{outcome:?}");
}

#[tokio::test]
async fn a_feedback_that_is_held_for_31_s_is_waited_for_and_one_for_41_s_is_not() {
    for (hold, answered) in [(31, true), (39, true), (41, false)] {
        let (listener, addr) = listen().await;
        // What the others wait for is of no matter here.
        let settings = Settings {
            timeout: Duration::from_millis(1),
            ..settings(format!("http://{addr}"))
        };
        let upstream = Upstream::new(&settings).expect("a client");
        let serve = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let seen = request(&mut stream).await;
            assert!(
                seen.starts_with("POST /v2/tasks/t/human-eval HTTP/1.1\r\n"),
                "{seen}"
            );
            // From here on nothing but the clock moves.
            tokio::time::pause();
            tokio::time::sleep(Duration::from_secs(hold)).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                .await;
            stream
        };
        let task = TaskId::new("t").expect("an id");
        let own_key = key();
        let ask = upstream.post_feedback(&task, &own_key, b"[]}".to_vec());
        let (_stream, outcome) = tokio::join!(serve, ask);
        tokio::time::resume();
        match answered {
            true => assert!(matches!(outcome, Outcome::Answered(_)), "{hold}: {outcome:?}"),
            false => assert_eq!(kind(&outcome), Some(FailureKind::Timeout), "{hold}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_a_fault_of_tls() {
    let (listener, addr) = listen().await;
    let settings = settings(format!("https://{addr}"));
    let serve = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .expect("writable");
    };
    let ((), outcome) = tokio::join!(serve, post(&settings));
    assert_eq!(kind(&outcome), Some(FailureKind::Tls), "{outcome:?}");
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let (listener, addr) = listen().await;
    let upstream = Upstream::new(&settings(format!("http://{addr}"))).expect("a client");
    let serve = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        for _ in 0..3 {
            assert!(
                request(&mut stream)
                    .await
                    .starts_with("GET /v2/tasks/t%20%3F HTTP/1.1\r\n")
            );
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                .await
                .expect("writable");
        }
    };
    let ask = async {
        let task = TaskId::new("t ?").expect("an id");
        for _ in 0..3 {
            let outcome = upstream.get_task(&task, &key()).await;
            assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
        }
    };
    tokio::time::timeout(LONG, async { tokio::join!(serve, ask) })
        .await
        .expect("one connection serves all three");
}

#[tokio::test]
async fn a_configured_proxy_is_used_and_its_password_is_not_told() {
    let (listener, addr) = listen_on(own_host()).await;
    let proxy = Some(format!("http://user:hunter2@{addr}"));
    let through = Settings {
        proxy,
        ..settings("http://api.invalid".into())
    };
    let serve = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let seen = request(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            .await
            .expect("writable");
        seen
    };
    let (seen, outcome) = tokio::join!(serve, post(&through));
    assert!(
        seen.starts_with("POST http://api.invalid/v2/log/my%2Fproject HTTP/1.1\r\n"),
        "{seen}"
    );
    assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
    drop(listener);
    let Outcome::Failed(failure) = post(&through).await else {
        panic!("nobody listens")
    };
    assert!(!failure.detail.contains("hunter2"), "{failure:?}");
}

#[test]
fn a_certificate_file_that_cannot_be_used_is_named_with_its_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ca.pem");
    let with = |ca_file| {
        Upstream::new(&Settings {
            ca_file,
            ..settings("https://127.0.0.1:1".into())
        })
    };
    for _ in 0..2 {
        let err = with(Some(path.clone())).expect_err("not usable").to_string();
        assert!(
            err.starts_with("upstream.ca_file ") && err.contains("ca.pem"),
            "{err}"
        );
        std::fs::write(&path, "no certificate").expect("writable");
    }
}

#[tokio::test]
async fn an_upstream_on_this_machine_is_reached_past_a_proxy() {
    let (proxy, proxy_addr) = listen_on(own_host()).await;
    let (listener, addr) = listen().await;
    let port = addr.rsplit(':').next().expect("a port");
    for host in ["127.0.0.1", "localhost"] {
        let settings = Settings {
            proxy: Some(format!("http://{proxy_addr}")),
            ..settings(format!("http://{host}:{port}"))
        };
        let serve = async {
            let (mut stream, _) = tokio::select! {
                direct = listener.accept() => direct.expect("a connection"),
                _ = proxy.accept() => panic!("the key goes to the proxy"),
            };
            let seen = request(&mut stream).await;
            let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
            stream.write_all(reply).await.expect("writable");
            seen
        };
        let (seen, outcome) = tokio::join!(serve, post(&settings));
        assert!(seen.starts_with("POST /v2/log/"), "{host}: {seen}");
        assert!(matches!(outcome, Outcome::Answered(_)), "{host}: {outcome:?}");
    }
}

/// What a server with this reply brings about, in place of a log request: a feedback, a look for a task, and one read.
async fn of_tasks(reply: Vec<u8>) -> [Outcome; 3] {
    let (listener, addr) = listen().await;
    let upstream = Upstream::new(&settings(format!("http://{addr}/"))).expect("a client");
    let task = TaskId::new("t").expect("an id");
    let serve = async {
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            request(&mut stream).await;
            // The client may close it in the middle.
            let _ = stream.write_all(&reply).await;
        }
    };
    let ask = async {
        [
            upstream.post_feedback(&task, &key(), b"[]}".to_vec()).await,
            upstream.get_task(&task, &key()).await,
            upstream.read_task(&task, &key()).await,
        ]
    };
    tokio::join!(serve, ask).1
}

fn sized(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn body_of(outcome: &Outcome) -> &[u8] {
    match outcome {
        Outcome::Answered(answer) => &answer.body,
        Outcome::Failed(failure) => panic!("{failure:?}"),
    }
}

fn assert_too_large(outcome: &Outcome) {
    let Outcome::Failed(failure) = outcome else {
        panic!("it was read: {} bytes", body_of(outcome).len());
    };
    assert_eq!(failure.kind, FailureKind::Garbled);
    assert!(failure.detail.contains("far larger"), "{failure:?}");
}

#[tokio::test]
async fn a_body_that_nobody_needs_is_not_kept_and_only_read_on_to_use_the_connection_again() {
    let [feedback, look, read] = of_tasks(sized(br#"{"id":"t"}"#)).await;
    assert_eq!(body_of(&feedback), b"");
    assert_eq!(body_of(&look), b"");
    assert_eq!(body_of(&read), br#"{"id":"t"}"#);

    let large = vec![b' '; 40 << 20];
    let [feedback, look, read] = of_tasks(sized(&large)).await;
    assert_eq!(body_of(&feedback), b"");
    assert_eq!(body_of(&look), b"");
    // No task is that large.
    assert_too_large(&read);
}

#[tokio::test]
async fn an_answer_far_larger_than_what_was_sent_is_not_read() {
    // What it states is enough: nothing of it has to come.
    let stated = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{";
    let (_, outcome) = served(stated).await;
    assert_too_large(&outcome);
    // Without that it is read up to the bound.
    static UNSTATED: [u8; 200_000] = {
        let mut reply = [b' '; 200_000];
        let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
        let mut at = 0;
        while at < head.len() {
            reply[at] = head[at];
            at += 1;
        }
        reply
    };
    let (_, outcome) = served(&UNSTATED).await;
    assert_too_large(&outcome);
    let usual = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"logged_events\":[]}";
    let (_, outcome) = served(usual).await;
    assert_eq!(body_of(&outcome), b"{\"logged_events\":[]}");
}
