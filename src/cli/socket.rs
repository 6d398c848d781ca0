//! Asking the running daemon over its Unix socket.
use super::{Configured, bad_configuration};
use crate::config;
use clap::Args;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::runtime::Runtime;

/// Which daemon is meant.
#[derive(Debug, Clone, Args)]
pub(super) struct Socket {
    #[command(flatten)]
    configured: Configured,
    /// The daemon's Unix socket [default: intake.unix, as run reads it]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The configuration is wrong; that has been told.
    Configuration(ExitCode),
    /// A sentence with the remedy.
    Unreached(String),
}

/// An answer of the daemon.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its HTTP status.
    pub(super) status: u16,
    /// Where the next page is, if there is one: a path.
    pub(super) next: Option<String>,
    /// Its body.
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The body of a 200; else the daemon's sentence.
    pub(super) fn good(self) -> Result<Answer, String> {
        match self.status {
            200 => Ok(self),
            status => {
                let told: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
                let told = told["detail"].as_str().map(str::to_owned);
                Err(told.unwrap_or_else(|| {
                    format!("the daemon answered {status}: is what listens there a phosphod of this version?")
                }))
            }
        }
    }
}

/// A daemon that answers.
pub(super) struct Daemon {
    runtime: Runtime,
    client: reqwest::Client,
}

impl Socket {
    /// Looks whether anybody listens.
    pub(super) fn connect(self) -> Result<Daemon, NoAnswer> {
        let path = match self.socket {
            Some(path) => path,
            None => {
                let loaded = config::load(&self.configured.sources())
                    .map_err(|mistakes| NoAnswer::Configuration(bad_configuration(&mistakes)))?;
                loaded.intake.unix.ok_or_else(|| {
                    NoAnswer::Unreached(
                        "the configuration has no Unix socket: set intake.unix, or name the daemon's with --socket".into(),
                    )
                })?
            }
        };
        Daemon::at(path)
    }
}

impl Daemon {
    /// The one that listens on this socket, if any does.
    pub(super) fn at(path: PathBuf) -> Result<Daemon, NoAnswer> {
        UnixStream::connect(&path).map_err(|error| NoAnswer::Unreached(unreached(&path, &error)))?;
        let unusable = |what: &str| NoAnswer::Unreached(format!("{what}: raise the limits of this user"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| unusable(&format!("no threads could be started ({error})")))?;
        let client = reqwest::Client::builder()
            .unix_socket(path)
            .no_proxy()
            .build()
            .map_err(|error| unusable(&format!("no client could be made ({error})")))?;
        Ok(Daemon { runtime, client })
    }
}

fn unreached(path: &Path, error: &std::io::Error) -> String {
    let path = path.display();
    match error.kind() {
        ErrorKind::PermissionDenied => {
            format!("{path} may not be used by this user: run this as root or as the daemon's user")
        }
        _ => format!(
            "no daemon listens on {path} ({error}): start the daemon, name its socket with --socket, or look at the folder of a \
             stopped one with phosphod spool export"
        ),
    }
}

impl Daemon {
    /// GET of a path.
    pub(super) fn get(&self, path: &str) -> Result<Answer, String> {
        self.send(self.client.get(format!("http://localhost{path}")))
    }

    /// POST of JSON.
    pub(super) fn post(&self, path: &str, json: Vec<u8>) -> Result<Answer, String> {
        let request = self.client.post(format!("http://localhost{path}"));
        self.send(request.header("content-type", "application/json").body(json))
    }

    fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer, String> {
        let sent = async {
            let reply = request.send().await?;
            let status = reply.status().as_u16();
            let link = reply
                .headers()
                .get("link")
                .and_then(|link| next_of(link.to_str().ok()?));
            let body = reply.bytes().await?.to_vec();
            Ok(Answer {
                status,
                next: link,
                body,
            })
        };
        let answer: Result<Answer, reqwest::Error> = self.runtime.block_on(sent);
        answer.map_err(|error| format!("the daemon did not answer ({error}): see its log, and ask again"))
    }
}

/// The path in `</dead_letters?after=7>; rel="next"`.
fn next_of(link: &str) -> Option<String> {
    let (path, _) = link.strip_prefix('<')?.split_once(">; rel=\"next\"")?;
    Some(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_the_next_page() {
        let link = "</dead_letters?after=7&limit=3>; rel=\"next\"";
        assert_eq!(next_of(link).as_deref(), Some("/dead_letters?after=7&limit=3"));
        assert_eq!(next_of("</x>; rel=\"prev\""), None);
    }

    #[test]
    fn a_refusal_is_told_by_its_own_sentence() {
        let answer = |status, body: &str| Answer {
            status,
            next: None,
            body: body.into(),
        };
        assert_eq!(
            answer(404, "{\"detail\":\"gone\"}").good().expect_err("404"),
            "gone"
        );
        assert!(answer(500, "oh").good().expect_err("500").contains("500"));
        assert_eq!(answer(200, "[]").good().expect("200").body, b"[]");
    }
}
