//! Another user of the machine: cannot use the socket, read the data, or look into the process. Each way is also seen to work where it
//! may, so that a probe that never works is noticed.

use crate::support::Pair;
use crate::support::daemon::{Daemon, Setup};
use crate::support::executable;
use crate::support::skip::{missing, skip, tool};
use phosphod::admin::Admin;
use phosphod::http::{Guard, Service, Verb};
use phosphod::intake::Intake;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output};

/// User and group nobody.
const NOBODY: u32 = 65534;
const NOWHERE: &str = "http://127.0.0.1:9";
const REFUSED: [&str; 2] = ["EACCES", "EPERM"];

/// Whether this machine lacks what it takes to be somebody else; says so.
fn skipped(test: &str) -> bool {
    let why = match rustix::process::getuid().is_root() {
        false => Some("only root can become another user".to_owned()),
        true => missing(&[("setpriv", "util-linux"), ("python3", "python3")]),
    };
    why.is_some_and(|why| {
        skip(test, &why);
        true
    })
}

/// Lets everybody through the folder, so that it is not this that keeps them out.
fn open(folder: &Path) {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("chmod");
}

/// What `probe.py` says as that user, in a group of the same number.
fn probe(uid: u32, way: &str, what: &str) -> String {
    probe_in((uid, uid), way, what)
}

