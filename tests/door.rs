//! Intake and admin routes in one process with a real spool: what is answered, and what is on disk by then.

#![allow(clippy::expect_used)] // a test panics where something is not as it must be

#[path = "door/lines.rs"]
mod lines;
#[path = "door/stream.rs"]
mod stream;

use phosphod::admin::{About, Admin};
use phosphod::batch;
use phosphod::board::{Board, LaneState};
use phosphod::http::{self, Gate, Limits, Listener, Router};
use phosphod::ids::{Kind, Lane, ProjectId, Seq};
use phosphod::intake::{Intake, Settings};
use phosphod::metrics::Metrics;
use phosphod::secret::{Secret, Secrets};
use phosphod::spool::{self, Spool};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// The daemon's key.
const KEY: &str = "sk-door-canary";

/// Longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(120);

/// Both listeners over a spool of their own.
struct Door {
    spool: Spool,
    board: Board,
    tcp: std::net::SocketAddr,
    unix: PathBuf,
    stop: Vec<oneshot::Sender<()>>,
    serving: JoinSet<()>,
    _folder: TempDir,
}

fn settings() -> Settings {
    Settings {
        max_body_bytes: 100_000,
        max_in_flight_bytes: 4 << 20,
        max_event_bytes: 1_000,
        default_project: Some(project("p")),
        gate: Gate::default(),
        redactor: None,
    }
}

fn project(id: &str) -> ProjectId {
    ProjectId::new(id).expect("an id")
}

fn lane(id: &str, kind: Kind) -> Lane {
    Lane {
        project: project(id),
        kind,
    }
}

impl Door {
    async fn open(settings: Settings) -> Self {
        Self::open_with(settings, Limits::default()).await
    }

    async fn open_with(settings: Settings, limits: Limits) -> Self {
        let folder = tempfile::tempdir().expect("temp folder");
        let spool = spool::Settings {
            path: folder.path().join("data"),
            max_bytes: 1 << 30,
            on_full: spool::OnFull::default(),
            min_free_bytes: 0,
            generation_bytes: 64 << 20,
            max_projects: 1_000,
            keep_room: Default::default(),
            dead_max_bytes: 1 << 20,
            dead_max_age: Duration::from_secs(3600),
        };
        let spool = tokio::task::spawn_blocking(move || Spool::open(spool))
            .await
            .expect("no panic");
        let spool = spool.expect("a new folder opens");
        let (metrics, board) = (Arc::new(Metrics::new()), Board::default());
        let intake = Arc::new(Intake::new(settings, spool.clone(), metrics.clone()));
        let known = Secrets::default();
        known.learn(Secret::new(KEY));
        let about = About {
            base_url: "http://upstream.example".into(),
            secrets: known,
            max_event_bytes: 1 << 20,
            redactor: None,
        };
        let admin = Arc::new(Admin::new(about, spool.clone(), board.clone(), metrics.clone()));
        let gate = intake.gate();
        let router = Arc::new(Router::new(intake, admin, gate, metrics));

        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = tcp.local_addr().expect("bound");
        let path = folder.path().join("s.sock");
        let unix = UnixListener::bind(&path).expect("a new path");
        let (mut stop, mut serving) = (Vec::new(), JoinSet::new());
        for listener in [Listener::Tcp(tcp), Listener::Unix(unix)] {
            let (stopper, stopped) = oneshot::channel::<()>();
            stop.push(stopper);
            let notice = board.notice("a test");
            serving.spawn(http::serve(listener, router.clone(), limits, notice, async {
                let _ = stopped.await;
            }));
        }
        Self {
            spool,
            board,
            tcp: address,
            unix: path,
            stop,
            serving,
            _folder: folder,
        }
    }

