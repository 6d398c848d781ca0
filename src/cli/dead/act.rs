//! `phosphod dead requeue` and `purge`.
use super::super::terminal::{print, tell};
use super::{Choice, Daemon, Ended, ExitCode, FAILED, Socket, edit, parsed};
use crate::spool::MAX_LETTERS;
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Arguments of `phosphod dead requeue`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RequeueArgs {
    #[command(flatten)]
    socket: Socket,
    /// Their numbers
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<u64>,
    /// All of them
    #[arg(long)]
    all: bool,
    /// With --all: only those of this project
    #[arg(long, value_name = "ID", requires = "all")]
    project: Option<String>,
    /// With --all: only those whose reason contains this text
    #[arg(long, value_name = "TEXT", requires = "all")]
    reason_contains: Option<String>,
    /// Edit the record of one letter in $VISUAL or $EDITOR first
    #[arg(long, conflicts_with = "all")]
    edit: bool,
}

/// Arguments of `phosphod dead purge`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PurgeArgs {
    #[command(flatten)]
    socket: Socket,
    /// Their numbers
    #[arg(value_name = "ID", required_unless_present_any = ["all", "older_than", "project", "reason_contains"],
          conflicts_with_all = ["all", "older_than", "project", "reason_contains"])]
    ids: Vec<u64>,
    /// All of them
    #[arg(long)]
    all: bool,
    /// Only those that were buried longer ago than this, such as 7d
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
    #[command(flatten)]
    choice: Choice,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// What the daemon did.
#[derive(Debug, Default, Deserialize)]
struct Done {
    done: u64,
    failed: u64,
    failures: Vec<Failure>,
}

#[derive(Debug, Deserialize)]
struct Failure {
    number: u64,
    error: String,
}

pub(super) fn requeue(args: RequeueArgs) -> Result<ExitCode, Ended> {
    let daemon = args.socket.connect()?;
    if args.edit {
        let [id] = args.ids[..] else {
            return Err(Ended::Failed(
                "one letter is edited at a time: name one ID with --edit".into(),
            ));
        };
        return edit::requeue(&daemon, id);
    }
    let path = "/dead_letters/requeue";
    let done = match args.all {
        true => {
            let choice = Choice {
                project: args.project,
                reason_contains: args.reason_contains,
            };
            ask(&daemon, path, &all(&choice, None))?
        }
        false => ask_each(&daemon, path, &args.ids)?,
    };
    Ok(report(&done, "requeued"))
}

pub(super) fn purge(args: PurgeArgs) -> Result<ExitCode, Ended> {
    let daemon = args.socket.connect()?;
    let named = match (
        args.ids.len(),
        args.all && args.older_than.is_none() && !args.choice.is_any(),
    ) {
        (0, true) => "all dead letters".to_owned(),
        (0, false) => "the dead letters that these options choose".to_owned(),
        (1, _) => format!("dead letter {}", args.ids[0]),
        (count, _) => format!("{count} dead letters"),
    };
    if !args.yes && std::io::stdin().is_terminal() && !agrees(&named) {
        return Err(Ended::Failed("nothing was purged".into()));
    }
    let path = "/dead_letters/purge";
    let done = match args.ids.is_empty() {
        true => {
            let before = args.older_than.map(|age| now_ms().saturating_sub(millis(age)));
            ask(&daemon, path, &all(&args.choice, before))?
        }
        false => ask_each(&daemon, path, &args.ids)?,
    };
    Ok(report(&done, "purged"))
}

fn agrees(named: &str) -> bool {
    let mut asked = std::io::stderr();
    let _ = write!(asked, "Purge {named}? They cannot be had back. [y/N] ");
    let _ = asked.flush();
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.is_ok() && matches!(line.trim(), "y" | "Y" | "yes")
}

fn all(choice: &Choice, buried_before_ms: Option<u64>) -> Value {
    json!({
        "all": true,
        "project": choice.project,
        "reason_contains": choice.reason_contains,
        "buried_before_ms": buried_before_ms,
    })
}

/// As many at once as the daemon takes.
fn ask_each(daemon: &Daemon, path: &str, ids: &[u64]) -> Result<Done, Ended> {
    let mut sum = Done::default();
    for ids in ids.chunks(MAX_LETTERS) {
        let done = ask(daemon, path, &json!({"ids": ids}))?;
        sum.done += done.done;
        sum.failed += done.failed;
        sum.failures.extend(done.failures);
    }
    Ok(sum)
}

fn ask(daemon: &Daemon, path: &str, body: &Value) -> Result<Done, Ended> {
    send(daemon, path, body.to_string().into_bytes())
}

fn send(daemon: &Daemon, path: &str, body: Vec<u8>) -> Result<Done, Ended> {
    Ok(parsed(&daemon.post(path, body)?.good()?.body)?)
}

/// Queues a letter again with another record, which is JSON. The daemon's refusal is the error.
pub(super) fn requeue_edited(daemon: &Daemon, id: u64, record: &str) -> Result<(), Ended> {
    let body = format!("{{\"id\":{id},\"record\":{record}}}");
    let done = send(daemon, "/dead_letters/requeue", body.into_bytes())?;
    match done.failures.into_iter().next() {
        Some(failure) => Err(Ended::Failed(failure.error)),
        None => Ok(()),
    }
}

fn report(done: &Done, what: &str) -> ExitCode {
    for Failure { number, error } in &done.failures {
        tell(&format!(
            "phosphod dead: dead letter {number} was not {what}: {error}"
        ));
    }
    let untold = done.failed.saturating_sub(done.failures.len() as u64);
    if untold > 0 {
        tell(&format!(
            "phosphod dead: {untold} more dead letters were not {what}: list shows those there are"
        ));
    }
    print(&format!("{what} {}\n", done.done));
    match done.failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(FAILED),
    }
}

fn now_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
