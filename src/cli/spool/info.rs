//! `phosphod spool info`.
use super::{ExitCode, FAILED, Folder, not_looked, table};
use clap::Args;
use std::io::Write;

/// Arguments of `phosphod spool info`.
#[derive(Debug, Args)]
pub(in crate::cli) struct InfoArgs {
    #[command(flatten)]
    folder: Folder,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: InfoArgs) -> Result<ExitCode, ExitCode> {
    let look = args.folder.look()?;
    let info = look.info().map_err(|error| not_looked(&error))?;
    let text = match args.json {
        true => serde_json::to_string_pretty(&info).unwrap_or_default() + "\n",
        false => table::of(&info),
    };
    // A reader that closed its pipe has seen enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(match info.damage.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FAILED),
    })
}
