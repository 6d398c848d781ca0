//! A commit group: what waits to become durable together, and its plan on disk.
use super::chunk::{self, Bundle, Label};
use super::command::AppendReply;
use super::durable::Writes;
use super::lanes::{Addition, Lanes};
use super::letter_log::LetterGroup;
use super::meta::Extent;
use super::{AppendError, Burial, DeadLetter, Entry, key};
use crate::ids::{Kind, Lane, ProjectId, Seq};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::oneshot;

/// Events at which a group is closed. One append is never divided, so a group may be larger.
pub(super) const MAX_GROUP_EVENTS: u64 = 4_096;
/// Events of one append and lane from which it is worth packing them by themselves, before the group is known.
const MIN_BUNDLE_EVENTS: usize = 16;
/// Payload bytes at which a group is closed.
pub(super) const MAX_GROUP_BYTES: u64 = 8 * 1024 * 1024;

/// Part of an append, ready for its place.
pub(super) enum Part {
    /// An event that may share a chunk with its neighbours.
    Event(Lane, Vec<u8>),
    /// Events that were enough for a chunk of their own.
    Bundle(Lane, Bundle),
    /// An event that becomes a dead letter at once: the record, and why.
    Refused(Lane, Vec<u8>, String),
}

/// An append, prepared by its caller: compressing is done before it waits for the owning thread, not by that thread.
pub(super) struct Prepared {
    parts: Vec<Part>,
    /// Events, refused ones included.
    events: u64,
    /// Payload bytes that will be queued.
    pub(super) bytes: u64,
    /// Of the events that will be.
    pub(super) projects: BTreeSet<ProjectId>,
}

impl Prepared {
    /// Packs what makes chunks by itself. The order within each lane stays.
    pub(super) fn new(entries: Vec<Entry>) -> Prepared {
        let events = entries.len() as u64;
        let mut bytes = 0;
        let mut parts = Vec::new();
        let mut by_lane: BTreeMap<Lane, Vec<Vec<u8>>> = BTreeMap::new();
        for entry in entries {
            match entry {
                Entry::Queued { lane, record } => {
                    bytes += record.len() as u64;
                    by_lane.entry(lane).or_default().push(record);
                }
                Entry::Refused { lane, record, reason } => parts.push(Part::Refused(lane, record, reason)),
            }
        }
        let projects = by_lane.keys().map(|lane| lane.project.clone()).collect();
        for (lane, records) in by_lane {
            bundle(&lane, records, &mut parts);
        }
        Prepared {
            parts,
            events,
            bytes,
            projects,
        }
    }

    /// What it consists of.
    pub(super) fn into_parts(self) -> Vec<Part> {
        self.parts
    }

    /// Whether it holds anything that becomes a dead letter at once.
    pub(super) fn has_refused(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Refused(..)))
    }
}

/// Cuts the records of a lane into bundles; a rest that is small is left to be joined with those of others.
fn bundle(lane: &Lane, mut records: Vec<Vec<u8>>, parts: &mut Vec<Part>) {
    while records.len() >= MIN_BUNDLE_EVENTS {
        let rest = records.split_off(chunk::cut(records.iter().map(Vec::len)));
        parts.push(Part::Bundle(lane.clone(), Bundle::new(&records)));
        records = rest;
    }
    parts.extend(
        records
            .into_iter()
            .map(|record| Part::Event(lane.clone(), record)),
    );
}

/// Appends that are waiting for their commit.
#[derive(Default)]
pub(super) struct Group {
    parts: Vec<Part>,
    replies: Vec<AppendReply>,
    events: u64,
    /// Payload bytes that will be queued.
    pub(super) bytes: u64,
    /// Payload bytes on lease, if they had to be counted.
    pub(super) leased_bytes: Option<u64>,
    /// Projects that it brings.
    pub(super) new_projects: BTreeSet<ProjectId>,
}

