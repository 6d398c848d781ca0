//! A real browser: what a foreign page tries writes nothing and reads nothing, and a page that is let in gives feedback.

use crate::memory::metrics;
use crate::site::{EVIL, Site, visit};
use crate::support::skip::{missing, skip};
use crate::support::{Pair, eventually};
use serde_json::Value;

const ATTACK: &str = include_str!("pages/attack.html");
const FEEDBACK: &str = include_str!("pages/feedback.html");
/// The routes that the page attacks.
const ROUTES: [&str; 4] = [
    "/log",
    "/v2/log/{project_id}",
    "/feedback",
    "/v2/tasks/{task_id}/flag",
];

fn skipped(test: &str) -> bool {
    missing(&[("chromium", "chromium")]).is_some_and(|why| {
        skip(test, &why);
        true
    })
}

/// A daemon that also listens for the pages of an origin, and that address.
async fn pair(origin: &str, further: &[(&str, &str)]) -> (Pair, String) {
    let mut pair = Pair::start_with(|setup| {
        let setup = setup
            .with("intake.browser.listen", "127.0.0.1:0")
            .with("intake.browser.origins", origin);
        further
            .iter()
            .fold(setup, |setup, (key, value)| setup.with(key, value))
    })
    .await;
    let fields = pair.daemon.logged("accepting").await;
    let pages = format!("http://{}", fields["browser"].as_str().expect("it listens"));
    (pair, pages)
}

/// How many requests were answered, by route and status.
async fn answered(pair: &Pair, route: &str, status: u16) -> usize {
    let line = format!("phosphod_intake_requests_total{{route=\"{route}\",status=\"{status}\"}} ");
    let page = metrics(&pair.daemon).await;
    let found = page.lines().find_map(|found| found.strip_prefix(&line));
    found.map_or(0, |count| count.parse().expect("a count"))
}

/// Waits until so many were: beacons leave when the browser likes.
async fn reached(pair: &Pair, route: &str, status: u16, goal: usize) -> usize {
    let what = format!("{goal} requests to {route} answered {status}");
    eventually(&what, || async {
        let count = answered(pair, route, status).await;
        (count >= goal).then_some(count)
    })
    .await
}

