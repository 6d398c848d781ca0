//! What stands between here and the API and dislikes some of what is sent.

use crate::bench::{Bench, LONG, event, events, settings, task, tasks, until};
use crate::way::{Fate, Way};
use phosphod::board::LaneState;
use phosphod::courier;
use phosphod::feedback::Feedback;
use phosphod::ids::Kind;
use phosphod::spool::Entry;
use serde_json::json;

/// What the firewall dislikes.
const ATTACK: &str = "1 union select 2";
const PAGE: &str = "<html>Sorry, you have been blocked</html>";

/// A bench whose requests go through a firewall.
async fn behind(
    judge: impl Fn(&str, &str) -> Fate + Send + Sync + 'static,
    change: impl FnOnce(&mut courier::Settings),
) -> (Bench, Way) {
    let bench = Bench::new().await;
    let way = Way::to(&bench.sandbox.base_url(), usize::MAX, judge).await;
    bench.change(|settings| {
        settings.upstream = way.upstream(LONG);
        change(settings);
    });
    (bench, way)
}

fn attack(task: &str) -> String {
    json!({"input": ATTACK, "task_id": task}).to_string()
}

fn blocks(status: u16) -> impl Fn(&str, &str) -> Fate + Send + Sync + 'static {
    move |_, body| match body.contains(ATTACK) {
        true => Fate::Answer(status, PAGE.into()),
        false => Fate::Pass,
    }
}

#[tokio::test]
async fn one_event_that_a_firewall_refuses_dies_alone_whatever_the_firewall_says() {
    for status in [302, 400, 401, 403, 404, 405, 406, 409, 418, 422, 451] {
        for at in [0, 7, 39] {
            let (bench, _) = behind(blocks(status), |_| {}).await;
            let mut records: Vec<String> = events(0..40).collect();
            records[at] = attack("evil");
            bench.log("p", records).await;
            let ledger = bench.drained().await;
            assert_eq!((ledger.delivered, ledger.dead), (39, 1), "{status} at {at}");
            let dead = bench.dead().await.remove(0);
            assert_eq!(
                (dead.burial.status, dead.burial.excerpt.as_deref()),
                (Some(status), Some(PAGE))
            );
            let said = format!("refused with {status} by something between here and the API");
            assert!(dead.burial.reason.starts_with(&said), "{}", dead.burial.reason);
            assert!(String::from_utf8_lossy(&dead.record).contains("evil"));
            assert_eq!(bench.finish().await.duplicates, 0);
        }
    }
}

#[tokio::test]
async fn many_such_events_in_a_row_and_one_by_one_do_not_hold_up_the_others() {
    let (bench, _) = behind(blocks(403), |settings| settings.batch.max_events = 3).await;
    bench.log("p", (0..9).map(|n| attack(&format!("evil{n}")))).await;
    bench.is_in("p", Kind::Log, "parked").await;
    bench.log("p", events(0..40)).await;
    let ledger = bench.drained().await;
    assert_eq!((ledger.delivered, ledger.dead), (40, 9));
    let mut stored = bench.stored("p");
    stored.sort_unstable();
    assert_eq!(stored, tasks(0..40));
    bench.finish().await;
}

#[tokio::test]
async fn what_refuses_everything_parks_the_lane_and_buries_nothing() {
    for (status, word) in [
        (403, "something between here and the API answered 403"),
        (302, "redirect"),
        (400, "not the API's own"),
        (407, "407"),
    ] {
        let (bench, way) = behind(move |_, _| Fate::Answer(status, PAGE.into()), |_| {}).await;
        bench.log("p", events(0..200)).await;
        let LaneState::Parked { reason } = bench.is_in("p", Kind::Log, "parked").await else {
            panic!("it is parked");
        };
        assert!(reason.contains(word), "{reason}");
        // It goes on looking, with more than one event now and then.
        until("it was probed", || way.posts().len() > 60).await;
        assert_eq!(bench.spool.ledger().queued, 200, "{status}");
        way.change(|_, _| Fate::Pass);
        let ledger = bench.drained().await;
        assert_eq!((ledger.delivered, ledger.dead), (200, 0), "{status}");
        assert_eq!(bench.finish().await.duplicates, 0);
    }
}

