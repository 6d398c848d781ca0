//! Task ids that no URL of the API names: by their text, or because something on the way treats their URL specially.

use crate::bench::{Bench, event, events, lane, scripted, task, tasks};
use phosphod::board::LaneState;
use phosphod::fates::Proof;
use phosphod::ids::{Kind, TaskId};
use phosphod::spool::Entry;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

const UNADDRESSABLE: [&str; 4] = ["order/17", "folder/", ".", ".."];

fn proofs(bench: &Bench, task: &str) -> Vec<Proof> {
    let task = TaskId::new(task).expect("an id");
    let found = bench.board.fates().of(&task);
    found.into_iter().map(|delivery| delivery.proof).collect()
}

#[tokio::test]
async fn a_log_whose_id_no_url_can_name_is_delivered_unconfirmed_and_never_asked_for() {
    let bench = Bench::new().await;
    // Alone, and as the last of a batch, where it would be the first to be asked for.
    bench.log("p", [event("folder/")]).await;
    bench.drained().await;
    let others = ["order/17", ".", ".."].map(event);
    bench.log("p", events(0..5).chain(others)).await;
    let ledger = bench.drained().await;
    assert_eq!((ledger.delivered, ledger.dead), (9, 0));
    for id in UNADDRESSABLE {
        assert_eq!(proofs(&bench, id), [Proof::Unaddressable], "{id}");
        assert!(bench.sandbox.task(id).is_some(), "{id} is stored");
    }
    assert_eq!(proofs(&bench, &task(0)), [Proof::ReadBack]);
    assert_eq!(bench.metrics.delivery_unaddressable_events.get(), 4);
    assert_eq!(bench.board.get(&lane("p", Kind::Log)), LaneState::Flowing);
    let state = bench.finish().await;
    assert_eq!(
        (state.unrouted, state.duplicates, state.failed_requests),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn it_is_no_witness_and_is_sent_again_where_nobody_knows_whether_it_was_taken() {
    // The request was not taken, was taken, and was taken but not stored.
    for (fault, duplicates) in [
        (json!({"status": 504, "times": 1, "only": ["log"]}), 0),
        (json!({"drop_reply": true, "times": 1, "only": ["log"]}), 1),
        (json!({"lose": 1}), 0),
    ] {
        for plain in [0, 5] {
            let bench = Bench::new().await;
            bench.switch(fault.clone()).await;
            bench.log("p", events(0..plain).chain([event("order/17")])).await;
            let ledger = bench.drained().await;
            assert_eq!((ledger.delivered, ledger.dead), (plain as u64 + 1, 0), "{fault}");
            let only_lost = plain == 0 && fault.get("lose").is_some();
            let mut wanted = tasks(0..plain);
            wanted.extend((!only_lost).then(|| "order/17".to_owned()));
            assert_eq!(bench.stored("p"), wanted, "{fault}, beside {plain}");
            let state = bench.finish().await;
            assert_eq!((state.unrouted, state.duplicates), (0, duplicates), "{fault}");
        }
    }
}

#[tokio::test]
async fn queued_feedback_on_such_a_task_is_a_dead_letter_at_once_and_holds_up_no_other() {
    let bench = Bench::new().await;
    bench.log("p", events(0..1)).await;
    let old = |task: &str| Entry::Queued {
        lane: lane("p", Kind::Feedback),
        record: json!({"task_id": task, "project_id": "p", "flag": "success"})
            .to_string()
            .into_bytes(),
    };
    bench
        .spool
        .append(UNADDRESSABLE.map(old).into())
        .await
        .expect("appended");
    bench.feedback("p", &task(0), "success").await;
    let ledger = bench.drained().await;
    assert_eq!((ledger.delivered, ledger.dead), (2, 4));
    for letter in bench.dead().await {
        let burial = &letter.burial;
        assert!(burial.reason.contains("no URL of the API"), "{burial:?}");
        assert_eq!((burial.attempts, burial.status), (0, None));
    }
    let state = bench.finish().await;
    assert_eq!((state.evals, state.unrouted, state.early_evals), (1, 0, 0));
}

/// An API behind something that answers every request about a task `odd:...` in its own way.
struct Odd {
    reads: Arc<Mutex<Vec<String>>>,
    stored: Arc<AtomicU32>,
}

impl Odd {
    async fn bench(status: u16, body: &'static str) -> (Bench, Odd) {
        let odd = Odd {
            reads: Arc::default(),
            stored: Arc::default(),
        };
        let (reads, stored) = (odd.reads.clone(), odd.stored.clone());
        let upstream = scripted(move |request: String| {
            let (reads, stored) = (reads.clone(), stored.clone());
            async move {
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                if path.starts_with("/v2/log/") {
                    let (_, body) = request.split_once("\r\n\r\n").unwrap_or_default();
                    let sent: Value = serde_json::from_str(body).expect("JSON");
                    let events = sent["batched_log_events"].clone();
                    stored.fetch_add(events.as_array().map_or(0, Vec::len) as u32, Ordering::Relaxed);
                    return (200, json!({"logged_events": events}).to_string());
                }
                if request.starts_with("GET") {
                    reads.lock().expect("not poisoned").push(path.clone());
                }
                match path {
                    path if path.contains("odd%3A") => (status, body.to_owned()),
                    path if path.contains("route-check") => {
                        (404, r#"{"detail":"Task phosphod-route-check not found"}"#.into())
                    }
                    _ => (200, "{}".into()),
                }
            }
        })
        .await;
        (Bench::with(|settings| settings.upstream = upstream).await, odd)
    }

    fn reads_of(&self, part: &str) -> usize {
        let reads = self.reads.lock().expect("not poisoned");
        reads.iter().filter(|path| path.contains(part)).count()
    }
}

const ODD: [(u16, &str); 4] = [
    (404, r#"{"detail":"Not Found"}"#),
    (405, r#"{"detail":"Method Not Allowed"}"#),
    (307, ""),
    (403, "<html>blocked</html>"),
];

#[tokio::test]
async fn an_odd_answer_about_one_id_is_none_about_the_upstream() {
    for (status, body) in ODD {
        let (bench, odd) = Odd::bench(status, body).await;
        bench.log("p", [event("odd:1")]).await;
        bench.drained().await;
        assert_eq!(proofs(&bench, "odd:1"), [Proof::Unaddressable], "{status}");
        assert_eq!(odd.reads_of("odd%3A1"), 3, "{status}: it is not believed at once");
        assert_eq!(
            odd.reads_of("route-check"),
            3,
            "{status}: each time a plain id is asked for"
        );
        // Others are read back as before.
        bench.log("p", [event("plain-1")]).await;
        assert_eq!(bench.drained().await.delivered, 2);
        assert_eq!(proofs(&bench, "plain-1"), [Proof::ReadBack], "{status}");
        assert_eq!(bench.board.get(&lane("p", Kind::Log)), LaneState::Flowing);
        assert_eq!(
            odd.stored.load(Ordering::Relaxed),
            2,
            "{status}: nothing is sent twice"
        );
        assert_eq!(bench.metrics.delivery_unaddressable_events.get(), 1);
        bench.finish().await;
    }
}

#[tokio::test]
async fn an_odd_answer_to_one_feedback_parks_nothing_and_is_its_own_end() {
    for (status, body) in ODD {
        let (bench, _odd) = Odd::bench(status, body).await;
        bench.feedback("p", "odd:1", "success").await;
        bench.feedback("p", "plain-1", "success").await;
        let ledger = bench.drained().await;
        assert_eq!((ledger.delivered, ledger.dead), (1, 1), "{status}");
        let burial = &bench.dead().await[0].burial;
        assert!(
            burial.reason.contains("no URL of the API"),
            "{status}: {burial:?}"
        );
        assert_eq!(bench.board.get(&lane("p", Kind::Feedback)), LaneState::Flowing);
        bench.finish().await;
    }
}

#[tokio::test]
async fn an_upstream_that_answers_so_for_a_plain_id_too_is_taken_at_its_word() {
    let bench = Bench::new().await;
    bench.switch(json!({"status": 307, "only": ["task"]})).await;
    bench.log("p", [event("odd:1")]).await;
    bench.is_in("p", Kind::Log, "parked").await;
    bench.switch(json!({"status": null})).await;
    bench.drained().await;
    assert_eq!(proofs(&bench, "odd:1"), [Proof::ReadBack]);
    bench
        .switch(json!({"status": 307, "only": ["feedback", "task"]}))
        .await;
    bench.feedback("p", "odd:1", "success").await;
    bench.is_in("p", Kind::Feedback, "parked").await;
    bench.switch(json!({"status": null})).await;
    assert_eq!(bench.drained().await.dead, 0);
    assert_eq!(bench.finish().await.evals, 1);
}
