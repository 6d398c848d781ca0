//! A lane that is parked keeps little on disk, whatever the others do, and keeps its order.
use super::*;
use std::collections::BTreeSet;

const GENERATION: u64 = 1 << 20;

fn small(path: &Path) -> Settings {
    Settings {
        generation_bytes: GENERATION,
        ..settings(path)
    }
}

/// Text that does not get smaller.
fn noise(random: &mut fastrand::Rng, len: usize) -> String {
    std::iter::repeat_with(|| random.alphanumeric())
        .take(len)
        .collect()
}

/// Bytes of all files under a folder, as the disk counts them.
fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        bytes += match entry.file_type().unwrap().is_dir() {
            true => disk_bytes(&entry.path()),
            false => entry.metadata().unwrap().blocks() * 512,
        };
    }
    bytes
}

/// One round: a little for the parked lane, much for the other, which is delivered.
async fn round(spool: &Spool, random: &mut fastrand::Rng, parked: &[Lane], number: usize) {
    let busy = logs("busy");
    let mut entries = Vec::new();
    for (n, lane) in parked.iter().enumerate() {
        entries.push(queued(lane, format!("{number}.{n} {}", noise(random, 1_000))));
    }
    entries.extend((0..64).map(|_| queued(&busy, noise(random, 2_000))));
    spool.append(entries).await.unwrap();
    let leased = spool.lease(&busy, &limits(1_000)).await;
    spool.settle(&busy, leased).await;
}

fn numbers(leased: &[Leased]) -> Vec<String> {
    let first_word = |text: String| text.split(' ').next().unwrap().to_owned();
    texts(leased).into_iter().map(first_word).collect()
}

/// Two generations, and what an empty one takes: sled writes at least a segment of 2 MiB for each.
const TWO_GENERATIONS: u64 = 2 * (GENERATION + (4 << 20));

#[tokio::test]
async fn a_parked_lane_does_not_keep_what_others_have_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(small(folder.path())).unwrap();
    let mut random = fastrand::Rng::with_seed(5);
    let parked = [logs("parked"), feedback("parked")];
    let mut most = 0;
    for number in 0..400 {
        round(&spool, &mut random, &parked, number).await;
        if number % 10 == 9 {
            commit(&spool).await;
            let bytes = disk_bytes(&folder.path().join("spool"));
            let bound = 2 * spool.live_bytes() + TWO_GENERATIONS;
            assert!(
                bytes <= bound,
                "round {number}: {bytes} bytes on disk, {bound} allowed"
            );
            most = most.max(bytes);
        }
    }
    println!("51 MB of others' traffic beside 0.8 MB of parked lanes: at most {most} bytes on disk");
    // It comes back in order, also for the next process, and only once.
    let copy = killed(folder.path());
    let again = Spool::open(small(copy.path())).unwrap();
    for (n, lane) in parked.iter().enumerate() {
        let leased = again.lease(lane, &limits(1_000)).await;
        let expected: Vec<String> = (0..400).map(|number| format!("{number}.{n}")).collect();
        assert_eq!(numbers(&leased), expected);
        again.settle(lane, leased).await;
    }
    assert!(blobs(copy.path()).is_empty());
    again.close().await;
    spool.close().await;
}

#[tokio::test]
async fn what_is_leased_or_released_is_moved_too_and_what_has_ended_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(small(folder.path())).unwrap();
    let mut random = fastrand::Rng::with_seed(6);
    let slow = logs("slow");
    for number in 0..40 {
        round(&spool, &mut random, std::slice::from_ref(&slow), number).await;
    }
    let mut leased = spool.lease(&slow, &limits(30)).await;
    let held = leased.split_off(20);
    let (ended, back): (Vec<Leased>, Vec<Leased>) =
        leased.into_iter().partition(|event| event.seq().0 % 2 == 0);
    let ended_seqs: BTreeSet<u64> = ended.iter().map(|event| event.seq().0).collect();
    let back_seqs = seqs(&back);
    spool.settle(&slow, ended).await;
    spool.release(&slow, back).await;
    for number in 40..300 {
        round(&spool, &mut random, std::slice::from_ref(&slow), number).await;
    }
    commit(&spool).await;
    let generations = std::fs::read_dir(folder.path().join("spool")).unwrap().count();
    assert!(
        generations <= 4,
        "{generations} generations for 300 KB that are live"
    );
    let first = spool.lease(&slow, &limits(back_seqs.len())).await;
    assert_eq!(seqs(&first), back_seqs);
    // Those that were held all the while can still end, and the rest follows in order.
    let held_seqs = seqs(&held);
    spool.settle(&slow, held).await;
    let rest = spool.lease(&slow, &limits(1_000)).await;
    assert_eq!(first.len() + rest.len() + ended_seqs.len() + held_seqs.len(), 300);
    assert!(seqs(&rest).is_sorted() && seqs(&rest)[0] > *held_seqs.last().unwrap());
    spool.settle(&slow, first).await;
    spool.settle(&slow, rest).await;
    commit(&spool).await;
    assert_eq!(view(&spool, &slow).queued(), 0);
    spool.close().await;
}

#[tokio::test]
async fn a_kill_at_any_sync_while_moving_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let copies = std::sync::Arc::new(Mutex::new(Vec::new()));
    let (into, from) = (Arc::clone(&copies), folder.path().to_owned());
    let taken = std::sync::atomic::AtomicUsize::new(0);
    // A copy right before and right after a sync is what a kill at that moment leaves.
    let disk = Disk {
        sync_data: Arc::new(move |file: &std::fs::File| {
            let n = taken.fetch_add(1, Ordering::Relaxed);
            if n > 60 && n.is_multiple_of(7) {
                locked(&into).push(killed(&from));
            }
            file.sync_data()
        }),
        ..Disk::real()
    };
    let spool = Spool::open_on(small(folder.path()), disk).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let parked = logs("parked");
    for number in 0..120 {
        round(&spool, &mut random, std::slice::from_ref(&parked), number).await;
    }
    spool.close().await;
    let copies = std::mem::take(&mut *locked(&copies));
    assert!(copies.len() > 10);
    for copy in copies {
        let again = Spool::open(small(copy.path())).unwrap();
        assert!(again.ledger().balances());
        let leased = again.lease(&parked, &limits(1_000)).await;
        let expected: Vec<String> = (0..leased.len()).map(|number| format!("{number}.0")).collect();
        assert_eq!(numbers(&leased), expected);
        assert_eq!(view(&again, &parked).queued(), leased.len() as u64);
        again.release(&parked, leased).await;
        again.close().await;
    }
}
