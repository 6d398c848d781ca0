//! Accepting connections and seeing them off.

use super::{Handler, Limits, Listener, Stop, Transport, connection};
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

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

/// Serves a listener until `shutdown` resolves. Then it accepts no more, closes idle connections, lets requests
/// in progress, and of clients that have just connected, finish for up to [`Limits::drain`], and returns; no task outlives it.
///
/// ```no_run
/// # use phosphod::{admin::Admin, http::{self, Gate, Limits, Listener, Router}, intake::Intake, metrics::Metrics};
/// # use std::sync::Arc;
/// # async fn daemon(intake: Arc<Intake>, admin: Arc<Admin>, metrics: Arc<Metrics>,
/// #     tcp: tokio::net::TcpListener, unix: tokio::net::UnixListener, stop: tokio::sync::watch::Receiver<bool>) {
/// let gate = intake.gate();
/// let router = Arc::new(Router::new(intake, admin, gate, metrics));
/// let stopped = |mut stop: tokio::sync::watch::Receiver<bool>| async move {
///     let _ = stop.wait_for(|stop| *stop).await;
/// };
/// tokio::join!(
///     http::serve(Listener::Tcp(tcp), router.clone(), Limits::default(), stopped(stop.clone())),
///     http::serve(Listener::Unix(unix), router, Limits::default(), stopped(stop)),
/// );
/// # }
/// ```
pub async fn serve<H: Handler>(
    listener: Listener,
    handler: Arc<H>,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send,
) {
    let mut shutdown = pin!(shutdown);
    let (stopper, stop) = Stop::new();
    let mut connections = JoinSet::new();
    let mut troubled = false;
    let mut crowded = false;
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                report(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                if !troubled {
                    tracing::warn!(%error, "cannot accept connections: raise the limit on open files (LimitNOFILE)");
                }
                troubled = true;
                tokio::select! {
                    () = &mut shutdown => break,
                    () = sleep(ACCEPT_PAUSE) => continue,
                }
            }
        };
        if std::mem::take(&mut troubled) {
            tracing::info!("connections are accepted again");
        }
        if connections.len() >= limits.connections {
            if !crowded {
                tracing::warn!(
                    limit = limits.connections,
                    "too many connections: new ones are answered 503"
                );
            }
            crowded = true;
            turn_away(stream);
            continue;
        }
        // With some distance, so that it is not told again and again at the limit.
        if crowded && connections.len() < limits.connections - limits.connections / 8 {
            crowded = false;
            tracing::info!("there is room for connections again");
        }
        let (handler, stop) = (handler.clone(), stop.clone());
        match stream {
            Stream::Tcp(stream, from) => {
                connections.spawn(connection::http(
                    stream,
                    Transport::Tcp(from),
                    handler,
                    limits,
                    stop,
                ));
            }
            Stream::Unix(stream) => {
                connections.spawn(connection::unix(stream, handler, limits, stop));
            }
        }
    }
    drop(listener);
    // Every connection holds a receiver, or has ended and needs no word.
    let _ = stopper.send(true);
    let drained = timeout(limits.drain, async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    });
    if drained.await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "requests did not finish in time and were cut off"
        );
        connections.shutdown().await;
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

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked; please report this");
    }
}
