//! Canaries: a key and a private text (with redaction on) are searched for wherever the daemon leaves anything. The search is the same
//! for a mark that is no secret, and has to find that everywhere, so that it can be seen to search.

use crate::dead_letters::phosphod;
use crate::support::client::{Lines, batch, post, send, unix};
use crate::support::daemon::Daemon;
use crate::support::{Pair, dead_letters_text, eventually};
use rustix::process::Signal;
use serde_json::json;
use std::path::Path;
use std::process::{Command, Output};

const KEY: &str = "pk-canary-5Vq7Zt0mXw92LrKe";
/// A part of it, in case that something prints it shortened or masked in part.
const KEY_PART: &str = "5Vq7Zt0mXw";
const PERSON: &str = "canary.person@example.com";
/// Named in requests, on the command line and in the environment of every test here: no secret.
const MARK: &str = "mark-4711";

/// A place and what was found there.
struct Place(String, Vec<u8>);

fn hits(places: &[Place], needle: &str) -> Vec<String> {
    let found = |text: &[u8]| memchr::memmem::find(text, needle.as_bytes()).is_some();
    places
        .iter()
        .filter(|Place(_, text)| found(text))
        .map(|Place(name, _)| name.clone())
        .collect()
}

fn files(folder: &Path, places: &mut Vec<Place>) {
    for entry in std::fs::read_dir(folder).expect("it can be listed") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => files(&path, places),
            false => places.extend(
                std::fs::read(&path)
                    .ok()
                    .map(|bytes| Place(format!("file {}", path.display()), bytes)),
            ),
        }
    }
}

fn both(name: &str, output: Output) -> Place {
    Place(name.to_owned(), [output.stdout, output.stderr].concat())
}

/// `phosphod` with the daemon's own settings, as an operator would have them in the file.
fn configured(pair: &Pair, args: &[&str]) -> Output {
    let daemon = pair.setup.command();
    let mut command = Command::new(env!("CARGO_BIN_EXE_phosphod"));
    let settings = daemon.get_args().skip(1);
    command.args(args).args(settings).env_clear().current_dir("/");
    command.output().expect("the binary runs")
}

/// Events, refused events and feedback, by every way in; each with the person and the mark. Gives the answers.
async fn feed(pair: &Pair) -> Vec<Place> {
    let mut answers = Vec::new();
    let log = json!({"task_id": "t1", "input": format!("from {PERSON}"), "user_id": MARK}).to_string();
    let refused = json!({"task_id": "t2", "input": {"is": PERSON}, "user_id": MARK}).to_string();
    let broken = format!("{{\"input\": \"{PERSON}");
    let feedback = json!({"task_id": "t1", "flag": "success", "notes": PERSON, "source": MARK}).to_string();
    for (path, body) in [
        (&*format!("/v2/log/{MARK}"), batch(&[&log, &refused])),
        ("/log", broken.clone()),
        ("/feedback", feedback),
        ("/feedback", json!({"task_id": "t1", "flag": PERSON}).to_string()),
        (
            "/v2/tasks/undefined/flag",
            json!({"flag": "success", "notes": PERSON}).to_string(),
        ),
        (&*format!("/nowhere/{MARK}"), log.clone()),
    ] {
        let reply = pair.post(path, body).await;
        let name = format!("answer {} of {path}", reply.status);
        answers.push(Place(name, reply.body));
    }
    let mut lines = Lines::connect(&pair.daemon.unix).await;
    for line in [&log, &refused, &broken] {
        let answer = lines.ask(line).await;
        answers.push(Place("line of answer".into(), answer.to_string().into_bytes()));
    }
    answers
}

/// Everything that a running daemon leaves or shows.
async fn places(pair: &Pair) -> Vec<Place> {
    let daemon: &Daemon = &pair.daemon;
    let mut places = vec![Place("log".into(), daemon.said().join("\n").into_bytes())];
    for path in ["/metrics", "/status", "/healthz", "/readyz"] {
        let reply = send(pair.client.get(pair.at(path))).await;
        places.push(Place(path.into(), reply.body));
    }
    let local = unix(&daemon.unix);
    let event = send(local.get("http://localhost/events/t2")).await;
    places.push(Place("/events/t2".into(), event.body));
    places.push(Place(
        "/dead_letters".into(),
        dead_letters_text(daemon).await.into_bytes(),
    ));
    let no_json = post(&local, "http://localhost/dead_letters/requeue", "{").await;
    places.push(Place("requeue refused".into(), no_json.body));
    for file in ["cmdline", "environ", "status"] {
        let path = format!("/proc/{}/{file}", daemon.pid());
        places.push(Place(
            format!("/proc {file}"),
            std::fs::read(path).expect("root reads it"),
        ));
    }
    for args in [
        &["dead", "list"][..],
        &["dead", "list", "--json"],
        &["dead", "show", "1"],
        &["dead", "export"],
        &["dead", "export", "--records"],
        &["event", "t2"],
        &["event", "t2", "--json"],
    ] {
        places.push(both(&args.join(" "), phosphod(daemon, args, &[])));
    }
    for args in [&["config", "show"][..], &["config", "check"]] {
        places.push(both(&args.join(" "), configured(pair, args)));
    }
    files(&pair.setup.data, &mut places);
    places
}

