//! One courier for each lane that has work: takes batches from the spool to the API and ends each event by its verdict.
//!
//! | file | concern |
//! |---|---|
//! | this one, `supervisor`, `desk` | settings; one task for each lane that has work, and their end |
//! | `stop`, `clock`, `news`, `pulse` | how far the shutdown has come; what time it is; a value that many wait for; whether all of this still answers |
//! | `line`, `health`, `size` | what a lane's tasks share: how the upstream is doing, what people are told |
//! | `turn`, `outlet`, `bucket` | what a request waits for: its lane, a slot of all lanes, the rate limit |
//! | `log_lane`, `send`, `delivery` | batches: when, how, and which events of one after a refusal (pure) |
//! | `deferred` | events that keep failing alone, tried again beside the batches |
//! | `sessions`, `window` | batches side by side: which events, how many (pure) |
//! | `confirm`, `witness`, `readback`, `telling`, `promptness` | was it stored |
//! | `crosscheck` | is an odd answer about one id's URL or about the upstream |
//! | `repair`, `halving`, `token_counts`, `tokens` | what if it was not: which events are to blame (pure), and how to spare them that (pure) |
//! | `feedback_lane`, `feedback_try`, `roster` | feedback: one in flight per task |
//! | `graves` | was the log of a feedback given up |

mod bucket;
mod clock;
mod confirm;
mod crosscheck;
mod deferred;
mod delivery;
mod desk;
mod feedback_lane;
mod feedback_try;
mod graves;
mod halving;
mod health;
mod line;
mod log_lane;
mod news;
mod outlet;
mod promptness;
mod pulse;
mod readback;
mod repair;
mod roster;
mod send;
mod sessions;
mod size;
mod stop;
mod supervisor;
mod telling;
mod token_counts;
mod tokens;
mod turn;
mod window;
mod witness;

pub use outlet::RateLimit;
pub use pulse::{Heart, Pulse, pulse};
pub use supervisor::run;
pub use token_counts::TokenCounts;

use crate::backoff::Backoff;
use crate::batch::Limits;
use crate::ids::ProjectId;
use crate::secret::Secret;
use crate::upstream::Upstream;
use std::collections::BTreeMap;
use std::time::Duration;

/// Everything a courier is told by configuration; replaced whole on reload.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[batch]`.
    pub batch: Limits,
    /// `[retry]`.
    pub backoff: Backoff,
    /// `delivery.confirm`. Default true.
    pub confirm: bool,
    /// How long an accepted event may be missing before it counts as not stored. It is looked for five times, at
    /// growing intervals (`delivery.confirm_patience`). Default 3.4 s, longer than the API was ever seen to take.
    pub confirm_patience: Duration,
    /// `delivery.token_counts`. Default auto.
    pub token_counts: TokenCounts,
    /// `delivery.concurrency`: most log batches of one project in flight at once. Default 4; 1 keeps the order of acceptance, more
    /// keep it within each session.
    pub concurrency: usize,
    /// `delivery.max_in_flight`: most requests in flight at once, of all lanes; at least 2. Default 64.
    pub max_in_flight: usize,
    /// `[upstream.rate_limit]`. Default: none.
    pub rate_limit: RateLimit,
    /// `feedback.wait_max`: how long a feedback waits for its task. Default 1 h.
    pub feedback_wait_max: Duration,
    /// `feedback.concurrency`: tasks whose feedback is in flight at once. Default 16.
    pub feedback_concurrency: usize,
    /// `upstream.api_key`, for every project without a key of its own.
    pub default_key: Option<Secret>,
    /// `upstream.projects.<id>.api_key_file`.
    pub project_keys: BTreeMap<ProjectId, Secret>,
    /// The client to send with.
    pub upstream: Upstream,
}

impl Settings {
    /// The key to send a project's events with: its own, else the default one.
    pub fn key_for(&self, project: &ProjectId) -> Option<&Secret> {
        self.project_keys.get(project).or(self.default_key.as_ref())
    }
}

/// Why the couriers ended without being told to. Nothing is lost: what was in flight is on disk.
#[derive(Debug, thiserror::Error)]
pub enum CourierError {
    /// A lane's task panicked: a bug.
    #[error("a courier failed, which is a bug in phosphod (what was queued is safe on disk): {0}")]
    Failed(#[from] tokio::task::JoinError),
    /// The spool's thread is gone, and with it the list of lanes.
    #[error("the spool ended before the couriers did: see the errors logged before this one")]
    SpoolGone,
}
