//! One try to deliver one feedback. Reads the task first where the last try leaves a doubt.

use super::Settings;
use super::clock;
use super::confirm::LOOKS;
use super::crosscheck::{self, Weighed};
use super::line::{Knobs, Line};
use super::readback::{self, Read};
use super::roster::Entry;
use super::send::facts;
use super::turn::{Attempt, Request, Turn, is_closed};
use crate::feedback::Feedback;
use crate::ids::{IdError, Seq, TaskId};
use crate::secret::Secret;
use crate::spool::{Burial, Leased};
use crate::verdict::{self, FeedbackVerdict, Outcome};
use std::time::Instant;

/// A leased feedback and what is known about it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) event: Leased,
    pub(super) feedback: Feedback,
    /// How often it was posted.
    pub(super) attempts: u32,
    /// How often it was refused, or its answer lost.
    pub(super) failures: u32,
    /// How often its task's URL alone was answered oddly.
    pub(super) odd: u32,
    /// When a post's answer was lost last: it may still be executed for a while.
    pub(super) lost_at: Option<Instant>,
    /// When its answer was lost last.
    pub(super) unanswered: Option<Instant>,
    /// Since when that goes on while others are delivered in between.
    pub(super) unanswered_since: Option<Instant>,
    /// It waits because the upstream was busy.
    pub(super) busy: bool,
    /// When something in between refused it last, or the API its key.
    pub(super) blocked: Option<Instant>,
    /// How often something in between refused it.
    pub(super) refusals: u32,
    /// How often that was so again after another was delivered.
    pub(super) proofs: u32,
    /// What to do before it is posted again.
    pub(super) doubt: Doubt,
    /// When the API first said that it has no such task.
    pub(super) missing_since: Option<Instant>,
    /// How often it said so.
    pub(super) misses: u32,
    /// What it waits for although `feedback.wait_max` is over.
    pub(super) overdue: Option<Overdue>,
    /// Not to be tried before this moment.
    pub(super) not_before: Option<Instant>,
}

/// Why a feedback is not given up yet although its task did not appear within `feedback.wait_max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// Its log may be among those of the project that are still queued here, up to this one.
    Behind(Seq),
    /// These have ended since: it is looked for once more.
    LastLook,
}

/// What the last try leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Nothing: post it.
    None,
    /// The task was not there: look for it, because a post would be held for 31 s.
    Missing,
    /// The answer was lost: look whether the task bears it, because each post adds a row.
    Counted,
}

/// What a try brought.
#[derive(Debug)]
pub(super) enum Tried {
    /// The API has it.
    Delivered,
    /// The API refuses it. With the reason as anybody may see it, and the moment at which the attempt began.
    Refused(Burial, String, Instant),
    /// Something in between refuses it, or the API its key: the project's fault, or its own. With what to say of the project, and the
    /// moment at which the attempt began.
    Blocked {
        burial: Burial,
        own: bool,
        park: String,
        began: Instant,
    },
    /// A passing fault as an answer to this one; the lane knows of it.
    Again,
    /// The answer was lost, or a 5xx came in its place; the lane knows of it.
    Unanswered(Burial),
    /// The task is not there yet.
    NotYet,
    /// The task is not there, and its log event was given up.
    Orphaned(Burial),
    /// No URL of the API names the task.
    Unnamed(Burial),
    /// The task's URL alone was answered oddly: try again later, behind others.
    Odd,
    /// A passing fault; the lane knows of it.
    Failed,
    /// The lane waits for a person or for a key.
    Parked,
    /// Shutdown.
    Stopped,
}

impl Held {
    pub(super) fn new(event: Leased, feedback: Feedback) -> Self {
        // An earlier process may have posted it and died before it could write that down.
        let doubt = match event.is_from_before_start() {
            true => Doubt::Counted,
            false => Doubt::None,
        };
        Self {
            event,
            feedback,
            attempts: 0,
            failures: 0,
            odd: 0,
            lost_at: None,
            unanswered: None,
            unanswered_since: None,
            busy: false,
            blocked: None,
            refusals: 0,
            proofs: 0,
            doubt,
            missing_since: None,
            misses: 0,
            overdue: None,
            not_before: None,
        }
    }

    /// Tries once; after an answer that was lost with its connection, reads back and tries once more.
    pub(super) async fn attempt(&mut self, line: &Line, knobs: &mut Knobs) -> Tried {
        let settings = knobs.borrow_and_update().clone();
        let Some(key) = settings.key_for(&line.lane().project) else {
            return Tried::Parked;
        };
        let Some(_slot) = line.admit_feedback().await else {
            return Tried::Stopped;
        };
        if line.health().hold(clock::now()).is_some() {
            // That came up while it waited for the slot.
            return Tried::Failed;
        }
        self.busy = false;
        let mut stale = false;
        loop {
            if line.stop().is_draining() {
                return Tried::Stopped;
            }
            if !line.telling().names(self.feedback.task()) {
                return self.unnamed(None);
            }
            if let Some(tried) = self.clear_doubt(line, &settings, key).await {
                return self.unless_orphaned(tried, line).await;
            }
            match self.post(line, &settings, key).await {
                Posted::Tried(tried @ Tried::NotYet) => return self.unless_orphaned(tried, line).await,
                Posted::Tried(tried) => {
                    if matches!(tried, Tried::Failed | Tried::Again | Tried::Parked) {
                        line.wake_if_changed(knobs);
                    }
                    return tried;
                }
                Posted::Lost { closed: true, .. } if !stale => stale = true,
                Posted::Lost {
                    began, shown, burial, ..
                } => {
                    line.failing(began, None, &shown, &settings);
                    line.wake_if_changed(knobs);
                    return Tried::Unanswered(burial);
                }
            }
        }
    }

