//! Quotes and blanks that a file of variables passes on as part of the value.
use super::{KEY, Stand, pair, refused};

#[test]
fn quotes_and_blanks_of_a_file_of_variables_are_named_and_refused() {
    let project = "upstream.project_id (PHOSPHO_PROJECT_ID)";
    for (id, what) in [
        ("\"my-project\"", "quotation marks"),
        ("'my-project'", "quotation marks"),
        ("\"my-project", "quotation marks"),
        ("my-project'", "quotation marks"),
        ("my-project ", "blanks"),
        (" my-project", "blanks"),
        ("my-project\u{a0}", "blanks"),
        (" \"my-project\"", "blanks"),
    ] {
        let stand = Stand::new()
            .env("PHOSPHO_API_KEY", KEY)
            .env("PHOSPHO_PROJECT_ID", id);
        refused(&stand, &[], &[&[project, what, "leave them off", "--env-file"]]);
        let run = stand.run(&["run"]);
        assert_eq!(run.code, Some(78), "{id}: {}", run.stderr);
        assert!(run.stderr.contains(project), "{}", run.stderr);
        assert!(stand.names().is_empty(), "nothing is opened or made");
    }
    for key in [format!("\"{KEY}\""), format!("'{KEY}'"), format!("\"{KEY}")] {
        let stand = Stand::new().env("PHOSPHO_API_KEY", &key);
        refused(
            &stand,
            &[],
            &[&[
                "upstream.api_key (PHOSPHO_API_KEY)",
                "quotation marks",
                "leave them off",
            ]],
        );
        assert_eq!(stand.run(&["run"]).code, Some(78));
        assert!(!stand.run(&["config", "check"]).stderr.contains(KEY));
    }
}

#[test]
fn a_project_or_a_key_in_quotes_is_a_mistake_in_files_too() {
    let text = "[upstream]\nproject_id = ' p'\napi_key_file = 'key'\n\
                [upstream.projects.\"'q'\"]\napi_key_file = 'plain'\n[intake]\ntoken_file = 'token'\n";
    let stand = Stand::new()
        .file("config.toml", text)
        .file("plain", &format!(" {KEY} \n"))
        .file("key", &format!("\"{KEY}\"\n"))
        .file("token", "'secret'\n");
    refused(
        &stand,
        &[],
        &[
            &["upstream.project_id (config.toml:2)", "blanks around it"],
            &["upstream.api_key_file (config.toml:3): key has quotation marks around it"],
            &[
                "upstream.projects.\"'q'\".api_key_file (config.toml:5)",
                "quotation marks",
            ],
            &["intake.token_file (config.toml:7): token has quotation marks around it"],
        ],
    );
}

#[test]
fn the_daemons_own_variables_and_arguments_take_a_text_in_quotes_as_toml_does() {
    let stand = Stand::new()
        .env("PHOSPHOD__UPSTREAM__PROJECT_ID", "\"my-project\"")
        .env("PHOSPHOD__UPSTREAM__API_KEY", &format!("'{KEY}'"))
        .env("PHOSPHOD__UPSTREAM__BASE_URL", "\"http://localhost:8000\"");
    let shown = |key, value, origin| assert_eq!(stand.shown(&[], key), pair(value, origin));
    shown(
        "upstream.project_id",
        "\"my-project\"",
        "PHOSPHOD__UPSTREAM__PROJECT_ID",
    );
    shown(
        "upstream.base_url",
        "\"http://localhost:8000\"",
        "PHOSPHOD__UPSTREAM__BASE_URL",
    );
    shown("upstream.api_key", "\"***\"", "PHOSPHOD__UPSTREAM__API_KEY");
    // What stands in the quotes is checked as ever.
    let inner = ["--set", "upstream.project_id=\"my-project \""];
    refused(
        &Stand::new().env("PHOSPHOD__UPSTREAM__API_KEY", "\"'k'\""),
        &inner,
        &[
            &["upstream.project_id (--set)", "blanks around it"],
            &[
                "upstream.api_key (PHOSPHOD__UPSTREAM__API_KEY)",
                "quotation marks around it",
            ],
        ],
    );
}
