//! Requests that no client that means well sends, byte by byte over TCP: each gets the status that it should, and nothing behind it
//! is ever read as a request of its own.

use crate::support::client::raw_tcp;
use crate::support::{PATIENCE, Pair};

/// A log request that must not be taken when it hides behind another.
const HIDDEN: &str = "POST /log HTTP/1.1\r\nHost: localhost\r\nContent-Length: 36\r\n\r\n{\"input\":\"hidden\",\"task_id\":\"hidden\"}";
const EVENT: &str = "{\"input\":\"x\",\"project_id\":\"p\"}";

/// What is sent, and the statuses of all the replies that come.
struct Row {
    name: &'static str,
    bytes: Vec<u8>,
    statuses: &'static [u16],
}

fn row(name: &'static str, statuses: &'static [u16], bytes: impl Into<Vec<u8>>) -> Row {
    let bytes = bytes.into();
    Row {
        name,
        bytes,
        statuses,
    }
}

/// A POST to /log with these header lines behind Host, and a body.
fn post(headers: &str, body: &str) -> String {
    format!("POST /log HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}")
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\n{headers}\r\n")
}

fn framing() -> Vec<Row> {
    let length = EVENT.len();
    let chunk = format!("{length:x}\r\n{EVENT}\r\n0\r\n\r\n");
    let cl = format!("Content-Length: {length}\r\n");
    let te = "Transfer-Encoding: chunked\r\n";
    vec![
        row("plain", &[200], post(&cl, EVENT)),
        row("chunked", &[200], post(te, &chunk)),
        row(
            "chunked with an extension and a trailer",
            &[200],
            post(te, &format!("{length:x};a=b\r\n{EVENT}\r\n0\r\nX: y\r\n\r\n")),
        ),
        row("two in one packet", &[200, 200], post(&cl, EVENT).repeat(2)),
        row("length and chunked", &[400], post(&format!("{cl}{te}"), &chunk)),
        row("chunked and length", &[400], post(&format!("{te}{cl}"), &chunk)),
        row(
            "length 0 and chunked, with a request in the chunk",
            &[400],
            post(&format!("Content-Length: 0\r\n{te}"), HIDDEN),
        ),
        row("two equal lengths", &[400], post(&cl.repeat(2), EVENT)),
        row(
            "two different lengths",
            &[400],
            post(&format!("{cl}Content-Length: 0\r\n"), &format!("{EVENT}{HIDDEN}")),
        ),
        row(
            "a list of lengths",
            &[400],
            post(&format!("Content-Length: {length}, {length}\r\n"), EVENT),
        ),
        row(
            "a signed length",
            &[400],
            post(&format!("Content-Length: +{length}\r\n"), EVENT),
        ),
        row("a negative length", &[400], post("Content-Length: -1\r\n", EVENT)),
        row(
            "a hexadecimal length",
            &[400],
            post("Content-Length: 0x1e\r\n", EVENT),
        ),
        row(
            "a length with a space inside",
            &[400],
            post("Content-Length: 3 0\r\n", EVENT),
        ),
        row("an empty length", &[400], post("Content-Length:\r\n", EVENT)),
        row(
            "a length beyond 64 bits",
            &[400],
            post("Content-Length: 99999999999999999999\r\n", EVENT),
        ),
        row(
            "a space before the colon",
            &[400],
            post(&format!("Content-Length : {length}\r\n"), EVENT),
        ),
        row("chunked twice", &[400], post(&te.repeat(2), &chunk)),
        row(
            "chunked in gzip",
            &[400],
            post("Transfer-Encoding: gzip, chunked\r\n", &chunk),
        ),
        row(
            "a misspelt coding",
            &[400],
            post("Transfer-Encoding: xchunked\r\n", &chunk),
        ),
        row(
            "identity coding",
            &[400],
            post("Transfer-Encoding: identity\r\n", &chunk),
        ),
        row(
            "chunked in HTTP/1.0",
            &[400],
            post(te, &chunk).replace("HTTP/1.1", "HTTP/1.0"),
        ),
        row(
            "a chunk's size with a sign",
            &[400],
            post(te, &format!("+{chunk}")),
        ),
        row("a chunk's size with 0x", &[400], post(te, &format!("0x{chunk}"))),
        row(
            "a chunk's size beyond 64 bits",
            &[400],
            post(te, &format!("f0000000000000000\r\n{EVENT}\r\n0\r\n\r\n")),
        ),
        row(
            "a chunk's size that ends in LF",
            &[400],
            post(te, &chunk.replacen("\r\n", "\n", 1)),
        ),
        row(
            "a chunk longer than its size",
            &[400],
            post(te, &format!("3\r\n{EVENT}\r\n0\r\n\r\n")),
        ),
        row(
            "a chunk shorter than its size",
            &[400],
            post(te, &format!("{:x}\r\n{EVENT}\r\n0\r\n\r\n{HIDDEN}", length + 1)),
        ),
        row(
            "a body that breaks off",
            &[503],
            post(&format!("Content-Length: {}\r\n", length + 9), EVENT),
        ),
        row(
            "chunks that break off",
            &[503],
            post(te, &chunk[..chunk.len() - 5]),
        ),
    ]
}

