//! SIGHUP at a bad moment: what the start read is away, empty, or cannot be read again. Then
//! nothing changes, and the log says why.

use crate::support::daemon::{Daemon, Setup};
use crate::support::upstream::Upstream;
use crate::support::{client, eventually};
use rustix::process::Signal;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

const REFUSED: &str = "configuration not reloaded: nothing has changed";

/// A daemon whose upstream and key stand in a file only, so that without the file nothing would be
/// sent there.
struct World {
    folder: tempfile::TempDir,
    upstream: Upstream,
    setup: Setup,
    text: String,
    sent: u64,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temp folder");
        let upstream = Upstream::start().await;
        let setup = Setup::new(folder.path(), &upstream.url())
            .without("upstream.base_url")
            .without("upstream.api_key");
        let text = format!(
            "[upstream]\nbase_url = \"{}\"\napi_key = \"from-the-file\"\n",
            upstream.url()
        );
        Self {
            folder,
            upstream,
            setup,
            text,
            sent: 0,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A daemon with this file at `name`.
    async fn start(&self, name: &str, arguments: &[&str]) -> Daemon {
        std::fs::write(self.at(name), &self.text).expect("write");
        let mut command = self.setup.command();
        command.args(arguments);
        Daemon::spawn(command).accepting().await
    }

    /// Reloads, which has to be refused for a reason that holds all `parts`, and sees that events
    /// still leave.
    async fn refuses(&mut self, daemon: &mut Daemon, parts: &[&str]) {
        daemon.signal(Signal::HUP);
        let why = daemon.logged(REFUSED).await["why"].to_string();
        for part in parts {
            assert!(why.contains(part), "{part:?} is not in {why}");
        }
        self.still_sends(daemon).await;
    }

    async fn still_sends(&mut self, daemon: &Daemon) {
        let event = json!({"input": "x", "task_id": format!("t{}", self.sent)}).to_string();
        let http = reqwest::Client::new();
        let reply = client::post(&http, &format!("{}/log", daemon.url), event).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        self.sent += 1;
        self.upstream.stored(self.sent).await;
    }
}

#[tokio::test]
async fn a_file_that_is_away_or_empty_changes_nothing() {
    type Spoil = fn(&Path);
    let cases: [(&str, Spoil, &[&str]); 5] = [
        (
            "removed",
            |file| std::fs::remove_file(file).expect("removed"),
            &["not there any more", "put it back", "restart"],
        ),
        (
            "being replaced",
            |file| std::fs::rename(file, file.with_extension("new")).expect("renamed"),
            &["not there any more"],
        ),
        (
            "cut to nothing",
            |file| std::fs::write(file, "").expect("written"),
            &["holds no setting any more", "restart"],
        ),
        (
            "cut within its first comment",
            |file| std::fs::write(file, "# phosphod\n\n[upstream]\n").expect("written"),
            &["holds no setting any more"],
        ),
        (
            "a folder now",
            |file| {
                std::fs::remove_file(file).expect("removed");
                std::fs::create_dir(file).expect("made");
            },
            &["cannot be read"],
        ),
    ];
    // Once found by name, and once by search.
    for named in [true, false] {
        for (what, spoil, parts) in cases {
            let mut world = World::new().await;
            let file = world.at("config.toml");
            let arguments = ["--config", file.to_str().expect("text")];
            let mut daemon = world
                .start("config.toml", if named { &arguments } else { &[] })
                .await;
            spoil(&file);
            println!("{what}, named: {named}");
            world.refuses(&mut daemon, parts).await;
            world.upstream.finish().await;
        }
    }
}

#[tokio::test]
async fn what_a_pipe_gave_once_is_not_asked_for_again() {
    let mut world = World::new().await;
    std::fs::write(world.at("good"), &world.text).expect("write");
    // A process substitution is a pipe under a name of its own.
    let script = "exec \"$0\" \"$@\" --config <(cat good)";
    world.setup = world.setup.through(&["bash", "-c", script]);
    let mut daemon = Daemon::spawn(world.setup.command()).accepting().await;
    world
        .refuses(&mut daemon, &["pipe", "only once", "restart the daemon"])
        .await;
    world.upstream.finish().await;
}

#[tokio::test]
async fn a_file_that_became_a_pipe_is_not_waited_for() {
    let mut world = World::new().await;
    let mut daemon = world.start("config.toml", &[]).await;
    let file = world.at("config.toml");
    std::fs::remove_file(&file).expect("removed");
    make_pipe(&file);
    world.refuses(&mut daemon, &["is a pipe now"]).await;
    assert!(daemon.terminate().await.success());
    world.upstream.finish().await;
}

#[tokio::test]
async fn a_key_file_that_is_gone_or_empty_leaves_the_old_key() {
    for spoil in ["gone", "empty"] {
        let mut world = World::new().await;
        let key = world.at("key");
        std::fs::write(&key, "sk-1").expect("write");
        world.text = world
            .text
            .replace("api_key = \"from-the-file\"", "api_key_file = \"key\"");
        let mut daemon = world.start("config.toml", &[]).await;
        match spoil {
            "gone" => std::fs::remove_file(&key).expect("removed"),
            _ => std::fs::write(&key, "\n").expect("written"),
        }
        world
            .refuses(&mut daemon, &["upstream.api_key_file", "key"])
            .await;
        world.upstream.finish().await;
    }
}

#[tokio::test]
async fn a_credential_that_is_gone_or_empty_leaves_the_old_key() {
    for name in ["phospho-api-key", "phospho-api-key.default-project"] {
        for spoil in ["gone", "empty"] {
            let mut world = World::new().await;
            let folder = world.at("credentials");
            std::fs::create_dir(&folder).expect("made");
            std::fs::write(folder.join(name), "sk-1").expect("write");
            world.text = world.text.replace("api_key = \"from-the-file\"\n", "");
            world.setup = world
                .setup
                .env("CREDENTIALS_DIRECTORY", folder.to_str().expect("text"));
            let mut daemon = world.start("config.toml", &[]).await;
            world.still_sends(&daemon).await;
            match spoil {
                "gone" => std::fs::remove_file(folder.join(name)).expect("removed"),
                _ => std::fs::write(folder.join(name), " \n").expect("written"),
            }
            world
                .refuses(&mut daemon, &["api_key_file", name, "gone or empty", "restart"])
                .await;
            world.upstream.finish().await;
        }
    }
}

#[tokio::test]
async fn a_file_that_came_later_is_named_and_not_read() {
    let world = World::new().await;
    // Without a file: all of it by --set.
    let setup = world
        .setup
        .clone()
        .with("upstream.base_url", &world.upstream.url())
        .with("upstream.api_key", "any");
    let mut daemon = setup.start().await;
    std::fs::write(world.at("config.toml"), "nonsense = true\n").expect("write");
    daemon.signal(Signal::HUP);
    let line = daemon
        .logged(
            "a file that was not there at the start is not read by a reload: restart the daemon to use it",
        )
        .await;
    assert_eq!(line["file"], "config.toml", "{line}");
    assert!(
        daemon
            .said()
            .iter()
            .any(|line| line.contains("configuration reloaded")),
        "what it would say of nonsense is not asked"
    );
    world.upstream.finish().await;
}

#[tokio::test]
async fn what_the_last_reload_read_is_what_the_next_one_has_to_find() {
    let mut world = World::new().await;
    // Empty at the start: it may be filled, and emptied no more.
    std::fs::write(world.at("config.toml"), "\n").expect("write");
    let setup = world
        .setup
        .clone()
        .with("upstream.base_url", &world.upstream.url())
        .with("upstream.api_key", "any");
    let mut daemon = setup.start().await;
    daemon.signal(Signal::HUP);
    has_reloaded(&daemon, 1).await;
    std::fs::write(world.at("config.toml"), "[batch]\nmax_events = 7\n").expect("write");
    daemon.signal(Signal::HUP);
    has_reloaded(&daemon, 2).await;
    std::fs::write(world.at("config.toml"), "\n").expect("write");
    world.refuses(&mut daemon, &["holds no setting any more"]).await;
    world.upstream.finish().await;
}

/// Waits for so many reloads in all.
async fn has_reloaded(daemon: &Daemon, times: usize) {
    eventually("a reload", || async {
        let reloaded = |line: &&String| line.contains("configuration reloaded");
        (daemon.said().iter().filter(reloaded).count() == times).then_some(())
    })
    .await;
}

fn make_pipe(at: &Path) {
    let made = Command::new("mkfifo").arg(at).status().expect("mkfifo runs");
    assert!(made.success());
}
