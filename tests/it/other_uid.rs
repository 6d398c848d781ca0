//! Another user of the machine: cannot use the socket, read the data, or look into the process. Each way is also seen to work where it
//! may, so that a probe that never works is noticed.

use crate::support::Pair;
use crate::support::daemon::{Daemon, Setup, environment};
use crate::support::executable;
use crate::support::skip::{missing, skip, tool};
use phosphod::admin::Admin;
use phosphod::http::{Guard, Service, Verb};
use phosphod::intake::Intake;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};

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
    let script = include_str!("probe.py");
    let id = uid.to_string();
    let output = tool("setpriv")
        .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
        .args(["python3", "-c", script, way, what])
        .output()
        .expect("setpriv runs");
    assert!(output.status.success(), "{way} {what}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
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
        .envs(environment(&original))
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
