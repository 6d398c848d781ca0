//! `phosphod spool export`.
use super::super::output::{Out, line_of, open};
use super::{ExitCode, FAILED, Folder, bar, failed, not_looked, tell};
use crate::spool::offline::{Look, LookError};
use clap::Args;
use std::io;
use std::path::PathBuf;

/// Arguments of `phosphod spool export`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    #[command(flatten)]
    folder: Folder,
    /// Only the events of this project
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// Write to a new file (mode 0600) instead of stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the events of the dead letters instead of the queued ones
    #[arg(long)]
    dead: bool,
}

/// Why an export ended early.
enum Ended {
    Unreadable(LookError),
    Unwritten(io::Error),
}

impl From<LookError> for Ended {
    fn from(error: LookError) -> Ended {
        Ended::Unreadable(error)
    }
}

pub(super) fn run(args: ExportArgs) -> Result<ExitCode, ExitCode> {
    let look = args.folder.look()?;
    if let Some(what) = look.damage().first() {
        return Err(failed(&format!(
            "{what}. What is queued is not known for sure: start the daemon on the folder once, which carries over what can be \
             read, and export then"
        )));
    }
    let place = args.output.as_deref();
    let mut out = open(place).map_err(|sentence| failed(&sentence))?;
    let project = args.project.as_deref();
    let written = match args.dead {
        true => letters(&look, project, &mut out),
        false => events(&look, project, &mut out),
    };
    let written = written.and_then(|(lines, missing)| {
        out.finish().map_err(Ended::Unwritten)?;
        Ok((lines, missing))
    });
    match written {
        Ok((lines, 0)) => {
            tell(&format!("exported {lines} events"));
            Ok(ExitCode::SUCCESS)
        }
        Ok((lines, missing)) => {
            tell(&format!(
                "exported {lines} events, but {missing} could not be read: see phosphod spool verify"
            ));
            Ok(ExitCode::from(FAILED))
        }
        Err(Ended::Unreadable(error)) => Err(not_looked(&error)),
        Err(Ended::Unwritten(error)) => Err(failed(&format!(
            "the export ended early, for it could not be written ({error}): what was written so far is incomplete"
        ))),
    }
}

/// Writes what is queued. How many lines, and how many events could not be read.
fn events(look: &Look, project: Option<&str>, out: &mut Out) -> Result<(u64, u64), Ended> {
    let bar = bar(
        Some(look.queued(project)),
        "{bar:40} {human_pos}/{human_len} events",
    );
    let mut lines = 0;
    let missing: Result<u64, Ended> = look.each_event(project, |lane, record| {
        out.write(&line_of(lane, record)).map_err(Ended::Unwritten)?;
        lines += 1;
        bar.inc(1);
        Ok(())
    });
    bar.finish_and_clear();
    Ok((lines, missing?))
}

/// Writes the events of dead letters. How many lines, and how many letters could not be read.
fn letters(look: &Look, project: Option<&str>, out: &mut Out) -> Result<(u64, u64), Ended> {
    let bar = bar(None, "{spinner} {human_pos} dead letters");
    let (mut lines, mut missing) = (0, 0);
    let shown: Result<(), Ended> = look.each_letter(|_, letter| {
        let letter = match letter {
            Ok(letter) => letter,
            Err(reason) => {
                bar.suspend(|| tell(&format!("phosphod spool: {reason}")));
                missing += 1;
                return Ok(());
            }
        };
        if project.is_none_or(|project| letter.lane.project.as_str() == project) {
            out.write(&line_of(&letter.lane, &letter.record))
                .map_err(Ended::Unwritten)?;
            lines += 1;
            bar.inc(1);
        }
        Ok(())
    });
    bar.finish_and_clear();
    shown.map(|()| (lines, missing))
}
