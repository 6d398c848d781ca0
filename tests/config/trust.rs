//! Files that others may write or read, and keys where others see them.
use super::{KEY, Stand, refused};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
}

/// The warnings of `config check`, which has to pass.
fn warnings(stand: &Stand, arguments: &[&str]) -> Vec<String> {
    let outcome = stand.run(&[&["config", "check"], arguments].concat());
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let lines = outcome.stdout.lines();
    lines
        .filter_map(|line| line.strip_prefix("warning: "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_file_that_others_may_write_is_refused_by_every_key_that_names_one() {
    let stand = Stand::new()
        .file("config.toml", "")
        .file("named.toml", "")
        .file("key", "0123456789abcdef");
    mode(&stand.path("key"), 0o666);
    for key in [
        "upstream.api_key_file",
        "upstream.projects.p.api_key_file",
        "intake.token_file",
        "redact.hash_key_file",
        "upstream.ca_file",
    ] {
        let hash = ["--set", "redact.detect=ip", "--set", "redact.action=hash"];
        let set = format!("{key}=key");
        let with_hash = [hash.as_slice(), &["--set", &set]].concat();
        let arguments = match key {
            "redact.hash_key_file" => with_hash.as_slice(),
            _ => &with_hash[4..],
        };
        refused(
            &stand,
            arguments,
            &[&[key, "key may be written by other users (mode 0666)", "chmod go-w"]],
        );
    }
    for (file, arguments) in [
        ("config.toml", &[] as &[&str]),
        ("named.toml", &["--config", "named.toml"]),
    ] {
        mode(&stand.path(file), 0o602);
        refused(
            &stand,
            arguments,
            &[&[file, "written by other users (mode 0602)"]],
        );
        mode(&stand.path(file), 0o644);
        mode(&stand.path(""), 0o777);
        refused(
            &stand,
            arguments,
            &[&[file, "through the folder .", "mode 0777", "chmod go-w"]],
        );
        mode(&stand.path(""), 0o700);
        assert_eq!(warnings(&stand, arguments), [""; 0]);
    }
    // What nobody has to write is no file of anybody's.
    assert_eq!(warnings(&stand, &["--config", "/dev/null"]), [""; 0]);
}

#[test]
fn a_folder_that_all_share_has_no_configuration_of_ones_own() {
    let stand = Stand::new().file("config.toml", "no.such = 'key'\n");
    mode(&stand.path(""), 0o1777);
    let lines = warnings(&stand, &[]);
    assert!(
        lines.len() == 1
            && lines[0].starts_with("./config.toml: is not read")
            && lines[0].contains("--config"),
        "{lines:?}"
    );
    // By name it is meant, and in a sticky folder nobody else can replace it.
    refused(&stand, &["--config", "config.toml"], &[&["no.such"]]);
}

#[test]
fn what_the_starting_process_has_opened_is_read_as_it_is() {
    let stand = Stand::new();
    for script in [
        "\"$0\" config show --config <(echo batch.max_events = 7)",
        "echo batch.max_events = 7 | \"$0\" config show --config /dev/stdin",
    ] {
        let output = Command::new("bash")
            .args(["-c", script, env!("CARGO_BIN_EXE_phosphod")])
            .current_dir(stand.path(""))
            .stdin(Stdio::null())
            .output()
            .expect("bash runs");
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        assert!(shown.contains("batch.max_events = 7 "), "{shown}");
    }
}

#[test]
fn a_secret_on_the_command_line_is_refused_or_told() {
    let stand = Stand::new().file("key", KEY);
    let told: &[&str] = &[
        "upstream.api_key (--set)",
        "(ps)",
        "upstream.api_key_file",
        "PHOSPHO_API_KEY",
    ];
    for set in [
        "upstream.api_key=sk-canary-1",
        "upstream={api_key = \"sk-canary-1\"}",
    ] {
        refused(&stand, &["--set", set], &[told]);
        // A later one does not take it off the command line.
        refused(&stand, &["--set", set, "--set", "upstream.api_key="], &[told]);
        let outcome = stand.run(&["run", "--set", set]);
        assert_eq!(outcome.code, Some(78));
        assert!(!outcome.stderr.contains("canary"), "{}", outcome.stderr);
    }
    assert_eq!(warnings(&stand, &["--set", "upstream.api_key="]), [""; 0]);
    let lines = warnings(&stand, &["--set", "upstream.proxy=http://me:canary@proxy:1"]);
    assert!(
        lines.len() == 1 && lines[0].starts_with("upstream.proxy (--set): a password"),
        "{lines:?}"
    );

    let stand = stand.env("PHOSPHO_API_KEY", KEY);
    refused(
        &stand,
        &["--set", "upstream.api_key_file=key"],
        &[&["upstream.api_key (PHOSPHO_API_KEY)", "keep one of the two"]],
    );
}

#[test]
fn a_secret_that_every_user_may_read_is_told() {
    let text = format!("[upstream]\napi_key = '{KEY}'\n");
    let stand = Stand::new()
        .file("config.toml", &text)
        .file("plain.toml", "batch.max_events = 7\n")
        .file("key", "0123456789abcdef");
    let files = ["--config", "plain.toml", "--set", "upstream.api_key_file=key"];
    let files = [&files[..], &["--set", "upstream.projects.p.api_key_file=key"]].concat();
    for (of_folder, of_file, open) in [(0o755, 0o644, true), (0o700, 0o644, false), (0o755, 0o640, false)] {
        mode(&stand.path(""), of_folder);
        mode(&stand.path("config.toml"), of_file);
        mode(&stand.path("key"), of_file);
        let of_file = warnings(&stand, &[]);
        let of_keys = warnings(&stand, &files);
        if !open {
            assert_eq!((of_file.len(), of_keys.len()), (0, 0), "{of_file:?} {of_keys:?}");
            continue;
        }
        assert_eq!(
            of_file,
            ["config.toml: holds a secret (upstream.api_key) and may be read by every user: chmod o-r it"]
        );
        assert_eq!(of_keys.len(), 2, "{of_keys:?}");
        for line in &of_keys {
            assert!(
                line.ends_with("key may be read by every user: chmod o-r it"),
                "{line}"
            );
        }
    }
}
