//! The listener for web pages, byte by byte: what a browser would send, and what it must not be able to.

use crate::support::Pair;
use crate::support::client::raw_tcp;

const APP: &str = "http://app.example:3000";
const FEEDBACK: &str = "{\"flag\":\"success\",\"source\":\"user\",\"notes\":\"👍\",\"project_id\":\"p\"}";

/// A daemon that listens for web pages of [`APP`], and the address.
async fn pages(settings: &[(&str, &str)]) -> (Pair, String) {
    let mut pair = Pair::start_with(|setup| {
        let setup = setup
            .with("intake.browser.listen", "127.0.0.1:0")
            .with("intake.browser.origins", APP);
        settings
            .iter()
            .fold(setup, |setup, (key, value)| setup.with(key, value))
    })
    .await;
    let fields = pair.daemon.logged("accepting").await;
    let address = fields["browser"]
        .as_str()
        .expect("it listens for pages")
        .to_owned();
    (pair, address)
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

/// What `sendUserFeedback` makes a browser send from [`APP`].
fn flag(task: &str, headers: &str) -> String {
    let headers = format!("Origin: {APP}\r\nContent-Type: application/json\r\n{headers}");
    request("POST", &format!("/v2/tasks/{task}/flag"), &headers, FEEDBACK)
}

fn status(reply: &str) -> u16 {
    let status = reply.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("no status in {reply:?}"))
}

/// The value of a header; empty where it is not there.
fn header<'a>(reply: &'a str, name: &str) -> &'a str {
    let head = reply.split("\r\n\r\n").next().unwrap_or_default();
    let value = head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    });
    value.unwrap_or_default()
}

fn cors(reply: &str) -> Vec<&str> {
    reply
        .lines()
        .filter(|line| line.to_ascii_lowercase().starts_with("access-control-"))
        .collect()
}

#[tokio::test]
async fn a_preflight_of_a_listed_origin_is_answered_as_a_browser_needs_it() {
    let (_pair, at) = pages(&[]).await;
    let asks = format!(
        "Origin: {APP}\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n"
    );
    let private = format!("{asks}Access-Control-Request-Private-Network: true\r\n");
    let plain = raw_tcp(&at, request("OPTIONS", "/v2/tasks/t/flag", &asks, "").as_bytes()).await;
    assert_eq!(status(&plain), 204, "{plain}");
    for (name, value) in [
        ("access-control-allow-origin", APP),
        ("access-control-allow-methods", "POST"),
        ("access-control-allow-headers", "content-type"),
        ("access-control-max-age", "3600"),
        ("vary", "Origin"),
        ("access-control-allow-private-network", ""),
        ("access-control-allow-credentials", ""),
    ] {
        assert_eq!(header(&plain, name), value, "{name} in {plain}");
    }
    let private = raw_tcp(
        &at,
        request("OPTIONS", "/v2/tasks/t/flag", &private, "").as_bytes(),
    )
    .await;
    assert_eq!(header(&private, "access-control-allow-private-network"), "true");
}

#[tokio::test]
async fn feedback_of_a_listed_origin_arrives_without_a_token() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let token = folder.path().join("token");
    std::fs::write(&token, "s3cret").expect("write");
    let (pair, at) = pages(&[("intake.token_file", token.to_str().expect("text"))]).await;
    let unix = crate::support::client::unix(&pair.daemon.unix);
    let event = "{\"input\":\"x\",\"task_id\":\"t\",\"project_id\":\"p\"}";
    let logged = crate::support::client::post(&unix, "http://localhost/log", event).await;
    assert_eq!(logged.status, 200, "{logged:?}");
    let reply = raw_tcp(&at, flag("t", "").as_bytes()).await;
    assert_eq!(status(&reply), 200, "{reply}");
    assert_eq!(header(&reply, "access-control-allow-origin"), APP);
    assert!(reply.ends_with("{\"task_id\":\"t\",\"queued\":true}"), "{reply}");
    pair.upstream.evaluated(1).await;
    let evals = pair.upstream.evals("t");
    assert_eq!(
        (evals.len(), evals[0].notes.as_deref()),
        (1, Some("👍")),
        "{evals:?}"
    );
}

