//! `phosphod redact test`: what `[redact]` would take out of events, without a daemon and without storing anything.
use super::table::printable;
use super::terminal::print;
use super::{Configured, FAILED, bad_configuration, tell};
use crate::config;
use crate::redact::{Redactor, Seen, dotted};
use crate::wire::json::{JsonKind, without_mark};
use crate::wire::split::{Element, Form};
use crate::wire::split_whole;
use clap::{Args, Subcommand};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Looking at redaction.
#[derive(Debug, Subcommand)]
pub(super) enum RedactCommand {
    /// Show each text that would be altered, before and after, and what found it.
    Test(TestArgs),
}

/// Arguments of `phosphod redact test`.
#[derive(Debug, Args)]
pub(super) struct TestArgs {
    #[command(flatten)]
    configured: Configured,
    /// One event, a list, {"batched_log_events": [...]}, or NDJSON; - for stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn run(command: RedactCommand) -> ExitCode {
    let RedactCommand::Test(args) = command;
    let settings = match config::load(&args.configured.sources()) {
        Ok(settings) => settings,
        Err(mistakes) => return bad_configuration(&mistakes),
    };
    let told = match settings.redact {
        Some(redactor) => read(&args.file).and_then(|bytes| told(&redactor, &bytes)),
        None => Err(
            "redaction is off: write detect = \"all\" below [redact], or try it out with --set redact.detect=all"
                .to_owned(),
        ),
    };
    match told {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(sentence) => {
            tell(&format!("phosphod redact: {sentence}"));
            ExitCode::from(FAILED)
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let read = match path == Path::new("-") {
        true => {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
        }
        false => std::fs::read(path),
    };
    read.map_err(|error| {
        format!(
            "{} cannot be read ({error}): name a file that can",
            path.display()
        )
    })
}

/// One event of the file.
struct Sample<'a> {
    /// `event 3`, or `line 3` of NDJSON.
    name: String,
    json: &'a [u8],
}

/// The events of a file, whatever form it has.
fn samples(bytes: &[u8]) -> Result<Vec<Sample<'_>>, String> {
    let bytes = without_mark(bytes);
    let whole = match split_whole(bytes, Form::Any, usize::MAX, usize::MAX).map(Option::unwrap_or_default) {
        Ok(events) => return whole_events(&events),
        Err(fault) => fault.to_string().replacen("the body", "the file", 1),
    };
    let lines = named("line", bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii));
    let (events, others): (Vec<_>, Vec<_>) = lines
        .into_iter()
        .filter(|line| !line.json.is_empty())
        .partition(|line| is_json(line.json));
    match others.first() {
        None if !events.is_empty() => Ok(events),
        Some(line) if !events.is_empty() => {
            Err(format!("{} is not JSON: mend it, or leave it out", line.name))
        }
        _ => Err(format!("{whole}, or NDJSON")),
    }
}

/// Those of a file that is no NDJSON.
fn whole_events<'a>(events: &[Element<'a>]) -> Result<Vec<Sample<'a>>, String> {
    let samples = named("event", events.iter().map(|event| event.text));
    let fault = samples.iter().find_map(|sample| {
        let Ok(text) = std::str::from_utf8(sample.json) else {
            return Some(format!("{} is not UTF-8: save it as UTF-8", sample.name));
        };
        let fault = JsonKind::of_text(text).err()?;
        Some(format!("{} is {fault}: mend it, or leave it out", sample.name))
    });
    fault.map_or(Ok(samples), Err)
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(text).is_ok()
}

fn named<'a>(what: &str, parts: impl Iterator<Item = &'a [u8]>) -> Vec<Sample<'a>> {
    let named = parts.enumerate().map(|(n, json)| Sample {
        name: format!("{what} {}", n + 1),
        json,
    });
    named.collect()
}

