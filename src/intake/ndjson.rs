//! NDJSON on a connection to the Unix socket: reads what is there, appends it as one group, answers line by line.

use super::line::{Line, Outcome, Splitter, error_line, plan};
use super::log::Door;
use super::{Intake, now_s};
use crate::http::{EVENT_BYTES, Limits, Reservation, SMALL_BYTES, Stop};
use crate::ids::{Kind, ProjectId};
use crate::spool::Entry;
use bytes::{BufMut, BytesMut};
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
    odd_times: Vec<ProjectId>,
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
        self.odd_times.extend(outcome.odd_time);
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

/// Answers a connection that is not served, once, whatever it sends.
pub(super) async fn refuse(mut stream: BufReader<UnixStream>, sentence: &str, limits: Limits) {
    if let Err(error) = write(&mut stream, &error_line(sentence), limits).await {
        tracing::debug!(%error, "a refused NDJSON connection broke");
    }
}

/// A connection's bytes on their way in, and the room that they have.
struct Inlet<'a> {
    intake: &'a Intake,
    stream: &'a mut BufReader<UnixStream>,
    limits: Limits,
    splitter: Splitter,
    /// For what is in the splitter and the group that was cut from it; none while the connection rests.
    held: Option<Reservation>,
    /// Until when the line that has begun must end.
    due: Option<Instant>,
    /// How much is read at once.
    read_bytes: usize,
}

/// What reading led to.
enum Came {
    Bytes,
    End,
    /// The line that has begun is not kept, for this reason; the rest of it is thrown away.
    GaveUp(String),
    /// The connection is not served any longer, for this reason.
    Enough(String),
}

impl Inlet<'_> {
    /// Waits for bytes and reads them. Without room nothing is read: the client waits.
    async fn read(&mut self) -> io::Result<Came> {
        let due = self.due;
        let reading = async {
            loop {
                if let Some(came) = self.read_once().await? {
                    return Ok(came);
                }
            }
        };
        let Some(due) = due else { return reading.await };
        let sentence = "the line did not end in time and was not kept: end each line with a newline";
        let late = Ok(Came::Enough(sentence.to_owned()));
        timeout_at(due, reading).await.unwrap_or(late)
    }

    /// `None` if there was nothing to read after all.
    async fn read_once(&mut self) -> io::Result<Option<Came>> {
        let rests = self.held.is_none();
        if rests && self.stream.buffer().is_empty() {
            self.stream.get_ref().readable().await?;
        }
        let held = match &mut self.held {
            Some(held) => held,
            none => match self.intake.budget.reserve(SMALL_BYTES, self.limits.room).await {
                Ok(room) => none.insert(room),
                Err(no_room) => return Ok(Some(Came::Enough(no_room.to_string()))),
            },
        };
        let buffer = &mut self.splitter.buffer;
        let mut free = held.bytes().saturating_sub(buffer.len());
        if free < self.read_bytes {
            // If it is not to be had, what is left will do.
            let grown = held.grow_to(buffer.len() + self.read_bytes);
            free = held.bytes().saturating_sub(buffer.len()).min(self.read_bytes);
            if let (0, Err(no_room)) = (free, grown) {
                self.splitter.give_up();
                self.held = None;
                return Ok(Some(Came::GaveUp(no_room.to_string())));
            }
        }
        buffer.reserve(free);
        let mut place = buffer.limit(free);
        let came = if rests {
            // It may look readable and not be: room is not held for that.
            tokio::select! {
                biased;
                came = self.stream.read_buf(&mut place) => came?,
                () = std::future::ready(()) => {
                    self.held = None;
                    return Ok(None);
                }
            }
        } else {
            self.stream.read_buf(&mut place).await?
        };
        self.read_bytes = match came {
            0 => return Ok(Some(Came::End)),
            n if n >= self.read_bytes => (n * 2).min(*READ_BYTES.end()),
            n if n < self.read_bytes / 4 => (self.read_bytes / 2).max(*READ_BYTES.start()),
            _ => self.read_bytes,
        };
        Ok(Some(Came::Bytes))
    }

    /// Answers all lines that are complete.
    async fn answer_lines(&mut self, door: &Door) -> io::Result<()> {
        loop {
            let weight = self.held.as_ref().map_or(0, Reservation::bytes);
            let group = gather(&mut self.splitter, door, weight);
            if group.answers.is_empty() {
                return Ok(());
            }
            // Another line than before has begun, if any.
            self.due = None;
            let answers = store(self.intake, group).await;
            write(self.stream, &answers, self.limits).await?;
        }
    }

    /// Keeps no more than what is needed for what is there.
    fn settle_down(&mut self) {
        self.due = match self.splitter.is_amid_line() {
            true => self.due.or_else(|| Some(Instant::now() + self.limits.body)),
            false => None,
        };
        if self.splitter.buffer.is_empty() {
            self.held = None;
            if self.splitter.buffer.capacity() > *READ_BYTES.start() {
                self.splitter.buffer = BytesMut::new();
            }
        } else if let Some(held) = &mut self.held {
            held.shrink_to((self.splitter.buffer.len() + self.read_bytes).max(SMALL_BYTES));
        }
    }
}

async fn run(
    intake: &Intake,
    stream: &mut BufReader<UnixStream>,
    limits: Limits,
    stop: &mut Stop,
) -> io::Result<()> {
    let door = intake.door(intake.settings.default_project.clone());
    let mut inlet = Inlet {
        intake,
        stream,
        limits,
        splitter: Splitter::default(),
        held: None,
        due: None,
        read_bytes: *READ_BYTES.start(),
    };
    // What its client sent first is there, and is answered although the daemon stops.
    let mut answered = false;
    loop {
        let came = tokio::select! {
            came = inlet.read() => came?,
            () = stop.requested(), if answered => return Ok(()),
        };
        answered = true;
        match came {
            Came::Bytes => inlet.answer_lines(&door).await?,
            Came::End => break,
            Came::GaveUp(sentence) => write(inlet.stream, &error_line(&sentence), limits).await?,
            Came::Enough(sentence) => return write(inlet.stream, &error_line(&sentence), limits).await,
        }
        inlet.settle_down();
    }
    let mut group = Group::default();
    let last = inlet.splitter.last_line();
    last.and_then(|line| plan(&line, &door, now_s(), Uuid::new_v4()))
        .into_iter()
        .for_each(|it| group.push(it));
    let answers = store(intake, group).await;
    write(inlet.stream, &answers, limits).await
}

/// Decides about the lines that are there, up to one group. They count no more than `weight` together, or are one.
fn gather(splitter: &mut Splitter, door: &Door, weight: usize) -> Group {
    let mut group = Group::default();
    let now_s = now_s();
    let mut left = weight;
    while !group.is_full() && left > 0 {
        let Some(line) = splitter.next_line(door.max_event_bytes) else {
            break;
        };
        let bytes = match &line {
            Line::Whole(line) => line.len(),
            Line::TooLong => 0,
        };
        left = left.saturating_sub(bytes.max(EVENT_BYTES));
        if let Some(outcome) = plan(&line, door, now_s, Uuid::new_v4()) {
            group.push(outcome);
        }
    }
    group
}

/// Puts a group on disk and returns its lines of answer, in order.
async fn store(intake: &Intake, group: Group) -> Vec<u8> {
    let Group {
        entries,
        answers,
        odd_times,
        ..
    } = group;
    let failed = intake
        .append(entries)
        .await
        .err()
        .map(|error| error_line(&error.to_string()));
    if failed.is_none() {
        intake.note_odd_times(&odd_times);
    }
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
