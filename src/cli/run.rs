//! `phosphod run`.
use super::{FAILED, bad_configuration, logging};
use crate::config::{self, Sources};
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
    eprintln!("phosphod: {sentence}");
    ExitCode::from(FAILED)
}

/// Stands in for `crate::daemon` on this branch: on merging, delete it and write `use crate::daemon;` above.
mod daemon {
    use crate::config::Settings;

    pub(super) async fn run(
        _settings: Settings,
        _reload: impl Fn() -> Result<Settings, String> + Send + 'static,
    ) -> Result<(), String> {
        Err("the daemon itself is not part of this build".to_owned())
    }
}
