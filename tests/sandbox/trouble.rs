//! What the sandbox does to connections and replies, by the contract or by switch.

use super::support::{Bench, JSON, KEY, LONG, Wire, batch, client, event};
use serde_json::json;
use std::io::ErrorKind;

fn is_cut(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof
    )
}

#[tokio::test]
async fn after_a_lost_batch_the_whole_reply_comes_and_the_connection_is_dropped() {
    let bench = Bench::new().await;
    let mut wire = Wire::open(&bench).await.expect("up");
    assert!(wire.log(&batch(&[&event("a")])).await.is_ok(), "kept alive");
    // Large, so that the reply does not fit into one write.
    let padding = format!(r#"{{"input":"{}"}}"#, "x".repeat(8_000_000));
    let reply = wire
        .log(&batch(&[r#"{"input":"<|endoftext|>"}"#, &padding]))
        .await
        .expect("the whole reply");
    assert!(reply.starts_with("HTTP/1.1 200") && reply.ends_with("]}"));
    assert!(
        !reply.to_lowercase().contains("connection: close"),
        "the API does not say so beforehand"
    );
    let next = wire.log(&batch(&[&event("b")])).await.expect_err("dropped");
    assert!(is_cut(next.kind()), "{next}");
    assert_eq!(bench.ids(), ["a"]);

    let mut idle = Wire::open(&bench).await.expect("up");
    idle.log(&batch(&[r#"{"input":"<|endoftext|>"}"#]))
        .await
        .expect("the whole reply");
    assert_eq!(
        idle.rest()
            .await
            .expect("closed, not reset, while nothing is sent"),
        b""
    );
}

#[tokio::test]
async fn a_pooled_client_recovers_from_the_dropped_connection() {
    let bench = Bench {
        client: client(1),
        ..Bench::with(json!({"lose": 1})).await
    };
    bench.log(&[&event("lost")]).await;
    let headers = [KEY, JSON];
    let mut tries = 0;
    while bench
        .try_send("POST", "/v2/log/p", &headers, batch(&[&event("next")]).into())
        .await
        .is_err()
    {
        tries += 1;
        assert!(tries < 3, "only the old connection is dropped");
    }
    assert_eq!(bench.ids(), ["next"]);
    assert_eq!(
        (bench.sandbox.state().lost, bench.sandbox.state().lost_batches),
        (1, 1)
    );
}

#[tokio::test]
async fn down_resets_old_and_new_connections_and_the_control_plane_goes_on() {
    let bench = Bench::new().await;
    let mut old = Wire::open(&bench).await.expect("up");
    old.log(&batch(&[&event("a")])).await.expect("up");
    let off = bench
        .send("PUT", "/sandbox/switches", &[], r#"{"down":true}"#)
        .await;
    assert_eq!((off.status, off.json()["down"].as_bool()), (200, Some(true)));
    assert!(is_cut(
        old.log(&batch(&[&event("b")])).await.expect_err("down").kind()
    ));
    let mut new = Wire::open(&bench).await.expect("it still connects");
    assert!(is_cut(
        new.log(&batch(&[&event("b")])).await.expect_err("down").kind()
    ));
    assert_eq!(bench.get("/sandbox/state").await.json()["while_down"], 2);
    bench
        .send("PUT", "/sandbox/switches", &[], r#"{"down":false}"#)
        .await;
    assert_eq!(bench.log(&[&event("c")]).await.status, 200);
    assert_eq!(bench.ids(), ["a", "c"]);
}

#[tokio::test]
async fn refuse_closes_the_port_and_opens_the_same_one_again() {
    let bench = Bench::with(json!({"refuse": true})).await;
    let refused = Wire::open(&bench).await.err().map(|error| error.kind());
    assert_eq!(refused, Some(ErrorKind::ConnectionRefused));
    bench.switch(json!({"refuse": false})).await;
    assert_eq!(bench.log(&[&event("a")]).await.status, 200);
    bench.switch(json!({"refuse": true})).await;
    bench.sandbox.reset().await.expect("open again");
    assert_eq!(bench.log(&[&event("b")]).await.status, 200);
    assert_eq!(bench.ids(), ["b"]);
}

#[tokio::test]
async fn a_status_is_answered_as_often_as_told_and_nothing_is_stored() {
    let bench =
        Bench::with(json!({"status": 429, "detail": "slow down", "retry_after": 7, "times": 2})).await;
    let url = format!("{}/v2/log/p", bench.sandbox.base_url());
    let reply = bench
        .client
        .post(url)
        .body(batch(&[&event("a")]))
        .send()
        .await
        .expect("a reply");
    assert_eq!(reply.status().as_u16(), 429);
    assert_eq!(reply.headers()["retry-after"], "7");
    assert_eq!(reply.text().await.expect("text"), r#"{"detail":"slow down"}"#);
    assert_eq!(bench.get("/v2/health").await.status, 429);
    assert_eq!(bench.log(&[&event("b")]).await.status, 200);
    assert_eq!(bench.ids(), ["b"]);
    assert_eq!(bench.sandbox.state().failed_requests, 2);
}

#[tokio::test]
async fn failures_can_be_kept_to_one_kind_of_request() {
    let bench = Bench::with(json!({"status": 500, "only": ["task", "feedback"], "eval_wait_ms": 0})).await;
    assert_eq!(bench.log(&[&event("a")]).await.status, 200);
    assert_eq!(bench.get("/v2/tasks/a").await.status, 500);
    assert_eq!(
        bench
            .post("/v2/tasks/a/flag", r#"{"flag":"success"}"#)
            .await
            .status,
        500
    );
}

#[tokio::test]
async fn replies_can_be_cut_dropped_garbled_and_closed() {
    let bench = Bench::new().await;
    let log = async |switch: &str, id: &str| {
        bench.switch(json!({switch: true, "times": 1})).await;
        let mut wire = Wire::open(&bench).await.expect("up");
        let first = wire.log(&batch(&[&event(id)])).await;
        (first.map_err(|error| (error.kind(), error.to_string())), wire)
    };
    let (cut, _) = log("truncate_reply", "cut").await;
    let (kind, got) = cut.expect_err("half a body");
    assert_eq!(kind, ErrorKind::UnexpectedEof);
    assert!(
        got.contains("\r\n\r\n{\"logged_events\""),
        "the head and a part of the body: {got}"
    );

    let (dropped, _) = log("drop_reply", "dropped").await;
    assert_eq!(dropped.expect_err("no reply").0, ErrorKind::ConnectionReset);

    let (garbage, _) = log("garbage", "garbage").await;
    let (_, got) = garbage.expect_err("no HTTP");
    assert!(got.starts_with("####") && !got.contains("HTTP"), "{got}");

    let (closed, mut wire) = log("close_after_reply", "closed").await;
    assert!(closed.is_ok_and(|reply| reply.starts_with("HTTP/1.1 200")));
    assert_eq!(wire.rest().await.expect("closed"), b"");
    assert_eq!(
        bench.ids(),
        ["cut", "dropped", "closed"],
        "garbage alone has no effect"
    );
}

#[tokio::test]
async fn a_late_store_is_invisible_until_it_is_due() {
    let bench = Bench::with(json!({"store_delay_ms": 600_000})).await;
    assert_eq!(bench.log(&[&event("slow")]).await.status, 200);
    let state = bench.sandbox.state();
    assert_eq!((state.stored, state.pending), (0, 1));
    assert_eq!(bench.get("/v2/tasks/slow").await.status, 404);
    bench.switch(json!({"store_delay_ms": 20})).await;
    bench.log(&[&event("soon")]).await;
    bench
        .sandbox
        .wait_for(LONG, |state| state.stored == 1)
        .await
        .expect("stored when it is due");
    assert_eq!(bench.ids(), ["soon"]);
}

#[tokio::test]
async fn a_delay_and_a_body_limit_can_be_set() {
    let bench = Bench::with(json!({"delay_ms": 1, "max_body_bytes": 40})).await;
    assert_eq!(bench.log(&[&event("small")]).await.status, 413);
    bench.switch(json!({"max_body_bytes": null})).await;
    assert_eq!(bench.log(&[&event("small")]).await.status, 200);
}

#[tokio::test]
async fn without_their_text_tasks_are_still_counted_once() {
    let bench = Bench::with(json!({"keep_raw": false})).await;
    bench.log(&[&event("a"), &event("a")]).await;
    let state = bench.sandbox.state();
    assert_eq!((state.stored, state.duplicates), (1, 1));
    assert_eq!(bench.sandbox.task("a").map(|task| task.raw), Some(String::new()));
}

#[tokio::test]
async fn older_tasks_than_are_to_be_kept_are_forgotten_but_stay_counted() {
    let bench = Bench::with(json!({"keep_tasks": 2})).await;
    bench.log(&[&event("a"), &event("b"), &event("c")]).await;
    assert_eq!(bench.ids(), ["b", "c"]);
    assert_eq!(bench.sandbox.state().stored, 3);
    assert_eq!(bench.sandbox.task("a"), None);
    assert_eq!(bench.sandbox.task("c").map(|task| task.position), Some(2));
}