/// The same in a group of another number.
fn probe_in(who: (u32, u32), way: &str, what: &str) -> String {
    let script = include_str!("probe.py");
    let output = run_as(who, &["python3", "-c", script, way, what]);
    assert!(output.status.success(), "{way} {what}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Runs a command as that user and group, without further groups.
fn run_as((uid, gid): (u32, u32), command: &[&str]) -> Output {
    tool("setpriv")
        .args(["--reuid", &uid.to_string(), "--regid", &gid.to_string()])
        .arg("--clear-groups")
        .args(command)
        .current_dir("/")
        .output()
        .expect("setpriv runs")
}

/// What the daemon answers to that user and group.
fn ask(daemon: &Daemon, who: (u32, u32), method: &str, target: &str, json: &str) -> String {
    let what = format!("{} {method} {target} {json}", text(&daemon.unix));
    probe_in(who, "ask", &what)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temp path is text")
}

#[tokio::test]
async fn another_user_cannot_open_the_socket_unless_its_mode_lets_him() {
    if skipped("another_user_cannot_open_the_socket_unless_its_mode_lets_him") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temp folder");
    open(folder.path());
    for (mode, let_in) in [("0660", false), ("0666", true)] {
        let setup = Setup::new(folder.path(), NOWHERE).with("intake.unix_mode", mode);
        let daemon = setup.start().await;
        for way in ["http", "ndjson"] {
            let other = probe(NOBODY, way, text(&daemon.unix));
            match let_in {
                true => assert!(other.starts_with("ok "), "{mode} {way}: {other}"),
                false => assert!(REFUSED.contains(&other.as_str()), "{mode} {way}: {other}"),
            }
            assert!(
                probe(0, way, text(&daemon.unix)).starts_with("ok "),
                "{mode} {way}"
            );
        }
        assert!(daemon.terminate().await.success());
    }
}

#[tokio::test]
async fn only_listed_users_and_groups_use_the_socket_where_any_are_listed() {
    if skipped("only_listed_users_and_groups_use_the_socket_where_any_are_listed") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temp folder");
    open(folder.path());
    let nobody = NOBODY.to_string();
    for (key, value, nobody_in, root_in) in [
        ("intake.unix_allow_uids", "0", false, true),
        ("intake.unix_allow_gids", "0", false, true),
        ("intake.unix_allow_uids", nobody.as_str(), true, false),
        ("intake.unix_allow_gids", nobody.as_str(), true, false),
    ] {
        let setup = Setup::new(folder.path(), NOWHERE)
            .with("intake.unix_mode", "0666")
            .with(key, value);
        let daemon = setup.start().await;
        let before = daemon.ledger().await.accepted;
        for (uid, let_in) in [(NOBODY, nobody_in), (0, root_in)] {
            let http = probe(uid, "http", text(&daemon.unix));
            let ndjson = probe(uid, "ndjson", text(&daemon.unix));
            let (status, line) = match let_in {
                true => ("ok HTTP/1.1 200", "ok {\"task_id\""),
                false => ("ok HTTP/1.1 403", "ok {\"error\""),
            };
            assert!(http.starts_with(status), "{key}={value}, user {uid}: {http}");
            assert!(ndjson.starts_with(line), "{key}={value}, user {uid}: {ndjson}");
            assert_eq!(!let_in, http.contains("intake.unix_allow_uids"), "{http}");
            assert_eq!(!let_in, ndjson.contains("intake.unix_allow_uids"), "{ndjson}");
        }
        assert_eq!(daemon.ledger().await.accepted - before, 1, "{key}={value}");
        assert!(daemon.terminate().await.success());
    }
}

const PRIVATE: &str = "the private words of another";
/// An event that is queued, and one that is a dead letter at once.
const HANDED_IN: [&str; 2] = [
    r#"{"input": "fine", "task_id": "queued", "project_id": "p"}"#,
    r#"{"input": ["the private words of another"], "task_id": "bad", "project_id": "p"}"#,
];
/// The sentence of a refusal, with its remedy.
const NOT_ADMINISTRATOR: &str = "may not see or change what is kept: call as root or as the daemon's user";

/// Has both events handed in by that user and group.
fn hand_in(daemon: &Daemon, who: (u32, u32)) {
    for event in HANDED_IN {
        let said = ask(daemon, who, "POST", "/log", event);
        assert!(said.starts_with("ok HTTP/1.1 200"), "{who:?}: {said}");
    }
}

fn is_refused(said: &str) -> bool {
    said.starts_with("ok HTTP/1.1 403") && !said.contains(PRIVATE)
}

/// Tries every route that shows or changes what is kept.
fn refused_everywhere(daemon: &Daemon, who: (u32, u32)) {
    let mut tried = 0;
    let routes = Admin::ROUTES.iter().map(|route| (route.verb, route.pattern));
    let kept = ["/dead_letters", "/events", "/lanes"];
    for (verb, pattern) in routes.filter(|(_, pattern)| kept.iter().any(|kept| pattern.starts_with(kept))) {
        tried += 1;
        let target = match pattern {
            "/dead_letters/{id}" => "/dead_letters/1",
            "/events/{task_id}" => "/events/queued",
            other => other,
        };
        let json = match pattern {
            "/lanes/move" => r#"{"from": "p", "to": "q"}"#,
            _ => r#"{"all": true}"#,
        };
        let methods: &[&str] = match verb {
            Verb::Get => &["GET", "HEAD"],
            Verb::Post => &["POST"],
        };
        for method in methods {
            let said = ask(daemon, who, method, target, json);
            assert!(is_refused(&said), "{who:?} {method} {target}: {said}");
            if *method != "HEAD" {
                assert!(said.contains(NOT_ADMINISTRATOR), "{method} {target}: {said}");
                assert!(
                    said.contains("intake.unix_admin_uids"),
                    "{method} {target}: {said}"
                );
            }
        }
    }
    assert!(tried >= 6, "{tried} routes");
}

#[tokio::test]
async fn who_hands_in_neither_sees_nor_changes_what_is_kept() {
    if skipped("who_hands_in_neither_sees_nor_changes_what_is_kept") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temp folder");
    open(folder.path());
    let binary = executable::binary(folder.path());
    for (number, (mode, key, value)) in [
        ("0666", "intake.unix_allow_uids", "0,65534"),
        ("0660", "intake.unix_group", "65534"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut setup = Setup::new(folder.path(), NOWHERE)
            .with("intake.unix_mode", mode)
            .with(key, value);
        setup.data = folder.path().join(format!("data{number}"));
        let daemon = setup.start().await;
        let nobody = (NOBODY, NOBODY);
        hand_in(&daemon, nobody);
        refused_everywhere(&daemon, nobody);
        for command in [
            &["dead", "list"][..],
            &["dead", "show", "1"],
            &["dead", "export"],
            &["dead", "requeue", "--all"],
            &["dead", "purge", "--all", "--yes"],
            &["event", "queued"],
            &["spool", "move", "--from", "p", "--to", "q"],
        ] {
            let socket = ["--socket", text(&daemon.unix)];
            let words = [&[text(&binary)], command, &socket].concat();
            let output = run_as(nobody, &words);
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "{command:?}");
            assert!(told.contains(NOT_ADMINISTRATOR), "{command:?}: {told}");
            assert!(output.stdout.is_empty(), "{command:?}: {output:?}");
        }
        let letters = ask(&daemon, (0, 0), "GET", "/dead_letters", "");
        assert!(
            letters.starts_with("ok HTTP/1.1 200") && letters.contains(PRIVATE),
            "{letters}"
        );
        let event = ask(&daemon, (0, 0), "GET", "/events/queued", "");
        assert!(event.starts_with("ok HTTP/1.1 200"), "{event}");
        let ledger = daemon.ledger().await;
        assert_eq!((ledger.queued, ledger.dead), (1, 1), "{key}");
        assert!(daemon.terminate().await.success());
    }
}

#[tokio::test]
async fn listed_users_and_groups_administer() {
    if skipped("listed_users_and_groups_administer") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temp folder");
    open(folder.path());
    let (user, group) = ((NOBODY, 1), (1, NOBODY));
    for (key, administrator, other) in [
        ("intake.unix_admin_uids", user, group),
        ("intake.unix_admin_gids", group, user),
    ] {
        // Who administers is not on the list of those who hand in.
        let setup = Setup::new(folder.path(), NOWHERE)
            .with("intake.unix_mode", "0666")
            .with("intake.unix_allow_uids", "2")
            .with(key, &NOBODY.to_string());
        let daemon = setup.start().await;
        hand_in(&daemon, (2, 2));
        refused_everywhere(&daemon, (2, 2));
        let refused = ask(&daemon, other, "GET", "/dead_letters", "");
        assert!(is_refused(&refused), "{key}: {refused}");
        let read = ask(&daemon, administrator, "GET", "/dead_letters", "");
        assert!(
            read.starts_with("ok HTTP/1.1 200") && read.contains(PRIVATE),
            "{key}: {read}"
        );
        for target in ["/log", "/feedback"] {
            let said = ask(&daemon, administrator, "POST", target, HANDED_IN[0]);
            assert!(is_refused(&said), "{key} {target}: {said}");
        }
        let line = probe_in(administrator, "ndjson", text(&daemon.unix));
        assert!(line.starts_with("ok {\"error\""), "{key}: {line}");
        let purged = ask(
            &daemon,
            administrator,
            "POST",
            "/dead_letters/purge",
            r#"{"all": true}"#,
        );
        assert!(purged.starts_with("ok HTTP/1.1 200"), "{key}: {purged}");
        let left = ask(&daemon, (0, 0), "GET", "/dead_letters", "");
        assert!(left.ends_with("[]"), "{key}: {left}");
        assert!(daemon.terminate().await.success());
    }
}

#[tokio::test]
async fn the_daemons_own_user_administers() {
    if skipped("the_daemons_own_user_administers") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temp folder");
    open(folder.path());
    let setup = Setup::new(folder.path(), NOWHERE).with("intake.unix_mode", "0666");
    let daemon = of_nobody(&setup, folder.path()).await;
    hand_in(&daemon, (1, NOBODY));
    refused_everywhere(&daemon, (1, NOBODY));
    for who in [(NOBODY, 1), (0, 0)] {
        let read = ask(&daemon, who, "GET", "/dead_letters", "");
        assert!(
            read.starts_with("ok HTTP/1.1 200") && read.contains(PRIVATE),
            "{who:?}: {read}"
        );
    }
}

#[tokio::test]
async fn another_user_reads_nothing_of_the_data_folder() {
    if skipped("another_user_reads_nothing_of_the_data_folder") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temp folder");
    open(folder.path());
    let setup = Setup::new(folder.path(), NOWHERE);
    let _daemon = setup.start().await;
    let format = setup.data.join("format");
    for (way, path) in [("list", &setup.data), ("read", &format)] {
        let other = probe(NOBODY, way, text(path));
        assert!(REFUSED.contains(&other.as_str()), "{way}: {other}");
        assert!(probe(0, way, text(path)).starts_with("ok "), "{way}");
    }
}

/// Starts a daemon of user nobody, from a copy of the binary that he may execute.
async fn of_nobody(setup: &Setup, folder: &Path) -> Daemon {
    use std::os::unix::process::CommandExt;
    let binary = executable::binary(folder);
    std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY)).expect("chown");
    let original = setup.command();
    let mut command = Command::new(&binary);
    command
        .args(original.get_args())
        .env_clear()
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .stderr(std::process::Stdio::piped());
    Daemon::spawn(command).accepting().await
}

