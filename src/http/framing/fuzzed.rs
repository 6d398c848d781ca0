//! Holds [`Framing`] against hyper: what the one takes for a request's body is what the other hands on as that.
use super::super::activity::{Activity, Watched};
use super::{Framing, Place};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The first byte says in which pieces the rest arrives.
pub(crate) fn framing(data: &[u8]) {
    let Some((pick, bytes)) = data.split_first() else {
        return;
    };
    let piece = 1 + usize::from(*pick) * 3;
    let broken = broken_at(bytes, piece);
    assert_eq!(
        broken,
        broken_at(bytes, bytes.len().max(1)),
        "pieces make no difference"
    );
    let bodies = bodies(&bytes[..broken.unwrap_or(bytes.len())]);
    let served = served(bytes, piece);
    // hyper may end earlier, at what it does not take or at a last request.
    assert!(
        bodies.starts_with(&served),
        "{bodies:?} by framing, {served:?} by hyper"
    );
}

fn broken_at(bytes: &[u8], piece: usize) -> Option<usize> {
    let mut framing = Framing::new();
    for (n, piece_of) in bytes.chunks(piece).enumerate() {
        if let Some(at) = framing.follow(piece_of) {
            assert!(at < piece_of.len());
            return Some(n * piece + at);
        }
    }
    None
}

/// The bodies of all complete requests in bytes that break no rule.
fn bodies(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut framing, mut bodies, mut body) = (Framing::new(), Vec::new(), Vec::new());
    for byte in bytes {
        let before = framing.place;
        assert_eq!(framing.follow(&[*byte]), None);
        if matches!(before, Place::Body(_) | Place::ChunkData(_)) {
            body.push(*byte);
        }
        if before != Place::Start && framing.place == Place::Start {
            bodies.push(std::mem::take(&mut body));
        }
    }
    bodies
}

/// The bodies of the requests that hyper hands on, behind the same watch as in the daemon.
fn served(bytes: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let served = RefCell::new(Vec::new());
    let service = service_fn(|request: Request<Incoming>| async {
        if let Ok(body) = request.into_body().collect().await {
            served.borrow_mut().push(body.to_bytes().to_vec());
        }
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let socket = Socket {
        left: bytes.to_vec().into(),
        piece,
    };
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .half_close(true)
        .pipeline_flush(false)
        .serve_connection(TokioIo::new(Watched::new(socket, Activity::new())), service);
    // An error is what becomes of a request that breaks a rule.
    let _ended = at_once(connection);
    served.into_inner()
}

/// Gives bytes in pieces, and takes what is written.
struct Socket {
    left: Bytes,
    piece: usize,
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.piece.min(self.left.len()).min(buf.remaining());
        buf.put_slice(&self.left.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The value of a future that waits for nothing.
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for _ in 0..100_000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
    panic!("it waits for something");
}
