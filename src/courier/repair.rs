//! What to do with a batch that the API accepted and did not store.
//!
//! 1. If it holds events that are known to break the API's tokenizer, and they went without token counts, all of it goes once
//!    more with counts on these. That is all it takes where the API is as it is known.
//! 2. Else the event to blame is looked for by [`halving`](super::halving); halves go side by side.
//! 3. A single event that is lost alone goes once more with token counts, if it has none. If it is lost then, it can never be
//!    stored, and is buried, once the upstream has shown that it shows tasks at all.
//!
//! An event that may be over 16 MiB in the API's database is not tried again without a reason, because each try keeps
//! the API busy.

use super::clock;
use super::confirm::{self, Confirmed, Patience, bare, confirm, pause_until, wait_for_mending};
use super::delivery::{Delivery, EventForm, Sent};
use super::halving::{Next, Strand};
use super::line::{Knobs, Line};
use super::send::Progress;
use super::sessions::key_of;
use super::token_counts::{Question, TokenCounts};
use super::tokens;
use crate::event::{self, DocumentSize};
use crate::spool::{Burial, Leased};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How often a missing event is looked for again, with backoff, while the upstream has not shown any task at all: about
/// ten minutes with the default `[retry]`. Burying then could be wrong about a whole queue.
const ROUNDS_UNSEEN: u32 = 20;

/// What was found missing longer ago than this is looked for once more before it is sent again.
const STALE: Duration = Duration::from_millis(500);

/// How a strand ended.
enum End {
    /// What is left goes on in two strands.
    Fork([Strand<Sent<Leased>>; 2]),
    /// All of it was sent. Shutdown ends it, too: then what was left is released.
    Done,
}

