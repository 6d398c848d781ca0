//! The server against raw sockets. Time limits are tested on a paused clock.

use super::*;
use crate::board::Board;
use crate::metrics::{Metrics, RequestLabels};
use hyper::StatusCode;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Answers what it is sent; `/wait` answers when it is told to.
struct Echo {
    budget: Budget,
    arrived: Notify,
    go_on: Notify,
}

impl Echo {
    fn new(budget: Budget) -> Self {
        Self {
            budget,
            arrived: Notify::new(),
            go_on: Notify::new(),
        }
    }
}

impl Service for Echo {
    type Id = &'static str;

    const ROUTES: &'static [Route<&'static str>] = &[
        Route {
            verb: Verb::Get,
            pattern: "/ping",
            guard: Guard::Open,
            id: "ping",
        },
        Route {
            verb: Verb::Get,
            pattern: "/wait",
            guard: Guard::Open,
            id: "wait",
        },
        Route {
            verb: Verb::Post,
            pattern: "/echo/{name}",
            guard: Guard::Write,
            id: "echo",
        },
        Route {
            verb: Verb::Post,
            pattern: "/stream",
            guard: Guard::Write,
            id: "stream",
        },
    ];

    async fn call(&self, id: &'static str, mut call: Call) -> Reply {
        match id {
            "echo" => match call.json_body(64, "intake.max_body_bytes", &self.budget).await {
                Ok((body, _room)) => json(StatusCode::OK, body),
                Err(refused) => *refused,
            },
            "stream" => match count(&mut call, &self.budget).await {
                Ok(counted) => json(StatusCode::OK, counted),
                Err(refused) => *refused,
            },
            "wait" => {
                self.arrived.notify_one();
                self.go_on.notified().await;
                json(StatusCode::OK, "\"waited\"")
            }
            _ => json(StatusCode::OK, "\"pong\""),
        }
    }
}

/// What comes of a body that is whole up to 100 bytes.
async fn count(call: &mut Call, budget: &Budget) -> Result<String, Refused> {
    let (first, room) = call.first_part(100, budget).await?;
    assert_eq!(
        room.bytes(),
        budget::LEAST_BYTES,
        "no more than is held is reserved"
    );
    let mut bytes = match first {
        First::Whole(body) => return Ok(format!("\"whole {}\"", body.len())),
        First::Part(part) => part.len(),
    };
    while let Some(part) = call.next_part().await? {
        bytes += part.len();
    }
    Ok(format!("\"part {bytes}\""))
}

impl Lines for Echo {
    async fn lines(&self, mut stream: BufReader<UnixStream>, _: Option<Peer>, _: Limits, _: Stop) {
        let mut line = String::new();
        stream.read_line(&mut line).await.expect("a line");
        stream
            .write_all(line.to_uppercase().as_bytes())
            .await
            .expect("room");
    }
}

const LOCAL: Transport = Transport::Tcp(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

struct Nothing;

impl Service for Nothing {
    type Id = ();
    const ROUTES: &'static [Route<()>] = &[Route {
        verb: Verb::Get,
        pattern: "/other",
        guard: Guard::UnixOnly,
        id: (),
    }];
    async fn call(&self, (): (), _: Call) -> Reply {
        json(StatusCode::OK, "\"other\"")
    }
}

type TestRouter = Router<Echo, Nothing>;

fn budget() -> Budget {
    Budget::new(4 << 20, Gauge::default(), Counter::default())
}

fn router() -> Arc<TestRouter> {
    router_with(budget())
}

fn router_with(budget: Budget) -> Arc<TestRouter> {
    let metrics = Arc::new(Metrics::new());
    Arc::new(Router::new(
        Arc::new(Echo::new(budget)),
        Arc::new(Nothing),
        Gate::default(),
        metrics,
    ))
}

/// A connection in memory, so that a paused clock moves only when both sides wait.
fn connect(limits: Limits) -> (DuplexStream, JoinHandle<()>) {
    connect_to(router(), limits)
}

fn connect_to(router: Arc<TestRouter>, limits: Limits) -> (DuplexStream, JoinHandle<()>) {
    let (client, server) = tokio::io::duplex(256 * 1024);
    let (stopper, stop) = Stop::new();
    let serving = tokio::spawn(async move {
        connection::http(server, LOCAL, router, limits, activity::Activity::new(), stop).await;
        drop(stopper);
    });
    (client, serving)
}

