//! Dead letters by promise: order, bounds, damage, clocks.
use super::super::durable::{Database, Writes};
use super::*;
use crate::ids::{Kind, Lane, ProjectId, Seq};
use crate::spool::Burial;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

const MIB: u64 = 1024 * 1024;
const DAY: Duration = Duration::from_secs(86_400);

fn letter(seq: u64, record: Vec<u8>) -> DeadLetter {
    let lane = Lane {
        project: ProjectId::new("p").unwrap(),
        kind: Kind::Log,
    };
    let burial = Burial {
        reason: "no".into(),
        status: Some(422),
        excerpt: Some("ü".into()),
        attempts: 3,
    };
    DeadLetter {
        seq: Seq(seq),
        lane,
        buried_at_ms: (Disk::real().now_ms)(),
        burial,
        record,
    }
}

fn noise(len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..len).map(|_| random.u8(..)).collect()
}

fn settings(path: &Path, max_bytes: u64) -> Settings {
    Settings {
        on_full: crate::spool::OnFull::Reject,
        generation_bytes: 64 << 20,
        max_projects: 1_000,
        keep_room: Default::default(),
        path: path.to_owned(),
        max_bytes: 1 << 30,
        min_free_bytes: 0,
        dead_max_bytes: max_bytes,
        dead_max_age: 30 * DAY,
    }
}

fn open(folder: &TempDir, max_bytes: u64) -> DeadLetters {
    DeadLetters::new(&settings(folder.path(), max_bytes), &Disk::real(), 1)
}

fn bury(dead: &mut DeadLetters, letters: &[DeadLetter]) -> Range<u64> {
    bury_at(dead, letters, Instant::now())
}

fn bury_at(dead: &mut DeadLetters, letters: &[DeadLetter], now: Instant) -> Range<u64> {
    let numbers = dead.reserve(letters.len()).unwrap();
    let letters: Vec<&DeadLetter> = letters.iter().collect();
    dead.bury(numbers.start, &letters, now).unwrap();
    numbers
}

/// Number and sequence of each letter; no sequence for one that cannot be read.
fn shown(dead: &mut DeadLetters) -> Vec<(u64, Option<u64>)> {
    let seq = |kept: &KeptLetter| kept.letter.as_ref().ok().map(|letter| letter.seq.0);
    let mut shown = Vec::new();
    let mut after = None;
    loop {
        let page = dead.list(after, 1_000).unwrap();
        shown.extend(page.letters.iter().map(|kept| (kept.number, seq(kept))));
        after = page.next;
        if after.is_none() {
            return shown;
        }
    }
}

fn folders(folder: &TempDir) -> usize {
    std::fs::read_dir(folder.path().join("dead")).unwrap().count()
}

fn on_disk(folder: &TempDir) -> u64 {
    let entries = std::fs::read_dir(folder.path().join("dead")).unwrap();
    entries
        .map(|entry| folder::disk_bytes(&entry.unwrap().path()).unwrap())
        .sum()
}

fn quarantined(folder: &TempDir) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder.path().join("quarantine")) else {
        return Vec::new();
    };
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn letters_come_back_whole_in_the_order_of_their_burial() {
    let folder = tempfile::tempdir().unwrap();
    let mut dead = open(&folder, 1 << 30);
    let (long, short) = (letter(3, noise(100_000)), letter(1, b"one".to_vec()));
    assert_eq!(bury(&mut dead, &[long.clone(), short.clone()]), 1..3);
    drop(dead);
    let mut dead = open(&folder, 1 << 30);
    assert_eq!(bury(&mut dead, &[letter(2, vec![])]), 3..4);
    let page = dead.list(None, 2).unwrap();
    assert_eq!(page.letters[0].letter, Ok(long));
    assert_eq!(page.letters[1].letter, Ok(short));
    assert_eq!(page.next, Some(2));
    let rest = dead.list(page.next, 2).unwrap();
    assert_eq!(
        (rest.letters[0].number, rest.letters.len(), rest.next),
        (3, 1, None)
    );
}

#[test]
fn a_page_ends_at_its_bytes_and_the_next_goes_on_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut dead = open(&folder, 1 << 30);
    for seq in 1..=3 {
        bury(
            &mut dead,
            &[letter(seq, noise(3 << 20)), letter(seq + 10, vec![])],
        );
    }
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let page = dead.list(after, 1_000).unwrap();
        pages.push(page.letters.iter().map(|kept| kept.number).collect::<Vec<_>>());
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(pages, [vec![1, 2], vec![3, 4], vec![5, 6]]);
}

