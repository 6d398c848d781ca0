//! Log requests of any size: a small body is taken as a whole, a larger one as a stream.
//!
//! The events of a stream are stored in groups while the rest of it is on its way, and answered once, at its end. So what
//! ends a stream in the middle leaves the groups before that on disk: the answer is a 503, the client sends all of it again,
//! and the API keeps each task id once. Before the first group is stored such a body is refused as a whole.

use super::log::{Door, Plan};
use super::{EVENTS_A_TURN, Id, Intake, RETRY_AFTER_S, held, no_room, now_s, refusal_of, unprocessable};
use crate::event::Refusal;
use crate::http::{Call, EVENT_BYTES, First, Refused, Reply, Reservation, json, unavailable};
use crate::ids::ProjectId;
use crate::wire::reply::LoggedEvents;
use crate::wire::split::{Element, Form, Splitter};
use crate::wire::{self, BodyError};
use bytes::Bytes;
use hyper::StatusCode;
use uuid::Uuid;

/// A body of up to so many bytes is taken as a whole. A longer one holds as much at a time, and more for an event that alone
/// is longer.
const HELD_BYTES: usize = 4 * 1024 * 1024;

impl Intake {
    pub(super) async fn log(&self, mut call: Call, id: Id) -> Result<Reply, Refused> {
        let (project, form) = match id {
            Id::LogTo => {
                let project = ProjectId::new(&call.param()?);
                let project = project.map_err(|error| unprocessable(&error.to_string()))?;
                (Some(project), Form::Batch)
            }
            _ => (self.settings.default_project.clone(), Form::Any),
        };
        let door = self.door(project);
        let most = HELD_BYTES.min(self.budget.most_bytes());
        let (body, room) = match call.first_part(most, &self.budget).await? {
            (First::Whole(body), room) => return self.whole(body, room, form, &door).await,
            (First::Part(body), room) => (body, room),
        };
        let mut stream = Stream::new(self, form, &door, room);
        let mut part = body;
        loop {
            if let Err(refused) = stream.take(&part).await {
                return Err(Box::new(call.unread(*refused)));
            }
            part = match call.next_part().await? {
                Some(part) => part,
                None => return stream.finish().await,
            };
        }
    }

    /// A body that is here as a whole: nothing is stored before all of it was looked at.
    async fn whole(
        &self,
        body: Bytes,
        mut room: Reservation,
        form: Form,
        door: &Door,
    ) -> Result<Reply, Refused> {
        let most = HELD_BYTES.min(self.budget.most_bytes());
        let events = wire::split_whole(&body, form, self.hold_bytes(), most / EVENT_BYTES);
        let Some(events) = events.map_err(|error| unprocessable(&error.to_string()))? else {
            // Events that tiny take many times the body's memory. They are stored with what room there is.
            let _ = room.grow_to(most);
            let mut stream = Stream::new(self, form, door, room);
            stream.take(&body).await?;
            return stream.finish().await;
        };
        room.grow_to(events.len() * EVENT_BYTES)
            .map_err(|no_room| Box::new(unavailable(&no_room.to_string(), RETRY_AFTER_S)))?;
        let (plan, reply) = match self.plan(&events, door).await {
            Ok(planned) => planned,
            Err(refusal) => return Err(unprocessable(&sentence(&refusal, &events, &body))),
        };
        if plan.entries.is_empty()
            && let Some(sentence) = &plan.no_room
        {
            return Err(no_room(sentence));
        }
        // A large body need not stay while the disk is written.
        drop(events);
        drop(body);
        self.store(plan).await?;
        Ok(json(StatusCode::OK, held(reply.finish(), room)))
    }

