//! Files that were cut, zeroed, flipped or removed: the spool opens, gives out nothing that is not what was appended, and its
//! account says what is missing.
use super::*;
use std::collections::BTreeMap;
use std::fs;

/// What was appended, and whether it is still to be given out.
pub(super) type Truth = BTreeMap<Vec<u8>, bool>;

/// A spool with some traffic behind it, closed or killed.
pub(super) async fn prepared(random: &mut fastrand::Rng, close: bool) -> (TempDir, Truth) {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let lanes = [logs("a"), logs("b"), feedback("a")];
    let mut truth = Truth::new();
    for round in 0..40 {
        let lane = &lanes[random.usize(..lanes.len())];
        let records = (0..random.usize(1..30)).map(|n| {
            let noise: String = (0..random.usize(..1_500))
                .map(|_| random.alphanumeric())
                .collect();
            format!(
                "{{\"project_id\":\"{}\",\"n\":\"{round}.{n}\",\"noise\":\"{noise}\"}}",
                lane.project
            )
            .into_bytes()
        });
        let records: Vec<Vec<u8>> = records.collect();
        truth.extend(records.iter().map(|record| (record.clone(), true)));
        let entries = records.into_iter().map(|record| queued(lane, record)).collect();
        spool.append(entries).await.unwrap();
    }
    for lane in &lanes {
        for event in spool.lease(lane, &limits(60)).await {
            if random.bool() {
                truth.insert(event.record().to_vec(), false);
                spool.settle(lane, vec![event]).await;
            }
        }
    }
    commit(&spool).await;
    if close {
        spool.close().await;
        return (folder, truth);
    }
    let copy = killed(folder.path());
    spool.close().await;
    (copy, truth)
}

pub(super) fn newest(folder: &Path) -> PathBuf {
    let entries = fs::read_dir(folder.join("spool")).unwrap();
    entries.map(|entry| entry.unwrap().path()).max().unwrap()
}

/// Does some harm to the newest generation.
pub(super) fn harm(random: &mut fastrand::Rng, folder: &Path) -> &'static str {
    let generation = newest(folder);
    let db = generation.join("db");
    let mut bytes = fs::read(&db).unwrap();
    let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
    let kind = random.usize(..5);
    match kind {
        0 => {
            for _ in 0..random.usize(1..6) {
                bytes[random.usize(..used)] ^= 1 << random.u8(..8);
            }
        }
        1 => bytes.truncate(random.usize(..used)),
        2 => {
            let at = random.usize(..used) & !4095;
            let end = (at + 4096).min(bytes.len());
            bytes[at..end].fill(0);
        }
        3 => bytes.clear(),
        _ => {
            fs::remove_dir_all(&generation).unwrap();
            return "removed folder";
        }
    }
    fs::write(&db, bytes).unwrap();
    ["flipped bits", "cut tail", "zeroed page", "emptied file"][kind]
}

/// Everything that the spool gives out, checked against the truth; how much of it was settled before.
pub(super) async fn given_out(spool: &Spool, truth: &Truth, told: &str) -> (u64, u64) {
    let (mut given, mut again) = (0, 0);
    for lane in [logs("a"), logs("b"), feedback("a")] {
        loop {
            let events = spool.lease(&lane, &limits(100)).await;
            if events.is_empty() {
                break;
            }
            for event in &events {
                let live = truth.get(event.record().as_ref()).copied();
                again += u64::from(!live.unwrap_or_else(|| panic!("{told}: event {} changed", event.seq())));
            }
            given += events.len() as u64;
            spool.settle(&lane, events).await;
        }
    }
    (given, again)
}

#[tokio::test]
async fn whatever_happens_to_the_newest_generation_the_spool_opens_and_its_account_is_right() {
    let (mut there, mut kept) = (0, 0);
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (folder, truth) = prepared(&mut random, seed % 2 == 0).await;
        let what = harm(&mut random, folder.path());
        let live = truth.values().filter(|live| **live).count() as u64;
        let told = format!("seed {seed}, {what}");
        let spool = open(folder.path());
        let ledger = spool.ledger();
        assert!(ledger.balances(), "{told}: {ledger:?}");
        let (given, again) = given_out(&spool, &truth, &told).await;
        let saved = given - again;
        commit(&spool).await;
        let ledger = spool.ledger();
        let accounted = given + ledger.dropped;
        assert!(
            accounted >= live,
            "{told}: {} were there, {given} given out ({again} again), {ledger:?}",
            live
        );
        spool.close().await;
        let spool = open(folder.path());
        assert_eq!(spool.ledger(), ledger, "{told}: the second opening");
        there += live;
        kept += saved;
        println!(
            "{told}: {saved} of {} saved, {again} given out again, {} counted lost",
            live, ledger.dropped
        );
    }
    println!("saved {:.1} % over all seeds", 100.0 * kept as f64 / there as f64);
}

pub(super) const LANES: [&str; 4] = ["a", "b", "c", "d"];

pub(super) fn small(path: &Path) -> Settings {
    Settings {
        generation_bytes: 1 << 20,
        ..settings(path)
    }
}

/// A few generations of a few lanes, partly delivered; gives what is still to be given out.
pub(super) async fn filled(spool: &Spool, random: &mut fastrand::Rng) -> Truth {
    let mut truth = Truth::new();
    fill(spool, random, &mut truth).await;
    truth
}

