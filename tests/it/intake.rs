//! What goes in by each door arrives at the API, byte for byte.

use crate::support::Pair;
use crate::support::client::{self, Lines, batch};
use serde_json::{Value, json};

/// Fields, numbers and texts that careless handling would change.
const ODD: &str = r#"{"input":"é \u00e9 \ud83d\ude80 🚀 \"quoted\" \\ \/ \n","zeta":1,"alpha":{"b":[1.10,1.0e+2,-0.0,9007199254740993],"a":null},"i64":9223372036854775807,"neg":-9223372036854775808,"decimal":0.1000000000000000055511151231257827021181583404541015625,"task_id":"odd-1","unknown_field":"kept","client_created_at":1700000000,"project_id":"p","output":"𝔘𝔫𝔦𝔠𝔬𝔡𝔢 你好 العربية"}"#;

#[tokio::test]
async fn an_odd_event_arrives_byte_for_byte_by_every_door() {
    let pair = Pair::start().await;
    let by = |door: &str| ODD.replace("odd-1", door);

    let reply = pair.post("/v2/log/p", batch(&[by("tcp")])).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["logged_events"][0]["task_id"], "tcp");

    let unix = client::unix(&pair.daemon.unix);
    let reply = client::post(&unix, "http://localhost/v0/log/p", batch(&[by("unix")])).await;
    assert_eq!(reply.status, 200);

    let answer = Lines::connect(&pair.daemon.unix).await.ask(&by("ndjson")).await;
    assert_eq!(answer["task_id"], "ndjson");

    assert_eq!(pair.post("/log", by("plain")).await.status, 200);

    pair.upstream.stored(4).await;
    for door in ["tcp", "unix", "ndjson", "plain"] {
        assert_eq!(
            pair.upstream.task(door).expect("stored").raw,
            by(door),
            "by {door}"
        );
    }
    assert_eq!(pair.finish().await.delivered, 4);
}

