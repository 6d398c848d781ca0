//! `phosphod spool export`.
use super::{ExitCode, FAILED, Folder, bar, failed, not_looked, tell};
use crate::ids::{Kind, Lane};
use crate::spool::offline::{Look, LookError};
use crate::wire::json::{self, JsonKind};
use clap::Args;
use std::fs::OpenOptions;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Arguments of `phosphod spool export`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    #[command(flatten)]
    folder: Folder,
    /// Only the events of this project
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// Write to a new file (mode 0600) instead of stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the events of the dead letters instead of the queued ones
    #[arg(long)]
    dead: bool,
}

/// Why an export ended early.
enum Ended {
    Unreadable(LookError),
    Unwritten(io::Error),
}

impl From<LookError> for Ended {
    fn from(error: LookError) -> Ended {
        Ended::Unreadable(error)
    }
}

pub(super) fn run(args: ExportArgs) -> Result<ExitCode, ExitCode> {
    let look = args.folder.look()?;
    if let Some(what) = look.damage().first() {
        return Err(failed(&format!(
            "{what}. What is queued is not known for sure: start the daemon on the folder once, which carries over what can be \
             read, and export then"
        )));
    }
    let place = args.output.as_deref();
    let mut out = open(place)?;
    let project = args.project.as_deref();
    let written = match args.dead {
        true => letters(&look, project, &mut out),
        false => events(&look, project, &mut out),
    };
    let written = written.and_then(|(lines, missing)| {
        out.finish().map_err(Ended::Unwritten)?;
        Ok((lines, missing))
    });
    match written {
        Ok((lines, 0)) => {
            tell(&format!("exported {lines} events"));
            Ok(ExitCode::SUCCESS)
        }
        Ok((lines, missing)) => {
            tell(&format!(
                "exported {lines} events, but {missing} could not be read: see phosphod spool verify"
            ));
            Ok(ExitCode::from(FAILED))
        }
        Err(Ended::Unreadable(error)) => Err(not_looked(&error)),
        Err(Ended::Unwritten(error)) => Err(failed(&format!(
            "the export ended early, for it could not be written ({error}): what was written so far is incomplete"
        ))),
    }
}

/// Where the lines go.
enum Out {
    Stdout(BufWriter<io::Stdout>),
    File(BufWriter<std::fs::File>),
}

fn open(output: Option<&Path>) -> Result<Out, ExitCode> {
    let Some(path) = output else {
        return Ok(Out::Stdout(BufWriter::new(io::stdout())));
    };
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let file = made.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => failed(&format!(
            "{} is there already and is not overwritten: name another file",
            path.display()
        )),
        _ => failed(&format!(
            "{} cannot be made ({error}): name another file with --output",
            path.display()
        )),
    })?;
    Ok(Out::File(BufWriter::new(file)))
}

impl Out {
    fn write(&mut self, line: &[u8]) -> Result<(), Ended> {
        let written = match self {
            Out::Stdout(out) => out.write_all(line),
            Out::File(out) => out.write_all(line),
        };
        written.map_err(Ended::Unwritten)
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Out::Stdout(mut out) => out.flush(),
            Out::File(mut out) => {
                out.flush()?;
                out.get_ref().sync_all()
            }
        }
    }
}

/// Writes what is queued. How many lines, and how many events could not be read.
fn events(look: &Look, project: Option<&str>, out: &mut Out) -> Result<(u64, u64), Ended> {
    let bar = bar(
        Some(look.queued(project)),
        "{bar:40} {human_pos}/{human_len} events",
    );
    let mut lines = 0;
    let missing: Result<u64, Ended> = look.each_event(project, |lane, record| {
        out.write(&line_of(lane, record))?;
        lines += 1;
        bar.inc(1);
        Ok(())
    });
    bar.finish_and_clear();
    Ok((lines, missing?))
}

