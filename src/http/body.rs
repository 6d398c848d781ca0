//! Reading the body of a request: whole within a limit, or as a stream of any length.

use super::Call;
use super::budget::{Budget, LEAST_BYTES, NoRoom, Reservation, SMALL_BYTES};
use super::call::{check_type, closing};
use super::reply::{Refused, Reply, detail, unavailable};
use crate::wire::json::without_mark;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::Body;
use std::error::Error;
use std::io::{self, ErrorKind};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// What a client is told to wait when there was no room for its body, in seconds.
const RETRY_AFTER_S: u32 = 5;

/// As many bytes of a body must come within [`super::Limits::body`], each time anew: 34 KiB/s with the default.
const PACE_BYTES: usize = 1024 * 1024;

/// How fast a body must come. Only the time counts in which it is waited for.
#[derive(Debug)]
pub(super) struct Pace {
    limit: Duration,
    left: Duration,
    bytes: usize,
}

impl Pace {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            left: limit,
            bytes: 0,
        }
    }

    /// So many bytes came after a wait of `waited`.
    fn came(&mut self, bytes: usize, waited: Duration) {
        self.left = self.left.saturating_sub(waited);
        self.bytes += bytes;
        if self.bytes >= PACE_BYTES {
            (self.bytes, self.left) = (0, self.limit);
        }
    }
}

/// The first that comes of a body.
#[derive(Debug)]
pub enum First {
    /// All of it.
    Whole(Bytes),
    /// Its beginning, which may be empty. The rest comes by [`Call::next_part`].
    Part(Bytes),
}

/// Why no more of a body is read.
enum Broken {
    NoRoom(NoRoom),
    Cut(hyper::Error),
    Late,
}

impl Call {
    /// Reads a JSON body of at most `max_bytes`, which is what the configuration `key` is set to. Anything else is a reply:
    /// 415 for another type or a compressed body, 413 over the limit, 400 for framing that breaks HTTP. It is 503 for a body
    /// that breaks off, comes too slowly, or that `budget` has no room for: a 4xx ends the official SDK's sender.
    ///
    /// Nothing is read from the socket while there is no room. What comes with the body is its room, to be held until the
    /// request is answered. A byte order mark before the JSON is cut off.
    pub async fn json_body(
        &mut self,
        max_bytes: usize,
        key: &str,
        budget: &Budget,
    ) -> Result<(Bytes, Reservation), Refused> {
        self.check()?;
        if self.request.body().size_hint().lower() > max_bytes as u64 {
            return Err(Box::new(self.unread(too_large(max_bytes, key))));
        }
        let mut room = self.room_for(max_bytes, budget).await?;
        match self.collect(max_bytes, &mut room).await {
            Ok(First::Whole(body)) => {
                room.shrink_to(body.len().max(LEAST_BYTES));
                let mark = body.len() - without_mark(&body).len();
                Ok((body.slice(mark..), room))
            }
            Ok(First::Part(_)) => Err(Box::new(self.unread(too_large(max_bytes, key)))),
            Err(broken) => Err(self.ended(&broken)),
        }
    }

    /// Begins to read a JSON body of any length: all of it if it is up to `held` bytes, else its beginning. With a part comes
    /// room for `held` bytes; it is the caller's to hold no more, and to grow it. What is no such body is a reply, as with
    /// [`Call::json_body`].
    pub async fn first_part(
        &mut self,
        held: usize,
        budget: &Budget,
    ) -> Result<(First, Reservation), Refused> {
        self.check()?;
        let mut room = self.room_for(held, budget).await?;
        if self.request.body().size_hint().lower() > held as u64 {
            return Ok((First::Part(Bytes::new()), room));
        }
        match self.collect(held, &mut room).await {
            Ok(First::Whole(body)) => {
                room.shrink_to(body.len().max(LEAST_BYTES));
                Ok((First::Whole(body), room))
            }
            Ok(part) => Ok((part, room)),
            Err(broken) => Err(self.ended(&broken)),
        }
    }

