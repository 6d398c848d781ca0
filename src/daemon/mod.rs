//! Puts the parts together, watches over them and shuts them down.
//!
//! Order of start: data folder (its lock and recovery), sockets, couriers, then READY. Order of the end: the listeners
//! stop accepting and finish what they have, the couriers finish or release what is in flight, the spool commits and
//! gives its lock back. A backlog is never drained on the way out: it is safe on disk.

pub mod bind;
pub mod limits;
mod open_files;
pub mod reload;
pub mod signals;
mod sockets;
mod upkeep;

use crate::admin::{self, Admin};
use crate::board::Board;
use crate::courier::{CourierError, Pulse};
use crate::http::{self, Limits, Listener, Router};
use crate::intake::browser::Browser;
use crate::intake::{self, Intake};
use crate::metrics::Metrics;
use crate::spool::{OpenError, Spool};
use crate::upstream::UpstreamError;
use crate::{config, courier, notify};
use bind::{BindError, OwnedSocket};
use reload::Reload;
use signals::{Asked, Signals};
use sockets::Sockets;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How often systemd is told that opening the data folder still goes on.
const STARTING_EVERY: Duration = Duration::from_secs(5);

/// How long the last commit may take on a slow disk, once all requests have ended.
const LAST_COMMIT: Duration = Duration::from_secs(10);

/// Why the daemon did not start, or ended unasked.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The data folder could not be opened.
    #[error(transparent)]
    Spool(#[from] OpenError),
    /// A socket could not be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The client towards the API could not be made.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// What systemd handed over could not be used.
    #[error("cannot use the sockets that systemd handed over: {0} (`systemctl cat phosphod.socket`)")]
    Inherited(std::io::Error),
    /// Delivery ended unasked.
    #[error(transparent)]
    Courier(#[from] CourierError),
    /// A part that should run for ever ended.
    #[error(
        "{part} ended unasked{why}: what was acknowledged is safe on disk; start the daemon again and report this"
    )]
    Part {
        /// Which part.
        part: &'static str,
        /// How, if that is known.
        why: String,
    },
}

/// Runs the daemon until a signal ends it. SIGHUP calls `reload` and applies what it gives; what it
/// refuses changes nothing.
///
/// # Errors
/// When the daemon cannot start, or when a part of it ends unasked.
pub async fn run(
    settings: config::Settings,
    metrics: Arc<Metrics>,
    mut signals: Signals,
    reload: Arc<reload::Read>,
) -> Result<(), DaemonError> {
    // What the daemon makes is for nobody else, whoever starts it.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    keep_memory_private();
    let (to_couriers, courier_settings) = watch::channel(Arc::new(settings.courier()?));
    let Some(spool) = open_spool(&settings, &mut signals).await? else {
        return Ok(());
    };
    let sockets = Sockets::open(&settings.intake)?;
    let names = sockets.names();

    let mut parts = Parts::start(&settings, metrics, sockets, &spool, courier_settings);
    names.announce(&settings);
    settings.announce(&parts.board);
    notify::ready(&format!("accepting on {names}"));
    let upkeep = tokio::spawn(parts.upkeep(&spool));

    let reload = Reload::new(reload, settings.origins.clone(), to_couriers);
    let ended = watch_over(&settings, &mut signals, &mut parts, reload).await;
    match &ended {
        Ok(signal) => tracing::info!(signal, "stopping"),
        Err(fault) => tracing::error!(%fault, "stopping"),
    }
    upkeep.abort();
    // Listeners and couriers may use up the grace one after the other.
    notify::stopping(settings.grace * 2 + LAST_COMMIT);
    let stopping = async {
        parts.stop().await;
        spool.close().await;
    };
    signals.last(stopping).await;
    let ledger = spool.ledger();
    tracing::info!(
        queued = ledger.queued,
        delivered = ledger.delivered,
        dead = ledger.dead,
        "stopped"
    );
    ended.map(|_| ())
}

