//! Power cuts: the file system under the data folder stops in the middle, and only what was synced is there afterwards.

use crate::image::Image;
use crate::promises::Promises;
use crate::scale::{Dice, figure, rounds};
use crate::support::daemon::Setup;
use crate::support::eventually;
use crate::support::load::Load;
use crate::support::skip::{missing, skip};
use crate::support::upstream::Upstream;

const CLIENTS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_on_ext4_lose_nothing() {
    cuts(
        "power_cuts_on_ext4_lose_nothing",
        "ext4",
        &["mkfs.ext4", "-q"],
        192,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_on_xfs_lose_nothing() {
    // The least that mkfs.xfs makes is 300 MiB.
    cuts("power_cuts_on_xfs_lose_nothing", "xfs", &["mkfs.xfs", "-q"], 320).await;
}

async fn cuts(name: &str, kind: &str, mkfs: &[&str], mib: u64) {
    let cuts = rounds(10, 100);
    let mut dice = Dice::of(name);
    if let Some(why) = missing(&[(mkfs[0], "xfsprogs, e2fsprogs"), ("xfs_io", "xfsprogs")]) {
        return skip(name, &why);
    }
    let mut image = match Image::make(mkfs, mib) {
        Ok(image) => image,
        Err(why) => return skip(name, &why),
    };
    let upstream = Upstream::start().await;
    let mut setup = Setup::new(image.beside(), &upstream.url()).with("spool.min_free_bytes", "16 MiB");
    setup.data = image.path().join("data");
    let mut daemon = setup.start().await;
    let mut promises = Promises::default();
    let mut during = Promises::default();
    for cut in 0..cuts {
        upstream.switch(serde_json::json!({"down": cut % 2 == 1})).await;
        let load = Load::start(&daemon.url, &format!("c{cut}"), CLIENTS);
        let enough = dice.random.u64(0..1_500);
        eventually("some load", || async { (load.count() >= enough).then_some(()) }).await;
        // What is answered while the file system shuts down is counted apart, not asserted: there, fdatasync can return 0
        // for growth of a plain file that is gone afterwards (figures in docs/faults.md).
        promises.add(load.taken());
        image.cut_power();
        // It must notice, and not go on saying 200.
        eventually("a refusal", || async {
            (load.refusals().requests > 0).then_some(())
        })
        .await;
        daemon.kill_hard();
        during.add(load.stop().await);
        image.remount();
        daemon = setup.start().await;
        promises.are_accounted_for(&daemon, &upstream).await;
    }
    upstream.switch(serde_json::json!({"down": false})).await;
    daemon.drained().await;
    promises.are_kept(&upstream);
    figure(&format!(
        "power cut on {kind}: {cuts} cuts, {} acknowledged before, 0 lost, 0 unreadable; {} more during the cuts, {} of them gone",
        promises.count(),
        during.count() - promises.count(),
        during.compare(&upstream).lost.len()
    ));
    drop(daemon);
    upstream.finish().await;
}