    /// The next piece of a body that did not come whole; `None` at its end. An error is a reply that is the connection's last.
    pub async fn next_part(&mut self) -> Result<Option<Bytes>, Refused> {
        let piece = self.piece().await;
        piece.map_err(|broken| self.ended(&broken))
    }

    fn check(&self) -> Result<(), Refused> {
        check_type(self.request.headers()).map_err(|refused| Box::new(self.unread(*refused)))
    }

    /// Room for all of the body, or for `most` bytes of it. Of a chunked one the length is not known; it starts small and grows.
    async fn room_for(&self, most: usize, budget: &Budget) -> Result<Reservation, Refused> {
        let known = self.request.body().size_hint().exact();
        let first = known.map_or(SMALL_BYTES, |size| usize::try_from(size).unwrap_or(most));
        let room = budget.reserve(first.min(most), self.limits.room).await;
        room.map_err(|no_room| self.ended(&Broken::NoRoom(no_room)))
    }

    /// Reads up to `most` bytes, for which `room` grows.
    async fn collect(&mut self, most: usize, room: &mut Reservation) -> Result<First, Broken> {
        let mut whole = Bytes::new();
        let mut pieces = Vec::new();
        while let Some(piece) = self.piece().await? {
            let sum = whole.len().max(pieces.len()) + piece.len();
            if sum > room.bytes() {
                // By doubling, so that a long body does not ask for every piece.
                let wanted = sum.max(2 * room.bytes()).min(most.max(sum));
                room.grow_to(wanted).map_err(Broken::NoRoom)?;
            }
            if sum == piece.len() && sum <= most {
                // Most bodies are one piece: no copy.
                whole = piece;
                continue;
            }
            // All that was reserved; memory that is not written to yet costs nothing.
            pieces.reserve_exact(room.bytes().max(sum) - pieces.len());
            if pieces.is_empty() {
                pieces.extend_from_slice(&whole);
            }
            pieces.extend_from_slice(&piece);
            if sum > most {
                return Ok(First::Part(pieces.into()));
            }
        }
        Ok(First::Whole(if pieces.is_empty() {
            whole
        } else {
            pieces.into()
        }))
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            let began = Instant::now();
            let frame = timeout(self.pace.left, self.request.body_mut().frame()).await;
            let Some(frame) = frame.map_err(|_| Broken::Late)? else {
                return Ok(None);
            };
            let data = frame.map_err(Broken::Cut)?.into_data();
            self.pace
                .came(data.as_ref().map_or(0, Bytes::len), began.elapsed());
            // Trailers carry nothing for us.
            if let Ok(piece) = data {
                return Ok(Some(piece));
            }
        }
    }

    /// The reply to a body that is not read on.
    fn ended(&self, broken: &Broken) -> Refused {
        Box::new(match broken {
            Broken::NoRoom(no_room) => self.unread(unavailable(&no_room.to_string(), RETRY_AFTER_S)),
            Broken::Late => {
                let sentence = format!(
                    "the body came too slowly, less than {PACE_BYTES} bytes in {} s: send it again",
                    self.limits.body.as_secs()
                );
                self.unread(unavailable(&sentence, 1))
            }
            Broken::Cut(error) => {
                tracing::debug!(%error, "a body broke off");
                let sentence = "the body broke off before its end: send it again";
                closing(if breaks_http(error) {
                    detail(StatusCode::BAD_REQUEST, sentence)
                } else {
                    unavailable(sentence, 1)
                })
            }
        })
    }
}

/// Whether what came is no body at all, rather than the beginning of one.
fn breaks_http(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData);
        }
        source = error.source();
    }
    false
}

fn too_large(max_bytes: usize, key: &str) -> Reply {
    let sentence = format!(
        "the body is over the limit of {max_bytes} bytes ({key}): send it in smaller parts, or raise {key}"
    );
    detail(StatusCode::PAYLOAD_TOO_LARGE, &sentence)
}
