//! `phosphod spool info`.
use super::super::terminal::{print, print_json};
use super::{ExitCode, FAILED, Folder, not_looked, table};
use clap::Args;

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
    match args.json {
        true => print_json((serde_json::to_string_pretty(&info).unwrap_or_default() + "\n").as_bytes()),
        false => print(&table::of(&info)),
    }
    Ok(match info.damage.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FAILED),
    })
}
