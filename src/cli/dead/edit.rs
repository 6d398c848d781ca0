//! `phosphod dead requeue --edit`: a record goes through the user's editor and is queued as it comes back.
use super::super::terminal::print;
use super::act::requeue_edited;
use super::{Daemon, Ended, ExitCode, Letter, one, parsed};
use serde_json::value::RawValue;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use tempfile::NamedTempFile;

/// What is started where the environment names no editor.
const EDITOR: &str = "vi";

pub(super) fn requeue(daemon: &Daemon, id: u64) -> Result<ExitCode, Ended> {
    let answer = one(daemon, id)?;
    let letter: Letter<'_> = parsed(&answer.body)?;
    if let Some(why) = letter.unreadable {
        return Err(Ended::Failed(format!("dead letter {id} cannot be read: {why}")));
    }
    let before = letter.record();
    let file = written(&before).map_err(|error| {
        format!("no temporary file could be written ({error}): free space in TMPDIR, or name another folder")
    })?;
    edit(file.path())?;
    let after = std::fs::read_to_string(file.path()).map_err(|error| {
        format!("the edited record cannot be read ({error}): save it as UTF-8 in the file that was opened")
    })?;
    // Some editors write one.
    let after = after.trim_start_matches('\u{feff}');
    if after.trim() == before.trim() {
        return Err(Ended::Failed(format!(
            "nothing was changed, so dead letter {id} stays: without --edit it is requeued as it is"
        )));
    }
    match check(after).and_then(|json| requeue_edited(daemon, id, json)) {
        Ok(()) => {
            print("requeued 1\n");
            Ok(ExitCode::SUCCESS)
        }
        Err(Ended::Failed(sentence)) => Err(Ended::Failed(kept(&sentence, id, file))),
        Err(told) => Err(told),
    }
}

/// The record in a file of mode 0600.
fn written(record: &str) -> std::io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .prefix("phosphod-dead-letter-")
        .suffix(".json")
        .tempfile()?;
    file.write_all(record.as_bytes())?;
    file.write_all(b"\n")?;
    file.flush()?;
    Ok(file)
}

fn edit(path: &Path) -> Result<(), Ended> {
    let named = |name| {
        std::env::var(name)
            .ok()
            .filter(|editor| !editor.trim().is_empty())
    };
    let editor = named("VISUAL").or_else(|| named("EDITOR"));
    let editor = editor.unwrap_or_else(|| EDITOR.to_owned());
    // By the shell, because an editor is often named with arguments.
    let ended = Command::new("/bin/sh")
        .args(["-c", &format!("{editor} \"$1\""), "sh"])
        .arg(path)
        .status();
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Ended::Failed(format!(
            "the editor ({editor}) ended with {status}, so nothing was requeued: set VISUAL or EDITOR to one that works"
        ))),
        Err(error) => Err(Ended::Failed(format!(
            "no editor could be started ({error}): set VISUAL or EDITOR"
        ))),
    }
}

fn check(text: &str) -> Result<&str, Ended> {
    let json: &RawValue = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
    Ok(json.get())
}

/// What was typed must not be lost with a refusal.
fn kept(sentence: &str, id: u64, file: NamedTempFile) -> String {
    match file.keep() {
        Ok((_, path)) => format!(
            "dead letter {id} stays as it was: {sentence}. Your text is kept in {}",
            path.display()
        ),
        Err(_) => format!("dead letter {id} stays as it was: {sentence}"),
    }
}
