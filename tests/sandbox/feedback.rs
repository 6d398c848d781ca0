//! contract.md section 2, row by row.

use super::support::{Bench, Headers, JSON, KEY, LONG, batch, event};
use serde_json::{Value, json};

async fn bench() -> Bench {
    let bench = Bench::with(json!({"eval_wait_ms": 0, "keys": ["sk-test"]})).await;
    bench.log(&[&event("t")]).await;
    bench
}

fn body(value: &Value) -> String {
    value.to_string()
}

#[tokio::test]
async fn both_routes_set_the_flag_and_return_the_task() {
    let bench = bench().await;
    let said = json!({"flag": "success", "source": "user", "notes": "good"});
    let task = bench.post("/v2/tasks/t/flag", body(&said)).await;
    assert_eq!(task.status, 200);
    let task = task.json();
    assert_eq!(
        (&task["id"], &task["flag"], &task["input"]),
        (&json!("t"), &json!("success"), &json!("hello"))
    );
    assert_eq!(task["human_eval"], json!({"flag": "success"}));
    assert_eq!(task["notes"], "good");
    assert_eq!(
        task["last_eval"],
        json!({"value": "success", "source": "user", "notes": null}),
        "the notes of an evaluation stand at the task alone"
    );

    let task = bench
        .post("/v2/tasks/t/human-eval", r#"{"human_eval":"failure"}"#)
        .await
        .json();
    assert_eq!(
        (&task["flag"], &task["notes"]),
        (&json!("failure"), &Value::Null),
        "notes are erased"
    );
    assert_eq!(task["last_eval"]["source"], "owner");
    let rows = bench.sandbox.evals(Some("t"));
    let rows: Vec<_> = rows
        .iter()
        .map(|r| (r.flag.as_str(), r.source.as_str(), r.notes.as_deref()))
        .collect();
    assert_eq!(
        rows,
        [("success", "user", Some("good")), ("failure", "owner", None)]
    );
    assert_eq!(bench.get("/v2/tasks/t").await.json()["flag"], "failure");
    assert_eq!(
        bench
            .get("/sandbox/evals?task_id=t")
            .await
            .json()
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    assert_eq!(bench.sandbox.state().projects["p"].evals, 2);
}

#[tokio::test]
async fn who_may_give_feedback_is_as_in_the_table() {
    let bench = bench().await;
    bench.post("/v2/log/theirs", batch(&[&event("foreign")])).await;
    bench.switch(json!({"projects": {"theirs": 403}})).await;
    let bad = ("authorization", "Bearer bad");
    let by_project = r#"{"flag":"success","project_id":"p"}"#;
    let wrong = r#"{"flag":"success","project_id":"q"}"#;
    let table: [(&str, Headers<'_>, &str, u16); 11] = [
        ("t", &[KEY, JSON], r#"{"flag":"success"}"#, 200),
        ("t", &[JSON], by_project, 200),
        ("t", &[bad, JSON], by_project, 200),
        ("t", &[JSON], r#"{"flag":"success"}"#, 400),
        ("t", &[bad, JSON], r#"{"flag":"success"}"#, 400),
        ("t", &[JSON], wrong, 400),
        ("t", &[KEY, JSON], r#"{"flag":null}"#, 400),
        ("t", &[KEY, JSON], "{}", 400),
        ("foreign", &[KEY, JSON], r#"{"flag":"success"}"#, 403),
        (
            "foreign",
            &[JSON],
            r#"{"flag":"success","project_id":"theirs"}"#,
            200,
        ),
        ("unknown", &[KEY, JSON], r#"{"flag":"success"}"#, 404),
    ];
    for (task, headers, body, status) in table {
        let answer = bench
            .send("POST", &format!("/v2/tasks/{task}/flag"), headers, body)
            .await;
        assert_eq!(
            answer.status, status,
            "{task} {headers:?} {body}: {}",
            answer.body
        );
    }
}

#[tokio::test]
async fn wrong_types_are_422_and_flag_source_is_ignored() {
    let bench = bench().await;
    let wrong = [
        r#"{"flag":"bad"}"#,
        r#"{"flag":1}"#,
        r#"{"flag":"success","notes":1}"#,
        r#"{"flag":"success","source":{}}"#,
        r#"{"flag":"success","project_id":1}"#,
        "[]",
        "{",
    ];
    for body in wrong {
        assert_eq!(bench.post("/v2/tasks/t/flag", body).await.status, 422, "{body}");
    }
    let headers = [KEY, ("content-type", "text/plain")];
    assert_eq!(
        bench
            .send("POST", "/v2/tasks/t/flag", &headers, r#"{"flag":"success"}"#)
            .await
            .status,
        422
    );
    assert!(bench.sandbox.evals(None).is_empty());

    bench
        .post("/v2/tasks/t/flag", r#"{"flag":"success","flag_source":"user"}"#)
        .await;
    assert_eq!(bench.sandbox.evals(None)[0].source, "owner");
    assert!(bench.sandbox.state().surprises.is_empty());
}

#[tokio::test]
async fn feedback_waits_for_a_log_that_is_on_its_way() {
    let bench = Bench::with(json!({"eval_wait_ms": 30_000})).await;
    let early = bench.post("/v2/tasks/late/flag", r#"{"flag":"success"}"#);
    let log = async {
        bench
            .sandbox
            .wait_for(LONG, |state| state.requests >= 1)
            .await
            .expect("the feedback arrives");
        bench.log(&[&event("late")]).await
    };
    let (early, log) = tokio::join!(early, log);
    assert_eq!((early.status, log.status), (200, 200));
    let state = bench.sandbox.state();
    assert_eq!((state.evals, state.early_evals), (1, 1));
    bench.post("/v2/tasks/late/flag", r#"{"flag":"failure"}"#).await;
    let state = bench.sandbox.state();
    assert_eq!((state.evals, state.early_evals), (2, 1), "not early any more");
}

#[tokio::test]
async fn a_flag_within_the_log_event_leaves_no_row() {
    let bench = bench().await;
    bench
        .log(&[r#"{"task_id":"f","input":"i","flag":"failure","notes":"n","source":"user"}"#])
        .await;
    let task = bench.get("/v2/tasks/f").await.json();
    assert_eq!(task["flag"], "failure");
    assert_eq!(task["human_eval"], json!({"flag": "failure"}));
    assert_eq!((&task["last_eval"], &task["notes"]), (&Value::Null, &Value::Null));
    assert!(bench.sandbox.evals(None).is_empty());
}

#[tokio::test]
async fn tasks_are_read_and_updated_with_the_key_only() {
    let bench = bench().await;
    let odd = r#"{"task_id":"m","input":"i","session_id":"s","metadata":{"a":1.10},"model":"x","language":"fr","client_created_at":-7}"#;
    bench.log(&[odd]).await;
    let read = bench.get("/v2/tasks/m").await;
    assert!(
        read.body.contains(r#""metadata":{"a":1.10,"model":"x"}"#),
        "{}",
        read.body
    );
    assert_eq!(read.json()["session_id"], "s");
    assert!(
        read.json()["created_at"].as_i64().is_some_and(|at| at > 0),
        "a negative time is replaced by now"
    );
    assert_eq!(bench.send("GET", "/v2/tasks/m", &[], "").await.status, 403);
    assert_eq!(
        bench
            .send("GET", "/v2/tasks/m", &[("authorization", "Bearer bad")], "")
            .await
            .status,
        401
    );
    assert_eq!(bench.get("/v2/tasks/none").await.status, 404);

    let change = r#"{"metadata":{"b":2},"data":{"c":1},"notes":"n","flag":"success","flag_source":"me"}"#;
    let task = bench.post("/v2/tasks/m", change).await.json();
    assert_eq!(
        (&task["metadata"], &task["data"]),
        (&json!({"b": 2}), &json!({"c": 1}))
    );
    assert_eq!(
        (&task["notes"], &task["flag"], &task["last_eval"]["source"]),
        (&json!("n"), &json!("success"), &json!("me"))
    );
    assert_eq!(bench.sandbox.evals(Some("m")).len(), 1, "a flag adds a row");
    let task = bench.post("/v2/tasks/m", r#"{"metadata":{}}"#).await.json();
    assert_eq!((&task["metadata"], &task["notes"]), (&json!({}), &json!("n")));
    assert_eq!(bench.sandbox.evals(Some("m")).len(), 1);
    assert_eq!(bench.post("/v2/tasks/none", change).await.status, 404);
    assert_eq!(
        bench.send("POST", "/v2/tasks/m", &[JSON], change).await.status,
        403
    );
    bench.switch(json!({"projects": {"p": 403}})).await;
    assert_eq!(
        bench.get("/v2/tasks/m").await.status,
        403,
        "another organisation's"
    );
    assert_eq!(bench.post("/v2/tasks/m", change).await.status, 403);
}

#[tokio::test]
async fn a_task_id_may_hold_anything_but_a_slash() {
    let bench = bench().await;
    bench.log(&[r#"{"task_id":"ü ?#%2F\\","input":"i"}"#]).await;
    assert_eq!(bench.get("/v2/tasks/%C3%BC%20%3F%23%252F%5C").await.status, 200);
}

#[tokio::test]
async fn a_path_is_decoded_before_it_is_routed_so_no_url_names_an_id_with_a_slash() {
    let bench = bench().await;
    let ids = ["order/17", "folder/", "t/flag"];
    let events: Vec<String> = ids.iter().map(|id| event(id)).collect();
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    assert_eq!(bench.log(&events).await.status, 200);
    assert_eq!(bench.sandbox.state().stored, 4, "they are stored all the same");
    let flag = r#"{"flag":"success"}"#;
    for (method, path, status) in [
        ("GET", "/v2/tasks/order%2F17", 404),
        ("GET", "/v2/tasks/order/17", 404),
        ("POST", "/v2/tasks/order%2F17/flag", 404),
        ("GET", "/v2/tasks/folder%2F", 307),
        ("GET", "/v2/tasks/t%2F%2F", 307),
        ("POST", "/v2/tasks/folder%2F/human-eval", 404),
        ("POST", "/v2/tasks/t/flag/", 307),
        ("GET", "/v2/tasks/t%2Fflag", 405),
        ("PUT", "/v2/tasks/t", 405),
        ("GET", "/v2/tasks/", 404),
    ] {
        let answer = bench.send(method, path, &[KEY, JSON], flag).await;
        assert_eq!(answer.status, status, "{method} {path}");
        if status == 404 {
            assert_eq!(answer.json(), json!({"detail": "Not Found"}), "{method} {path}");
        }
    }
    let state = bench.sandbox.state();
    assert_eq!((state.unrouted, state.evals), (10, 0));
    assert!(state.surprises.is_empty(), "{:?}", state.surprises);
}

#[tokio::test]
async fn health_needs_no_key() {
    let bench = bench().await;
    assert_eq!(
        bench.send("GET", "/v2/health", &[], "").await.json(),
        json!({"status": "OK"})
    );
    assert_eq!(bench.send("GET", "/v3/health", &[], "").await.status, 200);
}
