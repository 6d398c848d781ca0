//! The memory of the real daemon while far more is sent at once than it may hold.

use crate::support::client::{self, Lines, batch};
use crate::support::daemon::{Daemon, Setup};
use crate::support::eventually;
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) const MIB: usize = 1024 * 1024;
const LIMIT: usize = 32 * MIB;
/// Bytes of memory that a byte of the limit may take, as `src/http/budget.rs` says.
const COST: usize = 3;
/// Buffers of the connections and of the spool.
const BESIDE: usize = 40 * MIB;
/// What each client sends, in events of 1 MiB.
const EVENTS: usize = 8;

pub(crate) use crate::support::memory;

/// The page of `/metrics`.
pub(crate) async fn metrics(daemon: &Daemon) -> String {
    let page = client::send(reqwest::Client::new().get(format!("{}/metrics", daemon.url))).await;
    String::from_utf8(page.body).expect("text")
}

async fn metric(daemon: &Daemon, name: &str) -> usize {
    let page = metrics(daemon).await;
    let line = page.lines().find(|line| line.starts_with(&format!("{name} ")));
    let value = line.and_then(|line| line.split(' ').nth(1)?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in\n{page}"))
}

fn events(client: usize) -> Vec<String> {
    (0..EVENTS)
        .map(|n| json!({"input": "x".repeat(MIB - 100), "task_id": format!("t-{client}-{n}")}).to_string())
        .collect()
}

/// Sends a body but for its last bytes, those when told to, and again if it was not taken.
async fn post(url: String, request: Vec<u8>, go: watch::Receiver<bool>) {
    let (most, last) = request.split_at(request.len() - 6);
    loop {
        let mut stream = TcpStream::connect(url.trim_start_matches("http://"))
            .await
            .expect("it listens");
        let mut reply = Vec::new();
        let sent = async {
            stream.write_all(most).await?;
            let _ = go.clone().wait_for(|go| *go).await;
            stream.write_all(last).await?;
            stream.read_to_end(&mut reply).await
        };
        // A refusal may come, and the connection end, while the body is still on its way.
        let _ = sent.await;
        let reply = String::from_utf8_lossy(&reply);
        if reply.starts_with("HTTP/1.1 200") {
            return;
        }
        assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 503"), "{reply}");
        assert!(
            reply.is_empty() || reply.contains("intake.max_in_flight_bytes"),
            "{reply}"
        );
        // As Retry-After asks, only sooner.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn announced(body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST /log HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into()
}

fn chunked(body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST /log HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
    )
    .into()
}

/// Sends each event as a line until it is taken.
async fn lines(path: std::path::PathBuf, events: Vec<String>) {
    let mut lines = Lines::connect(&path).await;
    for event in events {
        while let Some(refused) = lines.ask(&event).await["error"].as_str() {
            assert!(refused.contains("intake.max_in_flight_bytes"), "{refused}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn queueing_only(folder: &Path) -> Setup {
    Setup::new(folder, "http://127.0.0.1:9")
        .without("upstream.api_key")
        .with("intake.max_in_flight_bytes", "32 MiB")
        .with("intake.max_body_bytes", "16 MiB")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_ten_times_the_budget_at_once_stay_within_it_and_nothing_is_lost() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let daemon = queueing_only(folder.path()).start().await;
    let before = memory(&daemon, "VmRSS");
    let (sender, go) = watch::channel(false);
    let mut clients = JoinSet::new();
    for n in 0..40 {
        let (url, go, events) = (daemon.url.clone(), go.clone(), events(n));
        match n % 5 {
            0 => clients.spawn(lines(daemon.unix.clone(), events)),
            1 => clients.spawn(post(url, chunked(&batch(&events)), go)),
            _ => clients.spawn(post(url, announced(&batch(&events)), go)),
        };
    }
    // Bodies that are held back until `go` take all there is for large ones.
    eventually("a budget that is used", || async {
        let taken = metric(&daemon, "phosphod_intake_in_flight_bytes").await;
        assert!(taken <= LIMIT, "{taken} bytes are in flight");
        (taken > LIMIT / 4).then_some(())
    })
    .await;
    let (any, url) = (reqwest::Client::new(), format!("{}/log", daemon.url));
    let small = client::post(&any, &url, r#"{"input":"small"}"#).await;
    assert_eq!(small.status, 200, "a small request passes meanwhile");
    sender.send(true).expect("the clients are there");
    while let Some(ended) = clients.join_next().await {
        ended.expect("all were taken in the end");
    }

    // A reply that was lost on its way made its client send again, under the same ids.
    let accepted = daemon.ledger().await.accepted;
    assert!(accepted > 40 * EVENTS as u64, "{accepted}");
    assert_eq!(metric(&daemon, "phosphod_intake_in_flight_bytes").await, 0);
    let (most, bound) = (memory(&daemon, "VmHWM"), before + COST * LIMIT + BESIDE);
    let refused = metric(&daemon, "phosphod_intake_no_room_total").await;
    println!(
        "320 MiB at once into a budget of {} MiB: VmHWM {} MiB ({} MiB at rest, bound {} MiB), refused {refused} times",
        LIMIT / MIB,
        most / MIB,
        before / MIB,
        bound / MIB,
    );
    assert!(most < bound, "VmHWM is {most} bytes, over {bound}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_a_few_bytes_take_no_more_memory_than_they_count() {
    let (clients, each, limit) = (48, 8_000, 4 * MIB);
    let folder = tempfile::tempdir().expect("a temp folder");
    let setup = queueing_only(folder.path())
        .with("intake.max_in_flight_bytes", "4 MiB")
        .with("intake.max_body_bytes", "2 MiB")
        .with("intake.max_event_bytes", "1 MiB");
    let daemon = setup.start().await;
    let before = memory(&daemon, "VmRSS");
    let (sender, go) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let body = batch(&vec![r#"{"input":"a"}"#; each]);
        tasks.spawn(post(daemon.url.clone(), announced(&body), go.clone()));
    }
    sender.send(true).expect("the clients are there");
    while let Some(ended) = tasks.join_next().await {
        ended.expect("all were taken in the end");
    }
    let accepted = daemon.ledger().await.accepted;
    assert!(accepted >= (clients * each) as u64, "{accepted}");
    let (most, bound) = (memory(&daemon, "VmHWM"), before + COST * limit + BESIDE);
    println!(
        "{clients} bodies of {each} tiny events at once into a budget of {} MiB: VmHWM {} MiB ({} MiB at rest, bound {} MiB)",
        limit / MIB,
        most / MIB,
        before / MIB,
        bound / MIB,
    );
    assert!(most < bound, "VmHWM is {most} bytes, over {bound}");
}

/// Answers of dead letters that have room at a time, one that is being written, and what the
/// allocator keeps.
const LETTERS: usize = 8 * 14 * MIB;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_keep_to_their_room() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let setup = Setup::new(folder.path(), "http://127.0.0.1:9").without("upstream.api_key");
    let daemon = setup.start().await;
    // Its input is no text, so it is a dead letter.
    let event = json!({"input": 1, "output": "x".repeat(14 * MIB)}).to_string();
    let kept = client::post(&reqwest::Client::new(), &format!("{}/log", daemon.url), event).await;
    assert_eq!(kept.status, 200);
    let before = memory(&daemon, "VmHWM");

    let mut pages = Vec::new();
    let ask = "GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(500);
    for _ in 0..200 {
        let address = daemon.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(ask.as_bytes()).await.expect("room");
        pages.push(stream);
    }
    let mut letters = Vec::new();
    for _ in 0..60 {
        let mut stream = UnixStream::connect(&daemon.unix).await.expect("it listens");
        let ask = "GET /dead_letters/1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(ask.as_bytes()).await.expect("room");
        letters.push(stream);
    }
    // Each has its answer, or a 503 because those before it do not read theirs.
    let (mut given, mut refused) = (0, 0);
    for letter in &mut letters {
        let mut head = [0; 12];
        letter.read_exact(&mut head).await.expect("an answer");
        match &head[9..] {
            b"200" => given += 1,
            b"503" => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(given > 0 && refused > 0, "{given} {refused}");
    let grown = memory(&daemon, "VmHWM").saturating_sub(before);
    assert!(grown < LETTERS + BESIDE, "{} MiB", grown / MIB);
    // Others are told how things stand, and who asks once those are gone is given the letter.
    assert_eq!(daemon.ledger().await.dead, 1);
    drop((pages, letters));
    let client = client::unix(&daemon.unix);
    eventually("a dead letter that is given again", || async {
        let letter = client::send(client.get("http://localhost/dead_letters/1")).await;
        (letter.status == 200 && letter.body.len() > 14 * MIB).then_some(())
    })
    .await;
}