    /// One request over TCP: its status and its JSON.
    async fn tcp(&self, request: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.tcp).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("a reply");
        parsed(&text)
    }

    async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        self.tcp(&request("POST", path, body)).await
    }

    /// One request over the Unix socket: the whole reply.
    async fn unix(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(&self.unix).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("a reply");
        text
    }

    /// The gauge of what is in flight.
    async fn in_flight(&self) -> u64 {
        let head = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let text = self.unix(head).await;
        let value = |line: &str| {
            line.strip_prefix("phosphod_intake_in_flight_bytes ")
                .map(|value| value.parse())
        };
        text.lines().find_map(value).expect("a gauge").expect("a number")
    }

    /// Waits until that holds of it.
    async fn until_in_flight(&self, holds: impl Fn(u64) -> bool) {
        let seen = tokio::time::timeout(PATIENCE, async {
            while !holds(self.in_flight().await) {
                tokio::task::yield_now().await;
            }
        });
        seen.await.expect("it comes to that");
    }

    /// Sends lines, closes the sending half, and returns the answers.
    async fn lines(&self, text: &[u8]) -> Vec<Value> {
        let mut stream = UnixStream::connect(&self.unix).await.expect("it listens");
        stream.write_all(text).await.expect("sent");
        stream.shutdown().await.expect("open");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("answers");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("a JSON answer"))
            .collect()
    }

    /// What is queued in a lane, as text.
    async fn queued(&self, lane: &Lane) -> Vec<String> {
        let limits = batch::Limits {
            max_events: 1000,
            max_bytes: 1 << 20,
            max_age: Duration::ZERO,
        };
        let leased = self.spool.lease(lane, &limits).await;
        let texts = leased
            .iter()
            .map(|it| String::from_utf8(it.record().to_vec()).expect("text"))
            .collect();
        self.spool.release(lane, leased).await;
        texts
    }

    async fn close(mut self) {
        for stop in self.stop.drain(..) {
            stop.send(()).expect("it serves");
        }
        while let Some(ended) = self.serving.join_next().await {
            ended.expect("no panic");
        }
        self.spool.close().await;
    }
}