/// A process of user nobody that does nothing to keep others out.
struct Plain(Child);

impl Plain {
    fn start() -> Self {
        use std::os::unix::process::CommandExt;
        let mut command = tool("sleep");
        command.arg("600").uid(NOBODY).gid(NOBODY);
        Self(command.spawn().expect("sleep runs"))
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn nobody_but_root_looks_into_the_process_not_even_its_own_user() {
    if skipped("nobody_but_root_looks_into_the_process_not_even_its_own_user") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temp folder");
    let setup = Setup::new(folder.path(), NOWHERE);
    let daemon = of_nobody(&setup, folder.path()).await;
    let plain = Plain::start();
    let ways = |pid: u32| {
        [
            ("read", format!("/proc/{pid}/environ")),
            ("memory", pid.to_string()),
            ("trace", pid.to_string()),
        ]
    };
    let other = 1;
    for user in [NOBODY, other] {
        for (way, what) in ways(daemon.pid()) {
            let said = probe(user, way, &what);
            assert!(
                REFUSED.contains(&said.as_str()),
                "user {user}, {way} {what}: {said}"
            );
        }
    }
    // The same probes work on a process that does not care. Tracing may be root's alone here (Yama), so root tries that.
    for (way, what) in ways(plain.0.id()) {
        let user = if way == "read" { NOBODY } else { 0 };
        let said = probe(user, way, &what);
        assert!(said.starts_with("ok"), "user {user}, {way} {what}: {said}");
    }
}

#[tokio::test]
async fn without_the_token_every_route_but_health_is_401() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let token = folder.path().join("token");
    std::fs::write(&token, "s3cret").expect("write");
    let pair = Pair::start_with(|setup| setup.with("intake.token_file", text(&token))).await;
    let intake = Intake::ROUTES
        .iter()
        .map(|route| (route.verb, route.pattern, route.guard));
    let admin = Admin::ROUTES
        .iter()
        .map(|route| (route.verb, route.pattern, route.guard));
    let mut closed = 0;
    for (verb, pattern, guard) in intake.chain(admin) {
        let path = match pattern.split_once('{') {
            Some((before, rest)) => format!("{before}1{}", rest.split_once('}').expect("its end").1),
            None => pattern.to_owned(),
        };
        let send = async |token: Option<&str>| {
            let url = pair.at(&path);
            let request = match verb {
                Verb::Get => pair.client.get(url),
                Verb::Post => pair
                    .client
                    .post(url)
                    .header("content-type", "application/json")
                    .body("{}"),
            };
            let request = match token {
                Some(token) => request.bearer_auth(token),
                None => request,
            };
            request.send().await.expect("a reply").status().as_u16()
        };
        if ["/healthz", "/readyz"].contains(&path.as_str()) {
            assert_eq!(send(None).await, 200, "{path}");
            continue;
        }
        closed += 1;
        assert_eq!(send(None).await, 401, "{path}");
        assert_eq!(send(Some("s3cres")).await, 401, "{path}");
        let with = send(Some("s3cret")).await;
        assert_ne!(with, 401, "{path}");
        assert_eq!(with == 403, guard == Guard::UnixOnly, "{path}: {with}");
    }
    assert!(closed >= 10, "{closed} routes");
}
