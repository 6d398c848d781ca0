//! An upstream that is not found, not trusted, elsewhere or busy: events wait with the remedy.

use crate::relay::{Fault, Relay, reply};
use crate::scale::figure;
use crate::support::client;
use crate::support::daemon::Setup;
use crate::support::eventually;
use crate::support::upstream::Upstream;
use crate::wire::{attempts, id, log, reason};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, crypto, pki_types::PrivateKeyDer};

#[tokio::test]
async fn a_name_that_is_not_found_queues_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let upstream = Upstream::start().await;
    let setup = Setup::new(folder.path(), "https://no-such-host.invalid");
    let mut daemon = setup.start().await;
    log(&daemon, (0..20).map(id)).await;
    let said = reason(&daemon, "backing_off").await;
    assert!(
        said.contains("its name was not found") && said.contains("upstream.base_url"),
        "{said}"
    );
    let tried = eventually("some attempts", || async {
        Some(attempts(&daemon).await).filter(|n| *n >= 5)
    })
    .await;
    assert_eq!(daemon.ledger().await.queued, 20);
    daemon.kill_hard();
    let daemon = setup.with("upstream.base_url", &upstream.url()).start().await;
    assert_eq!(daemon.drained().await.delivered, 20);
    let state = upstream.finish().await;
    assert_eq!((state.stored, state.duplicates), (20, 0));
    figure(&format!(
        "DNS: {tried} attempts in vain, 20 events waited; with the right name 20 stored, 0 sent twice"
    ));
}

