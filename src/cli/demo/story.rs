//! The acts, one after the other.

use super::Stage;
use super::app::{Acknowledged, App};
use super::gauge::Gauge;
use super::screen::{self, Screen};
use super::tally::{Api, Restart, Tally};
use super::traffic::{self, Event};
use super::{table, tally};
use crate::ledger::Ledger;
use serde_json::json;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Events in one request of the app.
const TOGETHER: u32 = 20;
/// How often the ledger is looked at, to show it and to see whether all is delivered.
const LOOK: Duration = Duration::from_millis(30);
/// How long an act of sending lasts where a person watches; there is no waiting otherwise.
const ACT: Duration = Duration::from_millis(700);

/// Plays all acts and closes with the numbers. The error is a sentence.
pub(super) async fn play(
    stage: &mut Stage,
    screen: &Screen,
    events: u32,
    started: Instant,
) -> Result<(), String> {
    let feedback = traffic::feedback(0..events).len() as u64;
    screen.open(u64::from(events) + 1 + feedback);
    let [first, second, third] = [events / 4, events * 3 / 4, events * 7 / 8];
    let mut kept = Acknowledged::default();

    screen.act(
        "An app logs its LLM's answers, and its users' feedback. The daemon replies once they are \
         safe on disk, and passes them on to the API.",
    );
    stage.start_daemon().await?;
    let mut scene = Scene::set(stage, screen).await?;
    scene.send(0..first, None, &mut kept).await?;
    scene.drain(&kept).await?;

    screen.act(
        "The API goes down. The daemon goes on accepting: everything waits on disk, and the app \
         notices nothing.",
    );
    stage.sandbox.switch(json!({"down": true})).await?;
    scene.send(first..second, None, &mut kept).await?;
    stage.is_tried_in_vain().await?;
    let before = scene.settled().await?;
    screen.breathe().await;

    screen.act(
        "kill -9: the daemon dies on the spot, as in a crash. What it acknowledged is on disk, so \
         nothing is lost.",
    );
    stage.kill_daemon().await;
    screen.note(&format!(
        "dead, with {} waiting on disk",
        screen::count(before.queued)
    ));
    screen.breathe().await;
    let again = Instant::now();
    stage.start_daemon().await?;
    let took = again.elapsed();
    let mut scene = Scene::set(stage, screen).await?;
    let after = scene.gauge.ledger().await?;
    screen.note(&format!(
        "back after {} ms, and {} are waiting",
        took.as_millis(),
        screen::count(after.queued)
    ));
    screen.breathe().await;

    screen.act("The API comes back. The backlog flows off, while the app logs on.");
    stage.sandbox.switch(json!({"down": false})).await?;
    scene.send(second..third, None, &mut kept).await?;
    scene.drain(&kept).await?;

    screen.act(
        "One event is poison: the API fails on it, and so on every batch that holds it. The daemon \
         finds it, sets it aside, and delivers all others.",
    );
    let poison = traffic::poison().task_id;
    stage
        .sandbox
        .switch(json!({"fail_events": {poison: 500}}))
        .await?;
    scene
        .send(third..events, Some(traffic::poison()), &mut kept)
        .await?;
    let ledger = scene.drain(&kept).await?;

    let tally = Tally {
        acknowledged: kept,
        poison: traffic::poison().task_id,
        ledger,
        dead_letters: scene.gauge.dead_letters().await?,
        api: Api::of(&stage.sandbox),
        restart: Restart { before, after },
    };
    close(screen, &tally, started.elapsed())
}

/// The table, and whether it adds up.
fn close(screen: &Screen, tally: &Tally, took: Duration) -> Result<(), String> {
    screen.table(&table::numbers(tally));
    screen.table(&table::dead_letters(tally));
    let faults = tally::faults(tally);
    if faults.is_empty() {
        screen.verdict(&format!(
            "It adds up: nothing lost, nothing twice. {:.1} s.",
            took.as_secs_f64()
        ));
        screen.next_step();
        return Ok(());
    }
    Err(format!("the numbers do not add up: {}", faults.join("; ")))
}

/// The app and a view into the daemon, for one life of it.
struct Scene<'a> {
    screen: &'a Screen,
    app: App,
    gauge: Gauge,
}

impl<'a> Scene<'a> {
    async fn set(stage: &Stage, screen: &'a Screen) -> Result<Self, String> {
        let daemon = stage.daemon.as_ref().ok_or("the daemon is not running")?;
        Ok(Self {
            screen,
            app: App::connect(daemon).await?,
            gauge: Gauge::of(daemon)?,
        })
    }

    /// The app logs these events with their feedback, and one more event amid them. Shows the ledger as it goes.
    async fn send(
        &mut self,
        numbers: Range<u32>,
        amid: Option<Event>,
        kept: &mut Acknowledged,
    ) -> Result<(), String> {
        let pause = self.screen.pace(ACT, numbers.len().div_ceil(TOGETHER as usize));
        let sending = send(&mut self.app, numbers, amid, pause, kept);
        tokio::pin!(sending);
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                biased;
                sent = &mut sending => return sent,
                _ = look.tick() => self.screen.show(&self.gauge.ledger().await?),
            }
        }
    }

    /// Waits until nothing is queued, and leaves the ledger on the screen.
    async fn drain(&mut self, kept: &Acknowledged) -> Result<Ledger, String> {
        let sent = (kept.events.len() + kept.feedback.len()) as u64;
        let mut look = tokio::time::interval(LOOK);
        loop {
            look.tick().await;
            let ledger = self.gauge.ledger().await?;
            if ledger.queued == 0 && ledger.accepted >= sent {
                self.screen.settle(&ledger);
                return Ok(ledger);
            }
            self.screen.show(&ledger);
        }
    }

    /// Leaves the ledger as it is on the screen.
    async fn settled(&mut self) -> Result<Ledger, String> {
        let ledger = self.gauge.ledger().await?;
        self.screen.settle(&ledger);
        Ok(ledger)
    }
}

async fn send(
    app: &mut App,
    numbers: Range<u32>,
    mut amid: Option<Event>,
    pause: Duration,
    kept: &mut Acknowledged,
) -> Result<(), String> {
    for from in numbers.clone().step_by(TOGETHER as usize) {
        let part = from..numbers.end.min(from + TOGETHER);
        let mut events = traffic::events(part.clone());
        if let Some(event) = amid.take() {
            events.insert(events.len() / 2, event);
        }
        app.send(&events, &traffic::feedback(part), kept).await?;
        tokio::time::sleep(pause).await;
    }
    Ok(())
}
