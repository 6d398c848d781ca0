//! `phosphod sandbox`: a local stand-in for the phospho API.

use super::tell;
use crate::sandbox::{self, Settings, State};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

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

/// Runs a sandbox until Ctrl-C or SIGTERM. Exit code 1 when it could not listen, or when something arrived that the
/// contract does not know.
pub(super) fn run(args: SandboxArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = runtime.and_then(|runtime| runtime.block_on(serve(args)));
    match result {
        Ok(state) => report(&state),
        Err(error) => {
            tell(&format!("phosphod sandbox: {error}"));
            ExitCode::from(1)
        }
    }
}

async fn serve(args: SandboxArgs) -> std::io::Result<State> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
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
    say(&format!("sandbox: phospho API on http://{}", sandbox.addr()));
    say(&format!(
        "sandbox: control on http://{}/sandbox/state",
        sandbox.control_addr()
    ));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(sandbox.shutdown().await)
}

/// A reader that closed its pipe has seen enough; `println` would panic.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn report(state: &State) -> ExitCode {
    say(&format!(
        "sandbox: {} requests, {} tasks stored, {} duplicates, {} refused, {} lost, {} feedback",
        state.requests, state.stored, state.duplicates, state.refused, state.lost, state.evals
    ));
    if state.surprises.is_empty() {
        return ExitCode::SUCCESS;
    }
    tell(&format!(
        "sandbox: {} requests that the contract does not know:",
        state.surprises.len()
    ));
    for surprise in &state.surprises {
        tell(&format!("  {}", surprise.escape_debug()));
    }
    ExitCode::from(1)
}
