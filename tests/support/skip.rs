//! Saying plainly that a test was skipped, or failing where skips are forbidden.

use super::notes;
use std::io::Write;
use std::process::{Command, Stdio};

/// Says on the terminal that the test is skipped and why, and leaves a note for the summary at the end of `cargo test`
/// (`tests/zz_summary.rs`). With PHOSPHOD_NO_SKIP set, as in CI, fails instead.
pub(crate) fn skip(test: &str, why: &str) {
    if std::env::var_os("PHOSPHOD_NO_SKIP").is_some() {
        panic!("{test} may not be skipped here: {why}");
    }
    // Straight to the terminal: what print! writes in a passing test is never shown.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
    notes::leave(test, why);
}

/// A tool of the system, found where administrators have theirs too.
pub(crate) fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command
        .env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null());
    command
}

/// Why the first of these (tool, Debian package) that is missing is needed.
pub(crate) fn missing(tools: &[(&str, &str)]) -> Option<String> {
    let present = |name: &str| tool("sh").args(["-c", &format!("command -v {name}")]).output();
    tools.iter().find_map(|(name, package)| {
        let found = present(name).is_ok_and(|done| done.status.success());
        (!found).then(|| format!("{name} is not installed (Debian package {package})"))
    })
}
