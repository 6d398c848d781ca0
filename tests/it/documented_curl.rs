//! The curl calls of the public documentation, with the base URL changed, and mended only where they cannot work:
//! commas that make them valid JSON, and a task id that the shell can fill in (contract.md section 8).

use crate::support::Pair;
use crate::support::skip::skip;
use serde_json::Value;
use std::process::Stdio;
use tokio::process::Command;

/// Runs a shell script with the variables that the documentation has people set. `None`: skipped.
async fn shell(test: &str, pair: &Pair, script: &str) -> Option<Value> {
    if std::process::Command::new("curl")
        .arg("--version")
        .output()
        .is_err()
    {
        skip(test, "there is no curl");
        return None;
    }
    let output = Command::new("sh")
        .args(["-euc", script])
        .env("BASE_URL", &pair.daemon.url)
        .env("SOCKET", &pair.daemon.unix)
        .env("PHOSPHO_API_KEY", "app-key")
        .env("PHOSPHO_PROJECT_ID", "curl-project")
        .env("TASK_ID", "documented-task")
        .stdin(Stdio::null())
        .output()
        .await
        .expect("sh runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said = String::from_utf8_lossy(&output.stdout);
    Some(serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e} in {said:?}")))
}

const LOG: &str = r#"
curl -s -X POST "$BASE_URL/v2/log/$PHOSPHO_PROJECT_ID" \
  -H "Authorization: Bearer $PHOSPHO_API_KEY" \
  -H 'Content-Type: application/json' \
  -d '{
    "batched_log_events": [
      {
        "input": "your_input",
        "output": "your_output",
        "session_id": "session_1",
        "task_id": "'"$TASK_ID"'"
      }
    ]
  }'"#;

const FLAG: &str = r#"
curl -s -X POST "$BASE_URL/v2/tasks/$TASK_ID/flag" \
  -H "Authorization: Bearer $PHOSPHO_API_KEY" \
  -H 'Content-Type: application/json' \
  -d '{
    "flag": "success",
    "flag_source": "user",
    "notes": "This is what I expected",
    "project_id": "'"$PHOSPHO_PROJECT_ID"'"
  }'"#;

#[tokio::test]
async fn log_then_flag() {
    let pair = Pair::start().await;
    let Some(reply) = shell("documented_curl::log_then_flag", &pair, LOG).await else {
        return;
    };
    let logged = &reply["logged_events"][0];
    assert_eq!(
        (&logged["task_id"], &logged["session_id"]),
        (&"documented-task".into(), &"session_1".into())
    );
    let Some(reply) = shell("documented_curl::log_then_flag", &pair, FLAG).await else {
        return;
    };
    assert!(reply.is_object());
    pair.upstream.evaluated(1).await;
    let evals = pair.upstream.evals("documented-task");
    let eval = (
        evals[0].flag.as_str(),
        evals[0].source.as_str(),
        evals[0].notes.as_deref(),
    );
    assert_eq!(
        eval,
        ("success", "user", Some("This is what I expected")),
        "flag_source counts here"
    );
    assert_eq!(pair.upstream.event("documented-task")["output"], "your_output");
    assert_eq!(pair.finish().await.delivered, 2);
}

#[tokio::test]
async fn a_log_without_a_task_id_gets_one() {
    let pair = Pair::start().await;
    let script = r#"curl -s "$BASE_URL/v2/log/$PHOSPHO_PROJECT_ID" -H 'Content-Type: application/json' -d '{"batched_log_events": [{"input": "q", "output": "a"}]}'"#;
    let Some(reply) = shell("documented_curl::a_log_without_a_task_id", &pair, script).await else {
        return;
    };
    let task = reply["logged_events"][0]["task_id"]
        .as_str()
        .expect("stamped")
        .to_owned();
    pair.upstream.stored(1).await;
    assert!(pair.upstream.task(&task).is_some());
    pair.finish().await;
}

#[tokio::test]
async fn the_short_routes_over_tcp_and_the_unix_socket() {
    let pair = Pair::start().await;
    const NAME: &str = "documented_curl::the_short_routes";
    let log = r#"curl -s --unix-socket "$SOCKET" http://localhost/log -H 'Content-Type: application/json' -d '{"input": "q", "task_id": "short"}'"#;
    let feedback = r#"curl -s "$BASE_URL/feedback" -H 'Content-Type: application/json' -d '{"task_id": "short", "flag": "failure"}'"#;
    if shell(NAME, &pair, log).await.is_none() {
        return;
    }
    shell(NAME, &pair, feedback).await;
    pair.upstream.evaluated(1).await;
    assert_eq!(pair.upstream.event("short")["project_id"], "default-project");
    pair.finish().await;
}
