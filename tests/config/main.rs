//! The configuration as its user meets it: the real binary, a clean environment, folders of its own.
#![allow(clippy::expect_used)] // A test's helpers fail by panicking, as it does itself.

mod forms;
mod notes;
mod padding;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const KEY: &str = "sk-canary-5f1d";

/// A folder to run in, and what to run with.
struct Stand {
    folder: TempDir,
    env: Vec<(String, String)>,
}

/// What came of a run.
struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Stand {
    fn new() -> Self {
        Self {
            folder: TempDir::new().expect("a folder"),
            env: Vec::new(),
        }
    }

    fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.folder.path().join(name), text).expect("written");
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        let Output {
            status,
            stdout,
            stderr,
        } = Command::new(env!("CARGO_BIN_EXE_phosphod"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .output()
            .expect("the binary runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Outcome {
            code: status.code(),
            stdout: text(stdout),
            stderr: text(stderr),
        }
    }

    /// The line of a key in `config show`, as value and origin.
    fn shown(&self, arguments: &[&str], key: &str) -> (String, String) {
        let outcome = self.run(&[&["config", "show"], arguments].concat());
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        let line = outcome
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{key} = ")));
        let (value, origin) = line.and_then(|line| line.split_once("  # ")).expect(key);
        (value.trim().to_owned(), origin.to_owned())
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).expect("listed");
        let mut names: Vec<_> = entries
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }
}

fn pair(value: &str, origin: &str) -> (String, String) {
    (value.to_owned(), origin.to_owned())
}

/// Runs `config check`, expects exactly these mistakes, each named by parts of its line, and exit code 78.
fn refused(stand: &Stand, arguments: &[&str], expected: &[&[&str]]) {
    let outcome = stand.run(&[&["config", "check"], arguments].concat());
    assert_eq!(outcome.code, Some(78), "{}", outcome.stderr);
    for parts in expected {
        let told = outcome
            .stderr
            .lines()
            .any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(told, "{parts:?} in\n{}", outcome.stderr);
    }
    assert_eq!(
        outcome.stderr.lines().count(),
        expected.len(),
        "{}",
        outcome.stderr
    );
}

#[test]
fn each_layer_beats_the_one_before() {
    let key = "upstream.base_url";
    let stand = Stand::new();
    assert_eq!(
        stand.shown(&[], key),
        pair("\"https://api.phospho.ai\"", "default")
    );

    let stand = stand.file("config.toml", "[upstream]\nbase_url = 'https://file.example'\n");
    assert_eq!(
        stand.shown(&[], key),
        pair("\"https://file.example\"", "config.toml:2")
    );

    let stand = stand.env("PHOSPHOD__UPSTREAM__BASE_URL", "https://env.example");
    assert_eq!(
        stand.shown(&[], key),
        pair("\"https://env.example\"", "PHOSPHOD__UPSTREAM__BASE_URL")
    );

    let set = ["--set", "upstream.base_url=https://one.example"];
    assert_eq!(stand.shown(&set, key), pair("\"https://one.example\"", "--set"));
    let twice = [set[0], set[1], "--set", "upstream.base_url=https://two.example"];
    assert_eq!(stand.shown(&twice, key), pair("\"https://two.example\"", "--set"));
    // What a later layer does not name stays as it was.
    assert_eq!(stand.shown(&set, "upstream.timeout"), pair("\"30 s\"", "default"));
}

#[test]
fn a_named_file_is_read_in_place_of_the_usual_one() {
    let stand = Stand::new()
        .file("config.toml", "batch.max_events = 1\n")
        .file("other.toml", "batch.max_events = 2\n");
    assert_eq!(stand.shown(&[], "batch.max_events").0, "1");
    assert_eq!(
        stand.shown(&["--config", "other.toml"], "batch.max_events"),
        pair("2", "other.toml:1")
    );
    refused(
        &stand,
        &["--config", "absent.toml"],
        &[&["absent.toml (--config)", "no such file"]],
    );
}

