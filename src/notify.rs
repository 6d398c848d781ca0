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
    pub http: Option<TcpListener>,
    /// The Unix socket, if one was handed over.
    pub unix: Option<UnixListener>,
    /// The one for web pages, if one of that name was handed over.
    pub browser: Option<TcpListener>,
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

/// The daemon is on its way out, and may take `more` from now on.
pub fn stopping(more: Duration) {
    imp::tell(imp::State::Stopping(more));
}

/// The configuration is being read again; [`ready`] ends it.
pub fn reloading() {
    imp::tell(imp::State::Reloading);
}

/// Takes the sockets that were handed over. Which is which is told by their names (`FileDescriptorName=`: `http`, `unix` or
/// `browser`), and by their family where they have none; never by their order, which differs from boot to boot. May be called once: it
/// clears systemd's variables.
///
/// # Errors
/// A descriptor that is no listening socket, has an unknown name or one of the other family, or is a second one for the same use.
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
        Stopping(Duration),
    }

    /// A span as systemd wants it.
    fn micros(span: Duration) -> u32 {
        u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
    }

    pub(super) fn tell(state: State<'_>) {
        let told = match state {
            State::Starting(status, more) => sd_notify::notify(&[
                NotifyState::ExtendTimeoutUsec(micros(more)),
                NotifyState::Status(status),
            ]),
            State::Status(status) => sd_notify::notify(&[NotifyState::Status(status)]),
            State::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
            State::Ready(status) => sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)]),
            State::Reloading => match NotifyState::monotonic_usec_now() {
                Ok(now) => sd_notify::notify(&[NotifyState::Reloading, now]),
                Err(error) => Err(error),
            },
            State::Stopping(more) => sd_notify::notify(&[
                NotifyState::Stopping,
                NotifyState::ExtendTimeoutUsec(micros(more)),
                NotifyState::Status("stopping: requests in flight may finish"),
            ]),
        };
        if let Err(error) = told {
            tracing::warn!(%error, "cannot tell systemd how the daemon is; check NotifyAccess in the unit");
        }
    }

    pub(super) fn watchdog() -> Option<Duration> {
        sd_notify::watchdog_enabled()
    }

    pub(super) fn inherited() -> io::Result<Inherited> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets = ListenFd::from_env();
        let mut inherited = Inherited::default();
        for at in 0..sockets.len() {
            let name = names.next().unwrap_or_default();
            // A socket of the other family stays where it is, for the second try.
            if let Ok(Some(listener)) = sockets.take_unix_listener(at) {
                listener.set_nonblocking(true)?;
                purpose(name, Family::Unix).map_err(wrong)?;
                only(&mut inherited.unix, listener, "the Unix socket")?;
            } else if let Some(listener) = sockets.take_tcp_listener(at)? {
                listener.set_nonblocking(true)?;
                match purpose(name, Family::Tcp).map_err(wrong)? {
                    Purpose::Browser => only(&mut inherited.browser, listener, "web pages")?,
                    Purpose::Http | Purpose::Unix => only(&mut inherited.http, listener, "HTTP over TCP")?,
                }
            }
        }
        Ok(inherited)
    }

    fn wrong(sentence: String) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, sentence)
    }

    fn only<T>(place: &mut Option<T>, listener: T, what: &str) -> io::Result<()> {
        match place.replace(listener) {
            None => Ok(()),
            Some(_) => Err(wrong(format!(
                "there is more than one for {what}: keep one ListenStream= of each kind"
            ))),
        }
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Family {
        Tcp,
        Unix,
    }

    /// What a socket is for.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Purpose {
        Http,
        Unix,
        Browser,
    }

    /// By its name, or by its family where nobody gave it one.
    fn purpose(name: &str, family: Family) -> Result<Purpose, String> {
        let (purpose, wants) = match (name, family) {
            ("http", _) => (Purpose::Http, Family::Tcp),
            ("unix", _) => (Purpose::Unix, Family::Unix),
            ("browser", _) => (Purpose::Browser, Family::Tcp),
            // What systemd calls it without FileDescriptorName= is the unit's name; others hand over nothing or "unknown".
            (name, family) if name.is_empty() || name == "unknown" || name.ends_with(".socket") => {
                return Ok(match family {
                    Family::Tcp => Purpose::Http,
                    Family::Unix => Purpose::Unix,
                });
            }
            _ => {
                return Err(format!(
                    "one is named {name:?}: write FileDescriptorName=http, unix or browser, or leave it out"
                ));
            }
        };
        if family == wants {
            Ok(purpose)
        } else {
            Err(format!(
                "the one named {name:?} is a {} socket: give it another name or another ListenStream=",
                match family {
                    Family::Tcp => "TCP",
                    Family::Unix => "Unix",
                }
            ))
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_socket_is_told_by_its_name_and_without_one_by_its_family() {
            use Family::{Tcp, Unix};
            for (name, family, is) in [
                ("http", Tcp, Purpose::Http),
                ("browser", Tcp, Purpose::Browser),
                ("unix", Unix, Purpose::Unix),
                ("phosphod.socket", Tcp, Purpose::Http),
                ("phosphod.socket", Unix, Purpose::Unix),
                ("unknown", Tcp, Purpose::Http),
                ("", Unix, Purpose::Unix),
            ] {
                assert_eq!(purpose(name, family), Ok(is), "{name}");
            }
            for (name, family, part) in [
                ("htp", Tcp, "named \"htp\""),
                ("http", Unix, "is a Unix socket"),
                ("browser", Unix, "is a Unix socket"),
                ("unix", Tcp, "is a TCP socket"),
            ] {
                let refused = purpose(name, family).expect_err(name);
                assert!(refused.contains(part), "{refused}");
            }
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
        Stopping(Duration),
    }

    pub(super) fn tell(state: State<'_>) {
        match state {
            State::Starting(status, more) => tracing::debug!(status, ?more, "starting"),
            State::Status(status) => tracing::debug!(status),
            State::Alive => {}
            State::Ready(status) => tracing::debug!(status, "ready"),
            State::Reloading => tracing::debug!("reloading"),
            State::Stopping(more) => tracing::debug!(?more, "stopping"),
        }
    }

    pub(super) fn watchdog() -> Option<Duration> {
        None
    }

    pub(super) fn inherited() -> io::Result<Inherited> {
        Ok(Inherited::default())
    }
}
