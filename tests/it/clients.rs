//! The official clients, unchanged but for the base URL, against daemon and sandbox.
//!
//! `tests/clients/install.sh` puts them where these tests look; without them the tests say that they were skipped.

use crate::support::skip::skip;
use crate::support::{Pair, eventually};
use serde_json::{Value, json};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use tokio::process::Command;

const PROJECT: &str = "sdk-project";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where install.sh puts the clients: beside the build.
pub(crate) fn installed(path: &str) -> PathBuf {
    root().join("target/clients").join(path)
}

/// The Python that has the SDK, or why there is none.
fn python() -> Result<PathBuf, String> {
    let own = installed("venv/bin/python");
    let python = if own.exists() {
        own
    } else {
        PathBuf::from("python3")
    };
    let probe = std::process::Command::new(&python)
        .args(["-c", "import phospho, langchain_core"])
        .output();
    match probe {
        Err(_) => Err("there is no python3".into()),
        Ok(output) if output.status.success() => Ok(python),
        Ok(_) => Err("python3 has no phospho and langchain_core: run tests/clients/install.sh".into()),
    }
}

/// Runs a scenario of sdk.py against a fresh pair. `None`: skipped, which was said.
async fn sdk(scenario: &str) -> Option<(Pair, Value)> {
    let python = match python() {
        Ok(python) => python,
        Err(why) => {
            skip(&format!("clients::{scenario} (official Python SDK)"), &why);
            return None;
        }
    };
    let pair = Pair::start().await;
    let output = run(&python, scenario, &pair).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let killed = output.status.signal() == Some(9) && scenario == "killed";
    assert!(
        output.status.success() || killed,
        "{scenario}: {}\n{errors}",
        output.status
    );
    for sign in ["Error sending", "Failed to flag", "Traceback"] {
        assert!(
            !errors.contains(sign),
            "{scenario}: the SDK is not content: {errors}"
        );
    }
    let said =
        serde_json::from_str(&said).unwrap_or_else(|e| panic!("{scenario}: {e} in {said:?}\n{errors}"));
    Some((pair, said))
}