#[test]
fn the_names_that_the_sdks_read_work_and_the_daemons_own_beat_them() {
    let stand = Stand::new()
        .file("config.toml", "upstream.project_id = 'file'\n")
        .env("PHOSPHO_API_KEY", KEY)
        .env("PHOSPHO_PROJECT_ID", "sdk");
    assert_eq!(
        stand.shown(&[], "upstream.api_key"),
        pair("\"***\"", "PHOSPHO_API_KEY")
    );
    assert_eq!(
        stand.shown(&[], "upstream.project_id"),
        pair("\"sdk\"", "PHOSPHO_PROJECT_ID")
    );

    let stand = stand
        .env("PHOSPHOD__UPSTREAM__PROJECT_ID", "own")
        .env("PHOSPHOD__UPSTREAM__API_KEY", "k2");
    assert_eq!(
        stand.shown(&[], "upstream.project_id"),
        pair("\"own\"", "PHOSPHOD__UPSTREAM__PROJECT_ID")
    );
    assert_eq!(
        stand.shown(&[], "upstream.api_key"),
        pair("\"***\"", "PHOSPHOD__UPSTREAM__API_KEY")
    );
}

#[test]
fn every_mistake_is_told_at_once_with_its_place() {
    let text = "[upstream]\nbase_ulr = 'x'\ntimeout = 30\n[batch]\nmax_events = 'many'\nmax_bytes = '4 M'\n\
                [spool]\non_full = 'drop_newest'\n[retry]\nmin = '2 min'\nmax = '1 min'\n[log]\nlevel = 'inof'\n";
    let stand = Stand::new()
        .file("config.toml", text)
        .env("PHOSPHOD__LOG__FORMAT", "xml")
        .env("PHOSPHOD_BATCH_MAX_AGE", "1 s");
    refused(
        &stand,
        &[
            "--set",
            "intake.unix_mode=999",
            "--set",
            "feedback.wait_max=0 s",
            "--set",
            "intake.http=0.0.0.0:1",
        ],
        &[
            &[
                "upstream.base_ulr (config.toml:2)",
                "did you mean upstream.base_url?",
            ],
            &["upstream.timeout (config.toml:3)", "timeout = \"30 s\""],
            &["batch.max_events (config.toml:5)", "\"many\"", "from 1 to 10000"],
            &["batch.max_bytes (config.toml:6)", "\"4 M\"", "MiB"],
            &[
                "spool.on_full (config.toml:8)",
                "\"drop_newest\"",
                "\"drop_oldest\"",
            ],
            &["retry.min (config.toml:10)", "retry.max", "config.toml:11"],
            &["log.level (config.toml:13)", "\"inof\"", "info"],
            &["log.format (PHOSPHOD__LOG__FORMAT)", "\"xml\"", "\"json\""],
            &["PHOSPHOD_BATCH_MAX_AGE", "write PHOSPHOD__BATCH__MAX_AGE"],
            &["intake.unix_mode (--set)", "\"999\"", "0660"],
            &["feedback.wait_max (--set)", "out of bounds", "from 1 s"],
            &[
                "intake.http (--set)",
                "intake.token_file",
                "intake.allow_remote = true",
            ],
        ],
    );
}

#[test]
fn a_malformed_file_is_told_by_line_and_column() {
    let text = format!("[upstream]\nproject_id = 'p'\napi_key = \"{KEY}\n");
    let stand = Stand::new().file("config.toml", &text);
    refused(&stand, &[], &[&["config.toml", "line 3, column", "not TOML"]]);
    assert!(!stand.run(&["config", "check"]).stderr.contains(KEY));
    assert_eq!(stand.run(&["run"]).code, Some(78));
}

