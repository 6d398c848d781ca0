//! An event of a delivery, and what happened to it so far.

use crate::spool::Burial;

/// How an event is written into a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::courier) enum EventForm {
    /// Byte for byte.
    #[default]
    AsIs,
    /// With token counts of 0, unless it gives its own.
    ZeroCounts,
}

/// An event, how it is sent and how often it was.
#[derive(Debug)]
pub(in crate::courier) struct Sent<E> {
    pub(in crate::courier) event: E,
    pub(in crate::courier) form: EventForm,
    pub(in crate::courier) attempts: u32,
    /// The API said that the project's quota is used up, which does not keep it from storing.
    pub(in crate::courier) over_quota: bool,
    /// It was looked for and not there, after the last time that it was sent.
    pub(in crate::courier) absent: bool,
    /// Passing faults that it met alone, in a row.
    pub(super) lone_faults: u32,
    /// Another passed after it had met too many of them.
    pub(super) compared: bool,
    /// What had passed when it was refused alone by something in between, or by a key that others may use.
    pub(super) blocked_at: Option<u64>,
    /// How often something in between refused it alone.
    pub(super) refusals: u32,
    /// How often it was so again after another had passed.
    pub(super) proofs: u32,
}

impl<E> Sent<E> {
    /// One that was not sent yet.
    pub(in crate::courier) fn new(event: E, form: EventForm) -> Self {
        Self {
            event,
            form,
            attempts: 0,
            over_quota: false,
            absent: false,
            lone_faults: 0,
            compared: false,
            blocked_at: None,
            refusals: 0,
            proofs: 0,
        }
    }

    /// Its dead letter.
    pub(in crate::courier) fn bury(
        self,
        reason: String,
        status: Option<u16>,
        excerpt: Option<String>,
    ) -> (E, Burial) {
        (
            self.event,
            Burial {
                reason,
                status,
                excerpt,
                attempts: self.attempts,
            },
        )
    }
}
