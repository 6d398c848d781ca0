//! Random events, feedback and faults: at the end the sandbox holds every good event once, and the ledger adds up.

use crate::bench::{Bench, lane, until};
use phosphod::ids::Kind;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

const PROJECTS: [&str; 3] = ["p", "q", "r"];

/// What the sandbox does with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nature {
    Good,
    /// Its batch is lost after a 200 unless it has token counts.
    ToolCall,
    /// `error_in_log`.
    Refused,
    /// This status for each batch with it.
    Poison(u16),
    /// Each batch with it is lost after a 200.
    Lost,
}

impl Nature {
    fn is_stored(self) -> bool {
        matches!(self, Nature::Good | Nature::ToolCall)
    }
}

#[derive(Debug, Clone)]
struct Planned {
    project: &'static str,
    session: Option<u8>,
    nature: Nature,
    judged: bool,
}

#[derive(Debug, Clone)]
struct Plan {
    /// What the upstream does to the next requests, and what is logged meanwhile.
    stages: Vec<(Value, Vec<Planned>)>,
    concurrency: usize,
    max_events: usize,
    /// Of project r.
    quota: Option<u64>,
}

fn nature() -> impl Strategy<Value = Nature> {
    prop_oneof![
        40 => Just(Nature::Good),
        2 => Just(Nature::ToolCall),
        1 => Just(Nature::Refused),
        2 => select(vec![400, 422, 500]).prop_map(Nature::Poison),
        1 => Just(Nature::Lost),
    ]
}

fn planned() -> impl Strategy<Value = Planned> {
    let session = prop::option::of(0..4_u8);
    (select(&PROJECTS), session, nature(), prop::bool::weighted(0.2)).prop_map(
        |(project, session, nature, judged)| Planned {
            project,
            session,
            nature,
            judged,
        },
    )
}

fn fault() -> impl Strategy<Value = Value> {
    let passing = prop_oneof![
        select(vec![429, 500, 502, 503, 504]).prop_map(|status| json!({"status": status})),
        select(vec![
            "down",
            "close_after_reply",
            "truncate_reply",
            "drop_reply",
            "garbage"
        ])
        .prop_map(|name| json!({name: true})),
    ];
    let only = select(vec![vec![], vec!["log"], vec!["log", "feedback"], vec!["task"]]);
    let fault = (passing, 1..6_u64, only, 0..20_u64).prop_map(|(mut fault, times, only, delay)| {
        fault["times"] = json!(times);
        fault["only"] = json!(only);
        fault["store_delay_ms"] = json!(delay);
        fault
    });
    prop_oneof![1 => Just(json!({})), 4 => fault]
}

fn plan() -> impl Strategy<Value = Plan> {
    let stage = (fault(), prop::collection::vec(planned(), 0..60));
    (
        prop::collection::vec(stage, 1..5),
        select(vec![1, 4]),
        2..80_usize,
        prop::option::of(0..20_u64),
    )
        .prop_map(|(stages, concurrency, max_events, quota)| Plan {
            stages,
            concurrency,
            max_events,
            quota,
        })
}

/// The events with the ids that they are logged under.
fn numbered(plan: &Plan) -> Vec<(String, &Planned)> {
    let all = plan.stages.iter().flat_map(|(_, events)| events);
    all.enumerate()
        .map(|(n, event)| (format!("n{n:04}"), event))
        .collect()
}

fn record(id: &str, event: &Planned) -> String {
    let mut record = json!({"input": "x", "task_id": id});
    if let Some(session) = event.session {
        record["session_id"] = json!(format!("{}-{session}", event.project));
    }
    if event.nature == Nature::ToolCall {
        record["raw_input"] = json!([{"role": "assistant", "content": null}]);
    }
    record.to_string()
}

/// What stays switched through the whole run.
fn standing(plan: &Plan, all: &[(String, &Planned)]) -> Value {
    let ids = |wanted: &dyn Fn(Nature) -> bool| -> BTreeSet<&str> {
        let of = all.iter().filter(|(_, event)| wanted(event.nature));
        of.map(|(id, _)| id.as_str()).collect()
    };
    let poison = all.iter().filter_map(|(id, event)| match event.nature {
        Nature::Poison(status) => Some((id.clone(), json!(status))),
        _ => None,
    });
    let refused = ids(&|nature| nature == Nature::Refused);
    let refused: Map<_, _> = refused
        .into_iter()
        .map(|id| (id.to_owned(), json!("odd")))
        .collect();
    let quota = plan.quota.map(|quota| json!({"r": quota}));
    json!({
        "fail_events": poison.collect::<Map<_, _>>(),
        "refuse_events": refused,
        "lose_events": ids(&|nature| nature == Nature::Lost),
        "quota": quota.unwrap_or(json!({})),
        "eval_wait_ms": 5,
    })
}

