//! `phosphod spool` on the folder of a daemon that was stopped.

use crate::support::daemon::{Daemon, Setup};
use crate::support::ledger::Counts;
use crate::support::load::event;
use crate::support::upstream::Upstream;
use crate::support::{client, eventually};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Runs `phosphod spool` with an environment that holds nothing of ours.
fn spool(args: &[&str], input: Option<&[u8]>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phosphod"));
    command.arg("spool").args(args).env_clear().current_dir("/");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.unwrap_or_default().to_vec();
    let writing = std::thread::spawn(move || {
        // Whoever refuses the folder does not read on.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("it can be waited for");
    writing.join().expect("no panic");
    output
}

fn on(data: &Path, args: &[&str]) -> Output {
    let data = data.to_str().expect("a temp path is text");
    spool(&[args, &["--path", data]].concat(), None)
}

fn code(output: &Output) -> i32 {
    output
        .status
        .code()
        .unwrap_or_else(|| panic!("it ended by a signal: {output:?}"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// Every file below a folder with its bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.insert(path.clone(), Vec::new());
            found.extend(files(&path));
        } else {
            let bytes = std::fs::read(&path).expect("readable");
            found.insert(path, bytes);
        }
    }
    found
}

/// A stopped daemon's folder with a backlog, and what was delivered of it before.
struct Backlog {
    upstream: Upstream,
    setup: Setup,
    folder: tempfile::TempDir,
    counts: Counts,
    /// Queued logs of each project, in order.
    queued: BTreeMap<&'static str, Vec<String>>,
    /// Tasks that feedback is queued about.
    judged: Vec<String>,
}

const PROJECTS: [&str; 2] = ["alpha", "beta"];
const QUEUED: usize = 70;

async fn log(daemon: &Daemon, project: &str, ids: &[String], filler: usize) {
    let events: Vec<Value> = ids.iter().map(|id| event(id, filler)).collect();
    let body = json!({"batched_log_events": events});
    // Line breaks between tokens belong to what is carried byte for byte.
    let body = serde_json::to_string_pretty(&body).expect("JSON");
    let url = format!("{}/v2/log/{project}", daemon.url);
    let reply = client::post(&reqwest::Client::new(), &url, body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

async fn backlog() -> Backlog {
    let folder = tempfile::tempdir().expect("a temp folder");
    let upstream = Upstream::start().await;
    let setup = Setup::new(folder.path(), &upstream.url()).with("spool.generation_bytes", "1 MiB");
    let daemon = setup.start().await;
    let http = reqwest::Client::new();
    for project in PROJECTS {
        let ids: Vec<String> = (0..30).map(|n| format!("{project}-early-{n}")).collect();
        log(&daemon, project, &ids, 500).await;
    }
    upstream.stored(60).await;
    daemon.drained().await;
    upstream.switch(json!({"down": true})).await;
    let mut queued = BTreeMap::new();
    let mut judged = Vec::new();
    for project in PROJECTS {
        let ids: Vec<String> = (0..QUEUED).map(|n| format!("{project}-{n}")).collect();
        for (at, id) in ids.iter().enumerate() {
            let filler = if at == 7 { 100_000 } else { 15_000 };
            log(&daemon, project, std::slice::from_ref(id), filler).await;
        }
        for id in &ids[..3] {
            let body =
                json!({"flag": "success", "task_id": id, "project_id": project, "notes": "line\nbreak"});
            let url = format!("{}/feedback", daemon.url);
            let reply = client::post(&http, &url, body.to_string()).await;
            assert_eq!(reply.status, 200, "{reply:?}");
            judged.push(id.clone());
        }
        queued.insert(project, ids);
    }
    // A log that can never be stored is a dead letter at once.
    let url = format!("{}/v2/log/alpha", daemon.url);
    client::post(
        &http,
        &url,
        json!({"batched_log_events": [{"input": 1}]}).to_string(),
    )
    .await;
    let counts = daemon.ledger().await;
    assert!(daemon.terminate().await.success());
    Backlog {
        upstream,
        setup,
        folder,
        counts,
        queued,
        judged,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_shown_checked_and_moved_to_another_folder_without_a_loss() {
    let backlog = backlog().await;
    let data = &backlog.setup.data;
    let before = files(data);
    let queued = (2 * QUEUED + 6) as u64;

    let info = on(data, &["info", "--json"]);
    assert_eq!(code(&info), 0, "{}", said(&info));
    let info: Value = serde_json::from_slice(&info.stdout).expect("JSON");
    assert_eq!(Counts::of(&info["ledger"]), backlog.counts);
    assert_eq!(info["ledger"]["queued"], queued);
    assert_eq!(info["dead_letters"]["letters"], 1);
    assert_eq!(info["damage"], json!([]));
    let lanes = info["lanes"].as_array().expect("a list");
    let told: Vec<_> = lanes
        .iter()
        .map(|lane| {
            (
                lane["project"].as_str(),
                lane["kind"].as_str(),
                lane["queued"].as_u64(),
            )
        })
        .collect();
    let logs = Some(QUEUED as u64);
    assert_eq!(
        told,
        [
            (Some("alpha"), Some("log"), logs),
            (Some("alpha"), Some("feedback"), Some(3)),
            (Some("beta"), Some("log"), logs),
            (Some("beta"), Some("feedback"), Some(3)),
        ]
    );
    assert!(
        lanes.iter().all(|lane| lane["oldest_accepted_at_ms"].is_u64()),
        "{info}"
    );
    let generations = info["generations"].as_array().expect("a list");
    assert!(generations.len() > 1, "the backlog lies in several: {info}");
    let live: u64 = generations.iter().filter_map(|g| g["live"].as_u64()).sum();
    assert_eq!(live, queued);
    let shown = text(&on(data, &["info"]));
    assert!(shown.contains("146 queued") && shown.contains("beta"), "{shown}");

    let verified = on(data, &["verify"]);
    assert_eq!(code(&verified), 0, "{}", text(&verified));
    assert!(text(&verified).starts_with("ok: 146"), "{}", text(&verified));

    let file = backlog.folder.path().join("queue.ndjson");
    let name = file.to_str().expect("text");
    let exported = on(data, &["export", "--output", name]);
    assert_eq!(code(&exported), 0, "{}", said(&exported));
    let mode = std::fs::metadata(&file)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = on(data, &["export", "--output", name]);
    assert_eq!(code(&again), 1);
    assert!(said(&again).contains("is not overwritten"), "{}", said(&again));
    let lines = std::fs::read_to_string(&file).expect("text");
    let of = |kind: &str, project: &str| {
        let rows = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let rows = rows.filter(|row| row["kind"] == kind && row["project_id"] == project);
        rows.map(|row| row["task_id"].as_str().expect("an id").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(lines.lines().count() as u64, queued);
    for project in PROJECTS {
        assert_eq!(of("log", project), backlog.queued[project], "in order");
        assert_eq!(of("feedback", project), backlog.queued[project][..3]);
    }
    let beta = on(data, &["export", "--project", "beta"]);
    assert_eq!(text(&beta).lines().count(), QUEUED + 3);
    let dead = on(data, &["export", "--dead"]);
    assert_eq!(text(&dead).lines().count(), 1, "{}", said(&dead));
    assert!(
        text(&dead).starts_with(r#"{"kind":"log","input":"#),
        "{}",
        text(&dead)
    );
    assert!(files(data) == before, "looking changes nothing");

    let fresh = backlog.folder.path().join("fresh");
    let imported = on(&fresh, &["import", name]);
    assert_eq!(code(&imported), 0, "{}", said(&imported));
    assert!(
        said(&imported).contains("imported 146 events"),
        "{}",
        said(&imported)
    );
    let exported = on(&fresh, &["export"]);
    assert!(text(&exported) == lines, "the same once more");
    backlog.upstream.switch(json!({"down": false})).await;
    let setup = Setup {
        data: fresh,
        ..backlog.setup.clone()
    };
    let daemon = setup.start().await;
    let counts = daemon.drained().await;
    assert_eq!((counts.accepted, counts.delivered), (queued, queued));
    let state = backlog.upstream.state();
    assert_eq!(state.duplicates, 0, "nothing was sent that had been delivered");
    for project in PROJECTS {
        let tasks = backlog.upstream.tasks(project);
        let late: Vec<String> = tasks.into_iter().map(|row| row.task_id).skip(30).collect();
        assert!(late == backlog.queued[project], "all, once, in order");
    }
    for id in &backlog.judged {
        assert_eq!(backlog.upstream.evals(id).len(), 1, "{id}");
    }
    assert!(daemon.terminate().await.success());
    backlog.upstream.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_is_found_and_left_alone() {
    let backlog = backlog().await;
    let data = &backlog.setup.data;
    // In the middle of what does not compress, in whichever generation it lies.
    let event = event("alpha-20", 15_000);
    let noise = event["output"].as_str().expect("text").as_bytes()[5_000..5_040].to_vec();
    let mut flipped = 0;
    for (path, mut bytes) in files(&data.join("spool")) {
        let places: Vec<usize> = bytes
            .windows(noise.len())
            .enumerate()
            .filter(|(_, window)| *window == noise)
            .map(|(at, _)| at)
            .collect();
        for at in &places {
            bytes[*at] ^= 1;
        }
        if !places.is_empty() {
            flipped += places.len();
            std::fs::write(&path, &bytes).expect("writable");
        }
    }
    assert!(flipped > 0, "the event lies there as it was sent");
    let before = files(data);
    let verified = on(data, &["verify"]);
    assert_eq!(code(&verified), 1, "{}", text(&verified));
    assert!(text(&verified).contains("of alpha/log"), "{}", text(&verified));
    assert!(
        text(&verified).contains("start the daemon on it"),
        "{}",
        text(&verified)
    );
    assert!(
        text(&verified)
            .lines()
            .all(|line| line.starts_with("generation ")),
        "{}",
        text(&verified)
    );
    assert!(files(data) == before, "every byte is where it was");
    backlog.upstream.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_in_use_is_refused_with_the_pid_and_so_is_what_is_none() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let upstream = Upstream::start().await;
    let setup = Setup::new(folder.path(), &upstream.url());
    let daemon = setup.start().await;
    let pid = format!("(pid {})", daemon.pid());
    for args in [&["info"][..], &["verify"], &["export"], &["import"]] {
        let refused = on(&setup.data, args);
        assert_eq!(code(&refused), 2, "{args:?}");
        assert!(
            said(&refused).contains(&pid) && said(&refused).contains("stop it"),
            "{}",
            said(&refused)
        );
        assert_eq!(text(&refused), "");
    }
    daemon.terminate().await;
    let format = setup.data.join("format");
    let told = std::fs::read_to_string(&format).expect("text");
    for (found, sentence) in [
        ("1", "run the daemon on it once"),
        ("3", "has format 3 and this version knows"),
    ] {
        let other = told.replace("format 2", &format!("format {found}"));
        std::fs::write(&format, other).expect("writable");
        let before = files(&setup.data);
        for args in [&["info"][..], &["verify"], &["export"], &["import"]] {
            let refused = on(&setup.data, args);
            assert_eq!(code(&refused), 2, "{args:?} {}", said(&refused));
            assert!(said(&refused).contains(sentence), "{}", said(&refused));
        }
        assert!(files(&setup.data) == before);
    }
    let absent = folder.path().join("absent");
    for args in [&["info"][..], &["verify"], &["export"]] {
        let refused = on(&absent, args);
        assert_eq!(code(&refused), 2, "{args:?}");
        assert!(
            said(&refused).contains("there is no data folder"),
            "{}",
            said(&refused)
        );
        assert!(!absent.exists());
        let refused = on(folder.path(), args);
        assert_eq!(code(&refused), 2, "{args:?}");
        assert!(
            said(&refused).contains("is no data folder of phosphod's"),
            "{}",
            said(&refused)
        );
    }
    upstream.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_lines_are_named_and_the_others_stored() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let data = folder.path().join("data");
    let lines = [
        "\u{feff}{\"kind\":\"log\",\"project_id\":\"p\",\"input\":\"a\",\"task_id\":\"one\"}",
        "",
        r#"{"kind":"log","project_id":"p","input":7}"#,
        r#"{"kind":"log","input":"no project"}"#,
        "nonsense",
        r#"{"kind":"feedback","project_id":"p","task_id":"one","flag":"perhaps"}"#,
        r#"{"kind":"feedback","project_id":"p","task_id":"one","flag":"failure"}"#,
        r#"{"project_id":"p","input":"b","task_id":"two"}"#,
        r#"{"project_id":"p","input":"b","score":NaN}"#,
    ];
    let path = data.to_str().expect("text");
    let imported = spool(&["import", "--path", path], Some(lines.join("\n").as_bytes()));
    assert_eq!(code(&imported), 1, "{}", said(&imported));
    let said = said(&imported);
    let named: Vec<&str> = said.lines().filter(|line| line.starts_with("line ")).collect();
    assert_eq!(named.len(), 5, "{said}");
    for (line, sentence) in named.iter().zip([
        "line 3 was not stored: input is",
        "line 4 was not stored: no project",
        "line 5 was not stored: it is not",
        "line 6 was not stored: flag is",
        "line 9 was not stored: it is not valid JSON at line 1, column 39 (byte 38): NaN is no value",
    ]) {
        assert!(line.starts_with(sentence), "{line}");
    }
    assert!(
        said.contains("imported 3 events") && said.contains("5 lines were not stored"),
        "{said}"
    );
    let upstream = Upstream::start().await;
    let setup = Setup::new(folder.path(), &upstream.url());
    let daemon = setup.start().await;
    let counts = eventually("three delivered", || async {
        let counts = daemon.ledger().await;
        (counts.queued == 0).then_some(counts)
    })
    .await;
    assert_eq!((counts.accepted, counts.delivered, counts.dead), (3, 3, 0));
    assert_eq!(upstream.evals("one").len(), 1);
    upstream.finish().await;
}

/// A folder as a version left it (tests/fixtures/README.md).
fn unpacked(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temp folder");
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--no-same-owner", "-xzf"])
        .arg(archive)
        .arg("-C")
        .arg(folder.path());
    assert!(tar.status().expect("tar is there").success(), "{name}");
    folder
}

#[test]
fn what_another_version_left_is_exported_byte_for_byte_however_it_ended() {
    for name in ["format-2-stopped", "format-2-killed"] {
        let fixture = unpacked(name);
        let data = fixture.path().join("data");
        let before = files(&data);
        let verified = on(&data, &["verify"]);
        assert_eq!(code(&verified), 0, "{name}: {}", text(&verified));
        let exported = on(&data, &["export"]);
        assert_eq!(code(&exported), 0, "{name}: {}", said(&exported));
        let mut expected = String::new();
        for lane in ["alpha.log", "alpha.feedback", "beta.log", "beta.feedback"] {
            let records = std::fs::read_to_string(fixture.path().join("expected").join(lane)).expect("text");
            let (_, kind) = lane.split_once('.').expect("a kind");
            for record in records.lines() {
                expected += &format!("{{\"kind\":\"{kind}\",{}\n", &record[1..]);
            }
        }
        assert!(text(&exported) == expected, "{name}");
        let dead = std::fs::read_to_string(fixture.path().join("expected/dead")).expect("text");
        let exported = on(&data, &["export", "--dead"]);
        assert_eq!(text(&exported).lines().count(), dead.lines().count(), "{name}");
        let info: Value = serde_json::from_slice(&on(&data, &["info", "--json"]).stdout).expect("JSON");
        let ledger = std::fs::read_to_string(fixture.path().join("expected/ledger.json")).expect("text");
        assert_eq!(
            info["ledger"],
            serde_json::from_str::<Value>(&ledger).expect("JSON"),
            "{name}"
        );
        assert_eq!(info["dead_letters"]["letters"], dead.lines().count(), "{name}");
        assert!(files(&data) == before, "{name}: looking changes nothing");
    }
    let fixture = unpacked("format-1-killed");
    let data = fixture.path().join("data");
    let before = files(&data);
    let refused = on(&data, &["export"]);
    assert_eq!(code(&refused), 2);
    assert!(
        said(&refused).contains("run the daemon on it once"),
        "{}",
        said(&refused)
    );
    assert!(files(&data) == before);
}

/// `phosphod spool export` with its copies in `temporary`, whose output nobody reads: it stops where the pipe is full.
fn stalled_export(data: &Path, temporary: &Path, args: &[&str]) -> std::process::Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phosphod"));
    command.args(["spool", "export", "--path"]).arg(data).args(args);
    command.env_clear().env("TMPDIR", temporary).current_dir("/");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command.spawn().expect("the binary starts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_at_work_is_named_and_what_a_killed_one_leaves_is_removed_by_the_next() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let temporary = tempfile::tempdir().expect("a temp folder");
    let copies = || std::fs::read_dir(temporary.path()).expect("a folder").count();
    let setup = Setup::new(folder.path(), "http://127.0.0.1:9");
    let daemon = setup.start().await;
    // Dead letters, more of them than a pipe takes.
    let refused = json!({"input": 1, "noise": "x".repeat(100_000)});
    let body = json!({"batched_log_events": [&refused, &refused, &refused]}).to_string();
    let url = format!("{}/v2/log/p", daemon.url);
    let reply = client::post(&reqwest::Client::new(), &url, body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(daemon.terminate().await.success());

    let mut tool = stalled_export(&setup.data, temporary.path(), &["--dead"]);
    // It has written something, so it stands in the middle of its copy.
    let mut first = [0; 1];
    let stdout = tool.stdout.as_mut().expect("piped");
    std::io::Read::read_exact(stdout, &mut first).expect("a line");
    let (code, said) = setup.fails().await;
    assert_eq!(code, Some(1), "{said}");
    let named = format!("is in use by phosphod spool export (pid {})", tool.id());
    assert!(said.contains(&named), "{named:?} is not in {said}");
    assert_eq!(copies(), 1, "one that is in use");

    let mut second = stalled_export(&setup.data, temporary.path(), &[]);
    assert!(second.wait().expect("it ends").success());
    assert_eq!(copies(), 1, "another tool leaves it alone");
    tool.kill().expect("our child");
    tool.wait().expect("it ends");
    assert_eq!(copies(), 1, "nobody could remove it");
    let mut third = stalled_export(&setup.data, temporary.path(), &[]);
    assert!(third.wait().expect("it ends").success());
    assert_eq!(copies(), 0);
}
