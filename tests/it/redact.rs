//! With redaction on, what is private is stored nowhere and sent nowhere, whichever way it comes in.

use crate::dead_letters::{code, printed, said};
use crate::support::client::{Lines, batch, send};
use crate::support::daemon::Daemon;
use crate::support::{Pair, dead_letters_text};
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const KEY: &str = "sk-canary0123456789abcdefXYZ";
const MAIL: &str = "canary.person@example.com";
/// Found by a rule of the test's own.
const NAME: &str = "Canary Personne";

const CANARIES: [&str; 5] = [KEY, MAIL, NAME, "canary", "Canary"];

async fn pair() -> Pair {
    Pair::start_with(|setup| {
        setup
            .with("redact.detect", "all")
            .with("redact.rules.person.regex", "Canary [A-Z][a-z]+")
            .with("redact.drop_fields", "metadata.headers")
            .with("log.level", "trace")
    })
    .await
}

/// An event that holds all of it, in places of every kind.
fn event(id: &str) -> String {
    json!({"task_id": id, "input": format!("{NAME} wrote from {MAIL}"), "output": format!("the key is {KEY}."),
        "metadata": {"headers": {"x": KEY}, "list": [[{"deep": MAIL}]]}, "raw_input": {"messages": [{"content": KEY}]}})
    .to_string()
}

fn marked(id: &str) -> serde_json::Value {
    json!({"task_id": id, "input": "[person] wrote from [email]", "output": "the key is [api_key].",
        "metadata": {"list": [[{"deep": "[email]"}]]}, "raw_input": {"messages": [{"content": "[api_key]"}]}})
}

/// Where a canary stands in a file below a folder. Compression leaves what comes for the first time as it is.
fn files_with(folder: &Path, needles: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("it can be listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                found.extend(
                    needles
                        .iter()
                        .filter(|needle| text.contains(**needle))
                        .map(|needle| format!("{needle} in {}", path.display())),
                );
            }
        }
    }
    found
}

fn holds_none(what: &str, text: &str) {
    for canary in CANARIES {
        assert!(!text.contains(canary), "{canary} in {what}: {text}");
    }
}

async fn page(pair: &Pair, path: &str) -> String {
    let reply = send(pair.client.get(pair.at(path))).await;
    String::from_utf8(reply.body).expect("text")
}

