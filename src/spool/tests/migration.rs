//! Folders of older formats, as released versions left them (tests/fixtures/README.md).
use super::damage::harm;
use super::*;
use crate::spool::{lock, migrate};
use std::process::Command;

const HOW: [&str; 2] = ["stopped", "killed"];

fn unpacked(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.tar.gz"));
    let status = Command::new("tar")
        .args(["-xzf", archive.to_str().unwrap(), "--no-same-owner", "-C"])
        .arg(folder.path())
        .status();
    assert!(status.unwrap().success(), "{name}");
    folder
}

fn expected(fixture: &Path, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(fixture.join("expected").join(name)).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Opens a folder and takes everything out of it, in order, against what the sender kept.
async fn is_whole(fixture: &Path, data: &Path) {
    let kept_for_ever = Settings {
        dead_max_age: Duration::from_secs(1 << 33),
        ..settings(data)
    };
    let spool = Spool::open(kept_for_ever).unwrap();
    let ledger: serde_json::Value = serde_json::from_str(&expected(fixture, "ledger.json")[0]).unwrap();
    assert_eq!(serde_json::to_value(spool.ledger()).unwrap(), ledger);
    for project in ["alpha", "beta"] {
        assert_eq!(
            spool.lease(&feedback(project), &limits(1)).await.len(),
            0,
            "logs come first"
        );
        for lane in [logs(project), feedback(project)] {
            let mut found = Vec::new();
            loop {
                let leased = spool.lease(&lane, &limits(64)).await;
                if leased.is_empty() {
                    break;
                }
                found.extend(texts(&leased));
                spool.settle(&lane, leased).await;
            }
            let kind = if lane.kind == Kind::Log { "log" } else { "feedback" };
            assert!(found == expected(fixture, &format!("{project}.{kind}")), "{lane}");
        }
    }
    let page = spool.dead_letters(None, 1_000).await.unwrap();
    let letters: Vec<DeadLetter> = page
        .letters
        .into_iter()
        .map(|kept| kept.letter.unwrap())
        .collect();
    assert!(letters.iter().all(|letter| !letter.burial.reason.is_empty()));
    assert_eq!(
        letters.iter().filter(|letter| letter.burial.attempts > 0).count(),
        4
    );
    let mut records: Vec<_> = letters
        .into_iter()
        .map(|letter| String::from_utf8(letter.record).unwrap())
        .collect();
    records.sort();
    assert_eq!(records, expected(fixture, "dead"));
    // New events come after all that were there.
    spool.append(vec![queued(&logs("alpha"), "new")]).await.unwrap();
    let leased = spool.lease(&logs("alpha"), &limits(1)).await;
    assert!(leased[0].seq().0 > ledger["accepted"].as_u64().unwrap() && texts(&leased) == ["new"]);
    assert!(spool.ledger().balances());
    drop(leased);
    spool.close().await;
    assert_eq!(blobs(data), Vec::<PathBuf>::new());
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        // What every format may have beside its own.
        .filter(|name| name != "ballast" && name != "high-water")
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_folder_of_format_1_is_brought_up_whole_however_it_was_left() {
    for how in HOW {
        let fixture = unpacked(&format!("format-1-{how}"));
        let data = fixture.path().join("data");
        is_whole(fixture.path(), &data).await;
        let format = std::fs::read_to_string(data.join("format")).unwrap();
        assert!(format.trim_end().ends_with("format 2"), "{format}");
        assert_eq!(names(&data), ["dead", "format", "lock", "spool"]);
    }
}

#[tokio::test]
async fn a_folder_of_format_2_is_read_as_it_is() {
    for how in HOW {
        let fixture = unpacked(&format!("format-2-{how}"));
        is_whole(fixture.path(), &fixture.path().join("data")).await;
    }
}

fn cut_off(data: &Path, at: usize) -> Result<(), String> {
    let (_lock, format) = lock::take(data).unwrap();
    let mut left = at;
    let mut after = |_: &'static str| match left.checked_sub(1) {
        None => Err(std::io::Error::other("cut off")),
        Some(fewer) => {
            left = fewer;
            Ok(())
        }
    };
    migrate::bring_up(&settings(data), &Disk::real(), format, &mut after).map_err(|error| error.to_string())
}

#[tokio::test]
async fn cut_off_after_any_step_the_next_start_ends_it() {
    let fixture = unpacked("format-1-killed");
    let mut steps = 0;
    loop {
        let copy = killed(&fixture.path().join("data"));
        let done = cut_off(copy.path(), steps);
        is_whole(fixture.path(), copy.path()).await;
        assert_eq!(
            names(copy.path()),
            ["dead", "format", "lock", "spool"],
            "step {steps}"
        );
        match done {
            Ok(()) => break,
            Err(error) => assert_eq!(error, "cut off"),
        }
        steps += 1;
    }
    assert_eq!(steps, 7, "written, decided, two renames for each part, in place");
}

#[tokio::test]
async fn a_disk_that_fails_at_any_sync_leaves_format_1_as_it_was_and_the_next_start_begins_again() {
    let fixture = unpacked("format-1-stopped");
    let copy = killed(&fixture.path().join("data"));
    let mut good = 0usize;
    loop {
        let syncs = std::sync::atomic::AtomicUsize::new(good);
        let disk = Disk {
            sync_data: Arc::new(move |file| {
                let spend = |left: usize| left.checked_sub(1);
                match syncs.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend) {
                    Ok(_) => file.sync_data(),
                    Err(_) => Err(std::io::Error::other("it is full")),
                }
            }),
            ..Disk::real()
        };
        let (lock, format) = lock::take(copy.path()).unwrap();
        match migrate::bring_up(&settings(copy.path()), &disk, format, &mut |_| Ok(())) {
            Ok(()) => break,
            Err(error) => assert!(error.to_string().contains("it is full"), "{error}"),
        }
        drop(lock);
        assert_eq!(format, 1);
        good += 1;
    }
    assert!(good >= 3, "{good}");
    is_whole(fixture.path(), copy.path()).await;
}