#[test]
fn rules_between_keys_are_told() {
    let stand = Stand::new()
        .file("key", KEY)
        .file("empty", " \n")
        .file("no.pem", "text");
    let cases: [(&[&str], &[&str]); 21] = [
        (
            &["upstream.api_key=k", "upstream.api_key_file=key"],
            &["upstream.api_key (--set)", "keep one of the two"],
        ),
        (
            &["intake.http=", "intake.unix="],
            &["intake.http", "intake.unix is off as well"],
        ),
        (
            &["spool.max_bytes=1 MiB", "intake.max_event_bytes=2 MiB"],
            &[
                "intake.max_event_bytes (--set): 2 MiB",
                "spool.max_bytes, which is 1 MiB (--set)",
            ],
        ),
        (
            &["intake.max_in_flight_bytes=9 MiB", "intake.max_event_bytes=5 MiB"],
            &[
                "intake.max_event_bytes",
                "more than half of intake.max_in_flight_bytes",
            ],
        ),
        (
            &["upstream.base_url=http://api.example"],
            &["in the clear", "upstream.allow_insecure"],
        ),
        (
            &["upstream.base_url=https://api.phospho.ai/v2"],
            &["ends in /v2", "leave it off"],
        ),
        (
            &["upstream.project_id=undefined"],
            &["upstream.project_id", "never set"],
        ),
        (
            &["upstream.api_key_file=empty"],
            &["upstream.api_key_file", "is empty"],
        ),
        (&["upstream.ca_file=no.pem"], &["upstream.ca_file", "PEM"]),
        (
            &["upstream.proxy=nonsense"],
            &["upstream.proxy", "http://host:port"],
        ),
        (
            &["upstream.api_key_file=key", "intake.token_file=key"],
            &["intake.token_file", "a token of its own"],
        ),
        (
            &["intake.browser.listen=127.0.0.1:0"],
            &["intake.browser.listen", "intake.browser.origins"],
        ),
        (
            &[
                "intake.browser.listen=127.0.0.1:4710",
                "intake.browser.origins=https://app.example",
            ],
            &["intake.browser.listen", "different ports"],
        ),
        (
            &[
                "intake.browser.listen=0.0.0.0:0",
                "intake.browser.origins=https://app.example",
            ],
            &["intake.browser.listen", "intake.token_file"],
        ),
        (
            &["intake.browser.origins=*"],
            &["intake.browser.origins", "\"*\"", "no *"],
        ),
        (
            &["intake.origins=https://app.example/"],
            &["intake.origins", "write \"https://app.example\""],
        ),
        (
            &["intake.origins=null"],
            &["intake.origins", "not how a browser names"],
        ),
        (&["intake.hosts=*.example"], &["intake.hosts", "\"*.example\""]),
        (
            &["intake.unix_allow_uids=0,nobody"],
            &["intake.unix_allow_uids", "\"nobody\"", "id -u"],
        ),
        (
            &["intake.unix_admin_gids=0,wheel"],
            &["intake.unix_admin_gids", "\"wheel\"", "id -g"],
        ),
        (
            &["intake.unix_allow_gids=[]"],
            &["intake.unix_allow_gids", "is an empty list", "leave it out"],
        ),
    ];
    for (settings, parts) in cases {
        let arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        refused(&stand, &arguments, &[parts]);
    }
}

#[test]
fn what_the_rules_allow_passes() {
    let stand = Stand::new().file("token", "t").file("key", KEY);
    let cases: [&[&str]; 8] = [
        &["upstream.base_url=http://127.0.0.1:8000"],
        &["upstream.base_url=http://[::1]:8000/"],
        &[
            "upstream.base_url=http://api.example",
            "upstream.allow_insecure=true",
        ],
        &[
            "intake.http=0.0.0.0:0",
            "intake.token_file=token",
            "intake.allow_remote=true",
        ],
        &["intake.http="],
        &[
            "intake.browser.listen=[::1]:4714",
            "intake.browser.origins=https://app.example,http://localhost:3000",
        ],
        &[
            "intake.hosts=logs.internal,192.168.1.5,[fe80::1]",
            "intake.unix_allow_uids=0,1000",
        ],
        &["upstream.projects.a.b.api_key_file=key", "intake.unix_group=0"],
    ];
    for settings in cases {
        let arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        let outcome = stand.run(&[&["config", "check"], arguments.as_slice()].concat());
        assert_eq!(outcome.code, Some(0), "{settings:?}: {}", outcome.stderr);
        assert!(outcome.stdout.starts_with("ok"), "{}", outcome.stdout);
    }
    let no_token = [
        "--set",
        "intake.http=0.0.0.0:0",
        "--set",
        "intake.allow_remote=true",
    ];
    refused(&stand, &no_token, &[&["intake.http", "intake.token_file"]]);
}

#[test]
fn a_key_file_that_cannot_be_read_is_named_with_its_remedy() {
    let stand = Stand::new().file("config.toml", "[upstream.projects.p1]\napi_key_file = 'gone'\n");
    let set = ["--set", "upstream.api_key_file=."];
    refused(
        &stand,
        &set,
        &[
            &[
                "upstream.projects.p1.api_key_file (config.toml:2)",
                "gone cannot be read",
                "correct the path",
            ],
            &["upstream.api_key_file (--set)", ". is not a file"],
        ],
    );
}

#[test]
fn a_socket_path_that_the_system_cannot_take_is_told_whichever_way_it_came() {
    let long = "x".repeat(120);
    let stand = Stand::new();
    refused(
        &stand,
        &["--set", &format!("intake.unix=/{long}")],
        &[&["intake.unix (--set)", "121 bytes", "shorter"]],
    );
    let stand = stand.env("XDG_RUNTIME_DIR", &format!("/{long}"));
    refused(
        &stand,
        &[],
        &[&["intake.unix (default, from XDG_RUNTIME_DIR)", "135 bytes"]],
    );
}