/// Sends by every way in, events that are refused among them, and gives how many events, refused ones, feedbacks.
async fn send_all(pair: &Pair) -> (u64, u64, u64) {
    let mut lines = Lines::connect(&pair.daemon.unix).await;
    let refused =
        |id: &str| format!(r#"{{"task_id":"{id}","input":{{"is":"{MAIL}"}},"output":"{KEY} {NAME}"}}"#);
    let half = |id: &str| format!(r#"{{"task_id":"{id}","input":"\ud83d {MAIL}","own":["{KEY}","{NAME}"]}}"#);
    let bodies = [
        (
            "/v2/log/p",
            batch(&[event("batch"), refused("bad-1"), half("bad-2")]),
        ),
        ("/log", event("one")),
        (
            "/log",
            format!(
                "[{},{},\"{MAIL} {KEY}\",[\"{NAME}\"]]",
                event("listed"),
                refused("bad-3")
            ),
        ),
    ];
    for (path, body) in bodies {
        let reply = pair.post(path, body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        holds_none("the answer", &String::from_utf8_lossy(&reply.body));
    }
    for line in [
        event("line"),
        format!(r#"{{"kind":"log",{}"#, &event("kind")[1..]),
        refused("bad-4"),
        half("bad-5"),
    ] {
        holds_none("a line of answer", &lines.ask(&line).await.to_string());
    }
    // These are kept too, but for their content.
    for broken in [format!("{{\"input\":\"{MAIL}"), format!("{{\"input\":{KEY}}}")] {
        holds_none("a line of answer", &lines.ask(&broken).await.to_string());
    }
    let notes =
        json!({"task_id": "one", "flag": "success", "notes": format!("{MAIL} says {NAME}"), "source": KEY});
    assert_eq!(pair.post("/feedback", notes.to_string()).await.status, 200);
    assert_eq!(
        pair.post("/v2/tasks/batch/flag", notes.to_string()).await.status,
        200
    );
    let line = json!({"kind": "feedback", "task_id": "line", "flag": "failure", "notes": KEY});
    assert_eq!(lines.ask(&line.to_string()).await["task_id"], "line");
    (5, 9, 3)
}

#[tokio::test]
async fn what_is_private_is_delivered_stored_and_told_nowhere() {
    let pair = pair().await;
    let (events, refused, feedbacks) = send_all(&pair).await;
    pair.upstream.stored(events).await;
    pair.upstream.evaluated(feedbacks).await;
    for id in ["batch", "one", "listed", "line", "kind"] {
        let stored = pair.upstream.event(id);
        for (key, value) in marked(id).as_object().expect("an object") {
            assert_eq!(&stored[key], value, "{id}");
        }
    }
    let evals = format!("{:?}", ["one", "batch", "line"].map(|id| pair.upstream.evals(id)));
    holds_none("the evaluations", &evals);
    assert!(evals.contains("[email] says [person]"), "{evals}");

    let dead = dead_letters_text(&pair.daemon).await;
    holds_none("the dead letters", &dead);
    assert!(
        dead.contains(r#""input":{"is":"[email]"},"output":"[api_key] [person]""#),
        "{dead}"
    );
    assert!(
        dead.contains(r#""input":"\ud83d [email]""#) && dead.contains(r#""[email] [api_key]""#),
        "{dead}"
    );
    let metrics = page(&pair, "/metrics").await;
    // By events, refused ones and feedbacks: 5 x 2 + 7 - 1 + 2.
    for row in [
        "phosphod_redact_hits_total{detector=\"email\"} 18\n",
        "phosphod_redact_hits_total{detector=\"drop_fields\"} 5\n",
        "phosphod_redact_hits_total{detector=\"phone\"} 0\n",
    ] {
        assert!(metrics.contains(row), "{row} in {metrics}");
    }
    holds_none("the metrics", &metrics);
    holds_none("the status", &page(&pair, "/status").await);
    holds_none("the log", &pair.daemon.said().join("\n"));
    let data = pair.setup.data.clone();
    assert_eq!(
        files_with(data.parent().expect("a folder"), &CANARIES),
        Vec::<String>::new()
    );
    let counts = pair.finish().await;
    assert_eq!((counts.delivered, counts.dead), (events + feedbacks, refused));
}

#[tokio::test]
async fn what_waits_on_disk_holds_nothing_private_and_neither_does_what_an_operator_puts_back() {
    let pair = pair().await;
    pair.upstream.switch(json!({"down": true})).await;
    let (events, _, feedbacks) = send_all(&pair).await;
    // One of them holds half a surrogate pair, which no JSON parser takes.
    let letters = dead_letters_text(&pair.daemon).await;
    let number = letters.split("\"number\":").nth(1).expect("a letter");
    let number = number.split(',').next().expect("a number");
    let edited = format!(r#"{{"id":{number},"record":{}}}"#, event("edited"));
    let requeue = crate::support::client::unix(&pair.daemon.unix);
    let reply = crate::support::client::post(&requeue, "http://localhost/dead_letters/requeue", edited).await;
    assert_eq!(reply.json()["done"], 1, "{reply:?}");

    let Pair { daemon, setup, .. } = pair;
    daemon.terminate().await;
    assert_eq!(files_with(&setup.data, &CANARIES), Vec::<String>::new());
    let path = setup.data.to_str().expect("a temp path is text");
    for args in [
        &["export", "--path", path][..],
        &["export", "--dead", "--path", path],
    ] {
        let output = run("spool", args, "");
        holds_none("an export", &printed(&output));
    }
    let exported = printed(&run("spool", &["export", "--path", path], ""));
    assert_eq!(
        exported.lines().count() as u64,
        events + feedbacks + 1,
        "{exported}"
    );
    assert!(exported.contains("[person] wrote from [email]"), "{exported}");
}

/// A command of the binary that needs no daemon.
fn run(command: &str, args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_phosphod"))
        .arg(command)
        .args(args)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("piped");
    // Who does not read it ends without it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

#[test]
fn what_is_imported_is_redacted_first() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let path = folder.path().join("data");
    let path = path.to_str().expect("text");
    let lines = format!(
        "{}\n{{\"kind\":\"feedback\",\"task_id\":\"t\",\"flag\":\"success\",\"notes\":\"{MAIL}\"}}\n{{\"input\":\"{KEY}",
        event("imported")
    );
    let args = [
        "import",
        "--path",
        path,
        "--set",
        "upstream.project_id=p",
        "--set",
        "redact.detect=all",
    ];
    let own = ["--set", "redact.rules.person.regex=Canary [A-Z][a-z]+"];
    let imported = run("spool", &[&args[..], &own].concat(), &lines);
    assert!(
        said(&imported).contains("imported 2 events"),
        "{}",
        said(&imported)
    );
    holds_none("what import says", &said(&imported));
    assert_eq!(
        files_with(folder.path(), &[KEY, MAIL, NAME]),
        Vec::<String>::new()
    );
    let exported = printed(&run("spool", &["export", "--path", path], ""));
    assert!(
        exported.contains("[person] wrote from [email]") && exported.contains(r#""notes":"[email]""#),
        "{exported}"
    );
}

#[test]
fn redact_test_shows_what_would_be_altered() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let file = folder.path().join("events.ndjson");
    std::fs::write(&file, format!("{}\n{{\"input\":\"fine\"}}\n", event("t"))).expect("writable");
    let file = file.to_str().expect("text");
    let shown = printed(&run(
        "redact",
        &["test", "--set", "redact.detect=email,api_key", file],
        "",
    ));
    for part in [
        "line 1\n",
        &format!(
            "  input: email\n    before  {NAME} wrote from {MAIL}\n    after   {NAME} wrote from [email]\n"
        ),
        "  raw_input.messages.0.content: api_key\n",
        "line 2: nothing found\n",
        "1 of 2 altered: api_key 3, email 2\n",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let piped = run(
        "redact",
        &["test", "--set", "redact.detect=all", "-"],
        &event("t"),
    );
    assert!(printed(&piped).starts_with("event 1\n"), "{piped:?}");

    let off = run("redact", &["test", file], "");
    assert_eq!(code(&off), 1);
    assert!(said(&off).contains("redact.detect=all"), "{}", said(&off));
    let wrong = run("redact", &["test", "--set", "redact.detect=emial", file], "");
    assert_eq!(code(&wrong), 78);
    assert!(
        said(&wrong).contains("did you mean \"email\"?"),
        "{}",
        said(&wrong)
    );
}

#[tokio::test]
async fn without_the_section_everything_is_stored_and_arrives_as_it_came() {
    let pair = Pair::start().await;
    let came = event("t");
    assert_eq!(pair.post("/log", came.clone()).await.status, 200);
    // So the search in the files above would find it.
    assert_ne!(files_with(&pair.setup.data, &CANARIES), Vec::<String>::new());
    pair.upstream.stored(1).await;
    let stored = pair.upstream.task("t").expect("it is stored");
    assert!(stored.raw.ends_with(&came[1..]), "{}", stored.raw);
    pair.finish().await;
}

#[tokio::test]
async fn a_changed_section_is_named_at_a_reload() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let file = folder.path().join("config.toml");
    std::fs::write(&file, "[redact]\ndetect = [\"email\"]\n").expect("writable");
    let upstream = crate::support::upstream::Upstream::start().await;
    let mut command = crate::support::daemon::Setup::new(folder.path(), &upstream.url()).command();
    command.arg("--config").arg(&file);
    let mut daemon = Daemon::spawn(command).accepting().await;
    std::fs::write(&file, "[redact]\ndetect = \"all\"\n").expect("writable");
    daemon.signal(rustix::process::Signal::HUP);
    let told = daemon
        .logged("a change that takes effect only with a restart of the daemon")
        .await;
    assert_eq!(told["section"], "[redact]");
    upstream.finish().await;
}
