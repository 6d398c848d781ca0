//! The daemon as a child process, in a folder of its own.

use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;

/// Longest that the daemon may take to start.
const START: Duration = Duration::from_secs(20);

/// Short waits, so that the demo need not wait either. The rest stays as it comes.
const SETTINGS: [&str; 9] = [
    "intake.http=127.0.0.1:0",
    "upstream.timeout=5 s",
    "batch.max_events=100",
    "batch.max_age=20 ms",
    "retry.min=20 ms",
    "retry.max=100 ms",
    "spool.min_free_bytes=1 MiB",
    "log.format=json",
    "log.level=info",
];

/// A daemon. Killed when dropped; [`Daemon::kill`] also waits for its end.
pub(super) struct Daemon {
    child: Child,
    /// Its log, until it accepts.
    lines: Option<Lines<BufReader<ChildStderr>>>,
    /// Reads its log from then on.
    listener: Option<JoinHandle<()>>,
    /// `http://127.0.0.1:PORT`; empty until it accepts.
    pub(super) url: String,
    /// Its Unix socket.
    pub(super) unix: PathBuf,
}

/// Where the socket is, for a daemon in `folder`.
pub(super) fn socket(folder: &Path) -> PathBuf {
    folder.join("phosphod.sock")
}

/// What is read of a log line.
#[derive(Debug, Deserialize)]
struct LogLine {
    message: String,
    http: Option<String>,
    unix: Option<PathBuf>,
}

impl Daemon {
    /// Starts it with the data in `folder`. Nothing of the caller's configuration or environment reaches it.
    pub(super) fn spawn(folder: &Path, api: &str) -> Result<Self, String> {
        let config = folder.join("config.toml");
        let program =
            std::env::current_exe().map_err(|fault| format!("cannot find my own program: {fault}"))?;
        std::fs::write(&config, "")
            .map_err(|fault| format!("cannot write to the temporary folder: {fault}"))?;
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PHOSPHO_API_KEY", "demo-key")
            .current_dir(folder)
            .arg("run")
            .arg("--config")
            .arg(config);
        let own = [
            format!("spool.path={}", folder.join("data").display()),
            format!("intake.unix={}", socket(folder).display()),
            format!("upstream.base_url={api}"),
        ];
        for setting in SETTINGS.into_iter().chain(own.iter().map(String::as_str)) {
            command.arg("--set").arg(setting);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .map_err(|fault| format!("the daemon cannot be started: {fault}"))?;
        let stderr = child
            .stderr
            .take()
            .ok_or("the daemon's log cannot be read: try again")?;
        Ok(Self {
            child,
            lines: Some(BufReader::new(stderr).lines()),
            listener: None,
            url: String::new(),
            unix: socket(folder),
        })
    }

    /// Waits until it accepts.
    pub(super) async fn accepting(&mut self) -> Result<(), String> {
        let Some(mut lines) = self.lines.take() else {
            return Ok(());
        };
        let accepting = tokio::time::timeout(START, accepting(&mut lines)).await;
        let (http, unix) =
            accepting.map_err(|_| format!("the daemon did not start within {} s", START.as_secs()))??;
        self.url = format!("http://{http}");
        self.unix = unix;
        // Read on, or a full pipe would hold the daemon up.
        let read_on = async move { while let Ok(Some(_)) = lines.next_line().await {} };
        self.listener = Some(tokio::spawn(read_on));
        Ok(())
    }

    /// kill -9, and waits until it is gone.
    pub(super) async fn kill(&mut self) {
        // An error means that it is gone already.
        let _ = self.child.kill().await;
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.abort();
        }
    }
}

/// Reads the log until the daemon says where it listens. The error is the last thing that it said instead.
async fn accepting(lines: &mut Lines<BufReader<ChildStderr>>) -> Result<(String, PathBuf), String> {
    let mut last = "nothing".to_owned();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str::<LogLine>(&line) {
            Ok(LogLine {
                message,
                http: Some(http),
                unix: Some(unix),
            }) if message == "accepting" => return Ok((http, unix)),
            _ => last = line,
        }
    }
    Err(format!(
        "the daemon did not start; the last that it said is: {last}"
    ))
}
