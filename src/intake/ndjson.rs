//! NDJSON on a connection to the Unix socket: reads what is there, appends it as one group, answers line by line.
//!
//! Lines are taken although their answers find no reader ([`Answers`]): up to a bound they wait, and then reading stops.

use super::answers::{Answers, MOST_ANSWERS};
use super::line::{Line, Outcome, Splitter, error_line, plan};
use super::log::{Door, json_fault};
use super::{Intake, now_s};
use crate::http::{EVENT_BYTES, Limits, Reservation, SMALL_BYTES, Stop};
use crate::ids::{Kind, ProjectId};
use crate::spool::Entry;
use crate::wire::json::without_mark;
use bytes::{BufMut, BytesMut};
use std::collections::BTreeSet;
use std::io;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until};
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
    /// Projects of which nothing was queued so far.
    new_projects: BTreeSet<ProjectId>,
}

struct Answer {
    line: Vec<u8>,
    /// What was to be stored first, if anything: of which kind, and whether as an event to deliver.
    stored: Option<(Kind, bool)>,
}

impl Group {
    fn push(&mut self, mut outcome: Outcome, door: &Door) {
        if let Some(Entry::Queued { lane, .. }) = &outcome.entry
            && let Err(sentence) = door.admit(&lane.project, &mut self.new_projects)
        {
            outcome.entry = None;
            outcome.odd_time = None;
            outcome.answer = error_line(&sentence);
        }
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
pub(super) async fn serve(intake: &Intake, stream: BufReader<UnixStream>, limits: Limits, stop: Stop) {
    let mut connection = Connection::new(intake, stream, limits);
    connection.run(stop).await;
    connection.answers.deliver(&connection.stream, 1).await;
}

/// Answers a connection that is not served, once, whatever it sends.
pub(super) async fn refuse(stream: BufReader<UnixStream>, sentence: &str, limits: Limits) {
    let mut answers = Answers::new(limits);
    answers.push(&error_line(sentence));
    answers.deliver(stream.get_ref(), 1).await;
}

/// A connection's bytes on their way in, the answers on their way out, and the room that both have.
struct Connection<'a> {
    intake: &'a Intake,
    stream: UnixStream,
    /// What was read before the connection was known to speak NDJSON.
    first: BytesMut,
    limits: Limits,
    splitter: Splitter,
    answers: Answers,
    /// For the splitter, the group that was cut from it and the answers; none while the connection rests.
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

/// What a connection is ready for.
enum Ready {
    Read,
    Write,
    /// The line that has begun had its time.
    Late,
}

impl<'a> Connection<'a> {
    fn new(intake: &'a Intake, stream: BufReader<UnixStream>, limits: Limits) -> Self {
        Self {
            intake,
            first: BytesMut::from(stream.buffer()),
            stream: stream.into_inner(),
            limits,
            splitter: Splitter::default(),
            answers: Answers::new(limits),
            held: None,
            due: None,
            read_bytes: *READ_BYTES.start(),
        }
    }

    async fn run(&mut self, mut stop: Stop) {
        let door = self.intake.door(self.intake.settings.default_project.clone());
        // What its client sent first is there, and is answered although the daemon stops.
        let mut answered = false;
        loop {
            let came = tokio::select! {
                came = self.next() => came,
                () = stop.requested(), if answered => return,
            };
            answered = true;
            match came {
                Came::Bytes => self.answer_lines(&door).await,
                Came::End => break,
                Came::GaveUp(sentence) => self.answers.push(&error_line(&sentence)),
                Came::Enough(sentence) => return self.answers.push(&error_line(&sentence)),
            }
            self.settle_down();
        }
        let mut group = Group::default();
        let last = self.splitter.last_line();
        if let Some(outcome) = last.and_then(|line| plan_last(&line, &door)) {
            group.push(outcome, &door);
        }
        let text = store(self.intake, group).await;
        self.answers.push(&text);
    }

    /// Waits for bytes and reads them, and meanwhile writes answers.
    async fn next(&mut self) -> Came {
        loop {
            self.answers.end(&mut self.stream).await;
            match self.ready().await {
                Ready::Write => self.answers.write(&self.stream),
                Ready::Late => {
                    let sentence =
                        "the line did not end in time and was not kept: end each line with a newline";
                    return Came::Enough(sentence.to_owned());
                }
                Ready::Read => {
                    if let Some(came) = self.read().await {
                        return came;
                    }
                }
            }
        }
    }

    async fn ready(&mut self) -> Ready {
        if !self.answers.may_grow() {
            self.answers.deliver(&self.stream, MOST_ANSWERS).await;
        }
        if !self.first.is_empty() {
            return Ready::Read;
        }
        let due = self.due;
        let late = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.answers.wait(&self.stream), if !self.answers.is_empty() => Ready::Write,
            // An error is met again by the read that follows.
            _ = self.stream.readable() => Ready::Read,
            () = late => Ready::Late,
        }
    }

    /// `None` if there was nothing to read after all. Without room nothing is read: the client waits.
    async fn read(&mut self) -> Option<Came> {
        let rests = self.held.is_none();
        let held = match &mut self.held {
            Some(held) => held,
            none => match self.intake.budget.reserve(SMALL_BYTES, self.limits.room).await {
                Ok(room) => none.insert(room),
                Err(no_room) => return Some(Came::Enough(no_room.to_string())),
            },
        };
        let buffer = &mut self.splitter.buffer;
        if !self.first.is_empty() {
            // It is less than the room that any connection gets.
            buffer.unsplit(self.first.split());
            return Some(Came::Bytes);
        }
        let used = buffer.len() + self.answers.bytes();
        let mut free = held.bytes().saturating_sub(used);
        if free < self.read_bytes {
            // If it is not to be had, what is left will do.
            let grown = held.grow_to(used + self.read_bytes);
            free = held.bytes().saturating_sub(used).min(self.read_bytes);
            match (free, grown) {
                (0, Err(_)) if !self.answers.is_empty() => {
                    self.answers.deliver(&self.stream, 1).await;
                    return None;
                }
                (0, Err(no_room)) => {
                    self.splitter.give_up();
                    self.held = None;
                    return Some(Came::GaveUp(no_room.to_string()));
                }
                _ => {}
            }
        }
        buffer.reserve(free);
        match self.stream.try_read_buf(&mut buffer.limit(free)) {
            Ok(0) => return Some(Came::End),
            Ok(came) => self.read_bytes = next_read_bytes(self.read_bytes, came),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // It looked readable and was not: room is not held for that.
                if rests {
                    self.held = None;
                }
                return None;
            }
            Err(error) => {
                // All that came before was read: a client may close without having read its answers.
                tracing::debug!(%error, "an NDJSON connection broke");
                return Some(Came::End);
            }
        }
        Some(Came::Bytes)
    }

