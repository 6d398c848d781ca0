//! `phosphod dead` against a running daemon.

use crate::support::daemon::{Daemon, Setup};
use crate::support::executable;
use crate::support::upstream::Upstream;
use crate::support::{Pair, client, eventually};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs the command on a daemon's socket, with an environment that holds nothing of ours.
pub(crate) fn phosphod(daemon: &Daemon, args: &[&str], env: &[(&str, &str)]) -> Output {
    let socket = daemon.unix.to_str().expect("a temp path is text");
    Command::new(env!("CARGO_BIN_EXE_phosphod"))
        .args(args)
        .args(["--socket", socket])
        .env_clear()
        .envs(env.iter().copied())
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts")
}

fn dead(daemon: &Daemon, args: &[&str]) -> Output {
    phosphod(daemon, &[&["dead"], args].concat(), &[])
}

pub(crate) fn code(output: &Output) -> i32 {
    output
        .status
        .code()
        .unwrap_or_else(|| panic!("it ended by a signal: {output:?}"))
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What it printed; it must have gone well.
pub(crate) fn printed(output: &Output) -> String {
    assert_eq!(code(output), 0, "{}", said(output));
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// The numbers of all letters, in order, with their task ids.
fn listed(daemon: &Daemon) -> Vec<(u64, String)> {
    let lines = printed(&dead(daemon, &["export"]));
    let letters = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    letters
        .map(|letter: Value| {
            let task = letter["record"]["task_id"].as_str().unwrap_or_default();
            (letter["number"].as_u64().expect("a number"), task.to_owned())
        })
        .collect()
}

pub(crate) async fn log(pair: &Pair, project: &str, events: &[Value]) {
    let reply = pair
        .post(
            &format!("/v2/log/{project}"),
            json!({"batched_log_events": events}).to_string(),
        )
        .await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

async fn until_dead(pair: &Pair, letters: u64) {
    eventually("dead letters", || async {
        let counts = pair.daemon.ledger().await;
        (counts.dead == letters && counts.queued == 0).then_some(())
    })
    .await;
}

/// An editor that is named with an argument, as many are.
fn editor(folder: &Path, script: &str) -> String {
    let path = folder.join("editor.sh");
    executable::script(&path, script);
    format!("/bin/sh {}", path.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisoned_event_is_found_mended_queued_again_and_delivered() {
    let pair = Pair::start().await;
    pair.upstream
        .switch(json!({"refuse_events": {"poison": "not today"}}))
        .await;
    log(
        &pair,
        "p",
        &[
            json!({"input": "fine", "task_id": "good"}),
            json!({"input": 1, "task_id": "bad", "n": 12345678901234567_u64}),
            json!({"input": "fine too", "task_id": "poison"}),
        ],
    )
    .await;
    until_dead(&pair, 2).await;
    let letters = listed(&pair.daemon);
    let number = |task: &str| {
        letters
            .iter()
            .find(|(_, of)| of == task)
            .expect(task)
            .0
            .to_string()
    };
    let (bad, poison) = (number("bad"), number("poison"));

    let table = printed(&dead(&pair.daemon, &["list"]));
    assert!(
        table.contains("input is an integer") && table.contains("2 dead letters"),
        "{table}"
    );
    let some = printed(&dead(
        &pair.daemon,
        &["list", "--json", "--reason-contains", "not today"],
    ));
    assert_eq!(some.lines().count(), 1, "{some}");
    let shown = printed(&dead(&pair.daemon, &["show", &bad]));
    assert!(
        shown.contains("input is an integer") && shown.contains(r#""n":12345678901234567"#),
        "{shown}"
    );

    // As it is it is refused again, and stays.
    let refused = dead(&pair.daemon, &["requeue", &bad]);
    assert_eq!(code(&refused), 1);
    assert!(
        said(&refused).contains("input is an integer"),
        "{}",
        said(&refused)
    );
    let folder = tempfile::tempdir().expect("a temp folder");
    let edit = |script: &str| {
        let editor = editor(folder.path(), script);
        let temp = folder.path().to_str().expect("text").to_owned();
        phosphod(
            &pair.daemon,
            &["dead", "requeue", &bad, "--edit"],
            &[("EDITOR", &editor), ("TMPDIR", &temp), ("PATH", "/usr/bin:/bin")],
        )
    };
    for (script, told) in [
        ("exit 3", "the editor"),
        ("true", "nothing was changed"),
        (
            r#"printf '\357\273\277%s' "$(cat "$1")" > "$1""#,
            "nothing was changed",
        ),
        (r#"sed -i s/1/2/ "$1""#, "input is an integer"),
        (r#"echo '{"half' > "$1""#, "it is not JSON"),
    ] {
        let output = edit(script);
        assert_eq!(code(&output), 1, "{script}");
        assert!(said(&output).contains(told), "{script}: {}", said(&output));
    }
    let kept: Vec<_> = std::fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.to_string_lossy().contains("dead-letter"))
        .collect();
    assert_eq!(kept.len(), 2, "what was typed and refused is kept: {kept:?}");
    for path in kept {
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert_eq!(listed(&pair.daemon), letters, "all of that changed nothing");
    printed(&edit(
        r#"test "$(stat -c %a "$1")" = 600 && sed -i '1s/^/\xef\xbb\xbf/; s/"input":1/"input":"one"/' "$1""#,
    ));
    pair.upstream.stored(2).await;
    assert_eq!(pair.upstream.event("bad")["input"], "one");
    assert_eq!(pair.upstream.event("bad")["n"], 12345678901234567_u64);

    // Refused upstream once more, it is another letter; then the upstream takes it.
    printed(&dead(&pair.daemon, &["requeue", &poison]));
    let again = eventually("the event's second death", || async {
        let letters = listed(&pair.daemon);
        letters
            .into_iter()
            .find(|(number, task)| task == "poison" && number.to_string() != poison)
    })
    .await;
    assert_eq!(
        code(&dead(&pair.daemon, &["requeue", &poison])),
        1,
        "that one is gone"
    );
    pair.upstream.switch(json!({"refuse_events": null})).await;
    let done = printed(&dead(&pair.daemon, &["requeue", &again.0.to_string()]));
    assert_eq!(done, "requeued 1\n");
    pair.upstream.stored(3).await;
    let counts = pair.finish().await;
    assert_eq!((counts.accepted, counts.delivered, counts.dead), (3, 3, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_are_exported_and_purged_as_they_are_chosen() {
    let pair = Pair::start().await;
    for project in ["alpha", "beta"] {
        let events: Vec<Value> = (0..3)
            .map(|n| json!({"input": n, "task_id": format!("{project}-{n}")}))
            .collect();
        log(&pair, project, &events).await;
    }
    until_dead(&pair, 6).await;
    let folder = tempfile::tempdir().expect("a temp folder");
    let file = folder.path().join("letters.ndjson");
    let place = file.to_str().expect("text");
    printed(&dead(
        &pair.daemon,
        &["export", "--project", "beta", "--output", place],
    ));
    let mode = std::fs::metadata(&file).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let lines = std::fs::read_to_string(&file).expect("readable");
    assert_eq!(lines.lines().count(), 3);
    let first: Value = serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["record"]["task_id"], "beta-0");
    assert!(
        first["reason"].as_str().expect("a reason").contains("integer"),
        "{first}"
    );
    assert_eq!(
        code(&dead(&pair.daemon, &["export", "--output", place])),
        1,
        "it is there already"
    );
    let records = printed(&dead(
        &pair.daemon,
        &["export", "--records", "--project", "alpha"],
    ));
    assert_eq!(
        records.lines().next(),
        Some(r#"{"kind":"log","input":0,"task_id":"alpha-0","project_id":"alpha"}"#)
    );

    let purged = |args: &[&str]| printed(&dead(&pair.daemon, &[&["purge"], args].concat()));
    assert_eq!(purged(&["--older-than", "7d"]), "purged 0\n");
    assert_eq!(
        purged(&["--project", "beta", "--reason-contains", "nonsense"]),
        "purged 0\n"
    );
    assert_eq!(purged(&["--project", "beta"]), "purged 3\n");
    let letters = listed(&pair.daemon);
    assert_eq!(letters.len(), 3);
    assert_eq!(purged(&[&letters[0].0.to_string()]), "purged 1\n");
    assert_eq!(
        code(&dead(&pair.daemon, &["purge", &letters[0].0.to_string()])),
        1
    );
    assert_eq!(code(&dead(&pair.daemon, &["show", &letters[0].0.to_string()])), 1);
    assert_eq!(
        code(&dead(&pair.daemon, &["purge"])),
        2,
        "nothing is meant by nothing"
    );
    assert_eq!(purged(&["--all", "--yes"]), "purged 2\n");
    assert_eq!(printed(&dead(&pair.daemon, &["list"])), "no dead letters\n");
    let metrics =
        String::from_utf8(client::send(pair.client.get(pair.at("/metrics"))).await.body).expect("text");
    assert!(
        metrics.contains("phosphod_dead_letters_purged_total 6"),
        "{metrics}"
    );
    let counts = pair.finish().await;
    assert_eq!(
        (counts.accepted, counts.dead),
        (6, 6),
        "a purged letter's event stays dead"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_while_letters_are_queued_again_loses_and_doubles_none() {
    const LETTERS: u64 = 200;
    let folder = tempfile::tempdir().expect("a temp folder");
    let upstream = Upstream::start().await;
    let setup = Setup::new(folder.path(), &upstream.url());
    let mut daemon = setup.start().await;
    let ids: Vec<String> = (0..LETTERS).map(|n| format!("t-{n}")).collect();
    let refusals: serde_json::Map<String, Value> = ids.iter().map(|id| (id.clone(), json!("no"))).collect();
    upstream.switch(json!({"refuse_events": refusals})).await;
    let events: Vec<Value> = ids
        .iter()
        .map(|id| json!({"input": "x", "task_id": id}))
        .collect();
    let url = format!("{}/v2/log/p", daemon.url);
    let body = json!({"batched_log_events": events}).to_string();
    client::post(&reqwest::Client::new(), &url, body).await;
    let counts = daemon.drained().await;
    assert_eq!(counts.dead, LETTERS);
    upstream
        .switch(json!({"refuse_events": null, "down": true}))
        .await;

    let (unix, tick) = (
        client::unix(&daemon.unix),
        std::sync::Arc::new(tokio::sync::Notify::new()),
    );
    let ring = tick.clone();
    let requeueing = tokio::spawn(async move {
        for number in 1..=LETTERS {
            let request = unix
                .post("http://localhost/dead_letters/requeue")
                .header("content-type", "application/json")
                .body(json!({"ids": [number]}).to_string());
            if request.send().await.is_err() {
                return number;
            }
            if number == 60 {
                ring.notify_one();
            }
        }
        LETTERS
    });
    tick.notified().await;
    daemon.kill_hard();
    let reached = requeueing.await.expect("no panic");
    assert!(
        (60..LETTERS).contains(&reached),
        "killed in the middle: {reached}"
    );

    let daemon = setup.start().await;
    let counts = daemon.ledger().await;
    assert_eq!(counts.queued + counts.dead, LETTERS, "{counts:?}");
    assert!(counts.queued >= 60, "{counts:?}");
    assert_eq!(listed(&daemon).len() as u64, counts.dead);
    let requeued = printed(&dead(
        &daemon,
        &["requeue", "--all", "--project", "p", "--reason-contains", "no"],
    ));
    assert_eq!(requeued, format!("requeued {}\n", counts.dead));
    assert_eq!(printed(&dead(&daemon, &["requeue", "--all"])), "requeued 0\n");
    upstream.switch(json!({"down": false})).await;
    let counts = daemon.drained().await;
    assert_eq!((counts.delivered, counts.dead), (LETTERS, 0));
    let mut stored: Vec<String> = upstream.tasks("p").into_iter().map(|row| row.task_id).collect();
    stored.sort();
    let mut ids = ids;
    ids.sort();
    assert_eq!(stored, ids);
    upstream.finish().await;
}

#[test]
fn where_nobody_listens_the_remedy_is_told() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let set = format!("intake.unix={}", folder.path().join("s.sock").display());
    for args in [&["dead", "list"][..], &["dead", "purge", "1"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_phosphod"))
            .args(args)
            .args(["--set", &set])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .output()
            .expect("the binary starts");
        assert_eq!(code(&output), 2);
        assert!(said(&output).contains("start the daemon"), "{}", said(&output));
        assert!(
            said(&output).contains("phosphod spool export"),
            "{}",
            said(&output)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_shows_or_changes_content_is_on_the_unix_socket_only_and_takes_only_json() {
    let pair = Pair::start().await;
    log(&pair, "p", &[json!({"input": 1, "task_id": "bad"})]).await;
    for path in ["/dead_letters/1", "/events/bad"] {
        let reply = client::send(pair.client.get(pair.at(path))).await;
        assert_eq!(reply.status, 403, "{path}");
    }
    let all = json!({"all": true}).to_string();
    for path in ["/dead_letters/requeue", "/dead_letters/purge"] {
        assert_eq!(pair.post(path, all.clone()).await.status, 403, "{path}");
        let unix = client::unix(&pair.daemon.unix);
        let request = unix.post(format!("http://localhost{path}"));
        let reply = client::send(request.header("content-type", "text/plain").body(all.clone())).await;
        assert_eq!(reply.status, 415, "{path}");
        let reply = client::post(&unix, &format!("http://localhost{path}"), "{}").await;
        assert_eq!(reply.status, 422, "{path}");
        let reply = client::send(unix.get(format!("http://localhost{path}"))).await;
        assert_eq!(reply.status, 422, "{path} is no number of a letter");
    }
    let unix = client::unix(&pair.daemon.unix);
    let missing = client::send(unix.get("http://localhost/dead_letters/7")).await;
    assert_eq!(missing.status, 404);
    assert_eq!(listed(&pair.daemon).len(), 1, "it is still there");
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_said_in_the_log_and_in_the_hints_without_their_content() {
    let mut pair = Pair::start().await;
    let hints = async |pair: &Pair| pair.daemon.status().await["hints"].to_string();
    assert_eq!(hints(&pair).await, "[]");
    pair.upstream
        .switch(json!({"refuse_events": {"poison": "tell-nobody"}}))
        .await;
    log(
        &pair,
        "p",
        &[
            json!({"input": 1, "output": "tell-nobody", "task_id": "bad"}),
            json!({"input": "tell-nobody", "task_id": "poison"}),
        ],
    )
    .await;
    until_dead(&pair, 2).await;
    // The first is said at once; the second came within the same minute.
    let line = pair
        .daemon
        .logged("events became dead letters: `phosphod dead list` shows why")
        .await;
    assert_eq!(
        (&line["level"], &line["letters"]),
        (&json!("WARN"), &json!(1)),
        "{line}"
    );
    assert_eq!(line["which"], "1 invalid event of project p");
    let said = hints(&pair).await;
    assert!(said.contains("2 events were given up since "), "{said}");
    assert!(
        said.contains("1 event of project p that the API refused or did not store (200)"),
        "{said}"
    );
    assert!(!said.contains("tell-nobody"), "{said}");

    printed(&dead(&pair.daemon, &["purge", "--all", "--yes"]));
    assert_eq!(hints(&pair).await, "[]", "they were handled");
    pair.daemon.signal(rustix::process::Signal::TERM);
    assert!(pair.daemon.exited().await.success());
    let rest = pair
        .daemon
        .logged("more events became dead letters: `phosphod dead list` shows why")
        .await;
    assert_eq!(rest["letters"], 1, "{rest}");
    let all = pair.daemon.said().join("\n");
    assert!(!all.contains("tell-nobody"), "{all}");
}