#[test]
fn space_comes_back_and_the_oldest_go_first() {
    let folder = tempfile::tempdir().unwrap();
    let max_bytes = 24 * MIB;
    let mut dead = open(&folder, max_bytes);
    let mut largest = 0;
    for seq in 1..=3 * max_bytes / 100_000 {
        bury(&mut dead, &[letter(seq, noise(100_000))]);
        largest = largest.max(on_disk(&folder));
    }
    println!(
        "at most {largest} bytes on disk within {max_bytes}, in {} folders",
        folders(&folder)
    );
    assert!(largest <= max_bytes + max_bytes / BYTES_SHARES, "{largest}");
    let shown = shown(&mut dead);
    let last = 3 * max_bytes / 100_000;
    println!(
        "{} letters of 100,000 bytes that lz4 cannot shrink are left",
        shown.len()
    );
    assert!(shown.len() > 80, "{}", shown.len());
    let newest: Vec<_> = (last + 1 - shown.len() as u64..=last)
        .map(|n| (n, Some(n)))
        .collect();
    assert_eq!(shown, newest);
    assert_eq!(dead.dropped(), last - shown.len() as u64, "each is counted");
    // And over a restart nothing of it is forgotten.
    drop(dead);
    let mut dead = open(&folder, max_bytes);
    assert_eq!(self::shown(&mut dead), newest);
    bury(&mut dead, &[letter(1, vec![])]);
    assert!(on_disk(&folder) <= max_bytes + max_bytes / BYTES_SHARES);
}

#[test]
fn an_unreadable_letter_is_told_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut dead = open(&folder, 1 << 30);
    for seq in 1..=3 {
        bury(&mut dead, &[letter(seq, noise(60_000))]);
    }
    drop(dead);
    let place = folder.path().join("dead/gen-00000001");
    let mut db = Database::open(&place, &Disk::real()).unwrap();
    let slot = db.get(&key::letter(2)).unwrap().unwrap();
    let slot = u32::from_be_bytes(slot.as_ref().try_into().unwrap());
    let mut writes = Writes::default();
    writes.set(key::slot(slot).to_vec(), b"no letter");
    db.commit(writes).unwrap();
    drop(db);
    let mut dead = open(&folder, 1 << 30);
    assert_eq!(shown(&mut dead), [(1, Some(1)), (2, None), (3, Some(3))]);
    bury(&mut dead, &[letter(4, vec![])]);
    assert_eq!(shown(&mut dead).len(), 4);
    assert_eq!(dead.remove(2..3, |_, found| found.is_err()).unwrap(), 1);
    assert_eq!(shown(&mut dead), [(1, Some(1)), (3, Some(3)), (4, Some(4))]);
}

#[test]
fn damaged_folders_are_set_aside_and_numbers_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let damage = || {
        let newest = std::fs::read_dir(folder.path().join("dead"))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let db = newest.max().unwrap().join("db");
        let mut bytes = std::fs::read(&db).unwrap();
        bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
        std::fs::write(&db, bytes).unwrap();
    };
    let mut dead = open(&folder, 1 << 30);
    bury(&mut dead, &[letter(1, vec![1]), letter(2, vec![2])]);
    drop(dead);
    damage();
    let mut dead = DeadLetters::new(&settings(folder.path(), 1 << 30), &Disk::real(), 3);
    assert_eq!(shown(&mut dead), []);
    assert_eq!(bury(&mut dead, &[letter(3, vec![3])]), 3..4);
    assert_eq!(shown(&mut dead), [(3, Some(3))]);
    drop(dead);
    damage();
    let mut dead = DeadLetters::new(&settings(folder.path(), 1 << 30), &Disk::real(), 4);
    assert_eq!(bury(&mut dead, &[letter(4, vec![4])]), 4..5);
    assert_eq!(shown(&mut dead), [(4, Some(4))]);
    assert_eq!(quarantined(&folder).len(), 2, "{:?}", quarantined(&folder));
}

#[test]
fn something_else_in_the_place_of_the_letters_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("dead"), "no folder").unwrap();
    let mut dead = open(&folder, 1 << 30);
    bury(&mut dead, &[letter(1, vec![1])]);
    assert_eq!(shown(&mut dead), [(1, Some(1))]);
    assert_eq!(quarantined(&folder), ["dead"]);
}

#[test]
fn removed_letters_are_gone_and_so_is_a_folder_without_any() {
    let folder = tempfile::tempdir().unwrap();
    let mut dead = open(&folder, 1 << 30);
    bury(&mut dead, &[letter(1, noise(60_000)), letter(2, vec![2])]);
    assert_eq!(dead.remove(1..2, |_, _| true).unwrap(), 1);
    assert_eq!(bury(&mut dead, &[letter(3, noise(60_000))]), 3..4);
    drop(dead);
    let mut dead = open(&folder, 1 << 30);
    assert_eq!(shown(&mut dead), [(2, Some(2)), (3, Some(3))]);
    assert_eq!(dead.remove(0..u64::MAX, |_, _| true).unwrap(), 2);
    assert_eq!(folders(&folder), 0);
    assert_eq!(bury(&mut dead, &[letter(4, vec![4])]), 4..5);
}

