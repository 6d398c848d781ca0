//! The events of a lane in their order, read out of the bytes of the generations' files, without sled.
use super::super::chunk::MAX_EVENTS;
use super::super::durable::StorageError;
use super::super::meta::{Cursor, Extent};
use super::super::scan::{Scan, Spot, scan};
use super::row::Row;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Most generations whose index is kept.
const MAX_OPEN: usize = 128;

/// An event that has not ended.
pub(super) struct Found {
    pub(super) record: Bytes,
    /// Wall clock, milliseconds since 1970.
    pub(super) accepted_at_ms: u64,
}

/// Where chunks lie in the files of a data folder.
pub(super) struct Sources<'a> {
    generations: &'a Row,
    open: BTreeMap<u64, Vec<Scan>>,
}

impl<'a> Sources<'a> {
    pub(super) fn new(generations: &'a Row) -> Sources<'a> {
        Sources {
            generations,
            open: BTreeMap::new(),
        }
    }

    /// What is found in the files of a generation. One that is gone holds nothing.
    pub(super) fn get(&mut self, id: u64) -> Result<&[Scan], StorageError> {
        if !self.open.contains_key(&id) {
            if self.open.len() >= MAX_OPEN {
                self.open.pop_first();
            }
            let path = self.generations.path(id);
            // The second is from before an opening that was cut off.
            let scans = vec![scan(&path.join("db"))?, scan(&path.join("db.kept"))?];
            self.open.insert(id, scans);
        }
        Ok(self.open.get(&id).map_or(&[], Vec::as_slice))
    }
}

/// Shows the live events of an extent in order, from sequence `covered` on, which it moves forward. Gives how many were found.
pub(super) fn each_in<B>(
    scans: &[Scan],
    lane: u32,
    extent: &Extent,
    cursor: &Cursor,
    covered: &mut u64,
    mut show: impl FnMut(Found) -> ControlFlow<B>,
) -> ControlFlow<B, u64> {
    // A chunk may begin before the extent.
    let from = extent.first.saturating_sub(MAX_EVENTS as u64);
    let mut chunks: BTreeMap<u64, (&Scan, &[Spot])> = BTreeMap::new();
    for scan in scans.iter().rev() {
        let found = scan.chunks.range((lane, from)..=(lane, extent.last));
        chunks.extend(found.map(|((_, first), spots)| (*first, (scan, spots.as_slice()))));
    }
    let mut found = 0;
    for (first, (scan, spots)) in chunks {
        let Some((_, chunk)) = scan.chunk(spots) else {
            continue;
        };
        let wanted = first.max(extent.first).max(*covered)..chunk.end().min(extent.last + 1);
        for seq in wanted {
            *covered = seq + 1;
            let Some(record) = chunk.event(seq).filter(|_| cursor.is_live(seq)) else {
                continue;
            };
            found += 1;
            show(Found {
                record,
                accepted_at_ms: chunk.label.accepted_at_ms,
            })?;
        }
    }
    ControlFlow::Continue(found)
}