/// The order of each project's sessions, as logged or as stored.
fn sessions<'a>(
    ids: impl Iterator<Item = (&'a str, &'a Planned)>,
) -> BTreeMap<(&'static str, u8), Vec<&'a str>> {
    let mut sessions = BTreeMap::<_, Vec<_>>::new();
    for (id, event) in ids {
        if let Some(session) = event.session {
            sessions.entry((event.project, session)).or_default().push(id);
        }
    }
    sessions
}

async fn play(plan: Plan) -> Result<(), TestCaseError> {
    let all = numbered(&plan);
    let bench = Bench::with(|settings| {
        settings.concurrency = plan.concurrency;
        settings.batch.max_events = plan.max_events;
    })
    .await;
    bench.switch(standing(&plan, &all)).await;
    let mut rest = all.iter();
    for (fault, events) in &plan.stages {
        bench.switch(fault.clone()).await;
        let stage: Vec<_> = rest.by_ref().take(events.len()).collect();
        for project in PROJECTS {
            let of_project = stage.iter().filter(|(_, event)| event.project == project);
            bench
                .log(project, of_project.map(|(id, event)| record(id, event)))
                .await;
        }
        for (id, event) in stage.iter().filter(|(_, event)| event.judged) {
            bench.feedback(event.project, id, "success").await;
        }
    }
    let ledger = bench.drained().await;

    let is_good = |(_, event): &&(String, &Planned)| event.nature.is_stored();
    let judged = |(_, event): &&(String, &Planned)| event.judged;
    let good: BTreeMap<&str, &Planned> = all
        .iter()
        .filter(is_good)
        .map(|(id, event)| (id.as_str(), *event))
        .collect();
    let stored: Vec<(String, String)> = PROJECTS
        .iter()
        .flat_map(|project| {
            bench
                .stored(project)
                .into_iter()
                .map(|id| (id, (*project).to_owned()))
        })
        .collect();
    let unique: BTreeMap<&str, &str> = stored
        .iter()
        .map(|(id, project)| (id.as_str(), project.as_str()))
        .collect();
    prop_assert_eq!(unique.len(), stored.len(), "no task twice");
    let wanted: BTreeMap<&str, &str> = good.iter().map(|(id, event)| (*id, event.project)).collect();
    prop_assert_eq!(unique, wanted, "all that can be stored, where it belongs");

    for (id, event) in &all {
        let evals = bench.sandbox.evals(Some(id)).len();
        let wanted = usize::from(event.judged && event.nature.is_stored());
        prop_assert_eq!(evals, wanted, "feedback on {}", id);
    }
    let good_judged = all.iter().filter(is_good).filter(judged).count();
    let all_judged = all.iter().filter(judged).count();
    prop_assert_eq!(ledger.accepted, (all.len() + all_judged) as u64);
    prop_assert_eq!(ledger.delivered, (good.len() + good_judged) as u64);
    prop_assert_eq!(ledger.dropped, 0);
    prop_assert_eq!(ledger.dead, ledger.accepted - ledger.delivered);
    for letter in bench.dead().await {
        prop_assert!(!letter.burial.reason.is_empty());
    }
    // What was lost and repaired comes later; where nothing was, the order of each session is that of acceptance.
    if bench.metrics.delivery_unconfirmed_batches.get() == 0 {
        let logged = sessions(
            all.iter()
                .filter(is_good)
                .map(|(id, event)| (id.as_str(), *event)),
        );
        let arrived = sessions(stored.iter().map(|(id, _)| (id.as_str(), good[id.as_str()])));
        prop_assert_eq!(arrived, logged, "the order of sessions");
    }
    for project in PROJECTS {
        for kind in [Kind::Log, Kind::Feedback] {
            let lane = lane(project, kind);
            until("no lane is left in trouble", || {
                bench.board.get(&lane).name() != "parked"
            })
            .await;
        }
    }
    bench.finish().await;
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn every_good_event_is_stored_once_and_every_feedback_counts_once(plan in plan()) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(play(plan))?;
    }
}
