//! The commands: one file each. Exit codes: 0 fine, 1 failed, 2 usage (and of `spool` a folder that cannot be looked
//! at, of `dead` and `event` a daemon that cannot be asked), 78 bad configuration.
mod background;
mod config;
mod dead;
mod demo;
mod event;
mod journal;
mod logging;
mod output;
mod pages;
mod redact;
mod run;
mod sandbox;
mod socket;
mod spool;
mod table;
mod terminal;

use crate::config::{Mistakes, Sources};
use crate::daemon::signals::{self, Early};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use terminal::tell;

/// It did not work out; the sentence on stderr says why.
const FAILED: u8 = 1;
/// The command line makes no sense.
const USAGE: u8 = 2;
/// The configuration is wrong (`EX_CONFIG` of sysexits.h). Nothing was opened.
const BAD_CONFIGURATION: u8 = 78;

/// Takes LLM log events and user feedback on localhost, keeps them on disk, and forwards them to the phospho API.
#[derive(Debug, Parser)]
#[command(name = "phosphod", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon.
    Run(Configured),
    /// Look at the configuration without running anything.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Look at the data folder of a daemon that is stopped, check it, or take its events elsewhere; or to another project.
    #[command(subcommand)]
    Spool(spool::SpoolCommand),
    /// Look at the dead letters of the running daemon, queue them again, or remove them.
    #[command(subcommand)]
    Dead(dead::DeadCommand),
    /// Tell what became of one event: queued, in flight, delivered, or dead.
    Event(event::EventArgs),
    /// Try out what [redact] takes out of events.
    #[command(subcommand)]
    Redact(redact::RedactCommand),
    /// Run a local stand-in for the phospho API, to develop without a key.
    Sandbox(sandbox::SandboxArgs),
    /// See it work, in seconds: an outage, a kill -9, and nothing lost.
    Demo(demo::DemoArgs),
    /// Write the manual pages and the completions of the shells into a folder, for a package.
    #[command(hide = true)]
    Pages(pages::PagesArgs),
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Args)]
struct Configured {
    /// Configuration file [default: ./config.toml in a folder of your own, else /etc/phosphod/config.toml, else none]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key over file and environment, for example --set batch.max_age="1 s"; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    set: Vec<String>,
}

impl Configured {
    fn sources(self) -> Sources {
        Sources::of_process(self.config, self.set)
    }
}

fn assignment(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.trim().is_empty() => Ok(text.to_owned()),
        _ => Err("write section.key=value".to_owned()),
    }
}

/// The same for what the daemon ends with; an error for the journal, too.
fn complain(line: &str) {
    tell(&complaint(line));
}

/// A line with its priority, where standard error is the journal.
fn complaint(line: &str) -> String {
    let priority = if journal::is_stderr() { journal::ERROR } else { "" };
    format!("{priority}{line}")
}

/// Prints what is wrong with the configuration.
fn bad_configuration(mistakes: &Mistakes) -> ExitCode {
    for mistake in mistakes.iter() {
        complain(&format!("phosphod: {mistake}"));
    }
    ExitCode::from(BAD_CONFIGURATION)
}

/// Reads the command line, does what it says, and returns the exit code.
pub fn main() -> ExitCode {
    // Before anything else: a signal in the first milliseconds must not end the daemon by its
    // default action.
    let is_run = std::env::args_os().nth(1).is_some_and(|word| word == "run");
    let early = is_run.then(Early::arrange);
    if let Err(fault) = signals::survive_file_size_limit() {
        tell(&format!(
            "phosphod: a limit on file sizes would end this without a word ({fault})"
        ));
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => {
            // Help and version are asked for and come here as well. A closed stdout is nobody's fault.
            let _ = told.print();
            return if told.use_stderr() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match cli.command {
        Command::Run(configured) => run::run(configured.sources(), early.unwrap_or_else(Early::arrange)),
        Command::Config(command) => config::run(command),
        Command::Spool(command) => spool::run(command),
        Command::Dead(command) => dead::run(command),
        Command::Event(args) => event::run(args),
        Command::Redact(command) => redact::run(command),
        Command::Sandbox(args) => sandbox::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Pages(args) => pages::run(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
