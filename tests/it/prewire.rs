//! What the API can never store does not leave the machine: it is refused at the door, and kept. Each row is also sent
//! around the door, straight to the sandbox, which has checks of its own.

use crate::support::client::{Lines, batch, send};
use crate::support::{Pair, dead_letters_text};
use serde_json::{Value, json};

/// What becomes of a batch that holds such an event when it goes to the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Api {
    /// 500, each time.
    Fails,
    /// 200, and nothing of the batch is stored.
    Loses,
    /// 422 for the whole request.
    Unprocessable,
    /// `error_in_log` for the event alone.
    Refuses,
}

/// A part of the refusal, what the API does, and the fields beside `task_id`.
fn rows() -> Vec<(&'static str, Api, String)> {
    let deep = format!("{}{}", "[".repeat(600), "]".repeat(600));
    let row = |says, api, fields: &str| (says, api, fields.to_owned());
    vec![
        row("input is an integer", Api::Unprocessable, r#""input":1"#),
        row(
            "output is a list",
            Api::Unprocessable,
            r#""input":"x","output":[]"#,
        ),
        row("metadata is a list", Api::Refuses, r#""input":"x","metadata":[]"#),
        row("created_at is", Api::Refuses, r#""input":"x","created_at":1.5"#),
        row("input holds half a surrogate", Api::Fails, r#""input":"\ud83d""#),
        row(
            "it holds half a surrogate",
            Api::Fails,
            r#""input":"x","own":["\udc00"]"#,
        ),
        row(
            "it holds half a surrogate",
            Api::Fails,
            r#""input":"x","own\ud83d":1"#,
        ),
        row(
            "metadata holds half a surrogate",
            Api::Fails,
            r#""input":"x","metadata":{"a":{"\ud83d":1}}"#,
        ),
        (
            "nested over 200 deep",
            Api::Fails,
            format!(r#""input":"x","own":{deep}"#),
        ),
        row(
            "beyond a double",
            Api::Fails,
            r#""input":"x","metadata":{"p":1e400}"#,
        ),
        row(
            "signed 64 bits",
            Api::Loses,
            r#""input":"x","metadata":{"n":[9223372036854775808]}"#,
        ),
        row(
            "signed 64 bits",
            Api::Loses,
            r#""input":"x","n":-9223372036854775809"#,
        ),
        row(
            "signed 64 bits",
            Api::Loses,
            r#""input":"x","client_created_at":99999999999999999999"#,
        ),
        row(
            "NUL character",
            Api::Loses,
            r#""input":"x","metadata":{"a\u0000":1}"#,
        ),
        row(
            "NUL character",
            Api::Loses,
            r#""input":"x","raw_input":{"a":[{"\u0000":1}]}"#,
        ),
    ]
}

fn event(id: &str, fields: &str) -> String {
    format!(r#"{{"task_id":"{id}",{fields}}}"#)
}

#[tokio::test]
async fn what_can_never_be_stored_is_refused_at_every_door_and_kept() {
    let pair = Pair::start().await;
    let mut lines = Lines::connect(&pair.daemon.unix).await;
    let rows = rows();
    for (n, (says, _, fields)) in rows.iter().enumerate() {
        let good = event(&format!("good-{n}"), r#""input":"x""#);
        let reply = pair
            .post("/v2/log/p", batch(&[event(&format!("tcp-{n}"), fields), good]))
            .await;
        assert_eq!(reply.status, 200, "{fields}");
        let logged = &reply.json()["logged_events"];
        let error = logged[0]["error_in_log"].as_str().unwrap_or_default();
        assert!(error.contains(says), "{error:?} for {fields}");
        assert_eq!(logged[1]["task_id"], format!("good-{n}"));
        let reply = pair.post("/log", event(&format!("friendly-{n}"), fields)).await;
        assert_eq!(reply.status, 200, "{fields}");
        assert!(String::from_utf8_lossy(&reply.body).contains(says), "{fields}");
        let answer = lines.ask(&event(&format!("line-{n}"), fields)).await;
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(error.contains(says), "{error:?} for {fields}");
    }
    let count = rows.len() as u64;
    pair.upstream.stored(count).await;
    let dead = dead_letters_text(&pair.daemon).await;
    for (n, (_, _, fields)) in rows.iter().enumerate() {
        for door in ["tcp", "friendly", "line"] {
            let kept = event(&format!("{door}-{n}"), fields);
            assert!(dead.contains(&kept), "{kept} is kept byte for byte");
        }
    }
    let state = pair.upstream.state();
    assert_eq!(
        (state.lost, state.refused, state.failed_requests),
        (0, 0, 0),
        "{state:?}"
    );
    let counts = pair.finish().await;
    assert_eq!((counts.delivered, counts.dead), (count, 3 * count));
}

#[tokio::test]
async fn the_sandbox_agrees_that_each_of_them_can_never_be_stored() {
    let pair = Pair::start().await;
    for (n, (_, api, fields)) in rows().into_iter().enumerate() {
        let id = format!("around-{n}");
        let before = pair.upstream.state();
        // The API drops the connection of a batch that it loses.
        let request = reqwest::Client::new()
            .post(format!("{}/v2/log/p", pair.upstream.url()))
            .header("content-type", "application/json")
            .header("authorization", "Bearer test-key")
            .body(batch(&[event(&id, &fields)]));
        let reply = send(request).await;
        let after = pair.upstream.state();
        let refused = String::from_utf8_lossy(&reply.body).contains("error_in_log");
        let met = match reply.status {
            500 => Api::Fails,
            422 => Api::Unprocessable,
            200 if refused => Api::Refuses,
            200 if after.lost == before.lost + 1 => Api::Loses,
            status => panic!("{status} for {fields}"),
        };
        assert_eq!(met, api, "{fields}");
        assert!(pair.upstream.task(&id).is_none(), "{fields}");
    }
    pair.finish().await;
}

#[tokio::test]
async fn what_only_looks_like_it_arrives_byte_for_byte() {
    let pair = Pair::start().await;
    let deep = format!("{}{}", "[".repeat(199), "]".repeat(199));
    let fine = [
        r#""input":"\ud83d\ude00 \\ud83d","own":"\u0000""#.to_owned(),
        r#""input":"x","metadata":{"n":[9223372036854775807,-9223372036854775808,-0,1e5,1.0,1e308,99999999999999999999e2]}"#.into(),
        r#""input":"x","metadata":{"\\u0000":1,"é":"1e400"}"#.into(),
        format!(r#""input":"x","own":{deep}"#),
    ];
    for (n, fields) in fine.iter().enumerate() {
        let id = format!("fine-{n}");
        let reply = pair.post("/v2/log/p", batch(&[event(&id, fields)])).await;
        assert_eq!(reply.json()["logged_events"][0]["task_id"], id, "{fields}");
    }
    pair.upstream.stored(fine.len() as u64).await;
    for (n, fields) in fine.iter().enumerate() {
        let row = pair.upstream.task(&format!("fine-{n}")).expect("it is stored");
        assert!(row.raw.ends_with(&format!("{fields}}}")), "{}", row.raw);
    }
    let counts = pair.finish().await;
    assert_eq!((counts.delivered, counts.dead), (fine.len() as u64, 0));
}

#[tokio::test]
async fn odd_times_are_kept_counted_and_told_about_once_a_project() {
    let pair = Pair::start().await;
    let mut lines = Lines::connect(&pair.daemon.unix).await;
    for n in 0..3 {
        for project in ["a", "b"] {
            let odd = json!({"input": "x", "task_id": format!("{project}-{n}"), "client_created_at": 1_700_000_000_000_u64});
            let sane = json!({"input": "x", "client_created_at": 1_700_000_000});
            let body = json!({"batched_log_events": [odd, sane]}).to_string();
            assert_eq!(pair.post(&format!("/v2/log/{project}"), body).await.status, 200);
        }
    }
    let line = json!({"input": "x", "created_at": -5, "project_id": "a"}).to_string();
    assert!(lines.ask(&line).await["task_id"].is_string());
    let metrics = send(pair.client.get(pair.at("/metrics"))).await;
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(
        metrics.contains("phosphod_intake_odd_times_total 7\n"),
        "{metrics}"
    );
    let told: Vec<Value> = pair
        .daemon
        .said()
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| {
            line["message"]
                .as_str()
                .is_some_and(|text| text.contains("more than a day ahead"))
        })
        .map(|line| line["project"].clone())
        .collect();
    assert_eq!(told, ["a", "b"]);
    pair.upstream.stored(13).await;
    assert_eq!(
        pair.upstream.event("a-0")["client_created_at"],
        1_700_000_000_000_u64,
        "as it came"
    );
    let counts = pair.finish().await;
    assert_eq!((counts.delivered, counts.dead), (13, 0));
}
