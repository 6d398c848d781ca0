//! docs/operations.md: its commands.

use crate::document::Document;
use crate::support::daemon::Daemon;
use crate::support::skip::{missing, skip};
use crate::support::{client, eventually};
use crate::world::World;
use serde_json::{Value, json};

/// Nothing listens there, so what is logged stays queued.
const NOWHERE: &str =
    "PHOSPHO_API_KEY=k PHOSPHO_PROJECT_ID=p exec phosphod run --set upstream.base_url=http://127.0.0.1:9";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_operations_page_does_what_it_says() {
    const NAME: &str = "operations::every_command_of_the_operations_page_does_what_it_says";
    if let Some(why) = missing(&[("curl", "curl")]) {
        return skip(NAME, &why);
    }
    let mut page = Document::read("docs/operations.md");
    let world = World::new();
    let daemon = world.daemon(NOWHERE).await;
    over_http(&mut page, &world, &daemon).await;
    let queued = daemon.ledger().await.queued;
    assert!(queued > 0);
    assert!(daemon.terminate().await.success());
    moving(&mut page, &world, queued).await;
    page.finish();
}

async fn over_http(page: &mut Document, world: &World, daemon: &Daemon) {
    let body = r#"[{"input": "x", "task_id": "mine"}, {"input": 1, "task_id": "bad"}]"#;
    let any = reqwest::Client::new();
    let reply = client::post(&any, &format!("{}/log", daemon.url), body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let letters = eventually("a dead letter", || async {
        let unix = client::unix(&daemon.unix);
        let letters = client::send(unix.get("http://localhost/dead_letters"))
            .await
            .json();
        letters.get(0).is_some().then_some(letters)
    })
    .await;
    let number = letters[0]["number"].to_string();
    let block = page.take("Over HTTP", "sh", &[("7", &number), ("TASK_ID", "mine")]);
    let answers = world.run(&block).await;
    let answers: Vec<Value> = answers
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {answers}")))
        .collect();
    let [all, one, requeued, event] = answers.as_slice() else {
        panic!("four answers: {answers:#?}")
    };
    assert_eq!(
        (&all[0]["number"], &one["number"]),
        (&letters[0]["number"], &letters[0]["number"])
    );
    // It is as invalid as it was.
    assert_eq!(
        (&requeued["done"], &requeued["failed"]),
        (&json!(0), &json!(1)),
        "{requeued}"
    );
    assert!(event.to_string().contains("queued"), "{event}");
}

/// A backlog moves to another machine, which is another folder here.
async fn moving(page: &mut Document, world: &World, queued: u64) {
    let block = page.take(
        "The data folder without the daemon",
        "sh",
        &[(
            "phosphod run",
            "exec env PHOSPHO_API_KEY=k phosphod run --set upstream.base_url=http://127.0.0.1:9",
        )],
    );
    let (export, import) = block.split_once("\n").expect("two commands");
    world.run(export).await;
    let other = World::new();
    let exported = world.path("backlog.ndjson");
    std::fs::rename(&exported, other.path("backlog.ndjson")).expect("on one disk");
    let daemon = other.daemon(import).await;
    assert_eq!(daemon.ledger().await.queued, queued);
    under_a_wrong_id(page, &other, queued).await;
    assert!(daemon.terminate().await.success());
}

/// What is queued goes to another project, through the running daemon.
async fn under_a_wrong_id(page: &mut Document, world: &World, queued: u64) {
    let names = [("WRONG", "p"), ("RIGHT", "q")];
    let block = page.take("Events under a wrong project id", "sh", &names);
    // Nothing answers, so a batch waits to be sent again.
    let said = world.run(&block).await;
    assert_eq!(
        said,
        format!("moved {queued} log events and 0 feedback from p to q\n")
    );
}
