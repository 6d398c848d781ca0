//! `phosphod spool verify`.
use super::super::terminal::print;
use super::{ExitCode, FAILED, Folder, bar, not_looked};
use clap::Args;

/// Arguments of `phosphod spool verify`.
#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyArgs {
    #[command(flatten)]
    folder: Folder,
}

/// Prints one problem a line, or that there is none.
pub(super) fn run(args: VerifyArgs) -> Result<ExitCode, ExitCode> {
    let look = args.folder.look()?;
    let bar = bar(Some(look.folders()), "{bar:40} {pos}/{len} generations read");
    let problems = look.verify(|| bar.inc(1));
    bar.finish_and_clear();
    let problems = problems.map_err(|error| not_looked(&error))?;
    let mut text = String::new();
    for problem in &problems {
        text += &format!("{problem}\n");
    }
    if problems.is_empty() {
        text = format!(
            "ok: {} queued events and all else checks out\n",
            look.queued(None)
        );
    }
    print(&text);
    Ok(match problems.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FAILED),
    })
}
