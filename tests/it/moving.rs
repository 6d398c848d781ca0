//! `phosphod spool move`: what is queued of a project goes to another one, with the daemon stopped and running.

use crate::support::Pair;
use crate::support::client;
use crate::support::eventually;
use crate::support::load::event;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};

const WRONG: &str = "wrong-id";
const RIGHT: &str = "right-id";
const EVENTS: usize = 1_200;

fn spool_move(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_phosphod"))
        .args(["spool", "move"])
        .args(args)
        .env_clear()
        .current_dir("/")
        .output()
        .expect("the binary runs")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temp path is text")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn id(n: usize) -> String {
    format!("task-{n}")
}

/// A daemon with logs and feedback of a project that the API does not know, and some of another one.
async fn misdirected() -> Pair {
    let pair = Pair::start_with(|setup| setup.with("spool.generation_bytes", "1 MiB")).await;
    pair.upstream.switch(json!({"projects": {WRONG: 404}})).await;
    for first in (0..EVENTS).step_by(300) {
        let events: Vec<Value> = (first..first + 300)
            .map(|n| {
                let mut event = event(&id(n), 2_000);
                // Some name the project themselves, as the SDKs do; the others are stamped.
                if n % 3 == 0 {
                    event["project_id"] = json!(WRONG);
                }
                event
            })
            .collect();
        let body = json!({"batched_log_events": events}).to_string();
        assert_eq!(pair.post(&format!("/v2/log/{WRONG}"), body).await.status, 200);
    }
    for n in [3, 700] {
        let body = json!({"flag": "success", "project_id": WRONG, "notes": "good"}).to_string();
        let reply = pair.post(&format!("/v2/tasks/{}/human-eval", id(n)), body).await;
        assert_eq!(reply.status, 200);
    }
    let parked = |status: &Value| {
        let lanes = status["lanes"].as_array().cloned().unwrap_or_default();
        lanes
            .iter()
            .any(|lane| lane["project"] == WRONG && lane["state"] == "parked")
    };
    eventually("the lane is parked", || async {
        parked(&pair.daemon.status().await).then_some(())
    })
    .await;
    pair
}

/// Everything arrived at the right project, once, in order, and so did the feedback.
async fn arrived(pair: Pair) {
    pair.upstream.stored(EVENTS as u64).await;
    pair.upstream.evaluated(2).await;
    let tasks: Vec<String> = pair
        .upstream
        .tasks(RIGHT)
        .into_iter()
        .map(|task| task.task_id)
        .collect();
    assert_eq!(tasks, (0..EVENTS).map(id).collect::<Vec<_>>());
    assert_eq!(pair.upstream.tasks(WRONG).len(), 0);
    for n in [3, 700] {
        let evals = pair.upstream.evals(&id(n));
        assert_eq!(evals.len(), 1, "{evals:?}");
    }
    let stored = pair.upstream.event(&id(3));
    assert_eq!(stored["project_id"], RIGHT);
    assert!(pair.dead_letters().await.is_empty());
    let counts = pair.finish().await;
    assert_eq!(
        (counts.accepted, counts.delivered, counts.dead, counts.dropped),
        (EVENTS as u64 + 2, EVENTS as u64 + 2, 0, 0)
    );
}

#[tokio::test]
async fn the_running_daemon_moves_a_parked_lane_and_delivers_it() {
    let pair = misdirected().await;
    let hints = pair.daemon.status().await["hints"].to_string();
    assert!(hints.contains("phosphod spool move --from"), "{hints}");
    let socket = pair.daemon.unix.clone();
    let output = tokio::task::spawn_blocking(move || {
        spool_move(&["--socket", text(&socket), "--from", WRONG, "--to", RIGHT])
    });
    let output = output.await.expect("it ran");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!("moved {EVENTS} log events and 2 feedback from {WRONG} to {RIGHT}\n")
    );
    arrived(pair).await;
}

#[tokio::test]
async fn a_stopped_data_folder_is_moved_and_delivered_after_the_next_start() {
    let mut pair = misdirected().await;
    pair.daemon.kill_hard();
    let data = pair.setup.data.clone();
    let path = ["--path", text(&data)];
    let to = |from: &'static str, to: &'static str| {
        spool_move(&[path.as_slice(), &["--from", from, "--to", to]].concat())
    };

    for (from, new, part) in [
        (WRONG, "\"right-id\"", "--to: project_id has quotation marks"),
        ("", RIGHT, "--from: project_id is empty"),
    ] {
        let output = to(from, new);
        assert_eq!(output.status.code(), Some(2));
        assert!(said(&output).contains(part), "{}", said(&output));
    }
    let same = to(WRONG, WRONG);
    assert!(
        said(&same).contains("both projects are the same"),
        "{}",
        said(&same)
    );
    let none = to("never-used", RIGHT);
    assert_eq!(
        String::from_utf8_lossy(&none.stdout),
        format!("moved 0 log events and 0 feedback from never-used to {RIGHT}\n")
    );

    // By way of a third, to see that what was moved can be moved again.
    for (from, new) in [(WRONG, "third"), ("third", RIGHT)] {
        let output = to(from, new);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(
            told,
            format!("moved {EVENTS} log events and 2 feedback from {from} to {new}\n")
        );
    }
    pair.daemon = pair.setup.start().await;
    arrived(pair).await;
}

#[tokio::test]
async fn a_folder_in_use_is_moved_by_its_daemon_and_the_route_is_on_the_unix_socket_alone() {
    let pair = misdirected().await;
    let reply = pair
        .post("/lanes/move", json!({"from": WRONG, "to": RIGHT}).to_string())
        .await;
    assert_eq!(reply.status, 403, "{reply:?}");
    let unix = client::unix(&pair.daemon.unix);
    for (body, part) in [
        (json!({"from": WRONG}), "two project ids"),
        (json!({"from": WRONG, "to": " x"}), "to: project_id has blanks"),
        (json!({"from": "..", "to": "x"}), "from: project_id is"),
    ] {
        let request = unix
            .post("http://localhost/lanes/move")
            .header("content-type", "application/json");
        let reply = client::send(request.body(body.to_string())).await;
        let told = String::from_utf8_lossy(&reply.body).into_owned();
        assert!(reply.status == 422 && told.contains(part), "{told}");
    }
    let (data, socket) = (pair.setup.data.clone(), pair.daemon.unix.clone());
    let output = tokio::task::spawn_blocking(move || {
        let set = format!("intake.unix={}", text(&socket));
        spool_move(&[
            "--path",
            text(&data),
            "--set",
            &set,
            "--from",
            WRONG,
            "--to",
            RIGHT,
        ])
    });
    let output = output.await.expect("it ran");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    arrived(pair).await;
}
