//! What systemd and the daemon tell each other: how it is, and the sockets that were opened for it. Without systemd, and on
//! other systems, nothing happens.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Duration;

/// Listening sockets that were opened by systemd (`phosphod.socket`), ready for tokio: they do not block.
#[derive(Debug, Default)]
pub struct Inherited {
    /// The TCP socket, if one was handed over.
    pub tcp: Option<TcpListener>,
    /// The Unix socket, if one was handed over.
    pub unix: Option<UnixListener>,
}

/// The daemon accepts events. `status` is one line for `systemctl status`.
pub fn ready(status: &str) {
    imp::tell(imp::State::Ready(status));
}

/// The daemon is still starting: allows `more` from now on, and says why in one line.
pub fn starting(status: &str, more: Duration) {
    imp::tell(imp::State::Starting(status, more));
}

/// How the daemon is, as one line for `systemctl status`.
pub fn status(status: &str) {
    imp::tell(imp::State::Status(status));
}

/// How long systemd waits for [`alive`] before it kills the daemon (`WatchdogSec=`); `None` if it does not watch.
pub fn watchdog() -> Option<Duration> {
    imp::watchdog()
}

/// The daemon makes progress.
pub fn alive() {
    imp::tell(imp::State::Alive);
}

/// The daemon is on its way out.
pub fn stopping() {
    imp::tell(imp::State::Stopping);
}

/// The configuration is being read again; [`ready`] ends it.
pub fn reloading() {
    imp::tell(imp::State::Reloading);
}

/// Takes the sockets that were handed over. Which is which is told by their family, since their order differs from boot to
/// boot. May be called once: it clears systemd's variables.
///
/// # Errors
/// A descriptor that is no listening socket of either family, or a second one of the same family.
pub fn inherited() -> io::Result<Inherited> {
    imp::inherited()
}

#[cfg(target_os = "linux")]
mod imp {
    use super::{Duration, Inherited, io};
    use listenfd::ListenFd;
    use sd_notify::NotifyState;

    pub(super) enum State<'a> {
        Starting(&'a str, Duration),
        Status(&'a str),
        Alive,
        Ready(&'a str),
        Reloading,
        Stopping,
    }

    pub(super) fn tell(state: State<'_>) {
        let told = match state {
            State::Starting(status, more) => {
                let more = u32::try_from(more.as_micros()).unwrap_or(u32::MAX);
                sd_notify::notify(&[NotifyState::ExtendTimeoutUsec(more), NotifyState::Status(status)])
            }
            State::Status(status) => sd_notify::notify(&[NotifyState::Status(status)]),
            State::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
            State::Ready(status) => sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)]),
            State::Reloading => match NotifyState::monotonic_usec_now() {
                Ok(now) => sd_notify::notify(&[NotifyState::Reloading, now]),
                Err(error) => Err(error),
            },
            State::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        };
        if let Err(error) = told {
            tracing::warn!(%error, "cannot tell systemd how the daemon is; check NotifyAccess in the unit");
        }
    }

    pub(super) fn watchdog() -> Option<Duration> {
        sd_notify::watchdog_enabled()
    }

    pub(super) fn inherited() -> io::Result<Inherited> {
        let mut sockets = ListenFd::from_env();
        let mut inherited = Inherited::default();
        for at in 0..sockets.len() {
            // A socket of the other family stays where it is, for the second try.
            if let Ok(Some(listener)) = sockets.take_unix_listener(at) {
                listener.set_nonblocking(true)?;
                only(&mut inherited.unix, listener, "Unix")?;
            } else if let Some(listener) = sockets.take_tcp_listener(at)? {
                listener.set_nonblocking(true)?;
                only(&mut inherited.tcp, listener, "TCP")?;
            }
        }
        Ok(inherited)
    }

    fn only<T>(place: &mut Option<T>, listener: T, family: &str) -> io::Result<()> {
        match place.replace(listener) {
            None => Ok(()),
            Some(_) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("there is more than one {family} socket: keep one ListenStream= of each kind"),
            )),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use super::{Duration, Inherited, io};

    pub(super) enum State<'a> {
        Starting(&'a str, Duration),
        Status(&'a str),
        Alive,
        Ready(&'a str),
        Reloading,
        Stopping,
    }

    pub(super) fn tell(state: State<'_>) {
        match state {
            State::Starting(status, more) => tracing::debug!(status, ?more, "starting"),
            State::Status(status) => tracing::debug!(status),
            State::Alive => {}
            State::Ready(status) => tracing::debug!(status, "ready"),
            State::Reloading => tracing::debug!("reloading"),
            State::Stopping => tracing::debug!("stopping"),
        }
    }

    pub(super) fn watchdog() -> Option<Duration> {
        None
    }

    pub(super) fn inherited() -> io::Result<Inherited> {
        Ok(Inherited::default())
    }
}
