//! Dead letters that are queued again: each event is in the queue or among the letters, whatever is cut off or fails.
use super::funeral::{counted, refused, until_accepted};
use super::*;
use crate::spool::offline::{Look, LookError};

/// The letters as they are taken up again: the record, marked.
async fn revived(spool: &Spool) -> Vec<Revived> {
    let page = spool.dead_letters(None, 1_000).await.unwrap();
    let letters = page.letters.into_iter().map(|kept| {
        let letter = kept.letter.unwrap();
        Revived {
            number: kept.number,
            lane: letter.lane,
            record: [letter.record, b" again".to_vec()].concat(),
        }
    });
    letters.collect()
}

fn numbers(letters: &[Revived]) -> BTreeSet<u64> {
    letters.iter().map(|letter| letter.number).collect()
}

/// How many letters the tools see that look at a stopped daemon's folder.
fn letters_offline(path: &Path) -> u64 {
    let look = Look::take(path).unwrap();
    let mut shown = 0;
    let each: Result<(), LookError> = look.each_letter(|_, letter| {
        letter.unwrap();
        shown += 1;
        Ok(())
    });
    each.unwrap();
    assert_eq!(look.info().unwrap().dead_letters.letters, shown);
    shown
}

async fn all_queued(spool: &Spool) -> Vec<String> {
    let leased = spool.lease(&logs("p"), &limits(99)).await;
    let found = texts(&leased);
    spool.release(&logs("p"), leased).await;
    found
}

#[tokio::test]
async fn a_letter_that_is_queued_again_leaves_dead_for_queued_and_stays_so() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, lane) = (open(folder.path()), logs("p"));
    spool
        .append(vec![
            refused("a"),
            queued(&lane, "first"),
            refused("b"),
            refused("c"),
        ])
        .await
        .unwrap();
    let mut letters = revived(&spool).await;
    let kept = letters.remove(1);
    assert_eq!(spool.requeue(letters.clone()).await.unwrap(), Vec::<u64>::new());
    assert_eq!(counted(&spool).await, ["b"]);
    let ledger = spool.ledger();
    assert_eq!((ledger.accepted, ledger.queued, ledger.dead), (4, 3, 1));
    assert_eq!(all_queued(&spool).await, ["first", "a again", "c again"]);

    // Those that are gone are told, and nothing of them is queued a second time.
    let both = [letters.remove(0), kept].to_vec();
    assert_eq!(spool.requeue(both).await.unwrap(), [1]);
    assert_eq!(counted(&spool).await, Vec::<String>::new());
    let ledger = spool.ledger();
    assert_eq!((ledger.accepted, ledger.queued, ledger.dead), (4, 4, 0));
    spool.close().await;

    let spool = open(folder.path());
    assert_eq!(spool.ledger(), ledger);
    assert_eq!(
        all_queued(&spool).await,
        ["first", "a again", "c again", "b again"]
    );
    let leased = spool.lease(&lane, &limits(99)).await;
    let graves = leased.into_iter().map(|event| (event, burial("no"))).collect();
    spool.bury(&lane, graves).await;
    commit(&spool).await;
    assert_eq!(counted(&spool).await, ["first", "a again", "c again", "b again"]);
}

#[tokio::test]
async fn a_kill_at_any_sync_leaves_each_event_in_one_place() {
    let folder = tempfile::tempdir().unwrap();
    let copies = Copies::of(folder.path());
    let at_sync = copies.clone();
    let sync_data = move |file: &std::fs::File| {
        at_sync.take();
        file.sync_data()?;
        at_sync.take();
        Ok(())
    };
    let disk = Disk {
        sync_data: Arc::new(sync_data),
        ..Disk::real()
    };
    let spool = Spool::open_on(settings(folder.path()), disk).unwrap();
    spool.append(vec![refused("a"), refused("b")]).await.unwrap();
    let letters = revived(&spool).await;
    copies.begin();
    spool.requeue(letters).await.unwrap();
    commit(&spool).await;

    // The commit that queues them, the one that removes the letters, and the one that takes the note back.
    let made = copies.end(spool).await;
    assert!(made >= 6, "{made}");
    let mut queued_in = 0;
    for copy in 0..made {
        let path = copies.at(copy);
        let seen = letters_offline(&path);
        for again in 0..2 {
            let spool = open(&path);
            let (dead, queued) = (counted(&spool).await, all_queued(&spool).await);
            assert_eq!(seen, dead.len() as u64, "copy {copy}, start {again}");
            match dead.is_empty() {
                true => assert_eq!(queued, ["a again", "b again"], "copy {copy}, start {again}"),
                false => assert_eq!((dead.len(), queued.len()), (2, 0), "copy {copy}, start {again}"),
            }
            queued_in += queued.len();
            spool.close().await;
        }
    }
    assert!(queued_in > 0);
}