    /// Reads the task where the last try left a doubt. `None`: post now.
    async fn clear_doubt(&mut self, line: &Line, settings: &Settings, key: &Secret) -> Option<Tried> {
        let patience = settings.confirm_patience;
        let mut looks = LOOKS.into_iter().map(|look| patience * look / 1000);
        loop {
            let found = self.look(line, settings, key).await;
            let lost = self
                .lost_at
                .filter(|_| self.doubt == Doubt::Counted && found.is_none());
            // A post that was cut off may still be executed: only what is not there for a while was not counted.
            let next = lost.and_then(|lost| {
                let now = clock::now();
                looks.find(|look| lost + *look > now).map(|look| lost + look)
            });
            let Some(next) = next else { return found };
            tokio::select! {
                biased;
                () = line.stop().draining() => return Some(Tried::Stopped),
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
    }

    /// Reads the task once. `None`: post now.
    async fn look(&mut self, line: &Line, settings: &Settings, key: &Secret) -> Option<Tried> {
        if self.doubt == Doubt::None {
            return None;
        }
        let task = self.feedback.task();
        let get = || settings.upstream.read_task(task, key);
        let Attempt { began, outcome } = match line.ask(Request::Feedback, get).await {
            Ok(attempt) => attempt,
            Err(turn) => return Some(not_made(turn)),
        };
        let weighed = line
            .weigh(Request::Feedback, (task, key), settings, &mut self.odd, outcome)
            .await;
        let outcome = match weighed {
            Weighed::Upstream(outcome) => outcome,
            Weighed::AskAgain(wait) if wait.is_zero() => return Some(Tried::Failed),
            Weighed::AskAgain(_) => return Some(Tried::Odd),
            Weighed::Unnamed => return Some(self.unnamed(None)),
            Weighed::Stopped => return Some(Tried::Stopped),
        };
        if let Some(reason) = verdict::bars_reading(&outcome) {
            line.park(began, &reason, settings);
            return Some(Tried::Parked);
        }
        let (status, excerpt) = facts(&outcome);
        match readback::read(outcome) {
            Read::Stored(task) if self.doubt == Doubt::Counted && self.feedback.is_borne_by(&task) => {
                line.count("delivered");
                Some(Tried::Delivered)
            }
            Read::Stored(_) | Read::NoRoute => None,
            Read::Missing => Some(Tried::NotYet),
            Read::Unknown { asked, reason } => {
                line.failing(began, asked, &reason, settings);
                Some(match self.doubt {
                    Doubt::Counted => Tried::Unanswered(self.burial(reason, status, excerpt)),
                    Doubt::Missing | Doubt::None => Tried::Failed,
                })
            }
        }
    }

    /// A task that is not there will never be if its log event is a dead letter.
    async fn unless_orphaned(&self, tried: Tried, line: &Line) -> Tried {
        if !matches!(tried, Tried::NotYet) {
            return tried;
        }
        let task = self.feedback.task();
        match line
            .common
            .graves
            .of_log(line.spool(), &line.lane().project, task)
            .await
        {
            Some(grave) => {
                let reason = format!(
                    "the API has no task {task}, for its log event was given up: {} (dead letter {})",
                    grave.reason, grave.number
                );
                Tried::Orphaned(self.burial(reason, Some(404), None))
            }
            None => tried,
        }
    }

    /// What an answer that is about the project or the event's text comes to if this task's URL alone meets it. `None` if
    /// reading the task and a plain one does not show that.
    async fn is_about_the_id(
        &mut self,
        line: &Line,
        settings: &Settings,
        key: &Secret,
        outcome: &Outcome,
    ) -> Option<Tried> {
        let task = self.feedback.task();
        if task.is_plain() || !crosscheck::is_odd(outcome, task) {
            return None;
        }
        let get = || settings.upstream.get_task(task, key);
        let read = match line.ask(Request::Feedback, get).await {
            Ok(attempt) => attempt.outcome,
            Err(turn) => return Some(not_made(turn)),
        };
        if !crosscheck::is_odd(&read, task) {
            return None;
        }
        let weighed = line
            .weigh(Request::Feedback, (task, key), settings, &mut self.odd, read)
            .await;
        match weighed {
            Weighed::Upstream(_) => None,
            Weighed::AskAgain(wait) if wait.is_zero() => Some(Tried::Failed),
            Weighed::AskAgain(_) => Some(Tried::Odd),
            Weighed::Unnamed => Some(self.unnamed(facts(outcome).0)),
            Weighed::Stopped => Some(Tried::Stopped),
        }
    }

    fn unnamed(&self, status: Option<u16>) -> Tried {
        if !self.feedback.task().is_addressable() {
            return Tried::Unnamed(unaddressable(self.attempts));
        }
        let reason = "no URL of the API seems to name the task: its own is answered as if there were no such route, or \
                      refused, while those of other tasks are answered; choose ids of letters, digits, - and _";
        Tried::Unnamed(self.burial(reason.into(), status, None))
    }

    fn burial(&self, reason: String, status: Option<u16>, excerpt: Option<String>) -> Burial {
        Burial {
            reason,
            status,
            excerpt,
            attempts: self.attempts,
        }
    }

    async fn post(&mut self, line: &Line, settings: &Settings, key: &Secret) -> Posted {
        let body = self.feedback.upstream_body();
        let request = settings.upstream.post_feedback(self.feedback.task(), key, body);
        let Attempt { began, outcome } = match line.ask_once(Request::Feedback, request).await {
            Ok(attempt) => attempt,
            Err(turn) => return Posted::Tried(not_made(turn)),
        };
        self.attempts = self.attempts.saturating_add(1);
        let (status, excerpt) = facts(&outcome);
        let verdict = verdict::of_feedback(&outcome);
        line.count(name(&verdict));
        self.doubt = Doubt::None;
        if matches!(
            verdict,
            FeedbackVerdict::Park { .. } | FeedbackVerdict::Blocked(_)
        ) && let Some(tried) = self.is_about_the_id(line, settings, key, &outcome).await
        {
            return Posted::Tried(tried);
        }
        Posted::Tried(match verdict {
            FeedbackVerdict::Delivered => Tried::Delivered,
            FeedbackVerdict::NotYet => {
                self.doubt = Doubt::Missing;
                Tried::NotYet
            }
            FeedbackVerdict::ReadBack { reason } => {
                if status == Some(500) {
                    // Else a parked lane whose first feedback is poison would probe with it for ever.
                    line.unpark(&reason.to_string());
                }
                self.doubt = Doubt::Counted;
                self.lost_at = Some(clock::now());
                return Posted::Lost {
                    closed: is_closed(&outcome),
                    began,
                    shown: reason.to_string(),
                    burial: self.burial(reason.for_letter(), status, excerpt),
                };
            }
            FeedbackVerdict::Refused { reason } => {
                let shown = reason.to_string();
                Tried::Refused(self.burial(reason.for_letter(), status, excerpt), shown, began)
            }
            FeedbackVerdict::Park { reason } => {
                line.park(began, &reason, settings);
                Tried::Parked
            }
            FeedbackVerdict::Blocked(blocked) => Tried::Blocked {
                burial: self.burial(blocked.refusal, status, excerpt),
                own: blocked.own,
                park: blocked.park,
                began,
            },
            FeedbackVerdict::Retry { after, reason } => {
                line.failing(began, after, &reason, settings);
                Tried::Again
            }
        })
    }
}

/// What a post brought.
enum Posted {
    /// An end of this try.
    Tried(Tried),
    /// The answer was lost.
    Lost {
        /// With the connection: most often one that the server had closed before.
        closed: bool,
        began: Instant,
        /// The reason as anybody may see it.
        shown: String,
        burial: Burial,
    },
}

/// What a try comes to whose attempt was not made.
fn not_made(turn: Turn) -> Tried {
    match turn {
        Turn::Stopped => Tried::Stopped,
        Turn::Go | Turn::Parked => Tried::Failed,
    }
}

impl Entry for Held {
    fn task(&self) -> &TaskId {
        self.feedback.task()
    }
    fn seq(&self) -> Seq {
        self.event.seq()
    }
    fn not_before(&self) -> Option<Instant> {
        self.not_before
    }
    fn wake(&mut self) {
        self.not_before = None;
    }
    fn bytes(&self) -> usize {
        self.event.record().len()
    }
}

/// Why a feedback is given up whose task no URL can name.
pub(super) fn unaddressable(attempts: u32) -> Burial {
    Burial {
        reason: IdError::Unaddressable("task_id").to_string(),
        status: None,
        excerpt: None,
        attempts,
    }
}

fn name(verdict: &FeedbackVerdict) -> &'static str {
    match verdict {
        FeedbackVerdict::Delivered => "delivered",
        FeedbackVerdict::NotYet => "not_yet",
        FeedbackVerdict::ReadBack { .. } => "read_back",
        FeedbackVerdict::Refused { .. } => "refused",
        FeedbackVerdict::Park { .. } => "park",
        FeedbackVerdict::Blocked(_) => "blocked",
        FeedbackVerdict::Retry { .. } => "retry",
    }
}
