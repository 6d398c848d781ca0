//! Queues dead letters again, or removes them. Goes through them in portions, so that memory stays bounded however many are
//! meant, and never beyond those that were there when it began: one that dies again would else be met again.

use super::asked::{Asked, Filter};
use crate::event::{Event, Stamps};
use crate::feedback::Feedback;
use crate::http::LongWork;
use crate::ids::{Kind, Lane};
use crate::redact::Screen;
use crate::spool::{DeadLetter, KeptLetter, MAX_LETTERS, Revived, Spool};
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// Letters that are read at once, while others wait for the spool's thread.
const PORTION: usize = 250;
/// Bytes of records that are queued again at once.
const PORTION_BYTES: usize = 4 * 1024 * 1024;
/// Failures that an answer tells one by one.
const MAX_TOLD: usize = 100;
/// What the daemon may have added to an event that was just within `intake.max_event_bytes`.
const ADDED_BYTES: usize = 8 * 1024;

/// What became of the letters that were meant.
#[derive(Debug, Default, Serialize)]
pub(super) struct Done {
    /// How many are queued again, or were removed.
    pub(super) done: u64,
    /// How many are not.
    pub(super) failed: u64,
    /// The first of those, with the reason of each.
    pub(super) failures: Vec<Failure>,
}

#[derive(Debug, Serialize)]
pub(super) struct Failure {
    number: u64,
    error: String,
}

impl Done {
    fn fail(&mut self, number: u64, error: impl Into<String>) {
        self.failed += 1;
        if self.failures.len() < MAX_TOLD {
            let error = error.into();
            self.failures.push(Failure { number, error });
        }
    }
}

/// Ended early: what was done before, and why.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) done: Done,
    pub(super) sentence: String,
}

/// Queues letters again.
pub(super) async fn requeue(spool: &Spool, asked: Asked<'_>, check: &Check) -> Result<Done, Broken> {
    let mut work = Requeue {
        spool,
        check,
        portion: Vec::new(),
        bytes: 0,
        done: Done::default(),
    };
    let ended = work.all(asked).await;
    work.done.ended(ended)
}

/// Removes letters for good.
pub(super) async fn purge(spool: &Spool, asked: Asked<'_>) -> Result<Done, Broken> {
    let mut done = Done::default();
    let ended = match asked {
        Asked::These(numbers) => purge_these(spool, &numbers, &mut done).await,
        Asked::All(filter) => purge_all(spool, &filter, &mut done).await,
        Asked::Edited(..) => Err("a record is for requeue: send {\"ids\": [1]}".to_owned()),
    };
    done.ended(ended)
}

impl Done {
    fn ended(self, ended: Result<(), String>) -> Result<Done, Broken> {
        match ended {
            Ok(()) => Ok(self),
            Err(sentence) => Err(Broken { done: self, sentence }),
        }
    }
}

async fn purge_these(spool: &Spool, numbers: &BTreeSet<u64>, done: &mut Done) -> Result<(), String> {
    let purged = spool
        .purge(numbers.clone())
        .await
        .map_err(|error| error.to_string())?;
    done.done = purged;
    done.failed = (numbers.len() as u64).saturating_sub(purged);
    Ok(())
}