#[tokio::test]
async fn an_origin_that_is_not_listed_exactly_is_refused_without_cors_headers() {
    let (pair, at) = pages(&[]).await;
    let listed = format!("Origin: {APP}\r\n");
    let rows = [
        ("none", String::new()),
        ("null", "Origin: null\r\n".to_owned()),
        ("another port", "Origin: http://app.example:3001\r\n".to_owned()),
        (
            "another scheme",
            "Origin: https://app.example:3000\r\n".to_owned(),
        ),
        (
            "a longer name",
            "Origin: http://app.example:3000.evil.example\r\n".to_owned(),
        ),
        ("another case", "Origin: http://APP.example:3000\r\n".to_owned()),
        ("an asterisk", "Origin: *\r\n".to_owned()),
        ("listed, twice", listed.repeat(2)),
        (
            "listed and another",
            format!("{listed}Origin: http://evil.example\r\n"),
        ),
    ];
    for (name, origin) in rows {
        for method in ["POST", "OPTIONS"] {
            let headers = format!("{origin}Content-Type: application/json\r\n");
            let body = if method == "POST" { FEEDBACK } else { "" };
            let reply = raw_tcp(
                &at,
                request(method, "/v2/tasks/t/flag", &headers, body).as_bytes(),
            )
            .await;
            assert_eq!(status(&reply), 403, "{name}: {reply}");
            assert_eq!(cors(&reply), Vec::<&str>::new(), "{name}: {reply}");
        }
    }
    assert_eq!(pair.finish().await.accepted, 0);
}

#[tokio::test]
async fn nothing_but_the_one_route_is_served() {
    let (pair, at) = pages(&[]).await;
    let origin = format!("Origin: {APP}\r\nContent-Type: application/json\r\n");
    let rows = [
        ("POST", "/v2/log/p", 404),
        ("POST", "/log", 404),
        ("POST", "/feedback", 404),
        ("POST", "/v2/tasks/t/human-eval", 404),
        ("GET", "/status", 404),
        ("GET", "/metrics", 404),
        ("GET", "/healthz", 404),
        ("GET", "/dead_letters", 404),
        ("OPTIONS", "/log", 404),
        ("GET", "/v2/tasks/t/flag", 405),
        ("PUT", "/v2/tasks/t/flag", 405),
        ("POST", "/v2/tasks/undefined/flag", 422),
    ];
    for (method, path, expected) in rows {
        let reply = raw_tcp(&at, request(method, path, &origin, FEEDBACK).as_bytes()).await;
        assert_eq!(status(&reply), expected, "{method} {path}: {reply}");
        assert_eq!(
            header(&reply, "access-control-allow-origin"),
            APP,
            "the page may read why"
        );
    }
    // The feedback on a task that was never named is kept, as a dead letter.
    assert_eq!(pair.finish().await.accepted, 1);
}

#[tokio::test]
async fn hosts_types_and_sizes_are_checked_here_too() {
    let (pair, at) = pages(&[
        ("intake.browser.max_body_bytes", "1 KiB"),
        ("intake.hosts", "logs.internal"),
    ])
    .await;
    let good = flag("t", "");
    let evil = good.replace("Host: localhost", "Host: evil.example");
    let twice = good.replace("Host: localhost\r\n", "Host: localhost\r\nHost: localhost\r\n");
    let text = good.replace("application/json", "text/plain");
    let long = format!("{{\"flag\":\"success\",\"notes\":\"{}\"}}", "x".repeat(1024));
    let headers = format!("Origin: {APP}\r\nContent-Type: application/json\r\n");
    let long = request("POST", "/v2/tasks/t/flag", &headers, &long);
    for (name, bytes, expected) in [
        ("evil host", evil, 403),
        ("two hosts", twice, 400),
        ("text", text, 415),
        ("long", long, 413),
    ] {
        let reply = raw_tcp(&at, bytes.as_bytes()).await;
        assert_eq!(status(&reply), expected, "{name}: {reply}");
    }
    assert_eq!(pair.daemon.ledger().await.accepted, 0);
    let named = good.replace("Host: localhost", "Host: logs.internal:4714");
    let reply = raw_tcp(&at, named.as_bytes()).await;
    assert_eq!(status(&reply), 200, "{reply}");
    assert_eq!(pair.daemon.ledger().await.accepted, 1);
}

