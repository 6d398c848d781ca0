//! `phosphod spool`: looking at the data folder of a daemon that is stopped, and taking its events elsewhere.
//!
//! Exit codes: 0 fine; 1 something is damaged, missing or was not taken; 2 the folder could not be looked at; 78 bad
//! configuration.

mod export;
mod import;
mod info;
mod moving;
mod table;
mod verify;

use super::{Configured, FAILED, bad_configuration, tell};
use crate::config::{self, Settings};
use crate::spool::offline::{Look, LookError};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

/// The folder could not be looked at, so nothing is known about it.
const NOT_LOOKED: u8 = 2;

/// Commands on a data folder. The daemon must be stopped, but for move.
#[derive(Debug, Subcommand)]
pub(super) enum SpoolCommand {
    /// Show what is in the data folder: the ledger, lanes, generations, dead letters.
    Info(info::InfoArgs),
    /// Read everything and tell what does not check out. Changes nothing. Exit code 1 if there is a problem.
    Verify(verify::VerifyArgs),
    /// Write what is queued as NDJSON, a line an event, in the form that import and the Unix socket take. Changes nothing.
    Export(export::ExportArgs),
    /// Take NDJSON and queue it, checked as the daemon would. Makes the data folder if there is none.
    Import(import::ImportArgs),
    /// Move what is queued of one project to another, behind what that has: for events under a wrong project id. Asks the running
    /// daemon where one has the folder. Exit code 1 if something is left.
    Move(moving::MoveArgs),
}

/// Which folder is meant.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Folder {
    #[command(flatten)]
    configured: Configured,
    /// The data folder; the same as --set spool.path=DIR
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
}

impl Folder {
    /// The configuration as `run` reads it. Mistakes have been told.
    fn settings(self) -> Result<Settings, ExitCode> {
        let loaded =
            config::load(&self.configured.sources()).map_err(|mistakes| bad_configuration(&mistakes))?;
        Ok(match self.path {
            Some(path) => with_path(loaded, path),
            None => loaded,
        })
    }

    /// The folder, taken for looking. What stands in the way has been told.
    fn look(self) -> Result<Look, ExitCode> {
        Look::take(&self.settings()?.spool.path).map_err(|error| not_looked(&error))
    }
}

fn with_path(mut settings: Settings, path: PathBuf) -> Settings {
    settings.spool.path = path;
    settings
}

/// Does what the command line says.
pub(super) fn run(command: SpoolCommand) -> ExitCode {
    let done = match command {
        SpoolCommand::Info(args) => info::run(args),
        SpoolCommand::Verify(args) => verify::run(args),
        SpoolCommand::Export(args) => export::run(args),
        SpoolCommand::Import(args) => import::run(args),
        SpoolCommand::Move(args) => moving::run(args),
    };
    done.unwrap_or_else(|code| code)
}

fn not_looked(error: &LookError) -> ExitCode {
    tell(&format!("phosphod spool: {error}"));
    ExitCode::from(NOT_LOOKED)
}

fn failed(sentence: &str) -> ExitCode {
    tell(&format!("phosphod spool: {sentence}"));
    ExitCode::from(FAILED)
}

/// A bar on a terminal, and nothing elsewhere. Without a length it only counts.
fn bar(length: Option<u64>, template: &str) -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let style = ProgressStyle::with_template(template);
    ProgressBar::with_draw_target(length, target)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
