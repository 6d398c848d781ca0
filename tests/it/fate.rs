//! `phosphod event` and `GET /events/{task_id}`: what became of one event.

use crate::dead_letters::{code, log, phosphod, printed, said};
use crate::support::daemon::{Daemon, Setup};
use crate::support::upstream::Upstream;
use crate::support::{Pair, client, eventually};
use serde_json::{Value, json};

fn event(daemon: &Daemon, task: &str) -> String {
    printed(&phosphod(daemon, &["event", task], &[]))
}

async fn judge(pair: &Pair, task: &str) {
    let body = json!({"flag": "success", "task_id": task, "project_id": "p"});
    let reply = pair.post("/feedback", body.to_string()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fate_of_an_event_is_told_in_each_of_its_states() {
    let pair = Pair::start().await;
    // Dead at the door, and an id that a URL cannot carry as it is.
    let odd = "a/b ü?#%2F";
    log(&pair, "p", &[json!({"input": 1, "task_id": odd})]).await;
    let told = event(&pair.daemon, odd);
    assert!(
        told.contains("log of project p: dead letter 1,") && told.contains("input is an integer"),
        "{told}"
    );

    // Delivered: read back; for feedback, answered.
    log(&pair, "p", &[json!({"input": "a", "task_id": "t"})]).await;
    judge(&pair, "t").await;
    pair.upstream.evaluated(1).await;
    pair.daemon.drained().await;
    let told = event(&pair.daemon, "t");
    assert!(
        told.contains("log of project p: delivered at") && told.contains("(confirmed: it was read back)"),
        "{told}"
    );
    assert!(
        told.contains("feedback of project p: delivered at") && told.contains("not confirmed"),
        "{told}"
    );

    // Stored over quota.
    pair.upstream.switch(json!({"quota": {"poor": 0}})).await;
    log(&pair, "poor", &[json!({"input": "a", "task_id": "over"})]).await;
    pair.daemon.drained().await;
    let told = event(&pair.daemon, "over");
    assert!(told.contains("over quota"), "{told}");

    // In flight, as its upstream is down, and feedback that waits behind it.
    pair.upstream.switch(json!({"down": true})).await;
    log(
        &pair,
        "p",
        &[
            json!({"input": "a", "task_id": "u"}),
            json!({"input": "b", "task_id": "v"}),
        ],
    )
    .await;
    judge(&pair, "u").await;
    judge(&pair, "v").await;
    let told = eventually("the log to be in flight", || async {
        let told = event(&pair.daemon, "v");
        (told.contains("log of project p: in flight") && told.contains("backing_off")).then_some(told)
    })
    .await;
    assert!(told.contains("feedback of project p: queued since"), "{told}");
    assert!(told.contains("1 before it in its lane"), "{told}");
    let answer = printed(&phosphod(&pair.daemon, &["event", "v", "--json"], &[]));
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    let states: Vec<_> = answer["records"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|record| &record["state"])
        .collect();
    assert_eq!(states, ["in_flight", "queued"]);
    assert_eq!(answer["records"][1]["ahead"], 1);

    // Never seen.
    let output = phosphod(&pair.daemon, &["event", "nobody"], &[]);
    assert_eq!(code(&output), 1);
    assert!(
        said(&output).contains("since the daemon started"),
        "{}",
        said(&output)
    );
    pair.upstream.switch(json!({"down": false})).await;
    pair.daemon.drained().await;
    assert!(event(&pair.daemon, "v").contains("confirmed: it was read back"));
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_or_confirmation_the_fate_says_so() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let upstream = Upstream::start().await;
    let setup = Setup::new(folder.path(), &upstream.url()).with("delivery.confirm", "false");
    let keyless = setup.clone().without("upstream.api_key");
    let daemon = keyless.start().await;
    let events = [
        json!({"input": "a", "task_id": "a"}),
        json!({"input": "b", "task_id": "b"}),
    ];
    let body = json!({"batched_log_events": events}).to_string();
    client::post(&reqwest::Client::new(), &format!("{}/v2/log/p", daemon.url), body).await;
    let told = eventually("the lane to say why", || async {
        let told = event(&daemon, "b");
        told.contains("queueing_only").then_some(told)
    })
    .await;
    assert!(
        told.contains("log of project p: queued since") && told.contains("1 before it in its lane"),
        "{told}"
    );
    assert!(told.contains("no API key for project p"), "{told}");
    assert!(daemon.terminate().await.success());

    let daemon = setup.start().await;
    upstream.stored(2).await;
    daemon.drained().await;
    let told = event(&daemon, "b");
    assert!(told.contains("not confirmed"), "{told}");
    assert!(daemon.terminate().await.success());

    // The memory is of one process; what that means is told.
    let daemon = setup.start().await;
    let output = phosphod(&daemon, &["event", "b"], &[]);
    assert_eq!(code(&output), 1);
    assert!(
        said(&output).contains("delivered before that"),
        "{}",
        said(&output)
    );
    upstream.finish().await;
}