#[tokio::test]
async fn what_sled_gives_back_damaged_of_format_1_is_found_in_the_bytes_of_its_file() {
    let fixture = unpacked("format-1-stopped");
    let data = fixture.path().join("data");
    let folder = data.join("spool/gen-00000001");
    let config = sled::Config::new()
        .path(&folder)
        .segment_size(2 << 20)
        .flush_every_ms(None);
    let db = config.open().unwrap();
    let (chunk, value) = db.scan_prefix(b"e").next_back().unwrap().unwrap();
    let mut flipped = value.to_vec();
    flipped[30] ^= 1;
    db.insert(chunk, flipped).unwrap();
    db.flush().unwrap();
    let copy = killed(&data);
    let data = copy.path();
    let spool = open(data);
    let ledger = spool.ledger();
    assert!(ledger.balances(), "{ledger:?}");
    assert_eq!((ledger.queued, ledger.dropped), (720, 0));
    spool.close().await;
}

/// What a folder of format 1 gives out when it is opened, which must be what was in it, in order; and its account.
async fn salvaged(fixture: &Path, data: &Path, told: &str) -> (u64, Ledger) {
    let spool = Spool::open(settings(data)).unwrap_or_else(|error| panic!("{told}: {error}"));
    let opened = spool.ledger();
    assert!(opened.balances(), "{told}: {opened:?}");
    let mut given = 0;
    for project in ["alpha", "beta"] {
        for lane in [logs(project), feedback(project)] {
            let kind = if lane.kind == Kind::Log { "log" } else { "feedback" };
            let all = expected(fixture, &format!("{project}.{kind}"));
            let mut from = 0;
            let lanes = spool.lanes().borrow().clone();
            if !lanes.iter().any(|view| *view.lane() == lane) {
                continue;
            }
            loop {
                let leased = spool.lease(&lane, &limits(64)).await;
                if leased.is_empty() {
                    break;
                }
                for text in texts(&leased) {
                    // What had been delivered may come again, if nothing says so any more.
                    if let Some(at) = all[from..].iter().position(|expected| *expected == text) {
                        from += at + 1;
                        given += 1;
                    }
                }
                spool.settle(&lane, leased).await;
            }
        }
    }
    spool.append(vec![queued(&logs("alpha"), "new")]).await.unwrap();
    spool.close().await;
    let again = open(data);
    assert!(again.ledger().balances() && again.ledger().queued == 1, "{told}");
    again.close().await;
    (given, opened)
}

