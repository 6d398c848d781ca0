//! `phosphod spool move`: what is queued of a project goes to another one, with the daemon stopped and running, and whatever is
//! killed meanwhile.

use crate::support::Pair;
use crate::support::client;
use crate::support::daemon::Setup;
use crate::support::eventually;
use crate::support::load::event;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const WRONG: &str = "wrong-id";
const RIGHT: &str = "right-id";
const EVENTS: usize = 1_200;
/// So many that a move takes a dozen commits.
const MANY_EVENTS: usize = 6_000;
/// Every so many events one gets a feedback.
const JUDGED: usize = 60;

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phosphod"));
    command
        .args(["spool", "move"])
        .args(args)
        .env_clear()
        .current_dir("/");
    command
}

fn spool_move(args: &[&str]) -> Output {
    command(args).output().expect("the binary runs")
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

fn judged(events: usize) -> impl Iterator<Item = usize> {
    (0..events).step_by(JUDGED)
}

fn feedback(events: usize) -> u64 {
    judged(events).count() as u64
}

fn queued(status: &Value, project: &str, kind: &str) -> u64 {
    let lanes = status["lanes"].as_array().cloned().unwrap_or_default();
    let own = |lane: &&Value| lane["project"] == project && lane["kind"] == kind;
    let own = lanes.iter().find(own);
    own.and_then(|lane| lane["queued"].as_u64()).unwrap_or_default()
}

/// A daemon with logs and feedback of a project that the API does not know.
async fn misdirected(events: usize) -> Pair {
    stuck(events, None, "parked").await
}

/// The same, with another base URL if one is given, and the state of the log lane that comes of it.
async fn stuck(events: usize, base_url: Option<&str>, state: &str) -> Pair {
    let adjust = |setup: Setup| match base_url {
        Some(url) => setup.with("upstream.base_url", url),
        None => setup,
    };
    let pair = Pair::start_with(|setup| adjust(setup.with("spool.generation_bytes", "1 MiB"))).await;
    pair.upstream.switch(json!({"projects": {WRONG: 404}})).await;
    for first in (0..events).step_by(300) {
        let numbers = first..first + 300;
        let batch: Vec<Value> = numbers
            .clone()
            .map(|n| {
                let mut event = event(&id(n), 2_000);
                // Some name the project themselves, as the SDKs do; the others are stamped.
                if n % 3 == 0 {
                    event["project_id"] = json!(WRONG);
                }
                event
            })
            .collect();
        let body = json!({"batched_log_events": batch}).to_string();
        assert_eq!(pair.post(&format!("/v2/log/{WRONG}"), body).await.status, 200);
        for n in judged(events).filter(|n| numbers.contains(n)) {
            let body = json!({"flag": "success", "project_id": WRONG, "notes": "good"}).to_string();
            let reply = pair.post(&format!("/v2/tasks/{}/human-eval", id(n)), body).await;
            assert_eq!(reply.status, 200);
        }
    }
    is_stuck(&pair, state).await;
    pair
}

/// Waits until a lane of the wrong project is in this state.
async fn is_stuck(pair: &Pair, state: &str) {
    let is_stuck = |status: &Value| {
        let lanes = status["lanes"].as_array().cloned().unwrap_or_default();
        lanes
            .iter()
            .any(|lane| lane["project"] == WRONG && lane["state"] == state)
    };
    eventually("the lane is stuck", || async {
        is_stuck(&pair.daemon.status().await).then_some(())
    })
    .await;
}

/// Everything arrived at the right project, once, and so did the feedback, none of it before its log. In order, but
/// for what a kill had sent twice.
async fn arrived(pair: Pair, events: usize, in_order: bool) {
    pair.upstream.stored(events as u64).await;
    pair.upstream.evaluated(feedback(events)).await;
    let tasks: Vec<String> = pair
        .upstream
        .tasks(RIGHT)
        .into_iter()
        .map(|task| task.task_id)
        .collect();
    if in_order {
        assert_eq!(tasks, (0..events).map(id).collect::<Vec<_>>());
    }
    assert_eq!(
        tasks.into_iter().collect::<BTreeSet<_>>(),
        (0..events).map(id).collect()
    );
    assert_eq!(pair.upstream.tasks(WRONG).len(), 0);
    for n in judged(events) {
        let evals = pair.upstream.evals(&id(n));
        assert_eq!(evals.len(), 1, "{evals:?}");
    }
    let state = pair.upstream.state();
    assert_eq!(state.early_evals, 0, "no feedback came before its log");
    assert_eq!(
        state.projects.get(WRONG).map_or(0, |wrong| wrong.evals),
        0,
        "nor under the wrong project"
    );
    let stored = pair.upstream.event(&id(3));
    assert_eq!(stored["project_id"], RIGHT);
    assert!(pair.dead_letters().await.is_empty());
    let counts = pair.finish().await;
    let all = events as u64 + feedback(events);
    assert_eq!(
        (counts.accepted, counts.delivered, counts.dead, counts.dropped),
        (all, all, 0, 0)
    );
}

#[tokio::test]
async fn the_running_daemon_moves_a_parked_lane_and_delivers_it() {
    let pair = misdirected(EVENTS).await;
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
        format!("moved {EVENTS} log events and 20 feedback from {WRONG} to {RIGHT}\n")
    );
    arrived(pair, EVENTS, true).await;
}

