//! A redactor at a door: what it finds is counted.
use super::{Redactor, Seen};
use crate::metrics::{DetectorLabel, Metrics};
use prometheus_client::metrics::counter::Counter;
use std::sync::Arc;

/// Rules and the counters of what they find. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Screen(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    redactor: Arc<Redactor>,
    /// One a rule, in the order of [`Redactor::names`].
    counters: Vec<Counter>,
}

impl Screen {
    /// Counts in `metrics`, where every rule is shown from now on.
    pub fn new(redactor: Arc<Redactor>, metrics: &Metrics) -> Self {
        let of = |name: &str| {
            let label = DetectorLabel {
                detector: name.to_owned(),
            };
            metrics.redact_hits.get_or_create_owned(&label)
        };
        let counters = redactor.names().map(of).collect();
        Self(Arc::new(Inner { redactor, counters }))
    }

    /// The event without what the rules take out; `None` if they find nothing in it.
    pub fn apply(&self, event: &[u8]) -> Option<Vec<u8>> {
        let Inner { redactor, counters } = self.0.as_ref();
        redactor.apply_and_tell(event, &mut |seen| match seen {
            Seen::Masked { rules, .. } => {
                let found = rules.iter().filter_map(|rule| counters.get(*rule));
                found.for_each(|counter| {
                    counter.inc();
                });
            }
            Seen::Dropped { .. } => {
                if let Some(counter) = counters.last() {
                    counter.inc();
                }
            }
        })
    }
}