/// What the commands for a stopped daemon print.
fn offline(pair: &Pair) -> Vec<Place> {
    let data = pair.setup.data.to_str().expect("text");
    let command = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_phosphod"));
        command
            .args(["spool"])
            .args(args)
            .args(["--path", data])
            .env_clear();
        both(
            &format!("spool {}", args.join(" ")),
            command.output().expect("it runs"),
        )
    };
    [
        &["info"][..],
        &["info", "--json"],
        &["verify"],
        &["export"],
        &["export", "--dead"],
    ]
    .into_iter()
    .map(command)
    .collect()
}

/// Where the mark has to be found, beside the files.
const MARKED: [&str; 19] = [
    "log",
    "answer 404 of /nowhere/mark-4711",
    "/status",
    "/events/t2",
    "/dead_letters",
    "/proc cmdline",
    "/proc environ",
    "dead list",
    "dead list --json",
    "dead show 1",
    "dead export",
    "dead export --records",
    "event t2",
    "event t2 --json",
    "config show",
    "spool info",
    "spool info --json",
    "spool export",
    "spool export --dead",
];

/// A pair whose upstream is down at first and then refuses the key, so that everything is on disk and all complaints were made.
async fn troubled(
    adjust: impl FnOnce(crate::support::daemon::Setup) -> crate::support::daemon::Setup,
) -> (Pair, Vec<Place>) {
    let pair = Pair::start_with(|setup| {
        let setup = setup
            .with("upstream.project_id", MARK)
            .with("log.level", "trace")
            .env("MARK", MARK);
        adjust(setup)
    })
    .await;
    pair.upstream.switch(json!({"down": true})).await;
    let answers = feed(&pair).await;
    eventually("a lane that backs off", || async {
        let status = pair.daemon.status().await;
        status["lanes"].to_string().contains("backing_off").then_some(())
    })
    .await;
    pair.upstream
        .switch(json!({"down": false, "keys": ["another"]}))
        .await;
    pair.daemon.signal(Signal::HUP);
    eventually("a parked lane", || async {
        let status = pair.daemon.status().await;
        status["lanes"].to_string().contains("parked").then_some(())
    })
    .await;
    (pair, answers)
}

/// All of it: while it runs, and after kill -9.
async fn everything(pair: &mut Pair, mut seen: Vec<Place>) -> Vec<Place> {
    seen.extend(places(pair).await);
    pair.daemon.kill_hard();
    files(&pair.setup.data, &mut seen);
    seen.extend(offline(pair));
    seen
}

#[tokio::test]
async fn a_key_by_file_and_a_private_text_are_nowhere() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let file = folder.path().join("key");
    std::fs::write(&file, KEY).expect("write");
    let (mut pair, answers) = troubled(|setup| {
        setup
            .without("upstream.api_key")
            .with("upstream.api_key_file", file.to_str().expect("text"))
            .with("redact.detect", "email")
    })
    .await;
    let seen = everything(&mut pair, answers).await;
    for needle in [KEY, KEY_PART, PERSON, "canary.person"] {
        assert_eq!(hits(&seen, needle), Vec::<String>::new(), "{needle}");
    }
    // The same search finds what is no secret, in every place that could tell of it.
    let marked = hits(&seen, MARK);
    for name in MARKED {
        assert!(
            marked.iter().any(|found| found == name),
            "{MARK} is not in {name}: {marked:?}"
        );
    }
    assert!(
        marked.iter().any(|name| name.starts_with("file ")),
        "the files were searched: {marked:?}"
    );
    let planted = pair.setup.data.join("spool/planted");
    std::fs::write(&planted, format!("x{KEY}x")).expect("write");
    let mut again = Vec::new();
    files(&pair.setup.data, &mut again);
    assert_eq!(hits(&again, KEY), [format!("file {}", planted.display())]);
    println!(
        "{} places searched: 0 hits; the mark was found in {}",
        seen.len(),
        marked.len()
    );
}

#[tokio::test]
async fn without_redaction_and_with_the_key_in_the_environment_the_search_finds_both() {
    let (mut pair, answers) =
        troubled(|setup| setup.without("upstream.api_key").env("PHOSPHO_API_KEY", KEY)).await;
    let seen = everything(&mut pair, answers).await;
    assert_eq!(
        hits(&seen, KEY),
        ["/proc environ"],
        "the one place where whoever set it put it"
    );
    let private = hits(&seen, PERSON);
    for name in [
        "/dead_letters",
        "dead export",
        "spool export",
        "spool export --dead",
    ] {
        assert!(private.iter().any(|found| found == name), "{name}: {private:?}");
    }
    assert!(
        private.iter().any(|name| name.starts_with("file ")),
        "{private:?}"
    );
    for name in ["log", "/metrics", "/status", "/proc cmdline", "config show"] {
        assert!(!private.iter().any(|found| found == name), "{name} shows content");
    }
}
