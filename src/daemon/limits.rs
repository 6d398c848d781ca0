//! Limits of the process that would otherwise show as a panic or as an abort without a word.

use rustix::process::{Resource, getrlimit};
use std::num::NonZero;
use std::sync::mpsc;
use std::thread;

/// Threads beside the runtime's workers: the log, the spool, sled's own, and those for work that
/// blocks.
const BESIDE_WORKERS: usize = 16;
/// Address space without which not even a start is sure to succeed, in bytes. Most of it is
/// reserved, not used.
const LEAST_SPACE: u64 = 512 << 20;
/// Address space below which the daemon is likely to run out under load, in bytes.
const LITTLE_SPACE: u64 = 2 << 30;
/// Open files without which the data folder cannot be opened.
const LEAST_FILES: u64 = 32;

/// Finds out whether the limits of the process leave what a start takes. The error is a sentence.
pub fn check() -> Result<(), String> {
    let low = |kind, least| getrlimit(kind).current.filter(|limit| *limit < least);
    if let Some(limit) = low(Resource::Nofile, LEAST_FILES) {
        return Err(format!(
            "the limit on open files is {limit}, and at least {LEAST_FILES} are needed: raise it (LimitNOFILE of the unit, ulimit -n)"
        ));
    }
    if let Some(limit) = low(Resource::As, LEAST_SPACE) {
        return Err(format!(
            "the limit on address space is {limit} bytes, and at least {LEAST_SPACE} are needed: raise it (LimitAS of the unit, \
             ulimit -v), or limit memory by a control group"
        ));
    }
    // As many as the daemon needs, all at once.
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    start_together(workers + BESIDE_WORKERS, thread::Builder::new)
}

fn start_together(count: usize, builder: impl Fn() -> thread::Builder) -> Result<(), String> {
    let mut started = Vec::new();
    let mut ends = Vec::new();
    let mut failure = None;
    for _ in 0..count {
        let (end, ended) = mpsc::channel::<()>();
        match builder().spawn(move || ended.recv().is_ok()) {
            Ok(thread) => {
                started.push(thread);
                ends.push(end);
            }
            Err(fault) => {
                failure = Some(format!(
                    "only {} of the {count} threads that the daemon needs can be started ({fault}): raise the limits on \
                     processes and on address space (TasksMax and LimitAS of the unit, ulimit -u, ulimit -v, pids.max)",
                    started.len()
                ));
                break;
            }
        }
    }
    drop(ends);
    for thread in started {
        // It only waited.
        let _ = thread.join();
    }
    failure.map_or(Ok(()), Err)
}

/// Warns of a limit on address space that an allocation may meet, which ends the process.
pub fn address_space() {
    if let Some(bytes) = getrlimit(Resource::As)
        .current
        .filter(|bytes| *bytes < LITTLE_SPACE)
    {
        tracing::warn!(
            bytes,
            "the limit on address space is low: an allocation that meets it ends the daemon, and nothing that was \
             acknowledged is lost; raise it to {LITTLE_SPACE} (LimitAS, ulimit -v), or limit memory by a control group"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_cannot_be_started_are_a_sentence() {
        assert_eq!(start_together(20, thread::Builder::new), Ok(()));
        // No machine maps a stack of this size.
        let huge = || thread::Builder::new().stack_size(1 << 60);
        let sentence = start_together(3, huge).expect_err("not even one");
        assert!(
            sentence.contains("only 0 of the 3 threads") && sentence.contains("TasksMax"),
            "{sentence}"
        );
    }
}
