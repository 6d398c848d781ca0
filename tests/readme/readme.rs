//! README.md, block by block.

use crate::document::Document;
use crate::support::client::Lines;
use crate::support::daemon::Daemon;
use crate::support::skip::{missing, skip};
use crate::systemd;
use crate::world::{SandboxChild, World, finished, printed, tree};
use serde_json::Value;

const NAME: &str = "readme::every_block_of_readme_does_what_it_says";
/// The address that README has for the daemon.
const DAEMON: &str = "http://127.0.0.1:4710";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_block_of_readme_does_what_it_says() {
    if let Some(why) = missing(&[("curl", "curl")]) {
        return skip(NAME, &why);
    }
    let mut readme = Document::read("README.md");
    let said = demo(&mut readme).await;
    with_a_key(&mut readme).await;
    let world = World::new();
    let (sandbox, daemon) = without_a_key(&mut readme, &world).await;

    let python = readme.take("Change one line", "python", &[(DAEMON, &daemon.url)]);
    run_python(&world, &python).await;
    let js = readme.take("Change one line", "js", &[(DAEMON, &daemon.url)]);
    run_node(&world, &js).await;
    curls(&mut readme, &world, &sandbox, &daemon).await;
    lines(&mut readme, &world, &daemon).await;
    next_steps(&said, &world, &sandbox, &daemon).await;
    operations(&mut readme, &world, daemon).await;
    sandbox.finish().await;

    configurations(&mut readme).await;
    systemd::installation(&mut readme);
    readme.finish();
}

/// "60 seconds": the demo, and its output as README has it. Gives all of its output.
async fn demo(readme: &mut Document) -> String {
    let world = World::new();
    let block = readme.take(
        "60 seconds",
        "sh",
        &[
            ("cargo run --release -- demo", "phosphod demo"),
            // This is it.
            ("cargo test", "true"),
        ],
    );
    let mut command = world.script(&block);
    command.env("TMPDIR", world.path("."));
    let said = printed("the demo", &finished("the demo", command).await);
    let shown = readme.take("60 seconds", "", &[]);
    let whole = without_times(&said);
    let mut rest = whole.as_str();
    for part in without_times(&shown).split("[...]") {
        let (_, after) = rest
            .split_once(part.trim())
            .unwrap_or_else(|| panic!("README shows {part:?}, which is not (in this order) in:\n{said}"));
        rest = after;
    }
    said
}

/// In one line, with the durations taken out.
fn without_times(text: &str) -> String {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    for at in 1..words.len() {
        let is_unit = ["ms,", "s."].contains(&words[at]);
        if is_unit && words[at - 1].parse::<f64>().is_ok() {
            words[at - 1] = "N";
        }
    }
    words.join(" ")
}

/// "Run it", with a key; where nothing is sent as nothing is logged, to nowhere all the same.
async fn with_a_key(readme: &mut Document) {
    let world = World::new();
    let line = readme.take(
        "Run it",
        "sh",
        &[(
            "PHOSPHO_API_KEY=",
            "PHOSPHOD__UPSTREAM__BASE_URL=http://127.0.0.1:9 exec env PHOSPHO_API_KEY=",
        )],
    );
    let daemon = world.daemon(&line).await;
    assert_eq!(daemon.ledger().await.accepted, 0);
    assert!(daemon.terminate().await.success());
}

/// "Run it", against the stand-in.
async fn without_a_key(readme: &mut Document, world: &World) -> (SandboxChild, Daemon) {
    let block = readme.take(
        "Run it",
        "sh",
        &[
            ("phosphod sandbox &", "exec phosphod sandbox --listen 127.0.0.1:0"),
            ("PHOSPHO_API_KEY=", "exec env PHOSPHO_API_KEY="),
        ],
    );
    let lines: Vec<&str> = block.lines().collect();
    let [sandbox, run] = lines.as_slice() else {
        panic!("two commands, not {block}")
    };
    let sandbox = world.sandbox(sandbox);
    assert!(run.contains("http://127.0.0.1:4711"), "{run}");
    let daemon = world
        .daemon(&run.replace("http://127.0.0.1:4711", &sandbox.api))
        .await;
    (sandbox, daemon)
}

/// Runs a script that uses the official Python SDK; says so where that is not installed.
async fn run_python(world: &World, script: &str) {
    let python = tree("target/clients/venv/bin/python");
    if !python.exists() {
        return skip(&format!("{NAME} (python)"), "run tests/clients/install.sh");
    }
    let mut command = world.command(python);
    command.args(["-W", "ignore", "-c", script]);
    let output = finished("python", command).await;
    printed(script, &output);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(!complaint.contains("rror"), "{complaint}");
}

/// The same for the npm package.
async fn run_node(world: &World, script: &str) {
    let modules = tree("target/clients/node/node_modules");
    if !modules.join("phospho").exists() || missing(&[("node", "nodejs")]).is_some() {
        return skip(&format!("{NAME} (js)"), "run tests/clients/install.sh");
    }
    let mut command = world.command("node");
    command.args(["-e", script]).env("NODE_PATH", modules);
    let output = finished("node", command).await;
    printed(script, &output);
    assert!(output.stderr.is_empty(), "{output:?}");
}

