//! The accept loops: the API's, which can be closed and opened again, and the control plane's.

use super::book::Book;
use super::line::{Fate, Line};
use super::reply::Reply;
use super::switches::MAX_BODY_BYTES;
use super::{api, control};
use crate::http::Gate;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, ORIGIN};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Connections served at once on a listener; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4_096;
/// How long a connection may take for a request's head, idle time included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Pause after a failed accept or bind, so as not to spin.
const PAUSE: Duration = Duration::from_millis(20);

/// Serves the API on a listener that follows the `refuse` switch. Never ends; dropping it drops the connections.
pub(super) async fn serve_api(listener: TcpListener, addr: SocketAddr, book: Arc<Book>) {
    let mut connections = JoinSet::new();
    let mut listener = Some(listener);
    loop {
        match listener.take() {
            Some(open) => {
                tokio::select! {
                    biased;
                    () = book.refuse_differs(false) => drop(open),
                    () = accept(&open, &mut connections, &book, true) => listener = Some(open),
                }
            }
            None => {
                book.refuse_differs(true).await;
                match TcpListener::bind(addr).await {
                    Ok(open) => listener = Some(open),
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        }
        book.listening.send_replace(listener.is_some());
    }
}

/// Serves the control plane. Never ends; dropping it drops the connections.
pub(super) async fn serve_control(listener: TcpListener, book: Arc<Book>) {
    let mut connections = JoinSet::new();
    loop {
        accept(&listener, &mut connections, &book, false).await;
    }
}

async fn accept(listener: &TcpListener, connections: &mut JoinSet<()>, book: &Arc<Book>, api: bool) {
    while connections.try_join_next().is_some() {}
    if connections.len() >= MAX_CONNECTIONS {
        connections.join_next().await;
    }
    match listener.accept().await {
        Ok((stream, _)) if api && book.connection_meets_down() => drop(stream.set_zero_linger()),
        Ok((stream, _)) => {
            connections.spawn(connection(stream, book.clone(), api));
        }
        Err(_) => tokio::time::sleep(PAUSE).await,
    }
}

async fn connection(stream: TcpStream, book: Arc<Book>, api: bool) {
    let _ = stream.set_nodelay(true);
    let fate = Fate::new();
    let gate = gate_of(&stream);
    let line = TokioIo::new(Line::new(stream, fate.clone()));
    let service = service_fn(|request| {
        let (book, fate, gate) = (book.clone(), fate.clone(), gate.clone());
        async move { answer(request, &book, &fate, (api, &gate)).await }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(line, service)
        .await;
    if let Err(error) = served
        && error.is_parse()
    {
        book.surprise(format!("bytes that are not HTTP/1.1: {error}"));
    }
}

/// The names that this machine has for a connection: beside the usual ones the address at which it came in. A page whose
/// name is resolved to that address calls it by the name.
fn gate_of(stream: &TcpStream) -> Gate {
    let address = stream.local_addr().map(|address| match address.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    });
    Gate {
        hosts: address.into_iter().collect(),
        ..Gate::default()
    }
}

/// Answers one request; an error drops the connection without a reply.
async fn answer(
    request: Request<Incoming>,
    book: &Arc<Book>,
    fate: &Fate,
    (api, gate): (bool, &Gate),
) -> Result<Response<Full<Bytes>>, io::Error> {
    let (head, body) = request.into_parts();
    let for_control = control::owns(head.uri.path());
    if fate.is_sealed() || (api && book.with(|page| page.meets_down(for_control))) {
        fate.reset();
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    let limited = Limited::new(body, MAX_BODY_BYTES).collect().await;
    let body = match limited {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let reply = Reply::detail(413, "Request Entity Too Large");
            fate.cut_reply(reply.body.len());
            return Ok(response(reply));
        }
        Err(error) => return Err(io::Error::other(error)),
    };
    if for_control {
        if let Some(refusal) = refused_control(&head, gate) {
            return Ok(response(refusal));
        }
        return Ok(response(control::answer(book, &head, &body).await));
    }
    if !api {
        let text = "this is the sandbox's control listener: its routes begin with /sandbox/";
        return Ok(response(Reply::detail(404, text)));
    }
    api_answer(book, fate, &head, &body).await
}

/// The answer to a request for the control plane that a web page may have sent: one that does not name this machine, or
/// that bears an `Origin`. The plane shows what was logged, and changes how the API behaves.
fn refused_control(head: &Parts, gate: &Gate) -> Option<Reply> {
    if let Err(refusal) = gate.check_names(&head.uri, &head.headers) {
        let text =
            "the control plane is for this machine: call 127.0.0.1, localhost or [::1], with one Host header";
        return Some(Reply::detail(refusal.status().as_u16(), text));
    }
    let text = "the control plane is not for web pages: call it without an Origin header";
    head.headers
        .contains_key(ORIGIN)
        .then(|| Reply::detail(403, text))
}

/// Answers an API request as the switches have it.
async fn api_answer(
    book: &Arc<Book>,
    fate: &Fate,
    head: &Parts,
    body: &Bytes,
) -> Result<Response<Full<Bytes>>, io::Error> {
    let faults = book.with(|page| {
        page.store.state.requests += 1;
        page.switches.take(api::kind(head))
    });
    if faults.delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(faults.delay_ms)).await;
    }
    let reply = if faults.garbage {
        Reply::detail(500, "garbage")
    } else if let Some((status, detail)) = &faults.status {
        let reply = Reply::detail(*status, detail);
        match &faults.retry_after {
            Some(after) => reply.with(hyper::header::RETRY_AFTER, after),
            None => reply,
        }
    } else {
        api::answer(book, head, body).await
    };
    if reply.status.as_u16() >= 400 {
        book.with(|page| page.store.state.failed_requests += 1);
    }
    if faults.drop_reply {
        fate.reset();
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    let body_bytes = reply.body.len();
    if faults.garbage {
        fate.garble_reply(body_bytes);
    } else if faults.truncate_reply {
        fate.cut_reply(body_bytes / 2);
    } else if faults.close_after_reply || reply.then_drop {
        fate.drop_after_reply(body_bytes);
    }
    Ok(response(reply))
}

fn response(reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some((name, value)) = reply.header {
        response.headers_mut().insert(name, value);
    }
    response
}
