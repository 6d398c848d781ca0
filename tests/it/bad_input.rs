//! Bad input: a sentence with the remedy, and nothing else is lost.

use crate::support::Pair;
use crate::support::client::{self, Lines, batch};
use serde_json::json;

const GOOD: &str = r#"{"input":"x","task_id":"good"}"#;

/// Asserts that a sentence holds all of these.
fn says(sentence: &str, parts: &[&str]) {
    for part in parts {
        assert!(sentence.contains(part), "{part:?} is not in {sentence:?}");
    }
}

#[tokio::test]
async fn an_unknown_route_lists_the_routes_and_a_wrong_method_names_the_right_one() {
    let pair = Pair::start().await;
    let reply = pair.post("/v2/logs/p", GOOD).await;
    assert_eq!(reply.status, 404);
    says(
        &reply.detail(),
        &[
            "/v2/log/{project_id}",
            "/v2/tasks/{task_id}/flag",
            "/log",
            "/feedback",
            "/status",
            "/metrics",
        ],
    );

    let reply = client::send(pair.client.get(pair.at("/v2/log/p"))).await;
    assert_eq!(reply.status, 405);
    assert_eq!(reply.headers["allow"], "POST");
    says(&reply.detail(), &["POST"]);
    assert_eq!(pair.finish().await.accepted, 0);
}

#[tokio::test]
async fn a_wrong_content_type_is_refused_with_the_header_to_send() {
    let pair = Pair::start().await;
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ] {
        let request = pair
            .client
            .post(pair.at("/log"))
            .header("content-type", kind)
            .body(GOOD);
        let reply = client::send(request).await;
        assert_eq!(reply.status, 415, "{kind}");
        says(&reply.detail(), &["Content-Type: application/json"]);
    }
    for kind in ["application/json; charset=utf-8", "application/vnd.api+json"] {
        let request = pair
            .client
            .post(pair.at("/log"))
            .header("content-type", kind)
            .body(GOOD);
        assert_eq!(client::send(request).await.status, 200, "{kind}");
    }
    assert_eq!(
        client::send(pair.client.post(pair.at("/log")).body(GOOD))
            .await
            .status,
        200,
        "none"
    );
    assert_eq!(pair.finish().await.accepted, 3);
}