async fn purge_all(spool: &Spool, filter: &Filter, done: &mut Done) -> Result<(), String> {
    let mut pages = Pages::default();
    while let Some(letters) = pages.next(spool).await? {
        let meant = letters.iter().filter(|kept| filter.passes(kept));
        let numbers: BTreeSet<u64> = meant.map(|kept| kept.number).collect();
        if !numbers.is_empty() {
            done.done += spool.purge(numbers).await.map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// All letters there are, in portions.
#[derive(Default)]
struct Pages {
    after: Option<u64>,
    /// Letters from this number on came after the first look.
    end: Option<u64>,
    over: bool,
}

impl Pages {
    async fn next(&mut self, spool: &Spool) -> Result<Option<Vec<KeptLetter>>, String> {
        if self.over {
            return Ok(None);
        }
        let page = spool.dead_letters(self.after, PORTION).await;
        let mut page = page.map_err(|error| error.to_string())?;
        let end = *self.end.get_or_insert(page.end);
        page.letters.retain(|kept| kept.number < end);
        self.after = page.next;
        self.over = page.next.is_none_or(|next| next.saturating_add(1) >= end);
        Ok(Some(page.letters))
    }
}

/// How a record is checked on its way back.
#[derive(Debug, Clone)]
pub(super) struct Check {
    /// `intake.max_event_bytes`.
    pub(super) max_event_bytes: usize,
    /// What is taken out of it: it may be older than the rules, or come from an editor.
    pub(super) screen: Option<Screen>,
    /// Where a large record is checked.
    pub(super) work: LongWork,
}

struct Requeue<'a> {
    spool: &'a Spool,
    check: &'a Check,
    portion: Vec<Revived>,
    bytes: usize,
    done: Done,
}

impl Requeue<'_> {
    async fn all(&mut self, asked: Asked<'_>) -> Result<(), String> {
        match asked {
            Asked::These(numbers) => {
                for number in numbers {
                    self.one(number, None).await?;
                }
            }
            Asked::Edited(number, record) => self.one(number, Some(record.get().as_bytes())).await?,
            Asked::All(filter) => {
                let mut pages = Pages::default();
                while let Some(letters) = pages.next(self.spool).await? {
                    for kept in letters.into_iter().filter(|kept| filter.passes(kept)) {
                        self.take(kept, None).await?;
                    }
                    self.queue().await?;
                }
            }
        }
        self.queue().await
    }

    async fn one(&mut self, number: u64, record: Option<&[u8]>) -> Result<(), String> {
        match find(self.spool, number).await? {
            Some(kept) => self.take(kept, record).await,
            None => {
                self.done.fail(number, GONE);
                Ok(())
            }
        }
    }

    /// Checks a letter, and queues the portion once it is large enough.
    async fn take(&mut self, kept: KeptLetter, record: Option<&[u8]>) -> Result<(), String> {
        let number = kept.number;
        let revived = match kept.letter {
            Ok(letter) => {
                let bytes = record.map_or(letter.record.len(), <[u8]>::len);
                let work = &self.check.work;
                work.run(bytes, || revive(number, &letter, record, self.check))
                    .await
            }
            Err(reason) => Err(format!(
                "it cannot be read ({reason}): purge it, or see phosphod spool verify"
            )),
        };
        match revived {
            Ok(revived) => {
                self.bytes += revived.record.len();
                self.portion.push(revived);
            }
            Err(error) => self.done.fail(number, error),
        }
        match self.portion.len() >= MAX_LETTERS || self.bytes >= PORTION_BYTES {
            true => self.queue().await,
            false => Ok(()),
        }
    }

    async fn queue(&mut self) -> Result<(), String> {
        let portion = std::mem::take(&mut self.portion);
        self.bytes = 0;
        if portion.is_empty() {
            return Ok(());
        }
        let count = portion.len() as u64;
        let gone = self
            .spool
            .requeue(portion)
            .await
            .map_err(|error| error.to_string())?;
        self.done.done += count - gone.len() as u64;
        for number in gone {
            self.done.fail(number, GONE);
        }
        Ok(())
    }
}

const GONE: &str = "there is no such dead letter: it was queued again, purged or dropped, or never was";

/// One letter.
pub(super) async fn find(spool: &Spool, number: u64) -> Result<Option<KeptLetter>, String> {
    let Some(before) = number.checked_sub(1) else {
        return Ok(None);
    };
    let page = spool.dead_letters(Some(before), 1).await;
    let found = page
        .map_err(|error| error.to_string())?
        .letters
        .into_iter()
        .next();
    Ok(found.filter(|kept| kept.number == number))
}

/// A letter on its way back: its record, or the one in its place, checked as at the door. A letter that was never valid is
/// refused here again.
fn revive(number: u64, letter: &DeadLetter, record: Option<&[u8]>, check: &Check) -> Result<Revived, String> {
    let raw = record.unwrap_or(&letter.record);
    let screened = check.screen.as_ref().and_then(|screen| screen.apply(raw));
    let raw = screened.as_deref().unwrap_or(raw);
    let max_event_bytes = check.max_event_bytes;
    let most = max_event_bytes.saturating_add(ADDED_BYTES);
    if raw.len() > most {
        return Err(format!(
            "it has {} bytes, over the limit of {max_event_bytes} (intake.max_event_bytes): shorten it with requeue --edit, or raise \
             the limit",
            raw.len()
        ));
    }
    let project = Some(&letter.lane.project);
    let kind = letter.lane.kind;
    let (project, record) = match kind {
        Kind::Log => {
            let stamps = Stamps {
                project,
                now_s: now_s(),
                task: Uuid::new_v4(),
            };
            let event = Event::parse(raw, &stamps).map_err(|refusal| refusal.to_string())?;
            (event.project().clone(), event.into_json())
        }
        Kind::Feedback => {
            let feedback = Feedback::parse(raw, None, project).map_err(|refusal| refusal.to_string())?;
            (feedback.project().clone(), feedback.to_record())
        }
    };
    Ok(Revived {
        number,
        lane: Lane { project, kind },
        record,
    })
}

/// Seconds since 1970; a clock before that counts as 0, which the API replaces by its own time.
fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ProjectId, Seq};
    use crate::spool::Burial;

    fn letter(kind: Kind, record: &str) -> DeadLetter {
        let project = ProjectId::new("p").expect("an id");
        DeadLetter {
            seq: Seq(3),
            lane: Lane { project, kind },
            buried_at_ms: 5,
            burial: Burial {
                reason: "why".into(),
                status: None,
                excerpt: None,
                attempts: 2,
            },
            record: record.into(),
        }
    }

    fn check(max_event_bytes: usize) -> Check {
        Check {
            max_event_bytes,
            screen: None,
            work: LongWork::new(false),
        }
    }

    fn text(revived: Result<Revived, String>) -> String {
        String::from_utf8(revived.expect("it passes").record).expect("text")
    }

    #[test]
    fn what_was_valid_comes_back_byte_for_byte() {
        let log = r#"{"task_id":"t","client_created_at":1,"project_id":"p","input":"a", "n": 1.50}"#;
        assert_eq!(text(revive(1, &letter(Kind::Log, log), None, &check(1000))), log);
        let feedback = r#"{"task_id":"t","project_id":"p","flag":"success"}"#;
        assert_eq!(
            text(revive(1, &letter(Kind::Feedback, feedback), None, &check(1000))),
            feedback
        );
    }

    #[test]
    fn what_was_never_valid_is_refused_again_and_taken_once_it_is_mended() {
        let bad = letter(Kind::Log, r#"{"input": 1, "task_id": "t"}"#);
        let error = revive(1, &bad, None, &check(1000)).expect_err("an integer");
        assert!(error.contains("input is an integer"), "{error}");
        let mended = text(revive(
            1,
            &bad,
            Some(br#"{"input": "1", "task_id": "t"}"#),
            &check(1000),
        ));
        assert!(
            mended.contains(r#""project_id":"p""#) && mended.contains(r#""task_id": "t""#),
            "{mended}"
        );
        let elsewhere = revive(
            1,
            &bad,
            Some(br#"{"input": "1", "project_id": "q"}"#),
            &check(1000),
        );
        assert_eq!(elsewhere.expect("it passes").lane.project.as_str(), "q");
    }

    #[test]
    fn what_is_too_large_is_refused_again() {
        let large = format!(r#"{{"input":"{}"}}"#, "x".repeat(ADDED_BYTES + 100));
        let error = revive(1, &letter(Kind::Log, &large), None, &check(50)).expect_err("too large");
        assert!(error.contains("intake.max_event_bytes"), "{error}");
    }
}
