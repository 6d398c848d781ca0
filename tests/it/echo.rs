//! An upstream that says back what it got: the key, and what stands in events.

use crate::support::client::batch;
use crate::support::daemon::{Daemon, Setup};
use crate::support::{dead_letters_text, eventually};
use serde_json::{Value, json};
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const KEY: &str = "sk-canary-4f1d9a7c2e";
/// The key in base64, behind "Bearer ".
const CODED: &str = "QmVhcmVyIHNrLWNhbmFyeS00ZjFkOWE3YzJl";
/// What that and the key in base64 have in common, wherever it begins.
const CODED_PARTS: [&str; 2] = ["NrLWNhbmFyeS00ZjFkOWE3YzJl", "c2stY2FuYXJ5LTRmMWQ5YTdjMm"];

/// What the upstream answers to a request: status and body.
type Answer = fn(head: &str, body: &str) -> (u16, String);

/// A raw HTTP server: no other one would say such things.
struct Echo {
    url: String,
    _serving: JoinSet<()>,
}

impl Echo {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    return;
                };
                connections.spawn(serve(stream, answer));
            }
        });
        Self {
            url,
            _serving: serving,
        }
    }
}

async fn serve(mut stream: TcpStream, answer: Answer) {
    let mut seen = Vec::new();
    loop {
        let ended = memchr::memmem::find(&seen, b"\r\n\r\n").map(|at| at + 4);
        let length = ended.map(|ended| {
            let head = String::from_utf8_lossy(&seen[..ended]).to_lowercase();
            let length = head.split("content-length: ").nth(1);
            let length: Option<usize> = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
            (ended, ended + length.unwrap_or_default())
        });
        if let Some((ended, whole)) = length.filter(|(_, whole)| seen.len() >= *whole) {
            let rest = seen.split_off(whole);
            let head = String::from_utf8_lossy(&seen[..ended]).into_owned();
            let body = String::from_utf8_lossy(&seen[ended..]).into_owned();
            seen = rest;
            let (status, body) = answer(&head, &body);
            let reply = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            if stream.write_all(reply.as_bytes()).await.is_err() {
                return;
            }
            continue;
        }
        let mut buffer = [0; 16 << 10];
        match stream.read(&mut buffer).await {
            Ok(count @ 1..) => seen.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
}

async fn daemon(folder: &Path, echo: &Echo, key: &str) -> Daemon {
    let setup = Setup::new(folder, &echo.url)
        .with("upstream.api_key", key)
        .with("log.level", "trace")
        .with("retry.min", "50 ms")
        .with("retry.max", "200 ms")
        .with("delivery.confirm_patience", "100 ms");
    setup.start().await
}

async fn post(daemon: &Daemon, path: &str, body: String) {
    let client = reqwest::Client::new();
    crate::support::client::post(&client, &format!("{}{path}", daemon.url), body).await;
}

/// Everything that anybody on this machine can see, and what is kept.
async fn open_places(daemon: &Daemon) -> Vec<(&'static str, String)> {
    let get = async |path: &str| {
        let reply = reqwest::get(format!("{}{path}", daemon.url))
            .await
            .expect("an answer");
        reply.text().await.expect("text")
    };
    vec![
        ("log", daemon.said().join("\n")),
        ("/status", get("/status").await),
        ("/metrics", get("/metrics").await),
    ]
}

/// Waits for so many dead letters and a lane in each of the states.
async fn settled(daemon: &Daemon, letters: usize, states: &[&str]) -> Value {
    eventually("dead letters and lanes in trouble", || async {
        let dead: Value = serde_json::from_str(&dead_letters_text(daemon).await).ok()?;
        let status = daemon.status().await.to_string();
        let all = states.iter().all(|state| status.contains(state));
        (all && dead.as_array()?.len() >= letters).then_some(dead)
    })
    .await
}

/// What the dead letters say beside their records.
fn words(dead: &Value) -> String {
    let letters = dead.as_array().expect("a list").iter();
    let words = letters.map(|letter| format!("{} {}\n", letter["reason"], letter["excerpt"]));
    words.collect()
}

fn echo_key(head: &str, body: &str) -> (u16, String) {
    let got = head.lines().find_map(|line| line.strip_prefix("authorization: "));
    let got = got.unwrap_or_default();
    let percent: String = got.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let said = format!("headers were: {got}, {percent}, {CODED}");
    if head.starts_with("GET") {
        return (404, json!({"detail": format!("no task, {said}")}).to_string());
    }
    if body.contains("refuse") {
        return (
            200,
            json!({"logged_events": [{"error_in_log": said}]}).to_string(),
        );
    }
    match body.contains("poison") {
        true => (400, json!({"detail": said}).to_string()),
        false => (401, json!({"detail": said}).to_string()),
    }
}

#[tokio::test]
async fn a_key_that_the_upstream_echoes_is_nowhere() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let echo = Echo::start(echo_key).await;
    let mut daemon = daemon(folder.path(), &echo, KEY).await;
    post(&daemon, "/v2/log/a", batch(&[r#"{"input":"x"}"#])).await;
    post(&daemon, "/v2/log/b", batch(&[r#"{"input":"refuse"}"#])).await;
    post(&daemon, "/v2/log/c", batch(&[r#"{"input":"poison"}"#])).await;
    let project = format!("/v2/log/{KEY}");
    post(&daemon, &project, batch(&[r#"{"input":"x"}"#])).await;
    let dead = settled(&daemon, 2, &["parked"]).await;
    assert!(dead.to_string().contains("headers were: Bearer ***"), "{dead}");
    let mut places = open_places(&daemon).await;
    places.push(("dead letters", words(&dead)));
    daemon.kill_hard();
    for (place, text) in places {
        assert!(!text.contains(KEY), "{place}: {text}");
        assert!(!text.to_uppercase().contains("%73%6B%2D"), "{place}: {text}");
        for part in CODED_PARTS {
            assert!(!text.contains(part), "{place}: {text}");
        }
    }
}

/// Stands in every event, and in every answer.
const CONTENT: &str = "canary-8c1f-private";

fn echo_content(head: &str, body: &str) -> (u16, String) {
    if head.starts_with("GET") {
        return (404, json!({"detail": "Task not found"}).to_string());
    }
    let said = json!({"detail": format!("cannot parse {CONTENT}")}).to_string();
    let faults = json!({"detail": [{"loc": ["body", CONTENT], "msg": format!("is {CONTENT}"), "type": "x"}]});
    let refused = json!({"logged_events": [{"error_in_log": format!("bad value {CONTENT}")}]});
    match body {
        _ if head.contains("human-eval") => (422, faults.to_string()),
        _ if body.contains("MODE-400") => (400, said),
        _ if body.contains("MODE-200") => (200, refused.to_string()),
        _ if body.contains("MODE-422") => (422, faults.to_string()),
        _ if body.contains("MODE-403") => (403, said),
        _ if body.contains("MODE-html") => (403, format!("<html>matched: {CONTENT}")),
        _ => (503, said),
    }
}

#[tokio::test]
async fn what_an_answer_quotes_of_an_event_is_in_its_dead_letter_alone() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let echo = Echo::start(echo_content).await;
    let daemon = daemon(folder.path(), &echo, KEY).await;
    for mode in ["400", "200", "422", "403", "html", "503"] {
        let event = json!({"input": format!("MODE-{mode} {CONTENT}"), "task_id": mode}).to_string();
        post(&daemon, &format!("/v2/log/p-{mode}"), batch(&[event])).await;
    }
    let refused = json!({"input": [CONTENT]}).to_string();
    post(&daemon, "/log", refused).await;
    post(&daemon, "/log", format!("{{\"input\": \"{CONTENT}")).await;
    let feedback = json!({"task_id": "t", "flag": "success", "notes": CONTENT, "project_id": "f"});
    post(&daemon, "/feedback", feedback.to_string()).await;
    // Those that are refused alone become letters after some rounds.
    let dead = settled(&daemon, 5, &["parked", "backing_off"]).await;
    let words = words(&dead);
    for said in ["cannot parse", "bad value", "is canary"] {
        assert!(words.contains(said), "{said}: {words}");
    }
    for (place, text) in open_places(&daemon).await {
        assert!(!text.contains(CONTENT), "{place}: {text}");
    }
}
