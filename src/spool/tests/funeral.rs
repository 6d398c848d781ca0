//! Dead letters and the queue: each event is in one of them, whatever is cut off or fails in between.
use super::*;
use std::sync::atomic::AtomicBool;

pub(super) fn refused(record: &str) -> Entry {
    Entry::Refused {
        lane: logs("p"),
        record: record.into(),
        reason: "no".into(),
    }
}

/// Records of all letters; there must be as many as the ledger says.
pub(super) async fn counted(spool: &Spool) -> Vec<String> {
    let letters = letters(spool).await;
    let ledger = spool.ledger();
    assert_eq!(letters.len() as u64, ledger.dead, "{ledger:?}");
    assert!(ledger.balances(), "{ledger:?}");
    letters
        .into_iter()
        .map(|letter| String::from_utf8(letter.record).unwrap())
        .collect()
}

pub(super) async fn until_accepted(spool: &Spool, entry: impl Fn() -> Entry) {
    while spool.append(vec![entry()]).await.is_err() {
        tokio::task::yield_now().await;
    }
}

/// A disk that, while armed, copies the data folder once letters are durable and before the commit after them is.
fn copying_disk(folder: &Path, copy: &Path) -> (Disk, Arc<AtomicBool>) {
    let (from, to) = (folder.to_owned(), copy.to_owned());
    let armed = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&armed);
    let sync_data = move |file: &std::fs::File| {
        file.sync_data()?;
        if path_of(file).contains("/dead/gen-") && flag.swap(false, Ordering::SeqCst) {
            copy_folder(&from, &to).unwrap();
        }
        Ok(())
    };
    let disk = Disk {
        sync_data: Arc::new(sync_data),
        ..Disk::real()
    };
    (disk, armed)
}

#[tokio::test]
async fn a_kill_between_the_letters_and_their_commit_leaves_no_letter_that_does_not_count() {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (disk, armed) = copying_disk(folder.path(), copy.path());
    let (spool, lane) = (Spool::open_on(settings(folder.path()), disk).unwrap(), logs("p"));
    spool
        .append(vec![queued(&lane, "a"), queued(&lane, "b"), refused("first")])
        .await
        .unwrap();
    let mut leased = spool.lease(&lane, &limits(9)).await;
    armed.store(true, Ordering::SeqCst);
    spool.bury(&lane, vec![(leased.remove(0), burial("no"))]).await;
    commit(&spool).await;
    assert_eq!(counted(&spool).await, ["first", "a"]);

    let again = open(copy.path());
    assert_eq!(counted(&again).await, ["first"]);
    assert_eq!(texts(&again.lease(&lane, &limits(9)).await), ["a", "b"]);
}

#[tokio::test]
async fn a_kill_before_a_refused_event_is_acknowledged_leaves_no_letter_of_it() {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (disk, armed) = copying_disk(folder.path(), copy.path());
    let spool = Spool::open_on(settings(folder.path()), disk).unwrap();
    spool.append(vec![refused("before")]).await.unwrap();
    armed.store(true, Ordering::SeqCst);
    spool.append(vec![refused("cut")]).await.unwrap();

    let again = open(copy.path());
    assert_eq!(counted(&again).await, ["before"]);
    again.append(vec![refused("cut, sent again")]).await.unwrap();
    assert_eq!(counted(&again).await, ["before", "cut, sent again"]);
    again.close().await;
    assert_eq!(counted(&open(copy.path())).await, ["before", "cut, sent again"]);
}

#[tokio::test]
async fn a_failed_group_commit_leaves_no_letters_of_what_was_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, failing) = disk_failing_in("/spool/gen-");
    let (spool, lane) = (Spool::open_on(settings(folder.path()), disk).unwrap(), logs("p"));
    spool
        .append(vec![refused("before"), queued(&lane, "a")])
        .await
        .unwrap();
    failing.store(true, Ordering::SeqCst);
    spool.append(vec![refused("lost")]).await.unwrap_err();
    assert_eq!(counted(&spool).await, ["before"]);
    failing.store(false, Ordering::SeqCst);
    // Nothing to bury in the commit that works again: a kill after it must not count the letter either.
    until_accepted(&spool, || queued(&lane, "b")).await;
    let copy = killed(folder.path());
    assert_eq!(counted(&open(copy.path())).await, ["before"]);
    until_accepted(&spool, || refused("again")).await;
    assert_eq!(counted(&spool).await, ["before", "again"]);
}

#[tokio::test]
async fn while_letters_cannot_be_written_nothing_is_lost_and_all_else_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, failing) = disk_failing_in("/dead/gen-");
    let (spool, lane) = (Spool::open_on(settings(folder.path()), disk).unwrap(), logs("p"));
    spool
        .append(vec![queued(&lane, "bad"), queued(&lane, "good")])
        .await
        .unwrap();
    let mut leased = spool.lease(&lane, &limits(9)).await;
    failing.store(true, Ordering::SeqCst);
    let burying = spool.bury(&lane, vec![(leased.remove(0), burial("no"))]);
    tokio::pin!(burying);
    let others = async {
        let told = spool
            .append(vec![refused("never")])
            .await
            .unwrap_err()
            .to_string();
        assert!(told.contains("dead letters"), "{told}");
        spool.settle(&lane, leased).await;
        spool.append(vec![queued(&lane, "new")]).await.unwrap();
    };
    tokio::select! {
        biased;
        () = &mut burying => panic!("buried without a letter"),
        () = others => {}
    }
    let ledger = spool.ledger();
    assert_eq!(
        (ledger.accepted, ledger.queued, ledger.dead),
        (3, 2, 0),
        "{ledger:?}"
    );
    assert_eq!(spool.refusing(), None);
    let copy = killed(folder.path());
    failing.store(false, Ordering::SeqCst);
    burying.await;
    commit(&spool).await;
    assert_eq!(counted(&spool).await, ["bad"]);

    let again = open(copy.path());
    assert_eq!(counted(&again).await, Vec::<String>::new());
    assert_eq!(texts(&again.lease(&lane, &limits(9)).await), ["bad", "new"]);
}

#[tokio::test]
async fn a_start_works_whatever_is_damaged_among_the_letters() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, lane) = (open(folder.path()), logs("p"));
    spool
        .append(vec![refused("gone"), queued(&lane, "a")])
        .await
        .unwrap();
    spool.close().await;
    let db = folder.path().join("dead/gen-00000001/db");
    let mut bytes = std::fs::read(&db).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
    std::fs::write(&db, bytes).unwrap();
    let spool = open(folder.path());
    assert_eq!(texts(&spool.lease(&lane, &limits(9)).await), ["a"]);
    assert!(folder.path().join("quarantine/dead-gen-00000001").exists());
    spool.append(vec![refused("new")]).await.unwrap();
    let page = spool.dead_letters(None, 9).await.unwrap();
    // The number of the lost letter is not given out again.
    assert_eq!(
        page.letters.iter().map(|kept| kept.number).collect::<Vec<_>>(),
        [2]
    );
}
