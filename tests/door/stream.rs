//! Log bodies that are stored while they come.

use super::*;

/// Events of about a kilobyte, in the order of their ids.
fn events(prefix: &str, count: usize) -> Vec<String> {
    let filler = "x".repeat(900);
    (0..count)
        .map(|n| format!("{{\"input\":\"{filler}\",\"task_id\":\"{prefix}-{n}\"}}"))
        .collect()
}

fn batch(events: &[String]) -> String {
    format!("{{\"batched_log_events\":[{}]}}", events.join(","))
}

/// The head of a request for a body of that length, without one if none is given.
fn head(length: Option<usize>) -> String {
    let framing = match length {
        Some(length) => format!("Content-Length: {length}"),
        None => "Transfer-Encoding: chunked".to_owned(),
    };
    format!("POST /v2/log/p HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{framing}\r\n\r\n")
}

/// A door whose streams hold 2 MiB, and that takes events of up to 100 KB.
async fn stream_door() -> Door {
    let settings = Settings {
        max_event_bytes: 100_000,
        ..settings()
    };
    Door::open(settings).await
}

impl Door {
    /// A connection that has sent that much of a body, of which some events are on disk.
    async fn amid(&self, head: &str, part: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.tcp).await.expect("it listens");
        stream.write_all(head.as_bytes()).await.expect("it reads");
        stream.write_all(part.as_bytes()).await.expect("it reads");
        let stored = async {
            while self.spool.ledger().accepted == 0 {
                tokio::task::yield_now().await;
            }
        };
        let stored = tokio::time::timeout(Duration::from_secs(60), stored).await;
        stored.expect("a group is stored while the body is on its way");
        stream
    }

    /// The task ids of all that is queued, in order.
    async fn ids(&self) -> Vec<String> {
        let limits = batch::Limits {
            max_events: usize::MAX,
            max_bytes: 1 << 20,
            max_age: Duration::ZERO,
        };
        let (mut ids, lane) = (Vec::new(), lane("p", Kind::Log));
        loop {
            let leased = self.spool.lease(&lane, &limits).await;
            if leased.is_empty() {
                return ids;
            }
            for event in &leased {
                let event: Value = serde_json::from_slice(event.record()).expect("JSON");
                ids.push(event["task_id"].as_str().expect("an id").to_owned());
            }
            self.spool.settle(&lane, leased).await;
        }
    }
}

#[tokio::test]
async fn a_body_of_many_times_what_is_held_is_stored_in_order_and_answered_once() {
    let door = stream_door().await;
    let events = events("t", 10_000);
    let body = batch(&events);
    assert!(body.len() > 8 << 20);
    let expected: Vec<String> = (0..events.len()).map(|n| format!("t-{n}")).collect();
    let chunks: String = [&body[..7_000_000], &body[7_000_000..], ""]
        .map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len()))
        .concat();
    for request in [head(Some(body.len())) + &body, head(None) + &chunks] {
        let (status, reply) = door.tcp(&request).await;
        assert_eq!(status, 200, "{reply}");
        let listed = reply["logged_events"].as_array().expect("a list");
        // How many are listed depends on the room that is left for the reply.
        if let Some(first) = listed.first() {
            assert_eq!(
                *first,
                json!({"task_id": "t-0", "project_id": "p", "session_id": null})
            );
        }
        let omitted = events.len() - listed.len();
        if omitted > 0 {
            assert_eq!(reply["omitted"], json!({"accepted": omitted, "refused": 0}));
        } else {
            assert_eq!(reply["omitted"], Value::Null);
        }
        assert_eq!(door.ids().await, expected);
        door.until_in_flight(|bytes| bytes == 0).await;
    }
    door.close().await;
}

#[tokio::test]
async fn what_was_stored_of_a_body_that_breaks_off_stays_and_nothing_of_it_is_promised() {
    let door = stream_door().await;
    let body = batch(&events("t", 4_000));
    let (part, rest) = body.split_at(3 << 20);
    // The client is gone.
    drop(door.amid(&head(Some(body.len())), part).await);
    door.until_in_flight(|bytes| bytes == 0).await;
    // The client has ended too early, and waits for an answer.
    let mut stream = door.amid(&head(Some(body.len())), part).await;
    stream.shutdown().await.expect("open");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.expect("a reply");
    assert!(reply.to_ascii_lowercase().contains("retry-after: "), "{reply}");
    assert!(
        matches!(detail(&parsed(&reply)), (503, why) if why.contains("broke off")),
        "{reply}"
    );
    let ids = door.ids().await;
    assert!(
        ids.len() > 2_000 && ids.len() < 8_000 && ids[0] == "t-0",
        "{}",
        ids.len()
    );
    // All of it is sent again, under the same ids.
    let mut stream = door.amid(&head(Some(body.len())), part).await;
    stream.write_all(rest.as_bytes()).await.expect("it reads");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.expect("a reply");
    assert_eq!(parsed(&reply).0, 200);
    assert_eq!(door.ids().await.len(), 4_000);
    door.close().await;
}

