//! `phosphod sandbox`: a local stand-in for the phospho API.

use super::background::{Background, LAST_LINES};
use super::{FAILED, logging, tell};
use crate::daemon::limits;
use crate::daemon::signals::{Early, Signals};
use crate::sandbox::{self, Settings, State};
use prometheus_client::metrics::counter::Counter;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

/// Arguments of `phosphod sandbox`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SandboxArgs {
    /// Address of the stand-in for the phospho API; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 4711)))]
    listen: SocketAddr,
    /// Address of the control routes under /sandbox/ [default: the port after --listen's, or a free one]
    #[arg(long, value_name = "ADDR")]
    control: Option<SocketAddr>,
}

/// Where the lines go. Both ways are written in the background: requests are answered, and signals
/// end it, whoever reads.
struct Said {
    out: Background,
    log: Background,
}

/// Runs a sandbox until Ctrl-C or SIGTERM; a second one ends it at once. Exit code 1 when it could
/// not listen, or when something arrived that the contract does not know.
pub(super) fn run(args: SandboxArgs) -> ExitCode {
    if let Err(sentence) = limits::check() {
        tell(&format!("phosphod sandbox: {sentence}"));
        return ExitCode::from(FAILED);
    }
    let said = Said {
        out: Background::start(std::io::stdout(), Counter::default(), |_| {}),
        log: logging::background(Counter::default()),
    };
    let result = logging::start_plain(&said.log).map_err(std::io::Error::other);
    let runtime = result.and_then(|()| tokio::runtime::Builder::new_multi_thread().enable_all().build());
    let result = runtime.and_then(|runtime| runtime.block_on(serve(args, &said)));
    let code = match result {
        Ok(state) => report(&state, &said),
        Err(error) => {
            said.log.line(&format!("phosphod sandbox: {error}"));
            ExitCode::from(FAILED)
        }
    };
    said.out.finish(LAST_LINES);
    said.log.finish(LAST_LINES);
    code
}

async fn serve(args: SandboxArgs, said: &Said) -> std::io::Result<State> {
    let mut signals = Early::arrange().and_then(Signals::listen)?;
    let listen = args.listen;
    let next = SocketAddr::new(
        listen.ip(),
        if listen.port() == 0 {
            0
        } else {
            listen.port().saturating_add(1)
        },
    );
    let sandbox = sandbox::start(Settings {
        listen,
        control: args.control.unwrap_or(next),
    })
    .await?;
    said.out
        .line(&format!("sandbox: phospho API on http://{}", sandbox.addr()));
    said.out.line(&format!(
        "sandbox: control on http://{}/sandbox/state",
        sandbox.control_addr()
    ));
    signals.stop().await;
    Ok(signals.last(sandbox.shutdown()).await)
}

fn report(state: &State, said: &Said) -> ExitCode {
    said.out.line(&format!(
        "sandbox: {} requests, {} tasks stored, {} duplicates, {} refused, {} lost, {} feedback",
        state.requests, state.stored, state.duplicates, state.refused, state.lost, state.evals
    ));
    if state.surprises.is_empty() {
        return ExitCode::SUCCESS;
    }
    said.log.line(&format!(
        "sandbox: {} requests that the contract does not know:",
        state.surprises.len()
    ));
    for surprise in &state.surprises {
        said.log.line(&format!("  {}", surprise.escape_debug()));
    }
    ExitCode::from(FAILED)
}