/// Everything until the server closes.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.expect("a clean end");
    String::from_utf8(text).expect("text")
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), text: &str) {
    stream.write_all(text.as_bytes()).await.expect("room");
}

/// One reply with a body of known length.
async fn reply(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = Vec::new();
    loop {
        text.push(stream.read_u8().await.expect("more of the reply"));
        if text.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8(text).expect("text");
    let length = head.to_ascii_lowercase();
    let length = length
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.lines().next());
    let mut body = vec![0; length.expect("a length").parse().expect("a number")];
    stream.read_exact(&mut body).await.expect("the body");
    head + &String::from_utf8(body).expect("text")
}

/// Sends one request on a fresh connection, closes the sending half, and returns all that comes back.
async fn once(request: &str) -> String {
    let (mut client, _serving) = connect(Limits::default());
    send(&mut client, request).await;
    client.shutdown().await.expect("open");
    rest(&mut client).await
}

fn status(reply: &str) -> &str {
    reply.get(9..12).unwrap_or(reply)
}

const PING: &str = "GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn post(headers: &str, body: &str) -> String {
    format!("POST /echo/a HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}")
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let (mut client, _serving) = connect(Limits::default());
    let first = post("Content-Length: 3\r\n", "\"1\"");
    let second = post("Content-Length: 3\r\n", "\"2\"");
    send(&mut client, &format!("{first}{second}{PING}")).await;
    for expected in ["\"1\"", "\"2\"", "\"pong\""] {
        assert!(reply(&mut client).await.ends_with(expected));
    }
    send(&mut client, PING).await;
    assert!(reply(&mut client).await.ends_with("\"pong\""));
}

/// Everything that a small request could get.
async fn taken_up(budget: &Budget) -> Vec<Reservation> {
    let mut held = vec![budget.reserve(2 << 20, Duration::ZERO).await.expect("half")];
    held.push(budget.reserve(1 << 20, Duration::ZERO).await.expect("a quarter"));
    while let Ok(room) = budget.reserve(SMALL_BYTES, Duration::ZERO).await {
        held.push(room);
    }
    held
}

