use super::*;
use crate::ids::{IdError, Unfilled};
use proptest::prelude::*;

fn parse(raw: &str) -> Result<Feedback, Refusal> {
    let project = ProjectId::new("proj").expect("valid");
    Feedback::parse(raw.as_bytes(), Some("t1"), Some(&project))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn both_spellings_mean_the_same() {
    let one = parse(r#"{"flag":"failure","source":"user","notes":"n"}"#).expect("flag spelling");
    let other = parse(r#"{"human_eval":"failure","flag_source":"user","notes":"n","flag":null}"#)
        .expect("eval spelling");
    assert_eq!(one, other);
    let both =
        parse(r#"{"flag":"success","human_eval":"success","source":"a","flag_source":"b"}"#).expect("both");
    assert_eq!(
        text(both.upstream_body()),
        r#"{"human_eval":"success","source":"a","project_id":"proj"}"#
    );
}

#[test]
fn what_is_absent_or_null_stays_absent_upstream() {
    let feedback = parse(r#"{"flag":"success","notes":null,"source":null,"extra":[1e400]}"#).expect("valid");
    assert_eq!(
        text(feedback.upstream_body()),
        r#"{"human_eval":"success","project_id":"proj"}"#
    );
    let feedback = parse(r#"{"flag":"success","notes":"","project_id":"own"}"#).expect("valid");
    assert_eq!(
        text(feedback.upstream_body()),
        r#"{"human_eval":"success","notes":"","project_id":"own"}"#
    );
}

#[test]
fn feedback_of_a_project_in_quotes_is_refused_but_read_back_from_disk() {
    let quoted = ProjectId::new("'p'").expect("an id");
    let raw = br#"{"task_id":"t","flag":"success","project_id":"\"p\""}"#;
    for (raw, project) in [
        (&raw[..], None),
        (br#"{"task_id":"t","flag":"success"}"#, Some(&quoted)),
    ] {
        let refusal = Feedback::parse(raw, None, project).expect_err("the project is wrong");
        assert!(refusal.to_string().contains("quotation marks"), "{refusal}");
    }
    let stored = Feedback::from_record(raw).expect("an earlier version stored it");
    assert_eq!(stored.project().as_str(), "\"p\"");
}

#[test]
fn wrong_feedback_is_refused_with_the_field_and_the_remedy() {
    let wanted = "send \"success\" or \"failure\"";
    for (raw, sentence) in [
        ("{}", format!("flag is missing: {wanted}")),
        (r#"{"flag":null}"#, format!("flag is missing: {wanted}")),
        (r#"{"flag":"bad"}"#, format!("flag is another string: {wanted}")),
        (
            r#"{"human_eval":1}"#,
            format!("human_eval is an integer: {wanted}"),
        ),
        (
            r#"{"flag":"success","notes":{}}"#,
            "notes is an object: send a string or null".into(),
        ),
        (
            r#"{"flag":"success","source":1}"#,
            "source is an integer: send a string or null".into(),
        ),
        (
            r#"{"flag":"success","human_eval":"failure"}"#,
            "flag and human_eval contradict each other: send one of them".into(),
        ),
    ] {
        assert_eq!(parse(raw).expect_err(raw).to_string(), sentence, "{raw}");
    }
    assert_eq!(parse("[1]"), Err(Refusal::NotAnObject(JsonKind::List)));
    assert!(matches!(parse("{"), Err(Refusal::Json(_))));
}

#[test]
fn the_task_comes_from_the_url_or_else_the_body_and_undefined_is_refused() {
    let project = ProjectId::new("p").expect("valid");
    let parse = |raw: &str, task| Feedback::parse(raw.as_bytes(), task, Some(&project));
    let body = r#"{"flag":"success","task_id":"body"}"#;
    assert_eq!(parse(body, None).expect("body").task().as_str(), "body");
    assert_eq!(parse(body, Some("url")).expect("url").task().as_str(), "url");
    assert_eq!(
        parse(body, Some("undefined")),
        Err(Refusal::FeedbackTask(IdError::Unfilled(
            "task_id",
            Unfilled::Word("undefined")
        )))
    );
    assert_eq!(
        parse(r#"{"flag":"success","task_id":""}"#, None),
        Err(Refusal::FeedbackTask(IdError::Empty("task_id")))
    );
    for absent in [r#"{"flag":"success"}"#, r#"{"flag":"success","task_id":null}"#] {
        assert!(matches!(
            parse(absent, None),
            Err(Refusal::Missing { field: "task_id", .. })
        ));
    }
}

#[test]
fn feedback_without_any_project_is_told_apart() {
    let refusal = Feedback::parse(br#"{"flag":"success"}"#, Some("t"), None).expect_err("no project");
    assert!(refusal.is_no_project());
}

#[test]
fn feedback_on_a_task_that_no_url_can_name_is_refused_but_read_back_from_disk() {
    for task in ["order/17", "folder/", ".", ".."] {
        let refusal = parse_on(task).expect_err(task);
        assert_eq!(refusal, Refusal::FeedbackTask(IdError::Unaddressable("task_id")));
        assert!(refusal.to_string().contains("no URL of the API"), "{refusal}");
        let record = format!(r#"{{"task_id":"{task}","project_id":"p","flag":"success"}}"#);
        let feedback = Feedback::from_record(record.as_bytes()).expect("it was let in once");
        assert!(!feedback.task().is_addressable());
    }
    for task in ["$TASK_ID", "null", "[object Object]"] {
        let refusal = parse_on(task).expect_err(task);
        assert!(refusal.to_string().contains("variable"), "{task}: {refusal}");
    }
    for task in ["a%2Fb", "a b?c#d", "...", "ü"] {
        assert!(parse_on(task).is_ok(), "{task}");
    }
}

fn parse_on(task: &str) -> Result<Feedback, Refusal> {
    let project = ProjectId::new("proj").expect("valid");
    Feedback::parse(br#"{"flag":"success"}"#, Some(task), Some(&project))
}

#[test]
fn a_task_bears_a_feedback_only_if_all_that_was_given_agrees() {
    let full = parse(r#"{"flag":"success","source":"user","notes":"good"}"#).expect("valid");
    let task = r#"{"flag":"success","notes":"good","human_eval":{"flag":"success"},"last_eval":{"value":"success","source":"user","notes":null}}"#;
    assert!(full.is_borne_by(task.as_bytes()));
    for (from, to) in [
        (r#""value":"success""#, r#""value":"failure""#),
        (r#""source":"user""#, r#""source":"owner""#),
        (r#""notes":"good""#, r#""notes":"bad""#),
        (r#""notes":"good","#, ""),
        (r#""notes":"good""#, r#""notes":null"#),
    ] {
        let other = task.replace(from, to);
        assert_ne!(other, task);
        assert!(!full.is_borne_by(other.as_bytes()), "{other}");
    }
    // Where the API keeps no notes they do not count.
    let within = r#"{"last_eval":{"value":"success","source":"user","notes":"good"}}"#;
    assert!(!full.is_borne_by(within.as_bytes()));
}

#[test]
fn what_a_feedback_leaves_out_is_what_the_api_puts_in_its_place() {
    let bare = parse(r#"{"flag":"success"}"#).expect("valid");
    let owner = r#"{"notes":null,"last_eval":{"value":"success","source":"owner","notes":null}}"#;
    assert!(bare.is_borne_by(owner.as_bytes()));
    // An earlier feedback of somebody else's, and one whose notes this one erases.
    assert!(!bare.is_borne_by(owner.replace("owner", "user").as_bytes()));
    assert!(!bare.is_borne_by(owner.replace(r#"{"notes":null,"#, r#"{"notes":"n","#).as_bytes()));
}

#[test]
fn a_task_without_evaluations_is_judged_by_its_flag() {
    let (full, bare) = (
        parse(r#"{"flag":"success","source":"user","notes":"good"}"#).expect("valid"),
        parse(r#"{"flag":"success"}"#).expect("valid"),
    );
    // The log event's own flag makes no evaluation.
    assert!(!bare.is_borne_by(br#"{"flag":"success","human_eval":{"flag":"success"},"last_eval":null}"#));
    assert!(bare.is_borne_by(br#"{"flag":"success"}"#));
    assert!(bare.is_borne_by(br#"{"flag":null,"human_eval":{"flag":"success"}}"#));
    assert!(!bare.is_borne_by(br#"{"flag":"failure"}"#));
    assert!(!full.is_borne_by(br#"{"flag":"success","notes":"good"}"#));
    assert!(full.is_borne_by(br#"{"notes":"good","human_eval":{"flag":"success","source":"user"}}"#));
    for nonsense in [
        "",
        "null",
        "{}",
        "[]",
        r#"{"flag":1}"#,
        r#"{"last_eval":7,"flag":"success"}"#,
    ] {
        assert!(!bare.is_borne_by(nonsense.as_bytes()), "{nonsense}");
    }
}

/// Ids of any text that is one: not `.`, say, which a random text is now and then.
fn an_id<T: std::fmt::Debug>(parse: fn(&str) -> Result<T, crate::ids::IdError>) -> impl Strategy<Value = T> {
    "[^\\p{Cc}]{1,40}".prop_filter_map("not an id", move |text| parse(&text).ok())
}

proptest! {
    #[test]
    fn a_record_is_read_back_as_it_was(
        task in an_id(TaskId::new),
        project in an_id(ProjectId::new),
        success in any::<bool>(),
        source in proptest::option::of(".*"),
        notes in proptest::option::of(any::<String>()),
    ) {
        let feedback = Feedback {
            task,
            project,
            flag: if success { Flag::Success } else { Flag::Failure },
            source,
            notes,
        };
        prop_assert_eq!(Feedback::from_record(&feedback.to_record()), Some(feedback.clone()));
        let body: serde_json::Value = serde_json::from_slice(&feedback.upstream_body()).expect("JSON");
        prop_assert_eq!(body["notes"].as_str(), feedback.notes.as_deref());
        prop_assert_eq!(body["source"].as_str(), feedback.source.as_deref());
    }

    #[test]
    fn no_bytes_make_parsing_panic(raw in prop::collection::vec(any::<u8>(), 0..100)) {
        prop_assert!(Feedback::parse(&raw, None, None).is_err());
        prop_assert!(Feedback::from_record(&raw).is_none());
    }
}
