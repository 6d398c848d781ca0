//! Intake, end to end: the real binary on a disk, plain HTTP clients, and the sandbox as upstream.
//!
//! `cargo bench --bench intake [SECONDS]`: events a second and latency for one and for a hundred events a request, each
//! answered only when it is on disk, how many the sandbox had stored by the end of the load, and the daemon's peak memory.
//! Figures of one run are comparable with each other only; the load generator and the sandbox share the machine. With
//! `PHOSPHOD_PEER=PATH`, another build's binary, each load is put on both in turn, the peer first.

use phosphod::sandbox;
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Requests that each client sends in turn.
const DIFFERENT: usize = 32;
/// Connections and events a request of each run.
const RUNS: [(usize, usize); 6] = [(16, 1), (64, 1), (256, 1), (1, 100), (16, 100), (64, 100)];

fn main() -> Result<(), Failure> {
    let seconds = std::env::args()
        .skip(1)
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(5);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let peer = std::env::var("PHOSPHOD_PEER").ok();
    println!("         conns  events/request     events/s   p50 ms   p99 ms   stored/s by the end   RSS MiB");
    for (connections, events) in RUNS {
        for (name, binary) in [
            ("peer", peer.as_deref()),
            ("", Some(env!("CARGO_BIN_EXE_phosphod"))),
        ] {
            if let Some(binary) = binary {
                print!("{name:<8}");
                runtime.block_on(run(binary, connections, events, Duration::from_secs(seconds)))?;
            }
        }
    }
    Ok(())
}

/// A daemon that ends with the value.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn run(binary: &str, connections: usize, events: usize, length: Duration) -> Result<(), Failure> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let upstream = sandbox::start(sandbox::Settings::default()).await?;
    upstream.switch(json!({"keep_raw": false})).await?;
    let (daemon, address) = start(binary, folder.path(), &upstream.base_url())?;
    let mut random = fastrand::Rng::with_seed(1);
    let requests: Vec<Arc<str>> = (0..DIFFERENT)
        .map(|_| request(&mut random, events).into())
        .collect();
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        clients.spawn(client(address.clone(), requests.clone(), begun + length));
    }
    let mut latencies = Vec::new();
    while let Some(ended) = clients.join_next().await {
        latencies.extend(ended??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let stored = upstream.state().stored;
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{connections:>5}  {events:>14}  {:>11.0}  {:>7.2}  {:>7.2}  {:>20.0}  {:>8.0}",
        (latencies.len() * events) as f64 / seconds,
        at(0.5),
        at(0.99),
        stored as f64 / seconds,
        peak_mib(&daemon)?,
    );
    Ok(())
}

/// The most memory that the daemon ever had resident.
fn peak_mib(daemon: &Daemon) -> Result<f64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.0.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: f64 = line.ok_or("no VmHWM")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

/// Starts the daemon and reads its address from its log.
fn start(binary: &str, folder: &std::path::Path, upstream: &str) -> Result<(Daemon, String), Failure> {
    let mut command = Command::new(binary);
    command
        .arg("run")
        .env_clear()
        .current_dir(folder)
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    for pair in [
        "intake.http=127.0.0.1:0",
        "intake.unix=",
        "spool.path=data",
        "upstream.api_key=bench",
        "log.format=json",
        &format!("upstream.base_url={upstream}"),
    ] {
        command.args(["--set", pair]);
    }
    let mut child = command.spawn()?;
    let stderr = child.stderr.take().ok_or("no stderr")?;
    let daemon = Daemon(child);
    let mut lines = BufReader::new(stderr).lines();
    for line in lines.by_ref() {
        let line: serde_json::Value = serde_json::from_str(&line?)?;
        if line["message"] == "accepting" {
            let address = line["http"].as_str().ok_or("no address")?.to_owned();
            std::thread::spawn(move || lines.for_each(drop));
            return Ok((daemon, address));
        }
    }
    Err("the daemon ended before it accepted".into())
}

/// A request with so many events of about 1 KB, all different, so that they compress no better than those of an app.
fn request(random: &mut fastrand::Rng, events: usize) -> String {
    let mut text = |bytes: usize| -> String {
        let words = std::iter::repeat_with(|| {
            let seed = random.u64(..4_000);
            let mut word = fastrand::Rng::with_seed(seed);
            let length = word.usize(2..10);
            std::iter::repeat_with(|| word.lowercase())
                .take(length)
                .chain([' '])
                .collect::<String>()
        });
        let mut text = String::new();
        for word in words {
            if text.len() >= bytes {
                break;
            }
            text.push_str(&word);
        }
        text
    };
    let batch: Vec<_> = (0..events)
        .map(|_| {
            json!({
                "input": text(400), "output": text(450), "session_id": text(20), "user_id": "user-1",
                "metadata": {"model": "bench", "temperature": 0.7},
            })
        })
        .collect();
    let body = json!({"batched_log_events": batch}).to_string();
    format!(
        "POST /v2/log/bench HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends until the end and gives how long each answer took.
async fn client(address: String, requests: Vec<Arc<str>>, end: Instant) -> Result<Vec<Duration>, Failure> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut latencies = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    for request in requests.iter().cycle() {
        let asked = Instant::now();
        if asked >= end {
            break;
        }
        stream.write_all(request.as_bytes()).await?;
        let mut filled = 0;
        // Head and body of the reply, by its content-length.
        let mut whole = usize::MAX;
        while filled < whole {
            let read = stream.read(&mut buffer[filled..]).await?;
            if read == 0 {
                return Err("the daemon closed the connection".into());
            }
            filled += read;
            if whole == usize::MAX
                && let Some(head) = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n")
            {
                let text = std::str::from_utf8(&buffer[..head])?.to_ascii_lowercase();
                let length = text
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .ok_or("no length")?;
                whole = head + 4 + length.parse::<usize>()?;
            }
        }
        if !buffer.starts_with(b"HTTP/1.1 200") {
            return Err(String::from_utf8_lossy(&buffer[..filled.min(300)])
                .into_owned()
                .into());
        }
        latencies.push(asked.elapsed());
    }
    Ok(latencies)
}
