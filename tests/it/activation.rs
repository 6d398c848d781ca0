//! Sockets that systemd holds, handed over by its stand-in.

use crate::support::address::own_host;
use crate::support::daemon::{Daemon, Setup, environment};
use crate::support::skip::skip;
use crate::support::{client, eventually};
use std::process::Command;

/// A daemon behind systemd-socket-activate, with what that is to listen on.
fn activated(setup: &Setup, names: Option<&str>, addresses: &[&str]) -> Command {
    let original = setup.command();
    let mut command = Command::new("systemd-socket-activate");
    for address in addresses {
        command.args(["-l", address]);
    }
    command.args(names.map(|names| format!("--fdname={names}")));
    for (name, value) in environment(&original) {
        command.arg(format!("--setenv={name}={value}"));
    }
    command.arg(original.get_program()).args(original.get_args());
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir(setup.data.parent().expect("data lies in a folder"))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped());
    command
}

/// Starts it by a first connection; until then systemd's stand-in may not listen yet.
async fn knocked(command: Command, tcp: &str) -> Daemon {
    let daemon = Daemon::spawn(command);
    eventually("the held port", || async {
        tokio::net::TcpStream::connect(tcp).await.ok()
    })
    .await;
    daemon
}

/// An address that stays free until it is taken.
fn free_port() -> String {
    let free = std::net::TcpListener::bind((own_host(), 0)).expect("a free port");
    free.local_addr().expect("bound").to_string()
}

/// A port that is free on all addresses: not one of those that the system gives out by itself.
fn free_port_everywhere() -> String {
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    let free = (first..32_000).find(|port| std::net::TcpListener::bind(("0.0.0.0", *port)).is_ok());
    format!("0.0.0.0:{}", free.expect("one of thousands"))
}

fn has_socket_activate() -> bool {
    Command::new("systemd-socket-activate")
        .arg("--version")
        .output()
        .is_ok()
}

const NO_SOCKET_ACTIVATE: &str = "systemd-socket-activate is not installed (Debian package systemd)";

#[tokio::test]
async fn sockets_that_systemd_holds_are_taken_over_whatever_their_order() {
    const NAME: &str = "sockets_that_systemd_holds_are_taken_over_whatever_their_order";
    if !has_socket_activate() {
        return skip(NAME, NO_SOCKET_ACTIVATE);
    }
    for (unix_first, names) in [
        (false, None),
        (true, None),
        (false, Some("http:unix")),
        (true, Some("unix:http")),
    ] {
        let folder = tempfile::tempdir().expect("a temp folder");
        let unix = folder.path().join("held.sock");
        let tcp = free_port();
        let mut order = [tcp.as_str(), unix.to_str().expect("text")];
        if unix_first {
            order.reverse();
        }
        let host = tcp.split(':').next().expect("a host");
        let setup = Setup::new(folder.path(), "http://127.0.0.1:9").with("intake.hosts", host);
        let daemon = knocked(activated(&setup, names, &order), &tcp).await;
        let daemon = daemon.accepting().await;
        assert_eq!(daemon.url, format!("http://{tcp}"));
        let http = reqwest::Client::new();
        let event = r#"{"input":"x"}"#;
        assert_eq!(
            client::post(&http, &format!("http://{tcp}/log"), event)
                .await
                .status,
            200
        );
        assert_eq!(
            client::post(&client::unix(&unix), "http://localhost/log", event)
                .await
                .status,
            200
        );
        assert!(daemon.terminate().await.success());
        assert!(unix.exists(), "the socket is systemd's, so it stays");
    }
}

#[tokio::test]
async fn two_tcp_sockets_are_told_apart_by_their_names() {
    const NAME: &str = "two_tcp_sockets_are_told_apart_by_their_names";
    if !has_socket_activate() {
        return skip(NAME, NO_SOCKET_ACTIVATE);
    }
    let folder = tempfile::tempdir().expect("a temp folder");
    let (http, pages) = (free_port(), free_port());
    let setup = Setup::new(folder.path(), "http://127.0.0.1:9")
        .with("intake.browser.listen", "127.0.0.1:0")
        .with("intake.browser.origins", "http://localhost:3000");
    let command = activated(&setup, Some("browser:http"), &[&pages, &http]);
    let mut daemon = knocked(command, &http).await.accepting().await;
    assert_eq!(daemon.url, format!("http://{http}"));
    let fields = daemon.logged("accepting").await;
    assert_eq!(fields["browser"], pages);
}

#[tokio::test]
async fn sockets_that_cannot_be_meant_are_refused_with_what_to_change() {
    const NAME: &str = "sockets_that_cannot_be_meant_are_refused_with_what_to_change";
    if !has_socket_activate() {
        return skip(NAME, NO_SOCKET_ACTIVATE);
    }
    let cases: [(Option<&str>, &[&str], &str); 5] = [
        (
            Some("htp"),
            &["127.0.0.1"],
            "FileDescriptorName=http, unix or browser",
        ),
        (
            Some("unix"),
            &["127.0.0.1"],
            "the one named \"unix\" is a TCP socket",
        ),
        (
            None,
            &["127.0.0.1", "127.0.0.1"],
            "more than one for HTTP over TCP",
        ),
        (Some("browser"), &["127.0.0.1"], "[intake.browser] is off"),
        (None, &["0.0.0.0"], "can be reached from other machines"),
    ];
    for (names, hosts, part) in cases {
        let folder = tempfile::tempdir().expect("a temp folder");
        let setup = Setup::new(folder.path(), "http://127.0.0.1:9");
        let addresses: Vec<String> = hosts
            .iter()
            .map(|host| match *host {
                "127.0.0.1" => free_port(),
                _ => free_port_everywhere(),
            })
            .collect();
        let held: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let mut daemon = knocked(activated(&setup, names, &held), &addresses[0]).await;
        let status = daemon.exited().await;
        let said = daemon.said().join("\n");
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains(part), "{part} in {said}");
    }
}
