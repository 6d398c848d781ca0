//! A disk that is really full: a small tmpfs, and the ballast on it.
use super::*;
use skip::skip;
use std::process::Command;

/// A file system of its own, unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` where nothing can be mounted, which is said.
    fn new(test: &str, mebibytes: u32) -> Option<SmallDisk> {
        let disk = SmallDisk(tempfile::tempdir().unwrap());
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={mebibytes}m,mode=0700"),
                "tmpfs",
            ])
            .arg(disk.0.path())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(disk);
        }
        skip(
            test,
            "a full disk needs a tmpfs of its own, which only root can mount",
        );
        None
    }

    fn free(&self) -> u64 {
        (Disk::real().free_bytes)(self.0.path()).unwrap()
    }

    fn ballast(&self) -> bool {
        self.data().join("ballast").exists()
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }
}

/// Lazily: the thread of a spool that was dropped may still have files open.
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn noise(random: &mut fastrand::Rng, n: usize) -> Vec<u8> {
    let mut event = format!("{n:>9} ").into_bytes();
    event.extend((0..10_000).map(|_| random.u8(b' '..b'~')));
    event
}

fn number(event: &Leased) -> usize {
    let digits = std::str::from_utf8(&event.record()[..9]).unwrap();
    digits.trim().parse().unwrap()
}

/// Appends until it is refused, and gives how many were acknowledged, and why no more.
async fn fill(spool: &Spool, lane: &Lane) -> (usize, AppendError) {
    let mut random = fastrand::Rng::with_seed(11);
    let mut n = 0;
    loop {
        match spool.append(vec![queued(lane, noise(&mut random, n))]).await {
            Ok(()) => n += 1,
            Err(refused) => return (n, refused),
        }
    }
}

async fn refusing(spool: &Spool) -> String {
    loop {
        match spool.refusing() {
            Some(why) if why.contains("the disk is full") => return why,
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

async fn accepts(spool: &Spool, lane: &Lane) {
    let accepted = async {
        while spool.append(vec![queued(lane, "more")]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let accepted = tokio::time::timeout(Duration::from_secs(60), accepted).await;
    assert!(accepted.is_ok(), "{:?}", spool.refusing());
}

async fn drain(spool: &Spool, lane: &Lane, disk: &SmallDisk, least_free: &mut u64) -> Vec<usize> {
    let mut delivered = Vec::new();
    loop {
        let leased = spool.lease(lane, &limits(50)).await;
        if leased.is_empty() {
            return delivered;
        }
        delivered.extend(leased.iter().map(number));
        spool.settle(lane, leased).await;
        *least_free = (*least_free).min(disk.free());
        // Each settling a commit of its own, as with a slow upstream.
        let ended = delivered.len() as u64;
        while spool.ledger().delivered < ended {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn a_disk_filled_to_the_brim_delivers_all_and_accepts_again_by_itself() {
    let Some(disk) = SmallDisk::new(
        "a_disk_filled_to_the_brim_delivers_all_and_accepts_again_by_itself",
        64,
    ) else {
        return;
    };
    let (spool, lane) = (open(&disk.data()), logs("p"));
    let mut least_free = u64::MAX;
    assert!(disk.ballast());
    let (acknowledged, why) = fill(&spool, &lane).await;
    assert!(
        matches!(why, AppendError::Storage(_) | AppendError::Full(_)),
        "{why:?}"
    );
    let why = refusing(&spool).await;
    assert!(why.contains("free some space"), "{why}");
    println!(
        "acknowledged {acknowledged}, {} bytes free without the ballast",
        disk.free()
    );
    assert_eq!(
        drain(&spool, &lane, &disk, &mut least_free).await,
        (0..acknowledged).collect::<Vec<_>>()
    );
    println!("least free while delivering: {least_free} bytes");
    accepts(&spool, &lane).await;
    assert!(disk.ballast());
    let ledger = spool.ledger();
    assert!(
        ledger.balances() && ledger.delivered == acknowledged as u64,
        "{ledger:?}"
    );
}

#[tokio::test]
async fn a_start_on_a_disk_without_a_free_byte_gets_its_space_from_the_ballast() {
    let Some(disk) = SmallDisk::new(
        "a_start_on_a_disk_without_a_free_byte_gets_its_space_from_the_ballast",
        64,
    ) else {
        return;
    };
    let (spool, lane) = (open(&disk.data()), logs("p"));
    let mut least_free = u64::MAX;
    let mut random = fastrand::Rng::with_seed(3);
    let acknowledged = 2_000;
    for n in 0..acknowledged {
        spool
            .append(vec![queued(&lane, noise(&mut random, n))])
            .await
            .unwrap();
    }
    spool.close().await;
    assert!(disk.ballast());
    // Somebody else takes all that is left.
    let other = disk.0.path().join("other");
    let mut taken = std::fs::File::create(&other).unwrap();
    while std::io::Write::write(&mut taken, &[1; 4_096]).is_ok() {}
    assert_eq!(disk.free(), 0);
    let spool = open(&disk.data());
    let why = spool.refusing().unwrap();
    assert!(why.contains("the disk is full") && !disk.ballast(), "{why}");
    let refused = spool.append(vec![queued(&lane, "no")]).await;
    assert!(matches!(refused, Err(AppendError::Full(_))), "{refused:?}");
    // Again, with what was left of the ballast.
    spool.close().await;
    let spool = open(&disk.data());
    assert_eq!(
        drain(&spool, &lane, &disk, &mut least_free).await,
        (0..acknowledged).collect::<Vec<_>>()
    );
    println!("least free while delivering: {least_free} bytes");
    accepts(&spool, &lane).await;
    assert!(disk.ballast());
}

#[tokio::test]
async fn a_first_start_on_a_full_disk_says_what_to_do() {
    let Some(disk) = SmallDisk::new("a_first_start_on_a_full_disk_says_what_to_do", 1) else {
        return;
    };
    let mut taken = std::fs::File::create(disk.0.path().join("other")).unwrap();
    while std::io::Write::write(&mut taken, &[1; 4_096]).is_ok() {}
    let refused = Spool::open(settings(&disk.data())).err().unwrap();
    assert!(refused.to_string().contains("spool.path"), "{refused}");
}

#[tokio::test]
async fn a_full_disk_drops_the_oldest_generations_if_that_is_the_policy() {
    let Some(disk) = SmallDisk::new(
        "a_full_disk_drops_the_oldest_generations_if_that_is_the_policy",
        80,
    ) else {
        return;
    };
    let dropping = Settings {
        on_full: OnFull::DropOldest,
        generation_bytes: 8 << 20,
        ..settings(&disk.data())
    };
    let (spool, lane) = (Spool::open(dropping).unwrap(), logs("p"));
    let mut least_free = u64::MAX;
    let mut random = fastrand::Rng::with_seed(5);
    let (mut acknowledged, mut n) = (Vec::new(), 0);
    while spool.ledger().dropped < 5_000 {
        if spool
            .append(vec![queued(&lane, noise(&mut random, n))])
            .await
            .is_ok()
        {
            acknowledged.push(n);
        }
        n += 1;
    }
    // Until the ballast has its place again, generations go without being asked.
    while spool.refusing().is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let ledger = spool.ledger();
    assert!(
        ledger.balances() && ledger.accepted == acknowledged.len() as u64,
        "{ledger:?}"
    );
    let left = drain(&spool, &lane, &disk, &mut least_free).await;
    assert_eq!(left, acknowledged[ledger.dropped as usize..]);
    println!(
        "dropped {} of {}, {} attempts",
        ledger.dropped, ledger.accepted, n
    );
}