/// A certificate authority of this test's own, and what it signed for 127.0.0.1.
struct Authority {
    pem: String,
    server: Arc<ServerConfig>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("signed").pem();
        let issuer = rcgen::Issuer::new(params, key);
        let own_key = rcgen::KeyPair::generate().expect("a key");
        let own = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
        let own = own.signed_by(&own_key, &issuer).expect("signed");
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![own.der().clone()],
                PrivateKeyDer::Pkcs8(own_key.serialize_der().into()),
            )
            .expect("they belong together");
        Self {
            pem,
            server: Arc::new(server),
        }
    }

    /// Ends TLS in front of the sandbox; gives `https://127.0.0.1:PORT`.
    async fn front(&self, upstream: &Upstream) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let acceptor = TlsAcceptor::from(self.server.clone());
        let behind = upstream.url().trim_start_matches("http://").to_owned();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, behind) = (acceptor.clone(), behind.clone());
                tokio::spawn(async move {
                    let mut outer = acceptor.accept(stream).await?;
                    let mut inner = tokio::net::TcpStream::connect(behind).await?;
                    tokio::io::copy_bidirectional(&mut outer, &mut inner).await
                });
            }
        });
        format!("https://127.0.0.1:{port}")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_an_own_authority_is_taken_with_its_file_and_with_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let upstream = Upstream::start().await;
    let (right, wrong) = (Authority::new(), Authority::new());
    let url = right.front(&upstream).await;
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, &wrong.pem).expect("written");
    let setup = Setup::new(folder.path(), &url);
    for setup in [
        setup.clone(),
        setup
            .clone()
            .with("upstream.ca_file", file.to_str().expect("text")),
    ] {
        let mut daemon = setup.start().await;
        if daemon.ledger().await.queued == 0 {
            log(&daemon, (0..20).map(id)).await;
        }
        let said = reason(&daemon, "backing_off").await;
        assert!(
            said.contains("no trusted connection") && said.contains("upstream.ca_file"),
            "{said}"
        );
        assert_eq!(
            upstream.state().requests,
            0,
            "nothing left before the server was trusted"
        );
        daemon.kill_hard();
    }
    std::fs::write(&file, &right.pem).expect("written");
    let daemon = setup
        .with("upstream.ca_file", file.to_str().expect("text"))
        .start()
        .await;
    assert_eq!(daemon.drained().await.delivered, 20);
    let state = upstream.finish().await;
    assert_eq!((state.stored, state.duplicates), (20, 0));
    figure(
        "TLS: no authority and a wrong one: 0 requests, 20 events waited; with the right one 20 stored, 0 sent twice",
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let upstream = Upstream::start().await;
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let target = elsewhere.local_addr().expect("bound");
    let callers = Arc::new(AtomicUsize::new(0));
    let count = callers.clone();
    tokio::spawn(async move {
        while elsewhere.accept().await.is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let statuses = [
        "301 Moved Permanently",
        "302 Found",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ];
    let location = format!("Location: http://{target}/v2/log/p\r\n");
    let mended = Arc::new(AtomicBool::new(false));
    let passes = mended.clone();
    let relay = Relay::start(&upstream.url(), move |n| match passes.load(Ordering::Relaxed) {
        true => Fault::None,
        false => reply(statuses[n % statuses.len()], &location, ""),
    })
    .await;
    let daemon = Setup::new(folder.path(), &relay.url()).start().await;
    log(&daemon, (0..20).map(id)).await;
    let said = reason(&daemon, "parked").await;
    assert!(
        said.contains("redirect") && said.contains("upstream.base_url"),
        "{said}"
    );
    mended.store(true, Ordering::Relaxed);
    let counts = daemon.drained().await;
    assert_eq!((counts.delivered, counts.dead), (20, 0));
    // Its own knock shows that any earlier one would have been counted.
    tokio::net::TcpStream::connect(target).await.expect("it listens");
    eventually("the test's own knock", || async {
        (callers.load(Ordering::Relaxed) > 0).then_some(())
    })
    .await;
    assert_eq!(
        callers.load(Ordering::Relaxed),
        1,
        "somebody followed the redirect"
    );
    let state = upstream.finish().await;
    assert_eq!(state.duplicates, 0);
    figure("redirect: 4 of them, 0 followed; 20 events waited, and were stored once when it ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_is_honoured_as_seconds_and_as_a_date_and_capped() {
    let in_two_seconds = || httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(2));
    let second = Duration::from_secs(1);
    for (status, after, most, least) in [
        ("429 Too Many Requests", "1".to_owned(), "30 s", second),
        ("503 Service Unavailable", "1".to_owned(), "30 s", second),
        // A date has whole seconds, so that one of two seconds may be gone.
        ("503 Service Unavailable", "date".to_owned(), "30 s", second / 2),
        (
            "429 Too Many Requests",
            "86400".to_owned(),
            "200 ms",
            Duration::from_millis(200),
        ),
        (
            "503 Service Unavailable",
            "Fri, 31 Dec 9999 23:59:59 GMT".to_owned(),
            "200 ms",
            Duration::from_millis(200),
        ),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let upstream = Upstream::start().await;
        let told = after.clone();
        let relay = Relay::start(&upstream.url(), move |n| match n {
            0 => {
                let after = if told == "date" {
                    in_two_seconds()
                } else {
                    told.clone()
                };
                reply(status, &format!("Retry-After: {after}\r\n"), "{}")
            }
            _ => Fault::None,
        })
        .await;
        let daemon = Setup::new(folder.path(), &relay.url())
            .with("retry.max", most)
            .start()
            .await;
        log(&daemon, [id(0)]).await;
        assert_eq!(daemon.drained().await.delivered, 1);
        let seen = relay.seen();
        let waited = seen[1].0.duration_since(seen[0].0);
        figure(&format!(
            "{status} with Retry-After {after}, retry.max {most}: tried again after {} ms",
            waited.as_millis()
        ));
        // The clock of a wait never runs fast; how slow it may run is not asserted.
        assert!(waited >= least, "only {waited:?}");
        assert_eq!(upstream.finish().await.duplicates, 0);
    }
}

#[tokio::test]
async fn what_upstream_quotes_of_an_event_is_in_no_log_line_metric_or_status() {
    let quoted = json!({"detail": [{"type": "x", "loc": ["body", "batched_log_events", 0, "raw_input", "CANARY"],
        "msg": "Input should be a valid string", "input": {"secret": "CANARY"}}]});
    let text = "1 error [type=t, input_value='CANARY', input_type=str]";
    for (status, body, told) in [
        ("422 Unprocessable Entity", quoted, "(422)"),
        ("400 Bad Request", json!({ "detail": text }), "(400)"),
        (
            "500 Internal Server Error",
            json!("CANARY in a traceback"),
            "(500)",
        ),
        (
            "503 Service Unavailable",
            json!({"detail": "busy\r\n\u{1b}[31mfake\u{202e}"}),
            "(503)",
        ),
        (
            "502 Bad Gateway",
            json!({"detail": "long ".repeat(10_000)}),
            "(502)",
        ),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let upstream = Upstream::start().await;
        let body = body.to_string();
        // Twice, so that it is there to be seen while the lane waits.
        let relay = Relay::start(&upstream.url(), move |n| match n {
            0 | 1 => reply(status, "", &body),
            _ => Fault::None,
        })
        .await;
        let daemon = Setup::new(folder.path(), &relay.url())
            .with("log.level", "debug")
            .with("retry.min", "300 ms")
            .with("retry.max", "300 ms")
            .start()
            .await;
        log(&daemon, ["CANARY".to_owned()]).await;
        let metrics = format!("{}/metrics", daemon.url);
        let counts = eventually("delivery", || async {
            let page = client::send(reqwest::Client::new().get(&metrics)).await;
            let shown = format!("{}{}", daemon.status().await, String::from_utf8_lossy(&page.body));
            assert!(!shown.contains("CANARY"), "{shown}");
            let counts = daemon.ledger().await;
            (counts.queued == 0).then_some(counts)
        })
        .await;
        assert_eq!((counts.delivered, counts.dead), (1, 0), "{status}");
        let mut was_told = false;
        for line in daemon.said() {
            for theirs in ["CANARY", "Input should be", "input_type", "fake", "long long"] {
                assert!(!line.contains(theirs), "{line}");
            }
            let fields: Value = serde_json::from_str(&line).expect("a JSON line");
            let message = fields["message"].as_str().unwrap_or_default();
            was_told |= message.contains(told);
            assert!(
                !message.contains(|c: char| c.is_control() || c == '\u{202e}'),
                "{message:?}"
            );
            assert!(message.chars().count() < 800, "{message:?}");
        }
        assert!(was_told, "{told:?} is not in {:?}", daemon.said());
        upstream.finish().await;
    }
}
