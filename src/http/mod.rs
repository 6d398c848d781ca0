//! Serving HTTP/1.1 on TCP and Unix sockets with limits on time, size and number.
//!
//! What is here knows nothing of events: [`serve`] accepts connections and watches over their time limits,
//! [`Router`] finds the route and checks who may call it, and the services behind it ([`Service`]) answer.
//! A connection to a Unix socket whose first byte is `{` is no HTTP: it is handed over whole ([`Lines`]).

mod activity;
mod body;
mod budget;
mod call;
mod connection;
mod crowd;
mod framing;
mod gate;
mod reply;
mod route;
mod router;
mod serve;
#[cfg(test)]
mod tests;
mod trouble;
mod work;

#[cfg(any(test, fuzzing))]
pub(crate) use framing::fuzzed;

pub use body::First;
pub use budget::{Budget, EVENT_BYTES, NoRoom, Reservation, SMALL_BYTES};
pub use call::Call;
pub use gate::{Gate, Peers, listed_origin};
pub use reply::{Refused, Reply, counted, detail, held, json, text, unavailable};
pub use route::{Guard, Route, Verb};
pub use router::{Router, Service};
pub use serve::serve;
pub use work::{LongWork, SHORT_BYTES};

use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;
use tokio::io::BufReader;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::watch;

/// A bound socket that connections come from.
#[derive(Debug)]
pub enum Listener {
    /// A TCP socket: the caller may be a web page, so Host and token are checked.
    Tcp(TcpListener),
    /// A Unix socket: its file mode says who may call. Speaks NDJSON as well.
    Unix(UnixListener),
}

/// What a request came in by, and from whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// From a [`Listener::Tcp`], by a client at this address.
    Tcp(IpAddr),
    /// From a [`Listener::Unix`], by a process of this user; `None` where the kernel does not say.
    Unix(Option<Peer>),
}

/// Whose process is at the other end of a Unix connection (SO_PEERCRED): as it was when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user.
    pub uid: u32,
    /// Its effective group; further groups of it are not known.
    pub gid: u32,
}

impl Peer {
    /// Asks the kernel.
    pub(crate) fn of(stream: &UnixStream) -> Option<Self> {
        let (uid, gid) = stream.peer_cred().map(|cred| (cred.uid(), cred.gid())).ok()?;
        Some(Self { uid, gid })
    }
}

/// Bounds of what one client can hold on to. The defaults are those of security.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of one listener at a time. For one that comes beyond, the one that rests longest is closed; if none does,
    /// it is answered 503 and closed. Default 4096.
    pub connections: usize,
    /// From the first byte of a request's head to its end. Default 5 s.
    pub header: Duration,
    /// How long a request's body may be waited for until its end or 1 MiB more of it comes; the same for one NDJSON line, to its
    /// end. Default 30 s.
    pub body: Duration,
    /// How long a request waits for room in the [`Budget`] before its body is read. Default 10 s.
    pub room: Duration,
    /// How long a connection may rest between requests, and how long a reply may find no reader. Default 75 s.
    pub idle: Duration,
    /// How long requests in progress may take to finish once the listener shuts down. Default 10 s.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            header: Duration::from_secs(5),
            body: Duration::from_secs(30),
            room: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            drain: Duration::from_secs(10),
        }
    }
}

/// Answers the requests of a listener.
pub trait Handler: Lines {
    /// Answers one request.
    fn handle(&self, call: Call) -> impl Future<Output = Reply> + Send;
}

/// Speaks NDJSON on connections to the Unix socket.
pub trait Lines: Send + Sync + 'static {
    /// Has the connection until either side ends it. Ends soon after `stop` is requested.
    fn lines(
        &self,
        stream: BufReader<UnixStream>,
        peer: Option<Peer>,
        limits: Limits,
        stop: Stop,
    ) -> impl Future<Output = ()> + Send;
}

/// Tells a connection that the listener shuts down.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// A stop, and the sender that requests it by `true` (or by being dropped).
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Resolves once the stop is requested; at once if it was already.
    pub async fn requested(&mut self) {
        // A sender that is gone has nothing more to keep open.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}
