//! Lists, texts and tables in TOML's own form, in variables and `--set`.
use super::{Stand, pair, refused};

#[test]
fn lists_are_taken_in_tomls_form_as_well_as_with_commas() {
    let stand = Stand::new().env(
        "PHOSPHOD__REDACT__DROP_FIELDS",
        "[\"metadata.headers\", 'metadata.ip']",
    );
    for (set, key, value) in [
        (
            "intake.browser.origins=[\"http://localhost:3000\"]",
            "intake.browser.origins",
            "[\"http://localhost:3000\"]",
        ),
        (
            "intake.browser.origins=http://localhost:3000, https://a.example",
            "intake.browser.origins",
            "[\"http://localhost:3000\", \"https://a.example\"]",
        ),
        (
            "intake.unix_allow_uids=[0, 1000]",
            "intake.unix_allow_uids",
            "[\"0\", \"1000\"]",
        ),
        ("intake.unix_admin_uids=[]", "intake.unix_admin_uids", "[]"),
        (
            "redact.detect=[\"email\", \"ip\"]",
            "redact.detect",
            "[\"email\", \"ip\"]",
        ),
        ("redact.detect=\"all\"", "redact.detect", "[\"all\"]"),
        ("batch.max_events=7", "batch.max_events", "7"),
        ("batch.max_age=\"2 s\"", "batch.max_age", "\"2 s\""),
    ] {
        assert_eq!(stand.shown(&["--set", set], key), pair(value, "--set"), "{set}");
    }
    assert_eq!(
        stand.shown(&[], "redact.drop_fields"),
        pair(
            "[\"metadata.headers\", \"metadata.ip\"]",
            "PHOSPHOD__REDACT__DROP_FIELDS"
        )
    );
}

#[test]
fn a_section_is_taken_as_a_table_that_adds_to_what_is_there() {
    let stand = Stand::new().env(
        "PHOSPHOD__REDACT__RULES__TICKET",
        "{ regex = 'T-\\d+', fields = [\"input\"] }",
    );
    let from = "PHOSPHOD__REDACT__RULES__TICKET";
    assert_eq!(
        stand.shown(&[], "redact.rules.ticket.regex"),
        pair("\"T-\\\\d+\"", from)
    );
    assert_eq!(
        stand.shown(&[], "redact.rules.ticket.fields"),
        pair("[\"input\"]", from)
    );
    let set = [
        "--set",
        "redact.rules.ticket.action=drop",
        "--set",
        "redact.rules.ticket={fields = [\"output\"]}",
    ];
    assert_eq!(
        stand.shown(&set, "redact.rules.ticket.action"),
        pair("\"drop\"", "--set")
    );
    assert_eq!(
        stand.shown(&set, "redact.rules.ticket.fields"),
        pair("[\"output\"]", "--set")
    );
    assert_eq!(stand.shown(&set, "redact.rules.ticket.regex").1, from);
    refused(
        &Stand::new(),
        &["--set", "redact.rules.ticket={regx = \"x\"}"],
        &[&["redact.rules.ticket.regx (--set)", "did you mean"]],
    );
}

#[test]
fn what_only_begins_like_toml_is_a_mistake() {
    let stand = Stand::new()
        .env("PHOSPHOD__REDACT__DROP_FIELDS", "[metadata.headers]")
        .file("config.toml", "[redact]\nfields = '[\"input\"]'\n");
    let set = [
        "--set",
        "redact.detect=[\"email\"",
        "--set",
        "intake.browser.origins=\"http://a.example\", \"http://b.example\"",
        "--set",
        "intake.hosts=[logs.internal]",
        "--set",
        "log.level='info",
    ];
    refused(
        &stand,
        &set,
        &[
            &[
                "redact.drop_fields (PHOSPHOD__REDACT__DROP_FIELDS)",
                "is not a list, such as",
            ],
            &["redact.fields (config.toml:2)", "list in quotes"],
            &["redact.detect (--set)", "is not a list"],
            &["intake.browser.origins (--set)", "is not a text"],
            &["intake.hosts (--set)", "is not a list"],
            &["log.level (--set)", "is not a text"],
        ],
    );
}

#[test]
fn a_path_that_cannot_be_one_is_a_mistake_whichever_way_it_comes() {
    let stand = Stand::new().file(
        "config.toml",
        "[redact]\ndrop_fields = [\"metadata['headers']\", \"$.input\"]\n[redact.rules.x]\nregex = \"a\"\nfields = [\"meta*\"]\n",
    );
    refused(
        &stand,
        &["--set", "redact.fields=(input)"],
        &[
            &[
                "redact.drop_fields (config.toml:2)",
                "metadata['headers']",
                "is no path",
            ],
            &["redact.drop_fields (config.toml:2)", "$.input", "is no path"],
            &["redact.rules.x.fields (config.toml:5)", "meta*", "is no path"],
            &["redact.fields (--set)", "(input)", "is no path"],
        ],
    );
}

#[test]
fn small_bounds_alone_are_fine_and_say_what_follows_from_them() {
    let stand = Stand::new().file("config.toml", "spool.max_bytes = \"2 MiB\"\n");
    assert_eq!(stand.run(&["config", "check"]).code, Some(0));
    assert_eq!(
        stand.shown(&[], "intake.max_event_bytes"),
        pair("\"2 MiB\"", "default, from spool.max_bytes")
    );
    assert_eq!(
        stand.shown(&[], "intake.max_in_flight_bytes"),
        pair("\"256 MiB\"", "default")
    );
    // What is no limit of log requests is bound to nothing.
    let small = ["config", "check", "--set", "intake.max_body_bytes=1 MiB"];
    assert_eq!(stand.run(&small).code, Some(0));
    // One round tells all that two settings can be wrong about.
    refused(
        &stand,
        &[
            "--set",
            "intake.max_event_bytes=8 MiB",
            "--set",
            "intake.max_in_flight_bytes=4 MiB",
        ],
        &[
            &[
                "intake.max_event_bytes (--set)",
                "spool.max_bytes, which is 2 MiB (config.toml:1)",
            ],
            &[
                "intake.max_event_bytes (--set)",
                "half of intake.max_in_flight_bytes, which is 4 MiB",
            ],
        ],
    );
}
