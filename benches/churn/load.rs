//! The traffic: connections that each send in turn, one request at a time, as a pool of an app does.
//!
//! Open loop: each request has a moment at which it is meant to go out, whatever became of those before, and its latency
//! counts from then on. A daemon that stalls is so charged for all that would have been sent meanwhile. Connections are
//! threads that block, apart from the sandbox's runtime, so that neither waits for the other's turn.
use crate::common::Failure;
use crate::common::http::{body, reply_length, request};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections.
const CONNECTIONS: u32 = 128;
/// Projects whose events are delivered.
const PROJECTS: usize = 8;
/// The project whose key the upstream refuses.
pub(crate) const PARKED: &str = "parked";
/// Events in a large request.
const MANY: usize = 20;
/// Of so many requests one is a large one, so that half of the events come in those.
const CYCLE: usize = MANY + 1;
/// Events in a cycle.
const CYCLE_EVENTS: usize = 2 * MANY;
/// Of so many requests one goes to the parked project: a thousandth of the events.
const PARKED_EVERY: usize = 1_000 * CYCLE / CYCLE_EVENTS;
/// Different bodies of each size.
const DIFFERENT: [usize; 2] = [1_024, 64];

/// When requests go out.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// Each as soon as the one before is answered.
    Closed,
    /// So many events a second, come what may.
    Open(f64),
}

impl Pace {
    /// Time between two requests of one connection.
    fn gap(self) -> Option<Duration> {
        let Pace::Open(events) = self else { return None };
        let requests = events * CYCLE as f64 / CYCLE_EVENTS as f64;
        Some(Duration::from_secs_f64(f64::from(CONNECTIONS) / requests))
    }
}

/// What became of the traffic.
#[derive(Default)]
pub(crate) struct Tally {
    /// Events answered with 200.
    pub(crate) accepted: AtomicU64,
    /// Of these, those of the parked project.
    pub(crate) parked: AtomicU64,
    /// Bytes of their bodies.
    pub(crate) bytes: AtomicU64,
    /// Requests answered otherwise.
    pub(crate) refused: AtomicU64,
    /// Since it was last asked.
    latencies: Mutex<Vec<Duration>>,
    stop: AtomicBool,
}

impl Tally {
    /// Latencies of what was answered since the last call, sorted.
    pub(crate) fn latencies(&self) -> Vec<Duration> {
        let mut all = std::mem::take(&mut *self.latencies.lock().unwrap_or_else(PoisonError::into_inner));
        all.sort_unstable();
        all
    }
}

/// Running connections.
pub(crate) struct Load {
    pub(crate) tally: Arc<Tally>,
    connections: Vec<JoinHandle<Result<(), Failure>>>,
}

impl Load {
    pub(crate) fn start(address: &str, pace: Pace) -> Result<Load, Failure> {
        let mut random = fastrand::Rng::with_seed(1);
        let [ones, manys] = DIFFERENT;
        let bodies = Arc::new(Bodies {
            ones: (0..ones).map(|_| body(&mut random, 1)).collect(),
            manys: (0..manys).map(|_| body(&mut random, MANY)).collect(),
        });
        let tally = Arc::new(Tally::default());
        let mut connections = Vec::new();
        for number in 0..CONNECTIONS {
            let connection = Connection {
                stream: TcpStream::connect(address)?,
                bodies: bodies.clone(),
                tally: tally.clone(),
                random: fastrand::Rng::with_seed(u64::from(number)),
                buffer: vec![0; 64 * 1024],
            };
            let builder = std::thread::Builder::new().stack_size(256 * 1024);
            connections.push(builder.spawn(move || connection.run(pace.gap()))?);
        }
        Ok(Load { tally, connections })
    }

    /// Ends it once every request is answered.
    pub(crate) fn stop(self) -> Result<Arc<Tally>, Failure> {
        self.tally.stop.store(true, Relaxed);
        for connection in self.connections {
            connection.join().map_err(|_| "a connection panicked")??;
        }
        Ok(self.tally)
    }
}

struct Bodies {
    ones: Vec<String>,
    manys: Vec<String>,
}

struct Connection {
    stream: TcpStream,
    bodies: Arc<Bodies>,
    tally: Arc<Tally>,
    random: fastrand::Rng,
    buffer: Vec<u8>,
}

impl Connection {
    fn run(mut self, gap: Option<Duration>) -> Result<(), Failure> {
        self.stream.set_nodelay(true)?;
        let mut meant = Instant::now();
        // Connections are at different places of the cycle.
        let mut n = self.random.usize(..PARKED_EVERY);
        while !self.tally.stop.load(Relaxed) {
            meant = match gap {
                None => Instant::now(),
                Some(gap) => meant + gap.mul_f64(self.random.f64() + 0.5),
            };
            std::thread::sleep(meant.saturating_duration_since(Instant::now()));
            self.send(n, meant)?;
            n += 1;
        }
        Ok(())
    }

    fn send(&mut self, n: usize, meant: Instant) -> Result<(), Failure> {
        let parked = n.is_multiple_of(PARKED_EVERY);
        let many = !parked && n % CYCLE == 1;
        let project = match parked {
            true => PARKED.to_owned(),
            false => format!("project-{}", self.random.usize(..PROJECTS)),
        };
        let bodies = self.bodies.clone();
        let choice = if many { &bodies.manys } else { &bodies.ones };
        let body = &choice[self.random.usize(..choice.len())];
        self.stream.write_all(request(&project, body).as_bytes())?;
        if !self.answered_well()? {
            self.tally.refused.fetch_add(1, Relaxed);
            return Ok(());
        }
        let latency = meant.elapsed();
        let events = if many { MANY as u64 } else { 1 };
        self.tally.accepted.fetch_add(events, Relaxed);
        self.tally.parked.fetch_add(u64::from(parked), Relaxed);
        self.tally.bytes.fetch_add(body.len() as u64, Relaxed);
        let mut latencies = self
            .tally
            .latencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        latencies.push(latency);
        Ok(())
    }

    fn answered_well(&mut self) -> Result<bool, Failure> {
        let (mut filled, mut whole) = (0, None);
        while whole.is_none_or(|whole| filled < whole) {
            let read = self.stream.read(&mut self.buffer[filled..])?;
            if read == 0 {
                return Err("the daemon closed a connection".into());
            }
            filled += read;
            if whole.is_none() {
                whole = reply_length(&self.buffer[..filled])?;
            }
        }
        Ok(self.buffer.starts_with(b"HTTP/1.1 200"))
    }
}
