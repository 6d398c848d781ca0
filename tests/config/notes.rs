//! What `config check` says of a configuration that is valid.
use super::{KEY, Stand};

fn checked(stand: &Stand, set: &[&str]) -> Vec<String> {
    let arguments: Vec<&str> = set.iter().flat_map(|set| ["--set", set]).collect();
    let outcome = stand.run(&[&["config", "check"], arguments.as_slice()].concat());
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    outcome.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn a_check_says_that_events_are_only_queued_and_that_projects_must_be_named() {
    let lines = checked(&Stand::new(), &[]);
    assert_eq!(
        lines,
        [
            "ok: no file, built-in defaults",
            "note: no API key: events are only queued; set PHOSPHO_API_KEY or upstream.api_key_file",
            "note: no default project: requests must name one (/v2/log/{project_id}, or a project_id in the body); set \
             PHOSPHO_PROJECT_ID or upstream.project_id",
        ]
    );
    let stand = Stand::new()
        .env("PHOSPHO_API_KEY", KEY)
        .env("PHOSPHO_PROJECT_ID", "p");
    assert_eq!(checked(&stand, &[]), ["ok: no file, built-in defaults"]);

    let stand = Stand::new().file("key", KEY);
    let of_another = ["upstream.projects.q.api_key_file=key", "upstream.project_id=p"];
    let lines = checked(&stand, &of_another);
    assert!(
        lines[1].contains("no API key for the default project p"),
        "{lines:?}"
    );
    let own = ["upstream.projects.p.api_key_file=key", "upstream.project_id=p"];
    assert_eq!(checked(&stand, &own).len(), 1);
}

#[test]
fn a_check_warns_of_redaction_that_does_nothing() {
    let stand = Stand::new().env("PHOSPHO_API_KEY", KEY).env("PHOSPHO_PROJECT_ID", "p").file(
        "config.toml",
        "[redact]\ndetect = [\"email\"]\nfields = [\"inptu\", \"output\"]\ndrop_fields = [\"metadata.x\", \"customer\"]\n",
    );
    let lines = checked(&stand, &[]);
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(
        lines[1].starts_with("warning: redact.fields (config.toml:3): \"inptu\"")
            && lines[1].ends_with("did you mean \"input\"?"),
        "{lines:?}"
    );
    assert!(lines[2].starts_with("warning: redact.drop_fields (config.toml:4): \"customer\""));

    let stand = Stand::new()
        .env("PHOSPHO_API_KEY", KEY)
        .env("PHOSPHO_PROJECT_ID", "p");
    let lines = checked(&stand, &["redact.fields=input", "redact.action=drop"]);
    assert_eq!(lines.len(), 3, "{lines:?}");
    for (line, key) in lines[1..].iter().zip(["redact.fields", "redact.action"]) {
        assert!(
            line.starts_with(&format!("warning: {key} (--set): redaction is off all the same")),
            "{line}"
        );
    }
}