/// The same, beside what is there already.
pub(super) async fn fill(spool: &Spool, random: &mut fastrand::Rng, truth: &mut Truth) {
    for round in 0..70 {
        let lane = logs(LANES[random.usize(..LANES.len())]);
        let before = truth.len();
        let records = (0..random.usize(10..40)).map(|n| {
            // Some take several pieces.
            let len = if random.u8(..) < 4 {
                60_000
            } else {
                random.usize(..3_000)
            };
            let noise: String = (0..len).map(|_| random.alphanumeric()).collect();
            format!(
                "{{\"project_id\":\"{}\",\"n\":\"{before}.{round}.{n}\",\"noise\":\"{noise}\"}}",
                lane.project
            )
        });
        let records: Vec<Vec<u8>> = records.map(String::into_bytes).collect();
        truth.extend(records.iter().map(|record| (record.clone(), true)));
        let entries = records.into_iter().map(|record| queued(&lane, record)).collect();
        spool.append(entries).await.unwrap();
        if round % 20 == 19 {
            for event in spool.lease(&lane, &limits(50)).await {
                if random.bool() {
                    truth.remove(event.record().as_ref());
                    spool.settle(&lane, vec![event]).await;
                }
            }
        }
    }
}

/// Does some harm to one of the generations that are not the newest.
fn harm_older(random: &mut fastrand::Rng, folder: &Path) -> String {
    let entries = fs::read_dir(folder.join("spool")).unwrap();
    let mut generations: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    generations.sort();
    generations.pop();
    let picked = random.usize(..generations.len());
    harm_in_place(random, &generations[picked])
}

/// Does some harm to a generation, which may be open.
pub(super) fn harm_in_place(random: &mut fastrand::Rng, generation: &Path) -> String {
    let db = generation.join("db");
    let Ok(mut bytes) = fs::read(&db) else {
        return format!("nothing, for {} is gone already", db.display());
    };
    let used = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    let at = random.usize(..used);
    let what = match random.usize(..5) {
        0 => {
            (0..random.usize(1..6)).for_each(|_| bytes[random.usize(..used)] ^= 1 << random.u8(..8));
            "flipped bits"
        }
        1 => {
            bytes.truncate(at);
            "cut tail"
        }
        2 => {
            let start = at & !4095;
            let end = (start + 4096).min(bytes.len());
            bytes[start..end].fill(0);
            "zeroed page"
        }
        3 => {
            fs::remove_file(&db).unwrap();
            return format!("removed file of {}", generation.display());
        }
        _ => {
            fs::remove_dir_all(generation).unwrap();
            return format!("removed {}", generation.display());
        }
    };
    // Not a new file: one that is open is damaged too.
    use std::os::unix::fs::FileExt;
    let file = fs::File::options().write(true).open(&db).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    format!("{what} in {}", generation.display())
}

/// Takes everything out of the lanes, in order.
async fn emptied(spool: &Spool, truth: &Truth, told: &str) -> u64 {
    let mut given = 0;
    for lane in LANES.map(logs) {
        let (mut last, mut empty) = (0, 0);
        while view(spool, &lane).queued() > 0 {
            assert!(empty < 20, "{told}: {lane} is stuck");
            let events = spool.lease(&lane, &limits(100)).await;
            empty += usize::from(events.is_empty());
            for event in &events {
                assert!(
                    truth.contains_key(event.record().as_ref()),
                    "{told}: an event changed"
                );
                assert!(event.seq().0 > last, "{told}: out of order");
                last = event.seq().0;
            }
            given += events.len() as u64;
            spool.settle(&lane, events).await;
            // Salvage is over when the next command is answered.
            commit(spool).await;
        }
    }
    given
}

#[tokio::test]
async fn a_damage_of_older_generations_costs_what_was_damaged_and_nothing_else() {
    let (mut there, mut lost, mut set_aside) = (0, 0, 0);
    for seed in 0..30 {
        let mut random = fastrand::Rng::with_seed(seed);
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(small(folder.path())).unwrap();
        let truth = filled(&spool, &mut random).await;
        if random.bool() {
            // Some of the files are open when they are damaged.
            for lane in LANES.map(logs) {
                drop(spool.lease(&lane, &limits(3)).await);
            }
        }
        let restart = random.bool();
        if restart {
            spool.close().await;
        }
        let mut what = Vec::new();
        for _ in 0..random.usize(1..3) {
            what.push(harm_older(&mut random, folder.path()));
        }
        let told = format!("seed {seed}, restart {restart}, {what:?}");
        if restart {
            spool = Spool::open(small(folder.path())).unwrap();
        }
        let given = emptied(&spool, &truth, &told).await;
        let (ledger, damage) = (spool.ledger(), spool.damage());
        assert!(ledger.balances(), "{told}: {ledger:?}");
        assert_eq!(given + ledger.dropped, truth.len() as u64, "{told}: {damage:?}");
        assert_eq!(damage.lost, ledger.dropped, "{told}");
        spool.close().await;
        let spool = Spool::open(small(folder.path())).unwrap();
        assert_eq!(
            (spool.ledger(), spool.damage()),
            (ledger, damage.clone()),
            "{told}: the second opening"
        );
        spool.close().await;
        there += truth.len() as u64;
        lost += damage.lost;
        set_aside += damage.quarantined.len();
        println!(
            "{told}: {} of {} lost, {} saved",
            damage.lost,
            truth.len(),
            damage.saved
        );
    }
    println!("{lost} of {there} events lost, {set_aside} folders set aside");
}
