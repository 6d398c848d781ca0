//! Plain clients: HTTP over TCP and Unix sockets, NDJSON, raw bytes.

use serde_json::Value;
use std::path::Path;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

/// An HTTP reply.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e} in the reply {}", String::from_utf8_lossy(&self.body)))
    }

    /// The sentence of an error reply.
    pub(crate) fn detail(&self) -> String {
        self.json()["detail"]
            .as_str()
            .unwrap_or_else(|| panic!("no detail in {self:?}"))
            .to_owned()
    }
}

/// A client over the Unix socket at `path`.
pub(crate) fn unix(path: &Path) -> reqwest::Client {
    reqwest::Client::builder()
        .unix_socket(path.to_owned())
        .build()
        .expect("a client")
}

/// POSTs a JSON body.
pub(crate) async fn post(client: &reqwest::Client, url: &str, body: impl Into<reqwest::Body>) -> Reply {
    send(
        client
            .post(url)
            .header("content-type", "application/json")
            .body(body),
    )
    .await
}

/// Sends a request and reads the whole reply.
pub(crate) async fn send(request: reqwest::RequestBuilder) -> Reply {
    let reply = request.send().await.expect("a reply");
    Reply {
        status: reply.status().as_u16(),
        headers: reply.headers().clone(),
        body: reply.bytes().await.expect("a whole body").to_vec(),
    }
}

/// A batch body out of events, byte for byte.
pub(crate) fn batch<S: AsRef<str>>(events: &[S]) -> String {
    let events: Vec<&str> = events.iter().map(AsRef::as_ref).collect();
    format!("{{\"batched_log_events\":[{}]}}", events.join(","))
}

/// Writes bytes to a TCP connection, closes the sending half and reads to the end.
pub(crate) async fn raw_tcp(url: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://"))
        .await
        .expect("it listens");
    stream.write_all(bytes).await.expect("it reads");
    stream.shutdown().await.expect("half closed");
    let mut reply = Vec::new();
    stream
        .read_to_end(&mut reply)
        .await
        .expect("it answers and closes");
    String::from_utf8_lossy(&reply).into_owned()
}

/// An NDJSON connection.
pub(crate) struct Lines(BufReader<UnixStream>);

impl Lines {
    /// Connects to the Unix socket.
    pub(crate) async fn connect(path: &Path) -> Self {
        Self(BufReader::new(
            UnixStream::connect(path).await.expect("it listens"),
        ))
    }

    /// Writes raw bytes.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).await.expect("it reads");
    }

    /// Reads one answer.
    pub(crate) async fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).await.expect("it answers");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e} in the answer {line:?}"))
    }

    /// Writes one line and reads its answer.
    pub(crate) async fn ask(&mut self, line: &str) -> Value {
        self.write(line.as_bytes()).await;
        self.write(b"\n").await;
        self.answer().await
    }
}
