//! All that callers may ask of the owning thread. A later backend is another loop over these.
use super::durable::StorageError;
use super::find::{Layout, Portion, Standing};
use super::group::Prepared;
use super::lease::Leased;
use super::requeue::Revived;
use super::transfer::Transferred;
use super::{AppendError, Burial, DeadLettersError, DeadPage};
use crate::batch::Limits;
use crate::ids::{Lane, ProjectId};
use std::collections::BTreeSet;
use tokio::sync::oneshot;

/// Where an append is answered.
pub(super) type AppendReply = oneshot::Sender<Result<(), AppendError>>;

/// One request. Commands are answered in the order of the channel, appends and burials with their commit.
pub(super) enum Command {
    Append {
        append: Prepared,
        reply: AppendReply,
    },
    Lease {
        lane: Lane,
        limits: Limits,
        reply: oneshot::Sender<Vec<Leased>>,
    },
    Claim {
        project: ProjectId,
        last: u64,
        limits: Limits,
        reply: oneshot::Sender<Vec<Leased>>,
    },
    Settle {
        events: Vec<Leased>,
        reply: oneshot::Sender<()>,
    },
    Release {
        events: Vec<Leased>,
        reply: oneshot::Sender<()>,
    },
    /// Feedback may pass these leased events.
    Defer {
        events: Vec<(u32, u64)>,
        reply: oneshot::Sender<()>,
    },
    Bury {
        events: Vec<(Leased, Burial)>,
        reply: oneshot::Sender<()>,
    },
    DeadLetters {
        after: Option<u64>,
        limit: usize,
        reply: oneshot::Sender<Result<DeadPage, DeadLettersError>>,
    },
    Requeue {
        letters: Vec<Revived>,
        reply: oneshot::Sender<Result<Vec<u64>, AppendError>>,
    },
    Transfer {
        events: Vec<(Leased, Vec<u8>)>,
        to: ProjectId,
        reply: oneshot::Sender<Result<Transferred, AppendError>>,
    },
    Purge {
        numbers: BTreeSet<u64>,
        reply: oneshot::Sender<Result<u64, DeadLettersError>>,
    },
    Layout {
        reply: oneshot::Sender<Layout>,
    },
    ReadOn {
        lane: u32,
        from: u64,
        last: u64,
        reply: oneshot::Sender<Result<Portion, StorageError>>,
    },
    Standing {
        lane: u32,
        seq: u64,
        reply: oneshot::Sender<Option<Standing>>,
    },
    /// Whether the thread still works off its commands.
    Ping {
        reply: oneshot::Sender<()>,
    },
    /// Leases were abandoned.
    Tidy,
    Close {
        reply: oneshot::Sender<()>,
    },
}