#[test]
fn folders_follow_systemd_then_the_session_then_the_data_folder() {
    let stand = Stand::new();
    assert_eq!(stand.shown(&[], "spool.path"), pair("\"./data\"", "default"));
    let set = ["--set", "spool.path=/d"];
    assert_eq!(
        stand.shown(&set, "intake.unix"),
        pair("\"/d/phosphod.sock\"", "default, from spool.path")
    );
    let stand = stand.env("XDG_RUNTIME_DIR", "/xdg");
    assert_eq!(
        stand.shown(&[], "intake.unix"),
        pair("\"/xdg/phosphod.sock\"", "default, from XDG_RUNTIME_DIR")
    );
    let stand = stand
        .env("RUNTIME_DIRECTORY", "/run/a:/run/b")
        .env("STATE_DIRECTORY", "/state");
    assert_eq!(
        stand.shown(&[], "intake.unix"),
        pair("\"/run/a/phosphod.sock\"", "default, from RUNTIME_DIRECTORY")
    );
    assert_eq!(
        stand.shown(&[], "spool.path"),
        pair("\"/state\"", "default, from STATE_DIRECTORY")
    );
    let set = ["--set", "intake.unix=", "--set", "spool.path=/mine"];
    assert_eq!(stand.shown(&set, "intake.unix"), pair("\"\"", "--set"));
    assert_eq!(stand.shown(&set, "spool.path"), pair("\"/mine\"", "--set"));
}

#[test]
fn no_secret_is_ever_printed() {
    let stand = Stand::new()
        .file("key", &format!("{KEY}\n"))
        .file("bad", &format!("{KEY}\nsecond line"));
    let file = format!("[upstream]\napi_key = '{KEY}'\n");
    let stand = stand
        .file("config.toml", &file)
        .file("wrong.toml", &format!("[upstream.api_key]\nx = '{KEY}'\n"));
    let runs: [&[&str]; 7] = [
        &["config", "show"],
        &[
            "config",
            "show",
            "--set",
            "upstream.proxy=http://me:sk-canary-5f1d@proxy:1",
        ],
        &[
            "config",
            "check",
            "--set",
            "upstream.base_url=https://sk-canary-5f1d@api.example",
        ],
        &["config", "check", "--set", "upstream.api_key=sk-canary-5f1d two"],
        &["config", "check", "--set", "upstream.api_key_file=key"],
        &[
            "config",
            "check",
            "--set",
            "upstream.api_key=",
            "--set",
            "upstream.api_key_file=bad",
        ],
        &["config", "show", "--config", "wrong.toml"],
    ];
    for (index, arguments) in runs.iter().enumerate() {
        let outcome = stand.run(arguments);
        assert_eq!(
            outcome.code,
            Some(if index < 2 { 0 } else { 78 }),
            "{arguments:?}: {}",
            outcome.stderr
        );
        let told = outcome.stdout + &outcome.stderr;
        assert!(
            !told.is_empty() && !told.contains("canary"),
            "{arguments:?}: {told}"
        );
    }
}

#[test]
fn what_show_prints_is_toml_that_gives_the_same_again() {
    let stand = Stand::new().file("key", KEY);
    let set = [
        "--set",
        "batch.max_age=90 s",
        "--set",
        "upstream.projects.a.b.api_key_file=key",
    ];
    let first = stand.run(&[&["config", "show"], set.as_slice()].concat());
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let stand = stand.file("again.toml", &first.stdout);
    let second = stand.run(&["config", "show", "--config", "again.toml"]);
    assert_eq!(second.code, Some(0), "{}", second.stderr);
    let values = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| line.split("  #").next().unwrap_or_default().trim().to_owned())
            .collect()
    };
    assert_eq!(values(&first.stdout), values(&second.stdout));
    assert!(
        first
            .stdout
            .contains("upstream.projects.\"a.b\".api_key_file = \"key\""),
        "{}",
        first.stdout
    );
}

