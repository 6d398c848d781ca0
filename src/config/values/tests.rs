use super::super::keys::KEYS;
use super::*;

fn read_as(path: &str, written: impl Into<ValueKind>) -> Result<Datum, String> {
    let key = KEYS.iter().find(|key| key.path == path).expect("a known key");
    read(key, &written.into())
}

#[test]
fn every_default_is_a_valid_value() {
    for key in KEYS {
        if let Default::Text(text) | Default::Bare(text) = key.default {
            let datum = read(key, &text.into()).unwrap_or_else(|why| panic!("{}: {why}", key.path));
            assert_eq!(show(key, &datum), key.default.documented());
        }
    }
}

#[test]
fn values_of_each_kind_are_read_from_toml_and_from_text() {
    assert_eq!(read_as("batch.max_events", 7_i64), Ok(Datum::Number(7)));
    assert_eq!(read_as("batch.max_events", "7"), Ok(Datum::Number(7)));
    assert_eq!(read_as("batch.max_bytes", 4096_i64), Ok(Datum::Number(4096)));
    assert_eq!(read_as("intake.unix_mode", "0660"), Ok(Datum::Number(0o660)));
    assert_eq!(read_as("intake.unix_group", "root"), Ok(Datum::Number(0)));
    assert_eq!(read_as("intake.http", ""), Ok(Datum::Nothing));
    assert_eq!(read_as("delivery.confirm", "false"), Ok(Datum::Flag(false)));
    assert_eq!(
        read_as("log.level", "warn,phosphod=debug"),
        Ok(Datum::Text("warn,phosphod=debug".into()))
    );
}

#[test]
fn a_wrong_value_is_told_with_what_was_expected() {
    for (path, written, part) in [
        (
            "batch.max_events",
            ValueKind::from("many"),
            "a whole number of events from 1 to 10000",
        ),
        ("batch.max_events", 0_i64.into(), "the number 0"),
        ("batch.max_bytes", "4 M".into(), "KiB, MiB"),
        ("batch.max_bytes", "1 TiB".into(), "from 1 KiB to 64 MiB"),
        (
            "batch.max_age",
            500_i64.into(),
            "for example max_age = \"500 ms\"",
        ),
        ("intake.unix_mode", 660_i64.into(), "\"0660\" in quotes"),
        ("intake.unix_mode", "0888".into(), "\"0660\" in quotes"),
        ("intake.unix_group", "no such group".into(), "/etc/group"),
        ("intake.http", "localhost".into(), "127.0.0.1:4710"),
        ("delivery.confirm", "maybe".into(), "true or false"),
        (
            "spool.on_full",
            "drop_newest".into(),
            "\"reject\", \"drop_oldest\"",
        ),
        ("log.level", "inof".into(), "write info"),
        ("log.level", "phosphod=inof".into(), "write info"),
        ("log.format", "xml".into(), "\"auto\", \"text\", \"json\""),
    ] {
        let why = read_as(path, written).expect_err(path);
        assert!(why.contains(part), "{path}: {why}");
    }
}

#[test]
fn secrets_and_passwords_do_not_show() {
    let why = read_as("upstream.api_key", "sk 1\n2").expect_err("a line break");
    assert!(!why.contains("sk"), "{why}");
    assert_eq!(
        without_secrets("http://me:pw@proxy:80/a@b"),
        "http://***@proxy:80/a@b"
    );
    assert_eq!(without_secrets("me:p@w@proxy"), "***@proxy");
    assert_eq!(without_secrets("http://host/a?k=s#t"), "http://host/a?***");
    assert_eq!(without_secrets("host#s"), "host#***");
    assert_eq!(without_secrets("http://host/?"), "http://host/?");
    assert_eq!(
        without_secrets("https://api.phospho.ai"),
        "https://api.phospho.ai"
    );
}

#[test]
fn texts_are_quoted_as_toml_wants_it() {
    assert_eq!(quote("a\"b\\c\nd"), r#""a\"b\\c\u000Ad""#);
}

#[test]
fn a_long_value_is_told_without_its_password() {
    let url = format!("https://user:{}@host", "hidden".repeat(20));
    let told = read_as("intake.http", url.as_str()).expect_err("no address");
    assert!(
        told.contains("https://***@host") && !told.contains("hidden"),
        "{told}"
    );
}
