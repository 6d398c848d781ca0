//! `phosphod spool import`.
use super::{ExitCode, FAILED, Folder, NOT_LOOKED, bar, failed, not_looked, tell};
use crate::cli::background::{Background, LAST_LINES};
use crate::cli::logging;
use crate::config::{LogSettings, Settings};
use crate::ids::Kind;
use crate::intake::line::{Line, Outcome, Splitter, plan};
use crate::intake::log::Door;
use crate::metrics::Metrics;
use crate::redact::Screen;
use crate::spool::offline::Look;
use crate::spool::{Entry, OnFull, Spool};
use clap::Args;
use indicatif::ProgressBar;
use prometheus_client::metrics::counter::Counter;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::runtime::Runtime;
use uuid::Uuid;

/// Most events that are stored at once, and bytes at which they are.
const BATCH_EVENTS: usize = 1_000;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// What the daemon and the export may have added to an event that was just within `intake.max_event_bytes`.
const ADDED_BYTES: usize = 8 * 1024;
const READ_BYTES: usize = 64 * 1024;

/// Arguments of `phosphod spool import`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ImportArgs {
    #[command(flatten)]
    folder: Folder,
    /// NDJSON, a line an event, as on the Unix socket [default: stdin]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(super) fn run(args: ImportArgs) -> Result<ExitCode, ExitCode> {
    let log = logging::background(Counter::default());
    let ended = import(args, &log);
    log.finish(LAST_LINES);
    ended
}

fn import(args: ImportArgs, log: &Background) -> Result<ExitCode, ExitCode> {
    let mut settings = args.folder.settings()?;
    // What is queued already must not go for what is imported.
    settings.spool.on_full = OnFull::Reject;
    settings.spool.max_projects = 0;
    let (input, length) = open(args.file)?;
    if settings.spool.path.join("format").exists() {
        // Refused where looking is: an older format is left to the daemon.
        drop(Look::take(&settings.spool.path).map_err(|error| not_looked(&error))?);
    }
    let warnings = LogSettings {
        level: "warn".to_owned(),
        ..settings.log.clone()
    };
    logging::start(&warnings, log).map_err(|sentence| failed(&sentence))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| {
        failed(&format!(
            "no threads could be started ({error}): raise the limits of this user"
        ))
    })?;
    let spool = Spool::open(settings.spool.clone()).map_err(|error| {
        tell(&format!("phosphod spool: {error}"));
        ExitCode::from(NOT_LOOKED)
    })?;
    let bar = match length {
        Some(_) => bar(length, "{bar:40} {binary_bytes}/{binary_total_bytes} {msg}"),
        None => bar(None, "{spinner} {binary_bytes} {msg}"),
    };
    let mut import = Import::new(&settings, &spool, &runtime, bar);
    let ended = import.all(input);
    import.bar.finish_and_clear();
    let Import { stored, refused, .. } = import;
    runtime.block_on(spool.close());
    tell(&format!(
        "imported {stored} events into {}; {refused} lines were not stored",
        settings.spool.path.display()
    ));
    match ended {
        Err(sentence) => Err(failed(&sentence)),
        Ok(()) if refused > 0 => Ok(ExitCode::from(FAILED)),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

/// What is read from, and its length in bytes where that is known.
fn open(file: Option<PathBuf>) -> Result<(Box<dyn Read>, Option<u64>), ExitCode> {
    let Some(path) = file else {
        return Ok((Box::new(io::stdin()), None));
    };
    let opened = File::open(&path).and_then(|file| Ok((file.metadata()?, file)));
    match opened {
        Ok((meta, file)) if !meta.is_dir() => {
            let length = meta.is_file().then_some(meta.len());
            Ok((Box::new(file), length))
        }
        Ok(_) => Err(failed(&format!("{} is a folder: name a file", path.display()))),
        Err(error) => Err(failed(&format!(
            "{} cannot be read ({error}): name a file that can",
            path.display()
        ))),
    }
}

/// Lines on their way into the spool.
struct Import<'a> {
    spool: &'a Spool,
    runtime: &'a Runtime,
    door: Door,
    bar: ProgressBar,
    /// Lines that were looked at.
    line: u64,
    /// The line of the first event that is not stored yet.
    unstored_from: u64,
    entries: Vec<Entry>,
    bytes: usize,
    stored: u64,
    refused: u64,
}

impl<'a> Import<'a> {
    fn new(settings: &Settings, spool: &'a Spool, runtime: &'a Runtime, bar: ProgressBar) -> Import<'a> {
        let redactor = settings.redact.clone();
        Import {
            spool,
            runtime,
            door: Door {
                project: settings.intake.default_project.clone(),
                max_event_bytes: settings.intake.max_event_bytes.saturating_add(ADDED_BYTES),
                screen: redactor.map(|redactor| Screen::new(redactor, &Metrics::new())),
                projects: None,
            },
            bar,
            line: 0,
            unstored_from: 1,
            entries: Vec::new(),
            bytes: 0,
            stored: 0,
            refused: 0,
        }
    }

    /// Reads to the end. An error says what was not stored.
    fn all(&mut self, mut input: impl Read) -> Result<(), String> {
        let mut splitter = Splitter::default();
        let mut read = vec![0; READ_BYTES];
        loop {
            let len = match input.read(&mut read) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.store()?;
                    return Err(format!(
                        "the input could not be read beyond line {} ({error}): import the rest again",
                        self.line
                    ));
                }
            };
            self.bar.inc(len as u64);
            splitter.buffer.extend_from_slice(&read[..len]);
            while let Some(line) = splitter.next_line(self.door.max_event_bytes) {
                self.take(&line)?;
            }
        }
        if let Some(line) = splitter.last_line() {
            self.take(&line)?;
        }
        self.store()
    }

    fn take(&mut self, line: &Line) -> Result<(), String> {
        self.line += 1;
        let Some(outcome) = plan(line, &self.door, now_s(), Uuid::new_v4()) else {
            return Ok(());
        };
        match outcome {
            Outcome {
                entry: Some(Entry::Queued { lane, record }),
                ..
            } => {
                self.bytes += record.len();
                self.entries.push(Entry::Queued { lane, record });
            }
            Outcome {
                entry: Some(Entry::Refused { reason, .. }),
                ..
            } => self.refuse(&reason),
            Outcome { kind, answer, .. } => self.refuse(&sentence(kind, &answer)),
        }
        match self.entries.len() >= BATCH_EVENTS || self.bytes >= BATCH_BYTES {
            true => self.store(),
            false => Ok(()),
        }
    }

    fn refuse(&mut self, reason: &str) {
        self.refused += 1;
        let line = self.line;
        self.bar
            .suspend(|| tell(&format!("line {line} was not stored: {reason}")));
    }

    /// Puts what was collected on disk.
    fn store(&mut self) -> Result<(), String> {
        let entries = std::mem::take(&mut self.entries);
        let count = entries.len() as u64;
        self.bytes = 0;
        let appended = self.runtime.block_on(self.spool.append(entries));
        appended.map_err(|error| {
            format!(
                "from line {} on nothing was stored: {error}; then import the lines from there on",
                self.unstored_from
            )
        })?;
        self.stored += count;
        self.unstored_from = self.line + 1;
        self.bar.set_message(format!("{} events", self.stored));
        Ok(())
    }
}

/// The reason in a line of answer.
fn sentence(kind: Kind, answer: &[u8]) -> String {
    let told: serde_json::Value = serde_json::from_slice(answer).unwrap_or_default();
    match told["error"].as_str() {
        Some(sentence) => sentence.to_owned(),
        None => format!("it is no {} that could be stored", kind.as_str()),
    }
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