/// All of it for people.
fn told(redactor: &Redactor, bytes: &[u8]) -> Result<String, String> {
    let samples = samples(bytes)?;
    let names: Vec<&str> = redactor.names().collect();
    let mut text = String::new();
    let mut counts = BTreeMap::new();
    let mut altered = 0;
    for sample in &samples {
        let mut lines = String::new();
        let found = redactor.apply_and_tell(sample.json, &mut |seen| {
            tell_of(&seen, &names, &mut counts, &mut lines)
        });
        altered += usize::from(found.is_some());
        let heading = match found {
            Some(_) => sample.name.clone(),
            None => format!("{}: nothing found", sample.name),
        };
        // Writing to a string cannot fail.
        let _ = write!(text, "{heading}\n{lines}");
    }
    let sum: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    let sum = if sum.is_empty() {
        "nothing".to_owned()
    } else {
        sum.join(", ")
    };
    let _ = writeln!(text, "{altered} of {} altered: {sum}", samples.len());
    Ok(text)
}

/// A few lines about one text.
fn tell_of<'n>(seen: &Seen<'_>, names: &[&'n str], counts: &mut BTreeMap<&'n str, u64>, lines: &mut String) {
    let mut count = |name: &'n str| *counts.entry(name).or_default() += 1;
    let _ = match seen {
        Seen::Dropped { path } => {
            let dropped = names.last().copied().unwrap_or_default();
            count(dropped);
            writeln!(lines, "  {}: dropped ({dropped})", printable(&dotted(path)))
        }
        Seen::Masked {
            path,
            before,
            after,
            rules,
        } => {
            let mut found: Vec<&'n str> = rules
                .iter()
                .filter_map(|rule| names.get(*rule).copied())
                .collect();
            for name in &found {
                count(name);
            }
            found.dedup();
            let place = if path.is_empty() {
                "(the event itself)".to_owned()
            } else {
                dotted(path)
            };
            writeln!(
                lines,
                "  {}: {}\n    before  {}\n    after   {}",
                printable(&place),
                found.join(", "),
                printable(before),
                printable(after)
            )
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::{Detector, FieldPath, Rules};

    fn of(text: &str) -> Result<String, String> {
        let rules = Rules {
            detect: Detector::ALL.to_vec(),
            drop_fields: vec![FieldPath::parse_dropped("metadata.secret").expect("a path")],
            ..Rules::default()
        };
        told(&Redactor::new(rules).expect("rules"), text.as_bytes())
    }

    #[test]
    fn every_text_is_shown_before_and_after_with_what_found_it() {
        let event = r#"{"input":"Mail a@b.co\nor c@d.co, +33 612345678","metadata":{"secret":1,"l":["x","10.0.0.1"]}}"#;
        let shown = "  input: email, phone\n    before  Mail a@b.co\\nor c@d.co, +33 612345678\n    \
                     after   Mail [email]\\nor [email], [phone]\n  metadata.secret: dropped (drop_fields)\n  \
                     metadata.l.1: ip\n    before  10.0.0.1\n    after   [ip]\n";
        let sum = "drop_fields 1, email 2, ip 1, phone 1";
        assert_eq!(of(event), Ok(format!("event 1\n{shown}1 of 1 altered: {sum}\n")));
        for several in [
            format!("[{{}},{event}]"),
            format!("{{\"batched_log_events\":[{{}},{event}]}}"),
        ] {
            let told = format!("event 1: nothing found\nevent 2\n{shown}1 of 2 altered: {sum}\n");
            assert_eq!(of(&several), Ok(told));
        }
        let lines = format!("{{}}\n\n{event}\n");
        assert_eq!(
            of(&lines),
            Ok(format!(
                "line 1: nothing found\nline 3\n{shown}1 of 2 altered: {sum}\n"
            ))
        );
        assert_eq!(
            of("{}"),
            Ok("event 1: nothing found\n0 of 1 altered: nothing\n".into())
        );
    }

    #[test]
    fn a_file_that_holds_no_events_says_what_was_expected() {
        for (text, told) in [
            ("", "the file is empty"),
            ("{\"input\":", "or NDJSON"),
            ("{}\nno\n", "line 2 is not JSON"),
        ] {
            let error = of(text).expect_err(text);
            assert!(error.contains(told), "{error}");
        }
    }
}