#[tokio::test]
async fn a_commit_that_fails_leaves_the_letter_and_queues_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, failing) = disk_failing_in("/spool/gen-");
    let spool = Spool::open_on(settings(folder.path()), disk).unwrap();
    spool.append(vec![refused("a"), refused("b")]).await.unwrap();
    let letters = revived(&spool).await;
    failing.store(true, Ordering::SeqCst);
    spool.requeue(letters.clone()).await.unwrap_err();
    assert_eq!(counted(&spool).await, ["a", "b"]);
    let copy = killed(folder.path());
    failing.store(false, Ordering::SeqCst);
    until_accepted(&spool, || queued(&logs("p"), "x")).await;
    assert_eq!(counted(&spool).await, ["a", "b"]);
    assert_eq!(all_queued(&spool).await, ["x"]);
    assert_eq!(spool.requeue(letters).await.unwrap(), Vec::<u64>::new());
    assert_eq!(all_queued(&spool).await, ["x", "a again", "b again"]);
    spool.close().await;
    let spool = open(folder.path());
    assert_eq!(counted(&spool).await, Vec::<String>::new());
    assert_eq!(all_queued(&spool).await, ["x", "a again", "b again"]);

    // Whether a failed commit reached the disk is open, so after a kill it is the one or the other.
    let spool = open(copy.path());
    let found = (counted(&spool).await.len(), all_queued(&spool).await.len());
    assert!(found == (2, 0) || found == (0, 2), "{found:?}");
}

#[tokio::test]
async fn while_a_letter_cannot_be_removed_nobody_is_shown_it_and_no_start_brings_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, failing) = disk_failing_in("/dead/gen-");
    let spool = Spool::open_on(settings(folder.path()), disk).unwrap();
    spool.append(vec![refused("a"), refused("b")]).await.unwrap();
    let mut letters = revived(&spool).await;
    let kept = letters.pop().unwrap();
    failing.store(true, Ordering::SeqCst);
    spool.requeue(letters.clone()).await.unwrap();
    assert_eq!(all_queued(&spool).await, ["a again"]);
    spool.dead_letters(None, 9).await.unwrap_err();
    spool.requeue(vec![kept.clone()]).await.unwrap_err();
    let copy = killed(folder.path());
    failing.store(false, Ordering::SeqCst);
    assert_eq!(counted(&spool).await, ["b"]);
    assert_eq!(spool.requeue(letters).await.unwrap(), [1]);

    let spool = open(copy.path());
    assert_eq!(counted(&spool).await, ["b"]);
    assert_eq!(all_queued(&spool).await, ["a again"]);
}

#[tokio::test]
async fn a_letter_that_is_removed_stays_dead_in_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    spool
        .append(vec![refused("a"), refused("b"), refused("c")])
        .await
        .unwrap();
    let letters = revived(&spool).await;
    assert_eq!(spool.purge(numbers(&letters[..2])).await.unwrap(), 2);
    assert_eq!(spool.purge(numbers(&letters[..2])).await.unwrap(), 0);
    assert_eq!(spool.requeue(letters[..1].to_vec()).await.unwrap(), [1]);
    spool.close().await;
    let spool = open(folder.path());
    assert_eq!(numbers(&revived(&spool).await), BTreeSet::from([3]));
    let ledger = spool.ledger();
    assert_eq!((ledger.accepted, ledger.dead), (3, 3));
    assert!(ledger.balances());
}

#[tokio::test]
async fn letters_that_find_no_room_stay() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(Settings {
        max_bytes: 10,
        ..settings(folder.path())
    })
    .unwrap();
    spool.append(vec![refused("a long record")]).await.unwrap();
    let error = spool.requeue(revived(&spool).await).await.unwrap_err();
    assert!(matches!(error, AppendError::Full(_)), "{error}");
    assert_eq!(counted(&spool).await, ["a long record"]);
}
