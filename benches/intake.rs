//! Intake, end to end: the real binary on a disk, plain HTTP clients, and the sandbox as upstream.
//!
//! `cargo bench --bench intake [SECONDS]`: events a second and latency for one and for a hundred events a request, each
//! answered only when it is on disk, how many the sandbox had stored by the end of the load, and the daemon's peak memory.
//! Figures of one run are comparable with each other only; the load generator and the sandbox share the machine. With
//! `PHOSPHOD_PEER=PATH`, another build's binary, each load is put on both in turn, the peer first.

mod common;

use common::Failure;
use common::daemon::Daemon;
use common::http::{body, reply_length, request};
use phosphod::sandbox;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Requests that each client sends in turn.
const DIFFERENT: usize = 32;
/// Connections and events a request of each run.
const RUNS: [(usize, usize); 6] = [(16, 1), (64, 1), (256, 1), (1, 100), (16, 100), (64, 100)];
/// Connections and requests a second, over all of them, of the run that is not driven by the answers.
const OPEN_LOOP: (usize, u32) = (16, 2_000);

fn main() -> Result<(), Failure> {
    let seconds = common::number_wanted(5) as u64;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let peer = std::env::var("PHOSPHOD_PEER").ok();
    println!("         conns  events/request     events/s   p50 ms   p99 ms   stored/s by the end   RSS MiB");
    // First, on a disk that has nothing to clear away.
    let (connections, a_second) = OPEN_LOOP;
    println!(
        "{a_second} requests a second, each timed from when it was due, if its connection was busy then:"
    );
    print!("{:<8}", "");
    let every = Duration::from_secs(1) * connections as u32 / a_second;
    let load = Load {
        connections,
        events: 1,
        every: Some(every),
    };
    runtime.block_on(run(
        env!("CARGO_BIN_EXE_phosphod"),
        load,
        Duration::from_secs(seconds),
    ))?;
    println!("as fast as the answers come:");
    for (connections, events) in RUNS {
        for (name, binary) in [
            ("peer", peer.as_deref()),
            ("", Some(env!("CARGO_BIN_EXE_phosphod"))),
        ] {
            if let Some(binary) = binary {
                print!("{name:<8}");
                let load = Load {
                    connections,
                    events,
                    every: None,
                };
                runtime.block_on(run(binary, load, Duration::from_secs(seconds)))?;
            }
        }
    }
    Ok(())
}

/// What is put on the daemon.
#[derive(Clone, Copy)]
struct Load {
    connections: usize,
    /// Events a request.
    events: usize,
    /// When each connection sends: at these intervals, or with each answer.
    every: Option<Duration>,
}

async fn run(binary: &str, load: Load, length: Duration) -> Result<(), Failure> {
    let Load {
        connections,
        events,
        every,
    } = load;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let upstream = sandbox::start(sandbox::Settings::default()).await?;
    upstream.switch(json!({"keep_raw": false})).await?;
    let (daemon, address) = Daemon::start(binary, folder.path(), &upstream.base_url(), &[])?;
    let mut random = fastrand::Rng::with_seed(1);
    let requests: Vec<Arc<str>> = (0..DIFFERENT)
        .map(|_| request("bench", &body(&mut random, events)).into())
        .collect();
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for n in 0..connections {
        // Not all at once.
        let due = every.map(|every| (begun + every * n as u32 / connections as u32, every));
        clients.spawn(client(address.clone(), requests.clone(), begun + length, due));
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
        daemon.peak_mib()?,
    );
    Ok(())
}

/// Sends until the end, with each answer or when the next is `due`, and gives how long each answer took.
async fn client(
    address: String,
    requests: Vec<Arc<str>>,
    end: Instant,
    mut due: Option<(Instant, Duration)>,
) -> Result<Vec<Duration>, Failure> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut latencies = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    for request in requests.iter().cycle() {
        let asked = match &mut due {
            None => Instant::now(),
            Some((moment, every)) => {
                let was_due = *moment;
                *moment += *every;
                if Instant::now() < was_due {
                    tokio::time::sleep_until(was_due.into()).await;
                    // A timer is up to a millisecond late, which is not the daemon's.
                    Instant::now()
                } else {
                    was_due
                }
            }
        };
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
            if whole == usize::MAX {
                whole = reply_length(&buffer[..filled])?.unwrap_or(whole);
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
