//! What redaction adds to an event's way through the door, in nanoseconds an event: the best of some rounds over events of
//! about 1 KB, one thread. Then what texts cost that are made to be slow, and whether twice as much takes twice as long.
//!
//! `cargo bench --bench redact [-- EVENTS]`
mod common;

use common::{events, number_wanted};
use phosphod::ids::ProjectId;
use phosphod::intake::log::{Door, decide};
use phosphod::metrics::Metrics;
use phosphod::redact::{Action, Detector, HashKey, OwnRule, Redactor, Rules, Screen};
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

const ROUNDS: usize = 7;

/// Bytes of a text that is made to be slow, and the half of another.
const HOSTILE_BYTES: usize = 128 * 1024;

/// What such texts repeat: the beginnings of many finds, and finds.
const HOSTILE: [&str; 32] = [
    "a@",
    "a@b.",
    "a@b.co.1.",
    "4",
    "1.2.3.4.",
    "4111 ",
    "a:",
    "1.2.3.4 = ",
    "DE89 3704 ",
    "((((1",
    "sk-",
    "api_key   ",
    "://a:b",
    "eyJaaaaaaaaa.",
    "-----BEGIN PRIVATE KEY-----",
    "[email]",
    "@",
    "7",
    "eyJ",
    "\\\\",
    "\\\\n",
    "\\\\\\\\n4",
    "\\\\\\\"",
    "%25",
    "%0A4",
    "password=",
    "password:",
    "password:\\\"a ",
    "\\\"password\\\":'",
    "\\\"password\\\":\\\"\\\\\\\"a",
    "://a:b@",
    "basic YTpi ",
];

/// What is planted into the events with finds, one of each.
const SECRETS: [&str; 6] = [
    "bob@example.com",
    "+33 6 12 34 56 78",
    "4111 1111 1111 1111",
    "sk-abcdefghijklmnop0123",
    "DE89 3704 0044 0532 0130 00",
    "203.0.113.7",
];

fn door(rules: Option<Rules>) -> Result<Door, Box<dyn Error>> {
    let redactor = rules.map(Redactor::new).transpose()?.map(Arc::new);
    Ok(Door {
        project: Some(ProjectId::new("bench")?),
        max_event_bytes: 1 << 20,
        screen: redactor.map(|redactor| Screen::new(redactor, &Metrics::new())),
        projects: None,
    })
}

/// The same events with text planted amid them.
fn planted(events: &[Vec<u8>], secrets: &[&str]) -> Vec<Vec<u8>> {
    let secrets = secrets.join(" ");
    let of = |event: &Vec<u8>| {
        let (front, back) = event.split_at(event.len() - 200);
        let end = &back[secrets.len().min(back.len() - 2)..];
        [front, secrets.as_bytes(), end].concat()
    };
    events.iter().map(of).collect()
}

/// Nanoseconds an event: through the screen alone, and through the whole door.
fn measure(door: &Door, events: &[Vec<u8>], total: usize) -> (f64, f64) {
    let best = |each: &dyn Fn(&[u8])| {
        let round = || {
            let began = Instant::now();
            events.iter().cycle().take(total).for_each(|event| each(event));
            began.elapsed().as_secs_f64() * 1e9 / total as f64
        };
        (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
    };
    let screen = best(&|event| {
        black_box(door.screened(black_box(event)));
    });
    let whole = best(&|event| {
        let screened = door.screened(black_box(event));
        let _ = black_box(decide(&screened, door, 1_700_000_000, Uuid::nil()));
    });
    (screen, whole)
}

fn hostile(redactor: &Redactor) {
    println!(
        "\n{:<52} {:>12} {:>14}",
        "a text of 128 KiB of", "ns a byte", "of 256 KiB"
    );
    let best = |event: &str| {
        let round = || {
            let began = Instant::now();
            black_box(redactor.apply(black_box(event.as_bytes())));
            began.elapsed().as_secs_f64() * 1e9 / event.len() as f64
        };
        (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
    };
    for part in HOSTILE {
        let event = |bytes: usize| format!("{{\"input\":\"{}\"}}", part.repeat(bytes / part.len()));
        let (one, two) = (best(&event(HOSTILE_BYTES)), best(&event(2 * HOSTILE_BYTES)));
        println!("{part:<52} {one:>12.1} {two:>14.1}");
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let total = number_wanted(100_000);
    let plain = events(&mut fastrand::Rng::with_seed(7));
    let (one, all) = (planted(&plain, &SECRETS[..1]), planted(&plain, &SECRETS));
    let builtin = || Rules {
        detect: Detector::ALL.to_vec(),
        ..Rules::default()
    };
    let hashing = Rules {
        action: Action::Hash,
        hash_key: HashKey::new(&[7; 32]),
        ..builtin()
    };
    let own = Rules {
        own: vec![OwnRule {
            name: "ticket".into(),
            regex: "TICKET-[0-9]{4,}".into(),
            fields: Vec::new(),
            action: Action::Replace,
        }],
        ..builtin()
    };
    let email = Rules {
        detect: vec![Detector::Email],
        ..Rules::default()
    };
    println!(
        "{:<52} {:>12} {:>14} {:>8}",
        "", "screen, ns", "whole door, ns", "of off"
    );
    let mut off = None;
    for (name, rules, events) in [
        ("off", None, &plain),
        ("email alone, no finds", Some(email), &plain),
        ("all detectors, no finds", Some(builtin()), &plain),
        (
            "all detectors and a rule of one's own, no finds",
            Some(own),
            &plain,
        ),
        ("all detectors, one find", Some(builtin()), &one),
        ("all detectors, six finds", Some(builtin()), &all),
        ("all detectors, six finds, hashed", Some(hashing), &all),
    ] {
        let (screen, whole) = measure(&door(rules)?, events, total);
        let off = *off.get_or_insert(whole);
        println!("{name:<52} {screen:>12.0} {whole:>14.0} {:>8.2}", whole / off);
    }
    hostile(&Redactor::new(builtin())?);
    Ok(())
}