#[tokio::test(start_paused = true)]
async fn a_body_without_room_is_not_read_and_is_answered_as_soon_as_there_is_some() {
    let (budget, limits) = (budget(), Limits::default());
    let mut held = taken_up(&budget).await;
    let (mut client, _serving) = connect_to(router_with(budget), limits);
    let began = Instant::now();
    send(&mut client, &post("Content-Length: 3\r\n", "\"1\"")).await;
    tokio::time::sleep(limits.room / 2).await;
    // Of its own share.
    drop(held.pop());
    assert!(reply(&mut client).await.ends_with("\"1\""));
    assert!(began.elapsed() < limits.room);
    // It gave its room back, so there is some at once.
    send(
        &mut client,
        &post("Transfer-Encoding: chunked\r\n", "3\r\n\"2\"\r\n0\r\n\r\n"),
    )
    .await;
    assert!(reply(&mut client).await.ends_with("\"2\""));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_gets_no_room_in_time_is_503_with_retry_after_and_the_key() {
    let (budget, limits) = (budget(), Limits::default());
    let _held = taken_up(&budget).await;
    let (mut client, _serving) = connect_to(router_with(budget), limits);
    let began = Instant::now();
    send(&mut client, &post("Content-Length: 3\r\n", "")).await;
    let reply = reply(&mut client).await;
    assert_eq!(status(&reply), "503", "{reply}");
    assert!(began.elapsed() >= limits.room && began.elapsed() < limits.body);
    let head = reply.to_ascii_lowercase();
    assert!(
        head.contains("retry-after: 5\r\n") && head.contains("connection: close"),
        "{reply}"
    );
    assert!(reply.contains("raise intake.max_in_flight_bytes"), "{reply}");
}

#[tokio::test(start_paused = true)]
async fn a_half_sent_head_is_closed_after_the_header_limit_however_slowly_it_drips() {
    let limits = Limits::default();
    let (mut client, serving) = connect(limits);
    let began = Instant::now();
    for piece in ["GET /ping", " HTTP/1.1\r\n", "Host:"] {
        send(&mut client, piece).await;
        tokio::time::advance(limits.header / 4).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(rest(&mut client).await, "");
    assert!(began.elapsed() < limits.header * 2, "{:?}", began.elapsed());
    serving.await.expect("it ended by itself");
}

#[tokio::test(start_paused = true)]
async fn a_half_sent_head_after_a_request_is_closed_as_well() {
    let limits = Limits::default();
    let (mut client, _serving) = connect(limits);
    send(&mut client, PING).await;
    reply(&mut client).await;
    tokio::time::sleep(limits.idle / 2).await;
    send(&mut client, "GET").await;
    let began = Instant::now();
    assert_eq!(rest(&mut client).await, "");
    assert!(began.elapsed() < limits.header * 2, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_outlives_the_header_limit_but_not_the_idle_one() {
    let limits = Limits::default();
    let (mut client, _serving) = connect(limits);
    for _ in 0..3 {
        send(&mut client, PING).await;
        assert_eq!(status(&reply(&mut client).await), "200");
        tokio::time::sleep(limits.idle - limits.header).await;
    }
    let began = Instant::now();
    assert_eq!(rest(&mut client).await, "");
    assert!(began.elapsed() <= limits.header * 2, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_request_may_take_longer_than_any_of_these_limits() {
    let limits = Limits::default();
    let (mut client, server) = tokio::io::duplex(4096);
    let echo = Arc::new(Echo::new(budget()));
    let router = Arc::new(Router::new(
        echo.clone(),
        Arc::new(Nothing),
        Gate::default(),
        Arc::new(Metrics::new()),
    ));
    let (_stopper, stop) = Stop::new();
    let serving = tokio::spawn(connection::http(
        server,
        LOCAL,
        router,
        limits,
        activity::Activity::new(),
        stop,
    ));
    send(&mut client, "GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    tokio::time::sleep(limits.idle * 3).await;
    echo.go_on.notify_one();
    assert!(reply(&mut client).await.ends_with("\"waited\""));
    drop(client);
    serving.await.expect("it ended by itself");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_coming_is_answered_503_and_closed() {
    let (mut client, _serving) = connect(Limits::default());
    send(&mut client, &post("Content-Length: 10\r\n", "\"abc")).await;
    assert_eq!(status(&rest(&mut client).await), "503");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_closed() {
    let limits = Limits::default();
    let (mut client, server) = tokio::io::duplex(64);
    let (_stopper, stop) = Stop::new();
    let serving = tokio::spawn(connection::http(
        server,
        LOCAL,
        router(),
        limits,
        activity::Activity::new(),
        stop,
    ));
    send(&mut client, PING).await;
    serving.await.expect("it ended by itself");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_503_and_one_that_breaks_http_is_400() {
    let chunk = |after: &str| post("Transfer-Encoding: chunked\r\n", &format!("4\r\n\"abc{after}"));
    for (request, expected) in [
        (post("Content-Length: 10\r\n", "\"abc"), "503"),
        (chunk(""), "503"),
        (chunk("\r\n"), "503"),
        (chunk("too long\r\n"), "400"),
        (chunk("\r\nno size\r\n"), "400"),
    ] {
        for request in [request.clone(), request.replace("/echo/a", "/stream")] {
            let reply = once(&request).await;
            assert_eq!(status(&reply), expected, "{request} {reply}");
            assert!(reply.contains("broke off"), "{reply}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_of_any_length_is_read_in_parts_and_a_short_one_whole() {
    let stream = |head: &str, body: &str| post(head, body).replace("/echo/a", "/stream");
    let body = "x".repeat(300);
    for (request, expected) in [
        (stream("Content-Length: 100\r\n", &body[..100]), "whole 100"),
        (stream("Content-Length: 101\r\n", &body[..101]), "part 101"),
        (
            stream(
                "Transfer-Encoding: chunked\r\n",
                &format!("64\r\n{}\r\n0\r\n\r\n", &body[..100]),
            ),
            "whole 100",
        ),
        (
            stream(
                "Transfer-Encoding: chunked\r\n",
                &format!("50\r\n{}\r\n12c\r\n{body}\r\n0\r\n\r\n", &body[..80]),
            ),
            "part 380",
        ),
    ] {
        let reply = once(&request).await;
        assert!(reply.ends_with(&format!("\"{expected}\"")), "{reply}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_body_may_take_long_but_not_come_drop_by_drop() {
    let limits = Limits::default();
    let head = post(&format!("Content-Length: {}\r\n", 6 << 20), "").replace("/echo/a", "/stream");
    let (mut client, _serving) = connect(limits);
    send(&mut client, &head).await;
    let mebibyte = "x".repeat(1 << 20);
    for _ in 0..6 {
        tokio::time::sleep(limits.body - Duration::from_secs(1)).await;
        send(&mut client, &mebibyte).await;
    }
    assert!(
        reply(&mut client)
            .await
            .ends_with(&format!("\"part {}\"", 6 << 20))
    );

    let (mut client, _serving) = connect(limits);
    send(&mut client, &head).await;
    let began = Instant::now();
    let (mut receive, mut sending) = tokio::io::split(client);
    let drops = async {
        while sending.write_all(&[b'x'; 1000]).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut answer = [0; 12];
    tokio::select! {
        read = receive.read_exact(&mut answer) => assert_eq!(read.expect("an answer"), 12),
        () = drops => {}
    }
    assert_eq!(&answer, b"HTTP/1.1 503");
    assert!(
        began.elapsed() <= limits.body + Duration::from_secs(1),
        "on the paused clock"
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_over_the_limit_is_refused_before_and_while_it_is_read() {
    let large = "x".repeat(1000);
    let declared = post("Content-Length: 1000\r\nExpect: 100-continue\r\n", "");
    let sent = post("Content-Length: 1000\r\n", &large);
    let chunked = post(
        "Transfer-Encoding: chunked\r\n",
        &format!("3e8\r\n{large}\r\n0\r\n\r\n"),
    );
    for request in [declared, sent, chunked] {
        let reply = once(&format!("{request}{PING}")).await;
        assert_eq!(status(&reply), "413");
        assert!(reply.contains("64 bytes (intake.max_body_bytes)"), "{reply}");
        assert!(
            reply.to_ascii_lowercase().contains("connection: close"),
            "{reply}"
        );
        assert!(
            !reply.contains("pong") && !reply.contains("100 Continue"),
            "{reply}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_chunked_body_arrives_whole() {
    let reply = once(&post(
        "Transfer-Encoding: chunked\r\n",
        "2\r\n\"a\r\n3\r\nbc\"\r\n0\r\n\r\n",
    ))
    .await;
    assert_eq!(status(&reply), "200");
    assert!(reply.ends_with("\"abc\""), "{reply}");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_type_is_415_with_the_header_to_add() {
    let reply = once(&post(
        "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 2\r\n",
        "{}",
    ))
    .await;
    assert_eq!(status(&reply), "415");
    assert!(reply.contains("-H 'Content-Type: application/json'"), "{reply}");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_route_lists_the_routes_and_a_wrong_method_those_that_it_takes() {
    let unknown = once("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(status(&unknown), "404");
    assert!(
        unknown.contains("GET /ping, GET /wait, POST /echo/{name}, POST /stream, GET /other"),
        "{unknown}"
    );
    let wrong = once("DELETE /ping HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(status(&wrong), "405");
    assert!(wrong.to_ascii_lowercase().contains("allow: get, head"), "{wrong}");
    let wrong = once("GET /echo/a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(wrong.to_ascii_lowercase().contains("allow: post"), "{wrong}");
}

#[tokio::test(start_paused = true)]
async fn head_is_answered_like_get_without_the_body() {
    let reply = once("HEAD /ping HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(status(&reply), "200");
    assert!(
        reply.to_ascii_lowercase().contains("content-length: 6"),
        "{reply}"
    );
    assert!(reply.ends_with("\r\n\r\n"), "{reply}");
}

#[tokio::test(start_paused = true)]
async fn a_foreign_host_and_a_web_page_are_refused() {
    let reply = once("GET /ping HTTP/1.1\r\nHost: evil.example\r\n\r\n").await;
    assert_eq!(status(&reply), "403");
    let reply = once(&post("Origin: http://localhost\r\nContent-Length: 2\r\n", "{}")).await;
    assert_eq!(status(&reply), "403");
    let reply = once("GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(status(&reply), "403");
    assert!(reply.contains("--unix-socket"), "{reply}");
}

#[tokio::test(start_paused = true)]
async fn requests_are_counted_by_pattern_and_never_by_path() {
    let metrics = Arc::new(Metrics::new());
    let router = Arc::new(Router::new(
        Arc::new(Echo::new(budget())),
        Arc::new(Nothing),
        Gate::default(),
        metrics.clone(),
    ));
    let (mut client, server) = tokio::io::duplex(4096);
    let (_stopper, stop) = Stop::new();
    let serving = tokio::spawn(connection::http(
        server,
        LOCAL,
        router,
        Limits::default(),
        activity::Activity::new(),
        stop,
    ));
    send(&mut client, &post("Content-Length: 2\r\n", "{}")).await;
    send(
        &mut client,
        "GET /secret HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )
    .await;
    rest(&mut client).await;
    serving.await.expect("it ended by itself");
    let count = |route, status| {
        metrics
            .intake_requests
            .get_or_create(&RequestLabels { route, status })
            .get()
    };
    assert_eq!((count("/echo/{name}", 200), count("unknown", 404)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn who_asks_on_and_does_not_read_is_not_answered_on() {
    const ASKED: u64 = 100;
    let metrics = Arc::new(Metrics::new());
    let echo = Arc::new(Echo::new(budget()));
    let router = Router::new(echo, Arc::new(Nothing), Gate::default(), metrics.clone());
    // As many requests fit as are asked, and fewer answers, which are longer.
    let (mut client, server) = tokio::io::duplex(PING.len() * ASKED as usize);
    let (_stopper, stop) = Stop::new();
    let (limits, activity) = (Limits::default(), activity::Activity::new());
    tokio::spawn(connection::http(
        server,
        LOCAL,
        Arc::new(router),
        limits,
        activity,
        stop,
    ));
    send(&mut client, &PING.repeat(ASKED as usize)).await;
    // The clock is paused: it moves on once nobody has anything left to do.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let labels = RequestLabels {
        route: "/ping",
        status: 200,
    };
    let answered = || metrics.intake_requests.get_or_create(&labels).get();
    let unread = answered();
    assert!(0 < unread && unread < ASKED, "{unread}");
    for _ in 0..ASKED {
        assert!(reply(&mut client).await.ends_with("\"pong\""));
    }
    assert_eq!(answered(), ASKED);
}

#[tokio::test(start_paused = true)]
async fn a_large_answer_has_room_until_it_is_sent_and_a_small_one_needs_none() {
    let budget = budget();
    let large = || json(StatusCode::OK, vec![b' '; budget.most_bytes() + 1]);
    let held = counted(large(), &budget, Duration::ZERO)
        .await
        .expect("all is free");
    // It counts as the most there is, so that it can be had at all.
    assert!(counted(large(), &budget, Duration::ZERO).await.is_err());
    let small = json(StatusCode::OK, vec![b' '; SMALL_BYTES]);
    let small = counted(small, &budget, Duration::ZERO).await;
    let middle = json(StatusCode::OK, vec![b' '; SMALL_BYTES + 1]);
    let middle = counted(middle, &budget, Duration::ZERO).await;
    assert!(small.is_ok() && middle.is_ok(), "they have a share of their own");
    let (head, body) = held.into_parts();
    assert_eq!(head.headers["content-type"], "application/json");
    let Ok(body) = http_body_util::BodyExt::collect(body).await;
    let body = body.to_bytes();
    assert!(counted(large(), &budget, Duration::ZERO).await.is_err());
    drop(body);
    assert!(counted(large(), &budget, Duration::ZERO).await.is_ok());
}

/// A listener on a free port, served until the returned sender is used.
async fn listen(limits: Limits) -> (TcpStream, Arc<Echo>, oneshot::Sender<()>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let echo = Arc::new(Echo::new(budget()));
    let router = Arc::new(Router::new(
        echo.clone(),
        Arc::new(Nothing),
        Gate::default(),
        Arc::new(Metrics::new()),
    ));
    let (shutdown, stopped) = oneshot::channel::<()>();
    let notice = Board::default().notice("a test");
    let serving = tokio::spawn(serve(Listener::Tcp(listener), router, limits, notice, async {
        let _ = stopped.await;
    }));
    (
        TcpStream::connect(address).await.expect("it listens"),
        echo,
        shutdown,
        serving,
    )
}

#[tokio::test]
async fn shutdown_finishes_the_request_in_progress_and_closes_idle_connections() {
    let (mut busy, echo, shutdown, serving) = listen(Limits::default()).await;
    let address = busy.peer_addr().expect("connected");
    let mut idle = TcpStream::connect(address).await.expect("it listens");
    send(&mut idle, PING).await;
    reply(&mut idle).await;
    send(&mut busy, "GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    echo.arrived.notified().await;
    shutdown.send(()).expect("it serves");
    assert_eq!(rest(&mut idle).await, "");
    assert!(
        TcpStream::connect(address).await.is_err(),
        "nothing is accepted any more"
    );
    assert!(!serving.is_finished());
    echo.go_on.notify_one();
    assert!(rest(&mut busy).await.ends_with("\"waited\""));
    serving.await.expect("it ended by itself");
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let limits = Limits {
        drain: Duration::from_millis(10),
        ..Limits::default()
    };
    let (mut busy, echo, shutdown, serving) = listen(limits).await;
    send(&mut busy, "GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    echo.arrived.notified().await;
    shutdown.send(()).expect("it serves");
    serving.await.expect("it ended by itself");
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_told_so_while_all_are_busy() {
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let (mut first, echo, _shutdown, _serving) = listen(limits).await;
    send(&mut first, "GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    echo.arrived.notified().await;
    let mut second = TcpStream::connect(first.peer_addr().expect("connected"))
        .await
        .expect("it listens");
    let refused = reply(&mut second).await;
    assert_eq!(status(&refused), "503");
    assert!(refused.ends_with("second or two\"}"), "{refused}");
    assert_eq!(rest(&mut second).await, "");
    echo.go_on.notify_one();
    assert_eq!(status(&reply(&mut first).await), "200");
    send(&mut first, PING).await;
    assert_eq!(status(&reply(&mut first).await), "200");
}

#[tokio::test]
async fn for_a_connection_beyond_the_limit_the_one_that_rests_longest_is_closed() {
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    // One that never says anything, one that begins a head, and one that is answered in between.
    let (mut silent, _echo, _shutdown, _serving) = listen(limits).await;
    let address = silent.peer_addr().expect("connected");
    let mut half = TcpStream::connect(address).await.expect("it listens");
    send(&mut half, "GET /ping HTT").await;
    let mut third = TcpStream::connect(address).await.expect("it listens");
    assert_eq!(rest(&mut silent).await, "");
    send(&mut third, PING).await;
    assert_eq!(status(&reply(&mut third).await), "200");
    let mut fourth = TcpStream::connect(address).await.expect("it listens");
    assert_eq!(rest(&mut half).await, "");
    send(&mut fourth, PING).await;
    assert_eq!(status(&reply(&mut fourth).await), "200");
    send(&mut third, PING).await;
    assert_eq!(status(&reply(&mut third).await), "200");
}

#[tokio::test]
async fn a_413_reaches_a_client_that_is_still_sending() {
    let (mut client, _echo, _shutdown, _serving) = listen(Limits::default()).await;
    let size = 8 * 1024 * 1024;
    let (mut receive, mut sending) = client.split();
    let body = vec![b'x'; size];
    let head = post(&format!("Content-Length: {size}\r\n"), "");
    let sent = async {
        sending.write_all(head.as_bytes()).await?;
        sending.write_all(&body).await?;
        sending.shutdown().await
    };
    let (sent, answered) = tokio::join!(sent, rest(&mut receive));
    sent.expect("no reset");
    assert_eq!(status(&answered), "413");
}

#[tokio::test]
async fn the_first_byte_on_a_unix_socket_tells_lines_from_http() {
    let folder = tempfile::tempdir().expect("temp folder");
    let path = folder.path().join("s");
    let listener = Listener::Unix(UnixListener::bind(&path).expect("a new path"));
    let (shutdown, stopped) = oneshot::channel::<()>();
    let notice = Board::default().notice("a test");
    let serving = tokio::spawn(serve(listener, router(), Limits::default(), notice, async {
        let _ = stopped.await;
    }));
    let mut lines = UnixStream::connect(&path).await.expect("it listens");
    send(&mut lines, "{\"a\"}\n").await;
    assert_eq!(rest(&mut lines).await, "{\"A\"}\n");
    for before in ["\r\n\r\n", " \t", "\n\n ", "\u{feff}", "\r\n \u{feff}"] {
        let mut lines = UnixStream::connect(&path).await.expect("it listens");
        send(&mut lines, &format!("{before}{{\"a\"}}\n")).await;
        let answer = rest(&mut lines).await;
        assert!(!answer.starts_with("HTTP"), "{before:?} {answer:?}");
    }
    for before in ["\r\n", "\r\n\r\n"] {
        let mut http = UnixStream::connect(&path).await.expect("it listens");
        for byte in before.chars().map(String::from).chain([PING.to_owned()]) {
            send(&mut http, &byte).await;
        }
        assert!(reply(&mut http).await.ends_with("\"pong\""));
    }
    let mut http = UnixStream::connect(&path).await.expect("it listens");
    send(
        &mut http,
        "GET /other HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(rest(&mut http).await.ends_with("\"other\""));
    let silent = UnixStream::connect(&path).await.expect("it listens");
    shutdown.send(()).expect("it serves");
    serving.await.expect("it ended, with a silent connection open");
    drop(silent);
}
