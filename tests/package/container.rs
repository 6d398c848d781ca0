//! The Containerfile, as far as it can be tried without an engine that builds it: what it copies, and its health check.

use crate::deb::{run, tree};
use crate::support::daemon::Setup;
use crate::support::skip::{missing, skip, tool};
use std::path::Path;
use std::process::Command;

/// Its instructions, continued lines joined: the word, and what follows it.
fn instructions() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(tree().join("packaging/Containerfile")).expect("the Containerfile");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let parted = joined.lines().filter_map(|line| line.split_once(' '));
    parted
        .map(|(word, rest)| (word.to_owned(), rest.trim().to_owned()))
        .collect()
}

/// What follows a word in the last stage; there is one such line.
fn last(word: &str) -> String {
    let all = instructions();
    let stages = all.iter().rposition(|(word, _)| word == "FROM").expect("a stage");
    let found: Vec<_> = all[stages..].iter().filter(|(found, _)| found == word).collect();
    let [(_, rest)] = found.as_slice() else {
        panic!("{word} stands there {} times", found.len())
    };
    rest.clone()
}

#[test]
fn the_containerfile_copies_all_that_cargo_needs() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let ignored = std::fs::read_to_string(tree().join(".dockerignore")).expect(".dockerignore");
    for (_, rest) in instructions().iter().filter(|(word, _)| word == "COPY") {
        let mut words: Vec<_> = rest.split_whitespace().collect();
        words.pop();
        if words.first().is_some_and(|word| word.starts_with("--from=")) {
            continue;
        }
        for word in words {
            assert!(!ignored.lines().any(|line| line == format!("/{word}")), "{word}");
            run(tool("cp").arg("-r").arg(tree().join(word)).arg(folder.path()));
        }
    }
    let cargo = |words: &[&str]| {
        run(Command::new(env!("CARGO"))
            .args(words)
            .args(["--offline", "--locked"])
            .current_dir(folder.path()))
    };
    // The one reads the lock, the other tells which targets there are; a bench that is not there is none.
    cargo(&["tree", "--depth", "0"]);
    let told = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let packages = told["packages"].as_array().expect("packages");
    let targets = packages
        .iter()
        .flat_map(|package| package["targets"].as_array().expect("targets"));
    let named = |target: &&serde_json::Value| target["kind"][0] == "bin" && target["name"] == "phosphod";
    assert_eq!(targets.clone().filter(named).count(), 1, "{told}");
    for target in targets {
        let source = target["src_path"].as_str().expect("a path");
        assert!(Path::new(source).exists(), "{target}");
    }
}

#[test]
fn the_container_builds_with_a_rust_that_cargo_toml_asks_for_and_runs_as_nobody_in_particular() {
    let all = instructions();
    let manifest = std::fs::read_to_string(tree().join("Cargo.toml")).expect("Cargo.toml");
    let rust = manifest
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = "));
    let rust = rust.expect("a rust-version").trim_matches('"');
    assert!(
        all[0].1.contains(&format!("rust:{rust}-")),
        "{:?} is not Rust {rust}",
        all[0]
    );
    let user = last("USER");
    assert!(
        !user.starts_with('0') && user.starts_with(|c: char| c.is_ascii_digit()),
        "{user}"
    );
    assert_eq!(last("VOLUME"), "/var/lib/phosphod");
    let environment = last("ENV");
    assert!(
        environment.contains("STATE_DIRECTORY=/var/lib/phosphod"),
        "{environment}"
    );
    assert_eq!(last("ENTRYPOINT"), r#"["/usr/bin/phosphod"]"#);
    assert_eq!(last("CMD"), r#"["run"]"#);
}

#[tokio::test]
async fn the_health_check_tells_a_daemon_that_serves_from_one_that_is_gone() {
    const NAME: &str = "the_health_check_tells_a_daemon_that_serves_from_one_that_is_gone";
    if let Some(why) = missing(&[("bash", "bash")]) {
        return skip(NAME, &why);
    }
    let check = last("HEALTHCHECK");
    let (_, check) = check.split_once("CMD ").expect("a command");
    let check: Vec<String> = serde_json::from_str(check).expect("a list of words");
    let folder = tempfile::tempdir().expect("a temp folder");
    let mut daemon = Setup::new(folder.path(), "http://127.0.0.1:9").start().await;
    let port = daemon.url.rsplit(':').next().expect("a port").to_owned();
    let healthy = |path: &str| {
        let words = check
            .iter()
            .map(|word| word.replace("/4710", &format!("/{port}")));
        let words: Vec<_> = words.map(|word| word.replace("/healthz", path)).collect();
        let done = tool(&words[0]).args(&words[1..]).output().expect("it runs");
        done.status.success()
    };
    assert!(healthy("/healthz"), "it serves");
    assert!(!healthy("/nowhere"), "an answer that is no 200 is not enough");
    daemon.kill_hard();
    assert!(!healthy("/healthz"), "it is gone");
}
