//! The real binary as a child process.

use super::ledger::Counts;
use super::{PATIENCE, eventually};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use tokio::sync::watch;

/// What a daemon is started with.
#[derive(Clone)]
pub(crate) struct Setup {
    /// Its data folder.
    pub(crate) data: PathBuf,
    /// `--set` pairs, over what [`Setup::new`] sets; the API key goes by the environment.
    pub(crate) set: Vec<(String, String)>,
    /// Command line that the daemon is started through, such as a tracer's; empty for none.
    pub(crate) wrapper: Vec<String>,
    /// Its whole environment.
    pub(crate) env: Vec<(String, String)>,
}

impl Setup {
    /// A daemon on a free port and a socket in `data`, with short waits, sending to `upstream` with a key. It sends one batch of a
    /// project at a time, because most tests look at the order of all events; the default keeps that of each session.
    pub(crate) fn new(data: &Path, upstream: &str) -> Self {
        let unix = data.join("s.sock");
        Self {
            data: data.join("data"),
            set: Vec::new(),
            wrapper: Vec::new(),
            env: Vec::new(),
        }
        .with("intake.http", "127.0.0.1:0")
        .with("intake.unix", unix.to_str().expect("a temp path is text"))
        .with("upstream.base_url", upstream)
        .with("upstream.api_key", "test-key")
        .with("upstream.project_id", "default-project")
        .with("batch.max_age", "20 ms")
        .with("retry.min", "10 ms")
        .with("retry.max", "200 ms")
        .with("delivery.concurrency", "1")
    }

    /// One setting more.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.set.retain(|(old, _)| old != key);
        self.set.push((key.into(), value.into()));
        self
    }

    /// One setting less.
    pub(crate) fn without(mut self, key: &str) -> Self {
        self.set.retain(|(old, _)| old != key);
        self
    }

    /// Starts through another program, which must become or exec the daemon so that it stays our own child.
    pub(crate) fn through<S: AsRef<str>>(mut self, wrapper: &[S]) -> Self {
        self.wrapper = wrapper.iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// One environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The command line, with an environment that holds nothing of the caller's.
    pub(crate) fn command(&self) -> Command {
        let mut words = self.wrapper.iter().map(String::as_str);
        let binary = env!("CARGO_BIN_EXE_phosphod");
        let mut command = Command::new(words.next().unwrap_or(binary));
        command.args(words);
        if !self.wrapper.is_empty() {
            command.arg(binary);
        }
        command
            .arg("run")
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(self.data.parent().expect("data lies in a folder"));
        command
            .arg("--set")
            .arg(format!("spool.path={}", self.data.display()));
        for (key, value) in &self.set {
            // A key is refused on the command line.
            match key.as_str() {
                "upstream.api_key" => command.env("PHOSPHOD__UPSTREAM__API_KEY", value),
                _ => command.arg("--set").arg(format!("{key}={value}")),
            };
        }
        command.args(["--set", "log.format=json"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Starts it and waits until it accepts.
    pub(crate) async fn start(&self) -> Daemon {
        Daemon::spawn(self.command()).accepting().await
    }

    /// Starts it where it is expected to refuse: its exit code and all that it said.
    pub(crate) async fn fails(&self) -> (Option<i32>, String) {
        let mut daemon = Daemon::spawn(self.command());
        let status = daemon.exited().await;
        (status.code(), daemon.said().join("\n"))
    }
}

/// What a command line sets in its environment.
pub(crate) fn environment(command: &Command) -> Vec<(String, String)> {
    let text = |text: &std::ffi::OsStr| text.to_str().expect("text").to_owned();
    let set = command.get_envs();
    set.filter_map(|(name, value)| Some((text(name), text(value?))))
        .collect()
}

/// A running daemon; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    lines: watch::Receiver<Vec<String>>,
    /// `http://127.0.0.1:PORT`
    pub(crate) url: String,
    /// Path of its Unix socket.
    pub(crate) unix: PathBuf,
}

impl Daemon {
    /// Starts a command and listens to its standard error.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the binary starts");
        let stderr = child.stderr.take().expect("piped");
        let (sender, lines) = watch::channel(Vec::new());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                sender.send_modify(|lines: &mut Vec<String>| lines.push(line));
            }
        });
        Self {
            child,
            lines,
            url: String::new(),
            unix: PathBuf::new(),
        }
    }

    /// Waits until it accepts.
    pub(crate) async fn accepting(mut self) -> Self {
        let fields = self.logged("accepting").await;
        let text = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
        self.url = format!("http://{}", text("http"));
        self.unix = text("unix").into();
        self
    }

    /// Waits for a log line with this message and gives its fields.
    pub(crate) async fn logged(&mut self, message: &str) -> Value {
        let found = |lines: &Vec<String>| {
            lines.iter().find_map(|line| {
                let fields = serde_json::from_str::<Value>(line).ok()?;
                (fields["message"] == message).then_some(fields)
            })
        };
        let waiting = self.lines.wait_for(|lines| found(lines).is_some());
        let seen = match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(Ok(lines)) => found(&lines),
            _ => None,
        };
        seen.unwrap_or_else(|| panic!("no log line {message:?} among:\n{}", self.said().join("\n")))
    }

    /// Everything that it wrote to standard error so far.
    pub(crate) fn said(&self) -> Vec<String> {
        self.lines.borrow().clone()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a child has a pid");
        kill_process(pid, signal).expect("our child can be signalled");
    }

    /// kill -9, and waits until it is gone and its lock with it.
    pub(crate) fn kill_hard(&mut self) {
        self.child.kill().expect("our child can be killed");
        self.child.wait().expect("it can be waited for");
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn terminate(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.exited().await
    }

    /// Waits for the end.
    pub(crate) async fn exited(&mut self) -> ExitStatus {
        let child = std::cell::RefCell::new(&mut self.child);
        let status = eventually("the daemon's end", || async {
            child.borrow_mut().try_wait().expect("it can be waited for")
        })
        .await;
        // The reader thread ends with the pipe; then nothing that was said is missing.
        let _ = tokio::time::timeout(PATIENCE, async { while self.lines.changed().await.is_ok() {} }).await;
        status
    }

    /// `GET /status`.
    pub(crate) async fn status(&self) -> Value {
        let reply = reqwest::get(format!("{}/status", self.url))
            .await
            .expect("the daemon answers");
        serde_json::from_slice(&reply.bytes().await.expect("a body")).expect("JSON")
    }

    /// Whether it has ended, without waiting.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it can be waited for")
    }

    /// The ledger, checked to balance.
    pub(crate) async fn ledger(&self) -> Counts {
        Counts::of(&self.status().await["ledger"])
    }

    /// Waits until nothing is queued and gives the ledger.
    pub(crate) async fn drained(&self) -> Counts {
        eventually("an empty queue", || async {
            let counts = self.ledger().await;
            (counts.queued == 0).then_some(counts)
        })
        .await
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
