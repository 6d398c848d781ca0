//! An upstream that cannot be reached, or that breaks the wire: events are stored once, in order, or wait with the remedy.

use crate::relay::{Fault, Relay};
use crate::scale::{Dice, figure, rounds};
use crate::support::client::{self, batch};
use crate::support::daemon::{Daemon, Setup};
use crate::support::eventually;
use crate::support::upstream::Upstream;
use serde_json::json;

pub(crate) fn event(id: &str) -> String {
    json!({"input": "x", "task_id": id}).to_string()
}

/// Posts events one request each; each must be acknowledged.
pub(crate) async fn log(daemon: &Daemon, ids: impl IntoIterator<Item = String>) {
    let http = reqwest::Client::new();
    for id in ids {
        let reply = client::post(&http, &format!("{}/v2/log/p", daemon.url), batch(&[event(&id)])).await;
        assert_eq!(reply.status, 200, "intake goes on");
    }
}

async fn feedback(daemon: &Daemon, id: &str) {
    let body = json!({"task_id": id, "flag": "success", "project_id": "p"}).to_string();
    let reply = client::post(&reqwest::Client::new(), &format!("{}/feedback", daemon.url), body).await;
    assert_eq!(reply.status, 200);
}

/// Waits until the first lane is in this state; gives the reason.
pub(crate) async fn reason(daemon: &Daemon, state: &str) -> String {
    eventually(&format!("a lane that is {state}"), || async {
        let status = daemon.status().await;
        let lane = status["lanes"].as_array()?.first()?.clone();
        (lane["state"] == state).then(|| lane["reason"].as_str().unwrap_or_default().to_owned())
    })
    .await
}

/// Requests that the daemon has sent, as it counts them.
pub(crate) async fn attempts(daemon: &Daemon) -> u64 {
    let reply = client::send(reqwest::Client::new().get(format!("{}/metrics", daemon.url))).await;
    let text = String::from_utf8(reply.body).expect("text");
    text.lines()
        .filter(|line| line.starts_with("phosphod_delivery_attempts_total"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
        .sum()
}

pub(crate) fn id(n: usize) -> String {
    format!("w{n:05}")
}

/// What the log says of an event that leaves the order.
const DEFERRED: &str = "an event keeps failing alone while others pass";

/// How many there are in the longest part, gaps allowed, that is in order.
fn longest_in_order(ids: &[String]) -> usize {
    let mut last_of_length: Vec<&String> = Vec::new();
    for id in ids {
        let length = last_of_length.partition_point(|last| *last < id);
        match last_of_length.get_mut(length) {
            Some(last) => *last = id,
            None => last_of_length.push(id),
        }
    }
    last_of_length.len()
}

#[test]
fn the_longest_part_in_order_is_found() {
    let longest = |text: &str| longest_in_order(&text.chars().map(String::from).collect::<Vec<_>>());
    assert_eq!(longest(""), 0);
    assert_eq!(longest("abcdef"), 6);
    assert_eq!(longest("bcdaef"), 5);
    assert_eq!(longest("fedcba"), 1);
}

/// One in three requests, drawn at random, meets the fault; all is stored once and in order, and feedback counts once.
async fn one_in_three(name: &str, fault: Fault, with_feedback: bool) {
    // Where a time-out is in play, each hit takes it and `delivery.confirm_patience`: seconds a batch.
    let large = if with_feedback { 3_000 } else { 240 };
    let events = rounds(120, large);
    let folder = tempfile::tempdir().expect("a folder");
    let upstream = Upstream::start().await;
    let seed = Dice::of(name).random.u64(..);
    let relay = Relay::start(&upstream.url(), move |n| {
        let is_hit = fastrand::Rng::with_seed(seed ^ n as u64).u8(0..3) == 0;
        if is_hit { fault.clone() } else { Fault::None }
    })
    .await;
    let setup = Setup::new(folder.path(), &relay.url())
        .with("upstream.timeout", "500 ms")
        .with("batch.max_events", "10");
    let daemon = setup.start().await;
    log(&daemon, (0..events).map(id)).await;
    let mut judged = 0;
    if with_feedback {
        for n in (0..events).step_by(10) {
            feedback(&daemon, &id(n)).await;
            judged += 1;
        }
    }
    let counts = daemon.drained().await;
    assert_eq!((counts.delivered, counts.dead), (events as u64 + judged, 0));
    let arrived: Vec<_> = upstream.tasks("p").into_iter().map(|row| row.task_id).collect();
    let mut sorted = arrived.clone();
    sorted.sort();
    assert!(sorted == (0..events).map(id).collect::<Vec<_>>(), "all, once");
    // What meets the fault again and again alone, while others pass, is tried beside them: the one exception from the order.
    let deferred = daemon
        .said()
        .iter()
        .filter(|line| line.contains(DEFERRED))
        .count();
    let late = arrived.len() - longest_in_order(&arrived);
    assert!(
        late <= deferred,
        "{late} are out of order, and {deferred} were deferred"
    );
    for n in (0..events).step_by(10).take(judged as usize) {
        assert_eq!(upstream.evals(&id(n)).len(), 1, "feedback on {n} counts once");
    }
    let requests = relay.seen().len();
    let state = upstream.finish().await;
    if with_feedback {
        // Where a time-out is in play, the API may store later than anybody looks.
        assert_eq!(state.duplicates, 0, "what was stored is not sent again");
    }
    figure(&format!(
        "{name}: one request in three; {events} events, 0 lost, 0 stored twice, {} sent again after they were stored \
         ({:.0} a million); {judged} feedback, {} counted; {requests} requests",
        state.duplicates,
        state.duplicates as f64 * 1e6 / events as f64,
        state.evals
    ));
    assert!(
        requests >= 12,
        "only {requests} requests: the fault was hardly met"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_upstream() {
    one_in_three("slow", Fault::Slow, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_upstream() {
    one_in_three("half-open", Fault::HalfOpen, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_takes_and_never_answers() {
    one_in_three("never answers", Fault::Silent, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_resets_before_it_reads() {
    one_in_three("reset before the request is read", Fault::ResetBefore, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_resets_in_place_of_its_reply() {
    one_in_three("reset in place of the reply", Fault::ResetAfter, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_cuts_its_replies() {
    one_in_three("truncated", Fault::Truncated, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_answers_garbage() {
    one_in_three("garbage", Fault::Garbage, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_closes_after_each_reply() {
    one_in_three("closes after the reply", Fault::CloseAfterReply, true).await;
}
