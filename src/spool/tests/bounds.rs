//! Room, owners and permissions.
use super::*;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::AtomicU64;

fn refusal(answer: Result<(), AppendError>) -> String {
    match answer {
        Err(AppendError::Full(sentence)) => sentence,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_full_spool_says_so_and_accepts_again_once_events_were_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let lane = logs("p");
    let spool = Spool::open(Settings {
        max_bytes: 1_000,
        ..settings(folder.path())
    })
    .unwrap();
    spool.append(vec![queued(&lane, vec![0; 900])]).await.unwrap();
    let sentence = refusal(spool.append(vec![queued(&lane, vec![0; 101])]).await);
    assert!(
        sentence.contains("spool.max_bytes = 1000") && sentence.contains("900"),
        "{sentence}"
    );
    while spool.refusing().is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(spool.live_bytes(), 900);
    let leased = spool.lease(&lane, &limits(9)).await;
    spool.settle(&lane, leased).await;
    while spool.refusing().is_some() {
        tokio::task::yield_now().await;
    }
    spool.append(vec![queued(&lane, vec![0; 101])]).await.unwrap();
}

#[tokio::test]
async fn a_disk_under_its_floor_refuses_until_space_is_freed() {
    let folder = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(99 << 30));
    let told = Arc::clone(&free);
    let disk = Disk {
        free_bytes: Arc::new(move |_| Ok(told.load(Ordering::SeqCst))),
        ..Disk::real()
    };
    let spool = Spool::open_on(
        Settings {
            min_free_bytes: 100 << 30,
            ..settings(folder.path())
        },
        disk,
    )
    .unwrap();
    let sentence = refusal(spool.append(vec![queued(&logs("p"), "a")]).await);
    assert!(
        sentence.contains("spool.min_free_bytes = 107374182400"),
        "{sentence}"
    );
    free.store(100 << 30, Ordering::SeqCst);
    while spool.append(vec![queued(&logs("p"), "a")]).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(spool.ledger().accepted, 1);
}

#[tokio::test]
async fn a_full_disk_gets_back_what_was_delivered_even_from_the_newest_generation() {
    let folder = tempfile::tempdir().unwrap();
    let full = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (filled, first) = (Arc::clone(&full), folder.path().join("spool/gen-00000001"));
    let free_bytes = move |_: &Path| {
        Ok(if filled.load(Ordering::SeqCst) && first.exists() {
            99 << 30
        } else {
            100 << 30
        })
    };
    let disk = Disk {
        free_bytes: Arc::new(free_bytes),
        ..Disk::real()
    };
    let tight = Settings {
        min_free_bytes: 100 << 30,
        ..settings(folder.path())
    };
    let (spool, lane) = (Spool::open_on(tight, disk).unwrap(), logs("p"));
    for _ in 0..5 {
        spool.append(vec![queued(&lane, vec![0; 1 << 20])]).await.unwrap();
    }
    full.store(true, Ordering::SeqCst);
    while spool.append(vec![queued(&lane, "x")]).await.is_ok() {
        tokio::task::yield_now().await;
    }
    loop {
        let leased = spool.lease(&lane, &limits(99)).await;
        if leased.is_empty() {
            break;
        }
        spool.settle(&lane, leased).await;
    }
    let accepted = async {
        while spool.append(vec![queued(&lane, "y")]).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    let accepted = tokio::time::timeout(Duration::from_secs(30), accepted).await;
    assert!(accepted.is_ok(), "{:?}", spool.refusing());
    assert!(spool.ledger().balances(), "{:?}", spool.ledger());
    assert_eq!(texts(&spool.lease(&lane, &limits(9)).await), ["y"]);
}

#[tokio::test]
async fn a_second_owner_is_told_the_firsts_pid_and_may_come_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    let refused = Spool::open(settings(folder.path())).err().unwrap();
    assert!(
        refused
            .to_string()
            .contains(&format!("pid {}", std::process::id())),
        "{refused}"
    );
    first.close().await;
    assert!(matches!(
        first.append(vec![queued(&logs("p"), "a")]).await,
        Err(AppendError::Closed)
    ));
    assert!(first.lease(&logs("p"), &limits(1)).await.is_empty());
    first.close().await;
    open(folder.path());
}

#[tokio::test]
async fn nobody_else_can_read_what_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/here");
    let spool = open(&path);
    spool.append(vec![queued(&logs("p"), "a")]).await.unwrap();
    let mut folders = vec![path];
    while let Some(folder) = folders.pop() {
        assert_eq!(
            folder.metadata().unwrap().permissions().mode() & 0o777,
            0o700,
            "{}",
            folder.display()
        );
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let mode = path.metadata().unwrap().permissions().mode() & 0o777;
                assert_eq!(mode, 0o600, "{}", path.display());
            }
        }
    }
}

#[test]
fn a_folder_that_others_may_write_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let refused = Spool::open(settings(folder.path())).err().unwrap();
    assert!(
        matches!(refused, OpenError::OthersMayWrite { mode: 0o777, .. }),
        "{refused}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_newer_format_is_refused_and_left_untouched() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("format"), "phosphod data folder, format 3\n").unwrap();
    let refused = Spool::open(settings(folder.path())).err().unwrap();
    assert!(
        matches!(refused, OpenError::NewerFormat { found: 3, .. }),
        "{refused}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_file_in_the_folders_place_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    std::fs::write(&path, "").unwrap();
    let refused = Spool::open(settings(&path)).err().unwrap();
    assert!(matches!(refused, OpenError::NotAFolder { .. }), "{refused}");
}

#[tokio::test]
async fn a_generation_takes_no_more_disk_than_it_may_when_its_commits_are_small() {
    const GENERATION: u64 = 6 << 20;
    const SEGMENT: u64 = 2 << 20;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let spool = Spool::open(Settings {
        generation_bytes: GENERATION,
        ..settings(folder.path())
    })
    .unwrap();
    // What sled adds to each change counts most when there is little in it.
    let lanes: Vec<Lane> = (0..40).map(|n| logs(&format!("project-{n}"))).collect();
    let mut commits = 0;
    while !path.join("gen-00000002").exists() {
        let entries = lanes.iter().map(|lane| queued(lane, "{}")).collect();
        spool.append(entries).await.unwrap();
        commits += 1;
    }
    let bytes = std::fs::metadata(path.join("gen-00000001/db")).unwrap().len();
    println!("{commits} commits of 80 bytes in a generation of {bytes} bytes");
    assert!(
        bytes <= GENERATION + SEGMENT,
        "{bytes} bytes in a generation of {GENERATION}"
    );
    spool.close().await;
}