#[tokio::test]
async fn over_the_rate_is_429_with_when_to_come_back() {
    // As slow as it goes, so that nothing comes back while the test runs.
    let (pair, at) = pages(&[("intake.browser.requests_per_minute", "1")]).await;
    let first = raw_tcp(&at, flag("t", "").as_bytes()).await;
    assert_eq!(status(&first), 200, "{first}");
    let second = raw_tcp(&at, flag("t", "").as_bytes()).await;
    assert_eq!(status(&second), 429, "{second}");
    assert_eq!(header(&second, "access-control-allow-origin"), APP);
    let wait: u64 = header(&second, "retry-after").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    assert!(second.contains("intake.browser.requests_per_minute"), "{second}");
    assert_eq!(pair.daemon.ledger().await.accepted, 1);
}

#[tokio::test]
async fn the_listener_is_off_unless_it_is_asked_for() {
    let mut pair = Pair::start().await;
    let fields = pair.daemon.logged("accepting").await;
    assert!(fields.get("browser").is_none(), "{fields}");
    let headers = format!("Origin: {APP}\r\nContent-Type: application/json\r\n");
    let sent = request("POST", "/v2/tasks/t/flag", &headers, FEEDBACK);
    let reply = raw_tcp(&pair.daemon.url, sent.as_bytes()).await;
    assert_eq!(status(&reply), 403, "{reply}");
    assert_eq!(pair.finish().await.accepted, 0);
}

#[tokio::test]
async fn an_origin_and_a_host_that_are_listed_reach_the_main_listener() {
    let pair = Pair::start_with(|setup| {
        setup
            .with("intake.origins", APP)
            .with("intake.hosts", "logs.internal")
    })
    .await;
    let headers = format!("Origin: {APP}\r\nContent-Type: application/json\r\n");
    let event = "{\"input\":\"x\",\"project_id\":\"p\"}";
    let listed = request("POST", "/log", &headers, event);
    for (name, bytes, expected) in [
        ("listed", listed.clone(), 200),
        ("another host", listed.replace("localhost", "evil.example"), 403),
        ("another origin", listed.replace(":3000", ":3001"), 403),
        ("listed host", listed.replace("localhost", "logs.internal"), 200),
    ] {
        let reply = raw_tcp(&pair.daemon.url, bytes.as_bytes()).await;
        assert_eq!(status(&reply), expected, "{name}: {reply}");
        assert_eq!(cors(&reply), Vec::<&str>::new(), "{name}");
    }
    assert_eq!(pair.finish().await.accepted, 2);
}

#[tokio::test]
async fn slashes_of_a_base_url_that_ends_in_one_fold_for_pages_as_well() {
    let (pair, at) = pages(&[]).await;
    let headers = format!("Origin: {APP}\r\nContent-Type: application/json\r\n");
    for path in ["//v2/tasks/t/flag", "/v2//tasks/t//flag/"] {
        let reply = raw_tcp(&at, request("POST", path, &headers, FEEDBACK).as_bytes()).await;
        assert_eq!(status(&reply), 200, "{path}: {reply}");
    }
    let reply = raw_tcp(
        &at,
        request("POST", "//v2/tasks//flag", &headers, FEEDBACK).as_bytes(),
    )
    .await;
    assert_eq!(status(&reply), 422, "{reply}");
    assert!(reply.contains("task_id is empty"), "{reply}");
    // The third is kept as a dead letter.
    assert_eq!(pair.daemon.ledger().await.accepted, 3);
}