#[test]
fn exit_codes_tell_usage_from_configuration() {
    let stand = Stand::new();
    for arguments in [
        &[] as &[&str],
        &["config"],
        &["no-such-command"],
        &["run", "--no-such-flag"],
        &["config", "check", "--set", "no-equals-sign"],
    ] {
        let outcome = stand.run(arguments);
        assert_eq!(outcome.code, Some(2), "{arguments:?}");
        assert!(
            outcome.stderr.contains("Usage") || outcome.stderr.contains("--help"),
            "{}",
            outcome.stderr
        );
    }
    for arguments in [
        &["--help"] as &[&str],
        &["--version"],
        &["run", "--help"],
        &["config", "check"],
    ] {
        assert_eq!(stand.run(arguments).code, Some(0), "{arguments:?}");
    }
    assert_eq!(
        stand.run(&["config", "check", "--set", "no.such=key"]).code,
        Some(78)
    );
}

#[test]
fn nothing_is_opened_or_made_on_a_bad_configuration() {
    let text =
        "batch.max_events = 0\nspool.path = 'data'\nintake.unix = 'd.sock'\nintake.http = '127.0.0.1:0'\n";
    let stand = Stand::new().file("config.toml", text);
    let outcome = stand.run(&["run"]);
    assert_eq!(outcome.code, Some(78));
    assert!(
        outcome.stderr.contains("batch.max_events (config.toml:1)"),
        "{}",
        outcome.stderr
    );
    assert_eq!(stand.names(), ["config.toml"]);
    assert!(!stand.path("data").exists());
}

#[test]
fn the_config_toml_of_this_repository_changes_nothing() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    let text = std::fs::read_to_string(shipped).expect("it is there");
    let plain = Stand::new().run(&["config", "show"]).stdout;
    let with_file = Stand::new()
        .file("config.toml", &text)
        .run(&["config", "show"])
        .stdout;
    let without_head = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(without_head(&plain), without_head(&with_file));
}

#[test]
fn redaction_is_read_from_lists_texts_and_sections() {
    let text = "[redact]\ndetect = [\"ip\", \"email\"]\naction = \"hash\"\nhash_key_file = \"hash.key\"\n\
                [redact.rules.ticket]\nregex = 'T-\\d+@x'\nfields = [\"input\", \"metadata.*\"]\naction = \"drop\"\n";
    let stand = Stand::new()
        .file("config.toml", text)
        .file("hash.key", "0123456789abcdef\n");
    assert_eq!(stand.run(&["config", "check"]).code, Some(0));
    for (key, value, line) in [
        ("redact.detect", "[\"ip\", \"email\"]", 2),
        ("redact.rules.ticket.regex", "\"T-\\\\d+@x\"", 6),
        ("redact.rules.ticket.fields", "[\"input\", \"metadata.*\"]", 7),
    ] {
        assert_eq!(
            stand.shown(&[], key),
            pair(value, &format!("config.toml:{line}")),
            "{key}"
        );
    }
    let stand = stand
        .env("PHOSPHOD__REDACT__DETECT", "email, phone")
        .env("PHOSPHOD__REDACT__RULES__OTHER__REGEX", "x+");
    let from = |name: &str| format!("PHOSPHOD__REDACT__{name}");
    assert_eq!(
        stand.shown(&[], "redact.detect"),
        pair("[\"email\", \"phone\"]", &from("DETECT"))
    );
    assert_eq!(
        stand.shown(&[], "redact.rules.other.regex"),
        pair("\"x+\"", &from("RULES__OTHER__REGEX"))
    );
    let all = stand.shown(&["--set", "redact.detect=all"], "redact.detect");
    assert_eq!(all, pair("[\"all\"]", "--set"));
}

