//! One connection, from its first byte to its end.

use super::activity::{Activity, Watched};
use super::{Call, Handler, Limits, Peer, Stop, Transport};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until, timeout};

/// Longest request head, in bytes: room for generous headers, none for an attack on memory.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Most that hyper buffers of a connection, each way. Outside the budget, because idle connections have it too.
const MAX_BUFFER_BYTES: usize = 128 * 1024;

/// How long a connection that was told to stop may take to its first byte, from when it was accepted: who has just connected is about to
/// send, and would take the end of it for a refusal.
const FIRST_BYTE: Duration = Duration::from_secs(2);

/// A connection to the Unix socket: its first byte tells NDJSON from HTTP, behind empty lines that end with CRLF, as both may begin.
pub(super) async fn unix<H: Handler>(
    stream: UnixStream,
    handler: Arc<H>,
    limits: Limits,
    activity: Arc<Activity>,
    mut stop: Stop,
) {
    let peer = Peer::of(&stream);
    let mut stream = BufReader::new(stream);
    let first_byte_by = Instant::now() + FIRST_BYTE;
    let given_up = async {
        stop.requested().await;
        sleep_until(first_byte_by).await;
    };
    let first = tokio::select! {
        biased;
        first = timeout(limits.idle, speaks_lines(&mut stream)) => first,
        () = given_up => return,
        () = activity.asked_to_leave() => return,
    };
    match first {
        Ok(Ok(Some(true))) => {
            // It has limits of its own, and leaves for nobody.
            activity.request_began();
            handler.lines(stream, peer, limits, stop).await;
        }
        Ok(Ok(Some(false))) => http(stream, Transport::Unix(peer), handler, limits, activity, stop).await,
        // Closed, broken or silent.
        _ => {}
    }
}

/// Whether what comes is NDJSON; `None` at the end. No request begins with a brace, a blank, a bare newline, or a byte order mark.
async fn speaks_lines(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<bool>> {
    let mut after_cr = false;
    loop {
        match *stream.fill_buf().await? {
            [] => return Ok(None),
            [b'\r', ..] if !after_cr => after_cr = true,
            [b'\n', ..] if after_cr => after_cr = false,
            [first, ..] => {
                return Ok(Some(
                    after_cr || matches!(first, b'{' | b' ' | b'\t' | b'\n' | 0xef),
                ));
            }
        }
        stream.consume(1);
    }
}

/// A connection that speaks HTTP/1.1. Returns when it is closed, had its time, or was told to stop or leave and has
/// answered what was in progress.
pub(super) async fn http<S, H>(
    stream: S,
    transport: Transport,
    handler: Arc<H>,
    limits: Limits,
    activity: Arc<Activity>,
    stop: Stop,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let service = {
        let activity = activity.clone();
        service_fn(move |request| {
            let (handler, activity) = (handler.clone(), activity.clone());
            activity.request_began();
            async move {
                activity.taken().await;
                let call = Call::new(request, transport, limits, activity.clone());
                let reply = handler.handle(call).await;
                activity.request_ended();
                Ok::<_, Infallible>(reply)
            }
        })
    };
    let io = TokioIo::new(Watched::new(stream, activity.clone()));
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            // Ours knows idle from half-sent; see `activity`.
            .header_read_timeout(None)
            // A client may close its sending half and wait for the reply.
            .half_close(true)
            // With it, hyper keeps replies back while anything of a next request is buffered, and loses the last reply
            // of a connection that closes in between.
            .pipeline_flush(false)
            .max_header_size(MAX_HEAD_BYTES)
            .max_buf_size(MAX_BUFFER_BYTES)
            .serve_connection(io, service)
    );
    let mut watcher = pin!(watch(&activity, &limits));
    let mut stop_requested = pin!(async {
        let mut stop = stop;
        tokio::select! {
            () = stop.requested() => {}
            () = activity.asked_to_leave() => {}
        }
    });
    let mut first_byte = pin!(sleep_until(Instant::now() + FIRST_BYTE));
    let (mut stopping, mut told) = (false, false);
    poll_fn(|cx| {
        loop {
            stopping = stopping || stop_requested.as_mut().poll(cx).is_ready();
            // hyper would close a connection that has shown nothing yet at once.
            if stopping && !told && (!activity.is_fresh() || first_byte.as_mut().poll(cx).is_ready()) {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                }
                return Poll::Ready(());
            }
            if stopping && !told && !activity.is_fresh() {
                // It has begun just now.
                continue;
            }
            // After the connection, because what that just did moves the deadline.
            return watcher.as_mut().poll(cx);
        }
    })
    .await;
}

/// Resolves when the connection has outstayed the limit of what it is doing. Polled after each poll of the
/// connection, so it sees every change of deadline; the timer itself is only moved when it must fire earlier.
async fn watch(activity: &Activity, limits: &Limits) {
    let mut timer = pin!(sleep_until(Instant::now() + limits.idle));
    let mut fired = false;
    poll_fn(|cx: &mut Context<'_>| {
        loop {
            let Some(deadline) = activity.deadline(limits) else {
                return Poll::Pending;
            };
            if fired || deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
                fired = false;
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            fired = true;
            if Instant::now() >= deadline {
                tracing::debug!("a connection had its time");
                return Poll::Ready(());
            }
        }
    })
    .await;
}