#[tokio::test]
async fn what_is_absent_is_stamped_and_the_rest_left_as_it_was() {
    let pair = Pair::start().await;
    let reply = pair
        .post("/v2/log/stamped", batch(&[r#"{ "input" : "x",  "own" : 1.50 }"#]))
        .await
        .json();
    let logged = &reply["logged_events"][0];
    let task = logged["task_id"].as_str().expect("stamped");
    assert_eq!(logged["project_id"], "stamped");

    pair.upstream.stored(1).await;
    let raw = pair.upstream.task(task).expect("stored").raw;
    assert!(raw.ends_with(r#" "input" : "x",  "own" : 1.50 }"#), "{raw}");
    let event: Value = serde_json::from_str(&raw).expect("JSON");
    assert_eq!(event["project_id"], "stamped");
    assert!(
        event["client_created_at"]
            .as_i64()
            .is_some_and(|at| at > 1_700_000_000)
    );
    pair.finish().await;
}

#[tokio::test]
async fn a_hundred_and_ten_thousand_events_in_a_request_arrive_in_order() {
    let pair = Pair::start().await;
    for (project, count) in [("hundred", 100_usize), ("ten-thousand", 10_000)] {
        let id = |n: usize| format!("{project}-{n}");
        let events: Vec<String> = (0..count)
            .map(|n| json!({"input": format!("question {n}"), "task_id": id(n)}).to_string())
            .collect();
        let reply = pair.post(&format!("/v2/log/{project}"), batch(&events)).await;
        assert_eq!(reply.status, 200);
        assert_eq!(
            reply.json()["logged_events"].as_array().expect("a list").len(),
            count
        );
        pair.upstream
            .reached("tasks of the project", count as u64, |state| {
                state.projects.get(project).map_or(0, |project| project.stored)
            })
            .await;
        let arrived: Vec<String> = pair
            .upstream
            .tasks(project)
            .into_iter()
            .map(|row| row.task_id)
            .collect();
        assert_eq!(
            arrived,
            (0..count).map(id).collect::<Vec<_>>(),
            "order and number of {project}"
        );
    }
    let counts = pair.finish().await;
    assert_eq!((counts.accepted, counts.delivered), (10_100, 10_100));
}

#[tokio::test]
async fn an_event_of_three_megabytes_arrives_whole() {
    let pair = Pair::start().await;
    let text: String = (0..3_000_000_u32)
        .map(|n| char::from(b'a' + (n * 7 % 26) as u8))
        .collect();
    let event =
        json!({"input": text, "task_id": "big", "client_created_at": 1, "project_id": "p"}).to_string();
    let small =
        json!({"input": "x", "task_id": "small", "client_created_at": 1, "project_id": "p"}).to_string();
    assert_eq!(pair.post("/v2/log/p", batch(&[&event, &small])).await.status, 200);
    assert_eq!(
        Lines::connect(&pair.daemon.unix)
            .await
            .ask(&event.replace("big", "big-line"))
            .await["task_id"],
        "big-line"
    );
    pair.upstream.stored(3).await;
    assert!(
        pair.upstream.task("big").expect("stored").raw == event,
        "3 MB, byte for byte"
    );
    assert!(pair.upstream.task("big-line").is_some());
    pair.finish().await;
}

#[tokio::test]
async fn requests_pipelined_on_one_connection_are_answered_in_order() {
    let pair = Pair::start().await;
    let mut bytes = Vec::new();
    for n in 0..5 {
        let body = json!({"input": "x", "task_id": format!("pipe-{n}")}).to_string();
        let close = if n == 4 { "Connection: close\r\n" } else { "" };
        bytes.extend_from_slice(
            format!(
                "POST /log HTTP/1.1\r\nHost: localhost\r\n{close}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
        );
    }
    let replies = client::raw_tcp(&pair.daemon.url, &bytes).await;
    let places: Vec<_> = (0..5)
        .map(|n| replies.find(&format!("pipe-{n}")).expect("answered"))
        .collect();
    assert!(places.is_sorted(), "{replies}");
    assert_eq!(replies.matches("HTTP/1.1 200").count(), 5);
    pair.upstream.stored(5).await;
    pair.finish().await;
}

#[tokio::test]
async fn many_lines_at_once_are_answered_one_by_one_in_order() {
    let pair = Pair::start().await;
    let mut lines = Lines::connect(&pair.daemon.unix).await;
    let mut bytes = String::new();
    for n in 0..1000 {
        bytes.push_str(&json!({"input": "x", "task_id": format!("line-{n}")}).to_string());
        bytes.push('\n');
    }
    bytes
        .push_str("{\"kind\":\"feedback\",\"task_id\":\"line-7\",\"flag\":\"success\",\"notes\":\"good\"}\n");
    lines.write(bytes.as_bytes()).await;
    for n in 0..1000 {
        assert_eq!(lines.answer().await["task_id"], format!("line-{n}"));
    }
    assert_eq!(lines.answer().await["task_id"], "line-7");
    pair.upstream.evaluated(1).await;
    assert_eq!(pair.upstream.evals("line-7")[0].notes.as_deref(), Some("good"));
    assert_eq!(pair.finish().await.delivered, 1001);
}

#[tokio::test]
async fn log_takes_one_event_an_array_and_the_batched_form() {
    let pair = Pair::start().await;
    for (body, ids) in [
        (r#"{"input":"x","task_id":"one"}"#.to_owned(), vec!["one"]),
        (
            r#"[{"input":"x","task_id":"two"},{"input":"y","task_id":"three"}]"#.to_owned(),
            vec!["two", "three"],
        ),
        (
            batch(&[r#"{"input":"x","task_id":"four","project_id":"own"}"#]),
            vec!["four"],
        ),
    ] {
        let reply = pair.post("/log", body).await;
        assert_eq!(reply.status, 200);
        let logged = reply.json();
        let got: Vec<_> = logged["logged_events"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|e| &e["task_id"])
            .collect();
        assert_eq!(got, ids);
    }
    pair.upstream.stored(4).await;
    assert_eq!(
        pair.upstream.task("one").expect("stored").project_id,
        "default-project"
    );
    assert_eq!(pair.upstream.task("four").expect("stored").project_id, "own");
    pair.finish().await;
}

#[tokio::test]
async fn feedback_is_taken_in_both_spellings_by_every_door() {
    let pair = Pair::start().await;
    for n in 0..4 {
        pair.post(
            "/log",
            json!({"input": "x", "task_id": format!("t{n}")}).to_string(),
        )
        .await;
    }
    let flag = r#"{"flag":"success","flag_source":"user","notes":"n","project_id":"default-project"}"#;
    let eval = r#"{"human_eval":"failure","source":"owner","project_id":"default-project"}"#;
    let plain = r#"{"task_id":"t2","flag":"failure","notes":null}"#;
    for (path, body) in [
        ("/v2/tasks/t0/flag", flag),
        ("/v2/tasks/t1/human-eval", eval),
        ("/feedback", plain),
    ] {
        let reply = pair.post(path, body).await;
        assert_eq!(reply.status, 200, "{path}");
        assert!(reply.json().is_object(), "{path}");
    }
    let line = r#"{"kind":"feedback","task_id":"t3","human_eval":"success"}"#;
    assert_eq!(
        Lines::connect(&pair.daemon.unix).await.ask(line).await["task_id"],
        "t3"
    );

    pair.upstream.evaluated(4).await;
    let first = &pair.upstream.evals("t0")[0];
    assert_eq!(
        (first.flag.as_str(), first.source.as_str(), first.notes.as_deref()),
        ("success", "user", Some("n"))
    );
    assert_eq!(pair.upstream.evals("t1")[0].flag, "failure");
    assert_eq!(pair.upstream.evals("t2")[0].source, "owner");
    assert_eq!(pair.upstream.evals("t3")[0].flag, "success");
    assert_eq!(pair.finish().await.delivered, 8);
}

#[tokio::test]
async fn health_is_answered_as_the_api_does() {
    let pair = Pair::start().await;
    let reply = client::send(pair.client.get(pair.at("/v2/health"))).await;
    assert_eq!((reply.status, reply.json()), (200, json!({"status": "OK"})));
    pair.finish().await;
}

#[tokio::test]
async fn slashes_of_a_base_url_that_ends_in_one_fold_on_every_route() {
    let pair = Pair::start().await;
    let unix = client::unix(&pair.daemon.unix);
    let log = r#"{"batched_log_events":[{"input":"x","task_id":"t1"}]}"#;
    let feedback = r#"{"flag":"success","project_id":"p"}"#;
    for (http, base) in [
        (&pair.client, pair.at("/")),
        (&pair.client, pair.at("//")),
        (&unix, "http://localhost/".to_owned()),
    ] {
        let posts = [
            ("/v2/log/p", log),
            ("/v0//log/p/", log),
            ("/log", r#"{"input":"x","task_id":"t2","project_id":"p"}"#),
            ("/v2//tasks/t1/flag", feedback),
            ("/v2/tasks//t1/human-eval", feedback),
            (
                "/feedback",
                r#"{"task_id":"t2","flag":"success","project_id":"p"}"#,
            ),
        ];
        for (path, body) in posts {
            let reply = client::post(http, &format!("{base}{path}"), body).await;
            assert_eq!(reply.status, 200, "{base}{path}: {reply:?}");
        }
        for path in ["/v2/health", "/healthz", "/readyz//", "/metrics", "/status"] {
            let reply = client::send(http.get(format!("{base}{path}"))).await;
            assert_eq!(reply.status, 200, "{base}{path}: {reply:?}");
        }
        // A task id that is missing is no slash too many.
        for path in ["/v2/tasks//flag", "/v2//tasks///human-eval"] {
            let reply = client::post(http, &format!("{base}{path}"), feedback).await;
            assert_eq!(reply.status, 422, "{base}{path}: {reply:?}");
            assert!(reply.detail().contains("task_id is empty"), "{reply:?}");
        }
    }
    for path in ["//dead_letters", "//dead_letters//", "/dead_letters//?limit=1"] {
        let reply = client::send(unix.get(format!("http://localhost{path}"))).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
    }
    for path in ["//dead_letters//requeue", "//dead_letters/purge/"] {
        let reply = client::post(&unix, &format!("http://localhost{path}"), "{}").await;
        assert_ne!(reply.status, 404, "{path}: {reply:?}");
    }
    pair.finish().await;
}
