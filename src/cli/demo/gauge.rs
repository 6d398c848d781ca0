//! What the daemon says of itself: its ledger and its dead letters.

use super::app::client;
use super::child::Daemon;
use crate::ledger::Ledger;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Reads `/status` and `/dead_letters` of one life of the daemon.
#[derive(Clone)]
pub(super) struct Gauge {
    url: String,
    http: reqwest::Client,
    unix: reqwest::Client,
}

#[derive(Deserialize)]
struct Status {
    ledger: Counts,
}

#[derive(Deserialize)]
struct Counts {
    accepted: u64,
    delivered: u64,
    dead: u64,
    dropped: u64,
    queued: u64,
}

/// What was set aside, and why.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct DeadLetter {
    pub(super) project: String,
    pub(super) reason: String,
    pub(super) attempts: u32,
    pub(super) record: Record,
}

/// As much of a dead letter's event as is needed to know it again. The rest may be what no parser can take.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Record {
    pub(super) task_id: String,
}

impl Gauge {
    pub(super) fn of(daemon: &Daemon) -> Result<Self, String> {
        Ok(Self {
            url: daemon.url.clone(),
            http: client(None)?,
            unix: client(Some(&daemon.unix))?,
        })
    }

    /// The ledger as it is.
    pub(super) async fn ledger(&self) -> Result<Ledger, String> {
        let Status { ledger } = get(&self.http, format!("{}/status", self.url)).await?;
        let Counts {
            accepted,
            delivered,
            dead,
            dropped,
            queued,
        } = ledger;
        Ok(Ledger {
            accepted,
            delivered,
            dead,
            dropped,
            queued,
        })
    }

    /// The dead letters, which only the Unix socket shows.
    pub(super) async fn dead_letters(&self) -> Result<Vec<DeadLetter>, String> {
        get(&self.unix, "http://localhost/dead_letters".to_owned()).await
    }
}

async fn get<T: DeserializeOwned>(client: &reqwest::Client, url: String) -> Result<T, String> {
    let fault = |fault: reqwest::Error| format!("the daemon does not tell how it is: {fault}");
    let reply = client.get(url).send().await.map_err(fault)?;
    let text = reply.text().await.map_err(fault)?;
    serde_json::from_str(&text).map_err(|fault| format!("the daemon says {text:?}, not understood: {fault}"))
}