#[tokio::test]
async fn a_refusal_in_the_api_s_own_words_that_only_one_event_meets_dies_alone_too() {
    let own = |_: &str, body: &str| match body.contains(ATTACK) {
        true => Fate::Answer(403, r#"{"detail":"Forbidden"}"#.into()),
        false => Fate::Pass,
    };
    let (bench, _) = behind(own, |_| {}).await;
    let mut records: Vec<String> = events(0..40).collect();
    records[7] = attack("evil");
    bench.log("p", records).await;
    let ledger = bench.drained().await;
    assert_eq!((ledger.delivered, ledger.dead), (39, 1));
    let dead = bench.dead().await.remove(0);
    assert!(
        dead.burial.reason.contains("403: Forbidden, while others pass"),
        "{}",
        dead.burial.reason
    );
    bench.finish().await;
}

#[tokio::test]
async fn one_event_that_always_runs_out_of_time_holds_up_neither_the_others_nor_feedback() {
    for fate in [
        Fate::Answer(504, "{}".into()),
        Fate::Answer(408, "{}".into()),
        Fate::Answer(503, PAGE.into()),
        Fate::Answer(200, PAGE.into()),
        Fate::Reset,
    ] {
        let what = format!("{fate:?}");
        let judge = move |_: &str, body: &str| match body.contains(ATTACK) {
            true => fate.clone(),
            false => Fate::Pass,
        };
        let (bench, way) = behind(judge, |_| {}).await;
        let mut records: Vec<String> = events(0..40).collect();
        records[7] = attack(&task(7));
        bench.log("p", records).await;
        bench.feedback("p", &task(20), "success").await;
        until(&what, || bench.spool.ledger().delivered == 40).await;
        assert_eq!(bench.metrics.delivery_deferred_events.get(), 1, "{what}");
        bench.log("p", events(40..80)).await;
        until(&what, || bench.spool.ledger().delivered == 80).await;
        let ledger = bench.spool.ledger();
        assert_eq!((ledger.queued, ledger.dead), (1, 0), "{what}");
        way.change(|_, _| Fate::Pass);
        let ledger = bench.drained().await;
        assert_eq!((ledger.delivered, ledger.dead), (81, 0), "{what}");
        assert_eq!(bench.metrics.delivery_deferred_events.get(), 0, "{what}");
        bench.finish().await;
    }
}

#[tokio::test]
async fn shutdown_gives_back_what_is_deferred() {
    let judge = |_: &str, body: &str| match body.contains(ATTACK) {
        true => Fate::Answer(504, "{}".into()),
        false => Fate::Pass,
    };
    let (bench, _) = behind(judge, |_| {}).await;
    bench
        .log("p", [attack("stuck")].into_iter().chain(events(0..10)))
        .await;
    until("the others are delivered", || {
        bench.spool.ledger().delivered == 10
    })
    .await;
    let (spool, metrics) = (bench.spool.clone(), bench.metrics.clone());
    let _ = bench.stop.send(());
    bench
        .couriers
        .await
        .expect("no panic")
        .expect("couriers end well");
    assert_eq!(metrics.delivery_deferred_events.get(), 0);
    let lane = crate::bench::lane("p", Kind::Log);
    let limits = settings(&bench.sandbox).batch;
    let again = spool.lease(&lane, &limits).await;
    assert_eq!(again.len(), 1, "it was released");
    spool.release(&lane, again).await;
    spool.close().await;
}

async fn feedback(bench: &Bench, task: &str, notes: &str) {
    let body = json!({"flag": "success", "source": "user", "notes": notes, "project_id": "p"});
    let feedback = Feedback::parse(body.to_string().as_bytes(), Some(task), None).expect("good feedback");
    let entry = Entry::Queued {
        lane: crate::bench::lane("p", Kind::Feedback),
        record: feedback.to_record(),
    };
    bench.spool.append(vec![entry]).await.expect("appended");
}

#[tokio::test]
async fn one_feedback_that_a_firewall_refuses_dies_alone_and_the_others_flow() {
    for status in [302, 400, 403, 404, 451] {
        let (bench, _) = behind(blocks(status), |settings| settings.feedback_concurrency = 1).await;
        bench.log("p", events(0..20)).await;
        for n in 0..20 {
            feedback(&bench, &task(n), if n == 3 { ATTACK } else { "fine" }).await;
        }
        let ledger = bench.drained().await;
        assert_eq!((ledger.delivered, ledger.dead), (39, 1), "{status}");
        let dead = bench.dead().await.remove(0);
        let said = format!("refused with {status} by something between here and the API");
        assert!(dead.burial.reason.starts_with(&said), "{}", dead.burial.reason);
        assert_eq!(dead.burial.excerpt.as_deref(), Some(PAGE));
        assert!(String::from_utf8_lossy(&dead.record).contains(ATTACK));
        assert_eq!(bench.sandbox.evals(None).len(), 19);
        bench.finish().await;
    }
}

#[tokio::test]
async fn what_refuses_all_feedback_parks_its_lane_and_buries_none() {
    let judge = |head: &str, _: &str| match head.contains("/human-eval") {
        true => Fate::Answer(403, PAGE.into()),
        false => Fate::Pass,
    };
    let (bench, way) = behind(judge, |_| {}).await;
    bench.log("p", events(0..20)).await;
    for n in 0..20 {
        feedback(&bench, &task(n), "fine").await;
    }
    let LaneState::Parked { reason } = bench.is_in("p", Kind::Feedback, "parked").await else {
        panic!("it is parked");
    };
    assert!(
        reason.contains("something between here and the API answered 403"),
        "{reason}"
    );
    until("it was probed", || way.posts().len() > 60).await;
    assert_eq!(bench.spool.ledger().dead, 0);
    way.change(|_, _| Fate::Pass);
    let ledger = bench.drained().await;
    assert_eq!((ledger.delivered, ledger.dead), (40, 0));
    bench.finish().await;
}

#[tokio::test]
async fn a_single_feedback_that_is_refused_parks_and_dies_once_another_passes() {
    let (bench, way) = behind(blocks(403), |_| {}).await;
    bench.log("p", [event("a"), event("b")]).await;
    feedback(&bench, "a", ATTACK).await;
    bench.is_in("p", Kind::Feedback, "parked").await;
    until("it was probed", || way.posts().len() > 12).await;
    assert_eq!(bench.spool.ledger().dead, 0);
    feedback(&bench, "b", "fine").await;
    until("the other is delivered", || bench.spool.ledger().delivered == 3).await;
    for n in 0..8 {
        feedback(&bench, "b", &format!("fine {n}")).await;
    }
    let ledger = bench.drained().await;
    assert_eq!((ledger.delivered, ledger.dead), (11, 1));
    bench.finish().await;
}