#[test]
fn redaction_that_cannot_be_done_is_told() {
    let text = "[redact]\ndetect = [\"emial\", 7]\n";
    refused(
        &Stand::new().file("config.toml", text),
        &[],
        &[&["redact.detect (config.toml:2)", "a list of texts"]],
    );
    let text = "[redact]\ndetect = [\"emial\"]\nfields = [\"a..b\", \"task_id\"]\ndrop_fields = [\"input\"]\nhash_key_file = \"k\"\n\
                [redact.rules.Ticket]\nregex = \"x\"\n[redact.rules.email]\nregex = \"x\"\n[redact.rules.lone]\naction = \"drop\"\n\
                [redact.rules.typo]\nregx = \"x\"\n";
    let stand = Stand::new().file("config.toml", text).file("k", "short");
    refused(
        &stand,
        &[],
        &[
            &[
                "redact.detect (config.toml:2)",
                "did you mean \"email\"?",
                "[redact.rules.<name>]",
            ],
            &["redact.fields (config.toml:3)", "\"a..b\" has an empty step"],
            &[
                "redact.fields (config.toml:3)",
                "\"task_id\" is what the API tells tasks apart by",
            ],
            &[
                "redact.drop_fields (config.toml:4)",
                "\"input\" cannot be dropped",
            ],
            &[
                "redact.hash_key_file (config.toml:5)",
                "less than 16 bytes",
                "openssl rand -hex 32",
            ],
            &[
                "redact.rules.Ticket.regex (config.toml:7)",
                "\"Ticket\" is no name",
                "lower-case letters",
            ],
            &[
                "redact.rules.email.regex (config.toml:9)",
                "the name \"email\" is taken",
            ],
            &[
                "redact.rules.lone.action (config.toml:11)",
                "write redact.rules.lone.regex",
            ],
            &[
                "redact.rules.typo.regx",
                "unknown key; did you mean redact.rules.<name>.regex?",
            ],
        ],
    );
    for (set, parts) in [
        (
            "redact.rules.a.regex=(",
            &["redact.rules.a.regex (--set)", "unclosed group"],
        ),
        (
            "redact.rules.a.regex=x*",
            &["redact.rules.a.regex (--set)", "fits an empty text"],
        ),
        ("redact.action=mask", &["redact.action (--set)", "\"hash\""]),
    ] {
        refused(&Stand::new(), &["--set", set], &[parts.as_slice()]);
    }
    let hash = ["--set", "redact.detect=all", "--set", "redact.action=hash"];
    refused(
        &Stand::new(),
        &hash,
        &[&["redact.action (--set)", "redact.hash_key_file"]],
    );
}

/// A folder of credentials, as systemd hands them over.
fn credentials(stand: Stand, files: &[(&str, &str)]) -> Stand {
    let folder = stand.path("credentials");
    std::fs::create_dir(&folder).expect("a folder");
    for (name, text) in files {
        std::fs::write(folder.join(name), text).expect("written");
    }
    let folder = folder.to_str().expect("text").to_owned();
    stand.env("CREDENTIALS_DIRECTORY", &folder)
}

#[test]
fn credentials_stand_in_where_nobody_names_a_key_or_a_token() {
    let stand = credentials(
        Stand::new(),
        &[
            ("phospho-api-key", KEY),
            ("phospho-api-key.p.1", KEY),
            ("phosphod-token", "token-1"),
            ("other", "not ours"),
        ],
    );
    let from = "default, from CREDENTIALS_DIRECTORY";
    for (key, name) in [
        ("upstream.api_key_file", "phospho-api-key"),
        ("upstream.projects.\"p.1\".api_key_file", "phospho-api-key.p.1"),
        ("intake.token_file", "phosphod-token"),
    ] {
        let path = stand.path("credentials").join(name);
        assert_eq!(stand.shown(&[], key), pair(&format!("{path:?}"), from));
    }
    let outcome = stand.run(&["config", "show"]);
    assert!(
        !outcome.stdout.contains(KEY),
        "a key is shown: {}",
        outcome.stdout
    );
}

#[test]
fn whatever_is_written_beats_a_credential() {
    let stand = credentials(
        Stand::new().file("key", KEY).file(
            "config.toml",
            "[intake]\ntoken_file = \"\"\n[upstream]\napi_key_file = \"key\"\n",
        ),
        &[("phospho-api-key", "another"), ("phosphod-token", "token-1")],
    );
    assert_eq!(
        stand.shown(&[], "upstream.api_key_file"),
        pair("\"key\"", "config.toml:4")
    );
    assert_eq!(
        stand.shown(&[], "intake.token_file"),
        pair("\"\"", "config.toml:2")
    );

    let stand = credentials(Stand::new(), &[("phospho-api-key", "another")]).env("PHOSPHO_API_KEY", KEY);
    let outcome = stand.run(&["config", "show"]);
    assert_eq!(
        outcome.code,
        Some(0),
        "they do not exclude each other: {}",
        outcome.stderr
    );
    assert!(
        outcome.stdout.contains("# upstream.api_key_file is not set"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn a_credential_that_is_empty_is_no_key_but_no_token_either() {
    let stand = credentials(Stand::new(), &[("phospho-api-key", "\n")]);
    let outcome = stand.run(&["config", "show"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(
        outcome.stdout.contains("# upstream.api_key_file is not set"),
        "{}",
        outcome.stdout
    );
    let stand = credentials(Stand::new(), &[("phosphod-token", "\n")]);
    refused(
        &stand,
        &[],
        &[&[
            "intake.token_file",
            "CREDENTIALS_DIRECTORY",
            "is empty: write the key into it",
        ]],
    );
}
