//! What clients were promised, and whether it was kept.

use crate::support::daemon::Daemon;
use crate::support::ledger::Counts;
use crate::support::load::event;
use crate::support::upstream::Upstream;
use serde_json::Value;
use std::collections::HashMap;

/// Every acknowledged event of the projects `load-0` and so on.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    /// Task ids a project, in the order of their acknowledgement.
    taken: Vec<Vec<String>>,
    filler: usize,
}

/// What the upstream has of them.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Acknowledged and not there.
    pub(crate) lost: Vec<String>,
    /// Acknowledged, there, and before one that was acknowledged earlier.
    pub(crate) out_of_order: usize,
    /// There, whether acknowledged or not.
    pub(crate) stored: usize,
}

impl Promises {
    /// None so far, of events with so many bytes of filler.
    pub(crate) fn with_filler(filler: usize) -> Self {
        Self {
            taken: Vec::new(),
            filler,
        }
    }

    /// Adds what a load was promised.
    pub(crate) fn add(&mut self, taken: Vec<Vec<String>>) {
        self.taken
            .resize_with(self.taken.len().max(taken.len()), Vec::new);
        for (all, more) in self.taken.iter_mut().zip(taken) {
            all.extend(more);
        }
    }

    /// How many events.
    pub(crate) fn count(&self) -> usize {
        self.taken.iter().map(Vec::len).sum()
    }

    /// Right after a start: the ledger adds up and holds at least what was promised; nothing was given up, and nothing
    /// counts as delivered that is not.
    pub(crate) async fn are_accounted_for(&self, daemon: &Daemon, upstream: &Upstream) -> Counts {
        let counts = daemon.ledger().await;
        let promised = self.count() as u64;
        assert!(counts.accepted >= promised, "{promised} promised, but {counts:?}");
        assert_eq!((counts.dead, counts.dropped), (0, 0), "{counts:?}");
        let stored = upstream.state().stored;
        assert!(counts.delivered <= stored, "{stored} stored, but {counts:?}");
        counts
    }

    /// Compares with what the upstream has: no task twice, and every one as it was sent.
    pub(crate) fn compare(&self, upstream: &Upstream) -> Kept {
        let mut kept = Kept::default();
        for (n, ids) in self.taken.iter().enumerate() {
            let mut places = HashMap::new();
            for (place, row) in upstream.tasks(&format!("load-{n}")).into_iter().enumerate() {
                assert_is_as_sent(&row.raw, &row.task_id, self.filler);
                assert!(places.insert(row.task_id, place).is_none(), "a task twice");
            }
            kept.stored += places.len();
            let mut last = 0;
            for id in ids {
                match places.get(id) {
                    None => kept.lost.push(id.clone()),
                    Some(&place) if place < last => kept.out_of_order += 1,
                    Some(&place) => last = place,
                }
            }
        }
        kept
    }

    /// The same, where nothing may be lost or out of order.
    pub(crate) fn are_kept(&self, upstream: &Upstream) -> Kept {
        let kept = self.compare(upstream);
        assert!(
            kept.lost.is_empty(),
            "{} of {} were acknowledged and are lost, such as {:?}",
            kept.lost.len(),
            self.count(),
            kept.lost.first()
        );
        assert_eq!(kept.out_of_order, 0, "order of acceptance");
        kept
    }
}

/// The stored text is the event of its task, and the stamps.
fn assert_is_as_sent(raw: &str, id: &str, filler: usize) {
    let mut stored: Value = serde_json::from_str(raw).unwrap_or_else(|e| panic!("{id} arrived corrupt: {e}"));
    let fields = stored.as_object_mut().expect("an event is an object");
    for stamp in ["client_created_at", "project_id"] {
        fields
            .remove(stamp)
            .unwrap_or_else(|| panic!("{id} has no {stamp}"));
    }
    assert_eq!(stored, event(id, filler), "{id} arrived altered");
}
