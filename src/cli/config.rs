//! `phosphod config check` and `phosphod config show`.
use super::terminal::print;
use super::{Configured, bad_configuration};
use crate::config::{self, Settings};
use clap::Subcommand;
use std::process::ExitCode;

/// Looking at the configuration.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Tell every mistake at once; exit code 78 if there is one. Notes say what is missing, warnings what may be a slip.
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
            print(&passed(&settings));
            ExitCode::SUCCESS
        }
        Err(mistakes) => bad_configuration(&mistakes),
    }
}

/// First whether it is valid, then what it lacks, then what is most likely not meant.
fn passed(settings: &Settings) -> String {
    let mut text = match &settings.file {
        Some(file) => format!("ok: {}\n", file.display()),
        None => "ok: no file, built-in defaults\n".to_owned(),
    };
    let missing = [settings.lacks_key(), settings.lacks_project().map(str::to_owned)];
    text.extend(missing.iter().flatten().map(|note| format!("note: {note}\n")));
    text.extend(
        settings
            .warnings
            .iter()
            .map(|warning| format!("warning: {warning}\n")),
    );
    text
}

fn show(configured: Configured) -> ExitCode {
    let (text, mistakes) = config::show(&configured.sources());
    print(&text);
    mistakes.map_or(ExitCode::SUCCESS, |mistakes| bad_configuration(&mistakes))
}
