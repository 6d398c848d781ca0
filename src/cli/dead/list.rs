//! `phosphod dead list` and `show`.
use super::super::table::{finished, printable, table, time};
use super::super::terminal::{print, print_json};
use super::{Choice, Ended, ExitCode, Letter, Socket, each, one, parsed};
use clap::Args;
use comfy_table::Table;
use std::fmt::Write as _;

/// Characters of a reason that the table shows.
const REASON_CHARS: usize = 100;

/// Arguments of `phosphod dead list`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    socket: Socket,
    #[command(flatten)]
    choice: Choice,
    /// A line of JSON a letter, without its record
    #[arg(long)]
    json: bool,
}

/// Arguments of `phosphod dead show`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ShowArgs {
    #[command(flatten)]
    socket: Socket,
    /// Its number
    #[arg(value_name = "ID")]
    id: u64,
    /// The letter as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn list(args: ListArgs) -> Result<ExitCode, Ended> {
    let daemon = args.socket.connect()?;
    let mut table = table(
        ["id", "buried at", "project", "kind", "status", "tries", "reason"],
        &[0, 5],
    );
    let mut count = 0u64;
    each(&daemon, |letter, _| {
        if !args.choice.passes(letter) {
            return Ok(());
        }
        count += 1;
        match args.json {
            true => print_json(format!("{}\n", line(letter)).as_bytes()),
            false => add(&mut table, letter),
        }
        Ok(())
    })?;
    if !args.json {
        let word = if count == 1 { "letter" } else { "letters" };
        match count {
            0 => print("no dead letters\n"),
            _ => print(&format!("{}\n\n{count} dead {word}\n", finished(&table))),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn add(table: &mut Table, letter: &Letter<'_>) {
    let reason = letter.unreadable.as_ref().unwrap_or(&letter.reason);
    let mut shown: String = printable(reason).chars().take(REASON_CHARS).collect();
    if shown.len() < reason.len() {
        shown.push('…');
    }
    table.add_row([
        letter.number.to_string(),
        time(letter.buried_at_ms).unwrap_or_default(),
        printable(&letter.project),
        letter.kind.clone(),
        letter.status.map(|status| status.to_string()).unwrap_or_default(),
        letter.attempts.to_string(),
        shown,
    ]);
}

/// A letter without its record.
fn line(letter: &Letter<'_>) -> serde_json::Value {
    match &letter.unreadable {
        Some(why) => serde_json::json!({"number": letter.number, "unreadable": why}),
        None => serde_json::json!({
            "number": letter.number,
            "project": letter.project,
            "kind": letter.kind,
            "reason": letter.reason,
            "status": letter.status,
            "excerpt": letter.excerpt,
            "attempts": letter.attempts,
            "buried_at_ms": letter.buried_at_ms,
        }),
    }
}

pub(super) fn show(args: ShowArgs) -> Result<ExitCode, Ended> {
    let daemon = args.socket.connect()?;
    let answer = one(&daemon, args.id)?;
    match args.json {
        true => print_json(&[&answer.body[..], b"\n"].concat()),
        false => print(&text(&parsed(&answer.body)?)),
    }
    Ok(ExitCode::SUCCESS)
}

fn text(letter: &Letter<'_>) -> String {
    let mut text = String::new();
    if let Some(why) = &letter.unreadable {
        return format!(
            "dead letter   {}\nunreadable    {}\n",
            letter.number,
            printable(why)
        );
    }
    // Writing to a string cannot fail.
    let _ = writeln!(text, "dead letter   {}", letter.number);
    let _ = writeln!(text, "project       {}", printable(&letter.project));
    let _ = writeln!(text, "kind          {}", letter.kind);
    let _ = writeln!(
        text,
        "buried at     {}",
        time(letter.buried_at_ms).unwrap_or_default()
    );
    let _ = writeln!(text, "tries         {}", letter.attempts);
    let _ = writeln!(text, "reason        {}", printable(&letter.reason));
    if let Some(status) = letter.status {
        let _ = writeln!(text, "upstream      {status}");
    }
    if let Some(excerpt) = &letter.excerpt {
        let _ = writeln!(text, "answer        {}", printable(excerpt));
    }
    let record: Vec<String> = letter.record().lines().map(printable).collect();
    let _ = writeln!(text, "\n{}", record.join("\n"));
    text
}
