//! Where exports go, and the form of their lines.
use super::terminal::json_for;
use crate::ids::{Kind, Lane};
use crate::wire::json::{self, JsonKind};
use std::fs::OpenOptions;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Where the lines go.
pub(super) enum Out {
    Stdout {
        out: BufWriter<io::Stdout>,
        /// It is shown, and not only written.
        terminal: bool,
    },
    File(BufWriter<std::fs::File>),
}

/// A new file of mode 0600, or stdout. An error is a sentence with the remedy.
pub(super) fn open(output: Option<&Path>) -> Result<Out, String> {
    let Some(path) = output else {
        return Ok(Out::Stdout {
            terminal: io::stdout().is_terminal(),
            out: BufWriter::new(io::stdout()),
        });
    };
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let file = made.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => format!(
            "{} is there already and is not overwritten: name another file",
            path.display()
        ),
        _ => format!(
            "{} cannot be made ({error}): name another file with --output",
            path.display()
        ),
    })?;
    Ok(Out::File(BufWriter::new(file)))
}

impl Out {
    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Out::Stdout { out, terminal } => out.write_all(&json_for(*terminal, line)),
            Out::File(out) => out.write_all(line),
        }
    }

    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Out::Stdout { mut out, .. } => out.flush(),
            Out::File(mut out) => {
                out.flush()?;
                out.get_ref().sync_all()
            }
        }
    }
}

/// A record as a line of NDJSON that says its kind and its project. All else stays byte for byte, but line breaks between
/// JSON's tokens, which become blanks. What is no object is left as it is.
pub(super) fn line_of(lane: &Lane, record: &[u8]) -> Vec<u8> {
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
