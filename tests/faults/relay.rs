//! A raw server between the daemon and the sandbox, which breaks the wire as a script says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What is done to a request.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Nothing: it goes to the sandbox, and the reply comes back.
    None,
    /// It is never read, and the connection stays open.
    HalfOpen,
    /// It arrives, and its reply never comes.
    Silent,
    /// It arrives, and its reply comes a byte every 50 ms.
    Slow,
    /// The connection is reset before it is read.
    ResetBefore,
    /// It arrives, and the connection is reset in place of the reply.
    ResetAfter,
    /// It arrives, and half of the reply comes.
    Truncated,
    /// It arrives, and bytes that are not HTTP come in place of the reply.
    Garbage,
    /// It arrives, the reply comes, and then the connection closes, which no header says.
    CloseAfterReply,
    /// It does not arrive, and this comes in place of the reply.
    Answer(String),
}

/// When a request came, and its first line.
pub(crate) type Seen = (Instant, String);

/// A running relay.
pub(crate) struct Relay {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

/// What is to be done to the request of a number, counted from 0.
type Script = Arc<dyn Fn(usize) -> Fault + Send + Sync>;

impl Relay {
    /// Starts one in front of `upstream` (`http://HOST:PORT`).
    pub(crate) async fn start(
        upstream: &str,
        script: impl Fn(usize) -> Fault + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let upstream = upstream.trim_start_matches("http://").to_owned();
        let seen = Arc::default();
        let task = tokio::spawn(serve(listener, upstream, Arc::new(script), Arc::clone(&seen)));
        Self { address, seen, task }
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A reply with this status, further header lines and a body.
pub(crate) fn reply(status: &str, headers: &str, body: &str) -> Fault {
    Fault::Answer(format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

async fn serve(listener: TcpListener, upstream: String, script: Script, seen: Arc<Mutex<Vec<Seen>>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (upstream, script, seen) = (upstream.clone(), script.clone(), seen.clone());
        // A connection that breaks is no matter here: the daemon is asked what it made of it.
        connections.spawn(async move { drop(connection(stream, &upstream, &script, &seen).await) });
    }
}

async fn connection(
    mut stream: TcpStream,
    upstream: &str,
    script: &Script,
    seen: &Mutex<Vec<Seen>>,
) -> std::io::Result<()> {
    loop {
        // The fault is chosen by the request's number, which it gets when its first bytes are there.
        let mut first = [0; 64];
        let count = stream.peek(&mut first).await?;
        if count == 0 {
            return Ok(());
        }
        let line = String::from_utf8_lossy(&first[..count])
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        let number = {
            let mut seen = seen.lock().expect("no panic");
            seen.push((Instant::now(), line));
            seen.len() - 1
        };
        let fault = script(number);
        match &fault {
            Fault::HalfOpen => std::future::pending::<()>().await,
            Fault::ResetBefore => return stream.set_zero_linger(),
            _ => {}
        }
        let request = message(&mut stream).await?;
        if let Fault::Answer(reply) = fault {
            stream.write_all(reply.as_bytes()).await?;
            continue;
        }
        let mut api = TcpStream::connect(upstream).await?;
        api.write_all(&request).await?;
        let reply = message(&mut api).await?;
        match fault {
            Fault::Silent => std::future::pending::<()>().await,
            Fault::Slow => {
                for byte in &reply {
                    stream.write_all(&[*byte]).await?;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            Fault::ResetAfter => return stream.set_zero_linger(),
            Fault::Truncated => return stream.write_all(&reply[..reply.len() / 2]).await,
            Fault::Garbage => return stream.write_all(b"\x16\x03\x01 not HTTP at all\r\n\r\n").await,
            Fault::CloseAfterReply => return stream.write_all(&reply).await,
            _ => stream.write_all(&reply).await?,
        }
    }
}

/// A whole HTTP message: head, and a body as long as its Content-Length says.
async fn message(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(0, |length| length.trim().parse().expect("a number"));
            let whole = end + 4 + length;
            let have = bytes.len();
            bytes.resize(whole.max(have), 0);
            stream.read_exact(&mut bytes[have..]).await?;
            return Ok(bytes);
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}