/// The calls of curl; and that what all the clients sent arrived.
async fn curls(readme: &mut Document, world: &World, sandbox: &SandboxChild, daemon: &Daemon) {
    let block = readme.take("Change one line", "sh", &[(DAEMON, &daemon.url)]);
    let answers = world.run(&block).await;
    let answers: Vec<Value> = answers
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {answers}")))
        .collect();
    let tasks = |at: usize| answers[at]["logged_events"][0]["task_id"].clone();
    assert!(tasks(0).is_string(), "{answers:?}");
    assert_eq!((answers.len(), tasks(1)), (3, "task-1".into()), "{answers:?}");

    let inline = readme.inline(
        "curl --unix-socket data/phosphod.sock http://localhost/log ...",
        &[("...", r#"--json '{"input": "by the socket"}'"#)],
    );
    world.run(&inline).await;
    sandbox.stored("by the socket").await;
    let counts = daemon.drained().await;
    assert_eq!(counts.dead, 0);
    let clients = [
        "target/clients/venv/bin/python",
        "target/clients/node/node_modules/phospho",
    ];
    let clients = clients.iter().filter(|path| tree(path).exists()).count();
    let tasks = sandbox.shows("tasks?project=my-project").await;
    let tasks = tasks.as_array().expect("a list");
    assert_eq!(tasks.len(), 3 + clients, "one of each client: {tasks:#?}");
    let judged = sandbox.shows("evals?task_id=task-1").await;
    assert_eq!(
        (&judged[0]["flag"], &judged[0]["notes"]),
        (&"success".into(), &"right".into())
    );
}

/// NDJSON, and each answer as README has it.
async fn lines(readme: &mut Document, world: &World, daemon: &Daemon) {
    let block = readme.take("Change one line", "", &[]);
    assert_eq!(daemon.unix, world.path("data/phosphod.sock"));
    let mut socket = Lines::connect(&daemon.unix).await;
    for row in block.lines() {
        let (line, documented) = row
            .split_once('→')
            .unwrap_or_else(|| panic!("no answer in {row:?}"));
        let answer = socket.ask(line.trim()).await.to_string();
        let documented: Value = serde_json::from_str(documented).unwrap_or_else(|e| panic!("{e} in {row}"));
        assert_eq!(
            without_ids(&answer),
            without_ids(&documented.to_string()),
            "{row}"
        );
    }
}

/// UUIDs taken out.
fn without_ids(text: &str) -> String {
    let words = text.split('"').map(|word| match uuid::Uuid::parse_str(word) {
        Ok(_) => "UUID",
        Err(_) => word,
    });
    words.collect::<Vec<_>>().join("\"")
}

/// What the demo says in the end: it is for a daemon that runs.
async fn next_steps(said: &str, world: &World, sandbox: &SandboxChild, daemon: &Daemon) {
    let (_, steps) = said.split_once("   Python   ").expect("the lines for Python");
    let (python, curl) = steps.split_once("   curl     ").expect("the line for curl");
    let python = python.replace(DAEMON, &daemon.url);
    assert!(python.contains(&daemon.url), "{python}");
    let dedented: Vec<_> = python
        .lines()
        .map(|line| line.strip_prefix("            ").unwrap_or(line))
        .collect();
    run_python(world, &dedented.join("\n")).await;
    world.run(&curl.replace(DAEMON, &daemon.url)).await;
    sandbox.stored("Hello").await;
}

/// The commands for one event, for dead letters and for the data folder.
async fn operations(readme: &mut Document, world: &World, daemon: Daemon) {
    let heading = "Dead letters, one event's fate, the data folder";
    let block = readme.take(heading, "sh", &[("TASK_ID", "task-1")]);
    let commands: Vec<&str> = block.lines().collect();
    let [event, dead, stopped] = commands.as_slice() else {
        panic!("three commands, not {block}")
    };
    daemon.drained().await;
    let event = world.run(event).await;
    assert!(event.contains("delivered"), "{event}");
    // One line of the NDJSON was invalid.
    let dead = world.run(dead).await;
    assert!(dead.contains("input is missing"), "{dead}");
    assert!(daemon.terminate().await.success());
    let info = world.run(stopped).await;
    assert!(info.contains("delivered"), "{info}");
}

/// Each configuration is one that the daemon takes.
async fn configurations(readme: &mut Document) {
    let world = World::new();
    let spool = world.path("spool");
    let spool = spool.to_str().expect("a temp path is text");
    std::fs::write(world.path("api-key"), "the-key").expect("write");
    let small = readme.take("Configuration", "toml", &[("/var/lib/phosphod", spool)]);
    let browser = readme.take("Feedback from a web page", "toml", &[]);
    let redact = readme.take("Keeping private text out", "toml", &[]);
    for (name, text) in [("small", &small), ("browser", &browser), ("redact", &redact)] {
        std::fs::write(world.path("config.toml"), text).expect("write");
        let mut check = world.script("phosphod config check");
        if name != "small" {
            check.env("PHOSPHO_API_KEY", "k").env("PHOSPHO_PROJECT_ID", "p");
        }
        let said = printed(text, &finished(name, check).await);
        assert!(said.starts_with("ok"), "{name}: {said}");
        // And each of its keys is shown as coming from there.
        let shown = world.run("phosphod config show").await;
        let keys = text
            .lines()
            .filter_map(|line| line.split_once(" = "))
            .map(|(key, _)| key);
        let from_file = shown.lines().filter(|line| line.contains("config.toml")).count();
        assert!(from_file >= keys.count(), "{name}: {shown}");
    }
}
