//! `phosphod spool move`.
use super::{ExitCode, FAILED, Folder, NOT_LOOKED, failed, not_looked, tell};
use crate::admin::lanes::{Moved, move_project, projects};
use crate::cli::background::{Background, LAST_LINES};
use crate::cli::logging;
use crate::cli::socket::{Daemon, NoAnswer};
use crate::cli::terminal::print;
use crate::config::{LogSettings, Settings};
use crate::ids::ProjectId;
use crate::spool::offline::{Look, LookError};
use crate::spool::{OpenError, Spool};
use clap::Args;
use prometheus_client::metrics::counter::Counter;
use std::path::{Path, PathBuf};

/// Arguments of `phosphod spool move`.
#[derive(Debug, Args)]
pub(in crate::cli) struct MoveArgs {
    #[command(flatten)]
    folder: Folder,
    /// The project whose events are queued, as `spool info` or /status shows it
    #[arg(long, value_name = "PROJECT_ID")]
    from: String,
    /// The project that they are to go to
    #[arg(long, value_name = "PROJECT_ID")]
    to: String,
    /// The Unix socket of the running daemon [default: intake.unix, if the data folder is in use]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(super) fn run(args: MoveArgs) -> Result<ExitCode, ExitCode> {
    let (from, to) = projects(&args.from, &args.to).map_err(|sentence| {
        tell(&format!("phosphod spool: --{sentence}"));
        ExitCode::from(NOT_LOOKED)
    })?;
    let moved = match args.socket {
        Some(socket) => ask(&socket, &from, &to)?,
        None => {
            let settings = args.folder.settings()?;
            match Look::take(&settings.spool.path) {
                Ok(look) => {
                    drop(look);
                    let log = logging::background(Counter::default());
                    let ended = move_stopped(&settings, &log, &from, &to);
                    log.finish(LAST_LINES);
                    ended?
                }
                Err(LookError::Closed(OpenError::InUse { .. })) => {
                    let Some(socket) = &settings.intake.unix else {
                        return Err(failed(
                            "the daemon runs, and the configuration has no Unix socket: stop it, or name its socket with --socket",
                        ));
                    };
                    ask(socket, &from, &to)?
                }
                Err(error) => return Err(not_looked(&error)),
            }
        }
    };
    Ok(report(moved, &from, &to))
}

/// Moves in the folder of a daemon that is stopped.
fn move_stopped(
    settings: &Settings,
    log: &Background,
    from: &ProjectId,
    to: &ProjectId,
) -> Result<Moved, ExitCode> {
    let warnings = LogSettings {
        level: "warn".to_owned(),
        ..settings.log.clone()
    };
    logging::start(&warnings, log).map_err(|sentence| failed(&sentence))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| {
            failed(&format!(
                "no threads could be started ({error}): raise the limits of this user"
            ))
        })?;
    let spool = Spool::open(settings.spool.clone()).map_err(|error| not_looked(&error.into()))?;
    let ended = runtime.block_on(move_project(&spool, from, to));
    runtime.block_on(spool.close());
    ended.map_err(|stopped| failed(&stopped.to_string()))
}

/// Lets the running daemon do it.
fn ask(socket: &Path, from: &ProjectId, to: &ProjectId) -> Result<Moved, ExitCode> {
    let daemon = Daemon::at(socket.to_owned()).map_err(|no_answer| match no_answer {
        NoAnswer::Configuration(code) => code,
        NoAnswer::Unreached(sentence) => {
            tell(&format!("phosphod spool: {sentence}"));
            ExitCode::from(NOT_LOOKED)
        }
    })?;
    let body = serde_json::json!({"from": from.as_str(), "to": to.as_str()});
    let answer = daemon
        .post("/lanes/move", body.to_string().into_bytes())
        .and_then(|answer| answer.good())
        .map_err(|sentence| failed(&sentence))?;
    let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let count = |key: &str| told[key].as_u64();
    match (count("logs"), count("feedback"), count("left")) {
        (Some(logs), Some(feedback), Some(left)) => Ok(Moved { logs, feedback, left }),
        _ => Err(failed(
            "the daemon's answer is not that of this version: restart it with this one, and see /status",
        )),
    }
}

fn report(moved: Moved, from: &ProjectId, to: &ProjectId) -> ExitCode {
    let Moved { logs, feedback, left } = moved;
    let mut text = format!("moved {logs} log events and {feedback} feedback from {from} to {to}\n");
    if moved == Moved::default() {
        text = format!(
            "nothing is queued of {from}: phosphod spool info and /status show of which projects something is\n"
        );
    } else if left > 0 {
        text.push_str(&format!(
            "{left} of {from} are left: they are being sent, or came since; run this again, with the daemon stopped if need be\n"
        ));
    }
    print(&text);
    match left {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(FAILED),
    }
}
