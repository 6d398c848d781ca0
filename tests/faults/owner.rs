//! Two daemons, one data folder.

use crate::promises::Promises;
use crate::scale::figure;
use crate::support::daemon::Setup;
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::upstream::Upstream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_names_the_first_and_leaves_it_alone() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let upstream = Upstream::start().await;
    let setup = Setup::new(folder.path(), &upstream.url());
    let first = setup.start().await;
    let load = Load::start(&first.url, "first", 2);
    eventually("some load", || async { (load.count() >= 100).then_some(()) }).await;

    let (code, said) = setup.clone().with("intake.unix", "").fails().await;
    assert_eq!(code, Some(1), "{said}");
    for part in [
        first.pid().to_string().as_str(),
        "in use by another phosphod",
        "spool.path",
    ] {
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }

    let before = load.count();
    eventually("a first one that goes on", || async {
        (load.count() >= before + 100).then_some(())
    })
    .await;
    let mut promises = Promises::default();
    promises.add(load.stop().await);
    first.drained().await;
    promises.are_kept(&upstream);
    figure(&format!(
        "two daemons: the second ended with exit code 1; the first acknowledged {} meanwhile, 0 lost",
        promises.count()
    ));
    drop(first);
    upstream.finish().await;
}