fn request(method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn parsed(reply: &str) -> (u16, Value) {
    let status = reply
        .get(9..12)
        .and_then(|status| status.parse().ok())
        .expect(reply);
    let body = reply.split_once("\r\n\r\n").expect(reply).1;
    (status, serde_json::from_str(body).expect(reply))
}

fn detail(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["detail"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_batch_is_on_disk_in_order_when_it_is_answered() {
    let door = Door::open(settings()).await;
    let body = r#"{"batched_log_events":[{"input":"a","x": 1.50},{"input":2},{"input":"c","task_id":"t3"}]}"#;
    let (status, reply) = door.post("/v2/log/p%31/", body).await;
    assert_eq!(status, 200, "{reply}");
    let logged = reply["logged_events"].as_array().expect("a list");
    assert_eq!(logged.len(), 3);
    assert_eq!(logged[0]["project_id"], "p1");
    assert!(logged[1]["error_in_log"].is_string(), "{reply}");
    assert_eq!(
        logged[2],
        json!({"task_id": "t3", "project_id": "p1", "session_id": null})
    );
    let queued = door.queued(&lane("p1", Kind::Log)).await;
    assert_eq!(queued.len(), 2);
    assert!(
        queued[0].contains(r#""x": 1.50"#) && queued[1].contains("\"t3\""),
        "{queued:?}"
    );
    let ledger = door.spool.ledger();
    assert_eq!((ledger.accepted, ledger.dead, ledger.queued), (3, 1, 2));
    door.close().await;
}

#[tokio::test]
async fn anyone_with_curl_may_send_one_event_a_list_or_a_batch() {
    let door = Door::open(settings()).await;
    for body in [
        r#"{"input":"a"}"#,
        r#"[{"input":"b"}]"#,
        r#"{"batched_log_events":[{"input":"c"}]}"#,
    ] {
        let (status, reply) = door.post("/log", body).await;
        assert_eq!(
            (status, reply["logged_events"].as_array().map(Vec::len)),
            (200, Some(1)),
            "{reply}"
        );
    }
    assert_eq!(door.queued(&lane("p", Kind::Log)).await.len(), 3);
    door.close().await;
}

#[tokio::test]
async fn what_is_no_batch_is_422_with_a_position_and_leaves_nothing_behind() {
    let door = Door::open(Settings {
        default_project: None,
        ..settings()
    })
    .await;
    let malformed = door
        .post("/v2/log/p", "{\"batched_log_events\":[{\"input\":\"a\"}")
        .await;
    assert!(
        matches!(detail(&malformed), (422, why) if why.contains("column")),
        "{malformed:?}"
    );
    let homeless = door
        .post("/log", r#"[{"input":"a","project_id":"own"},{"input":"b"}]"#)
        .await;
    assert!(
        matches!(detail(&homeless), (422, why) if why.contains("PHOSPHO_PROJECT_ID")),
        "{homeless:?}"
    );
    assert_eq!(door.spool.ledger().accepted, 0);
    door.close().await;
}

#[tokio::test]
async fn feedback_in_both_spellings_is_queued_and_a_task_that_is_none_is_explained() {
    let door = Door::open(settings()).await;
    let flag = door
        .post(
            "/v2/tasks/t%3F1/flag",
            r#"{"flag":"success","flag_source":"user"}"#,
        )
        .await;
    assert_eq!(flag, (200, json!({"task_id": "t?1", "queued": true})));
    let eval = door
        .post(
            "/v2/tasks/t2/human-eval",
            r#"{"human_eval":"failure","project_id":"q"}"#,
        )
        .await;
    assert_eq!(eval.0, 200, "{eval:?}");
    let plain = door
        .post("/feedback", r#"{"task_id":"t3","flag":"failure"}"#)
        .await;
    assert_eq!(plain.0, 200, "{plain:?}");
    for (path, body) in [
        ("/v2/tasks/undefined/flag", r#"{"flag":"success"}"#),
        ("/v2/tasks//flag", r#"{"flag":"success"}"#),
        ("/v2/tasks/t%2F1/flag", r#"{"flag":"success"}"#),
        ("/feedback", r#"{"flag":"success"}"#),
        ("/feedback", r#"{"task_id":"t","flag":"great"}"#),
    ] {
        let refused = door.post(path, body).await;
        assert!(
            matches!(detail(&refused), (422, why) if why.len() > 20),
            "{path} {refused:?}"
        );
    }
    assert_eq!(door.queued(&lane("p", Kind::Feedback)).await.len(), 2);
    assert_eq!(door.queued(&lane("q", Kind::Feedback)).await.len(), 1);
    let ledger = door.spool.ledger();
    assert_eq!((ledger.accepted, ledger.dead), (8, 5), "what is refused is kept");
    door.close().await;
}

#[tokio::test]
async fn each_line_has_its_answer_in_order_and_a_bad_one_spoils_nothing() {
    let door = Door::open(settings()).await;
    let long = format!(r#"{{"input":"{}"}}"#, "x".repeat(2_000));
    let mut text = Vec::new();
    for line in [
        r#"{"input":"a","task_id":"t1"}"#,
        "",
        r#"{"input":}"#,
        r#"{"input":"b","metadata":3}"#,
        &long,
        r#"{"kind":"feedback","task_id":"t1","flag":"success"}"#,
    ] {
        text.extend_from_slice(line.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"{\"input\":\"\xff\"}\n{\"kind\":\"log\",\"input\":\"last\",\"task_id\":\"t9\"}");
    let answers = door.lines(&text).await;
    assert_eq!(answers.len(), 7, "{answers:?}");
    assert_eq!(answers[0], json!({"task_id": "t1"}));
    for (at, part) in [
        (1, "column"),
        (2, "metadata"),
        (3, "intake.max_event_bytes"),
        (5, "UTF-8"),
    ] {
        let error = answers[at]["error"].as_str().unwrap_or_default();
        assert!(error.contains(part), "{at}: {answers:?}");
    }
    assert_eq!(
        (&answers[4], &answers[6]),
        (&json!({"task_id": "t1"}), &json!({"task_id": "t9"}))
    );
    let queued = door.queued(&lane("p", Kind::Log)).await;
    assert_eq!(queued.len(), 2);
    assert!(
        queued[1].contains("last") && !queued[1].contains("kind"),
        "{queued:?}"
    );
    let ledger = door.spool.ledger();
    // What looks like an event is kept, whether it is JSON or not.
    assert_eq!((ledger.accepted, ledger.dead), (6, 3));
    door.close().await;
}

#[tokio::test]
async fn a_pipelining_client_may_send_thousands_of_lines_at_once() {
    let door = Door::open(settings()).await;
    let text: String = (0..5_000)
        .map(|n| format!("{{\"input\":\"a\",\"task_id\":\"t{n}\"}}\n"))
        .collect();
    let stream = UnixStream::connect(&door.unix).await.expect("it listens");
    let (receive, mut sending) = stream.into_split();
    let sent = async move {
        sending.write_all(text.as_bytes()).await.expect("sent");
        // Kept open: the answers come without the end of the connection.
        sending
    };
    let received = async {
        let mut lines = BufReader::new(receive).lines();
        for n in 0..5_000 {
            let line = lines.next_line().await.expect("an answer").expect("no end");
            assert_eq!(line, format!("{{\"task_id\":\"t{n}\"}}"));
        }
    };
    let (_sending, ()) = tokio::join!(sent, received);
    assert_eq!(door.spool.ledger().accepted, 5_000);
    door.close().await;
}

#[tokio::test]
async fn a_line_must_end_in_time_even_if_it_goes_on_byte_by_byte() {
    let limits = Limits {
        body: Duration::from_millis(200),
        ..Limits::default()
    };
    let large = Settings {
        max_event_bytes: usize::MAX,
        ..settings()
    };
    let door = Door::open_with(large, limits).await;
    let stream = UnixStream::connect(&door.unix).await.expect("it listens");
    let (mut receive, mut sending) = stream.into_split();
    sending.write_all(b"{\"input\":\"").await.expect("sent");
    let trickle = async {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        while sending.write_all(b"a").await.is_ok() {
            tick.tick().await;
        }
        // The server closed; whether the answer was read first is for the other half to say.
        std::future::pending::<()>().await;
    };
    let mut answer = String::new();
    let mut first = [0; 4096];
    let answered = tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            read = receive.read(&mut first) => read.expect("an answer before the end"),
            () = trickle => 0,
        }
    });
    let read = answered.await.expect("the line had its time");
    answer.push_str(std::str::from_utf8(&first[..read]).expect("text"));
    assert!(answer.contains("did not end in time"), "{answer:?}");
    assert_eq!(door.spool.ledger().accepted, 0);
    door.close().await;
}

/// A door with the smallest budget: 2 MiB for the large.
async fn narrow_door() -> Door {
    let limits = Limits {
        room: Duration::from_millis(20),
        ..Limits::default()
    };
    let settings = Settings {
        max_body_bytes: 2 << 20,
        max_event_bytes: 2 << 20,
        ..settings()
    };
    Door::open_with(settings, limits).await
}

/// A body of `bytes`, one event.
fn body(bytes: usize) -> String {
    let frame = r#"{"input":""}"#.len();
    format!("{{\"input\":\"{}\"}}", "x".repeat(bytes - frame))
}

#[tokio::test]
async fn while_a_large_body_has_the_room_others_are_503_and_small_ones_pass() {
    let door = narrow_door().await;
    let large = request("POST", "/log", &body(2 << 20));
    let mut first = TcpStream::connect(door.tcp).await.expect("it listens");
    let (most, last) = large.split_at(large.len() - 1);
    first.write_all(most.as_bytes()).await.expect("it is read");
    door.until_in_flight(|bytes| bytes >= 2 << 20).await;

    let (status, reply) = door.post("/log", &body(1 << 21)).await;
    assert_eq!(status, 503, "{reply}");
    assert!(
        reply["detail"]
            .as_str()
            .is_some_and(|why| why.contains("intake.max_in_flight_bytes"))
    );
    // Of a chunked body nobody knows the length: it grows until there is no more.
    let chunked = format!(
        "POST /log HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        2 << 20,
        body(2 << 20)
    );
    let (status, reply) = door.tcp(&chunked).await;
    assert_eq!(status, 503, "{reply}");
    // So does a line; the next one is taken all the same.
    let stream = UnixStream::connect(&door.unix).await.expect("it listens");
    let (receive, mut sending) = stream.into_split();
    let lines = format!("{}\n{{\"input\":\"a\",\"task_id\":\"next\"}}\n", body(2 << 20));
    let (sent, answers) = tokio::join!(sending.write_all(lines.as_bytes()), async {
        let mut lines = BufReader::new(receive).lines();
        let refused = lines.next_line().await.expect("an answer").expect("no end");
        (
            refused,
            lines.next_line().await.expect("an answer").expect("no end"),
        )
    });
    sent.expect("all was read");
    assert!(answers.0.contains("intake.max_in_flight_bytes"), "{answers:?}");
    assert_eq!(answers.1, "{\"task_id\":\"next\"}");
    assert_eq!(door.post("/log", r#"{"input":"small"}"#).await.0, 200);

    first.write_all(last.as_bytes()).await.expect("it is read");
    let mut text = String::new();
    first.read_to_string(&mut text).await.expect("a reply");
    assert_eq!(parsed(&text).0, 200, "{text}");
    assert_eq!(
        door.post("/log", &body(2 << 20)).await.0,
        200,
        "there is room again"
    );
    assert_eq!(door.spool.ledger().accepted, 4);
    door.close().await;
}

#[tokio::test]
async fn of_tiny_events_a_body_may_hold_any_number() {
    let door = narrow_door().await;
    let most = (2 << 20) / 256;
    let events = |count: usize| format!("[{}]", vec![r#"{"input":"a"}"#; count].join(","));
    let (status, reply) = door.post("/log", &events(most)).await;
    assert_eq!(
        (status, reply.get("omitted")),
        (200, None),
        "a group is answered whole"
    );
    let count = 3 * most;
    let (status, reply) = door.post("/log", &events(count)).await;
    assert_eq!(status, 200, "{reply}");
    let listed = reply["logged_events"].as_array().map_or(0, Vec::len);
    assert_eq!(
        reply["omitted"],
        json!({"accepted": count - listed, "refused": 0})
    );
    assert_eq!(door.spool.ledger().accepted, (most + count) as u64);
    // A fault at the end is seen before anything is stored.
    let refused = door.post("/log", &(events(count) + "x")).await;
    assert!(matches!(detail(&refused), (422, why) if why.contains("trailing characters")));
    assert_eq!(door.spool.ledger().accepted, (most + count) as u64);
    door.close().await;
}

#[tokio::test]
async fn a_reply_that_nobody_reads_keeps_its_room_until_its_connection_ends() {
    let door = narrow_door().await;
    let most = (2 << 20) / 256;
    let events = vec![format!("{{\"input\":\"a\",\"session_id\":\"{}\"}}", "s".repeat(200)); most];
    let mut first = UnixStream::connect(&door.unix).await.expect("it listens");
    let text = request("POST", "/log", &format!("[{}]", events[..most - 1000].join(",")));
    first.write_all(text.as_bytes()).await.expect("it is read");
    // Its first byte is out, the rest fits no socket buffer.
    first.readable().await.expect("a reply begins");
    assert!(door.in_flight().await > 1 << 20);
    drop(first);
    door.until_in_flight(|bytes| bytes == 0).await;
    door.close().await;
}

#[tokio::test]
async fn what_is_too_large_for_the_api_s_database_is_refused_alone_and_kept() {
    let roomy = Settings {
        max_body_bytes: 16 << 20,
        max_in_flight_bytes: 64 << 20,
        max_event_bytes: 15 << 20,
        ..settings()
    };
    let door = Door::open(roomy).await;
    let list = |count| vec!["1"; count].join(",");
    let body = format!(
        r#"[{{"input":"a"}},{{"input":"large","raw_output":{{"list":[{}]}}}},{{"input":"doubtful","raw_output":{{"list":[{}]}}}}]"#,
        list(1_400_000),
        list(1_200_000)
    );
    let (status, reply) = door.post("/log", &body).await;
    assert_eq!(status, 200);
    let logged = reply["logged_events"].as_array().expect("a list");
    let reason = logged[1]["error_in_log"].as_str().expect("refused");
    assert!(reason.contains("over 16 MiB in the API's database"), "{reason}");
    assert!(logged[0]["error_in_log"].is_null() && logged[2]["error_in_log"].is_null());
    let page = door.spool.dead_letters(None, 10).await.expect("a page");
    assert_eq!(page.letters.len(), 1);
    let letter = page.letters[0].letter.as_ref().expect("a letter");
    assert_eq!(letter.burial.reason, reason);
    door.close().await;
}

#[tokio::test]
async fn a_project_that_cannot_stand_in_a_url_is_refused_at_once() {
    let door = Door::open(settings()).await;
    let (status, reply) = door
        .post("/v2/log/..", r#"{"batched_log_events":[{"input":"a"}]}"#)
        .await;
    assert_eq!(status, 422, "{reply}");
    let (status, reply) = door
        .post("/log", r#"[{"input":"a","project_id":".."},{"input":"b"}]"#)
        .await;
    assert_eq!(status, 200);
    let reason = reply["logged_events"][0]["error_in_log"]
        .as_str()
        .unwrap_or_default();
    assert!(reason.contains("cannot stand in a URL"), "{reply}");
    assert_eq!(door.spool.ledger().queued, 1, "only the second");
    door.close().await;
}

#[tokio::test]
async fn without_a_spool_everything_is_503_and_nothing_is_promised() {
    let door = Door::open(settings()).await;
    door.spool.close().await;
    let event = r#"{"input":"a"}"#;
    let reply = door.unix(&request("POST", "/log", event)).await;
    assert_eq!(parsed(&reply).0, 503);
    assert!(reply.to_ascii_lowercase().contains("retry-after: "), "{reply}");
    let answers = door.lines(format!("{event}\n{event}\n").as_bytes()).await;
    assert_eq!(answers.len(), 2);
    assert!(
        answers.iter().all(|answer| answer["error"].is_string()),
        "{answers:?}"
    );
    door.close().await;
}

#[tokio::test]
async fn a_token_is_asked_for_over_tcp_and_not_on_the_unix_socket() {
    let door = Door::open(Settings {
        gate: Gate {
            token: Secret::new("s3cret"),
            ..Gate::default()
        },
        ..settings()
    })
    .await;
    assert_eq!(door.post("/log", r#"{"input":"a"}"#).await.0, 401);
    assert_eq!(door.tcp(&request("GET", "/healthz", "")).await.0, 200);
    assert_eq!(door.tcp(&request("GET", "/status", "")).await.0, 401);
    assert_eq!(
        parsed(&door.unix(&request("POST", "/log", r#"{"input":"a"}"#)).await).0,
        200
    );
    assert_eq!(door.spool.ledger().accepted, 1);
    door.close().await;
}

#[tokio::test]
async fn operators_see_the_account_the_lanes_and_why_nothing_is_sent() {
    let door = Door::open(settings()).await;
    door.post("/log", r#"[{"input":"a"},{"input":1}]"#).await;
    door.board.set(
        &lane("p", Kind::Log),
        LaneState::QueueingOnly {
            reason: "no key".into(),
        },
    );
    let since = Instant::now().checked_sub(Duration::from_secs(61));
    let since = since.expect("the machine has run for a minute");
    door.board
        .waits_for_task(&lane("p", Kind::Feedback), Seq(1), since, SystemTime::now());
    assert_eq!(
        door.tcp(&request("GET", "/v2/health", "")).await,
        (200, json!({"status": "OK"}))
    );
    assert_eq!(door.tcp(&request("GET", "/readyz", "")).await.0, 200);
    let (_, page) = door.tcp(&request("GET", "/status", "")).await;
    assert_eq!(
        page["ledger"],
        json!({"accepted": 2, "delivered": 0, "dead": 1, "dropped": 0, "queued": 1}),
        "{page}"
    );
    let hints = page["hints"].as_array().expect("a list");
    let hint = |n: usize| hints.get(n).and_then(Value::as_str).unwrap_or_default();
    assert_eq!((hints.len(), hint(0)), (3, "no key"), "{page}");
    assert!(
        hint(1).starts_with("1 feedback of project p waits for a task that the API does not have"),
        "{page}"
    );
    assert!(
        hint(2).starts_with("1 event was given up since ")
            && hint(2).contains("1 invalid event of project p"),
        "{page}"
    );
    assert_eq!(page["upstream"]["base_url"], "http://upstream.example");
    assert!(
        page["spool"]["live_bytes"]
            .as_u64()
            .is_some_and(|bytes| bytes > 0),
        "{page}"
    );
    let lanes = page["lanes"].as_array().expect("a list");
    assert!(
        lanes
            .iter()
            .any(|lane| lane["state"] == "queueing_only" && lane["queued"] == 1),
        "{page}"
    );

    let metrics = door.unix(&request("GET", "/metrics", "")).await;
    for line in [
        "phosphod_ledger_events{state=\"accepted\"} 2",
        "phosphod_intake_requests_total{route=\"/log\",status=\"200\"} 1",
        "phosphod_intake_events_total{kind=\"log\"} 1",
        "phosphod_intake_refused_events_total{kind=\"log\"} 1",
        "phosphod_lanes{state=\"queueing_only\"} 1",
        "phosphod_intake_append_seconds_count 1",
        "content-type: text/plain; version=0.0.4; charset=utf-8",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    door.close().await;
}

#[tokio::test]
async fn dead_letters_are_shown_on_the_unix_socket_only() {
    let door = Door::open(settings()).await;
    door.post("/log", r#"[{"input": 1},{"input":true}]"#).await;
    let refused = door.tcp(&request("GET", "/dead_letters", "")).await;
    assert!(
        matches!(detail(&refused), (403, why) if why.contains("--unix-socket")),
        "{refused:?}"
    );
    let reply = door.unix(&request("GET", "/dead_letters?limit=1", "")).await;
    assert!(reply.contains(r#""record":{"input": 1}"#), "{reply}");
    let (_, first) = parsed(&reply);
    assert!(
        reply.contains("</dead_letters?after=1&limit=1>; rel=\"next\""),
        "{reply}"
    );
    let after = first[0]["number"].as_u64().expect("a number");
    let rest = door
        .unix(&request("GET", &format!("/dead_letters?after={after}"), ""))
        .await;
    assert!(!rest.contains("rel=\"next\""), "{rest}");
    let (_, second) = parsed(&rest);
    assert_eq!(second.as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&second[0]["kind"], &second[0]["record"]),
        (&json!("log"), &json!({"input": true}))
    );
    assert!(
        second[0]["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("input")),
        "{second}"
    );
    assert_eq!(
        parsed(&door.unix(&request("GET", "/dead_letters?limit=0", "")).await).0,
        422
    );
    door.close().await;
}

#[tokio::test]
async fn the_key_in_a_project_s_place_shows_in_no_status() {
    let door = Door::open(settings()).await;
    let event = json!({"input": "a", "project_id": KEY}).to_string();
    assert_eq!(door.post("/log", &event).await.0, 200);
    let (status, page) = door.tcp(&request("GET", "/status", "")).await;
    assert_eq!(status, 200);
    assert_eq!(page["lanes"][0]["project"], "***", "{page}");
    assert!(!page.to_string().contains(KEY), "{page}");
}
