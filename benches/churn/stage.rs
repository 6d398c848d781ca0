//! A daemon on an empty folder with the sandbox as its upstream, and what both say.
use crate::common::Failure;
use crate::common::daemon::{Daemon, disk_bytes, get};
use crate::load::PARKED;
use phosphod::sandbox::{self, Sandbox};
use serde::Deserialize;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Tasks that the sandbox remembers: more than can be stored while one is still looked for.
const TASKS: usize = 200_000;
/// Longest that the backlog may take to drain.
const DRAIN_LIMIT: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Ledger {
    pub(crate) accepted: u64,
    pub(crate) delivered: u64,
    pub(crate) dead: u64,
    pub(crate) dropped: u64,
    pub(crate) queued: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    pub(crate) ledger: Ledger,
    pub(crate) spool: Spool,
    lanes: Vec<Lane>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Spool {
    pub(crate) live_bytes: u64,
}

#[derive(Debug, Deserialize)]
struct Lane {
    project: String,
    queued: u64,
}

impl Status {
    /// Events that wait although nothing holds them up. The ledger is that of the last commit and tells it a few ms later
    /// than the lanes do.
    fn waiting(&self) -> u64 {
        let parked = self.lanes.iter().filter(|lane| lane.project == PARKED);
        let parked: u64 = parked.map(|lane| lane.queued).sum();
        let queued: u64 = self.lanes.iter().map(|lane| lane.queued).sum();
        queued.max(self.ledger.queued) - parked
    }
}

pub(crate) struct Stage {
    pub(crate) address: String,
    pub(crate) daemon: Daemon,
    pub(crate) upstream: Sandbox,
    folder: tempfile::TempDir,
}

impl Stage {
    pub(crate) fn set(runtime: &Runtime) -> Result<Stage, Failure> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let key = folder.path().join("refused-key");
        std::fs::write(&key, "refused")?;
        let upstream = runtime.block_on(sandbox::start(sandbox::Settings::default()))?;
        let switches = json!({"keep_raw": false, "keep_tasks": TASKS, "keys": ["bench"]});
        runtime.block_on(upstream.switch(switches))?;
        let own_key = format!("upstream.projects.{PARKED}.api_key_file={}", key.display());
        let (daemon, address) = Daemon::start(
            env!("CARGO_BIN_EXE_phosphod"),
            folder.path(),
            &upstream.base_url(),
            &[own_key],
        )?;
        Ok(Stage {
            address,
            daemon,
            upstream,
            folder,
        })
    }

    pub(crate) fn status(&self) -> Result<Status, Failure> {
        let answer = get(&self.address, "/status")?;
        let (_, page) = answer.split_once("\r\n\r\n").ok_or("/status without a body")?;
        Ok(serde_json::from_str(page)?)
    }

    /// What the queue takes on the disk: its generations.
    pub(crate) fn queue_bytes(&self) -> std::io::Result<u64> {
        disk_bytes(&self.folder.path().join("data/spool"))
    }

    /// What the whole data folder takes on the disk: 16 MiB of ballast and the dead letters beside the queue.
    pub(crate) fn folder_bytes(&self) -> std::io::Result<u64> {
        disk_bytes(&self.folder.path().join("data"))
    }

    /// Waits until only the parked project has events.
    pub(crate) fn drain(&self) -> Result<Status, Failure> {
        let begun = Instant::now();
        loop {
            let status = self.status()?;
            if status.waiting() == 0 {
                return Ok(status);
            }
            if begun.elapsed() > DRAIN_LIMIT {
                return Err(format!("{} events were never delivered", status.waiting()).into());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