    async fn plan(&self, events: &[Element<'_>], door: &Door) -> Result<(Plan, LoggedEvents), Refusal> {
        let now_s = now_s();
        let mut plan = Plan::default();
        plan.entries.reserve_exact(events.len());
        let mut reply = LoggedEvents::new(events.len(), usize::MAX);
        for (turn, events) in events.chunks(EVENTS_A_TURN).enumerate() {
            if turn > 0 {
                tokio::task::yield_now().await;
            }
            for event in events {
                plan.add(event, door, now_s, Uuid::new_v4(), &mut reply)?;
            }
        }
        Ok((plan, reply))
    }

    /// Resolves once it is on disk, and counts it then.
    async fn store(&self, plan: Plan) -> Result<(), Refused> {
        self.append(plan.entries)
            .await
            .map_err(|error| refusal_of(&error))?;
        self.counters.logs.inc_by(plan.accepted);
        self.counters.refused_logs.inc_by(plan.refused);
        self.note_odd_times(&plan.odd_times);
        Ok(())
    }

    /// Most bytes of one event that are held: an event that is only somewhat too large is kept whole, so that it can be
    /// queued again once `intake.max_event_bytes` is raised.
    fn hold_bytes(&self) -> usize {
        let twice = self.settings.max_event_bytes.saturating_mul(2);
        twice.min(self.budget.most_bytes())
    }
}

/// Why a whole body is refused. If it is one event and not JSON, places are those in the body.
fn sentence(refusal: &Refusal, events: &[Element<'_>], body: &[u8]) -> String {
    let fault = match events {
        [event] if event.is_body => wire::explain_event(wire::json::without_mark(body)).err(),
        _ => None,
    };
    fault.map_or_else(|| refusal.to_string(), |fault: BodyError| fault.to_string())
}

/// A body that is stored while it comes.
struct Stream<'a> {
    intake: &'a Intake,
    door: &'a Door,
    form: Form,
    splitter: Splitter,
    plan: Plan,
    reply: LoggedEvents,
    room: Reservation,
    /// How much room it has unless an event needs more.
    usual_room: usize,
    /// Events that are on disk.
    stored: u64,
    /// Why some were not taken for want of room for their projects.
    no_room: Option<String>,
}

impl<'a> Stream<'a> {
    fn new(intake: &'a Intake, form: Form, door: &'a Door, room: Reservation) -> Self {
        let usual_room = room.bytes();
        Self {
            intake,
            door,
            form,
            splitter: Splitter::new(form, intake.hold_bytes()),
            plan: Plan::default(),
            reply: LoggedEvents::new(0, usual_room / 4),
            room,
            usual_room,
            stored: 0,
            no_room: None,
        }
    }

    /// Takes the next piece of the body, and stores the groups that it completes.
    async fn take(&mut self, piece: &[u8]) -> Result<(), Refused> {
        let mut left = piece;
        let mut now = now_s();
        let mut turn = 0;
        loop {
            let event = match self.splitter.next(&mut left) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(fault) => return Err(self.refusal(&fault.of_stream(self.form).to_string())),
            };
            let added = self
                .plan
                .add(&event, self.door, now, Uuid::new_v4(), &mut self.reply);
            added.map_err(|refusal| self.refusal(&refusal.to_string()))?;
            turn += 1;
            if self.plan.weight >= self.usual_room / 2 {
                self.store().await?;
                now = now_s();
            } else if turn % EVENTS_A_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        self.make_room().await
    }

    /// The body has ended: stores what is left, and answers.
    async fn finish(mut self) -> Result<Reply, Refused> {
        if let Err(fault) = self.splitter.finish() {
            return Err(self.refusal(&fault.of_stream(self.form).to_string()));
        }
        self.store().await?;
        match (&self.no_room, self.stored) {
            (Some(sentence), 0) => Err(no_room(sentence)),
            _ => Ok(json(StatusCode::OK, held(self.reply.finish(), self.room))),
        }
    }

    async fn store(&mut self) -> Result<(), Refused> {
        let mut plan = std::mem::take(&mut self.plan);
        self.no_room = plan.no_room.take().or_else(|| self.no_room.take());
        let events = plan.accepted + plan.refused;
        self.intake.store(plan).await?;
        self.stored += events;
        Ok(())
    }

    fn held(&self) -> usize {
        self.splitter.held() + self.plan.weight + self.reply.bytes()
    }

    /// Makes the room fit what is held. Who holds room never waits for more: what is not to be had is a 503.
    async fn make_room(&mut self) -> Result<(), Refused> {
        if self.held() > self.room.bytes() {
            self.store().await?;
        }
        let held = self.held();
        if held <= self.room.bytes() {
            self.room.shrink_to(self.usual_room.max(held));
            return Ok(());
        }
        // By doubling, so that a long event does not ask for every piece.
        let wanted = held.max((2 * self.room.bytes()).min(self.intake.budget.most_bytes()));
        if self.room.grow_to(wanted).is_ok() {
            return Ok(());
        }
        self.reply.omit_all();
        self.room
            .grow_to(self.held())
            .map_err(|no_room| Box::new(unavailable(&no_room.to_string(), RETRY_AFTER_S)))
    }

    /// The answer to a body that cannot be read on. Sending it again is of no use if nothing is stored; else the client must know
    /// that it was not taken as a whole.
    fn refusal(&self, sentence: &str) -> Refused {
        match self.stored {
            0 => unprocessable(sentence),
            stored => {
                let sentence = format!("{sentence}. The first {stored} events were stored");
                Box::new(unavailable(&sentence, RETRY_AFTER_S))
            }
        }
    }
}