/// Exchanges the head of the only generation for something else.
fn without_head(data: &Path) {
    let config = sled::Config::new()
        .path(data.join("spool/gen-00000001"))
        .segment_size(2 << 20)
        .flush_every_ms(None);
    let db = config.open().unwrap();
    db.insert(b"mh", b"no head").unwrap();
    db.flush().unwrap();
}

#[tokio::test]
async fn an_unreadable_head_of_format_1_costs_no_event() {
    for how in HOW {
        let fixture = unpacked(&format!("format-1-{how}"));
        let data = fixture.path().join("data");
        without_head(&data);
        let copy = killed(&data);
        let (given, ledger) = salvaged(fixture.path(), copy.path(), how).await;
        let expected: serde_json::Value =
            serde_json::from_str(&expected(fixture.path(), "ledger.json")[0]).unwrap();
        let of = |name: &str| expected[name].as_u64().unwrap();
        assert_eq!((ledger.queued, ledger.dropped), (of("queued"), 0), "{how}");
        assert_eq!(ledger.dead, of("dead"), "{how}");
        // A dead letter whose event is still found counts as a delivered one besides.
        let counted_twice = ledger.delivered - of("delivered");
        assert!(counted_twice <= of("dead"), "{how}: {ledger:?}");
        assert_eq!(ledger.accepted, of("accepted") + counted_twice, "{how}");
        assert_eq!(given, 720, "{how}");
        assert!(
            copy.path()
                .join("quarantine/format-1/old-spool/gen-00000001/db")
                .exists()
        );
    }
}

#[tokio::test]
async fn whatever_is_damaged_in_format_1_it_starts_and_gives_out_what_is_left() {
    let mut given = 0;
    let seeds = 40;
    for seed in 0..seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let how = HOW[seed as usize % 2];
        let fixture = unpacked(&format!("format-1-{how}"));
        let data = fixture.path().join("data");
        let what = harm(&mut random, &data);
        let told = format!("seed {seed}, {how}, {what}");
        let (found, ledger) = salvaged(fixture.path(), &data, &told).await;
        println!("{told}: {found} of 720 given out, {ledger:?}");
        given += found;
    }
    println!(
        "{:.1} % given out over all seeds",
        given as f64 / (7.2 * seeds as f64)
    );
    assert!(given > 0);
}

fn bytes_below(folder: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    for name in names(folder) {
        let path = folder.join(name);
        match path.is_dir() {
            true => found.extend(bytes_below(&path)),
            false => drop(found.insert(path.clone(), std::fs::read(path).unwrap())),
        }
    }
    found
}

#[test]
fn a_folder_of_a_newer_format_is_refused_and_no_byte_of_it_changes() {
    let fixture = unpacked("format-1-stopped");
    let data = fixture.path().join("data");
    std::fs::write(data.join("format"), "phosphod data folder, format 3\n").unwrap();
    let before = bytes_below(&data);
    let refused = Spool::open(settings(&data)).err().unwrap().to_string();
    assert!(
        refused.contains("has format 3 and this version knows 2"),
        "{refused}"
    );
    assert_eq!(bytes_below(&data), before);
}
