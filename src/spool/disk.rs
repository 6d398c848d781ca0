//! What the spool asks of the machine, in one narrow place, so that tests can make each answer fail.
use rustix::process::{Resource, getrlimit};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

type Sync = dyn Fn(&File) -> io::Result<()> + Send + std::marker::Sync;
type FreeBytes = dyn Fn(&Path) -> io::Result<u64> + Send + std::marker::Sync;
type NowMs = dyn Fn() -> u64 + Send + std::marker::Sync;

/// Smallest limit on file sizes that the queue can work under, in bytes.
pub(super) const LEAST_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// The machine as the spool sees it.
#[derive(Clone)]
pub(super) struct Disk {
    /// Makes a file's data durable. Nothing is acknowledged before this has returned.
    pub(super) sync_data: Arc<Sync>,
    /// Bytes that an unprivileged process may still write to the file system of a folder.
    pub(super) free_bytes: Arc<FreeBytes>,
    /// Largest size of a file that this process may write, in bytes; `None`: any (RLIMIT_FSIZE).
    pub(super) max_file_bytes: Option<u64>,
    /// Wall clock, milliseconds since 1970. Never used for order, and for age only while it can be believed.
    pub(super) now_ms: Arc<NowMs>,
}

impl Disk {
    /// The size up to which a file is filled on purpose, at most `wanted`. Under a limit on file
    /// sizes the other half is for the last commit, which may be large.
    pub(super) fn fill_bytes(&self, wanted: u64) -> u64 {
        self.max_file_bytes.map_or(wanted, |limit| wanted.min(limit / 2))
    }

    /// The real one.
    pub(super) fn real() -> Disk {
        Disk {
            sync_data: Arc::new(File::sync_data),
            free_bytes: Arc::new(|path| {
                let stat = rustix::fs::statvfs(path)?;
                Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
            }),
            max_file_bytes: getrlimit(Resource::Fsize).current,
            now_ms: Arc::new(|| {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            }),
        }
    }
}

/// Makes what a folder lists durable: the names of files just made or removed in it.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
