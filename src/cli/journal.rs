//! Standard error as systemd's journal reads it: a line that begins with `<3>` is an error, one with `<4>` a warning, and so on
//! (sd-daemon(3)). Without that `journalctl -p err` shows nothing.
use super::background::Background;
use std::io::{self, Write};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// What an error begins with.
pub(super) const ERROR: &str = "<3>";

/// Whether standard error leads to the journal. The variable alone does not say so: it is inherited by what is redirected elsewhere.
pub(super) fn is_stderr() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(io::stderr())
        .is_ok_and(|stderr| named == format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

/// Standard error, written in the background; for the journal with the priority of each line.
pub(super) struct Stderr {
    pub(super) lines: Background,
    pub(super) journal: bool,
}

impl MakeWriter<'_> for Stderr {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line {
            priority: "",
            lines: self.lines.clone(),
        }
    }

    fn make_writer_for(&self, about: &Metadata<'_>) -> Line {
        Line {
            priority: if self.journal { priority(about.level()) } else { "" },
            lines: self.lines.clone(),
        }
    }
}

fn priority(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => ERROR,
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// One line with what it begins with. It is queued as a whole, as the subscriber writes it.
pub(super) struct Line {
    priority: &'static str,
    lines: Background,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.priority.is_empty() {
            self.lines.write(bytes);
        } else {
            self.lines.write(&[self.priority.as_bytes(), bytes].concat());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
