//! `phosphod dead export`.
use super::super::output::{self, line_of};
use super::super::tell;
use super::{Choice, Ended, ExitCode, FAILED, Socket, each};
use crate::ids::{Kind, Lane, ProjectId};
use clap::Args;
use std::path::PathBuf;

/// Arguments of `phosphod dead export`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    #[command(flatten)]
    socket: Socket,
    #[command(flatten)]
    choice: Choice,
    /// Write to a new file (mode 0600) instead of stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only the events, in the form that spool import and the Unix socket take
    #[arg(long)]
    records: bool,
}

pub(super) fn run(args: ExportArgs) -> Result<ExitCode, Ended> {
    let daemon = args.socket.connect()?;
    let mut out = output::open(args.output.as_deref())?;
    let unwritten = |error| {
        format!(
            "the export ended early, for it could not be written ({error}): what was written so far is incomplete"
        )
    };
    let (mut lines, mut missing) = (0u64, 0u64);
    each(&daemon, |letter, raw| {
        if let Some(why) = &letter.unreadable {
            tell(&format!(
                "phosphod dead: dead letter {} cannot be read: {why}",
                letter.number
            ));
            missing += 1;
            return Ok(());
        }
        if !args.choice.passes(letter) {
            return Ok(());
        }
        let line = match (args.records, lane(&letter.project, &letter.kind)) {
            (true, Some(lane)) => line_of(&lane, letter.record().as_bytes()),
            // As the daemon wrote it, which is without line breaks but for those in a record, between JSON's tokens.
            _ => one_line(raw.get()),
        };
        out.write(&line).map_err(unwritten)?;
        lines += 1;
        Ok(())
    })?;
    out.finish().map_err(unwritten)?;
    match missing {
        0 => tell(&format!("exported {lines} dead letters")),
        _ => tell(&format!(
            "exported {lines} dead letters, but {missing} could not be read"
        )),
    }
    Ok(if missing == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}

fn one_line(json: &str) -> Vec<u8> {
    let mut line = json.replace(['\n', '\r'], " ").into_bytes();
    line.push(b'\n');
    line
}

fn lane(project: &str, kind: &str) -> Option<Lane> {
    let kind = [Kind::Log, Kind::Feedback]
        .into_iter()
        .find(|known| known.as_str() == kind)?;
    let project = ProjectId::new(project).ok()?;
    Some(Lane { project, kind })
}
