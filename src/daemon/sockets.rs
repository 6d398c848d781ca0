//! The listening sockets: those that systemd handed over, else those that the configuration names.

use super::DaemonError;
use super::bind::{self, OwnedSocket};
use crate::{config, notify};
use std::io;
use tokio::net::{TcpListener, UnixListener};

/// What the daemon listens on.
pub(super) struct Sockets {
    pub(super) http: Option<TcpListener>,
    pub(super) unix: Option<UnixListener>,
    /// For web pages.
    pub(super) browser: Option<TcpListener>,
    /// The Unix socket's file, where it was made here.
    pub(super) owned: Option<OwnedSocket>,
}

impl Sockets {
    /// What systemd handed over. `http` and `unix` are only opened here where it handed over neither.
    pub(super) fn open(settings: &config::IntakeSettings) -> Result<Self, DaemonError> {
        let inherited = notify::inherited().map_err(DaemonError::Inherited)?;
        let held = inherited.http.is_some() || inherited.unix.is_some();
        let browser = match (inherited.browser, &settings.browser) {
            (Some(listener), Some(_)) => Some(taken(listener, settings)?),
            (Some(_), None) => return Err(unwanted_browser()),
            (None, Some(browser)) => Some(bind::tcp(browser.listen, "intake.browser.listen")?),
            (None, None) => None,
        };
        if held {
            let http = inherited.http.map(|listener| taken(listener, settings));
            let unix = inherited.unix.map(UnixListener::from_std).transpose();
            return Ok(Self {
                http: http.transpose()?,
                unix: unix.map_err(DaemonError::Inherited)?,
                browser,
                owned: None,
            });
        }
        let http = settings
            .http
            .map(|address| bind::tcp(address, "intake.http"))
            .transpose()?;
        let unix = settings.unix.as_deref();
        let unix = unix
            .map(|path| bind::unix(path, settings.unix_mode, settings.unix_group))
            .transpose()?;
        let (unix, owned) = unix.unzip();
        Ok(Self {
            http,
            unix,
            browser,
            owned,
        })
    }

    pub(super) fn names(&self) -> Names {
        let address = |listener: &TcpListener| Some(listener.local_addr().ok()?.to_string());
        let unix = self.unix.as_ref().and_then(|unix| unix.local_addr().ok());
        Names {
            http: self.http.as_ref().and_then(address),
            browser: self.browser.as_ref().and_then(address),
            unix: unix.and_then(|address| Some(address.as_pathname()?.display().to_string())),
        }
    }
}

/// A TCP socket that was handed over. What the configuration would have to allow, it has to allow here as well.
fn taken(
    listener: std::net::TcpListener,
    settings: &config::IntakeSettings,
) -> Result<TcpListener, DaemonError> {
    let address = listener.local_addr().map_err(DaemonError::Inherited)?;
    if !address.ip().is_loopback() && !settings.remote {
        let sentence = format!(
            "{address} can be reached from other machines: set intake.token_file and write intake.allow_remote = true, or \
             write ListenStream=127.0.0.1:{}",
            address.port()
        );
        return Err(refused(sentence));
    }
    TcpListener::from_std(listener).map_err(DaemonError::Inherited)
}

fn unwanted_browser() -> DaemonError {
    refused(
        "there is one named browser, but [intake.browser] is off: set intake.browser.listen and origins, or stop its socket unit"
            .to_owned(),
    )
}

fn refused(sentence: String) -> DaemonError {
    DaemonError::Inherited(io::Error::new(io::ErrorKind::InvalidInput, sentence))
}

/// Where the daemon listens, for people.
pub(super) struct Names {
    http: Option<String>,
    browser: Option<String>,
    unix: Option<String>,
}

impl Names {
    pub(super) fn announce(&self, settings: &config::Settings) {
        tracing::info!(
            http = self.http.as_deref().unwrap_or("off"),
            unix = self.unix.as_deref().unwrap_or("off"),
            browser = self.browser.as_deref(),
            data = %settings.spool.path.display(),
            upstream = settings.upstream.base_url,
            "accepting"
        );
        if settings.upstream.proxy.is_some() && settings.upstream.is_local() {
            tracing::warn!(
                "upstream.proxy is not used: upstream.base_url is on this machine, and so stays the key"
            );
        }
    }
}

impl std::fmt::Display for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = [&self.http, &self.unix, &self.browser]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        f.write_str(&names.join(" and "))
    }
}
