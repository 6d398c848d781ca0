//! Notes of skipped tests, from the test binaries of one run of `cargo test` to its summary (`tests/zz_summary.rs`).
//!
//! The binaries of a run have one parent, Cargo. Its process id and its start time name the folder of the notes, so runs
//! beside each other and a reused id mix nothing up.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Where all runs leave their notes: beside the binaries that leave them.
pub(crate) fn folder() -> Option<PathBuf> {
    let binary = std::env::current_exe().ok()?;
    // target/debug/deps/it-0123 leaves its notes in target/debug/skipped/.
    Some(binary.parent()?.parent()?.join("skipped"))
}

/// The run that this process belongs to. `None` where the system does not tell.
pub(crate) fn run() -> Option<String> {
    let parent = std::os::unix::process::parent_id();
    let stat = fs::read_to_string(format!("/proc/{parent}/stat")).ok()?;
    // The name in parentheses can hold blanks; the start time is the 20th field behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    let started = fields.split_whitespace().nth(19)?;
    Some(format!("{parent}-{started}"))
}

/// Leaves a note. A summary that lacks one is no reason to fail.
pub(crate) fn leave(test: &str, why: &str) {
    let Some((folder, run)) = folder().zip(run()) else {
        return;
    };
    let _ = leave_in(&folder.join(run), test, why);
}

/// Leaves a note in the folder of a run.
pub(crate) fn leave_in(run: &Path, test: &str, why: &str) -> std::io::Result<()> {
    fs::create_dir_all(run)?;
    let name = test.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    fs::write(run.join(name), format!("{test}\n{why}"))
}

/// The notes of a run: tests by the reason why they were skipped.
pub(crate) fn read(run: &Path) -> BTreeMap<String, Vec<String>> {
    let mut by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in fs::read_dir(run).into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        if let Some((test, why)) = text.split_once('\n') {
            by_reason.entry(why.to_owned()).or_default().push(test.to_owned());
        }
    }
    by_reason
}

/// Removes the notes of a run, and those that runs without a summary have left for a day.
pub(crate) fn clear(folder: &Path, run: &str) {
    let old = SystemTime::now() - Duration::from_secs(24 * 60 * 60);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_old = entry
            .metadata()
            .and_then(|about| about.modified())
            .is_ok_and(|modified| modified < old);
        if is_old || entry.file_name() == run {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The line at the end of a run.
pub(crate) fn summary(by_reason: &BTreeMap<String, Vec<String>>) -> String {
    let tests: usize = by_reason.values().map(Vec::len).sum();
    if tests == 0 {
        return "skipped: none of the tests that ran".to_owned();
    }
    let mut reasons: Vec<_> = by_reason.iter().map(|(why, tests)| (tests.len(), why)).collect();
    reasons.sort_by(|one, other| other.cmp(one));
    let reasons = reasons.iter().map(|(tests, why)| format!("{tests}: {why}"));
    format!(
        "skipped: {tests} tests ({}); all run as root on Debian with the tools of .ci/run and after tests/clients/install.sh",
        reasons.collect::<Vec<_>>().join("; ")
    )
}
