//! Accepting connections and seeing them off.

use super::activity::Activity;
use super::crowd::{Crowd, Room};
use super::trouble::{Trouble, Troubles};
use super::{Handler, Limits, Listener, Stop, Transport, connection};
use crate::board::Notice;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::sleep;

/// Pause after an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a connection beyond the limit is told. It has no body to speak of, so that it fits any socket's buffer.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n\
Connection: close\r\nContent-Length: 93\r\n\r\n\
{\"detail\":\"too many connections are open: close idle ones, or send again in a second or two\"}";

enum Stream {
    Tcp(TcpStream, IpAddr),
    Unix(UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                // A reply is one write; waiting for company would only delay it.
                stream.set_nodelay(true)?;
                // A socket of both families names clients of the old one by new addresses.
                Ok(Stream::Tcp(stream, from.ip().to_canonical()))
            }
            Listener::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

/// Serves a listener until `shutdown` resolves, and says on `notice` what it has trouble with. Then it accepts no more, closes idle
/// connections, lets requests in progress, and of clients that have just connected, finish for up to [`Limits::drain`], and returns; no
/// task outlives it.
///
/// Several listeners share a [`Router`](super::Router) by calls of this beside each other; `tests/door.rs` has an example.
pub async fn serve<H: Handler>(
    listener: Listener,
    handler: Arc<H>,
    limits: Limits,
    notice: Notice,
    shutdown: impl Future<Output = ()> + Send,
) {
    let mut shutdown = pin!(shutdown);
    let (stopper, stop) = Stop::new();
    let mut crowd = Crowd::new(limits.connections);
    let mut troubles = Troubles::new(notice);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(()) = crowd.ended() => continue,
            () = troubles.passed() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                troubles.met(&Trouble::Unaccepted(error));
                tokio::select! {
                    () = &mut shutdown => break,
                    () = sleep(ACCEPT_PAUSE) => continue,
                }
            }
        };
        match crowd.make_room().await {
            Room::Free => {}
            Room::Made => troubles.met(&Trouble::Crowded(limits.connections)),
            Room::None => {
                troubles.met(&Trouble::Full(limits.connections));
                turn_away(stream);
                continue;
            }
        }
        let (handler, stop, activity) = (handler.clone(), stop.clone(), Activity::new());
        match stream {
            Stream::Tcp(stream, from) => {
                let from = Transport::Tcp(from);
                let serving = connection::http(stream, from, handler, limits, activity.clone(), stop);
                crowd.admit(activity, serving);
            }
            Stream::Unix(stream) => {
                let serving = connection::unix(stream, handler, limits, activity.clone(), stop);
                crowd.admit(activity, serving);
            }
        }
    }
    drop(listener);
    // Every connection holds a receiver, or has ended and needs no word.
    let _ = stopper.send(true);
    let left = crowd.drain(limits.drain).await;
    if left > 0 {
        tracing::warn!(
            connections = left,
            "requests did not finish in time and were cut off"
        );
    }
}

/// Faults of the connection that was about to be accepted; the next one may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, InvalidInput};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted | InvalidInput
    )
}

/// Best effort: a client that cannot take it sees the connection close.
fn turn_away(stream: Stream) {
    use io::Write;
    // Past the runtime, which would first have to learn that the new socket can be written to; it does not block.
    let _ = match stream {
        Stream::Tcp(stream, _) => stream.into_std().and_then(|mut stream| stream.write(FULL)),
        Stream::Unix(stream) => stream.into_std().and_then(|mut stream| stream.write(FULL)),
    };
}