/// Waits for what ends the daemon, and reads the configuration again where a signal asks for it.
/// Gives the name of the signal that ended it.
async fn watch_over(
    settings: &config::Settings,
    signals: &mut Signals,
    parts: &mut Parts,
    mut reload: Reload,
) -> Result<&'static str, DaemonError> {
    // A SIGHUP that comes while one is answered is answered after it.
    let mut again = false;
    loop {
        tokio::select! {
            biased;
            asked = signals.next() => match asked {
                Asked::Stop(signal) => break Ok(signal),
                Asked::Reload if reload.is_reading() => again = true,
                Asked::Reload => reload.begin(),
            },
            ended = parts.ended() => break Err(ended),
            done = reload.done() => {
                reload.apply(done, settings, || parts.admin.sentence());
                if std::mem::take(&mut again) {
                    reload.begin();
                }
            }
        }
    }
}

/// Other processes of the same user may not trace this one nor read its environment, and no core dump is written: its memory holds
/// the key.
#[cfg(target_os = "linux")]
fn keep_memory_private() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "the daemon's memory can be dumped: the kernel refused to turn that off");
    }
}

#[cfg(not(target_os = "linux"))]
fn keep_memory_private() {}

/// Opens the data folder. `None`: a signal asked for the end before that was done.
async fn open_spool(
    settings: &config::Settings,
    signals: &mut Signals,
) -> Result<Option<Spool>, DaemonError> {
    let folder = settings.spool.clone();
    let mut opening = tokio::task::spawn_blocking(move || Spool::open(folder));
    let opened = loop {
        // What is intact in damaged files takes as long as it takes; systemd shall not end that.
        tokio::select! {
            biased;
            signal = signals.stop() => {
                tracing::info!(signal, "stopping before the data folder is open");
                signals.last(give_up(opening, settings.grace)).await;
                return Ok(None);
            }
            opened = &mut opening => break opened,
            () = tokio::time::sleep(STARTING_EVERY) => {
                notify::starting("opening the data folder, which takes longer than usual", STARTING_EVERY * 6);
            }
        }
    };
    match opened {
        Ok(opened) => Ok(Some(opened?)),
        Err(fault) => Err(DaemonError::Part {
            part: "opening the data folder",
            why: format!(" ({fault})"),
        }),
    }
}

/// Closes a data folder that is still being opened, if that is done in time. Where it is not, the
/// end of the process cuts it off, which every step of it survives.
async fn give_up(opening: JoinHandle<Result<Spool, OpenError>>, grace: Duration) {
    if let Ok(Ok(Ok(spool))) = tokio::time::timeout(grace, opening).await {
        spool.close().await;
    }
}

/// The tasks that run for ever, in two groups that stop one after the other.
struct Parts {
    listeners: JoinSet<&'static str>,
    couriers: JoinSet<Result<(), CourierError>>,
    stop_listening: watch::Sender<bool>,
    stop_delivering: watch::Sender<bool>,
    owned: Option<OwnedSocket>,
    admin: Arc<Admin>,
    board: Board,
    pulse: Pulse,
}