#[tokio::test]
async fn a_fault_is_a_422_before_anything_is_stored_and_a_503_after() {
    let door = stream_door().await;
    let all = batch(&events("t", 4_000));
    let wrong = [
        (
            all.replacen("\"batched_log_events\"", "\"batched\"", 1),
            422,
            "no batched_log_events",
        ),
        (
            all.replacen("{\"batched_log_events\":", "{,", 1),
            422,
            "byte 1: key must be a string",
        ),
        (
            all.replacen("\"t-3900\"}", "\"t-3900\"},", 1),
            503,
            "expected value",
        ),
        (all.clone() + "}", 503, "trailing characters"),
    ];
    for (body, expected, part) in wrong {
        let before = door.spool.ledger().accepted;
        let (status, reply) = door.tcp(&(head(Some(body.len())) + &body)).await;
        let why = reply["detail"].as_str().unwrap_or_default();
        assert!(status == expected && why.contains(part), "{status} {reply}");
        let stored = door.spool.ledger().accepted - before;
        assert_eq!(stored > 0, expected == 503, "{stored} events");
        assert_eq!(
            stored > 0,
            why.contains(&format!("The first {stored} events were stored"))
        );
    }
    door.close().await;
}

#[tokio::test]
async fn bad_events_in_the_middle_of_a_stream_are_dead_letters_alone() {
    let door = stream_door().await;
    let mut events = events("t", 4_000);
    let huge = format!("{{\"input\":\"{}\",\"task_id\":\"huge\"}}", "x".repeat(3 << 20));
    events[1_000] = "{\"input\":\"a\",\"score\":NaN}".to_owned();
    events[2_000] = huge.clone();
    let body = batch(&events);
    let (status, reply) = door.tcp(&(head(Some(body.len())) + &body)).await;
    assert_eq!(status, 200);
    assert!(
        reply["logged_events"][1_000]["error_in_log"]
            .as_str()
            .is_some_and(|why| why.contains("NaN is no value in JSON")),
    );
    let ledger = door.spool.ledger();
    assert_eq!((ledger.accepted, ledger.dead), (4_000, 2));
    let letters = door.spool.dead_letters(None, 10).await.expect("two");
    let kept: Vec<_> = letters
        .letters
        .iter()
        .map(|kept| kept.letter.as_ref().expect("whole"))
        .collect();
    assert_eq!(kept[0].record, events[1_000].as_bytes());
    assert_eq!(kept[1].record, &huge.as_bytes()[..64 * 1024]);
    assert!(
        kept[1]
            .burial
            .reason
            .contains(&format!("the event has {} bytes", huge.len()))
    );
    assert_eq!(door.ids().await.len(), 3_998);
    door.close().await;
}

#[tokio::test]
async fn an_event_of_any_allowed_size_passes_through_the_smallest_budget() {
    let settings = Settings {
        max_event_bytes: 2 << 20,
        ..settings()
    };
    let door = Door::open(settings).await;
    let large = format!(
        "{{\"input\":\"{}\",\"task_id\":\"large\"}}",
        "x".repeat((2 << 20) - 100)
    );
    let mut events = events("t", 3_000);
    events.insert(1_500, large);
    let body = batch(&events);
    let (status, reply) = door.tcp(&(head(Some(body.len())) + &body)).await;
    assert_eq!(status, 200, "{reply}");
    let ledger = door.spool.ledger();
    assert_eq!((ledger.accepted, ledger.dead), (3_001, 0));
    door.until_in_flight(|bytes| bytes == 0).await;
    door.close().await;
}

#[tokio::test]
async fn a_byte_order_mark_before_the_json_is_no_part_of_it() {
    let door = Door::open(settings()).await;
    for (path, body) in [
        ("/log", r#"{"input":"x"}"#),
        ("/log", r#"[{"input":"x"}]"#),
        ("/v2/log/p", r#"{"batched_log_events":[{"input":"x"}]}"#),
        ("/v2/tasks/t1/flag", r#"{"flag":"success"}"#),
        ("/v2/tasks/t1/human-eval", r#"{"human_eval":"success"}"#),
        ("/feedback", r#"{"task_id":"t1","flag":"success"}"#),
    ] {
        let (status, reply) = door.post(path, &format!("\u{feff}{body}")).await;
        assert_eq!(status, 200, "{path} {reply}");
        assert_eq!(
            door.post(path, &format!("\u{feff}\u{feff}{body}")).await.0,
            422,
            "{path}"
        );
    }
    for event in door.queued(&lane("p", Kind::Log)).await {
        assert!(event.starts_with('{') && event.contains("\"x\""), "{event}");
    }
    door.close().await;
}
