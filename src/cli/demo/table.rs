//! The closing tables: what the app was told, what the ledger says, and what the API has. Pure.

use super::screen::{COLUMNS, count};
use super::tally::Tally;
use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};

const LINE: LineStyle = LineStyle::none().fill('─').junction('─');
const STYLE: TableStyle = TableStyle::new()
    .top_border(LINE)
    .header_separator(LINE)
    .bottom_border(LINE);

/// The numbers, by who says them.
pub(super) fn numbers(tally: &Tally) -> String {
    let Tally {
        acknowledged,
        ledger,
        api,
        ..
    } = tally;
    let mut table = empty(["", "log events", "feedback", "together"]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut row = |what: &str, parts: Option<(u64, u64)>, together: u64| {
        let number = |number: u64| Cell::new(count(number));
        let (events, feedback) = match parts {
            Some((events, feedback)) => (number(events), number(feedback)),
            None => (Cell::new(""), Cell::new("")),
        };
        table.add_row([Cell::new(what), events, feedback, number(together)]);
    };
    let (events, feedback) = (
        acknowledged.events.len() as u64,
        acknowledged.feedback.len() as u64,
    );
    row("app: acknowledged", Some((events, feedback)), events + feedback);
    row("ledger: accepted", None, ledger.accepted);
    row("ledger: delivered", None, ledger.delivered);
    row("ledger: set aside as dead letters", None, ledger.dead);
    row("ledger: dropped", None, ledger.dropped);
    row("ledger: still queued", None, ledger.queued);
    let (stored, evals) = (api.stored.len() as u64, api.evals.len() as u64);
    row("API: stored, each once", Some((stored, evals)), stored + evals);
    row("API: duplicates absorbed", None, api.duplicates);
    row("API: attempts while it was down", None, api.while_down);
    finished(table)
}

/// The dead letters with their reasons.
pub(super) fn dead_letters(tally: &Tally) -> String {
    let mut table = empty(["dead letter", "attempts", "why it was set aside"]);
    for letter in &tally.dead_letters {
        let id = format!("{}/{}", letter.project, letter.record.task_id);
        table.add_row([id, letter.attempts.to_string(), letter.reason.clone()]);
    }
    finished(table)
}

fn empty<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE);
    table
        .set_content_arrangement(ContentArrangement::DynamicFullWidth)
        .set_width(COLUMNS as u16)
        .set_header(header);
    table
}

/// As text, without the blanks at the ends of its lines.
fn finished(table: Table) -> String {
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}
