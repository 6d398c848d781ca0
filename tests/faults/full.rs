//! A disk that fills up: 64 MB of ext4 under the data folder.

use crate::image::Image;
use crate::promises::Promises;
use crate::scale::figure;
use crate::support::client::{self, batch};
use crate::support::daemon::Setup;
use crate::support::eventually;
use crate::support::load::{Load, Shape, event};
use crate::support::skip::{missing, skip};
use crate::support::upstream::Upstream;
use serde_json::{Value, json};
use std::time::Instant;

const SHAPE: Shape = Shape {
    project: "load",
    clients: 4,
    events: 10,
    filler: 4_000,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_with_a_floor_refuses_keeps_and_resumes() {
    const NAME: &str = "a_full_disk_with_a_floor_refuses_keeps_and_resumes";
    fills_and_recovers(NAME, "8 MiB").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_without_a_floor_refuses_keeps_and_resumes() {
    const NAME: &str = "a_full_disk_without_a_floor_refuses_keeps_and_resumes";
    fills_and_recovers(NAME, "0 B").await;
}

async fn fills_and_recovers(name: &str, floor: &str) {
    if let Some(why) = missing(&[("mkfs.ext4", "e2fsprogs")]) {
        return skip(name, &why);
    }
    // No blocks kept for root, who may be running this.
    let image = match Image::make(&["mkfs.ext4", "-q", "-m", "0"], 64) {
        Ok(image) => image,
        Err(why) => return skip(name, &why),
    };
    let upstream = Upstream::start().await;
    upstream.switch(json!({"down": true})).await;
    let mut setup = Setup::new(image.beside(), &upstream.url()).with("spool.min_free_bytes", floor);
    setup.data = image.path().join("data");
    let mut daemon = setup.start().await;
    let mut promises = Promises::with_filler(SHAPE.filler);

    let load = Load::shaped(&daemon.url, "filling", SHAPE);
    refused(&load).await;
    promises.add(load.stop().await);
    let filled = promises.count();
    daemon.kill_hard();
    daemon = setup.start().await;
    promises.are_accounted_for(&daemon, &upstream).await;

    // Still full after the restart, and it says so in every way.
    let load = Load::shaped(&daemon.url, "insisting", SHAPE);
    refused(&load).await;
    let status = daemon.status().await;
    assert!(status["spool"]["refusing"].is_string(), "{status}");
    refused_with_retry_after(&daemon.url).await;

    let before = load.count();
    upstream.switch(json!({"down": false})).await;
    let up = Instant::now();
    eventually("intake that resumed by itself", || async {
        (load.count() > before).then_some(())
    })
    .await;
    let resumed = up.elapsed();
    eventually("intake that goes on", || async {
        (load.count() >= before + 1_000).then_some(())
    })
    .await;
    promises.add(load.stop().await);
    daemon.drained().await;
    promises.are_kept(&upstream);
    let recovered = up.elapsed();
    let status = daemon.status().await;
    assert_eq!(status["spool"]["refusing"], Value::Null, "{status}");
    figure(&format!(
        "disk full, min_free_bytes = {floor}: {filled} acknowledged until full, restarted while full, accepting again \
         {:.1} s after the upstream came back, drained after {:.1} s; {} acknowledged, 0 lost",
        resumed.as_secs_f32(),
        recovered.as_secs_f32(),
        promises.count()
    ));
    drop(daemon);
    upstream.finish().await;
}

/// Waits until the load is refused, each time with 503 and a reason.
async fn refused(load: &Load) {
    let refusals = eventually("refusals", || async {
        let refusals = load.refusals();
        (refusals.requests >= 20).then_some(refusals)
    })
    .await;
    for (status, reason) in refusals.answers {
        assert_eq!(status, 503, "{reason}");
        assert!(
            reason.contains("disk") || reason.contains("spool"),
            "a reason with a remedy: {reason:?}"
        );
    }
}

/// One request is told when to come back.
async fn refused_with_retry_after(url: &str) {
    let http = reqwest::Client::new();
    let url = format!("{url}/v2/log/over");
    let events: Vec<String> = (0..200)
        .map(|n| event(&format!("over-{n}"), SHAPE.filler).to_string())
        .collect();
    // On the brim a request may still fit.
    let reply = eventually("a refusal", || async {
        let reply = client::post(&http, &url, batch(&events)).await;
        (reply.status != 200).then_some(reply)
    })
    .await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(reply.headers.contains_key("retry-after"), "{reply:?}");
}
