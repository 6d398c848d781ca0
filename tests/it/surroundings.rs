//! Bad surroundings: the daemon refuses to start with a sentence that names the remedy, and touches nothing.

use crate::support::daemon::Setup;
use crate::support::eventually;
use crate::support::executable;
use crate::support::skip::skip;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const NOWHERE: &str = "http://127.0.0.1:9";

async fn refuses(setup: &Setup, code: i32, parts: &[&str]) {
    let (status, said) = setup.fails().await;
    assert_eq!(status, Some(code), "{said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temp folder")
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let at = folder();
    refuses(
        &Setup::new(at.path(), NOWHERE).with("intake.http", &address),
        1,
        &[&address, "in use", "intake.http"],
    )
    .await;
}

#[tokio::test]
async fn a_socket_in_use_is_named_and_a_stale_one_is_replaced() {
    let at = folder();
    let path = at.path().join("s.sock");
    let taken = std::os::unix::net::UnixListener::bind(&path).expect("bind");
    refuses(
        &Setup::new(at.path(), NOWHERE),
        1,
        &["s.sock", "in use", "intake.unix"],
    )
    .await;
    drop(taken);
    let daemon = Setup::new(at.path(), NOWHERE).start().await;
    assert_eq!(daemon.unix, path);
}

#[tokio::test]
async fn a_data_folder_that_is_a_file_or_open_to_others_is_refused() {
    let at = folder();
    let setup = Setup::new(at.path(), NOWHERE);
    std::fs::write(&setup.data, "not a folder").expect("write");
    refuses(&setup, 1, &["spool.path"]).await;
    assert_eq!(
        std::fs::read_to_string(&setup.data).expect("untouched"),
        "not a folder"
    );

    std::fs::remove_file(&setup.data).expect("remove");
    std::fs::create_dir(&setup.data).expect("a folder");
    std::fs::set_permissions(&setup.data, std::fs::Permissions::from_mode(0o777)).expect("chmod");
    refuses(&setup, 1, &["chmod", "spool.path"]).await;
}

#[tokio::test]
async fn a_data_folder_of_another_user_or_not_writable_is_refused() {
    if !rustix::process::getuid().is_root() {
        skip(
            "a_data_folder_of_another_user_or_not_writable_is_refused",
            "only root can make a folder of another user",
        );
        return;
    }
    let at = folder();
    let setup = Setup::new(at.path(), NOWHERE);
    std::fs::create_dir(&setup.data).expect("a folder");
    std::os::unix::fs::chown(&setup.data, Some(65534), Some(65534)).expect("chown");
    std::fs::set_permissions(&setup.data, std::fs::Permissions::from_mode(0o700)).expect("chmod");
    refuses(&setup, 1, &["belongs to user 65534", "spool.path"]).await;
    assert_eq!(
        std::fs::read_dir(&setup.data).expect("readable").count(),
        0,
        "nothing was made in it"
    );

    // As a plain user, in a folder that only root may write to.
    std::fs::set_permissions(at.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let inner = at.path().join("closed");
    std::fs::create_dir(&inner).expect("a folder");
    let setup = Setup {
        data: inner.join("data"),
        ..setup
    }
    .with("intake.unix", "");
    let said = as_nobody(&setup).await;
    assert!(
        said.contains("spool.path") && said.contains("ermission"),
        "{said}"
    );
}

/// Starts the daemon as user nobody, from a copy of the binary that nobody may execute; gives what it said.
async fn as_nobody(setup: &Setup) -> String {
    use std::os::unix::process::CommandExt;
    let at = folder();
    std::fs::set_permissions(at.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let binary = executable::binary(at.path());
    let original = setup.command();
    let mut command = Command::new(&binary);
    command
        .args(original.get_args())
        .env_clear()
        .current_dir("/")
        .uid(65534)
        .gid(65534);
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("waits")
        .expect("runs");
    assert_eq!(
        output.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_log_that_cannot_be_written_ends_nothing() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let setup = Setup::new(folder.path(), "http://127.0.0.1:9");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = setup.command();
    command.stderr(writer);
    let mut child = command.spawn().expect("the binary starts");
    drop(command);
    // It logs as it starts, so that it answers at all says that it went on.
    let socket = folder.path().join("s.sock");
    let connects = || async { tokio::net::UnixStream::connect(&socket).await.ok() };
    eventually("a socket that accepts, without a log", connects).await;
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).expect("a child has a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("our child can be signalled");
    assert!(child.wait().expect("it can be waited for").success());

    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let refused = setup
        .with("batch.max_events", "0")
        .command()
        .stderr(writer)
        .status();
    assert_eq!(refused.expect("the binary starts").code(), Some(78));
}

#[tokio::test]
async fn mistakes_in_the_configuration_end_with_78_before_anything_is_opened() {
    let at = folder();
    let long = format!("/tmp/{}/s.sock", "x".repeat(120));
    let cases: [(&str, &str, &[&str]); 4] = [
        ("intake.unix", &long, &["intake.unix", "bytes"]),
        ("batch.max_evnts", "7", &["batch.max_evnts", "batch.max_events"]),
        ("retry.min", "soon", &["retry.min"]),
        (
            "upstream.api_key_file",
            "/nonexistent/key",
            &["upstream.api_key_file", "/nonexistent/key"],
        ),
    ];
    for (key, value, parts) in cases {
        let setup = Setup::new(at.path(), NOWHERE)
            .without("upstream.api_key")
            .with(key, value);
        refuses(&setup, 78, parts).await;
        assert!(!setup.data.exists(), "{key}: nothing was made");
    }
    let all = Setup::new(at.path(), NOWHERE)
        .with("retry.min", "soon")
        .with("batch.max_events", "none");
    refuses(&all, 78, &["retry.min", "batch.max_events"]).await;
    malformed_file(at.path()).await;
}

async fn malformed_file(at: &Path) {
    let file = at.join("broken.toml");
    std::fs::write(&file, "[intake]\nhttp = \n").expect("write");
    let output = Command::new(env!("CARGO_BIN_EXE_phosphod"))
        .args(["run", "--config"])
        .arg(&file)
        .env_clear()
        .current_dir(at)
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("broken.toml") && said.contains('2'), "{said}");
}