/// Writes the events of dead letters. How many lines, and how many letters could not be read.
fn letters(look: &Look, project: Option<&str>, out: &mut Out) -> Result<(u64, u64), Ended> {
    let bar = bar(None, "{spinner} {human_pos} dead letters");
    let (mut lines, mut missing) = (0, 0);
    let shown: Result<(), Ended> = look.each_letter(|_, letter| {
        let letter = match letter {
            Ok(letter) => letter,
            Err(reason) => {
                bar.suspend(|| tell(&format!("phosphod spool: {reason}")));
                missing += 1;
                return Ok(());
            }
        };
        if project.is_none_or(|project| letter.lane.project.as_str() == project) {
            out.write(&line_of(&letter.lane, &letter.record))?;
            lines += 1;
            bar.inc(1);
        }
        Ok(())
    });
    bar.finish_and_clear();
    shown.map(|()| (lines, missing))
}

/// A record as a line of NDJSON that says its kind and its project. All else stays byte for byte, but line breaks between
/// JSON's tokens, which become blanks. What is no object is left as it is.
fn line_of(lane: &Lane, record: &[u8]) -> Vec<u8> {
    let blank = |byte: &u8| match byte {
        b'\n' | b'\r' => b' ',
        byte => *byte,
    };
    let mut line: Vec<u8> = record.trim_ascii().iter().map(blank).collect();
    if let [b'{', .., b'}'] = line.as_slice() {
        // The last key counts where there are two: the first may be null or "".
        let own = (!names_project(&line)).then(|| lane.project.as_str());
        let inner = line[1..line.len() - 1].trim_ascii_start();
        let kind: &[u8] = match lane.kind {
            Kind::Log => b"{\"kind\":\"log\"",
            Kind::Feedback => b"{\"kind\":\"feedback\"",
        };
        let mut named = Vec::with_capacity(line.len() + 64);
        named.extend_from_slice(kind);
        if !inner.is_empty() {
            named.push(b',');
            named.extend_from_slice(inner);
        }
        if let Some(project) = own {
            named.extend_from_slice(b",\"project_id\":");
            json::push_string(&mut named, project);
        }
        named.push(b'}');
        line = named;
    }
    line.push(b'\n');
    line
}

/// Whether a record says itself which project it belongs to.
fn names_project(record: &[u8]) -> bool {
    json::field(record, "project_id").is_some_and(|value| match JsonKind::of(value) {
        JsonKind::Null => false,
        _ => json::text_of(value).is_none_or(|text| !text.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ProjectId;

    fn line(kind: Kind, record: &str) -> String {
        let project = ProjectId::new("p").expect("an id");
        String::from_utf8(line_of(&Lane { project, kind }, record.as_bytes())).expect("text")
    }

    #[test]
    fn a_line_says_kind_and_project_and_holds_the_record_as_it_was() {
        assert_eq!(
            line(Kind::Log, r#"{"project_id":"p", "n": 1.50}"#),
            "{\"kind\":\"log\",\"project_id\":\"p\", \"n\": 1.50}\n"
        );
        assert_eq!(
            line(
                Kind::Log,
                "{\n  \"project_id\": \"p\",\r\n  \"input\": \"a\\nb\"\n}\n"
            ),
            "{\"kind\":\"log\",\"project_id\": \"p\",    \"input\": \"a\\nb\" }\n"
        );
        assert_eq!(
            line(Kind::Feedback, r#"{"task_id":"t","project_id":"p"}"#),
            "{\"kind\":\"feedback\",\"task_id\":\"t\",\"project_id\":\"p\"}\n"
        );
    }

    #[test]
    fn a_record_that_leaves_its_project_open_is_told_it_behind() {
        assert_eq!(
            line(Kind::Log, r#"{"project_id":null,"input":"a"}"#),
            "{\"kind\":\"log\",\"project_id\":null,\"input\":\"a\",\"project_id\":\"p\"}\n"
        );
        assert_eq!(
            line(Kind::Log, r#"{"project_id":""}"#),
            "{\"kind\":\"log\",\"project_id\":\"\",\"project_id\":\"p\"}\n"
        );
        assert_eq!(line(Kind::Log, "{}"), "{\"kind\":\"log\",\"project_id\":\"p\"}\n");
        assert_eq!(
            line(Kind::Log, r#"{"project_id":7}"#),
            "{\"kind\":\"log\",\"project_id\":7}\n",
            "it was refused for this, and will be again"
        );
        assert_eq!(line(Kind::Log, "[1,\n2]"), "[1, 2]\n");
    }
}
