//! A folder in which the commands of a document are run, with `phosphod` on the PATH, and what they start.

use crate::support::daemon::Daemon;
use crate::support::{PATIENCE, eventually};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// What an HTTP error does to a script; and a line for each answer.
const CURL: &str = "curl() { command curl --fail-with-body -sS \"$@\"; echo; }\n";

/// A working folder.
pub(crate) struct World {
    folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temp folder");
        let programs = folder.path().join("bin");
        std::fs::create_dir(&programs).expect("a folder");
        let binary = env!("CARGO_BIN_EXE_phosphod");
        std::os::unix::fs::symlink(binary, programs.join("phosphod")).expect("a link");
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program with nothing of the caller's environment but the PATH.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// A shell's script.
    pub(crate) fn script(&self, text: &str) -> Command {
        let mut command = self.command("sh");
        command.args(["-euc", text]);
        command
    }

    /// What a script prints; it must succeed, and each HTTP answer in it.
    pub(crate) async fn run(&self, text: &str) -> String {
        let (mut command, text) = (self.script(&format!("{CURL}{text}")), text.to_owned());
        let done = tokio::task::spawn_blocking(move || command.output());
        printed(&text, &done.await.expect("waits").expect("sh runs"))
    }

    /// Starts the daemon as a line says, on a free port and with a log that can be read.
    pub(crate) async fn daemon(&self, line: &str) -> Daemon {
        let mut command = self.script(line);
        command
            .env("PHOSPHOD__INTAKE__HTTP", "127.0.0.1:0")
            .env("PHOSPHOD__LOG__FORMAT", "json")
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut daemon = Daemon::spawn(command).accepting().await;
        daemon.unix = self.folder.path().join(&daemon.unix);
        daemon
    }

    /// Starts the sandbox as a line says, which must let it take free ports.
    pub(crate) fn sandbox(&self, line: &str) -> SandboxChild {
        let mut command = self.script(line);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("sh runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let mut next = || {
            let mut line = String::new();
            lines.read_line(&mut line).expect("text");
            let (_, url) = line
                .split_once("http://")
                .unwrap_or_else(|| panic!("no URL in {line:?}"));
            let host = url.trim_end().split('/').next().unwrap_or_default();
            format!("http://{host}")
        };
        let (api, control) = (next(), next());
        SandboxChild {
            child,
            _stdout: lines,
            api,
            control,
        }
    }
}

/// What a command printed; it must have gone well.
pub(crate) fn printed(what: &str, output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{what}: {}\n{said}{complaint}",
        output.status
    );
    said
}

/// `phosphod sandbox` as a child.
pub(crate) struct SandboxChild {
    child: Child,
    _stdout: BufReader<std::process::ChildStdout>,
    /// `http://127.0.0.1:PORT` of the API.
    pub(crate) api: String,
    /// The same of the control routes.
    pub(crate) control: String,
}

impl SandboxChild {
    /// What a control route shows.
    pub(crate) async fn shows(&self, route: &str) -> Value {
        let reply = reqwest::get(format!("{}/sandbox/{route}", self.control))
            .await
            .expect("a reply");
        serde_json::from_slice(&reply.bytes().await.expect("a body")).expect("JSON")
    }

    /// Waits for a stored event with this input, and gives its task.
    pub(crate) async fn stored(&self, input: &str) -> Value {
        eventually(&format!("a task with input {input:?}"), || async {
            let tasks = self.shows("tasks").await;
            let tasks = tasks.as_array().expect("a list").clone();
            tasks.into_iter().find(|task| {
                let event: Value =
                    serde_json::from_str(task["raw"].as_str().unwrap_or_default()).expect("JSON");
                event["input"] == input
            })
        })
        .await
    }

    /// SIGTERM; nothing that arrived may have been unknown to it.
    pub(crate) async fn finish(mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a child has a pid");
        kill_process(pid, Signal::TERM).expect("our child can be signalled");
        let child = std::cell::RefCell::new(&mut self.child);
        let ended = eventually("the sandbox's end", || async {
            child.borrow_mut().try_wait().expect("it can be waited for")
        });
        assert!(ended.await.success(), "something surprised it");
    }
}

impl Drop for SandboxChild {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end.
pub(crate) async fn finished(what: &str, mut command: Command) -> Output {
    let done = tokio::task::spawn_blocking(move || command.output());
    let done = tokio::time::timeout(PATIENCE, done).await;
    done.unwrap_or_else(|_| panic!("{what} does not end"))
        .expect("waits")
        .expect("it runs")
}

/// A file of the source tree.
pub(crate) fn tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
