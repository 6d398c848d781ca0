//! What becomes of events when the API refuses, waits, lies or fails.

use crate::support::Pair;
use crate::support::client::batch;
use serde_json::json;

fn event(id: &str) -> String {
    json!({"input": "x", "task_id": id}).to_string()
}

#[tokio::test]
async fn error_in_log_buries_that_event_alone_with_the_reason() {
    let pair = Pair::start().await;
    pair.upstream
        .switch(json!({"refuse_events": {"b": "the API's own words"}}))
        .await;
    assert_eq!(
        pair.post("/v2/log/p", batch(&[event("a"), event("b"), event("c")]))
            .await
            .status,
        200
    );
    let counts = pair.daemon.drained().await;
    assert_eq!((counts.delivered, counts.dead), (2, 1));
    let dead = pair.dead_letters().await;
    assert_eq!(dead[0]["record"]["task_id"], "b");
    assert!(
        dead[0]["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("the API's own words")),
        "{dead:?}"
    );
    pair.finish().await;
}

#[tokio::test]
async fn what_is_stored_over_quota_is_delivered_and_not_sent_again() {
    let pair = Pair::start().await;
    pair.upstream.switch(json!({"quota": {"p": 2}})).await;
    let events: Vec<String> = (0..5).map(|n| event(&format!("q{n}"))).collect();
    assert_eq!(pair.post("/v2/log/p", batch(&events)).await.status, 200);
    let counts = pair.daemon.drained().await;
    assert_eq!((counts.delivered, counts.dead), (5, 0));
    let state = pair.upstream.state();
    assert_eq!((state.stored, state.duplicates), (5, 0));
    pair.finish().await;
}

#[tokio::test]
async fn one_poison_event_is_buried_alone_and_the_rest_is_delivered_in_order() {
    let pair = Pair::start_with(|setup| setup.with("batch.max_age", "200 ms")).await;
    pair.upstream
        .switch(json!({"fail_events": {"poison": 500}}))
        .await;
    let mut events: Vec<String> = (0..300).map(|n| event(&format!("e{n:03}"))).collect();
    events[137] = event("poison");
    assert_eq!(pair.post("/v2/log/p", batch(&events)).await.status, 200);
    pair.upstream.stored(299).await;
    let counts = pair.daemon.drained().await;
    assert_eq!((counts.delivered, counts.dead), (299, 1));
    let dead = crate::support::dead_letters_text(&pair.daemon).await;
    assert_eq!(dead.matches("\"seq\":").count(), 1, "{dead}");
    assert!(
        dead.contains("\"task_id\":\"poison\"") && dead.contains("\"status\":500"),
        "{dead}"
    );
    let arrived: Vec<_> = pair
        .upstream
        .tasks("p")
        .into_iter()
        .map(|row| row.task_id)
        .collect();
    assert!(arrived.is_sorted(), "order among the good");
    pair.finish().await;
}

#[tokio::test]
async fn what_the_api_takes_and_loses_is_repaired_or_told() {
    let pair = Pair::start().await;
    let tool_call = json!({
        "input": "x", "task_id": "tool-call",
        "raw_input": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": null, "tool_calls": []}],
    });
    let token = json!({"input": "stop at <|endoftext|> please", "task_id": "token", "metadata": {"own": 1}});
    // Nothing that passes the door is known to be lost whatever is done, so the sandbox is told to lose this one.
    pair.upstream.switch(json!({"lose_events": ["number"]})).await;
    let events = [
        event("first"),
        tool_call.to_string(),
        event("middle"),
        token.to_string(),
        event("number"),
        event("last"),
    ];
    assert_eq!(pair.post("/v2/log/p", batch(&events)).await.status, 200);
    let counts = pair.daemon.drained().await;
    for id in ["first", "tool-call", "middle", "token", "last"] {
        assert!(pair.upstream.task(id).is_some(), "{id} is stored");
    }
    assert_eq!((counts.delivered, counts.dead), (5, 1));
    assert_eq!(pair.upstream.event("token")["metadata"]["own"], 1);
    assert_eq!(pair.upstream.event("token")["metadata"]["prompt_tokens"], 0);
    let dead = pair.dead_letters().await;
    assert_eq!(dead[0]["record"]["task_id"], "number");
    assert!(
        dead[0]["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("never stored")),
        "{dead:?}"
    );
    pair.finish().await;
}

#[tokio::test]
async fn a_bad_key_parks_and_a_reload_resumes_at_once() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let key = folder.path().join("key");
    std::fs::write(&key, "wrong").expect("write");
    let mut pair = Pair::start_with(|setup| {
        let setup = setup
            .without("upstream.api_key")
            .with("upstream.api_key_file", key.to_str().expect("text"));
        // No probe of its own comes within the test: only the reload makes it try again.
        setup.with("retry.min", "1 h").with("retry.max", "2 h")
    })
    .await;
    pair.upstream.switch(json!({"keys": ["right"]})).await;
    assert_eq!(pair.post("/v2/log/p", batch(&[event("kept")])).await.status, 200);
    let reason = crate::support::eventually("a parked lane", || async {
        let status = pair.daemon.status().await;
        let lane = status["lanes"].as_array()?.first()?.clone();
        (lane["state"] == "parked").then(|| lane["reason"].as_str().unwrap_or_default().to_owned())
    })
    .await;
    assert!(
        reason.contains("401") && reason.contains("api_key_file"),
        "{reason}"
    );
    assert_eq!(pair.upstream.state().stored, 0);

    std::fs::write(&key, "right").expect("write");
    pair.daemon.signal(rustix::process::Signal::HUP);
    pair.daemon
        .logged("configuration reloaded: parked lanes try again at once")
        .await;
    pair.upstream.stored(1).await;
    assert_eq!(pair.finish().await.delivered, 1);
}

#[tokio::test]
async fn a_bad_project_holds_up_no_other() {
    let pair = Pair::start().await;
    pair.upstream.switch(json!({"projects": {"gone": 404}})).await;
    assert_eq!(
        pair.post("/v2/log/gone", batch(&[event("kept")])).await.status,
        200
    );
    for n in 0..20 {
        assert_eq!(
            pair.post("/v2/log/fine", batch(&[event(&format!("f{n}"))]))
                .await
                .status,
            200
        );
    }
    pair.upstream.stored(20).await;
    assert!(pair.upstream.task("kept").is_none());
    pair.upstream.switch(json!({"projects": {}})).await;
    pair.upstream.stored(21).await;
    let counts = pair.finish().await;
    assert_eq!((counts.delivered, counts.dead), (21, 0));
}

#[tokio::test]
async fn passing_faults_of_every_kind_end_in_delivery_once() {
    let pair = Pair::start_with(|setup| setup.with("upstream.timeout", "1 s")).await;
    let faults = [
        json!({"status": 503, "retry_after": 0, "times": 2}),
        json!({"status": 429, "retry_after": "0", "times": 1}),
        json!({"status": 500, "times": 1}),
        json!({"truncate_reply": true, "times": 1}),
        json!({"garbage": true, "times": 1}),
        json!({"drop_reply": true, "times": 1}),
        json!({"close_after_reply": true, "times": 3}),
        json!({"delay_ms": 3000, "times": 1}),
    ];
    for (n, fault) in faults.iter().enumerate() {
        pair.upstream.switch(fault.clone()).await;
        assert_eq!(
            pair.post("/v2/log/p", batch(&[event(&format!("x{n}"))]))
                .await
                .status,
            200,
            "{fault}"
        );
        pair.upstream.stored(n as u64 + 1).await;
        pair.daemon.drained().await;
        pair.upstream
            .switch(
                json!({"status": null, "retry_after": null, "truncate_reply": false, "garbage": false,
            "drop_reply": false, "close_after_reply": false, "delay_ms": 0, "times": null}),
            )
            .await;
    }
    let counts = pair.finish().await;
    assert_eq!((counts.delivered, counts.dead), (faults.len() as u64, 0));
}

#[tokio::test]
async fn several_batches_in_flight_lose_and_double_nothing() {
    let pair = Pair::start_with(|setup| {
        setup
            .with("delivery.concurrency", "4")
            .with("batch.max_events", "10")
    })
    .await;
    pair.upstream.switch(json!({"delay_ms": 20})).await;
    let events: Vec<String> = (0..1000).map(|n| event(&format!("c{n}"))).collect();
    assert_eq!(pair.post("/v2/log/p", batch(&events)).await.status, 200);
    pair.upstream.stored(1000).await;
    let counts = pair.daemon.drained().await;
    assert_eq!((counts.delivered, counts.dead), (1000, 0));
    assert_eq!(pair.upstream.state().duplicates, 0);
    pair.finish().await;
}

#[tokio::test]
async fn feedback_waits_for_its_log_and_is_counted_once() {
    let pair = Pair::start().await;
    pair.upstream.switch(json!({"status": 503})).await;
    for n in 0..30 {
        assert_eq!(pair.post("/log", event(&format!("t{n}"))).await.status, 200);
        let feedback = json!({"task_id": format!("t{n}"), "flag": "failure", "notes": format!("{n}")});
        assert_eq!(pair.post("/feedback", feedback.to_string()).await.status, 200);
    }
    pair.upstream.switch(json!({"status": null})).await;
    pair.upstream.evaluated(30).await;
    for n in 0..30 {
        let evals = pair.upstream.evals(&format!("t{n}"));
        assert_eq!(evals.len(), 1, "t{n}: {evals:?}");
        assert_eq!(evals[0].notes.as_deref(), Some(n.to_string().as_str()));
    }
    assert_eq!(pair.upstream.state().early_evals, 0, "none came before its log");
    assert_eq!(pair.finish().await.delivered, 60);
}

#[tokio::test]
async fn a_feedback_whose_answer_is_lost_is_not_counted_twice() {
    let pair = Pair::start().await;
    assert_eq!(pair.post("/log", event("t")).await.status, 200);
    pair.upstream.stored(1).await;
    pair.daemon.drained().await;
    pair.upstream
        .switch(json!({"drop_reply": true, "times": 1}))
        .await;
    assert_eq!(
        pair.post("/feedback", r#"{"task_id":"t","flag":"success"}"#)
            .await
            .status,
        200
    );
    pair.daemon.drained().await;
    assert_eq!(pair.upstream.evals("t").len(), 1);
    pair.finish().await;
}

#[tokio::test]
async fn a_feedback_for_a_task_that_never_comes_is_buried_with_the_reason() {
    let pair = Pair::start_with(|setup| setup.with("feedback.wait_max", "1 s")).await;
    assert_eq!(
        pair.post("/feedback", r#"{"task_id":"nobody","flag":"success"}"#)
            .await
            .status,
        200
    );
    let counts = pair.daemon.drained().await;
    assert_eq!((counts.delivered, counts.dead), (0, 1));
    let dead = pair.dead_letters().await;
    assert_eq!(dead[0]["kind"], "feedback");
    assert!(
        dead[0]["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("feedback.wait_max")),
        "{dead:?}"
    );
    pair.finish().await;
}

#[tokio::test]
async fn without_a_key_events_are_only_queued_and_that_is_said() {
    let pair = Pair::start_with(|setup| setup.without("upstream.api_key")).await;
    assert_eq!(pair.post("/log", event("kept")).await.status, 200);
    let lane = crate::support::eventually("the lane", || async {
        let status = pair.daemon.status().await;
        let lane = status["lanes"].as_array()?.first()?.clone();
        (lane["state"] == "queueing_only").then_some(lane)
    })
    .await;
    assert!(
        lane["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("PHOSPHO_API_KEY")),
        "{lane}"
    );
    assert_eq!(pair.upstream.state().requests, 0);
    assert_eq!(pair.daemon.ledger().await.queued, 1);
}

#[tokio::test]
async fn an_upstream_that_never_shows_a_task_turns_no_queue_into_dead_letters() {
    let pair = Pair::start_with(|setup| {
        setup
            .with("retry.min", "500 ms")
            .with("retry.max", "3 s")
            .with("delivery.confirm_patience", "20 ms")
    })
    .await;
    pair.upstream
        .switch(json!({"only": ["task"], "status": 404, "detail": "Task not found"}))
        .await;
    let events: Vec<String> = (0..20).map(|n| event(&format!("s{n}"))).collect();
    assert_eq!(pair.post("/v2/log/p", batch(&events)).await.status, 200);
    // The batch and its 5 looks; each event alone and 5 looks each; the same without token counts; then one round more.
    pair.upstream
        .reached("requests", 6 + 2 * (20 + 100) + 20, |state| state.requests)
        .await;
    assert_eq!(pair.daemon.ledger().await.dead, 0);
    pair.upstream.switch(json!({"only": [], "status": null})).await;
    let counts = pair.finish().await;
    assert_eq!((counts.delivered, counts.dead), (20, 0));
}