fn heads() -> Vec<Row> {
    let host = "Host: localhost\r\n";
    let lf = "GET /healthz HTTP/1.1\nHost: localhost\n\n";
    vec![
        row("get", &[200], get("/healthz", host)),
        row(
            "an empty line first",
            &[200],
            format!("\r\n{}", get("/healthz", host)),
        ),
        row("bare LF everywhere", &[400], lf),
        row(
            "one bare LF",
            &[400],
            "GET /healthz HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n",
        ),
        row(
            "a bare CR in a value",
            &[400],
            get("/healthz", "Host: localhost\r\nX: a\rb\r\n"),
        ),
        row(
            "a folded line",
            &[400],
            get("/healthz", "Host: localhost\r\nX: a\r\n b\r\n"),
        ),
        row(
            "a NUL in a value",
            &[400],
            get("/healthz", "Host: localhost\r\nX: a\0b\r\n"),
        ),
        row(
            "a NUL in a name",
            &[400],
            get("/healthz", "Host: localhost\r\nX\0: a\r\n"),
        ),
        row(
            "a header without a colon",
            &[400],
            get("/healthz", "Host: localhost\r\nnonsense\r\n"),
        ),
        row(
            "a header without a name",
            &[400],
            get("/healthz", "Host: localhost\r\n: x\r\n"),
        ),
        row("no Host", &[400], get("/healthz", "")),
        row("two Hosts", &[400], get("/healthz", &host.repeat(2))),
        row("another Host", &[403], get("/healthz", "Host: evil.example\r\n")),
        row(
            "a Host that only begins like ours",
            &[403],
            get("/healthz", "Host: localhost.evil.example\r\n"),
        ),
        row(
            "a Host with a name before",
            &[403],
            get("/healthz", "Host: evil@localhost\r\n"),
        ),
        row("an empty Host", &[403], get("/healthz", "Host:\r\n")),
        row(
            "another host in the URL",
            &[403],
            get("http://evil.example/healthz", host),
        ),
        row("HTTP/0.9", &[400], "GET /healthz\r\n\r\n"),
        row(
            "HTTP/2.0 by name",
            &[400],
            get("/healthz", host).replace("1.1", "2.0"),
        ),
        row(
            "HTTP/2 with prior knowledge",
            &[],
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ),
        row(
            "TLS",
            &[400],
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        ),
        row("nothing but noise", &[400], &b"\x00\xff\xfe\r\n\r\n"[..]),
        row("NDJSON over TCP", &[400], "{\"input\":\"x\"}\r\n\r\n"),
        row(
            "CONNECT",
            &[404],
            "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ),
        row("TRACE", &[405], get("/healthz", host).replace("GET", "TRACE")),
        row(
            "OPTIONS *",
            &[404],
            "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ),
        row(
            "an upgrade",
            &[200],
            get(
                "/healthz",
                "Host: localhost\r\nConnection: upgrade\r\nUpgrade: h2c\r\n",
            ),
        ),
        row("a path that climbs", &[404], get("/../../etc/passwd", host)),
        row("an encoded slash in an id", &[404], get("/v2/log%2fp", host)),
        row(
            "a head of 70 KB",
            &[431],
            get("/healthz", &format!("{host}X: {}\r\n", "a".repeat(70 * 1024))),
        ),
        row(
            "200 headers",
            &[431],
            get("/healthz", &format!("{host}{}", "X: y\r\n".repeat(200))),
        ),
        row(
            "a URL of 70 KB",
            &[431],
            get(&format!("/{}", "a".repeat(70 * 1024)), host),
        ),
        row(
            "an Origin",
            &[403],
            post(
                &format!(
                    "Origin: http://localhost:4710\r\nContent-Length: {}\r\n",
                    EVENT.len()
                ),
                EVENT,
            ),
        ),
        row(
            "Origin null",
            &[403],
            post(
                &format!("Origin: null\r\nContent-Length: {}\r\n", EVENT.len()),
                EVENT,
            ),
        ),
        row(
            "a form",
            &[415],
            post(
                &format!("Content-Type: text/plain\r\nContent-Length: {}\r\n", EVENT.len()),
                EVENT,
            ),
        ),
        row(
            "gzip",
            &[415],
            post("Content-Encoding: gzip\r\nContent-Length: 2\r\n", "\x1f\x08"),
        ),
        row(
            "a body of a terabyte that never comes",
            &[503],
            post("Content-Length: 1099511627776\r\n", ""),
        ),
        row("dead letters over TCP", &[403], get("/dead_letters", host)),
    ]
}

/// The statuses of all replies in what came.
fn statuses(text: &str) -> Vec<u16> {
    let lines = text.split("HTTP/1.1 ").skip(1);
    lines.filter_map(|line| line.get(..3)?.parse().ok()).collect()
}

#[tokio::test]
async fn each_request_gets_the_status_that_it_should_and_hides_no_other() {
    let pair = Pair::start().await;
    let rows: Vec<Row> = framing().into_iter().chain(heads()).collect();
    let mut taken = 0;
    let mut wrong = Vec::new();
    for row in &rows {
        let reply = tokio::time::timeout(PATIENCE, raw_tcp(&pair.daemon.url, &row.bytes)).await;
        let reply = reply.unwrap_or_else(|_| panic!("{}: no end", row.name));
        if statuses(&reply) != row.statuses {
            wrong.push(format!("{}: wanted {:?}, came {reply:?}", row.name, row.statuses));
        }
        if row.bytes.starts_with(b"POST") {
            taken += row.statuses.iter().filter(|status| **status == 200).count() as u64;
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
    assert_eq!(pair.finish().await.accepted, taken, "nothing hidden was taken");
    println!("{} requests, {taken} events taken", rows.len());
}
