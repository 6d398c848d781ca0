//! docs/sandbox.md: its commands, and its tables beside the code.

use crate::document::Document;
use crate::support::skip::{missing, skip};
use crate::world::World;
use phosphod::sandbox::{State, Switches};
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_sandbox_page_does_what_it_says() {
    const NAME: &str = "sandbox_page::every_command_of_the_sandbox_page_does_what_it_says";
    if let Some(why) = missing(&[("curl", "curl")]) {
        return skip(NAME, &why);
    }
    let mut page = Document::read("docs/sandbox.md");
    let world = World::new();
    let start = page.take(
        "The sandbox",
        "sh",
        &[
            ("127.0.0.1:4711", "127.0.0.1:0"),
            ("127.0.0.1:4712", "127.0.0.1:0"),
            ("phosphod sandbox", "exec phosphod sandbox"),
        ],
    );
    let sandbox = world.sandbox(&start);
    let control = [("http://127.0.0.1:4712", sandbox.control.as_str())];
    let commands = page.take("The sandbox", "sh", &control);
    page.finish();

    let api = &sandbox.api;
    world
        .run(&format!(
            "curl {api}/v2/log/my-project -H 'Authorization: Bearer k' --json \
             '{{\"batched_log_events\": [{{\"input\": \"x\", \"task_id\": \"task-1\"}}]}}'\n\
             curl {api}/v2/tasks/task-1/flag -H 'Authorization: Bearer k' --json '{{\"flag\": \"success\"}}'"
        ))
        .await;
    sandbox.stored("x").await;
    let answers = world.run(&commands).await;
    let answers: Vec<Value> = answers
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {answers}")))
        .collect();
    let [
        state,
        tasks,
        task,
        evals,
        logs,
        waited,
        off,
        failing,
        down,
        up,
        reset,
    ] = answers.as_slice()
    else {
        panic!("eleven answers: {answers:#?}")
    };
    assert_eq!((&state["stored"], &state["evals"]), (&json!(1), &json!(1)));
    assert_eq!(&tasks[0], task);
    assert_eq!(evals[0]["flag"], "success");
    assert_eq!(logs[0]["duplicate"], false);
    assert_eq!(waited["stored"], 1);
    assert_eq!(off["status"], Value::Null);
    assert_eq!((&failing["status"], &failing["times"]), (&json!(503), &json!(3)));
    assert_eq!(down["down"], true);
    assert_eq!((&up["down"], &up["status"]), (&json!(false), &Value::Null));
    assert_eq!(reset["stored"], 0);
    sandbox.finish().await;
}

/// The first two cells of each row of a table, without their backquotes.
fn rows(table: &str) -> BTreeMap<String, String> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let name = cells.next()?.trim_end_matches('`').to_owned();
        Some((name, cells.next()?.trim_matches('`').to_owned()))
    };
    table.lines().filter_map(row).collect()
}

#[test]
fn the_sandbox_page_names_every_switch_with_its_default_and_every_count() {
    let page = Document::read("docs/sandbox.md");
    let value = |switches: &Switches| serde_json::to_value(switches).expect("JSON");
    let defaults = value(&Switches::default());
    let defaults = defaults.as_object().expect("an object");
    let defaults = defaults
        .iter()
        .map(|(name, value)| (name.clone(), value.to_string()));
    assert_eq!(rows(page.below("Switches")), defaults.collect());

    let counts = serde_json::to_value(State::default()).expect("JSON");
    let counts: Vec<_> = counts.as_object().expect("an object").keys().cloned().collect();
    let documented: Vec<_> = rows(page.below("Counts")).into_keys().collect();
    assert_eq!(documented, counts, "both in the order of their names");
}