async fn run(python: &Path, scenario: &str, pair: &Pair) -> Output {
    let mut command = Command::new(python);
    command
        .arg(root().join("tests/clients/sdk.py"))
        .args([scenario, &pair.daemon.url]);
    command
        .env_remove("PHOSPHO_API_KEY")
        .env_remove("PHOSPHO_PROJECT_ID")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command.kill_on_drop(true).output().await.expect("python runs")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// Waits for a task and gives its stored event.
async fn stored(pair: &Pair, task: &str) -> Value {
    eventually(&format!("task {task}"), || async { pair.upstream.task(task) }).await;
    pair.upstream.event(task)
}

#[tokio::test]
async fn strings() {
    let Some((pair, said)) = sdk("strings").await else {
        return;
    };
    let event = stored(&pair, text(&said, "task_id")).await;
    assert_eq!(event["input"], "How do I fix a flat tyre? 🚲");
    assert_eq!(event["output"], "Patch it \\ or \"swap\" it.\u{2028}Done.");
    assert_eq!(event["project_id"], PROJECT);
    assert_eq!(pair.finish().await.delivered, 1);
}

#[tokio::test]
async fn mapping() {
    let Some((pair, said)) = sdk("mapping").await else {
        return;
    };
    let event = stored(&pair, text(&said, "task_id")).await;
    assert_eq!(
        event["raw_input"],
        json!({"question": "why", "n": 9_007_199_254_740_993_u64})
    );
    assert_eq!(event["raw_output"], json!({"answer": ["because", null, 1.5]}));
    pair.finish().await;
}

#[tokio::test]
async fn openai_like() {
    let Some((pair, said)) = sdk("openai_like").await else {
        return;
    };
    let event = stored(&pair, text(&said, "task_id")).await;
    assert_eq!(
        (text(&event, "input"), text(&event, "output")),
        ("Say hello", "Hello")
    );
    assert_eq!(event["raw_output"]["usage"]["total_tokens"], 10);
    assert_eq!(event["model"], "gpt-x");
    let messages = stored(&pair, text(&said, "messages_task_id")).await;
    assert_eq!(messages["raw_input"][0]["content"], "Be brief.");
    pair.finish().await;
}

#[tokio::test]
async fn streaming() {
    for scenario in ["streaming", "streaming_async"] {
        let Some((pair, said)) = sdk(scenario).await else {
            return;
        };
        let event = stored(&pair, text(&said, "task_id")).await;
        assert_eq!(text(&event, "output"), text(&said, "spoken"), "{scenario}");
        pair.finish().await;
    }
}

#[tokio::test]
async fn wrap() {
    let Some((pair, said)) = sdk("wrap").await else {
        return;
    };
    let event = stored(&pair, text(&said, "task_id")).await;
    assert_eq!(event["raw_input"], json!({"prompt": "hi", "temperature": 0.5}));
    assert_eq!(event["output"], "You said hi");
    assert_eq!(stored(&pair, text(&said, "stream_task_id")).await["output"], "ab");
    pair.finish().await;
}

#[tokio::test]
async fn metadata_session_version_flag_and_own_fields() {
    let Some((pair, said)) = sdk("metadata").await else {
        return;
    };
    let event = stored(&pair, text(&said, "task_id")).await;
    assert_eq!(event["session_id"], said["session_id"]);
    assert_eq!(
        event["metadata"],
        json!({"tier": "gold", "nested": {"deep": [1, {"x": null}]}})
    );
    let fields = ["user_id", "version_id", "flag", "own_field"].map(|key| text(&event, key));
    assert_eq!(fields, ["user-1", "v9", "success", "kept"]);
    pair.finish().await;
}

#[tokio::test]
async fn user_feedback() {
    let Some((pair, said)) = sdk("feedback").await else {
        return;
    };
    assert_eq!(said["returned"], true, "the SDK got a JSON reply");
    pair.upstream.evaluated(1).await;
    let evals = pair.upstream.evals(text(&said, "task_id"));
    let eval = (
        evals[0].flag.as_str(),
        evals[0].source.as_str(),
        evals[0].notes.as_deref(),
    );
    assert_eq!(eval, ("failure", "user", Some("wrong tyre 🛞")));
    assert_eq!(evals.len(), 1);
    pair.finish().await;
}

#[tokio::test]
async fn user_feedback_that_leaves_the_app_before_its_log() {
    let Some((pair, said)) = sdk("feedback_first").await else {
        return;
    };
    assert_eq!(said["returned"], true);
    pair.upstream.evaluated(1).await;
    assert_eq!(pair.upstream.evals(text(&said, "task_id")).len(), 1);
    assert_eq!(pair.finish().await.delivered, 2);
}

#[tokio::test]
async fn new_task() {
    let Some((pair, said)) = sdk("new_task").await else {
        return;
    };
    assert_eq!(said["task_id"], said["logged"]);
    stored(&pair, text(&said, "task_id")).await;
    pair.finish().await;
}

#[tokio::test]
async fn what_the_sdk_sends_at_exit() {
    let Some((pair, said)) = sdk("at_exit").await else {
        return;
    };
    stored(&pair, text(&said, "task_id")).await;
    pair.finish().await;
}

#[tokio::test]
async fn an_app_killed_right_after_flush_has_lost_nothing() {
    let Some((pair, said)) = sdk("killed").await else {
        return;
    };
    stored(&pair, text(&said, "task_id")).await;
    pair.finish().await;
}

#[tokio::test]
async fn the_langchain_handler() {
    let Some((pair, said)) = sdk("langchain").await else {
        return;
    };
    let event = stored(&pair, text(&said, "task_id")).await;
    assert_eq!(event["session_id"], "chain-session");
    assert_eq!(event["raw_input"], json!({"text": "shout"}));
    assert_eq!(event["raw_output"], json!({"answer": "SHOUT"}));
    assert_eq!(pair.finish().await.delivered, 1);
}

#[tokio::test]
async fn two_thousand_events_of_one_tick() {
    let Some((pair, said)) = sdk("bulk").await else {
        return;
    };
    pair.upstream.stored(2000).await;
    let tasks = pair.upstream.tasks(PROJECT);
    let ends = [&tasks[0], &tasks[1999]].map(|row| row.task_id.as_str());
    assert_eq!(ends, [text(&said, "first"), text(&said, "last")]);
    pair.finish().await;
}

#[tokio::test]
async fn a_key_that_is_refused_upstream_never_reaches_the_sdk() {
    let python = match python() {
        Ok(python) => python,
        Err(why) => {
            return skip(
                "clients::a_key_that_is_refused_upstream (official Python SDK)",
                &why,
            );
        }
    };
    let pair = Pair::start().await;
    pair.upstream.switch(json!({"keys": ["another"]})).await;
    let output = run(&python, "strings", &pair).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !errors.contains("rror"), "{errors}");
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    pair.upstream.switch(json!({"keys": null})).await;
    stored(&pair, text(&said, "task_id")).await;
    pair.finish().await;
}

/// Runs a script by the Node that has the SDK, or says why it was skipped.
async fn node(test: &str, script: &[&str]) -> Option<Output> {
    let probe = std::process::Command::new("node").arg("--version").output();
    if probe.is_err() {
        skip(test, "there is no node");
        return None;
    }
    if !installed("node/node_modules/phospho").exists() {
        skip(
            test,
            "the npm package phospho is not installed: run tests/clients/install.sh",
        );
        return None;
    }
    let mut command = Command::new("node");
    command
        .args(script)
        .env("NODE_PATH", installed("node/node_modules"))
        .kill_on_drop(true);
    Some(command.output().await.expect("node runs"))
}

#[tokio::test]
async fn the_js_sdk() {
    let pair = Pair::start().await;
    let script = root().join("tests/clients/sdk.js");
    let script = script.to_str().expect("a path of text");
    let Some(output) = node("clients::the_js_sdk (npm phospho)", &[script, &pair.daemon.url]).await else {
        return;
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for (n, (input, out)) in [
        ("How far is the moon? 🌙", json!("384,400 km")),
        ("And the sun?", json!(null)),
    ]
    .iter()
    .enumerate()
    {
        let task = text(&said["replies"][n]["logged_events"][0], "task_id");
        let event = stored(&pair, task).await;
        assert_eq!((text(&event, "input"), &event["output"]), (*input, out));
        assert_eq!(event["project_id"], "js-project");
    }
    pair.finish().await;
}
