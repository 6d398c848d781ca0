//! `phosphod run`.
use super::background::{Background, LAST_LINES};
use super::{BAD_CONFIGURATION, FAILED, complaint, logging};
use crate::config::{self, Mistakes, Sources};
use crate::daemon::signals::{Early, Signals};
use crate::daemon::{self, limits};
use crate::metrics::Metrics;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// How long what still runs on threads of its own may take at the end. Nothing that counts is among
/// it.
const LAST_THREADS: Duration = Duration::from_secs(1);

/// Runs the daemon until it is told to stop. `early` was arranged when the process began.
pub(super) fn run(sources: Sources, early: std::io::Result<Early>) -> ExitCode {
    // What is missing later would be a panic of a library, or an abort.
    if let Err(sentence) = limits::check() {
        super::complain(&format!("phosphod: {sentence}"));
        return ExitCode::from(FAILED);
    }
    let metrics = Arc::new(Metrics::new());
    let log = logging::background(metrics.log_lines_dropped.clone()).masking(sources.secrets.clone());
    let code = match prepared(early) {
        Ok((runtime, signals)) => {
            let ended = runtime.block_on(serve(sources, signals, metrics, &log));
            runtime.shutdown_timeout(LAST_THREADS);
            ended
        }
        Err(sentence) => failed(&log, &sentence),
    };
    log.finish(LAST_LINES);
    code
}

fn prepared(early: std::io::Result<Early>) -> Result<(Runtime, Signals), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime
        .map_err(|fault| format!("no threads could be started ({fault}): raise the limits of the service"))?;
    let entered = runtime.enter();
    let signals = early.and_then(Signals::listen);
    drop(entered);
    let signals = signals.map_err(|fault| format!("cannot listen for signals: {fault}"))?;
    Ok((runtime, signals))
}

/// Reads the configuration, which may wait for a pipe without end and for a slow disk, and runs the
/// daemon.
async fn serve(sources: Sources, mut signals: Signals, metrics: Arc<Metrics>, log: &Background) -> ExitCode {
    let first = sources.clone();
    let loading = tokio::task::spawn_blocking(move || config::load(&first));
    let settings = tokio::select! {
        biased;
        _ = signals.stop() => return ExitCode::SUCCESS,
        loaded = loading => match loaded {
            Ok(Ok(settings)) => settings,
            Ok(Err(mistakes)) => return misconfigured(log, &mistakes),
            Err(fault) => return failed(log, &format!("the configuration was not read: {fault}")),
        },
    };
    if let Err(sentence) = logging::start(&settings.log, log) {
        return failed(log, &sentence);
    }
    logging::log_panics();
    limits::address_space();
    let reload = move |origins: &config::Origins| {
        config::load(&sources.again(origins)).map_err(|mistakes| mistakes.to_string())
    };
    match daemon::run(settings, metrics, signals, Arc::new(reload)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => failed(log, &fault.to_string()),
    }
}

fn misconfigured(log: &Background, mistakes: &Mistakes) -> ExitCode {
    for mistake in mistakes.iter() {
        log.line(&complaint(&format!("phosphod: {mistake}")));
    }
    ExitCode::from(BAD_CONFIGURATION)
}

fn failed(log: &Background, sentence: &str) -> ExitCode {
    log.line(&complaint(&format!("phosphod: {sentence}")));
    ExitCode::from(FAILED)
}
