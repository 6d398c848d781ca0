//! `phosphod demo`: the whole way of an event on this machine, through an outage and a kill -9, and proof of it.
//!
//! | file | concern |
//! |---|---|
//! | this one | arguments, deadline, signals, exit code; what is cleared away however it ends |
//! | `story` | the acts |
//! | `traffic` | what the pretend app logs (pure) |
//! | `app` | the pretend app: three ways in, and what it was acknowledged |
//! | `child` | the daemon as a child process |
//! | `gauge` | what the daemon says of itself |
//! | `tally` | whether the numbers add up (pure) |
//! | `screen`, `table` | what is shown |

mod app;
mod child;
mod gauge;
mod screen;
mod story;
mod table;
mod tally;
mod traffic;

use super::background::LAST_LINES;
use super::{FAILED, tell};
use crate::daemon::limits;
use crate::sandbox::{self, Sandbox};
use child::Daemon;
use screen::Screen;
use serde_json::json;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

/// A demo that takes longer is stuck. On a healthy machine it takes a few seconds.
const DEADLINE: Duration = Duration::from_secs(60);
/// Longest path of a Unix socket that every platform takes, in bytes.
const SOCKET_PATH_BYTES: usize = 100;

/// Arguments of `phosphod demo`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct DemoArgs {
    /// How many log events the pretend app sends
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(100..=20_000))]
    events: u32,
}

/// Plays the demo. Exit code 1 when a number does not add up, when something fails, and when it is interrupted.
pub(super) fn run(args: DemoArgs) -> ExitCode {
    if let Err(sentence) = limits::check() {
        tell(&format!("phosphod demo: {sentence}"));
        return ExitCode::from(FAILED);
    }
    let screen = Screen::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let played = match runtime {
        Ok(runtime) => runtime.block_on(play(&screen, args.events)),
        Err(fault) => Err(format!("no threads could be started: {fault}")),
    };
    screen.clear();
    screen.finish(LAST_LINES);
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            tell(&format!("phosphod demo: {sentence}"));
            ExitCode::from(FAILED)
        }
    }
}

/// Sets the stage, plays until the end, a signal or the deadline, and clears the stage in any case.
async fn play(screen: &Screen, events: u32) -> Result<(), String> {
    let started = Instant::now();
    let mut signals = Vec::new();
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ] {
        signals.push(signal(kind).map_err(|fault| format!("cannot listen for signals: {fault}"))?);
    }
    let [interrupt, terminate, hangup] = signals.as_mut_slice() else {
        return Err("cannot listen for signals".to_owned());
    };
    let mut stage = Stage::set().await?;
    let ended = tokio::select! {
        biased;
        _ = interrupt.recv() => Err("interrupted".to_owned()),
        _ = terminate.recv() => Err("interrupted".to_owned()),
        _ = hangup.recv() => Err("interrupted".to_owned()),
        () = tokio::time::sleep(DEADLINE) => Err(format!(
            "not finished within {} s, so something is stuck; try again with less load on this machine",
            DEADLINE.as_secs()
        )),
        ended = story::play(&mut stage, screen, events, started) => ended,
    };
    stage.clear().await;
    ended
}

/// What must be gone afterwards.
struct Stage {
    sandbox: Sandbox,
    daemon: Option<Daemon>,
    folder: TempDir,
}

impl Stage {
    async fn set() -> Result<Self, String> {
        let folder = folder().map_err(|fault| {
            format!("no temporary folder could be made ({fault}): set TMPDIR to one that you may write to")
        })?;
        let sandbox = sandbox::start(sandbox::Settings::default())
            .await
            .map_err(|fault| fault.to_string())?;
        // Feedback comes after its log here, so nothing has to wait for a task as long as at the real API.
        sandbox.switch(json!({"eval_wait_ms": 0})).await?;
        Ok(Self {
            sandbox,
            daemon: None,
            folder,
        })
    }

    /// Starts the daemon, or starts it again on the same folder, and waits until it accepts. It belongs to the stage at
    /// once, so that it is cleared away even if it never does.
    async fn start_daemon(&mut self) -> Result<(), String> {
        let daemon = Daemon::spawn(self.folder.path(), &self.sandbox.base_url())?;
        self.daemon.insert(daemon).accepting().await
    }

    /// Waits until the daemon has met the API while that is down. On a fast machine all is acknowledged before.
    async fn is_tried_in_vain(&self) -> Result<(), String> {
        let met = self
            .sandbox
            .wait_for(DEADLINE, |state| state.while_down > 0)
            .await;
        met.map(drop)
            .map_err(|_| "the daemon never tried to deliver while the API was down".to_owned())
    }

    /// kill -9.
    async fn kill_daemon(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            daemon.kill().await;
        }
        self.daemon = None;
    }

    async fn clear(mut self) {
        self.kill_daemon().await;
        self.sandbox.shutdown().await;
        if let Err(fault) = self.folder.close() {
            tell(&format!(
                "phosphod demo: the temporary folder could not be removed: {fault}"
            ));
        }
    }
}

/// A temporary folder in which the Unix socket's path is not too long.
fn folder() -> std::io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("phosphod-demo-");
    let folder = builder.tempdir()?;
    if child::socket(folder.path()).as_os_str().len() <= SOCKET_PATH_BYTES {
        return Ok(folder);
    }
    builder.tempdir_in("/tmp")
}
