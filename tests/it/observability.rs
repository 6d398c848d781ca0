//! What operators see.

use crate::support::Pair;
use crate::support::client::{self, batch};
use serde_json::json;

#[tokio::test]
async fn health_readiness_metrics_and_status_tell_the_same_story() {
    let pair = Pair::start().await;
    for n in 0..7 {
        pair.post(
            "/v2/log/p",
            batch(&[json!({"input": "x", "task_id": format!("t{n}")}).to_string()]),
        )
        .await;
    }
    pair.post("/v2/log/p", batch(&[r#"{"input":7}"#])).await;
    pair.post(
        "/feedback",
        r#"{"task_id":"t0","flag":"success","project_id":"p"}"#,
    )
    .await;
    pair.upstream.evaluated(1).await;
    let counts = pair.daemon.drained().await;
    assert_eq!((counts.accepted, counts.delivered, counts.dead), (9, 8, 1));

    assert_eq!(
        client::send(pair.client.get(pair.at("/healthz"))).await.status,
        200
    );
    assert_eq!(
        client::send(pair.client.get(pair.at("/readyz"))).await.status,
        200
    );

    let reply = client::send(pair.client.get(pair.at("/metrics"))).await;
    assert!(
        reply.headers["content-type"]
            .to_str()
            .expect("text")
            .starts_with("text/plain; version=0.0.4")
    );
    let metrics = String::from_utf8(reply.body).expect("text");
    for line in [
        "phosphod_ledger_events{state=\"accepted\"} 9",
        "phosphod_ledger_events{state=\"delivered\"} 8",
        "phosphod_ledger_events{state=\"dead\"} 1",
        "phosphod_ledger_events{state=\"queued\"} 0",
        "phosphod_intake_events_total{kind=\"log\"} 7",
        "phosphod_intake_events_total{kind=\"feedback\"} 1",
        "phosphod_intake_refused_events_total{kind=\"log\"} 1",
        "phosphod_intake_requests_total{route=\"/v2/log/{project_id}\",status=\"200\"} 8",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} is not in\n{metrics}"
        );
    }

    let status = pair.daemon.status().await;
    let lanes = status["lanes"].as_array().expect("a list");
    let kinds: Vec<_> = lanes
        .iter()
        .map(|lane| (lane["project"].clone(), lane["kind"].clone()))
        .collect();
    assert!(
        kinds.contains(&(json!("p"), json!("log"))) && kinds.contains(&(json!("p"), json!("feedback"))),
        "{status}"
    );
    assert!(!status.to_string().contains("test-key"));
    pair.finish().await;
}

#[tokio::test]
async fn no_label_takes_a_clients_text() {
    let pair = Pair::start().await;
    for n in 0..200 {
        pair.post(&format!("/v2/log/free-text-{n}"), batch(&[r#"{"input":"x"}"#]))
            .await;
        pair.post(&format!("/made-up-{n}"), "{}").await;
    }
    let reply = client::send(pair.client.get(pair.at("/metrics"))).await;
    let metrics = String::from_utf8(reply.body).expect("text");
    assert!(
        !metrics.contains("free-text") && !metrics.contains("made-up"),
        "{metrics}"
    );
    pair.finish().await;
}

#[tokio::test]
async fn an_outage_is_one_log_line_and_its_end_another() {
    let mut pair = Pair::start().await;
    pair.upstream.switch(json!({"status": 503})).await;
    pair.post("/v2/log/p", batch(&[r#"{"input":"x","task_id":"t"}"#]))
        .await;
    pair.upstream
        .reached("failed attempts", 8, |state| state.failed_requests)
        .await;
    pair.upstream.switch(json!({"status": null})).await;
    pair.upstream.stored(1).await;
    pair.daemon.drained().await;
    pair.daemon.signal(rustix::process::Signal::TERM);
    pair.daemon.exited().await;
    let said = pair.daemon.said();
    let about = |level: &str| {
        said.iter()
            .filter(|line| line.contains(&format!("\"level\":\"{level}\"")) && line.contains("p/log"))
            .count()
    };
    assert_eq!(about("WARN"), 1, "one line when it starts: {said:#?}");
    assert_eq!(about("INFO"), 1, "one line when it ends: {said:#?}");
}

#[tokio::test]
async fn bodies_and_keys_never_reach_the_log() {
    let mut pair = Pair::start_with(|setup| setup.with("log.level", "debug")).await;
    pair.upstream.switch(json!({"keys": ["other"]})).await;
    pair.post(
        "/v2/log/p",
        batch(&[r#"{"input":"private-words","user_id":"u\n<0>fake"}"#]),
    )
    .await;
    pair.post("/log", "{\"input\": \"private-words\" oops").await;
    pair.upstream
        .reached("refused attempts", 2, |state| state.failed_requests)
        .await;
    pair.daemon.signal(rustix::process::Signal::TERM);
    pair.daemon.exited().await;
    let said = pair.daemon.said().join("\n");
    assert!(
        !said.contains("private-words") && !said.contains("test-key"),
        "{said}"
    );
    assert!(!said.contains("\n<0>fake"), "{said}");
}

/// Reads a page with the parser of Prometheus' own Python library, and prints families and samples.
const READ: &str = r#"
import json, sys
from prometheus_client import openmetrics, parser
from prometheus_client.openmetrics import parser as open_parser
read = {"text": parser, "open": open_parser}[sys.argv[1]].text_string_to_metric_families
families = list(read(sys.stdin.read()))
print(json.dumps({
    "types": {family.name: family.type for family in families},
    "helps": all(family.documentation for family in families),
    "samples": {sample.name + json.dumps(sample.labels): sample.value for family in families for sample in family.samples},
}))
"#;

#[tokio::test]
async fn a_real_parser_reads_the_same_out_of_both_formats() {
    use crate::support::skip::skip;
    use std::io::Write;
    use std::process::{Command, Stdio};
    let python = crate::clients::installed("venv/bin/python");
    let probe = Command::new(&python)
        .args(["-c", "import prometheus_client"])
        .output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        let why = "python3 has no prometheus_client: run tests/clients/install.sh";
        return skip(
            "observability::a_real_parser_reads_the_same_out_of_both_formats",
            why,
        );
    }
    let pair = Pair::start().await;
    pair.post("/v2/log/p", batch(&[r#"{"input":"x","task_id":"t"}"#]))
        .await;
    pair.post("/v2/log/p", batch(&[r#"{"input":7}"#])).await;
    pair.daemon.drained().await;
    let read = async |accept: &str, format: &str, content_type: &str| {
        let request = pair.client.get(pair.at("/metrics")).header("accept", accept);
        let reply = client::send(request).await;
        assert_eq!(reply.headers["content-type"], content_type);
        assert_eq!(reply.headers["vary"], "accept");
        let mut child = Command::new(&python)
            .args(["-c", READ, format])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("python starts");
        let mut into = child.stdin.take().expect("piped");
        into.write_all(&reply.body).expect("it reads");
        drop(into);
        let output = child.wait_with_output().expect("python ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        let page = String::from_utf8_lossy(&reply.body);
        assert!(output.status.success(), "{errors}\n{page}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("JSON")
    };
    let open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let open = read(
        "application/openmetrics-text;version=1.0.0,*/*;q=0.1",
        "open",
        open_metrics,
    )
    .await;
    let text = read("*/*", "text", "text/plain; version=0.0.4; charset=utf-8").await;
    // The parser of the older format takes the suffix off the name of a counter, as the newer
    // format does.
    assert_eq!(text["types"], open["types"]);
    assert_eq!(text["types"]["phosphod_intake_events"], "counter", "{text}");
    assert_eq!(
        text["types"]["phosphod_intake_append_seconds"], "histogram",
        "{text}"
    );
    assert_eq!((&text["helps"], &open["helps"]), (&json!(true), &json!(true)));
    let kinds = text["types"].as_object().expect("a table").values();
    assert!(
        kinds.clone().all(|kind| kind != "unknown"),
        "every sample belongs to a type: {text}"
    );
    let names = |read: &serde_json::Value| {
        let samples = read["samples"].as_object().expect("a table");
        samples.keys().cloned().collect::<std::collections::BTreeSet<_>>()
    };
    // Reading the first page is itself counted on the second.
    let new: Vec<_> = names(&text).difference(&names(&open)).cloned().collect();
    assert!(new.iter().all(|name| name.contains("/metrics")), "{new:?}");
    assert!(names(&open).is_subset(&names(&text)));
    let accepted = "phosphod_ledger_events{\"state\": \"accepted\"}";
    assert_eq!(
        (&text["samples"][accepted], &open["samples"][accepted]),
        (&json!(2), &json!(2))
    );
    pair.finish().await;
}