#[tokio::test]
async fn what_waits_in_an_outage_is_moved_with_the_rest_and_in_order() {
    for restarted in [false, true] {
        // Nothing listens there, so one batch is tried again and again.
        let mut pair = stuck(EVENTS, Some("http://127.0.0.1:9"), "backing_off").await;
        if restarted {
            // An earlier process may have sent it, so it is looked for first, which fails likewise.
            pair.daemon.kill_hard();
            pair.daemon = pair.setup.start().await;
            is_stuck(&pair, "backing_off").await;
        }
        let socket = pair.daemon.unix.clone();
        let output = tokio::task::spawn_blocking(move || {
            spool_move(&["--socket", text(&socket), "--from", WRONG, "--to", RIGHT])
        });
        let output = output.await.expect("it ran");
        assert_eq!(
            output.status.code(),
            Some(0),
            "restarted: {restarted}: {}",
            said(&output)
        );
        pair.daemon.kill_hard();
        let url = pair.upstream.url();
        pair.setup = pair.setup.with("upstream.base_url", &url);
        pair.daemon = pair.setup.start().await;
        arrived(pair, EVENTS, true).await;
    }
}

#[tokio::test]
async fn a_stopped_data_folder_is_moved_and_delivered_after_the_next_start() {
    let mut pair = misdirected(EVENTS).await;
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
    let told = String::from_utf8_lossy(&none.stdout).into_owned();
    assert!(told.starts_with("nothing is queued of never-used: "), "{told}");
    assert_eq!(none.status.code(), Some(0));

    // By way of a third, to see that what was moved can be moved again.
    for (from, new) in [(WRONG, "third"), ("third", RIGHT)] {
        let output = to(from, new);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(
            told,
            format!("moved {EVENTS} log events and 20 feedback from {from} to {new}\n")
        );
    }
    pair.daemon = pair.setup.start().await;
    arrived(pair, EVENTS, true).await;
}

#[tokio::test]
async fn a_folder_in_use_is_moved_by_its_daemon_and_the_route_is_on_the_unix_socket_alone() {
    let pair = misdirected(EVENTS).await;
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
    arrived(pair, EVENTS, true).await;
}

#[tokio::test]
async fn a_daemon_that_is_killed_in_the_middle_of_a_move_loses_and_doubles_nothing() {
    let mut pair = misdirected(MANY_EVENTS).await;
    let socket = pair.daemon.unix.clone();
    let args = ["--socket", text(&socket), "--from", WRONG, "--to", RIGHT];
    let mut in_the_middle = 0;
    for _ in 0..3 {
        let before = queued(&pair.daemon.status().await, WRONG, "log");
        let mut asking = command(&args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        eventually("something is moved", || async {
            (queued(&pair.daemon.status().await, WRONG, "log") < before || before == 0).then_some(())
        })
        .await;
        pair.daemon.kill_hard();
        asking.wait().expect("it can be waited for");
        pair.daemon = pair.setup.start().await;
        let status = pair.daemon.status().await;
        let (logs, judged) = (queued(&status, WRONG, "log"), queued(&status, WRONG, "feedback"));
        // All feedback is queued right behind its batch of 300 events.
        let left = MANY_EVENTS as u64 - logs;
        assert_eq!(
            judged,
            feedback(MANY_EVENTS) - left / 300 * (300 / JUDGED as u64),
            "{logs}"
        );
        in_the_middle += u64::from(0 < logs && logs < before);
    }
    assert!(in_the_middle > 0, "no kill came in the middle");
    // Once more, until nothing is left.
    let output = tokio::task::spawn_blocking(move || {
        spool_move(&["--socket", text(&socket), "--from", WRONG, "--to", RIGHT])
    });
    let output = output.await.expect("it ran");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    arrived(pair, MANY_EVENTS, false).await;
}

#[tokio::test]
async fn a_command_that_is_killed_in_the_middle_of_a_move_loses_and_doubles_nothing() {
    let mut pair = misdirected(MANY_EVENTS).await;
    pair.daemon.kill_hard();
    let data = pair.setup.data.clone();
    let args = ["--path", text(&data), "--from", WRONG, "--to", RIGHT];
    let generations = || {
        let entries = std::fs::read_dir(data.join("spool")).expect("the data folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        names
            .filter(|name| name.to_string_lossy().starts_with("gen-"))
            .max()
    };
    let before = generations();
    // The folder grows by a generation for each MiB that is moved.
    let moving = RefCell::new(command(&args).spawn().expect("the binary runs"));
    eventually("a new generation", || async {
        let ended = moving.borrow_mut().try_wait().expect("it can be asked");
        assert_eq!(ended, None, "it ended before it was killed");
        (generations() > before).then_some(())
    })
    .await;
    let mut moving = moving.into_inner();
    moving.kill().expect("our child can be killed");
    moving.wait().expect("it can be waited for");

    // The daemon delivers what was moved, and no feedback of what was not.
    pair.daemon = pair.setup.start().await;
    let status = pair.daemon.status().await;
    let left = queued(&status, WRONG, "log");
    assert!(0 < left && left <= MANY_EVENTS as u64, "{left}");
    pair.upstream.stored(MANY_EVENTS as u64 - left).await;
    pair.daemon.kill_hard();
    let output = spool_move(&args);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    pair.daemon = pair.setup.start().await;
    arrived(pair, MANY_EVENTS, false).await;
}
