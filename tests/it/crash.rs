//! kill -9: of the daemon under load, and of the app right after its call.

use crate::support::Pair;
use crate::support::eventually;
use crate::support::load::Load;
use std::io::Write;

const ROUNDS: usize = 30;
const CLIENTS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_kills_under_load_lose_nothing_and_double_nothing() {
    let mut pair = Pair::start().await;
    let mut taken: Vec<Vec<String>> = vec![Vec::new(); CLIENTS];
    for round in 0..ROUNDS {
        // Half of the rounds leave a backlog behind, so that recovery and delivery both have work to do.
        pair.upstream
            .switch(serde_json::json!({"down": round % 2 == 1}))
            .await;
        let load = Load::start(&pair.daemon.url, &format!("r{round}"), CLIENTS);
        let enough = 40 + 37 * round as u64;
        eventually("some load", || async { (load.count() >= enough).then_some(()) }).await;
        pair.daemon.kill_hard();
        for (all, more) in taken.iter_mut().zip(load.stop().await) {
            all.extend(more);
        }
        pair.daemon = pair.setup.start().await;
    }
    pair.upstream.switch(serde_json::json!({"down": false})).await;
    pair.daemon.drained().await;

    let acknowledged: usize = taken.iter().map(Vec::len).sum();
    for (n, ids) in taken.iter().enumerate() {
        let stored: Vec<String> = pair
            .upstream
            .tasks(&format!("load-{n}"))
            .into_iter()
            .map(|row| row.task_id)
            .collect();
        let places: std::collections::HashMap<&str, usize> = stored
            .iter()
            .enumerate()
            .map(|(place, id)| (id.as_str(), place))
            .collect();
        assert_eq!(places.len(), stored.len(), "no task twice");
        let found: Vec<usize> = ids
            .iter()
            .map(|id| {
                *places
                    .get(id.as_str())
                    .unwrap_or_else(|| panic!("{id} was acknowledged and is lost"))
            })
            .collect();
        assert!(found.is_sorted(), "order of acceptance in project load-{n}");
    }
    let counts = pair.daemon.ledger().await;
    assert_eq!(counts.dead, 0);
    let state = pair.upstream.state();
    let _ = writeln!(
        std::io::stderr(),
        "kill -9: {ROUNDS} rounds, {acknowledged} acknowledged, 0 lost, {} stored, {} sent again and absorbed",
        state.stored,
        state.duplicates
    );
    pair.finish().await;
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
