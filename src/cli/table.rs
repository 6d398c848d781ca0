//! Tables and texts for people. Pure.
use crate::visible;
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use std::time::{Duration, UNIX_EPOCH};

const LINE: LineStyle = LineStyle::none().fill('─').junction('─');
const STYLE: TableStyle = TableStyle::new().header_separator(LINE);

/// An empty table; the columns at `numbers` stand right.
pub(super) fn table<const N: usize>(header: [&str; N], numbers: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_header(header);
    for (at, column) in table.column_iter_mut().enumerate() {
        if numbers.contains(&at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// As text, without the blanks at the ends of its lines.
pub(super) fn finished(table: &Table) -> String {
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// A name on one line, of which everything is seen.
pub(super) fn printable(name: &str) -> String {
    visible::line(name).into_owned()
}

/// A moment of the wall clock; `None` where it is beyond what can be written.
pub(super) fn time(ms: u64) -> Option<String> {
    let moment = UNIX_EPOCH.checked_add(Duration::from_millis(ms))?;
    // It cannot write years of five digits.
    const LAST_MS: u64 = 253_402_300_799_000;
    (ms <= LAST_MS).then(|| humantime::format_rfc3339_seconds(moment).to_string())
}