    /// Stores and answers all lines that are complete.
    async fn answer_lines(&mut self, door: &Door) {
        loop {
            let weight = self.held.as_ref().map_or(0, Reservation::bytes);
            let group = gather(&mut self.splitter, door, weight);
            if group.answers.is_empty() {
                return;
            }
            // Another line than before has begun, if any.
            self.due = None;
            let text = store(self.intake, group).await;
            self.answers.push(&text);
            self.answers.write(&self.stream);
            self.answers.deliver(&self.stream, MOST_ANSWERS).await;
        }
    }

    /// Keeps no more than what is needed for what is there.
    fn settle_down(&mut self) {
        self.due = match self.splitter.is_amid_line() {
            true => self.due.or_else(|| Some(Instant::now() + self.limits.body)),
            false => None,
        };
        let used = self.splitter.buffer.len() + self.answers.bytes();
        if self.splitter.buffer.is_empty() && self.splitter.buffer.capacity() > *READ_BYTES.start() {
            self.splitter.buffer = BytesMut::new();
        }
        if used == 0 {
            self.held = None;
        } else if let Some(held) = &mut self.held {
            held.shrink_to((used + self.read_bytes).max(SMALL_BYTES));
        }
    }
}

/// How much to read after a read of `came` out of `wanted` bytes.
fn next_read_bytes(wanted: usize, came: usize) -> usize {
    match came {
        came if came >= wanted => (came * 2).min(*READ_BYTES.end()),
        came if came < wanted / 4 => (wanted / 2).max(*READ_BYTES.start()),
        _ => wanted,
    }
}

/// Decides about what stands behind the last newline. If that is not JSON it was cut off, and is not an event.
fn plan_last(line: &Line, door: &Door) -> Option<Outcome> {
    let mut outcome = plan(line, door, now_s(), Uuid::new_v4())?;
    if let Line::Whole(text) = line
        && json_fault(without_mark(text)).is_some()
    {
        outcome.entry = None;
    }
    Some(outcome)
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
            group.push(outcome, door);
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