impl Group {
    /// Takes an append in.
    pub(super) fn add(&mut self, append: Prepared, reply: AppendReply) {
        self.bytes += append.bytes;
        self.events += append.events;
        self.parts.extend(append.parts);
        self.replies.push(reply);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// Nothing more should be taken in.
    pub(super) fn is_full(&self) -> bool {
        self.events >= MAX_GROUP_EVENTS || self.bytes >= MAX_GROUP_BYTES
    }

    /// Gives up its parts; the group is left with its replies.
    pub(super) fn take_parts(&mut self) -> Vec<Part> {
        std::mem::take(&mut self.parts)
    }

    /// Tells all callers. One that has gone away does not care.
    pub(super) fn answer(self, answer: &Result<(), AppendError>) {
        for reply in self.replies {
            let _ = reply.send(answer.clone());
        }
    }
}

/// Payload bytes of those parts that will be queued.
pub(super) fn queued_bytes(parts: &[Part]) -> u64 {
    let queued = parts.iter().map(|part| match part {
        Part::Event(_, record) => record.len() as u64,
        Part::Bundle(_, bundle) => bundle.bytes,
        Part::Refused(..) => 0,
    });
    queued.sum()
}

/// A burial whose dead letters are not durable yet.
pub(super) struct Funeral {
    /// Lane number and letter of each event.
    pub(super) letters: Vec<(u32, DeadLetter)>,
    pub(super) reply: oneshot::Sender<()>,
}

/// Events of one lane in a group, in order.
struct Run {
    lane: u32,
    first: u64,
    bundles: Vec<Bundle>,
}

/// Where the events of a commit come from, if not from clients: they end there in the same commit, and are not counted as
/// accepted once more.
#[derive(Default)]
pub(super) struct Origins {
    /// Numbers of dead letters.
    pub(super) letters: BTreeSet<u64>,
    /// Lane number and sequence of leased events.
    pub(super) leased: Vec<(u32, u64)>,
}

/// Numbered events of a group.
pub(super) struct Plan {
    /// In the order of their sequences.
    runs: Vec<Run>,
    /// What was refused.
    pub(super) refused: Vec<DeadLetter>,
    /// Events accepted, refused ones included, and those that come from elsewhere in the spool.
    pub(super) accepted: u64,
    /// What some of the events come from.
    pub(super) origins: Origins,
    /// The sequence after the last.
    pub(super) next_seq: u64,
}

impl Plan {
    /// Gives out sequences from `next_seq` on: first logs, lane by lane, then feedback, then what was refused. So
    /// the events of a lane follow each other without a gap, and a feedback never comes before a log that
    /// was appended earlier.
    pub(super) fn new(
        parts: Vec<Part>,
        origins: Origins,
        lanes: &mut Lanes,
        next_seq: u64,
        now_ms: u64,
    ) -> Plan {
        let mut by_lane: BTreeMap<(Kind, u32), Packing> = BTreeMap::new();
        let mut refusals: Vec<(Lane, Vec<u8>, String)> = Vec::new();
        for part in parts {
            let mut packing = |lane: &Lane| {
                let number = lanes.number_or_new(lane);
                (lane.kind, number)
            };
            match part {
                Part::Event(lane, record) => by_lane.entry(packing(&lane)).or_default().event(record),
                Part::Bundle(lane, bundle) => by_lane.entry(packing(&lane)).or_default().bundle(bundle),
                Part::Refused(lane, record, reason) => refusals.push((lane, record, reason)),
            }
        }
        let mut next = next_seq;
        let mut runs = Vec::with_capacity(by_lane.len());
        for ((_, lane), packing) in by_lane {
            let bundles = packing.finish();
            let events: u64 = bundles.iter().map(|bundle| bundle.events).sum();
            let first = next;
            next += events;
            runs.push(Run { lane, first, bundles });
        }
        let refused: Vec<DeadLetter> = (next..)
            .zip(refusals)
            .map(|(seq, refusal)| letter_of(seq, refusal, now_ms))
            .collect();
        next += refused.len() as u64;
        Plan {
            runs,
            refused,
            accepted: next - next_seq,
            origins,
            next_seq: next,
        }
    }

    /// What was refused, by project and cause.
    pub(super) fn refused_groups(&self) -> Vec<LetterGroup> {
        let letters = self.refused.iter();
        letters.map(|letter| LetterGroup::of(letter, true)).collect()
    }

    /// Writes the chunks, and says what they add to each lane.
    pub(super) fn write(
        &self,
        writes: &mut Writes,
        lanes: &Lanes,
        generation: u64,
        now_ms: u64,
    ) -> Vec<Addition> {
        let mut additions = Vec::with_capacity(self.runs.len());
        for Run { lane, first, bundles } in &self.runs {
            let mut label = Label {
                lane: *lane,
                kind: lanes.get(*lane).map_or(Kind::Log, |state| state.lane.kind),
                first: *first,
                accepted_at_ms: now_ms,
            };
            let mut live_bytes = 0;
            for bundle in bundles {
                writes.set_long(key::event(*lane, label.first), label.first, bundle.seal(&label));
                label.first += bundle.events;
                live_bytes += bundle.bytes;
            }
            let extent = Extent {
                generation,
                first: *first,
                last: label.first - 1,
                live: label.first - first,
                live_bytes,
            };
            additions.push(Addition { lane: *lane, extent });
        }
        additions
    }
}

/// The events of one lane on their way into chunks.
#[derive(Default)]
struct Packing {
    bundles: Vec<Bundle>,
    loose: Vec<Vec<u8>>,
}

impl Packing {
    fn event(&mut self, record: Vec<u8>) {
        self.loose.push(record);
    }

    fn bundle(&mut self, bundle: Bundle) {
        self.pack();
        self.bundles.push(bundle);
    }

    fn pack(&mut self) {
        let mut rest = self.loose.as_slice();
        while !rest.is_empty() {
            let (events, after) = rest.split_at(chunk::cut(rest.iter().map(Vec::len)));
            self.bundles.push(Bundle::new(events));
            rest = after;
        }
        self.loose.clear();
    }

    fn finish(mut self) -> Vec<Bundle> {
        self.pack();
        self.bundles
    }
}

fn letter_of(seq: u64, (lane, record, reason): (Lane, Vec<u8>, String), buried_at_ms: u64) -> DeadLetter {
    let burial = Burial {
        reason,
        status: None,
        excerpt: None,
        attempts: 0,
    };
    DeadLetter {
        seq: Seq(seq),
        lane,
        buried_at_ms,
        burial,
        record,
    }
}