#[test]
fn what_was_cut_off_while_it_was_made_is_in_nobodys_way() {
    let folder = tempfile::tempdir().unwrap();
    let mut dead = open(&folder, 1 << 30);
    bury(&mut dead, &[letter(1, vec![1])]);
    drop(dead);
    let left = folder.path().join("dead/gen-00000002");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("conf"), "no configuration of sled").unwrap();
    let mut dead = open(&folder, 1 << 30);
    assert_eq!(shown(&mut dead), [(1, Some(1))]);
    assert!(!left.exists());
    assert_eq!(quarantined(&folder), Vec::<String>::new());
}

#[test]
fn an_idle_store_is_closed_and_goes_on_in_the_same_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut dead = open(&folder, 1 << 30);
    let now = Instant::now();
    bury(&mut dead, &[letter(1, vec![1])]);
    dead.tick(now).unwrap();
    dead.tick(now).unwrap();
    // Only a closed folder can be opened by somebody else.
    drop(Database::open(&folder.path().join("dead/gen-00000001"), &Disk::real()).unwrap());
    bury(&mut dead, &[letter(2, vec![2])]);
    assert_eq!((shown(&mut dead).len(), folders(&folder)), (2, 1));
}

#[test]
fn after_a_failed_write_letters_go_to_another_folder_and_what_it_left_can_be_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, failing) = crate::spool::tests::failing_disk();
    let mut dead = DeadLetters::new(&settings(folder.path(), 1 << 30), &disk, 1);
    bury(&mut dead, &[letter(1, vec![1])]);
    failing.store(true, Ordering::SeqCst);
    let numbers = dead.reserve(1).unwrap();
    dead.bury(numbers.start, &[&letter(2, vec![2])], Instant::now())
        .unwrap_err();
    failing.store(false, Ordering::SeqCst);
    dead.remove(numbers, |_, _| true).unwrap();
    assert_eq!(bury(&mut dead, &[letter(2, vec![2])]), 3..4);
    assert_eq!(shown(&mut dead), [(1, Some(1)), (3, Some(2))]);
    assert_eq!(folders(&folder), 2);
}

/// A wall clock that a test sets.
fn clock(start_ms: u64) -> (Disk, Arc<AtomicU64>) {
    let clock = Arc::new(AtomicU64::new(start_ms));
    let told = Arc::clone(&clock);
    let disk = Disk {
        now_ms: Arc::new(move || told.load(Ordering::SeqCst)),
        ..Disk::real()
    };
    (disk, clock)
}

#[test]
fn letters_over_the_age_go_once_the_clock_is_believed_and_a_jump_drops_nothing_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (day_ms, hour) = (86_400_000, Duration::from_secs(3_600));
    let begin_ms = 20_000 * day_ms;
    let (disk, wall) = clock(begin_ms);
    let start = Instant::now();
    let mut dead = DeadLetters::new(&settings(folder.path(), 1 << 30), &disk, 1);
    let at = |seq, buried_at_ms| DeadLetter {
        buried_at_ms,
        ..letter(seq, vec![1])
    };
    bury_at(&mut dead, &[at(1, begin_ms)], start);
    // A year ahead at run time, and back.
    wall.store(begin_ms + 365 * day_ms, Ordering::SeqCst);
    dead.tick(start + 2 * hour).unwrap();
    bury_at(&mut dead, &[at(2, begin_ms + 365 * day_ms)], start + 2 * hour);
    wall.store(begin_ms, Ordering::SeqCst);
    dead.tick(start + 3 * hour).unwrap();
    assert_eq!(shown(&mut dead).len(), 2);
    // A year ahead over a restart.
    drop(dead);
    wall.store(begin_ms + 365 * day_ms, Ordering::SeqCst);
    let mut dead = DeadLetters::new(&settings(folder.path(), 1 << 30), &disk, 1);
    dead.tick(start).unwrap();
    assert_eq!(shown(&mut dead).len(), 2);
    // It stays there for an hour: so it is the time, and the first letter is a year old.
    wall.store(begin_ms + 365 * day_ms + 3_600_000, Ordering::SeqCst);
    dead.tick(start + hour).unwrap();
    assert_eq!(shown(&mut dead), [(2, Some(2))]);
}
