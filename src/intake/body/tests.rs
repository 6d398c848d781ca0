use super::*;
use crate::http::{Gate, SHORT_BYTES};
use crate::intake::Settings;
use crate::metrics::Metrics;
use crate::redact::{Detector, Redactor, Rules};
use crate::spool::{self, OnFull, Spool};
use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

fn spool(folder: &Path) -> Spool {
    let settings = spool::Settings {
        path: folder.to_owned(),
        max_bytes: 1 << 30,
        on_full: OnFull::default(),
        min_free_bytes: 0,
        generation_bytes: 64 << 20,
        dead_max_bytes: 1 << 30,
        dead_max_age: Duration::from_secs(86_400),
    };
    Spool::open(settings).unwrap()
}

fn intake(folder: &Path) -> Intake {
    let rules = Rules {
        detect: Detector::ALL.to_vec(),
        ..Rules::default()
    };
    let settings = Settings {
        max_body_bytes: 16 << 20,
        max_in_flight_bytes: 64 << 20,
        max_event_bytes: 16 << 20,
        default_project: Some(ProjectId::new("p").unwrap()),
        gate: Gate::default(),
        redactor: Some(Arc::new(Redactor::new(rules).unwrap())),
    };
    Intake::new(settings, spool(folder), Arc::new(Metrics::new()))
}

fn event(bytes: usize) -> Bytes {
    format!(r#"{{"input":"{}"}}"#, "a@b.co ".repeat(bytes / 7)).into()
}

async fn whole(intake: &Intake, body: Bytes) -> StatusCode {
    let room = intake.budget.reserve(body.len(), Duration::ZERO).await.unwrap();
    let door = intake.door(intake.settings.default_project.clone());
    let reply = intake.whole(body, room, Form::Any, &door).await;
    reply.unwrap_or_else(|refused| *refused).status()
}

/// In two pieces, the first of which has so many bytes.
async fn stream(intake: &Intake, body: Bytes, first: usize) -> StatusCode {
    let room = intake.budget.reserve(HELD_BYTES, Duration::ZERO).await.unwrap();
    let door = intake.door(intake.settings.default_project.clone());
    let mut stream = Stream::new(intake, Form::Any, &door, room);
    let (first, second) = body.split_at(first);
    stream.take(first).await.unwrap();
    stream.take(second).await.unwrap();
    stream.finish().await.unwrap().status()
}

async fn polled_once(mut future: Pin<&mut impl Future<Output = StatusCode>>) -> Option<StatusCode> {
    poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(status) => Some(status),
            Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn large_bodies_are_looked_at_in_their_turn_and_small_ones_do_not_wait() {
    const MANY: usize = 4_000;
    let folder = tempfile::tempdir().unwrap();
    let intake = intake(folder.path());
    let turn = intake.work.hold_up().await;
    let many = format!("[{}]", vec![r#"{"input":"a@b.co, a@b.co"}"#; MANY].join(","));
    let half = many.len() / 2;
    let mut large = pin!(whole(&intake, event(SHORT_BYTES)));
    let mut long = pin!(stream(&intake, event(SHORT_BYTES), 100));
    let mut several = pin!(stream(&intake, many.into(), half));
    // What they hand to the spool would be there before what the small one hands to it.
    for _ in 0..2 {
        assert_eq!(polled_once(large.as_mut()).await, None);
        assert_eq!(polled_once(long.as_mut()).await, None);
        assert_eq!(polled_once(several.as_mut()).await, None);
        assert_eq!(whole(&intake, event(100)).await, StatusCode::OK);
    }
    assert_eq!(intake.spool.ledger().accepted, 2);
    drop(turn);
    // Side by side: who has his turn must be polled to give it on.
    let (large, long, several) = tokio::join!(large, long, several);
    assert_eq!([large, long, several], [StatusCode::OK; 3]);
    assert_eq!(intake.spool.ledger().accepted, 4 + MANY as u64);
    intake.spool.close().await;
}

#[tokio::test]
async fn a_request_that_goes_away_in_line_stores_nothing_and_gives_back_its_room() {
    let folder = tempfile::tempdir().unwrap();
    let intake = intake(folder.path());
    let turn = intake.work.hold_up().await;
    {
        let mut large = pin!(whole(&intake, event(SHORT_BYTES)));
        assert_eq!(polled_once(large.as_mut()).await, None);
        assert!(intake.metrics.intake_in_flight_bytes.get() > 0);
    }
    drop(turn);
    assert_eq!(intake.metrics.intake_in_flight_bytes.get(), 0);
    assert_eq!(whole(&intake, event(SHORT_BYTES)).await, StatusCode::OK);
    assert_eq!(intake.spool.ledger().accepted, 1);
    intake.spool.close().await;
}
