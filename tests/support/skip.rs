//! Saying plainly that a test was skipped, or failing where skips are forbidden.

use std::io::Write;

/// Says on the terminal that the test is skipped and why. With PHOSPHOD_NO_SKIP set, as in CI, fails instead.
pub(crate) fn skip(test: &str, why: &str) {
    if std::env::var_os("PHOSPHOD_NO_SKIP").is_some() {
        panic!("{test} may not be skipped here: {why}");
    }
    // Straight to the terminal: what print! writes in a passing test is never shown.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}