#[tokio::test]
async fn malformed_json_is_answered_with_its_place_and_what_was_expected() {
    let pair = Pair::start().await;
    for (body, parts) in [
        (
            "{\"input\": \"x\",\n  \"output\" \"y\"}",
            &["line 2", "expected"][..],
        ),
        ("{\"batched_log_events\": [{\"input\": \"x\"}", &["EOF"]),
        ("", &["empty", "expected"]),
    ] {
        for path in ["/log", "/v2/log/p"] {
            let reply = pair.post(path, body).await;
            assert_eq!(reply.status, 422, "{body:?} to {path}");
            says(&reply.detail(), parts);
        }
    }
    let reply = pair.post("/v2/log/p", r#"{"events": []}"#).await;
    assert_eq!(reply.status, 422);
    says(&reply.detail(), &["batched_log_events"]);
    assert_eq!(pair.finish().await.accepted, 0);
}

#[tokio::test]
async fn invalid_utf8_is_refused_with_its_place() {
    let pair = Pair::start().await;
    let reply = pair.post("/log", b"{\"input\": \"\xff\"}".to_vec()).await;
    assert_eq!(reply.status, 422);
    says(&reply.detail(), &["UTF-8", "11"]);
    assert_eq!(pair.finish().await.accepted, 0);
}

#[tokio::test]
async fn a_log_body_has_no_limit_and_other_bodies_name_limit_and_key() {
    let pair = Pair::start_with(|setup| {
        setup
            .with("intake.max_body_bytes", "64 KiB")
            .with("intake.max_event_bytes", "32 KiB")
            .with("batch.max_bytes", "64 KiB")
    })
    .await;
    let notes = json!({"flag": "success", "notes": "x".repeat(70_000)}).to_string();
    let reply = pair.post("/v2/tasks/good/flag", notes.clone()).await;
    assert_eq!(reply.status, 413);
    says(&reply.detail(), &["intake.max_event_bytes", "32768"]);
    let chunked = format!(
        "POST /v2/tasks/good/flag HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{notes}\r\n0\r\n\r\n",
        notes.len()
    );
    let reply = client::raw_tcp(&pair.daemon.url, chunked.as_bytes()).await;
    says(&reply, &["HTTP/1.1 413", "intake.max_event_bytes"]);

    // Its neighbours are not harmed by an event that is too large, by a little or by much.
    let large = json!({"input": "x".repeat(40_000), "task_id": "large"}).to_string();
    let huge = json!({"task_id": "huge", "input": "x".repeat(200_000)}).to_string();
    let last = GOOD.replace("good", "last");
    let reply = pair.post("/v2/log/p", batch(&[GOOD, &large, &huge, &last])).await;
    assert_eq!(reply.status, 200);
    let logged = reply.json()["logged_events"].clone();
    assert_eq!(
        (&logged[0]["task_id"], &logged[3]["task_id"]),
        (&json!("good"), &json!("last"))
    );
    for (index, length) in [(1, large.len()), (2, huge.len())] {
        let why = logged[index]["error_in_log"].as_str().expect("refused");
        says(why, &["intake.max_event_bytes", &length.to_string()]);
    }
    let dead = pair.dead_letters().await;
    assert_eq!(dead[0]["record"]["task_id"], "large");
    let head = dead[1]["record"].as_str().expect("a part is text");
    assert!(huge.starts_with(head) && head.len() == 64 * 1024);
    let counts = pair.finish().await;
    assert_eq!((counts.delivered, counts.dead), (2, 2));
}

#[tokio::test]
async fn one_bad_text_in_a_batch_is_a_dead_letter_and_its_neighbours_are_delivered() {
    let pair = Pair::start().await;
    let bad = [
        r#"{"input":"b","metadata":{"score":NaN}}"#,
        r#"{"input":"b","metadata":{"score":[-Infinity]}}"#,
        r#"{"input":'b'}"#,
        r#"{"input":"b",}"#,
        r#"{"input":undefined}"#,
        r#"{"input":"\x"}"#,
        "{\"input\":\"a\nb\"}",
    ];
    for (n, event) in bad.iter().enumerate() {
        let good = [0, 1].map(|of| format!("{{\"input\":\"x\",\"task_id\":\"t{n}-{of}\"}}"));
        let reply = pair.post("/v2/log/p", batch(&[&good[0], *event, &good[1]])).await;
        assert_eq!(reply.status, 200, "{event}");
        let logged = reply.json()["logged_events"].clone();
        assert!(
            logged[0]["task_id"].is_string() && logged[2]["task_id"].is_string(),
            "{logged}"
        );
        says(
            logged[1]["error_in_log"].as_str().expect("refused"),
            &["not valid JSON", "byte"],
        );
    }
    let mut body = b"{\"batched_log_events\":[{\"input\":\"\xff\"},".to_vec();
    body.extend_from_slice(GOOD.as_bytes());
    body.extend_from_slice(b"]}");
    let reply = pair.post("/v2/log/p", body).await;
    says(
        reply.json()["logged_events"][0]["error_in_log"]
            .as_str()
            .expect("refused"),
        &["UTF-8"],
    );
    let mut lines = Lines::connect(&pair.daemon.unix).await;
    let answer = lines.ask(bad[0]).await;
    says(
        answer["error"].as_str().expect("an error"),
        &["NaN is no value in JSON"],
    );
    assert!(
        lines.ask("nonsense").await["error"].is_string(),
        "no event, and not kept"
    );

    let dead = pair.dead_letters().await;
    let kept: Vec<&str> = dead
        .iter()
        .filter_map(|letter| letter["record"].as_str())
        .collect();
    for event in bad {
        assert!(kept.contains(&event), "{event} is kept; there are {kept:?}");
    }
    says(
        dead[0]["reason"].as_str().expect("text"),
        &["NaN is no value in JSON, null is"],
    );
    let counts = pair.finish().await;
    assert_eq!((counts.delivered, counts.dead), (15, 9));
}

#[tokio::test]
async fn a_truncated_body_stores_nothing_and_is_no_4xx() {
    let pair = Pair::start().await;
    let request = format!(
        "POST /log HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{GOOD}",
        GOOD.len() + 10
    );
    let reply = client::raw_tcp(&pair.daemon.url, request.as_bytes()).await;
    assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 503"), "{reply}");
    assert_eq!(pair.finish().await.accepted, 0);
}

#[tokio::test]
async fn fields_of_the_wrong_type_are_told_at_their_index_and_kept_as_dead_letters() {
    let pair = Pair::start().await;
    let events = [
        r#"{"input":"x","task_id":"good-0"}"#,
        r#"{"input":"x","task_id":7}"#,
        r#"{"input":"x","client_created_at":1.5}"#,
        r#"{"input":null}"#,
        r#"{"output":"no input"}"#,
        r#"{"input":"x","raw_input":[1]}"#,
        r#"{"input":"x","flag":"maybe"}"#,
        r#"{"input":"x","metadata":[]}"#,
        r#""no object""#,
        r#"{"input":"x","task_id":""}"#,
        r#"{"input":"x","task_id":"undefined"}"#,
        r#"{"input":"x","task_id":"good-11"}"#,
        r#"{"input":"x","task_id":"$TASK_ID"}"#,
        r#"{"input":"x","task_id":"[object Object]"}"#,
        r#"{"input":"x","task_id":"order/14"}"#,
    ];
    let reply = pair.post("/v2/log/p", batch(&events)).await;
    assert_eq!(reply.status, 200);
    let logged = reply.json()["logged_events"].as_array().expect("a list").clone();
    assert_eq!(logged.len(), events.len());
    for (index, field) in [
        (1, "task_id"),
        (2, "client_created_at"),
        (3, "input"),
        (4, "input"),
        (5, "raw_input"),
        (6, "flag"),
        (7, "metadata"),
        (8, "object"),
        (9, "task_id"),
        (10, "undefined"),
        (12, "never filled in"),
        (13, "[object Object]"),
    ] {
        says(logged[index]["error_in_log"].as_str().expect("refused"), &[field]);
    }
    assert_eq!(
        (
            &logged[0]["task_id"],
            &logged[11]["task_id"],
            &logged[14]["task_id"]
        ),
        (&json!("good-0"), &json!("good-11"), &json!("order/14"))
    );

    let dead = pair.dead_letters().await;
    let records: Vec<String> = dead.iter().map(|letter| letter["record"].to_string()).collect();
    for event in events[1..11].iter().chain(&events[12..14]) {
        let event: serde_json::Value = serde_json::from_str(event).expect("JSON");
        assert!(
            records.contains(&event.to_string()),
            "{event} is kept; there are {records:?}"
        );
    }
    assert!(
        dead.iter()
            .all(|letter| letter["reason"].as_str().is_some_and(|reason| reason.len() > 10))
    );
    let counts = pair.finish().await;
    assert_eq!((counts.accepted, counts.delivered, counts.dead), (15, 3, 12));
}

#[tokio::test]
async fn log_without_any_project_is_refused_with_the_keys_to_set() {
    let pair = Pair::start_with(|setup| setup.without("upstream.project_id")).await;
    for (path, body) in [
        ("/log", GOOD),
        ("/feedback", r#"{"task_id":"t","flag":"success"}"#),
    ] {
        let reply = pair.post(path, body).await;
        assert_eq!(reply.status, 422, "{path}");
        says(
            &reply.detail(),
            &["upstream.project_id", "PHOSPHO_PROJECT_ID", "project_id"],
        );
    }
    let own = r#"{"input":"x","project_id":"own"}"#;
    assert_eq!(pair.post("/log", own).await.status, 200);
    assert_eq!(pair.finish().await.accepted, 1);
}

#[tokio::test]
async fn feedback_without_a_task_or_with_a_bad_flag_says_why() {
    let pair = Pair::start().await;
    for (path, body, parts) in [
        (
            "/v2/tasks/undefined/flag",
            r#"{"flag":"success"}"#,
            &["undefined"][..],
        ),
        (
            "/v2/tasks/$TASK_ID/flag",
            r#"{"flag":"success"}"#,
            &["task_id", "never filled in"],
        ),
        (
            "/v2/tasks/order%2F17/human-eval",
            r#"{"human_eval":"success"}"#,
            &["task_id", "no URL of the API"],
        ),
        (
            "/feedback",
            r#"{"task_id":"..","flag":"success"}"#,
            &["task_id", "no URL of the API"],
        ),
        (
            "/feedback",
            r#"{"task_id":"","flag":"success"}"#,
            &["task_id", "empty"],
        ),
        ("/feedback", r#"{"flag":"success"}"#, &["task_id"]),
        (
            "/feedback",
            r#"{"task_id":"t","flag":"bad"}"#,
            &["flag", "success", "failure"],
        ),
        ("/feedback", r#"{"task_id":"t"}"#, &["flag"]),
        (
            "/feedback",
            r#"{"task_id":"t","flag":"success","notes":7}"#,
            &["notes"],
        ),
        ("/feedback", r#"[]"#, &["object"]),
    ] {
        let reply = pair.post(path, body).await;
        assert_eq!(reply.status, 422, "{body} to {path}");
        says(&reply.detail(), parts);
    }
    let dead = pair.dead_letters().await;
    let records: Vec<String> = dead.iter().map(|letter| letter["record"].to_string()).collect();
    for record in [
        r#"{"flag":"success","task_id":"undefined"}"#,
        r#"{"flag":"success","task_id":"$TASK_ID"}"#,
        r#"{"human_eval":"success","task_id":"order/17"}"#,
        r#"{"task_id":"t"}"#,
    ] {
        let record: serde_json::Value = serde_json::from_str(record).expect("JSON");
        assert!(
            records.contains(&record.to_string()),
            "{record} is kept; there are {records:?}"
        );
    }
    let counts = pair.finish().await;
    assert_eq!(
        (counts.accepted, counts.dead),
        (9, 9),
        "all but the list are kept"
    );
}

#[tokio::test]
async fn a_bad_line_gets_its_own_error_and_the_connection_goes_on() {
    let pair = Pair::start_with(|setup| setup.with("intake.max_event_bytes", "32 KiB")).await;
    let mut lines = Lines::connect(&pair.daemon.unix).await;
    assert_eq!(lines.ask(GOOD).await["task_id"], "good");
    let long = json!({"input": "x".repeat(40_000)}).to_string();
    for (line, part) in [
        ("{\"input\": ", "EOF"),
        ("not json at all", "expected"),
        ("{\"input\":7}", "input"),
        (
            "{\"kind\":\"feedbak\",\"task_id\":\"t\",\"flag\":\"success\"}",
            "input",
        ),
        (
            "{\"kind\":\"feedback\",\"task_id\":\"undefined\",\"flag\":\"success\"}",
            "undefined",
        ),
        (long.as_str(), "intake.max_event_bytes"),
    ] {
        says(
            lines.ask(line).await["error"].as_str().expect("an error"),
            &[part],
        );
    }
    lines.write(b"{\"input\":\"\xff\"}\n").await;
    says(
        lines.answer().await["error"].as_str().expect("an error"),
        &["UTF-8"],
    );
    assert_eq!(
        lines.ask(&GOOD.replace("good", "after")).await["task_id"],
        "after"
    );
    pair.upstream.stored(2).await;
    let counts = pair.finish().await;
    // What does not look like an event at all is not kept.
    assert_eq!((counts.delivered, counts.dead), (2, 5), "{counts:?}");
}

#[tokio::test]
async fn a_full_spool_that_is_to_drop_takes_all_and_counts_what_it_dropped() {
    let pair = Pair::start_with(|setup| {
        setup
            .with("spool.max_bytes", "1 MiB")
            .with("spool.on_full", "drop_oldest")
            // What is on lease is never dropped, so little of it may be.
            .with("batch.max_bytes", "64 KiB")
            .with("intake.max_body_bytes", "256 KiB")
            .with("intake.max_event_bytes", "128 KiB")
    })
    .await;
    pair.upstream.switch(json!({"down": true})).await;
    for n in 0..60 {
        let event = json!({"input": "x".repeat(40_000), "task_id": format!("t{n}")}).to_string();
        assert_eq!(pair.post("/log", event).await.status, 200, "event {n}");
    }
    let counts = pair.daemon.ledger().await;
    assert_eq!((counts.accepted, counts.dead), (60, 0), "{counts:?}");
    assert!(counts.dropped >= 30, "1 MiB does not hold them: {counts:?}");
    pair.upstream.switch(json!({"down": false})).await;
    let counts = pair.finish().await;
    assert_eq!(counts.delivered + counts.dropped, 60, "{counts:?}");
}

#[tokio::test]
async fn a_full_spool_is_503_with_retry_after_and_what_was_taken_is_delivered() {
    let pair = Pair::start_with(|setup| {
        setup
            .with("spool.max_bytes", "1 MiB")
            .with("intake.max_body_bytes", "256 KiB")
            .with("intake.max_event_bytes", "128 KiB")
    })
    .await;
    pair.upstream.switch(json!({"down": true})).await;
    let event = |n: usize| json!({"input": "x".repeat(40_000), "task_id": format!("t{n}")}).to_string();
    let mut taken = 0;
    let refused = loop {
        assert!(taken < 100, "1 MiB does not hold a hundred events of 40 KB");
        let reply = pair.post("/log", event(taken)).await;
        if reply.status != 200 {
            break reply;
        }
        taken += 1;
    };
    assert_eq!(refused.status, 503);
    assert!(
        refused.headers["retry-after"]
            .to_str()
            .expect("text")
            .parse::<u32>()
            .is_ok()
    );
    says(&refused.detail(), &["spool.max_bytes"]);
    assert!(taken >= 20, "only {taken} fitted");

    pair.upstream.switch(json!({"down": false})).await;
    pair.upstream.stored(taken as u64).await;
    pair.daemon.drained().await;
    assert_eq!(
        pair.post("/log", event(taken)).await.status,
        200,
        "there is room again"
    );
    assert_eq!(pair.finish().await.delivered, taken as u64 + 1);
}

#[tokio::test]
async fn brackets_without_end_neither_crash_nor_fill_memory() {
    let pair = Pair::start().await;
    let brackets = "[".repeat(100_000);
    assert_eq!(
        pair.post("/log", format!("{{\"input\":\"x\",\"deep\":{brackets}"))
            .await
            .status,
        422
    );
    let closed = format!(
        "{{\"input\":\"x\",\"task_id\":\"deep\",\"deep\":{brackets}{}}}",
        "]".repeat(100_000)
    );
    let reply = pair.post("/v2/log/p", batch(&[GOOD, &closed])).await;
    assert_eq!(reply.status, 200);
    says(
        reply.json()["logged_events"][1]["error_in_log"]
            .as_str()
            .expect("refused"),
        &["nested over 200 deep"],
    );
    assert_eq!(pair.post("/log", closed.clone()).await.status, 200);
    let mut lines = Lines::connect(&pair.daemon.unix).await;
    says(
        lines.ask(&closed).await["error"].as_str().expect("refused"),
        &["nested over 200 deep"],
    );
    let open = format!("{{\"input\":\"x\",\"deep\":{brackets}");
    says(
        lines.ask(&open).await["error"].as_str().expect("refused"),
        &["JSON"],
    );
    let feedback = format!(
        "{{\"flag\":\"success\",\"deep\":{brackets}{}}}",
        "]".repeat(100_000)
    );
    assert_eq!(
        pair.post("/v2/tasks/good/flag", feedback).await.status,
        200,
        "what is ignored may be deep"
    );
    pair.upstream.stored(1).await;
    let counts = pair.finish().await;
    assert_eq!(
        (counts.delivered, counts.dead),
        (2, 4),
        "what the API can never take is a dead letter, alone"
    );
}

#[tokio::test]
async fn a_web_page_and_a_foreign_host_are_refused() {
    let pair = Pair::start().await;
    let request = pair
        .client
        .post(pair.at("/log"))
        .header("origin", "https://evil.example")
        .body(GOOD);
    assert_eq!(client::send(request).await.status, 403);
    let request = pair
        .client
        .post(pair.at("/log"))
        .header("host", "evil.example")
        .body(GOOD);
    assert_eq!(client::send(request).await.status, 403);
    assert_eq!(pair.finish().await.accepted, 0);
}
