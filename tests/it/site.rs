//! What a browser meets: headless Chromium, the web server that gives it a page, and where the page says what it saw.

use crate::support::PATIENCE;
use crate::support::skip::tool;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::Child;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A name of the attacker's, which the browser finds at 127.0.0.1.
pub(crate) const EVIL: &str = "evil.example";

/// A web server with one page, `/page`. Behind all other paths is what `behind` names, byte for byte: so a name looks that pointed to
/// the attacker's server when the page was loaded, and points to this machine now.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Site {
    pub(crate) async fn start(page: &'static str, behind: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let behind = behind.map(|url| url.trim_start_matches("http://").to_owned());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                tokio::spawn(visited(stream, page, behind.clone()));
            }
        });
        Self { address, task }
    }

    /// The origin of its page.
    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection. A browser may open some and send nothing.
async fn visited(mut stream: TcpStream, page: &str, behind: Option<String>) {
    let Some((head, _)) = head(&mut stream).await else {
        return;
    };
    if head.starts_with(b"GET /page ") {
        let _ = stream.write_all(reply("text/html", page).as_bytes()).await;
        return;
    }
    let Some(behind) = behind.filter(|_| !head.starts_with(b"GET /favicon.ico ")) else {
        let _ = stream.write_all(reply("text/plain", "nothing").as_bytes()).await;
        return;
    };
    let mut daemon = TcpStream::connect(behind).await.expect("the daemon listens");
    let _ = daemon.write_all(&head).await;
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut daemon).await;
}

fn reply(kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// What came up to the end of a head at least, and where that is.
async fn head(stream: &mut TcpStream) -> Option<(Vec<u8>, usize)> {
    let mut came = Vec::new();
    loop {
        if stream.read_buf(&mut came).await.ok()? == 0 {
            return None;
        }
        if let Some(end) = memchr::memmem::find(&came, b"\r\n\r\n") {
            return Some((came, end + 4));
        }
    }
}

/// Where a page says what it saw.
struct Reports {
    url: String,
    came: mpsc::Receiver<Value>,
    task: JoinHandle<()>,
}

impl Reports {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/report", listener.local_addr().expect("bound"));
        let (sender, came) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                tokio::spawn(reported(stream, sender.clone()));
            }
        });
        Self { url, came, task }
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn reported(mut stream: TcpStream, sender: mpsc::Sender<Value>) {
    let Some((mut came, body)) = head(&mut stream).await else {
        return;
    };
    let text = String::from_utf8_lossy(&came[..body]).to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    while came.len() < body + length {
        if stream.read_buf(&mut came).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let _ = stream.write_all(reply("text/plain", "noted").as_bytes()).await;
    if let Ok(report) = serde_json::from_slice(&came[body..]) {
        let _ = sender.send(report).await;
    }
}

/// Headless Chromium with a fresh profile; gone with all its processes when dropped.
struct Browser {
    child: Child,
    profile: tempfile::TempDir,
}

impl Browser {
    fn open(url: &str) -> Self {
        let profile = tempfile::tempdir().expect("a temp folder");
        let log = std::fs::File::create(profile.path().join("log")).expect("a log");
        let mut command = tool("chromium");
        command
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"])
            .args([
                "--no-first-run",
                "--disable-background-networking",
                "--disable-sync",
            ])
            .args(["--disable-component-update", "--disable-dev-shm-usage"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("--host-resolver-rules=MAP {EVIL} 127.0.0.1"))
            .arg(url)
            .env("HOME", profile.path())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .process_group(0);
        let child = command.spawn().expect("chromium starts");
        Self { child, profile }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.profile.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Opens the page of a site under a host's name, told to turn to `target`, and gives what it saw.
pub(crate) async fn visit(site: &Site, host: &str, target: &str) -> Value {
    let mut reports = Reports::start().await;
    let told = json!({"target": target, "report": reports.url}).to_string();
    let told = utf8_percent_encode(&told, NON_ALPHANUMERIC);
    let browser = Browser::open(&format!("http://{host}:{}/page#{told}", site.address.port()));
    match tokio::time::timeout(PATIENCE, reports.came.recv()).await {
        Ok(Some(saw)) => saw,
        _ => panic!("the page reported nothing; chromium said:\n{}", browser.said()),
    }
}
