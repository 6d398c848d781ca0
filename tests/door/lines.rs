//! NDJSON of clients that do not do as they should.

use super::*;
use std::future::Future;

#[tokio::test]
async fn blanks_empty_lines_and_byte_order_marks_may_stand_before_an_event() {
    let door = Door::open(settings()).await;
    let event = |id: &str| format!("{{\"input\":\"a\",\"task_id\":\"{id}\"}}");
    for before in [
        "\n",
        "\r\n\r\n",
        " \t\n  ",
        "\u{feff}",
        "\n\u{feff} ",
        "\r\n \u{feff}\r\n",
    ] {
        let text = format!("{before}{}\n\n \r\n\u{feff}{}", event("t1"), event("t2"));
        let answers = door.lines(text.as_bytes()).await;
        let answers: Vec<_> = answers
            .iter()
            .filter(|answer| answer.get("task_id").is_some())
            .collect();
        assert_eq!(
            answers,
            [&json!({"task_id": "t1"}), &json!({"task_id": "t2"})],
            "{before:?}"
        );
    }
    for event in door.queued(&lane("p", Kind::Log)).await {
        assert!(event.starts_with("{\""), "{event:?}");
    }
    door.close().await;
}

#[tokio::test]
async fn a_last_line_without_newline_is_taken_if_it_is_whole() {
    let door = Door::open(settings()).await;
    let whole = br#"{"input":"a","task_id":"t1"}"#;
    assert_eq!(door.lines(whole).await, [json!({"task_id": "t1"})]);
    // What was cut off is sent again by whoever sent it, so it is no dead letter.
    let answers = door.lines(&whole[..whole.len() - 3]).await;
    assert!(answers[0]["error"].is_string(), "{answers:?}");
    let ledger = door.spool.ledger();
    assert_eq!((ledger.accepted, ledger.dead), (1, 0));
    door.close().await;
}

/// Fails where it does not end.
async fn in_time<T>(doing: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(Duration::from_secs(120), doing).await;
    done.expect("it does not hang")
}

/// Lines with answers of some 40 bytes.
fn lines(count: usize) -> String {
    (0..count)
        .map(|n| format!("{{\"input\":\"a\",\"task_id\":\"{n:030}\"}}\n"))
        .collect()
}

async fn until_accepted(door: &Door, count: u64) {
    in_time(async {
        while door.spool.ledger().accepted < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(door.spool.ledger().accepted, count);
}

#[tokio::test]
async fn lines_of_a_client_that_closes_without_reading_are_taken() {
    let door = Door::open(settings()).await;
    for n in 1..=20 {
        let mut stream = UnixStream::connect(&door.unix).await.expect("it listens");
        in_time(stream.write_all(lines(1_000).as_bytes()))
            .await
            .expect("it reads");
        drop(stream);
        until_accepted(&door, n * 1_000).await;
    }
    door.until_in_flight(|bytes| bytes == 0).await;
    door.close().await;
}

#[tokio::test]
async fn a_client_that_never_reads_loses_its_answers_and_no_line() {
    let limits = Limits {
        idle: Duration::from_millis(300),
        ..Limits::default()
    };
    let door = Door::open_with(settings(), limits).await;
    let mut stream = UnixStream::connect(&door.unix).await.expect("it listens");
    // Their answers fit neither the socket nor what may wait.
    let count = 60_000;
    in_time(stream.write_all(lines(count).as_bytes()))
        .await
        .expect("it reads on");
    until_accepted(&door, count as u64).await;
    // It sees that it got no more answers, and may go on.
    let mut text = String::new();
    in_time(stream.read_to_string(&mut text)).await.expect("an end");
    assert!(text.lines().count() < count, "{}", text.len());
    in_time(stream.write_all(lines(1_000).as_bytes()))
        .await
        .expect("it reads on");
    until_accepted(&door, count as u64 + 1_000).await;
    drop(stream);
    door.until_in_flight(|bytes| bytes == 0).await;
    door.close().await;
}

#[tokio::test]
async fn a_client_that_writes_first_and_reads_later_gets_every_answer() {
    let door = Door::open(settings()).await;
    let mut stream = UnixStream::connect(&door.unix).await.expect("it listens");
    // More than the socket holds, less than may wait.
    let count = 15_000;
    in_time(stream.write_all(lines(count).as_bytes()))
        .await
        .expect("it reads on");
    until_accepted(&door, count as u64).await;
    stream.shutdown().await.expect("open");
    let mut text = String::new();
    in_time(stream.read_to_string(&mut text)).await.expect("answers");
    let expected: String = (0..count)
        .map(|n| format!("{{\"task_id\":\"{n:030}\"}}\n"))
        .collect();
    assert!(text == expected, "{} of {} bytes", text.len(), expected.len());
    door.close().await;
}
