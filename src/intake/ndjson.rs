//! NDJSON on a connection to the Unix socket: reads what is there, appends it as one group, answers line by line.

use super::line::{Outcome, Splitter, error_line, plan};
use super::log::Door;
use super::{Intake, now_s};
use crate::http::{Limits, Stop};
use crate::ids::Kind;
use crate::spool::Entry;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

/// Most lines that are appended together.
const GROUP_LINES: usize = 1024;
/// Bytes of entries after which a group is closed.
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// Room for one read: starts small, because there may be many connections, and grows with what the client sends.
const READ_BYTES: std::ops::RangeInclusive<usize> = 8 * 1024..=512 * 1024;

/// Lines that are decided about and not yet stored.
#[derive(Default)]
struct Group {
    entries: Vec<Entry>,
    bytes: usize,
    answers: Vec<Answer>,
}

struct Answer {
    line: Vec<u8>,
    /// What was to be stored first, if anything: of which kind, and whether as an event to deliver.
    stored: Option<(Kind, bool)>,
}

impl Group {
    fn push(&mut self, outcome: Outcome) {
        let stored = outcome.entry.as_ref().map(|entry| match entry {
            Entry::Queued { lane, record } => {
                self.bytes += record.len();
                (lane.kind, true)
            }
            Entry::Refused { lane, record, .. } => {
                self.bytes += record.len();
                (lane.kind, false)
            }
        });
        self.entries.extend(outcome.entry);
        self.answers.push(Answer {
            line: outcome.answer,
            stored,
        });
    }

    fn is_full(&self) -> bool {
        self.answers.len() >= GROUP_LINES || self.bytes >= GROUP_BYTES
    }
}

/// Serves one connection until it ends, breaks, leaves a line unfinished for too long, or `stop` is requested.
///
/// A connection may rest between lines for as long as it likes: who may open one is said by the socket's mode.
pub(super) async fn serve(
    intake: &Intake,
    mut stream: BufReader<UnixStream>,
    limits: Limits,
    mut stop: Stop,
) {
    if let Err(error) = run(intake, &mut stream, limits, &mut stop).await {
        tracing::debug!(%error, "an NDJSON connection broke");
    }
}

async fn run(
    intake: &Intake,
    stream: &mut BufReader<UnixStream>,
    limits: Limits,
    stop: &mut Stop,
) -> io::Result<()> {
    let door = Door {
        project: intake.settings.default_project.clone(),
        max_event_bytes: intake.settings.max_event_bytes,
    };
    let mut splitter = Splitter::default();
    let mut room = *READ_BYTES.start();
    // Until when the line that has begun must end.
    let mut due = None;
    loop {
        splitter.buffer.reserve(room);
        let read = async {
            match due {
                Some(due) => timeout_at(due, stream.read_buf(&mut splitter.buffer)).await.ok(),
                None => Some(stream.read_buf(&mut splitter.buffer).await),
            }
        };
        let came = tokio::select! {
            came = read => came.transpose()?,
            () = stop.requested() => return Ok(()),
        };
        match came {
            None => {
                let sentence = "the line did not end in time and was not kept: end each line with a newline";
                return write(stream, &error_line(sentence), limits).await;
            }
            Some(0) => break,
            Some(n) if n >= room => room = (room * 2).min(*READ_BYTES.end()),
            Some(n) if n < room / 4 => room = (room / 2).max(*READ_BYTES.start()),
            Some(_) => {}
        }
        loop {
            let group = gather(&mut splitter, &door);
            if group.answers.is_empty() {
                break;
            }
            // Another line than before has begun, if any.
            due = None;
            let answers = store(intake, group).await;
            write(stream, &answers, limits).await?;
        }
        due = match splitter.is_amid_line() {
            true => due.or_else(|| Some(Instant::now() + limits.body)),
            false => None,
        };
    }
    let mut group = Group::default();
    let last = splitter.last_line();
    last.and_then(|line| plan(&line, &door, now_s(), Uuid::new_v4()))
        .into_iter()
        .for_each(|it| group.push(it));
    let answers = store(intake, group).await;
    write(stream, &answers, limits).await
}

/// Decides about the lines that are there, up to one group.
fn gather(splitter: &mut Splitter, door: &Door) -> Group {
    let mut group = Group::default();
    let now_s = now_s();
    while !group.is_full() {
        let Some(line) = splitter.next_line(door.max_event_bytes) else {
            break;
        };
        if let Some(outcome) = plan(&line, door, now_s, Uuid::new_v4()) {
            group.push(outcome);
        }
    }
    group
}

/// Puts a group on disk and returns its lines of answer, in order.
async fn store(intake: &Intake, group: Group) -> Vec<u8> {
    let Group { entries, answers, .. } = group;
    let failed = intake
        .append(entries)
        .await
        .err()
        .map(|error| error_line(&error.to_string()));
    let mut text = Vec::with_capacity(answers.iter().map(|answer| answer.line.len()).sum());
    for Answer { line, stored } in answers {
        intake.metrics.intake_lines.inc();
        match (stored, &failed) {
            (Some(_), Some(failed)) => text.extend_from_slice(failed),
            (Some((kind, deliverable)), None) => {
                intake.counters.of(kind, deliverable).inc();
                text.extend_from_slice(&line);
            }
            (None, _) => text.extend_from_slice(&line),
        }
    }
    text
}

async fn write(stream: &mut BufReader<UnixStream>, answers: &[u8], limits: Limits) -> io::Result<()> {
    match timeout(limits.idle, stream.write_all(answers)).await {
        Ok(written) => written,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client does not read its answers",
        )),
    }
}
