//! A limit on memory under which the kernel kills the daemon.

use crate::cgroup::Cgroup;
use crate::promises::Promises;
use crate::scale::{Dice, figure, rounds};
use crate::support::daemon::Setup;
use crate::support::eventually;
use crate::support::load::{Load, Shape};
use crate::support::skip::skip;
use crate::support::upstream::Upstream;
use std::os::unix::process::ExitStatusExt;

/// Small events to be promised something.
const STEADY: Shape = Shape {
    project: "load",
    clients: 4,
    events: 3,
    filler: 100,
};
/// Large requests that take memory.
const PRESSING: Shape = Shape {
    project: "pressing",
    clients: 8,
    events: 20,
    filler: 100_000,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_oom_killer_ends_loses_nothing() {
    const NAME: &str = "what_the_oom_killer_ends_loses_nothing";
    let group = match Cgroup::make() {
        Ok(group) => group,
        Err(why) => return skip(NAME, &why),
    };
    let rounds = rounds(5, 50);
    let mut dice = Dice::of(NAME);
    let folder = tempfile::tempdir().expect("a temp folder");
    let upstream = Upstream::start().await;
    let setup = Setup::new(folder.path(), &upstream.url()).through(&group.entering());
    let mut daemon = setup.start().await;
    let mut promises = Promises::with_filler(STEADY.filler);
    for round in 0..rounds {
        upstream.switch(serde_json::json!({"down": round % 2 == 1})).await;
        let load = Load::shaped(&daemon.url, &format!("m{round}"), STEADY);
        let enough = dice.random.u64(100..1_000);
        eventually("some load", || async { (load.count() >= enough).then_some(()) }).await;
        group.squeeze(dice.random.u64(0..4) * 1024 * 1024);
        let pressing = Load::shaped(&daemon.url, &format!("p{round}"), PRESSING);
        let status = daemon.exited().await;
        assert_eq!(status.signal(), Some(9), "only the kernel ends it: {status}");
        assert_eq!(group.killed(), round as u64 + 1);
        group.relax();
        promises.add(load.stop().await);
        pressing.stop().await;
        daemon = setup.start().await;
        promises.are_accounted_for(&daemon, &upstream).await;
    }
    upstream.switch(serde_json::json!({"down": false})).await;
    daemon.drained().await;
    promises.are_kept(&upstream);
    figure(&format!(
        "memory limit: {rounds} rounds, killed by the kernel {} times, {} acknowledged, 0 lost",
        group.killed(),
        promises.count()
    ));
    drop(daemon);
    upstream.finish().await;
}