/// Sends a lost batch again until each of its events is stored or known to be lost for good. Returns the latter. `question`: what the
/// batch was to show about the upstream.
pub(super) async fn repair(
    line: &Arc<Line>,
    knobs: &mut Knobs,
    lost: Vec<Sent<Leased>>,
    question: Option<Question>,
) -> Vec<Sent<Leased>> {
    let is_large_alone = lost.len() == 1 && lost.iter().all(is_large);
    let Some(lost) = add_counts(line, knobs, lost, question).await else {
        return Vec::new();
    };
    if is_large_alone {
        return lost;
    }
    let mut hopeless = Vec::new();
    let mut strands = JoinSet::new();
    let spawn = |strands: &mut JoinSet<_>, strand| {
        let (line, knobs) = (line.clone(), knobs.clone());
        strands.spawn(run(line, knobs, strand));
    };
    let session = session_of(knobs);
    spawn(&mut strands, Strand::new(lost, session));
    while let Some(ended) = strands.join_next().await {
        match ended {
            Ok((End::Fork(two), lost)) => {
                hopeless.extend(lost);
                two.into_iter().for_each(|strand| spawn(&mut strands, strand));
            }
            Ok((End::Done, lost)) => hopeless.extend(lost),
            Err(error) => {
                if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
    hopeless
}

/// Sends the batch once more with token counts on the events that are known to need them and went without. Returns what is
/// lost even so; all of it if there are no such events. `None` if shutdown came first.
async fn add_counts(
    line: &Line,
    knobs: &mut Knobs,
    mut lost: Vec<Sent<Leased>>,
    question: Option<Question>,
) -> Option<Vec<Sent<Leased>>> {
    if knobs.borrow().token_counts == TokenCounts::Never {
        return Some(lost);
    }
    let mut added = false;
    for sent in lost.iter_mut().filter(|sent| sent.form == EventForm::AsIs) {
        if event::breaks_tokenizer(sent.event.record()) {
            (sent.form, added) = (EventForm::ZeroCounts, true);
        }
    }
    if !added {
        return Some(lost);
    }
    let patience = if lost.len() == 1 {
        Patience::Full
    } else {
        Patience::Prompt
    };
    let lost = resend(line, knobs, lost, patience).await?;
    match question {
        _ if !lost.is_empty() => {}
        Some(question) => line.learned(&question, true),
        None => line.common.token_counts.doubt(),
    }
    Some(lost)
}

/// Runs a strand to its end, or until it forks. Returns the events that can never be stored, too.
async fn run(
    line: Arc<Line>,
    mut knobs: Knobs,
    mut strand: Strand<Sent<Leased>>,
) -> (End, Vec<Sent<Leased>>) {
    let mut hopeless = Vec::new();
    let mut looked = clock::now();
    loop {
        let part = match strand.next() {
            Next::Done => return (End::Done, hopeless),
            Next::Fork(two) => return (End::Fork(two), hopeless),
            Next::Send(part) => part,
        };
        let is_stale = clock::now().saturating_duration_since(looked) > STALE;
        let is_single = part.len() == 1;
        let Some(lost) = send_part(&line, &mut knobs, part, is_stale).await else {
            line.release(bare(strand.into_rest())).await;
            line.release(bare(hopeless)).await;
            return (End::Done, Vec::new());
        };
        if lost.is_empty() {
            strand.stored();
        } else if is_single {
            strand.given_up();
            hopeless.extend(lost);
        } else {
            strand.lost(lost, session_of(&knobs));
            looked = clock::now();
        }
    }
}

/// Sends a part of a lost batch. Returns what of it is lost again; `None` if shutdown came first. `is_stale`: it may have
/// appeared since it was looked for.
async fn send_part(
    line: &Line,
    knobs: &mut Knobs,
    mut part: Vec<Sent<Leased>>,
    is_stale: bool,
) -> Option<Vec<Sent<Leased>>> {
    if is_stale {
        part = confirm::settle_stored(line, knobs, part, true).await?;
    }
    match <[_; 1]>::try_from(part) {
        Ok([single]) => try_alone(line, knobs, single).await,
        Err(part) if part.is_empty() => Some(part),
        Err(part) => resend(line, knobs, part, Patience::Prompt).await,
    }
}

/// Sends a single event as it is, and with token counts if that is of no avail. Returns it if it is lost even so; `None` if
/// shutdown came first.
async fn try_alone(line: &Line, knobs: &mut Knobs, single: Sent<Leased>) -> Option<Vec<Sent<Leased>>> {
    let never = knobs.borrow().token_counts == TokenCounts::Never;
    let counted = single.form == EventForm::ZeroCounts;
    let curable = !never && !counted && tokens::with_zero_counts(single.event.record()).is_some();
    let mut lost = resend(line, knobs, vec![single], Patience::Prompt).await?;
    if !curable {
        return Some(lost);
    }
    lost.iter_mut().for_each(|sent| sent.form = EventForm::ZeroCounts);
    resend(line, knobs, lost, Patience::Prompt).await
}

/// Sends events as a whole and settles what is stored. Returns what is not; `None` if shutdown came first.
async fn resend(
    line: &Line,
    knobs: &mut Knobs,
    events: Vec<Sent<Leased>>,
    patience: Patience,
) -> Option<Vec<Sent<Leased>>> {
    let mut delivery = Delivery::again(events);
    // A refusal may have split them.
    let mut requests = Vec::new();
    loop {
        match line.advance(knobs, &mut delivery).await {
            Progress::Accepted(more) => requests.push(more),
            Progress::Done => break,
            Progress::Parked | Progress::Lonely => {
                delivery.one_first();
                wait_for_mending(line, knobs).await;
            }
            Progress::Stopped => {
                line.release(bare(requests.into_iter().flatten().collect())).await;
                line.release(delivery.into_rest()).await;
                return None;
            }
        }
    }
    let (mut lost, mut stopped) = (Vec::new(), false);
    for accepted in requests {
        if stopped {
            line.release(bare(accepted)).await;
            continue;
        }
        match confirm(line, knobs, accepted, patience).await {
            Confirmed::Stored | Confirmed::Untold => {}
            Confirmed::Lost(more) => lost.extend(more),
            Confirmed::Stopped => stopped = true,
        }
    }
    if stopped {
        line.release(bare(lost)).await;
        return None;
    }
    Some(lost)
}

/// Buries what can never be stored. Before that it has all the time to appear, and is held for as long as the upstream has not
/// shown a single task, as one might that always answers 404; what appears meanwhile is settled.
pub(super) async fn bury(line: &Line, knobs: &mut Knobs, missing: Vec<Sent<Leased>>) {
    if missing.is_empty() {
        return;
    }
    let Some(mut missing) = confirm::settle_found(line, knobs, missing, Patience::Full).await else {
        return;
    };
    for round in 1..=ROUNDS_UNSEEN {
        if missing.is_empty() || line.telling().has_shown() {
            break;
        }
        let wait = knobs.borrow().backoff.delay(round, fastrand::u64(..));
        if !pause_until(line, clock::now() + wait, false).await {
            return line.release(bare(missing)).await;
        }
        match confirm::settle_found(line, knobs, missing, Patience::Once).await {
            Some(still) => missing = still,
            None => return,
        }
    }
    if missing.is_empty() {
        return;
    }
    let graves = missing.into_iter().map(|sent| {
        let reason = reason(&sent);
        (
            sent.event,
            Burial {
                reason,
                status: Some(200),
                excerpt: None,
                attempts: sent.attempts,
            },
        )
    });
    line.spool().bury(line.lane(), graves.collect()).await;
}

fn reason(sent: &Sent<Leased>) -> String {
    if is_large(sent) {
        return "accepted but never stored: the API answered 200 and did not keep the event, which may be over 16 MiB in its \
                database (a list of numbers takes up to eight times its JSON there); shorten it"
            .into();
    }
    let how = match sent.form {
        EventForm::AsIs => "alone",
        EventForm::ZeroCounts => "alone and with token counts",
    };
    format!(
        "accepted but never stored: the API answered 200 and did not keep the event, even when it was sent {how}; \
         something in it cannot be stored, such as an integer beyond 64 bits or a NUL in a key"
    )
}

fn is_large(sent: &Sent<Leased>) -> bool {
    event::document_size(sent.event.record()) != DocumentSize::Fits
}

/// The numbers that stand for sessions. If all events of a project are to stay in order, they are of one.
fn session_of(knobs: &Knobs) -> impl Fn(&Sent<Leased>) -> Option<u64> + use<> {
    let in_order = knobs.borrow().concurrency == 1;
    move |sent| match in_order {
        true => Some(0),
        false => key_of(sent.event.record()),
    }
}
