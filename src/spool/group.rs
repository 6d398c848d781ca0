//! A commit group: what waits to become durable together, and its plan on disk.
use super::chunk::{self, Label};
use super::command::AppendReply;
use super::durable::Writes;
use super::lanes::{Addition, Lanes};
use super::meta::Extent;
use super::{AppendError, Burial, DeadLetter, Entry, key};
use crate::ids::{Kind, Lane, Seq};
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// Events at which a group is closed. One append is never divided, so a group may be larger.
pub(super) const MAX_GROUP_EVENTS: usize = 4_096;
/// Payload bytes at which a group is closed.
pub(super) const MAX_GROUP_BYTES: u64 = 8 * 1024 * 1024;

/// Appends that are waiting for their commit.
#[derive(Default)]
pub(super) struct Group {
    entries: Vec<Entry>,
    replies: Vec<AppendReply>,
    /// Payload bytes that will be queued.
    pub(super) bytes: u64,
    /// Payload bytes on lease, if they had to be counted.
    pub(super) leased_bytes: Option<u64>,
}

impl Group {
    /// Takes an append in.
    pub(super) fn add(&mut self, entries: Vec<Entry>, reply: AppendReply) {
        self.bytes += queued_bytes(&entries);
        self.entries.extend(entries);
        self.replies.push(reply);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// Nothing more should be taken in.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= MAX_GROUP_EVENTS || self.bytes >= MAX_GROUP_BYTES
    }

    /// Gives up its entries; the group is left with its replies.
    pub(super) fn take_entries(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }

    /// Tells all callers. One that has gone away does not care.
    pub(super) fn answer(self, answer: &Result<(), AppendError>) {
        for reply in self.replies {
            let _ = reply.send(answer.clone());
        }
    }
}

/// Payload bytes of those entries that will be queued.
pub(super) fn queued_bytes(entries: &[Entry]) -> u64 {
    let queued = entries.iter().map(|entry| match entry {
        Entry::Queued { record, .. } => record.len() as u64,
        Entry::Refused { .. } => 0,
    });
    queued.sum()
}

/// A burial whose dead letters are not durable yet.
pub(super) struct Funeral {
    /// Lane number and letter of each event.
    pub(super) letters: Vec<(u32, DeadLetter)>,
    pub(super) reply: oneshot::Sender<()>,
}

/// Numbered entries of a group.
pub(super) struct Plan {
    /// Lane number, first sequence and records of each run, in the order of their sequences.
    runs: Vec<(u32, u64, Vec<Vec<u8>>)>,
    /// What was refused.
    pub(super) refused: Vec<DeadLetter>,
    /// Events accepted, refused ones included.
    pub(super) accepted: u64,
    /// The sequence after the last.
    pub(super) next_seq: u64,
}

impl Plan {
    /// Gives out sequences from `next_seq` on: first logs, lane by lane, then feedback, then what was refused. So
    /// the events of a lane follow each other without a gap, and a feedback never comes before a log that
    /// was appended earlier.
    pub(super) fn new(entries: Vec<Entry>, lanes: &mut Lanes, mut next_seq: u64, now_ms: u64) -> Plan {
        let accepted = entries.len() as u64;
        let mut by_lane: BTreeMap<(Kind, u32), Vec<Vec<u8>>> = BTreeMap::new();
        let mut refusals: Vec<(Lane, Vec<u8>, String)> = Vec::new();
        for entry in entries {
            match entry {
                Entry::Queued { lane, record } => {
                    let number = lanes.number_or_new(&lane);
                    by_lane.entry((lane.kind, number)).or_default().push(record);
                }
                Entry::Refused { lane, record, reason } => refusals.push((lane, record, reason)),
            }
        }
        let mut runs = Vec::with_capacity(by_lane.len());
        for ((_, lane), records) in by_lane {
            let first = next_seq;
            next_seq += records.len() as u64;
            runs.push((lane, first, records));
        }
        let refused = (next_seq..).zip(refusals).map(|(seq, (lane, record, reason))| {
            let burial = Burial {
                reason,
                status: None,
                excerpt: None,
                attempts: 0,
            };
            DeadLetter {
                seq: Seq(seq),
                lane,
                buried_at_ms: now_ms,
                burial,
                record,
            }
        });
        let refused: Vec<DeadLetter> = refused.collect();
        next_seq += refused.len() as u64;
        Plan {
            runs,
            refused,
            accepted,
            next_seq,
        }
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
        for (lane, first, records) in &self.runs {
            let kind = lanes.get(*lane).map_or(Kind::Log, |state| state.lane.kind);
            let mut seq = *first;
            let mut rest = records.as_slice();
            while !rest.is_empty() {
                let (events, after) = rest.split_at(chunk::cut(rest.iter().map(Vec::len)));
                let label = Label {
                    lane: *lane,
                    kind,
                    first: seq,
                    accepted_at_ms: now_ms,
                };
                let sealed = chunk::encode(&label, events);
                writes.set_long(key::event(*lane, seq), seq, sealed);
                seq += events.len() as u64;
                rest = after;
            }
            let extent = Extent {
                generation,
                first: *first,
                last: seq - 1,
                live: records.len() as u64,
                live_bytes: records.iter().map(|record| record.len() as u64).sum(),
            };
            additions.push(Addition { lane: *lane, extent });
        }
        additions
    }
}
