//! Format 1 where its newest generation cannot be read whole. How all stood is pieced together: from the newest generation before it
//! that can be read, from what can be read of the damaged ones, and from the chunks that are found in them, with sled
//! and in the bytes of their files.
use super::format1::{self, Chunk, Cursor, Extent, LaneState, Pieces, State};
use crate::ids::{Lane, ProjectId};
use crate::spool::durable::{Database, StorageError};
use crate::spool::generation::Generations;
use crate::wire::json;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::ErrorKind;

/// How all stood, as far as it is known.
#[derive(Default)]
pub(super) struct Told {
    pub(super) state: State,
    /// The lanes' cursors at the time of the account.
    pub(super) cursors: Vec<Cursor>,
    /// The generation that the account is of.
    pub(super) head_of: u64,
    /// Generations that do not say themselves what is in them.
    pub(super) damaged: BTreeSet<u64>,
}

impl Told {
    /// As a generation says that can be read whole.
    pub(super) fn whole(state: State, id: u64) -> Told {
        Told {
            cursors: state.lanes.iter().map(|lane| lane.cursor.clone()).collect(),
            state,
            head_of: id,
            damaged: BTreeSet::new(),
        }
    }

    /// With what is found in newer generations, which are damaged.
    pub(super) fn with(
        mut self,
        pieces: BTreeMap<u64, Pieces>,
        generations: &Generations,
    ) -> Result<Told, StorageError> {
        let Some(&newest) = pieces.keys().next_back() else {
            return Ok(self);
        };
        // What a deleted one held had ended.
        for lane in &self.state.lanes {
            let gone = lane
                .extents
                .iter()
                .filter(|(id, _)| !generations.present().contains(*id));
            self.state.head.delivered += gone.map(|(_, extent)| extent.live).sum::<u64>();
        }
        let told = std::mem::take(&mut self.cursors);
        let mut told: BTreeMap<u32, Cursor> = (0..).zip(told).collect();
        let lanes = std::mem::take(&mut self.state.lanes);
        let mut lanes: BTreeMap<u32, LaneState> = lanes.into_iter().map(|lane| (lane.number, lane)).collect();
        for (&id, pieces) in &pieces {
            self.damaged.insert(id);
            add_lanes(&mut lanes, pieces, &chunks(generations, id)?);
            if let Some(head) = pieces.head {
                (self.state.head, self.head_of) = (head, id);
                told = lanes.iter().map(|(&n, lane)| (n, lane.cursor.clone())).collect();
            }
        }
        for lane in lanes.values_mut() {
            for (&id, pieces) in &pieces {
                let extent = pieces.extents.get(&(lane.number, id));
                let live = extent.map_or(0, |extent| extent.live);
                lane.extents.insert(
                    id,
                    Extent {
                        first: 0,
                        last: u64::MAX,
                        live,
                    },
                );
            }
        }
        tracing::error!(
            generation = newest,
            "a generation of format 1 is damaged: salvaging it"
        );
        self.cursors = lanes.keys().map(|n| told.remove(n).unwrap_or_default()).collect();
        self.state.lanes = lanes.into_values().collect();
        Ok(self)
    }
}

/// Lanes that are new, and cursors that are later.
fn add_lanes(lanes: &mut BTreeMap<u32, LaneState>, pieces: &Pieces, chunks: &Chunks) {
    let named = pieces.names.iter().map(|(&number, lane)| (number, lane.clone()));
    let found = chunks
        .values()
        .filter_map(|chunk| Some((chunk.lane, lane_of(chunk)?)));
    for (number, lane) in named.chain(found) {
        let is_known = lanes.values().any(|known| known.lane == lane);
        if let Entry::Vacant(vacant) = lanes.entry(number)
            && !is_known
        {
            vacant.insert(LaneState {
                number,
                lane,
                cursor: Cursor::default(),
                extents: BTreeMap::new(),
            });
        }
    }
    for (number, cursor) in &pieces.cursors {
        let order = |cursor: &Cursor| (cursor.next, std::cmp::Reverse(cursor.open.len()));
        if let Some(lane) = lanes.get_mut(number)
            && order(cursor) > order(&lane.cursor)
        {
            lane.cursor = cursor.clone();
        }
    }
}

/// The lane of a chunk, by what its first event says.
fn lane_of(chunk: &Chunk) -> Option<Lane> {
    let project = json::text_of(json::field(chunk.events.first()?, "project_id")?)?;
    Some(Lane {
        project: ProjectId::new(&project).ok()?,
        kind: chunk.kind,
    })
}

/// Chunks of a generation by lane and first sequence.
pub(super) type Chunks = BTreeMap<(u32, u64), Chunk>;

/// All chunks that can be found in a damaged generation. Takes as much memory as they do.
pub(super) fn chunks(generations: &Generations, id: u64) -> Result<Chunks, StorageError> {
    let mut found = Chunks::new();
    let mut note = |chunk: Chunk| drop(found.insert((chunk.lane, chunk.first), chunk));
    for path in generations.files(id) {
        match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            opened => format1::each_raw_chunk(&opened?, &mut note)?,
        }
    }
    match generations.open(id) {
        Err(error) if error.damage => {}
        opened => format1::each_chunk_before_damage(&opened?, &mut note)?,
    }
    Ok(found)
}

/// Whether a generation holds all that is live in it.
pub(super) fn is_whole(told: &Told, id: u64, db: &Database) -> Result<bool, StorageError> {
    if told.damaged.contains(&id) {
        return Ok(false);
    }
    for lane in &told.state.lanes {
        let Some(extent) = lane.extents.get(&id) else {
            continue;
        };
        let mut live = 0;
        let read = format1::each_chunk(db, lane.number, |chunk| {
            let within = (chunk.first..).take(chunk.events.len());
            let within = within.filter(|seq| (extent.first..=extent.last).contains(seq));
            live += within.filter(|&seq| lane.cursor.is_live(seq)).count() as u64;
            Ok(())
        });
        match read {
            Err(error) if error.damage => return Ok(false),
            read => read?,
        }
        if live < extent.live {
            return Ok(false);
        }
    }
    Ok(true)
}
