//! Log bodies that are far larger than the memory that they may take, against the real daemon.

use crate::memory::{MIB, memory};
use crate::support::Pair;
use crate::support::daemon::{Daemon, Setup};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What the daemon may take beside what it has at rest: the stream's room, at three times its price, and the open
/// generations of the spool.
const BESIDE: usize = 64 * MIB;

/// Events of a batch of this many bytes, in pieces of about a megabyte; a GiB with `PHOSPHOD_FAULTS=large`.
fn body_bytes() -> usize {
    match std::env::var("PHOSPHOD_FAULTS").as_deref() {
        Ok("large") => 1024 * MIB,
        _ => 160 * MIB,
    }
}

/// Sends a body of that size as it is made, and gives the reply and the number of events.
async fn send(daemon: &Daemon, most: usize, event: impl Fn(usize) -> String) -> (String, usize) {
    let mut stream = TcpStream::connect(daemon.url.trim_start_matches("http://"))
        .await
        .expect("it listens");
    let (mut reading, mut writing) = stream.split();
    let sending = async {
        let head = "POST /v2/log/p HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
        writing.write_all(head.as_bytes()).await?;
        let (mut sent, mut count) = (0, 0);
        let mut piece = "{\"batched_log_events\":[".to_owned();
        while sent < most {
            while piece.len() < MIB {
                piece.push_str(&event(count));
                piece.push(',');
                count += 1;
            }
            sent += piece.len();
            if sent >= most {
                piece.pop();
                piece.push_str("]}");
            }
            let framed = format!("{:x}\r\n{piece}\r\n", piece.len());
            writing.write_all(framed.as_bytes()).await?;
            piece.clear();
        }
        writing.write_all(b"0\r\n\r\n").await?;
        Ok::<_, std::io::Error>(count)
    };
    let mut reply = Vec::new();
    let (sent, _) = tokio::join!(sending, reading.read_to_end(&mut reply));
    (
        String::from_utf8_lossy(&reply).into_owned(),
        sent.unwrap_or_default(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_body_of_any_size_is_taken_and_memory_stays_flat() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let daemon = Setup::new(folder.path(), "http://127.0.0.1:9")
        .without("upstream.api_key")
        .start()
        .await;
    let before = memory(&daemon, "VmRSS");
    let filler = "x".repeat(900);
    let event = |n: usize| format!("{{\"input\":\"{filler}\",\"task_id\":\"t{n}\"}}");
    let (reply, count) = send(&daemon, body_bytes(), event).await;
    assert!(reply.starts_with("HTTP/1.1 200"), "{:.200}", reply);
    let most = memory(&daemon, "VmHWM");
    println!(
        "a log body of {} MiB, {count} events: VmHWM {} MiB, {} MiB at rest",
        body_bytes() / MIB,
        most / MIB,
        before / MIB
    );
    assert!(reply.len() < 2 * MIB, "the reply has {} bytes", reply.len());
    assert_eq!(daemon.ledger().await.accepted, count as u64);
    assert!(most < before + BESIDE, "VmHWM is {most} bytes, {before} at rest");

    // One event that never ends is none that is held.
    let endless = format!("{{\"input\":\"{}\"}}", "x".repeat(80 * MIB));
    let (reply, _) = send(&daemon, 80 * MIB, |_| endless.clone()).await;
    assert!(
        reply.starts_with("HTTP/1.1 200") && reply.contains("error_in_log"),
        "{:.200}",
        reply
    );
    let counts = daemon.ledger().await;
    assert_eq!((counts.accepted, counts.dead), (count as u64 + 1, 1));
    let (most, bound) = (memory(&daemon, "VmHWM"), before + BESIDE + 3 * 30 * MIB);
    assert!(most < bound, "VmHWM is {most} bytes, {before} at rest");
}

#[tokio::test]
async fn a_spool_that_is_full_in_the_middle_of_a_body_is_a_503_and_the_body_is_taken_later() {
    let pair = Pair::start_with(|setup| {
        setup
            .with("spool.max_bytes", "12 MiB")
            .with("intake.max_body_bytes", "1 MiB")
            .with("intake.max_event_bytes", "128 KiB")
            .with("batch.max_bytes", "256 KiB")
    })
    .await;
    pair.upstream.switch(json!({"down": true})).await;
    let event = |id: &str, n: usize| {
        let filler = "x".repeat(10_000);
        format!("{{\"input\":\"{filler}\",\"task_id\":\"{id}-{n}\"}}")
    };
    let (reply, before) = send(&pair.daemon, 6 * MIB, |n| event("before", n)).await;
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply:.200}");
    let (reply, _) = send(&pair.daemon, 8 * MIB, |n| event("t", n)).await;
    assert!(reply.starts_with("HTTP/1.1 503"), "{reply:.200}");
    assert!(
        reply.to_ascii_lowercase().contains("retry-after: "),
        "{reply:.300}"
    );
    assert!(reply.contains("spool.max_bytes"), "{reply:.300}");
    let counts = pair.daemon.ledger().await;
    assert!(
        counts.accepted > before as u64,
        "some of it was stored: {counts:?}"
    );

    pair.upstream.switch(json!({"down": false})).await;
    pair.daemon.drained().await;
    let (reply, count) = send(&pair.daemon, 8 * MIB, |n| event("t", n)).await;
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply:.200}");
    pair.daemon.drained().await;
    let tasks = pair.upstream.tasks("p").len();
    assert_eq!(
        tasks,
        before + count,
        "each is stored once, however often it was sent"
    );
    pair.finish().await;
}
