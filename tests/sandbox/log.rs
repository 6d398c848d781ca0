//! contract.md section 1, row by row.

use super::support::{Bench, JSON, KEY, batch, event};
use serde_json::json;

const DEEP_FINE: usize = 250;

fn nested(depth: usize) -> String {
    let value = format!("{}{}", "[".repeat(depth - 1), "]".repeat(depth - 1));
    format!(r#"{{"input":"i","metadata":{{"deep":{value}}}}}"#)
}

#[tokio::test]
async fn a_wrong_input_output_or_project_id_fails_the_whole_request() {
    let bench = Bench::new().await;
    let bad = [
        r#"{}"#,
        r#"{"input":null}"#,
        r#"{"input":1}"#,
        r#"{"input":["a"]}"#,
        r#"{"input":"i","output":1}"#,
        r#"{"input":"i","output":{}}"#,
        r#"{"input":"i","project_id":true}"#,
        "null",
        "[]",
    ];
    for event in bad {
        assert_eq!(
            bench.log(&[r#"{"input":"good"}"#, event]).await.status,
            422,
            "{event}"
        );
    }
    assert_eq!(bench.sandbox.state().stored, 0);
    assert_eq!(
        bench
            .log(&[r#"{"input":"i","output":null,"project_id":null}"#])
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn any_other_wrong_field_refuses_its_event_alone() {
    let bench = Bench::new().await;
    let bad: Vec<(&str, &[&str])> = vec![
        ("task_id", &["null", "1", "[]"]),
        ("environment", &["null", "1"]),
        ("client_created_at", &["1.0", "1.5", "\"1\"", "null", "true"]),
        ("created_at", &["1.5", "\"1\"", "true"]),
        ("last_update", &["1.5", "{}"]),
        ("session_id", &["1", "[]"]),
        ("user_id", &["1"]),
        ("version_id", &["false"]),
        ("step_id", &["1"]),
        ("test_id", &["1"]),
        ("raw_input_type_name", &["1"]),
        ("raw_output_type_name", &["1"]),
        ("flag", &["\"bad\"", "1", "\"\"", "true"]),
        ("metadata", &["[]", "\"m\"", "1"]),
        (
            "raw_input",
            &["1", "[1]", "[\"a\",{}]", "[null]", "[{},null]", "true", "[[]]"],
        ),
        ("raw_output", &["1", "[1]", "[\"a\",{}]", "true"]),
    ];
    let mut refused = 0;
    for (field, values) in bad {
        for value in values {
            let event = format!(r#"{{"input":"i","{field}":{value}}}"#);
            let reply = bench
                .log(&[r#"{"input":"good"}"#, &event, r#"{"input":"last"}"#])
                .await
                .json();
            let events = reply["logged_events"].as_array().expect("a list").clone();
            assert_eq!(events.len(), 3, "{event}");
            assert_eq!(events[0]["input"], "good", "{event}");
            assert!(
                events[1]["error_in_log"]
                    .as_str()
                    .is_some_and(|e| e.contains(field)),
                "{event}: {}",
                events[1]
            );
            assert_eq!(events[2]["input"], "last", "{event}");
            refused += 1;
        }
    }
    let state = bench.sandbox.state();
    assert_eq!(
        (state.refused, state.stored, state.lost),
        (refused, 2 * refused, 0)
    );
}

#[tokio::test]
async fn right_fields_of_every_type_are_taken() {
    let bench = Bench::new().await;
    let good = [
        r#""task_id":"","environment":"""#,
        r#""client_created_at":1700000000,"created_at":null,"last_update":5"#,
        r#""created_at":-5,"last_update":null"#,
        r#""session_id":null,"user_id":"u","version_id":null,"step_id":"s","test_id":null"#,
        r#""raw_input_type_name":null,"raw_output_type_name":"T""#,
        r#""flag":"success""#,
        r#""flag":"failure","metadata":null"#,
        r#""flag":null,"metadata":{"a":{"b":[1]}}"#,
        r#""raw_input":null,"raw_output":null"#,
        r#""raw_input":"a","raw_output":"b""#,
        r#""raw_input":{"a":1},"raw_output":{"b":null}"#,
        r#""raw_input":["a","b"],"raw_output":["a",null]"#,
        r#""raw_input":[{"role":"user","content":"c"}],"raw_output":[null,{"a":1}]"#,
        r#""raw_input":[],"raw_output":[null]"#,
        r#""anything":[1,{"else":2.50}]"#,
    ];
    for fields in good {
        let reply = bench.log(&[&format!(r#"{{"input":"i",{fields}}}"#)]).await.json();
        assert_eq!(reply["logged_events"][0]["input"], "i", "{fields}: {reply}");
    }
    assert_eq!(bench.sandbox.state().stored, good.len() as u64);
}

#[tokio::test]
async fn the_echo_has_defaults_for_what_was_absent() {
    let bench = Bench::new().await;
    let reply = bench.log(&[r#"{"input":"i","x":1}"#]).await.json();
    let echo = &reply["logged_events"][0];
    assert_eq!(
        (&echo["project_id"], &echo["session_id"], &echo["x"]),
        (&json!("p"), &json!(null), &json!(1))
    );
    assert_eq!(echo["task_id"].as_str(), bench.ids().first().map(String::as_str));
    assert!(echo["client_created_at"].is_i64());
}

#[tokio::test]
async fn keys_are_looked_at_first() {
    let bench = Bench::with(json!({"keys": ["good"], "maintenance": true, "projects": {"gone": 404}})).await;
    let ask = async |key: &str, path: &str, body: &str| {
        let headers = [("authorization", key), JSON];
        let answer = bench
            .send("POST", path, &headers[usize::from(key.is_empty())..], body)
            .await;
        (answer.status, answer.json()["detail"].to_string())
    };
    let absent = (403, "\"Not authenticated\"".to_owned());
    assert_eq!(ask("", "/v2/log/gone", "{").await, absent);
    assert_eq!(ask("Basic good", "/v2/log/gone", "{").await, absent);
    assert_eq!(ask("Bearer ", "/v2/log/gone", "{").await, absent);
    assert_eq!(
        ask("Bearer bad", "/v2/log/gone", "{").await,
        (401, "\"Invalid token\"".to_owned())
    );
    assert_eq!(ask("Bearer good", "/v2/log/gone", "{").await.0, 422);
    assert_eq!(ask("Bearer good", "/v2/log/gone", &batch(&[])).await.0, 503);
    bench.switch(json!({"maintenance": false})).await;
    assert_eq!(ask("Bearer good", "/v2/log/gone", &batch(&[])).await.0, 404);
    assert_eq!(ask("Bearer good", "/v2/log/there", &batch(&[])).await.0, 200);
}

#[tokio::test]
async fn bodies_of_odd_shape_and_type_are_answered_as_the_contract_says() {
    let bench = Bench::with(json!({"projects": {"other": 403}})).await;
    let good = batch(&[r#"{"input":"i"}"#]);
    let typed = async |kind: &str| {
        bench
            .send("POST", "/v2/log/p", &[KEY, ("content-type", kind)], good.clone())
            .await
            .status
    };
    assert_eq!(typed("application/json; charset=utf-8").await, 200);
    assert_eq!(typed("application/vnd.api+json").await, 200);
    assert_eq!(typed("text/plain").await, 422);
    assert_eq!(typed("application/x-www-form-urlencoded").await, 422);
    assert_eq!(
        bench.send("POST", "/v2/log/p", &[KEY], good.clone()).await.status,
        200
    );

    let posted = async |body: &[u8]| bench.post("/v2/log/p", body).await.status;
    assert_eq!(posted(batch(&[]).as_bytes()).await, 200);
    assert_eq!(bench.log(&[]).await.json(), json!({"logged_events": []}));
    for malformed in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"batched_log_events":null}"#,
        r#"{"batched_log_events":[}"#,
    ] {
        assert_eq!(posted(malformed.as_bytes()).await, 422, "{malformed}");
    }
    assert_eq!(
        posted(b"{\"batched_log_events\":[{\"input\":\"\xff\"}]}").await,
        400
    );
    let zipped = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xff];
    assert_eq!(posted(&zipped).await, 400);
    let headers = [KEY, JSON, ("content-encoding", "gzip")];
    assert_eq!(
        bench.send("POST", "/v2/log/p", &headers, zipped).await.status,
        400
    );
    assert_eq!(posted(batch(&[&nested(3_000)]).as_bytes()).await, 400);
    assert_eq!(bench.post("/v2/log/other", good.clone()).await.status, 403);
    assert_eq!(bench.post("/v2/log/p/", good.clone()).await.status, 307);
    assert_eq!(bench.post("/v2/log/a%2Fb", good.clone()).await.status, 404);
    assert_eq!(bench.get("/v2/log/p").await.status, 405);
    assert_eq!(bench.post("/v0/log/p", good).await.status, 200);
    assert!(bench.sandbox.state().surprises.is_empty());
}

#[tokio::test]
async fn what_cannot_be_echoed_fails_with_500_every_time() {
    let bench = Bench::new().await;
    let bad = [
        r#"{"input":"\ud800"}"#.to_owned(),
        r#"{"input":"i","x":"a\ude00b"}"#.to_owned(),
        r#"{"input":"i","\ud83dx":1}"#.to_owned(),
        r#"{"input":"i","x":1e400}"#.to_owned(),
        nested(500),
    ];
    for event in &bad {
        for _ in 0..2 {
            assert_eq!(
                bench.log(&[r#"{"input":"good"}"#, event]).await.status,
                500,
                "{event:.80}"
            );
        }
    }
    assert_eq!(bench.sandbox.state().stored, 0);
    for fine in [r#"{"input":"\ud83d\ude00","x":1e308}"#, &nested(DEEP_FINE)] {
        assert_eq!(bench.log(&[fine]).await.status, 200, "{fine:.80}");
    }
}

#[tokio::test]
async fn what_arrived_is_kept_byte_for_byte() {
    let bench = Bench::new().await;
    let odd = r#"{ "z":1.10,"input" : "\u00e9é\ud83d\ude00\/", "a":9223372036854775807,"a":1e2 , "task_id":"t\u0031",
        "long":0.1234567890123456789012345678901234567890 }"#;
    let body = format!(
        "{{\"x\":1, \"batched_log_events\" :\n[ {odd} , {} ]}}",
        event("t2")
    );
    assert_eq!(bench.post("/v2/log/p", body).await.status, 200);
    let tasks = bench.sandbox.tasks(Some("p"));
    assert_eq!((tasks[0].raw.as_str(), tasks[0].task_id.as_str()), (odd, "t1"));
    assert_eq!((tasks[1].raw.clone(), tasks[1].position), (event("t2"), 1));
    let listed = bench.get("/sandbox/tasks?project=p").await.json();
    assert_eq!(listed[0]["raw"], odd);
    assert_eq!(bench.get("/sandbox/tasks/t1").await.json()["raw"], odd);
}

#[tokio::test]
async fn a_task_is_stored_once_and_the_first_content_wins() {
    let bench = Bench::new().await;
    let first = r#"{"task_id":"t","input":"first"}"#;
    bench.log(&[first, r#"{"task_id":"t","input":"second"}"#]).await;
    bench
        .post("/v2/log/other", batch(&[r#"{"task_id":"t","input":"third"}"#]))
        .await;
    let state = bench.sandbox.state();
    assert_eq!((state.stored, state.duplicates), (1, 2));
    assert_eq!(
        (state.projects["p"].duplicates, state.projects["other"].duplicates),
        (1, 1)
    );
    assert_eq!(bench.sandbox.task("t").map(|t| t.raw).as_deref(), Some(first));
    let logs = bench.sandbox.logs(None);
    assert_eq!(
        logs.iter().map(|l| l.duplicate).collect::<Vec<_>>(),
        [false, true, true]
    );
    assert!(logs[2].raw.contains("third") && logs[2].project_id == "other");
}

#[tokio::test]
async fn an_events_own_project_is_where_it_is_stored_if_it_exists() {
    let bench = Bench::with(json!({"projects": {"foreign": 403, "gone": 404}})).await;
    let own = |id: &str| format!(r#"{{"task_id":"{id}","input":"i","project_id":"{id}"}}"#);
    let reply = bench
        .log(&[&own("mine"), &own("foreign"), &own("gone"), &own("p")])
        .await
        .json();
    let errors: Vec<_> = (0..4)
        .map(|at| reply["logged_events"][at]["error_in_log"].as_str().unwrap_or("-"))
        .collect();
    assert!(
        errors[1].starts_with("403: ") && errors[2].starts_with("404: "),
        "{errors:?}"
    );
    assert_eq!((errors[0], errors[3]), ("-", "-"));
    assert_eq!(bench.sandbox.tasks(Some("mine")).len(), 1);
    assert_eq!(bench.ids(), ["mine", "p"]);
}

#[tokio::test]
async fn over_quota_is_an_error_in_the_reply_but_stored() {
    let bench = Bench::with(json!({"quota": {"p": 1}})).await;
    let reply = bench.log(&[&event("a"), &event("b")]).await.json();
    let events = reply["logged_events"].as_array().expect("a list");
    assert_eq!(events[0]["task_id"], "a");
    assert_eq!(
        events[1],
        json!({"error_in_log": "Max usage quota reached for project p: 1/1 logs"})
    );
    assert_eq!(bench.ids(), ["a", "b"]);
    assert_eq!(
        (bench.sandbox.state().over_quota, bench.sandbox.state().refused),
        (1, 0)
    );
}

#[tokio::test]
async fn chosen_events_can_be_refused_with_a_reason() {
    let bench = Bench::with(json!({"refuse_events": {"b": "no"}})).await;
    let reply = bench.log(&[&event("a"), &event("b")]).await.json();
    assert_eq!(reply["logged_events"][1], json!({"error_in_log": "no"}));
    assert_eq!(bench.ids(), ["a"]);
    assert_eq!(bench.sandbox.state().refused, 1);
}

#[tokio::test]
async fn one_poisoned_event_loses_its_whole_batch_after_the_200() {
    let big = format!(r#"{{"input":"{}"}}"#, "x".repeat(16 * 1024 * 1024));
    // 3 MB of JSON, which are over 16 MiB as BSON.
    let numbers = format!(r#"{{"input":"i","n":[{}]}}"#, vec!["1"; 1_500_000].join(","));
    let poison = [
        r#"{"input":"a <|endoftext|> b"}"#,
        r#"{"input":"\u003c|endoftext|\u003e"}"#,
        r#"{"input":"i","raw_input":[{"role":"user","content":"c"},{"role":"assistant","content":null}]}"#,
        r#"{"input":"i","raw_input":[{"role":"user","content":[{"type":"text"}]}]}"#,
        r#"{"input":"i","raw_input":[{"role":"user","content":"c","n":1}]}"#,
        r#"{"input":"<|endoftext|>","prompt_tokens":1}"#,
        r#"{"input":"i","x":[{"y":9223372036854775808}]}"#,
        r#"{"input":"i","x":-9223372036854775809,"prompt_tokens":1,"completion_tokens":1}"#,
        r#"{"input":"i","metadata":{"a\u0000":1}}"#,
        r#"{"input":"i","raw_input":"<|endoftext|>"}"#,
        r#"{"input":"i","raw_input":["a","<|endoftext|>"]}"#,
        r#"{"input":"i","raw_input":[{"role":"user","content":"<|endoftext|>"}]}"#,
        &big,
        &numbers,
    ];
    let bench = Bench::new().await;
    for (at, event) in poison.iter().enumerate() {
        let reply = bench.log(&[r#"{"input":"good"}"#, event]).await;
        assert_eq!(reply.status, 200, "{event:.80}");
        assert_eq!(
            reply.json()["logged_events"].as_array().map(Vec::len),
            Some(2),
            "{event:.80}"
        );
        let state = bench.sandbox.state();
        assert_eq!(
            (state.stored, state.lost_batches),
            (0, at as u64 + 1),
            "{event:.80}"
        );
    }
    assert_eq!(bench.sandbox.state().lost, 2 * poison.len() as u64);
}

#[tokio::test]
async fn token_counts_of_their_own_save_events_from_the_tokenizer() {
    let bench = Bench::new().await;
    let saved = [
        r#"{"input":"<|endoftext|>","metadata":{"prompt_tokens":null,"completion_tokens":null}}"#,
        r#"{"input":"<|endoftext|>","prompt_tokens":0,"completion_tokens":0}"#,
        r#"{"input":"i","raw_input":"<|endoftext|>","prompt_tokens":1,"completion_tokens":2}"#,
        r#"{"input":"i","raw_input":[{"content":null}],"prompt_tokens":1,"metadata":{"completion_tokens":2}}"#,
        r#"{"input":"i","output":"<|endoftext|>","x":9223372036854775807,"y":"\u0000"}"#,
    ];
    assert_eq!(bench.log(&saved).await.status, 200);
    assert_eq!((bench.sandbox.state().stored, bench.sandbox.state().lost), (5, 0));
}

#[tokio::test]
async fn null_counts_or_no_output_in_its_first_event_stall_a_session() {
    let bench = Bench::new().await;
    for (session, first, stalled) in [
        (
            "null",
            r#""output":"o","prompt_tokens":null,"completion_tokens":null"#,
            true,
        ),
        (
            "zero",
            r#""output":"o","prompt_tokens":0,"completion_tokens":0"#,
            false,
        ),
        ("none", r#""output":null"#, true),
        ("fine", r#""output":"o""#, false),
    ] {
        let event = |nr: u32, fields: &str| {
            format!(r#"{{"task_id":"{session}-{nr}","input":"i","session_id":"{session}",{fields}}}"#)
        };
        bench.log(&[&event(0, first)]).await;
        for nr in 1..4 {
            bench.log(&[&event(nr, r#""output":"o""#)]).await;
        }
        let row = bench.sandbox.session(session).expect("a session");
        let (length, last) = if stalled { (1, 0) } else { (4, 3) };
        assert_eq!(row.session_length, length, "{session}");
        assert_eq!(row.last_task, format!("{session}-{last}"));
    }
    // Only as the first of its session.
    let later = r#"{"task_id":"fine-4","input":"i","session_id":"fine","output":null}"#;
    bench.log(&[later, later]).await;
    assert_eq!(
        bench.sandbox.session("fine").map(|row| row.session_length),
        Some(6),
        "a duplicate counts too"
    );
}

#[tokio::test]
async fn fields_of_a_task_are_dropped_and_all_others_are_metadata() {
    let bench = Bench::new().await;
    let of_a_task = [
        "id",
        "additional_input",
        "additional_output",
        "data",
        "last_eval",
        "human_eval",
        "sentiment",
        "language",
        "events",
        "notes",
        "topics",
        "task_position",
        "is_last_task",
    ];
    let fields: Vec<String> = of_a_task
        .iter()
        .map(|name| format!(r#""{name}":"own""#))
        .collect();
    let event = format!(
        r#"{{"task_id":"t","input":"i","model":"m",{}}}"#,
        fields.join(",")
    );
    assert_eq!(bench.log(&[&event]).await.status, 200);
    let task = bench.get("/v2/tasks/t").await.json();
    assert_eq!(task["metadata"], json!({"model": "m"}));
    for name in of_a_task {
        assert!(
            task.get(name).is_some_and(|value| *value != "own"),
            "{name}: {task}"
        );
    }
}

#[tokio::test]
async fn a_poisoned_event_that_is_refused_does_no_harm() {
    let bench = Bench::new().await;
    bench
        .log(&[&event("good"), r#"{"input":"<|endoftext|>","flag":"bad"}"#])
        .await;
    assert_eq!(bench.ids(), ["good"]);
}

#[tokio::test]
async fn large_batches_and_events_are_stored() {
    let bench = Bench::new().await;
    let events: Vec<String> = (0..10_000).map(|n| event(&format!("t{n}"))).collect();
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let reply = bench.log(&events).await.json();
    assert_eq!(reply["logged_events"].as_array().map(Vec::len), Some(10_000));
    let large = format!(r#"{{"task_id":"large","input":"{}"}}"#, "x".repeat(3_000_000));
    assert_eq!(bench.log(&[&large]).await.status, 200);
    let tasks = bench.sandbox.tasks(None);
    assert!(
        tasks[..10_000]
            .iter()
            .enumerate()
            .all(|(n, task)| task.task_id == format!("t{n}"))
    );
    assert_eq!(tasks[10_000].raw, large);
}
