//! The daemon's own log, on stderr: text with colours on a terminal, text for the journal, JSON otherwise or when asked for.
use super::background::Background;
use super::journal::{self, Stderr};
use crate::config::{LogFormat, LogSettings};
use crate::visible::is_hidden;
use prometheus_client::metrics::counter::Counter;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::{self, Write};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format;
use tracing_subscriber::util::SubscriberInitExt;

/// The thread that writes the log to standard error, so that nothing of the daemon waits for its
/// reader. Lines that are lost are counted in `dropped`.
pub(super) fn background(dropped: Counter) -> Background {
    Background::start(std::io::stderr(), dropped, |lines| {
        tracing::warn!(
            lines,
            "lines of this log were dropped since the start: its reader did not keep up"
        );
    })
}

/// Installs the subscriber, the one global of the process. The error is a sentence.
pub(super) fn start(settings: &LogSettings, lines: &Background) -> Result<(), String> {
    let filter =
        EnvFilter::try_new(&settings.level).map_err(|fault| format!("log.level: {fault}: write a level"))?;
    let terminal = std::io::stderr().is_terminal();
    let journal = journal::is_stderr();
    let text = match settings.format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => terminal || journal,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Its way to tell that a line could not be written is `eprintln`, which then panics: a log whose disk is full or
        // whose reader is gone would end the daemon.
        .log_internal_errors(false)
        .with_writer(Stderr {
            lines: lines.clone(),
            journal,
        });
    let installed = if text {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let builder = builder.with_ansi(terminal && !plain).fmt_fields(escaped_fields());
        if journal {
            // It notes the time of each line by itself.
            builder.without_time().finish().try_init()
        } else {
            builder.finish().try_init()
        }
    } else {
        builder.json().flatten_event(true).finish().try_init()
    };
    installed.map_err(|fault| format!("the log could not be set up: {fault}"))
}

/// The same for commands that have no log of their own: only the messages of warnings, as they are.
pub(super) fn start_plain(lines: &Background) -> Result<(), String> {
    let writer = Stderr {
        lines: lines.clone(),
        journal: false,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .log_internal_errors(false)
        .with_writer(writer)
        .with_ansi(false)
        .with_level(false)
        .with_target(false)
        .without_time()
        .fmt_fields(escaped_fields())
        .finish();
    let installed = subscriber.try_init();
    installed.map_err(|fault| format!("the log could not be set up: {fault}"))
}

/// A panic is a line of the log as any other. The usual message would wait for the reader of
/// standard error.
pub(super) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let backtrace = Backtrace::capture();
        tracing::error!(
            thread = thread.name().unwrap_or("unnamed"),
            place = panic.location().map(tracing::field::display),
            why = panic.payload_as_str().unwrap_or("it does not say why"),
            backtrace = (backtrace.status() == BacktraceStatus::Captured)
                .then(|| tracing::field::display(&backtrace)),
            "a thread panicked: report this"
        );
    }));
}

/// Fields as `name=value`, control and invisible characters escaped: what a client sent can neither start a line of its own nor
/// move a terminal's cursor.
fn escaped_fields() -> impl for<'writer> FormatFields<'writer> {
    let one = format::debug_fn(|writer, field, value| {
        if field.name() != "message" {
            write!(writer, "{}=", field.name())?;
        }
        write!(Escaping(writer), "{value:?}")
    });
    one.delimited(" ")
}

/// Writes text with its control and invisible characters escaped.
struct Escaping<'a, W>(&'a mut W);

impl<W: Write> Write for Escaping<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if is_hidden(c) {
                write!(self.0, "{}", c.escape_default())?;
            } else {
                self.0.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn injected_control_characters_are_escaped_in_text() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .fmt_fields(escaped_fields())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let evil = "a\n<0>fake \u{1b}[31m \u{9b}b";
            tracing::info!(project = %evil, "told {evil}");
        });
        let text = String::from_utf8(sink.0.lock().expect("not poisoned").clone()).expect("text");
        let (line, rest) = text.split_once('\n').expect("one line");
        assert_eq!(rest, "", "one event is one line");
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(
            line.contains(r"told a\n<0>fake \u{1b}[31m") && line.contains(r"project=a\n<0>fake"),
            "{line}"
        );
    }
}