impl Parts {
    fn start(
        settings: &config::Settings,
        metrics: Arc<Metrics>,
        sockets: Sockets,
        spool: &Spool,
        courier_settings: watch::Receiver<Arc<courier::Settings>>,
    ) -> Self {
        let board = Board::default();
        let intake = Arc::new(Intake::new(
            intake_settings(settings),
            spool.clone(),
            metrics.clone(),
        ));
        let about = admin::About {
            base_url: settings.upstream.base_url.clone(),
            secrets: settings.secrets.clone(),
            max_event_bytes: settings.intake.max_event_bytes,
            redactor: settings.redact.clone(),
        };
        let admin = Arc::new(Admin::new(about, spool.clone(), board.clone(), metrics.clone()));
        let gate = intake.gate();
        let router = Arc::new(Router::new(intake.clone(), admin.clone(), gate, metrics.clone()));

        let (stop_listening, listening) = watch::channel(false);
        let (stop_delivering, delivering) = watch::channel(false);
        let listeners = [
            sockets.http.is_some(),
            sockets.unix.is_some(),
            sockets.browser.is_some(),
        ];
        let listeners = listeners.into_iter().filter(|there| *there).count();
        let limits = Limits {
            connections: open_files::connections(listeners, settings.delivery.max_in_flight),
            drain: settings.grace,
            ..Limits::default()
        };
        let mut serving = JoinSet::new();
        let named = [
            ("the TCP listener", sockets.http.map(Listener::Tcp)),
            ("the Unix listener", sockets.unix.map(Listener::Unix)),
        ];
        for (name, listener) in named {
            let Some(listener) = listener else { continue };
            let until_stopped = http::serve(
                listener,
                router.clone(),
                limits,
                board.notice(name),
                stopped(listening.clone()),
            );
            serving.spawn(async move {
                until_stopped.await;
                name
            });
        }
        if let (Some(listener), Some(browser)) = (sockets.browser, &settings.intake.browser) {
            let pages = Arc::new(Browser::new(browser.rules.clone(), intake, metrics.clone()));
            let listener = Listener::Tcp(listener);
            let name = "the browser listener";
            let notice = board.notice(name);
            let until_stopped = http::serve(listener, pages, limits, notice, stopped(listening.clone()));
            serving.spawn(async move {
                until_stopped.await;
                name
            });
        }
        let (pulse, heart) = courier::pulse();
        let delivery = courier::run(
            spool.clone(),
            courier_settings,
            board.clone(),
            metrics,
            heart,
            stopped(delivering),
            settings.grace,
        );
        let mut couriers = JoinSet::new();
        couriers.spawn(delivery);
        Self {
            listeners: serving,
            couriers,
            stop_listening,
            stop_delivering,
            owned: sockets.owned,
            admin,
            board,
            pulse,
        }
    }

    /// Tells systemd how things stand, for ever.
    fn upkeep(&self, spool: &Spool) -> impl Future<Output = ()> + Send + use<> {
        upkeep::run(spool.clone(), self.pulse.clone(), self.admin.clone())
    }

    /// Resolves when a part ends by itself, which none should.
    async fn ended(&mut self) -> DaemonError {
        let failed = |part, why: &dyn std::fmt::Display| DaemonError::Part {
            part,
            why: format!(" ({why})"),
        };
        tokio::select! {
            Some(ended) = self.listeners.join_next() => match ended {
                Ok(part) => failed(part, &"nobody had asked it to"),
                Err(fault) => failed("a listener", &fault),
            },
            Some(ended) = self.couriers.join_next() => match ended {
                Ok(Ok(())) => failed("delivery", &"nobody had asked it to"),
                Ok(Err(fault)) => fault.into(),
                Err(fault) => failed("delivery", &fault),
            },
        }
    }

    /// Listeners first, so that nothing new comes; then the couriers. Both bound their own time.
    async fn stop(&mut self) {
        self.stop_listening.send_replace(true);
        while self.listeners.join_next().await.is_some() {}
        // Before the data folder's lock is given back: a successor's socket at the same path is not ours to remove.
        self.owned = None;
        self.stop_delivering.send_replace(true);
        while let Some(ended) = self.couriers.join_next().await {
            if let Ok(Err(fault)) = ended {
                tracing::error!(%fault, "while stopping");
            }
        }
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // A sender that is gone means the end as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn intake_settings(settings: &config::Settings) -> intake::Settings {
    let intake = &settings.intake;
    intake::Settings {
        max_body_bytes: intake.max_body_bytes,
        max_in_flight_bytes: intake.max_in_flight_bytes,
        max_event_bytes: intake.max_event_bytes,
        default_project: intake.default_project.clone(),
        gate: intake.gate.clone(),
        redactor: settings.redact.clone(),
    }
}
