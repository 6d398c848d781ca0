//! `phosphod config check` and `phosphod config show`.
use super::terminal::print;
use super::{Configured, bad_configuration};
use crate::config;
use clap::Subcommand;
use std::process::ExitCode;

/// Looking at the configuration.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Tell every mistake at once; exit code 78 if there is one.
    Check(Configured),
    /// Print the resolved settings, secrets masked, and where each came from.
    Show(Configured),
}

pub(super) fn run(command: ConfigCommand) -> ExitCode {
    match command {
        ConfigCommand::Check(configured) => check(configured),
        ConfigCommand::Show(configured) => show(configured),
    }
}

fn check(configured: Configured) -> ExitCode {
    match config::load(&configured.sources()) {
        Ok(settings) => {
            match settings.file {
                Some(file) => print(&format!("ok: {}\n", file.display())),
                None => print("ok: no file, built-in defaults\n"),
            }
            ExitCode::SUCCESS
        }
        Err(mistakes) => bad_configuration(&mistakes),
    }
}

fn show(configured: Configured) -> ExitCode {
    let (text, mistakes) = config::show(&configured.sources());
    print(&text);
    mistakes.map_or(ExitCode::SUCCESS, |mistakes| bad_configuration(&mistakes))
}
