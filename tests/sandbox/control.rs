//! The control plane, and what the contract does not know.

use super::support::{Bench, Headers, JSON, KEY, LONG, Wire, batch, event};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn what_the_contract_does_not_know_is_a_surprise() {
    let bench = Bench::new().await;
    let good = batch(&[&event("a")]);
    let deep = format!(r#"{{"input":"i","x":{}{}}}"#, "[".repeat(400), "]".repeat(400));
    let odd: [(&str, &str, Headers<'_>, String); 13] = [
        ("GET", "/", &[], String::new()),
        ("GET", "/v2/projects/p", &[KEY], String::new()),
        ("POST", "/v3/log", &[KEY, JSON], good.clone()),
        ("OPTIONS", "/v2/tasks/t/flag", &[], String::new()),
        ("POST", "/v2/tasks", &[KEY, JSON], good.clone()),
        ("POST", "/v2/log/%FF", &[KEY, JSON], good.clone()),
        ("POST", "/v2/log/p?x=1", &[KEY, JSON], good.clone()),
        (
            "POST",
            "/v2/log/p",
            &[KEY, JSON, ("content-encoding", "zstd")],
            good.clone(),
        ),
        (
            "POST",
            "/v2/log/p",
            &[KEY, JSON, ("content-encoding", "gzip")],
            good.clone(),
        ),
        ("POST", "/v2/log/p", &[KEY, ("content-type", "image/png")], good),
        ("POST", "/v2/log/p", &[KEY, JSON], batch(&[&deep])),
        (
            "POST",
            "/v2/tasks/a/flag",
            &[KEY, JSON],
            r#"{"flag":"success","source":null}"#.into(),
        ),
        ("POST", "/v2/tasks/a", &[KEY, JSON], r#"{"input":"other"}"#.into()),
    ];
    for (at, (method, path, headers, body)) in odd.iter().enumerate() {
        let answer = bench.send(method, path, headers, body.as_str()).await;
        assert_eq!(answer.status, 501, "{method} {path}: {}", answer.body);
        let surprises = bench.sandbox.state().surprises;
        assert_eq!(surprises.len(), at + 1, "{method} {path}");
        assert!(
            answer.body.is_empty()
                || answer.json()["detail"]
                    .as_str()
                    .is_some_and(|d| d.ends_with(&surprises[at]))
        );
    }
    let mut wire = Wire::open(&bench).await.expect("up");
    wire.write(b"\x16\x03\x01 this is TLS\r\n\r\n")
        .await
        .expect("sent");
    bench
        .sandbox
        .wait_for(LONG, |state| state.surprises.len() > odd.len())
        .await
        .expect("noticed");
    assert_eq!(bench.sandbox.state().stored, 0);
}

#[tokio::test]
async fn waiting_ends_with_the_counts_when_they_are_reached_or_the_time_is_over() {
    let bench = Bench::new().await;
    let wait = bench.get("/sandbox/wait?stored=2&requests=1&timeout_ms=100000");
    let events = [event("a"), event("b")];
    let events = [events[0].as_str(), events[1].as_str()];
    let log = bench.log(&events);
    let (wait, _) = tokio::join!(wait, log);
    assert_eq!((wait.status, wait.json()["stored"].as_u64()), (200, Some(2)));

    let over = bench.get("/sandbox/wait?stored=3&timeout_ms=1").await;
    assert_eq!((over.status, over.json()["stored"].as_u64()), (408, Some(2)));
    let state = bench
        .sandbox
        .wait_for(Duration::ZERO, |state| state.stored > 2)
        .await
        .expect_err("over");
    assert_eq!(state.stored, 2);
    for bad in ["stord=1", "stored=x", "timeout_ms=-1"] {
        assert_eq!(
            bench.get(&format!("/sandbox/wait?{bad}")).await.status,
            400,
            "{bad}"
        );
    }
}

#[tokio::test]
async fn unknown_switches_and_routes_are_refused_with_the_known_ones() {
    let bench = Bench::new().await;
    let refused = bench
        .send("PUT", "/sandbox/switches", &[], r#"{"down":true,"dwon":true}"#)
        .await;
    assert_eq!(refused.status, 400);
    assert!(
        refused.body.contains("dwon") && refused.body.contains("close_after_reply"),
        "{}",
        refused.body
    );
    assert_eq!(
        bench.get("/sandbox/switches").await.json()["down"],
        false,
        "nothing is changed"
    );
    assert_eq!(bench.send("PUT", "/sandbox/switches", &[], "{").await.status, 400);
    let unknown = bench.get("/sandbox/nothing").await;
    assert!(unknown.status == 404 && unknown.body.contains("/sandbox/reset"));
    assert!(
        bench.sandbox.state().surprises.is_empty(),
        "the control plane is not the API"
    );
}

#[tokio::test]
async fn the_control_routes_are_on_the_api_listener_too() {
    let bench = Bench::new().await;
    let url = format!("{}/sandbox/state", bench.sandbox.base_url());
    let reply = bench.client.get(url).send().await.expect("a reply");
    assert_eq!(reply.status().as_u16(), 200);
    assert_eq!(bench.sandbox.state().requests, 0, "not counted as an API request");
}

#[tokio::test]
async fn reset_forgets_everything() {
    let bench = Bench::with(json!({"delay_ms": 1, "quota": {"p": 0}})).await;
    bench.log(&[&event("a")]).await;
    bench.get("/nowhere").await;
    let state = bench.send("POST", "/sandbox/reset", &[], "").await.json();
    assert_eq!(
        (&state["stored"], &state["requests"], &state["surprises"]),
        (&json!(0), &json!(0), &json!([]))
    );
    assert!(bench.ids().is_empty() && bench.sandbox.logs(None).is_empty());
    let reply = bench.log(&[&event("a")]).await.json();
    assert_eq!(reply["logged_events"][0]["task_id"], "a");
}

#[tokio::test]
async fn shutting_down_drops_connections_and_gives_the_last_counts() {
    let bench = Bench::new().await;
    let mut wire = Wire::open(&bench).await.expect("up");
    wire.log(&batch(&[&event("a")])).await.expect("up");
    let state = bench.sandbox.shutdown().await;
    assert_eq!(state.stored, 1);
    assert!(wire.log(&batch(&[&event("b")])).await.is_err());
}

#[tokio::test]
async fn the_control_plane_is_closed_to_web_pages_and_to_other_names_of_this_machine() {
    let bench = Bench::new().await;
    bench.log(&[&event("a")]).await;
    for (headers, status) in [
        (&[("host", "evil.example")] as Headers<'_>, 403),
        (&[("host", "127.0.0.1.evil.example:1")], 403),
        (&[("origin", "http://evil.example")], 403),
        (&[("origin", "null")], 403),
        (&[("host", "localhost:4712")], 200),
    ] {
        for path in ["/sandbox/state", "/sandbox/tasks"] {
            let reply = bench.send("GET", path, headers, "").await;
            assert_eq!(reply.status, status, "{path} {headers:?}: {reply:?}");
        }
        let reply = bench
            .send("PUT", "/sandbox/switches", headers, r#"{"down":false}"#)
            .await;
        assert_eq!(reply.status, status, "{headers:?}: {reply:?}");
    }
}
