//! What becomes of feedback whose log, answer or route is missing.

use crate::support::Pair;
use crate::support::client::{batch, send};
use serde_json::{Value, json};

fn event(id: &str) -> String {
    json!({"input": "x", "task_id": id}).to_string()
}

async fn feedback(pair: &Pair, id: &str) {
    let body = json!({"task_id": id, "flag": "success", "notes": id});
    assert_eq!(pair.post("/feedback", body.to_string()).await.status, 200);
}

/// The dead letter of a task's feedback.
async fn dead_feedback(pair: &Pair, id: &str) -> Value {
    let all = pair.dead_letters().await;
    let found = all
        .iter()
        .find(|letter| letter["kind"] == "feedback" && letter["record"]["task_id"] == id);
    found
        .unwrap_or_else(|| panic!("no dead feedback of {id} in {all:?}"))
        .clone()
}

#[tokio::test]
async fn a_kill_right_after_a_post_does_not_count_it_twice() {
    let mut pair = Pair::start().await;
    for n in 0..20 {
        assert_eq!(pair.post("/log", event(&format!("t{n}"))).await.status, 200);
    }
    pair.upstream.stored(20).await;
    pair.daemon.drained().await;
    // Each post counts and its answer is lost: the daemon dies in doubt, with nothing written down.
    pair.upstream
        .switch(json!({"drop_reply": true, "only": ["feedback", "task"]}))
        .await;
    for n in 0..20 {
        feedback(&pair, &format!("t{n}")).await;
    }
    pair.upstream.evaluated(1).await;
    pair.daemon.kill_hard();
    let counted = pair.upstream.state().evals;
    pair.upstream
        .switch(json!({"drop_reply": false, "only": []}))
        .await;
    let before = pair.upstream.state().requests;
    pair.daemon = pair.setup.start().await;
    let counts = pair.daemon.drained().await;
    assert_eq!((counts.delivered, counts.dead), (40, 0));
    for n in 0..20 {
        let id = format!("t{n}");
        assert_eq!(
            pair.upstream.evals(&id).len(),
            1,
            "{id}, {counted} were counted before the kill"
        );
    }
    // One look each, and a post for those that had not counted.
    assert_eq!(pair.upstream.state().requests - before, 20 + 20 - counted);
    pair.finish().await;
}

#[tokio::test]
async fn feedback_on_a_log_that_was_given_up_is_given_up_at_once_and_says_so() {
    let mut pair = Pair::start().await;
    pair.upstream
        .switch(json!({"refuse_events": {"upstream": "the API's own words"}}))
        .await;
    let door = r#"{"input":"x","task_id":"door","metadata":[]}"#.to_owned();
    let reply = pair
        .post(
            "/v2/log/default-project",
            batch(&[door, event("upstream"), event("good")]),
        )
        .await;
    assert_eq!(reply.status, 200);
    for id in ["door", "upstream", "good"] {
        feedback(&pair, id).await;
    }
    let counts = pair.daemon.drained().await;
    assert_eq!((counts.delivered, counts.dead), (2, 4));
    for (id, why) in [
        ("door", "metadata is a list"),
        ("upstream", "the API's own words"),
    ] {
        let letter = dead_feedback(&pair, id).await;
        let reason = letter["reason"].as_str().expect("a text");
        let log = pair.dead_letters().await;
        let log = log
            .iter()
            .find(|letter| letter["kind"] == "log" && letter["record"]["task_id"] == id)
            .expect("its log");
        let number = format!("(dead letter {})", log["number"]);
        for part in ["its log event was given up", why, &number] {
            assert!(reason.contains(part), "{part:?} is not in {reason:?}");
        }
    }
    // What a process before this one buried is known as well.
    pair.daemon.kill_hard();
    pair.daemon = pair.setup.start().await;
    feedback(&pair, "door").await;
    assert_eq!(pair.daemon.drained().await.dead, 5);
    pair.finish().await;
}

#[tokio::test]
async fn feedback_on_a_task_that_this_daemon_never_saw_goes() {
    let pair = Pair::start().await;
    let logged_elsewhere = pair
        .client
        .post(format!("{}/v2/log/default-project", pair.upstream.url()))
        .header("content-type", "application/json")
        .header("authorization", "Bearer test-key")
        .body(batch(&[event("elsewhere")]));
    assert_eq!(send(logged_elsewhere).await.status, 200);
    feedback(&pair, "elsewhere").await;
    pair.upstream.evaluated(1).await;
    assert_eq!(pair.upstream.state().early_evals, 0);
    let counts = pair.finish().await;
    assert_eq!((counts.delivered, counts.dead), (1, 0));
}

#[tokio::test]
async fn a_missing_route_parks_feedback_with_the_remedy_and_buries_none() {
    let pair = Pair::start_with(|setup| setup.with("feedback.wait_max", "1 s")).await;
    assert_eq!(pair.post("/log", event("t")).await.status, 200);
    pair.upstream.stored(1).await;
    pair.upstream
        .switch(json!({"status": 404, "detail": "Not Found", "only": ["feedback"]}))
        .await;
    feedback(&pair, "t").await;
    let reason = crate::support::eventually("a parked lane", || async {
        let status = pair.daemon.status().await;
        let lanes = status["lanes"].as_array()?;
        let lane = lanes.iter().find(|lane| lane["state"] == "parked")?;
        Some(lane["reason"].as_str().unwrap_or_default().to_owned())
    })
    .await;
    assert!(reason.contains("upstream.base_url"), "{reason}");
    pair.upstream
        .reached("refused probes", 3, |state| state.failed_requests)
        .await;
    pair.upstream.switch(json!({"status": null, "only": []})).await;
    pair.upstream.evaluated(1).await;
    let counts = pair.finish().await;
    assert_eq!((counts.delivered, counts.dead), (2, 0));
}
