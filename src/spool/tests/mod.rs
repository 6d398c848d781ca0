//! The spool through its handle, grouped by promise.
mod bounds;
mod damage;
mod dropping;
mod durability;
mod find;
mod full_disk;
mod funeral;
mod leases;
mod migration;
mod model;
mod moving;
mod offline;
mod order;
mod requeue;
mod transfer;

#[allow(dead_code, reason = "each test binary uses a part of it")]
#[path = "../../../tests/support/notes.rs"]
mod notes;
#[allow(dead_code, reason = "each test binary uses a part of it")]
#[path = "../../../tests/support/skip.rs"]
mod skip;

use super::*;
use crate::ids::{Kind, ProjectId};
pub(super) use durability::{disk_failing_in, failing_disk, path_of};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use tempfile::TempDir;

fn settings(path: &Path) -> Settings {
    Settings {
        path: path.to_owned(),
        max_bytes: 10 << 30,
        on_full: OnFull::default(),
        min_free_bytes: 0,
        generation_bytes: 64 << 20,
        dead_max_bytes: 1 << 30,
        dead_max_age: Duration::from_secs(86_400),
    }
}

fn open(path: &Path) -> Spool {
    Spool::open(settings(path)).unwrap()
}

fn limits(max_events: usize) -> Limits {
    Limits {
        max_events,
        max_bytes: 64 << 20,
        max_age: Duration::from_millis(1),
    }
}

fn lane(project: &str, kind: Kind) -> Lane {
    Lane {
        project: ProjectId::new(project).unwrap(),
        kind,
    }
}

fn logs(project: &str) -> Lane {
    lane(project, Kind::Log)
}

fn feedback(project: &str) -> Lane {
    lane(project, Kind::Feedback)
}

fn queued(lane: &Lane, record: impl Into<Vec<u8>>) -> Entry {
    Entry::Queued {
        lane: lane.clone(),
        record: record.into(),
    }
}

fn burial(reason: &str) -> Burial {
    Burial {
        reason: reason.into(),
        status: Some(422),
        excerpt: None,
        attempts: 1,
    }
}

fn seqs(leased: &[Leased]) -> Vec<u64> {
    leased.iter().map(|l| l.seq().0).collect()
}

fn texts(leased: &[Leased]) -> Vec<String> {
    leased
        .iter()
        .map(|l| String::from_utf8(l.record().to_vec()).unwrap())
        .collect()
}

/// Every dead letter, page by page.
async fn letters(spool: &Spool) -> Vec<DeadLetter> {
    let mut letters = Vec::new();
    let mut after = None;
    loop {
        let page = spool.dead_letters(after, 1_000).await.unwrap();
        letters.extend(page.letters.into_iter().map(|kept| kept.letter.unwrap()));
        after = page.next;
        if after.is_none() {
            return letters;
        }
    }
}

fn view(spool: &Spool, lane: &Lane) -> LaneView {
    let lanes = spool.lanes().borrow().clone();
    lanes.iter().find(|view| view.lane() == lane).cloned().unwrap()
}

/// Waits until everything that was settled is durable: an append commits along with it.
async fn commit(spool: &Spool) {
    spool.append(vec![queued(&logs("commit"), "x")]).await.unwrap();
    assert!(spool.ledger().balances(), "{:?}", spool.ledger());
}

/// What a kill -9 would leave: the files as they are now, opened by somebody else. What the spool
/// deletes while they are copied is left out: a kill would not have found it either.
fn killed(path: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(path, copy.path()).unwrap();
    copy
}

/// Copies of a folder as a kill would leave it, numbered from 0, for tests that take one at each sync.
#[derive(Clone)]
struct Copies {
    from: PathBuf,
    into: Arc<TempDir>,
    armed: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
}

impl Copies {
    /// None is made before [`begin`](Self::begin).
    fn of(from: &Path) -> Self {
        Self {
            from: from.to_owned(),
            into: Arc::new(tempfile::tempdir().unwrap()),
            armed: Arc::default(),
            made: Arc::default(),
        }
    }

    fn begin(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    /// Makes one, if it is time to.
    fn take(&self) -> Option<PathBuf> {
        self.armed.load(Ordering::SeqCst).then(|| {
            let copy = self.at(self.made.fetch_add(1, Ordering::SeqCst));
            std::fs::create_dir(&copy).unwrap();
            copy_folder(&self.from, &copy).unwrap();
            copy
        })
    }

    fn at(&self, number: usize) -> PathBuf {
        self.into.path().join(number.to_string())
    }

    /// Closes the spool, so that none is under way any more, and says how many there are.
    async fn end(&self, spool: Spool) -> usize {
        self.armed.store(false, Ordering::SeqCst);
        spool.close().await;
        self.made.load(Ordering::SeqCst)
    }
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        // Large, and nothing of it matters.
        if entry.file_name() == "ballast" {
            continue;
        }
        let target = to.join(entry.file_name());
        let copied = match entry.file_type() {
            Ok(kind) if kind.is_dir() => {
                std::fs::create_dir_all(&target)?;
                copy_folder(&entry.path(), &target)
            }
            Ok(_) => std::fs::copy(entry.path(), target).map(drop),
            Err(failure) => Err(failure),
        };
        match copied {
            Err(failure) if failure.kind() == io::ErrorKind::NotFound => {}
            copied => copied?,
        }
    }
    Ok(())
}

/// Every file anywhere under a `blobs` folder.
fn blobs(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(blobs(&path));
        } else if path.parent().unwrap().ends_with("blobs") {
            found.push(path);
        }
    }
    found
}
