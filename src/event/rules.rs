//! Which types the API takes in which field of a log event (contract.md section 1).
use super::Refusal;
use crate::wire::json::{self, JsonKind};
use serde_json::value::RawValue;

/// The fields that are checked, in the order of [`ALL`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Field {
    ProjectId = 2,
    TaskId = 3,
    ClientCreatedAt = 5,
    CreatedAt = 6,
    LastUpdate = 7,
    SessionId = 8,
}

/// What may stand in a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// A string, and it must be there.
    RequiredText,
    /// A string if there at all; null is refused.
    Text,
    /// A string or null.
    TextOrNull,
    /// An integer if there at all; null is refused.
    Integer,
    /// An integer or null.
    IntegerOrNull,
    /// "success", "failure" or null.
    FlagOrNull,
    /// An object or null.
    ObjectOrNull,
    /// Null, a string, an object, a list of objects or a list of strings.
    RawInput,
    /// The same, and the lists may hold nulls.
    RawOutput,
}

/// One row of the table.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    rule: Rule,
}

const fn row(name: &'static str, rule: Rule) -> Row {
    Row { name, rule }
}

/// The table. Fields that are not in it may hold anything.
pub(super) const ALL: [Row; 19] = [
    row("input", Rule::RequiredText),
    row("output", Rule::TextOrNull),
    row("project_id", Rule::TextOrNull),
    row("task_id", Rule::Text),
    row("environment", Rule::Text),
    row("client_created_at", Rule::Integer),
    row("created_at", Rule::IntegerOrNull),
    row("last_update", Rule::IntegerOrNull),
    row("session_id", Rule::TextOrNull),
    row("user_id", Rule::TextOrNull),
    row("version_id", Rule::TextOrNull),
    row("step_id", Rule::TextOrNull),
    row("test_id", Rule::TextOrNull),
    row("raw_input_type_name", Rule::TextOrNull),
    row("raw_output_type_name", Rule::TextOrNull),
    row("flag", Rule::FlagOrNull),
    row("metadata", Rule::ObjectOrNull),
    row("raw_input", Rule::RawInput),
    row("raw_output", Rule::RawOutput),
];

impl Row {
    /// Whether objects or lists can stand in the field.
    pub(super) fn may_hold_more(&self) -> bool {
        matches!(self.rule, Rule::ObjectOrNull | Rule::RawInput | Rule::RawOutput)
    }
}

/// A key's place in [`ALL`].
pub(super) fn slot(key: &str) -> Option<usize> {
    ALL.iter().position(|row| row.name == key)
}

impl Rule {
    /// What belongs into such a field, in words.
    fn wanted(self) -> &'static str {
        match self {
            Rule::RequiredText => "a string",
            Rule::Text => "a string, or leave it out",
            Rule::TextOrNull => "a string or null",
            Rule::Integer => "whole seconds since 1970 as an integer, or leave it out",
            Rule::IntegerOrNull => "whole seconds since 1970 as an integer, or null",
            Rule::FlagOrNull => "\"success\", \"failure\" or null",
            Rule::ObjectOrNull => "an object or null",
            Rule::RawInput => "null, a string, an object, a list of objects or a list of strings",
            Rule::RawOutput => {
                "null, a string, an object, a list of objects or a list of strings (nulls among them)"
            }
        }
    }

    /// What is wrong with a value, in words; `None` if nothing is.
    fn fault(self, value: &RawValue) -> Option<&'static str> {
        use JsonKind::{Integer, List, Null, Object, String};
        let kind = JsonKind::of(value);
        let fits = match (self, kind) {
            (Rule::FlagOrNull, String) => return flag_fault(value),
            (Rule::RawInput | Rule::RawOutput, List) => return list_fault(value, self == Rule::RawOutput),
            (Rule::RequiredText | Rule::Text | Rule::TextOrNull, String) => true,
            (Rule::Integer | Rule::IntegerOrNull, Integer) => true,
            (Rule::RawInput | Rule::RawOutput, String | Object) => true,
            (Rule::ObjectOrNull, Object) => true,
            (Rule::RequiredText | Rule::Text | Rule::Integer, _) => false,
            (_, Null) => true,
            _ => false,
        };
        (!fits).then(|| kind.as_str())
    }
}

/// Holds a field's value against its row.
pub(super) fn check(row: &Row, value: Option<&RawValue>) -> Result<(), Refusal> {
    let field = row.name;
    let wanted = row.rule.wanted();
    match value {
        None if row.rule == Rule::RequiredText => Err(Refusal::Missing { field, wanted }),
        None => Ok(()),
        Some(value) => match row.rule.fault(value) {
            Some(came) => Err(Refusal::WrongType { field, came, wanted }),
            None => Ok(()),
        },
    }
}

fn flag_fault(value: &RawValue) -> Option<&'static str> {
    match json::text_of(value).as_deref() {
        Some("success" | "failure") => None,
        _ => Some("another string"),
    }
}

/// The API tells a list of objects from a list of strings, and takes no mixture.
fn list_fault(list: &RawValue, nulls_allowed: bool) -> Option<&'static str> {
    let (mut objects, mut strings, mut nulls, mut others) = (false, false, false, false);
    let read = json::for_each_kind(list, |kind| match kind {
        JsonKind::Object => objects = true,
        JsonKind::String => strings = true,
        JsonKind::Null => nulls = true,
        _ => others = true,
    });
    match (objects, strings) {
        _ if others || read.is_err() => Some("a list that holds neither objects nor strings"),
        (true, true) => Some("a list that mixes objects and strings"),
        _ if nulls && !nulls_allowed => Some("a list that holds null"),
        _ => None,
    }
}
