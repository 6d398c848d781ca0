//! What may go wrong with one request, and how often it does.

use fastrand::Rng;

/// A fault of the network, of a proxy in between, or of the API as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// No connection.
    Connect,
    /// The connection breaks before the API reads the request.
    Reset,
    /// Nothing happens, until time runs out.
    Silence,
    /// A status from something in front of the API, and Retry-After in seconds.
    Status(u16, Option<u64>),
    /// The same with a page that is not the API's.
    Page(u16),
    /// The request has its effect; then the connection breaks.
    ResetAfter,
    /// The request has its effect; then nothing, until time runs out.
    SilenceAfter,
    /// The request has its effect; the answer cannot be read.
    GarbledAfter,
    /// The request has its effect, and this status is the answer.
    StatusAfter(u16),
    /// The request has its effect, and the answer is a 200 with another list.
    Mangled,
    /// Up to so many seconds late.
    Slow(u64),
}

/// All of them as they are counted.
pub(super) const NAMES: [&str; 27] = [
    "connect",
    "reset",
    "silence",
    "status 302",
    "status 401",
    "status 403",
    "status 404",
    "status 408",
    "status 418",
    "status 429",
    "status 500",
    "status 502",
    "status 503",
    "page",
    "firewall",
    "stuck",
    "reset after",
    "silence after",
    "garbled after",
    "status after",
    "mangled",
    "slow",
    "stale key",
    "no such route",
    "kill",
    "requeue",
    "batch lost",
];

/// How much of [`Fault::lone`] lets others go first.
pub(super) const LONE: u32 = 4;

/// How likely faults are.
#[derive(Debug, Clone, Default)]
pub(super) struct Weather {
    /// Out of 100.
    pub(super) percent: u8,
    pub(super) faults: Vec<Fault>,
}

impl Weather {
    /// Any weather but a calm.
    pub(super) fn rough(rng: &mut Rng) -> Weather {
        let percent = *rng.choice(&[10, 30, 60, 100]).expect("one");
        let kinds = if percent == 100 { 1 } else { rng.usize(1..5) };
        Weather {
            percent,
            faults: (0..kinds).map(|_| any(rng)).collect(),
        }
    }

    /// What the next request meets.
    pub(super) fn next(&self, rng: &mut Rng) -> Option<Fault> {
        (rng.u8(0..100) < self.percent)
            .then(|| rng.choice(&self.faults).copied())
            .flatten()
    }
}

fn any(rng: &mut Rng) -> Fault {
    match rng.u8(0..15) {
        0 => Fault::Connect,
        1 => Fault::Reset,
        2 => Fault::Silence,
        3 | 4 => {
            let after = rng.bool().then(|| rng.u64(0..90));
            Fault::Status(
                *rng.choice(&[408, 429, 429, 500, 502, 503, 503]).expect("one"),
                after,
            )
        }
        5 => Fault::Status(*rng.choice(&[302, 401, 403, 404, 418]).expect("one"), None),
        6 | 7 => Fault::ResetAfter,
        8 => Fault::SilenceAfter,
        9 => Fault::GarbledAfter,
        10 | 11 => Fault::StatusAfter(*rng.choice(&[500, 502, 504]).expect("one")),
        12 => Fault::Mangled,
        13 => Fault::Page(
            *rng.choice(&[302, 400, 403, 404, 408, 422, 429, 451, 503, 504])
                .expect("one"),
        ),
        _ => Fault::Slow(rng.u64(1..25)),
    }
}

impl Fault {
    pub(super) fn name(self) -> &'static str {
        match self {
            Fault::Connect => "connect",
            Fault::Reset => "reset",
            Fault::Silence => "silence",
            Fault::Status(302, _) => "status 302",
            Fault::Status(401, _) => "status 401",
            Fault::Status(403, _) => "status 403",
            Fault::Status(404, _) => "status 404",
            Fault::Status(408, _) => "status 408",
            Fault::Status(418, _) => "status 418",
            Fault::Status(429, _) => "status 429",
            Fault::Status(500, _) => "status 500",
            Fault::Status(502, _) => "status 502",
            Fault::Status(..) => "status 503",
            Fault::Page(_) => "page",
            Fault::ResetAfter => "reset after",
            Fault::SilenceAfter => "silence after",
            Fault::GarbledAfter => "garbled after",
            Fault::StatusAfter(_) => "status after",
            Fault::Mangled => "mangled",
            Fault::Slow(_) => "slow",
        }
    }

    /// How much it counts for that an event meets it alone: at [`LONE`], others may be tried before it.
    pub(super) fn lone(self) -> u32 {
        match self {
            Fault::Connect | Fault::Slow(_) | Fault::Status(500, _) | Fault::StatusAfter(500) => 0,
            Fault::Status(302 | 401 | 403 | 404 | 418, _) => LONE,
            Fault::Page(status) if status != 408 && status != 429 && status < 500 => LONE,
            _ => 1,
        }
    }

    /// Whether it is the API's own word that something is wrong with the request: repeated, it looks like poison.
    pub(super) fn looks_like_poison(self) -> bool {
        matches!(self, Fault::Status(500, _) | Fault::StatusAfter(500))
    }
}
