//! What `phosphod spool info` shows to people. Pure.
use super::super::table::{finished, printable, table, time};
use crate::spool::offline::{Generation, Info, LaneInfo};
use indicatif::{BinaryBytes, HumanCount};
use std::fmt::Write;

/// The folder in figures, as text.
pub(super) fn of(info: &Info) -> String {
    let mut text = String::new();
    let ledger = &info.ledger;
    let dead = &info.dead_letters;
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "data folder   {}, format {}",
        printable(&info.path),
        info.format
    );
    let _ = writeln!(
        text,
        "ledger        {} accepted = {} delivered + {} dead + {} dropped + {} queued",
        HumanCount(ledger.accepted),
        HumanCount(ledger.delivered),
        HumanCount(ledger.dead),
        HumanCount(ledger.dropped),
        HumanCount(ledger.queued),
    );
    let _ = writeln!(
        text,
        "queued        {} events, {}",
        HumanCount(ledger.queued),
        BinaryBytes(info.queued_bytes)
    );
    let _ = writeln!(
        text,
        "dead letters  {} kept, {} on disk",
        HumanCount(dead.letters),
        BinaryBytes(dead.bytes_on_disk)
    );
    let quarantine: Vec<String> = info.quarantine.iter().map(|name| printable(name)).collect();
    let quarantine = match quarantine.is_empty() {
        true => "empty".to_owned(),
        false => quarantine.join(", "),
    };
    let _ = writeln!(text, "quarantine    {quarantine}");
    for what in &info.damage {
        let _ = writeln!(text, "damage        {what}: see phosphod spool verify");
    }
    if !info.lanes.is_empty() {
        let _ = writeln!(text, "\n{}", lanes(&info.lanes));
    }
    if !info.generations.is_empty() {
        let _ = writeln!(text, "\n{}", generations(&info.generations));
    }
    text
}

fn lanes(lanes: &[LaneInfo]) -> String {
    let mut table = table(
        ["project", "kind", "queued", "bytes", "oldest accepted at"],
        &[2, 3],
    );
    for lane in lanes {
        let oldest = lane.oldest_accepted_at_ms.and_then(time);
        table.add_row([
            printable(&lane.project),
            lane.kind.to_owned(),
            HumanCount(lane.queued).to_string(),
            BinaryBytes(lane.bytes).to_string(),
            oldest.unwrap_or_default(),
        ]);
    }
    finished(&table)
}

fn generations(generations: &[Generation]) -> String {
    let mut table = table(["generation", "on disk", "queued in it", "bytes"], &[0, 1, 2, 3]);
    for generation in generations {
        table.add_row([
            generation.number.to_string(),
            BinaryBytes(generation.bytes_on_disk).to_string(),
            HumanCount(generation.live).to_string(),
            BinaryBytes(generation.live_bytes).to_string(),
        ]);
    }
    finished(&table)
}