/// What the page saw, by try.
fn tries(saw: &Value) -> Vec<(&str, &str)> {
    let saw = saw.as_object().expect("an object");
    assert!(!saw.contains_key("fault"), "{saw:?}");
    assert_eq!(saw.len(), 4 * 11 + 9, "{saw:?}");
    let text = |value: &'_ Value| value.as_str().map(str::to_owned);
    assert!(saw.values().all(|value| text(value).is_some()), "{saw:?}");
    saw.iter()
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_page_writes_nothing_and_reads_nothing() {
    if skipped("chromium::a_foreign_page_writes_nothing_and_reads_nothing") {
        return;
    }
    let site = Site::start(ATTACK, None).await;
    let (pair, pages) = pair("http://app.example", &[]).await;
    for target in [&pair.daemon.url, &pages] {
        let saw = visit(&site, "127.0.0.1", target).await;
        for (name, value) in tries(&saw) {
            let nothing = match name.split(' ').next() {
                // A frame shows the refusal to the user; the page cannot look into it.
                Some("form") => "loaded",
                Some("no-cors" | "sandboxed") => "opaque",
                // Of JSON, which the page sees nothing of, the browser says what it likes.
                Some("script") => value,
                _ => "error",
            };
            assert_eq!(value, nothing, "{name} against {target}");
        }
    }
    // A route: three forms, four fetches, two beacons, one of a sandbox; and two preflights, whose JSON then stays away. On the
    // listener for pages each is refused for its origin, the preflights too, and counted as unknown but for the one route.
    let mut refused = Vec::new();
    for route in ROUTES {
        let once = if route.ends_with("/flag") { 2 * 10 + 2 } else { 10 };
        refused.push((route, 403, reached(&pair, route, 403, once).await));
        refused.push((route, 405, reached(&pair, route, 405, 2 + 2).await));
    }
    refused.push(("unknown", 403, reached(&pair, "unknown", 403, 3 * (10 + 2)).await));
    eprintln!("a foreign page: {refused:?}");
    assert_eq!(pair.finish().await.accepted, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_rebound_to_this_machine_writes_nothing_and_reads_nothing() {
    if skipped("chromium::a_name_that_is_rebound_to_this_machine_writes_nothing_and_reads_nothing") {
        return;
    }
    let (pair, pages) = pair("http://app.example", &[]).await;
    for behind in [&pair.daemon.url, &pages] {
        let site = Site::start(ATTACK, Some(behind)).await;
        let origin = format!("http://{EVIL}:{}", site.address.port());
        let saw = visit(&site, EVIL, &origin).await;
        for (name, value) in tries(&saw) {
            match name.split(' ').next() {
                // Of the same origin, so all may be read that there is to read.
                Some("fetch" | "no-cors") => {
                    assert!(
                        value.starts_with("403 ") && value.contains(EVIL),
                        "{name}: {value}"
                    );
                    assert!(!value.contains("ledger"), "{name}: {value}");
                }
                Some("form") => assert_eq!(value, "loaded", "{name}"),
                Some("sandboxed") => assert_eq!(value, "opaque", "{name}"),
                Some("script") => {}
                _ => assert_eq!(value, "error", "{name}"),
            }
        }
    }
    // Of one origin with its target, the page needs no preflight: three forms, five fetches, three beacons, one of a sandbox, an image and
    // a socket for each of four routes, and three times two fetches and a script.
    // (The listener for pages counts those to its route under that.)
    let unknown = reached(&pair, "unknown", 403, 2 * (4 * 14 + 9) - 14).await;
    let flag = reached(&pair, ROUTES[3], 403, 14).await;
    for route in ROUTES {
        assert_eq!(answered(&pair, route, 200).await, 0, "{route}");
    }
    eprintln!("a name that was rebound: {} requests, all 403", unknown + flag);
    assert_eq!(pair.finish().await.accepted, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_page_writes_where_its_origin_is_let_in() {
    if skipped("chromium::the_same_page_writes_where_its_origin_is_let_in") {
        return;
    }
    let site = Site::start(ATTACK, None).await;
    let (pair, _) = pair("http://app.example", &[("intake.origins", &site.origin())]).await;
    visit(&site, "127.0.0.1", &pair.daemon.url).await;
    // What goes without a Content-Type: two fetches and a beacon a route. So only the origin had kept them out.
    for route in ROUTES {
        reached(&pair, route, 200, 3).await;
        reached(&pair, route, 415, 3 + 3).await;
    }
    assert_eq!(pair.finish().await.accepted, 4 * 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_is_let_in_gives_feedback_and_another_does_not() {
    if skipped("chromium::a_page_that_is_let_in_gives_feedback_and_another_does_not") {
        return;
    }
    let (app, other) = (
        Site::start(FEEDBACK, None).await,
        Site::start(FEEDBACK, None).await,
    );
    let (pair, pages) = pair(&app.origin(), &[]).await;
    let event = r#"{"input":"x","task_id":"t","project_id":"p"}"#;
    assert_eq!(pair.post("/log", event).await.status, 200);

    let refused = visit(&other, "127.0.0.1", &pages).await;
    assert_eq!(refused["fault"], "Network Error", "{refused}");
    assert_eq!(answered(&pair, ROUTES[3], 403).await, 1, "its preflight");
    assert_eq!(pair.daemon.ledger().await.accepted, 1);

    let taken = visit(&app, "127.0.0.1", &pages).await;
    assert_eq!(taken["status"], 200, "{taken}");
    assert_eq!(taken["body"], r#"{"task_id":"t","queued":true}"#);
    assert_eq!(answered(&pair, ROUTES[3], 204).await, 1, "its preflight");
    pair.upstream.evaluated(1).await;
    let evals = pair.upstream.evals("t");
    assert_eq!(
        (evals.len(), evals[0].notes.as_deref()),
        (1, Some("helped 👍")),
        "{evals:?}"
    );
    assert_eq!(pair.finish().await.accepted, 2);
}
