//! `phosphod run`.
use super::{FAILED, bad_configuration, complain, logging};
use crate::config::{self, Sources};
use crate::daemon;
use std::process::ExitCode;

/// Runs the daemon until it is told to stop.
pub(super) fn run(sources: Sources) -> ExitCode {
    let settings = match config::load(&sources) {
        Ok(settings) => settings,
        Err(mistakes) => return bad_configuration(&mistakes),
    };
    if let Err(sentence) = logging::start(&settings.log) {
        return failed(&sentence);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(fault) => {
            return failed(&format!(
                "no threads could be started ({fault}): raise the limits of the service"
            ));
        }
    };
    let reload = move || config::load(&sources).map_err(|mistakes| mistakes.to_string());
    match runtime.block_on(daemon::run(settings, reload)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => failed(&fault.to_string()),
    }
}

fn failed(sentence: &str) -> ExitCode {
    complain(&format!("phosphod: {sentence}"));
    ExitCode::from(FAILED)
}
