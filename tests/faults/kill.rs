//! kill -9 of the daemon, at any moment.

use crate::promises::Promises;
use crate::scale::{Dice, figure, rounds};
use crate::support::daemon::Daemon;
use crate::support::load::Load;
use crate::support::{Pair, eventually};

const CLIENTS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_under_load_lose_nothing_and_double_nothing() {
    let rounds = rounds(30, 500);
    let mut dice = Dice::of("kill");
    let mut pair = Pair::start().await;
    let mut promises = Promises::default();
    for round in 0..rounds {
        // Half of the rounds leave a backlog behind, so that recovery and delivery both have work to do.
        pair.upstream
            .switch(serde_json::json!({"down": round % 2 == 1}))
            .await;
        let load = Load::start(&pair.daemon.url, &format!("r{round}"), CLIENTS);
        let enough = dice.random.u64(0..1_500);
        eventually("some load", || async { (load.count() >= enough).then_some(()) }).await;
        pair.daemon.kill_hard();
        promises.add(load.stop().await);
        if round % 5 == 4 {
            // Killed again while it starts.
            let mut starting = Daemon::spawn(pair.setup.command());
            starting.logged("the spool is open").await;
            starting.kill_hard();
        }
        pair.daemon = pair.setup.start().await;
        promises.are_accounted_for(&pair.daemon, &pair.upstream).await;
    }
    pair.upstream.switch(serde_json::json!({"down": false})).await;
    pair.daemon.drained().await;
    let kept = promises.are_kept(&pair.upstream);
    figure(&format!(
        "kill -9: {rounds} rounds, {} acknowledged, 0 lost, 0 out of order; {} stored, {} sent again and absorbed",
        promises.count(),
        kept.stored,
        pair.upstream.state().duplicates
    ));
    assert_eq!(pair.finish().await.dead, 0);
}

#[tokio::test]
async fn feedback_and_its_log_survive_a_kill_in_order() {
    let mut pair = Pair::start().await;
    pair.upstream.switch(serde_json::json!({"down": true})).await;
    for n in 0..50 {
        let log = format!(r#"{{"input":"x","task_id":"f{n}"}}"#);
        assert_eq!(pair.post("/log", log).await.status, 200);
        let feedback = format!(r#"{{"task_id":"f{n}","flag":"success","notes":"{n}"}}"#);
        assert_eq!(pair.post("/feedback", feedback).await.status, 200);
    }
    pair.daemon.kill_hard();
    pair.daemon = pair.setup.start().await;
    assert_eq!(pair.daemon.ledger().await.queued, 100);
    pair.upstream.switch(serde_json::json!({"down": false})).await;
    pair.upstream.evaluated(50).await;
    for n in 0..50 {
        let evals = pair.upstream.evals(&format!("f{n}"));
        assert_eq!(evals.len(), 1, "f{n}: once");
        assert_eq!(evals[0].notes.as_deref(), Some(n.to_string().as_str()));
    }
    assert_eq!(
        pair.upstream.state().early_evals,
        0,
        "no feedback came before its log"
    );
    assert_eq!(pair.finish().await.delivered, 100);
}
