//! A sandbox with an HTTP client before it.

use crate::address::own_host;
use phosphod::sandbox::{Sandbox, Settings, start};
use serde_json::{Value, json};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest wait for what must happen.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// A sandbox and a client with a key.
pub(crate) struct Bench {
    pub(crate) sandbox: Sandbox,
    pub(crate) client: reqwest::Client,
}

/// A client that keeps so many idle connections: with none, no request meets a connection that was dropped.
pub(crate) fn client(idle: usize) -> reqwest::Client {
    let builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none());
    builder
        .pool_max_idle_per_host(idle)
        .timeout(LONG)
        .build()
        .expect("a client")
}

/// Headers of a request.
pub(crate) type Headers<'a> = &'a [(&'a str, &'a str)];

/// Status and body of a reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {self:?}"))
    }
}

impl Bench {
    pub(crate) async fn new() -> Self {
        // Its port can be closed and opened again.
        let settings = Settings {
            listen: (own_host(), 0).into(),
            ..Settings::default()
        };
        let sandbox = start(settings).await.expect("free ports");
        Self {
            sandbox,
            client: client(0),
        }
    }

    pub(crate) async fn with(switches: Value) -> Self {
        let bench = Self::new().await;
        bench.switch(switches).await;
        bench
    }

    pub(crate) async fn switch(&self, switches: Value) {
        self.sandbox.switch(switches).await.expect("good switches");
    }

    /// A request with these headers; `Authorization` and `Content-Type` only where they are named.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: Headers<'_>,
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        self.try_send(method, path, headers, body.into())
            .await
            .expect("a reply")
    }

    pub(crate) async fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: Headers<'_>,
        body: Vec<u8>,
    ) -> reqwest::Result<Answer> {
        let host = if path.starts_with("/sandbox/") {
            self.sandbox.control_addr()
        } else {
            self.sandbox.addr()
        };
        let method = method.parse().expect("a method");
        let mut request = self
            .client
            .request(method, format!("http://{host}{path}"))
            .body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let reply = request.send().await?;
        Ok(Answer {
            status: reply.status().as_u16(),
            body: reply.text().await?,
        })
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.send("POST", path, &[KEY, JSON], body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[KEY], "").await
    }

    /// Logs events, each as JSON text, to project `p`.
    pub(crate) async fn log(&self, events: &[&str]) -> Answer {
        self.post("/v2/log/p", batch(events)).await
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.sandbox
            .tasks(None)
            .into_iter()
            .map(|task| task.task_id)
            .collect()
    }
}

pub(crate) const KEY: (&str, &str) = ("authorization", "Bearer sk-test");
pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");

/// The body of a log request.
pub(crate) fn batch(events: &[&str]) -> String {
    format!("{{\"batched_log_events\":[{}]}}", events.join(","))
}

/// An event with a task id and nothing else but its input.
pub(crate) fn event(id: &str) -> String {
    json!({"task_id": id, "input": "hello"}).to_string()
}

/// One keep-alive connection, to see how it ends.
pub(crate) struct Wire(TcpStream);

impl Wire {
    pub(crate) async fn open(bench: &Bench) -> io::Result<Self> {
        TcpStream::connect(bench.sandbox.addr()).await.map(Self)
    }

    /// Sends a log request and reads the reply's head and the body as far as it comes.
    pub(crate) async fn log(&mut self, body: &str) -> io::Result<String> {
        let head =
            "POST /v2/log/p HTTP/1.1\r\nhost: h\r\nauthorization: Bearer k\r\ncontent-type: application/json";
        self.write(format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes())
            .await?;
        self.reply().await
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }

    /// Reads until the reply is whole by its Content-Length.
    pub(crate) async fn reply(&mut self) -> io::Result<String> {
        let mut got = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&got);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "));
                if body.len() >= length.expect("a length").parse().expect("a number") {
                    return Ok(text.into_owned());
                }
            }
            if self.0.read_buf(&mut got).await? == 0 {
                let what = String::from_utf8_lossy(&got).into_owned();
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
            }
        }
    }

    /// Reads to the end.
    pub(crate) async fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut got = Vec::new();
        self.0.read_to_end(&mut got).await.map(|_| got)
    }
}
