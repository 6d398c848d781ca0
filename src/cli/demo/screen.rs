//! What is shown: acts, a bar that moves on a terminal, plain lines elsewhere. In 80 columns; colours only on a terminal and
//! without NO_COLOR.

use crate::cli::background::Background;
use crate::ledger::Ledger;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use prometheus_client::metrics::counter::Counter;
use std::cell::{Cell, RefCell};
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Columns that are used.
pub(super) const COLUMNS: usize = 78;
const MARGIN: &str = "   ";
/// Columns of the bar; what is left is for the numbers.
const BAR: usize = 16;
/// Where a person watches: a moment to take in what was said.
const BREATH: Duration = Duration::from_millis(500);

const NEXT_STEP: &str = "\
Next: start the daemon with your key,

   PHOSPHO_API_KEY=... PHOSPHO_PROJECT_ID=... {program} run

and change one line in your app, the base URL.

   Python   import phospho
            phospho.init(api_key=\"any\", project_id=\"my-project\",
                         base_url=\"http://127.0.0.1:4710\")
            phospho.log(input=\"Hello\", output=\"Hi\")
   curl     curl http://127.0.0.1:4710/log --json '{\"input\": \"Hello\"}'
";

/// Standard output.
pub(super) struct Screen {
    /// A person watches.
    live: bool,
    colours: bool,
    /// How much there will be in the end, for the bar.
    total: Cell<u64>,
    acts: Cell<u32>,
    bar: RefCell<Option<ProgressBar>>,
    /// Where no person watches: what is shown is written in the background, so that a reader that
    /// has stopped does not keep the demo from its end.
    lines: Option<Background>,
}

#[derive(Debug, Clone, Copy)]
enum Ink {
    Bold,
    Dim,
    Green,
    Yellow,
}

impl Screen {
    pub(super) fn new() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_none_or(|term| term == "dumb");
        let live = std::io::stdout().is_terminal() && !dumb;
        Self {
            live,
            colours: live && set("NO_COLOR").is_none(),
            total: Cell::new(0),
            acts: Cell::new(0),
            bar: RefCell::new(None),
            lines: (!live).then(|| Background::start(std::io::stdout(), Counter::default(), |_| {})),
        }
    }

    /// Waits for the last lines, but not longer than `limit`.
    pub(super) fn finish(&self, limit: Duration) {
        if let Some(lines) = &self.lines {
            lines.finish(limit);
        }
    }

    /// A reader that closed its pipe has seen enough; the exit code still tells how it ended.
    fn print(&self, text: &str) {
        match &self.lines {
            Some(lines) => lines.write(text.as_bytes()),
            None => {
                let mut out = std::io::stdout();
                let _ = out.write_all(text.as_bytes());
                let _ = out.flush();
            }
        }
    }

    /// Says what this is. `total` is how many events and feedbacks will be sent.
    pub(super) fn open(&self, total: u64) {
        self.total.set(total);
        let title = self.ink(Ink::Bold, "phosphod demo");
        let parts = "an app, the daemon, and a stand-in for the phospho API";
        self.print(&format!("\n{title}: {parts}\n"));
    }

    /// Begins an act.
    pub(super) fn act(&self, sentence: &str) {
        self.clear();
        self.acts.set(self.acts.get() + 1);
        let mut text = String::from("\n");
        for (at, line) in wrapped(sentence, COLUMNS - MARGIN.len()).iter().enumerate() {
            let margin = match at {
                0 => format!("{}  ", self.ink(Ink::Bold, &self.acts.get().to_string())),
                _ => MARGIN.to_owned(),
            };
            text.push_str(&format!("{margin}{line}\n"));
        }
        self.print(&text);
    }

    /// A short remark within an act.
    pub(super) fn note(&self, text: &str) {
        self.print(&format!("{MARGIN}{}\n", self.ink(Ink::Dim, text)));
    }

    /// Shows the ledger as it is now; only a terminal shows what moves.
    pub(super) fn show(&self, ledger: &Ledger) {
        if !self.live {
            return;
        }
        let mut bar = self.bar.borrow_mut();
        let bar = bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                bar.set_style(style);
            }
            bar
        });
        bar.set_message(self.ledger_line(ledger));
        bar.tick();
    }

    /// Leaves the ledger on the screen, as the end of an act.
    pub(super) fn settle(&self, ledger: &Ledger) {
        self.clear();
        self.print(&format!("{}\n", self.ledger_line(ledger)));
    }

    /// Takes away what moves.
    pub(super) fn clear(&self) {
        if let Some(bar) = self.bar.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }

    /// Shows a table.
    pub(super) fn table(&self, table: &str) {
        self.print(&format!("\n{table}\n"));
    }

    /// The last word.
    pub(super) fn verdict(&self, text: &str) {
        self.print(&format!("\n{}\n", self.ink(Ink::Green, text)));
    }

    /// What to do now.
    pub(super) fn next_step(&self) {
        let called = std::env::args().next().unwrap_or_default();
        self.print(&format!("\n{}", next_step(&called)));
    }

    /// A moment to read, where a person watches.
    pub(super) async fn breathe(&self) {
        if self.live {
            tokio::time::sleep(BREATH).await;
        }
    }

    /// The pause after each of so many steps that together last `whole`, where a person watches.
    pub(super) fn pace(&self, whole: Duration, steps: usize) -> Duration {
        match u32::try_from(steps) {
            Ok(steps @ 1..) if self.live => whole / steps,
            _ => Duration::ZERO,
        }
    }

    /// How much was accepted, waits and was delivered. The bar is made of these.
    fn ledger_line(&self, ledger: &Ledger) -> String {
        let mut numbers = format!(
            "accepted {}, queued {}, delivered {}",
            count(ledger.accepted),
            count(ledger.queued),
            count(ledger.delivered)
        );
        if ledger.dead > 0 {
            numbers.push_str(&format!(", set aside {}", count(ledger.dead)));
        }
        if !self.live {
            return format!("{MARGIN}{numbers}");
        }
        let Cells { ended, queued, ahead } = cells(ledger, self.total.get(), BAR);
        format!(
            "{MARGIN}{}{}{}{MARGIN}{numbers}",
            self.ink(Ink::Green, &"█".repeat(ended)),
            self.ink(Ink::Yellow, &"▒".repeat(queued)),
            self.ink(Ink::Dim, &"·".repeat(ahead)),
        )
    }

    fn ink(&self, ink: Ink, text: &str) -> String {
        if !self.colours {
            return text.to_owned();
        }
        let code = match ink {
            Ink::Bold => 1,
            Ink::Dim => 2,
            Ink::Green => 32,
            Ink::Yellow => 33,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// The next step for someone who called this program by that name; by its own name where that would not fit.
fn next_step(called: &str) -> String {
    let fits = !called.is_empty() && called.len() <= 30;
    NEXT_STEP.replace("{program}", if fits { called } else { "phosphod" })
}

/// The parts of a bar, in columns.
#[derive(Debug, PartialEq, Eq)]
struct Cells {
    ended: usize,
    queued: usize,
    ahead: usize,
}

fn cells(ledger: &Ledger, total: u64, columns: usize) -> Cells {
    let up_to = |count: u64| {
        let share = count.min(total) as f64 / total.max(1) as f64;
        (share * columns as f64).round() as usize
    };
    let ended = up_to(ledger.accepted.saturating_sub(ledger.queued));
    let accepted = up_to(ledger.accepted);
    Cells {
        ended,
        queued: accepted - ended,
        ahead: columns - accepted,
    }
}

/// A count with commas between the thousands.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Breaks ASCII text into lines of at most so many columns.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_the_bar_always_fill_it() {
        for accepted in 0..=60 {
            for queued in 0..=accepted {
                let ledger = Ledger {
                    accepted,
                    delivered: accepted - queued,
                    queued,
                    ..Ledger::default()
                };
                let Cells { ended, queued, ahead } = cells(&ledger, 50, 20);
                assert_eq!(ended + queued + ahead, 20, "{ledger:?}");
            }
        }
        let done = Ledger {
            accepted: 50,
            delivered: 49,
            dead: 1,
            ..Ledger::default()
        };
        assert_eq!(
            cells(&done, 50, 20),
            Cells {
                ended: 20,
                queued: 0,
                ahead: 0
            }
        );
    }

    #[test]
    fn thousands_are_parted() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (20_101, "20,101"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn lines_are_broken_between_words_and_stay_within_the_columns() {
        let text = "a daemon that takes log events and user feedback";
        let lines = wrapped(text, 16);
        assert!(lines.iter().all(|line| line.len() <= 16), "{lines:?}");
        assert_eq!(lines.join(" "), text);
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn what_is_said_in_the_end_fits_in_80_columns() {
        let long = "/a/very/long/way/to/the/folder/with/phosphod";
        for (called, shown) in [
            ("target/release/phosphod", "target/release/phosphod run"),
            (long, "phosphod run"),
            ("", "phosphod run"),
        ] {
            let text = next_step(called);
            assert!(text.contains(&format!(" {shown}\n")), "{text}");
            assert!(text.lines().all(|line| line.len() <= COLUMNS), "{text}");
        }
    }
}
