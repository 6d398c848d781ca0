//! The ledger as `/status` shows it.

use serde_json::Value;

/// The five counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) accepted: u64,
    pub(crate) delivered: u64,
    pub(crate) dead: u64,
    pub(crate) dropped: u64,
    pub(crate) queued: u64,
}

impl Counts {
    /// Reads them and checks that they add up.
    pub(crate) fn of(ledger: &Value) -> Self {
        let count = |name: &str| {
            ledger[name]
                .as_u64()
                .unwrap_or_else(|| panic!("no {name} in {ledger}"))
        };
        let counts = Self {
            accepted: count("accepted"),
            delivered: count("delivered"),
            dead: count("dead"),
            dropped: count("dropped"),
            queued: count("queued"),
        };
        let ended = counts.delivered + counts.dead + counts.dropped + counts.queued;
        assert_eq!(counts.accepted, ended, "the ledger adds up: {ledger}");
        counts
    }
}
