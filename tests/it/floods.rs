//! Clients that hold on to connections, and bodies that are meant to hurt: others are served meanwhile, and the memory stays bounded.

use crate::memory::{MIB, memory};
use crate::support::client::{self, batch};
use crate::support::daemon::Daemon;
use crate::support::skip::skip;
use crate::support::{PATIENCE, Pair, eventually};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Requests of the other client, each answered before the next.
const REQUESTS: usize = 300;
/// More than a connection's own buffers.
const BESIDE: usize = 40 * MIB;

/// Lets this process have the connections that it floods with; whether it may.
fn can_open(files: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).is_ok() && limit.maximum.is_none_or(|most| most >= files)
}

async fn connect(daemon: &Daemon) -> TcpStream {
    let address = daemon.url.trim_start_matches("http://");
    TcpStream::connect(address).await.expect("it listens")
}

/// Connections that send the same beginning of a request, and no more.
async fn half_sent(daemon: &Daemon, number: usize, beginning: &str) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..number {
        let mut stream = connect(daemon).await;
        // One that was closed to make room for others is seen by who looks.
        let _ = stream.write_all(beginning.as_bytes()).await;
        held.push(stream);
    }
    held
}

/// How many connections the daemon has not closed or answered.
fn open(held: &[TcpStream]) -> usize {
    let silent = |stream: &&TcpStream| {
        let seen = stream.try_read(&mut [0; 1]);
        seen.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    held.iter().filter(silent).count()
}

/// Requests one after the other, each of which must be taken: the median and the 99th of a hundred.
async fn served(pair: &Pair, name: &str, client: &reqwest::Client) -> (Duration, Duration) {
    let mut times = Vec::new();
    for n in 0..REQUESTS {
        let body = json!({"input": "x", "task_id": format!("{name}-{n}")}).to_string();
        let start = Instant::now();
        let reply = client::post(client, &pair.at("/log"), body).await;
        times.push(start.elapsed());
        assert_eq!(reply.status, 200, "request {n} of {name}: {reply:?}");
    }
    times.sort();
    (times[REQUESTS / 2], times[REQUESTS * 99 / 100])
}

/// A client that opens a connection for each request.
fn fresh() -> reqwest::Client {
    let client = reqwest::Client::builder().pool_max_idle_per_host(0);
    client.build().expect("a client")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_served_while_a_thousand_connections_send_half_a_head_or_half_a_body() {
    if !can_open(2_500) {
        return skip(
            "others_are_served_while_a_thousand_connections_send_half_a_head_or_half_a_body",
            "the hard limit on open files is below 2_500",
        );
    }
    let pair = Pair::start().await;
    let client = fresh();
    let alone = served(&pair, "alone", &client).await;

    let heads = half_sent(&pair.daemon, 1_000, "POST /log HTTP/1.1\r\nHost: local").await;
    let since = Instant::now();
    let beside_heads = served(&pair, "heads", &client).await;
    let left = open(&heads);
    eprintln!(
        "1,000 half-sent heads ({left} open after {:?}): median and p99 of others {beside_heads:?}, without them {alone:?}",
        since.elapsed()
    );

    let beginning = "POST /log HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16000\r\n\r\n{\"input\":\"";
    let bodies = half_sent(&pair.daemon, 1_000, beginning).await;
    // They have 30 s, and none of them is in anybody's way.
    let left = open(&bodies);
    assert!(left > 0, "somebody has to be there beside the others");
    let beside_bodies = served(&pair, "bodies", &client).await;
    eprintln!(
        "1,000 half-sent bodies ({left} open): median and p99 of others {beside_bodies:?}, without them {alone:?}"
    );

    // A head has 5 s. (That a body is answered 503 after 30 s is tested beside the code, on a clock that is moved.)
    for mut stream in heads {
        let closed = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 1])).await;
        assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
    }
    drop(bodies);
    assert_eq!(pair.finish().await.delivered, 3 * REQUESTS as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_served_while_five_thousand_idle_connections_want_more_files_than_there_are() {
    if !can_open(6_000) {
        return skip(
            "others_are_served_while_five_thousand_idle_connections_want_more_files_than_there_are",
            "the hard limit on open files is below 6_000",
        );
    }
    let pair = Pair::start_with(|setup| {
        // Small generations, so that the queue opens files all the time.
        let setup = setup.with("spool.generation_bytes", "1 MiB");
        setup.through(&["sh", "-c", "ulimit -n 256; exec \"$@\"", "sh"])
    })
    .await;
    let client = fresh();
    let alone = served(&pair, "alone", &client).await;
    let idle = half_sent(&pair.daemon, 5_000, "").await;
    let beside = served(&pair, "idle", &client).await;
    let hints = pair.daemon.status().await["hints"].to_string();
    assert!(
        hints.contains("the TCP listener") && hints.contains("those that rest longest are closed"),
        "{hints}"
    );
    let unix = client::unix(&pair.daemon.unix);
    let filler = "x".repeat(100_000);
    for n in 0..40 {
        let event = json!({"input": filler, "task_id": format!("unix-{n}")}).to_string();
        let reply = client::post(&unix, "http://localhost/log", event).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    let left = open(&idle);
    eprintln!(
        "5,000 idle connections, 256 files ({left} open): median and p99 of others {beside:?}, without them {alone:?}"
    );
    assert!(left <= 128, "{left} of them are open");
    let told = |daemon: &Daemon, part: &str| daemon.said().iter().filter(|line| line.contains(part)).count();
    // Once a spell of trouble, not once a connection.
    let told_of_crowd = told(&pair.daemon, "those that rest longest are closed");
    assert!((1..10).contains(&told_of_crowd), "{told_of_crowd}");
    assert_eq!(told(&pair.daemon, "the limit on open files bounds"), 1);
    assert_eq!(told(&pair.daemon, "cannot be accepted"), 0);
    drop(idle);
    eventually("no hint any more", || async {
        let status = pair.daemon.status().await;
        (status["hints"] == json!([])).then_some(())
    })
    .await;
    assert_eq!(pair.finish().await.delivered, 2 * REQUESTS as u64 + 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_file_left_connections_wait_and_the_status_says_why() {
    let pair = Pair::start().await;
    let kept = reqwest::Client::new();
    let status = async || client::send(kept.get(pair.at("/status"))).await.json();
    status().await;
    let pid = Pid::from_raw(pair.daemon.pid().cast_signed()).expect("a child has a pid");
    // Less than it has open: not one more.
    let none_left = Rlimit {
        current: Some(1),
        maximum: Some(4096),
    };
    prlimit(Some(pid), Resource::Nofile, none_left).expect("our child may be limited");
    let url = pair.at("/healthz");
    let waiting = tokio::spawn(async move { client::send(fresh().get(url)).await.status });
    eventually("a hint about open files", || async {
        let hints = status().await["hints"].to_string();
        (hints.contains("cannot be accepted") && hints.contains("LimitNOFILE")).then_some(())
    })
    .await;
    assert!(!waiting.is_finished());
    let enough = Rlimit {
        current: Some(4096),
        maximum: Some(4096),
    };
    prlimit(Some(pid), Resource::Nofile, enough).expect("our child may be limited");
    assert_eq!(waiting.await.expect("it is answered"), 200);
    assert_eq!(pair.finish().await.accepted, 0);
}

/// A request, what its body goes on with for how many bytes, and the status that it gets.
struct Hostile {
    name: &'static str,
    start: Vec<u8>,
    endless: (Vec<u8>, usize),
    status: u16,
    /// Whether it is refused without having been read.
    closes: bool,
}

fn hostile(
    name: &'static str,
    headers: &str,
    body: impl Into<Vec<u8>>,
    status: u16,
    closes: bool,
) -> Hostile {
    let head = format!("POST /log HTTP/1.1\r\nHost: localhost\r\n{headers}");
    let body = body.into();
    let length = match headers.contains("Content-Length") || headers.contains("Transfer-Encoding") {
        true => String::new(),
        false => format!("Content-Length: {}\r\n", body.len()),
    };
    Hostile {
        name,
        start: [format!("{head}{length}\r\n").as_bytes(), &body].concat(),
        endless: (Vec::new(), 0),
        status,
        closes,
    }
}

/// 100 MB of zeros in about 100 KB.
fn bomb() -> Vec<u8> {
    let output = crate::support::skip::tool("sh")
        .args(["-c", "head -c 104857600 /dev/zero | gzip -9"])
        .output()
        .expect("gzip runs");
    assert!((1_000..1_000_000).contains(&output.stdout.len()), "{output:?}");
    output.stdout
}

const TWO_GB: usize = 2_000_000_000;

fn all_hostile() -> Vec<Hostile> {
    let bomb = bomb();
    let open = "[".repeat(100_000);
    let mut deep = open.clone().into_bytes();
    deep.extend("]".repeat(100_000).bytes());
    let chunk = [format!("{MIB:x}\r\n").as_bytes(), &vec![b'x'; MIB], b"\r\n"].concat();
    vec![
        hostile("gzip", "Content-Encoding: gzip\r\n", bomb.clone(), 415, true),
        hostile("x-gzip", "Content-Encoding: x-gzip\r\n", bomb.clone(), 415, true),
        hostile(
            "gzip twice",
            "Content-Encoding: gzip, gzip\r\n",
            bomb.clone(),
            415,
            true,
        ),
        hostile(
            "gzip as a transfer coding",
            "Transfer-Encoding: gzip, chunked\r\n",
            bomb.clone(),
            400,
            true,
        ),
        hostile("gzip that nobody announces", "", bomb, 422, false),
        hostile("100,000 open brackets", "", open.clone(), 422, false),
        hostile(
            "100,000 open brackets in an event",
            "",
            format!("{{\"input\":{open}"),
            422,
            false,
        ),
        hostile("100,000 brackets, closed", "", deep, 200, false),
        hostile("100,000 open braces", "", "{\"a\":".repeat(100_000), 422, false),
        hostile("invalid UTF-8", "", &b"{\"input\":\"\xc3\x28\"}"[..], 422, false),
        hostile(
            "half a character at the end",
            "",
            &b"{\"input\":\"\xf0\x9f\x98"[..],
            422,
            false,
        ),
        Hostile {
            endless: (vec![b'x'; MIB], TWO_GB),
            ..hostile(
                "2 GB of nonsense",
                &format!("Content-Length: {TWO_GB}\r\n"),
                "",
                422,
                true,
            )
        },
        Hostile {
            endless: (chunk, TWO_GB),
            ..hostile(
                "2 GB of it in chunks",
                "Transfer-Encoding: chunked\r\n",
                "",
                422,
                true,
            )
        },
    ]
}

/// Sends it for as long as the daemon takes it; the reply, how much was sent, and whether the daemon closed.
async fn send(daemon: &Daemon, hostile: &Hostile) -> (String, usize, bool) {
    let mut stream = connect(daemon).await;
    let (mut reading, mut writing) = stream.split();
    let sending = async {
        let (piece, most) = &hostile.endless;
        let mut sent = 0;
        if writing.write_all(&hostile.start).await.is_ok() {
            while sent < *most && writing.write_all(piece).await.is_ok() {
                sent += piece.len();
            }
        }
        sent
    };
    let reading = async {
        let mut reply = Vec::new();
        loop {
            let closed = reading.read_buf(&mut reply).await.map_or(true, |read| read == 0);
            let whole = reply.ends_with(b"}");
            if closed || (whole && !hostile.closes) {
                return (String::from_utf8_lossy(&reply).into_owned(), closed);
            }
        }
    };
    let both = async { tokio::join!(sending, reading) };
    let both = tokio::time::timeout(PATIENCE, both).await;
    let (sent, (reply, closed)) = both.unwrap_or_else(|_| panic!("{}: no end", hostile.name));
    (reply, sent, closed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_bodies_are_refused_and_cost_no_more_memory_than_one_body_may() {
    let pair = Pair::start().await;
    pair.post("/log", r#"{"input":"warm"}"#).await;
    let before = memory(&pair.daemon, "VmRSS");
    for hostile in all_hostile() {
        let (reply, sent, closed) = send(&pair.daemon, &hostile).await;
        assert!(
            reply.starts_with(&format!("HTTP/1.1 {} ", hostile.status)),
            "{}: {reply:?}",
            hostile.name
        );
        assert_eq!(closed, hostile.closes, "{}: {reply:?}", hostile.name);
        eprintln!(
            "{}: {}, {} MiB were sent, VmHWM {} MiB more than at rest",
            hostile.name,
            hostile.status,
            sent / MIB,
            (memory(&pair.daemon, "VmHWM").saturating_sub(before)) / MIB
        );
    }
    // Of a log body 4 MiB are held while it comes; nothing is unpacked.
    let most = memory(&pair.daemon, "VmHWM");
    assert!(most < before + 4 * MIB + BESIDE, "VmHWM is {} MiB", most / MIB);
    let good = pair.post("/v2/log/p", batch(&[r#"{"input":"x"}"#])).await;
    assert_eq!(good.status, 200);
    // The brackets that are closed are a list with something in it that is no event: kept as a dead letter.
    let counts = pair.finish().await;
    assert_eq!((counts.delivered, counts.dead), (2, 1));
}
