//! `phosphod dead`: the dead letters of the running daemon.
//!
//! Exit codes: 0 fine; 1 something was not done; 2 the daemon could not be asked; 78 bad configuration.

mod act;
mod edit;
mod export;
mod list;

use super::socket::{Answer, Daemon, NoAnswer, Socket};
use super::{FAILED, tell};
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::process::ExitCode;

/// Nobody answered, so nothing is known and nothing was done.
const NOT_ASKED: u8 = 2;

/// Commands on dead letters. The daemon must be running.
#[derive(Debug, Subcommand)]
pub(super) enum DeadCommand {
    /// List the dead letters, oldest first.
    List(list::ListArgs),
    /// Show one of them, with its record.
    Show(list::ShowArgs),
    /// Queue them again, as new events at the end of the queue; the letters are gone then.
    Requeue(act::RequeueArgs),
    /// Write them as NDJSON, a line a letter. Changes nothing.
    Export(export::ExportArgs),
    /// Remove them for good. In the ledger their events stay dead.
    Purge(act::PurgeArgs),
}

/// Which of all letters are meant.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Choice {
    /// Only those of this project
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// Only those whose reason contains this text
    #[arg(long, value_name = "TEXT")]
    reason_contains: Option<String>,
}

impl Choice {
    fn is_any(&self) -> bool {
        self.project.is_some() || self.reason_contains.is_some()
    }

    fn passes(&self, letter: &Letter<'_>) -> bool {
        self.project
            .as_ref()
            .is_none_or(|wanted| *wanted == letter.project)
            && self
                .reason_contains
                .as_ref()
                .is_none_or(|part| letter.reason.contains(part))
    }
}

/// A letter, as the daemon shows it.
#[derive(Debug, Deserialize)]
struct Letter<'a> {
    number: u64,
    #[serde(default)]
    project: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    reason: String,
    status: Option<u16>,
    excerpt: Option<String>,
    #[serde(default)]
    attempts: u32,
    #[serde(default)]
    buried_at_ms: u64,
    #[serde(borrow)]
    record: Option<&'a RawValue>,
    /// Why it cannot be shown.
    unreadable: Option<String>,
}

impl Letter<'_> {
    /// The record: JSON as it was accepted, or the text that came in its place.
    fn record(&self) -> String {
        let raw = self.record.map(RawValue::get).unwrap_or_default();
        match raw.starts_with('"') {
            true => serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned()),
            false => raw.to_owned(),
        }
    }
}

/// What a command ended with where it did not go well.
enum Ended {
    /// It has been told.
    Code(ExitCode),
    /// It is to be told.
    Failed(String),
}

impl From<NoAnswer> for Ended {
    fn from(none: NoAnswer) -> Ended {
        match none {
            NoAnswer::Configuration(code) => Ended::Code(code),
            NoAnswer::Unreached(sentence) => {
                tell(&format!("phosphod dead: {sentence}"));
                Ended::Code(ExitCode::from(NOT_ASKED))
            }
        }
    }
}

impl From<String> for Ended {
    fn from(sentence: String) -> Ended {
        Ended::Failed(sentence)
    }
}

/// Does what the command line says.
pub(super) fn run(command: DeadCommand) -> ExitCode {
    let done = match command {
        DeadCommand::List(args) => list::list(args),
        DeadCommand::Show(args) => list::show(args),
        DeadCommand::Requeue(args) => act::requeue(args),
        DeadCommand::Export(args) => export::run(args),
        DeadCommand::Purge(args) => act::purge(args),
    };
    match done {
        Ok(code) | Err(Ended::Code(code)) => code,
        Err(Ended::Failed(sentence)) => {
            tell(&format!("phosphod dead: {sentence}"));
            ExitCode::from(FAILED)
        }
    }
}

/// Shows every letter with its JSON, page by page.
fn each(
    daemon: &Daemon,
    mut show: impl FnMut(&Letter<'_>, &RawValue) -> Result<(), Ended>,
) -> Result<(), Ended> {
    let mut path = Some("/dead_letters?limit=500".to_owned());
    while let Some(asked) = path {
        let page = daemon.get(&asked)?.good()?;
        let letters: Vec<&RawValue> = parsed(&page.body)?;
        for raw in letters {
            show(&parsed(raw.get().as_bytes())?, raw)?;
        }
        path = page.next;
    }
    Ok(())
}

fn one(daemon: &Daemon, number: u64) -> Result<Answer, Ended> {
    Ok(daemon.get(&format!("/dead_letters/{number}"))?.good()?)
}

fn parsed<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| {
        format!("the daemon's answer makes no sense ({error}): is it of the same version as this command?")
    })
}
