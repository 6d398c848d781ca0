//! Says at the end of `cargo test` what was skipped and why, in one line. Cargo runs the test binaries in the order of
//! their names, so this one is the last; it has no harness, so that its line is shown although nothing failed.

#![allow(clippy::expect_used)] // A test's helpers fail by panicking, as it does itself.

#[allow(dead_code, reason = "this binary only reads them")]
#[path = "support/notes.rs"]
mod notes;

fn main() {
    // As a harness does for `cargo test -- --list`, which editors call.
    if std::env::args().any(|word| word == "--list") {
        return println!("0 tests, 0 benchmarks");
    }
    holds();
    let Some((folder, run)) = notes::folder().zip(notes::run()) else {
        return;
    };
    eprintln!("\n{}", notes::summary(&notes::read(&folder.join(&run))));
    notes::clear(&folder, &run);
}

/// The notes themselves, tried before they are believed.
fn holds() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let (mine, other) = (folder.path().join("1-10"), folder.path().join("2-20"));
    assert!(notes::summary(&notes::read(&mine)).contains("none"));
    for (run, test, why) in [
        (&mine, "it::a", "no root"),
        (&mine, "it::b", "no root"),
        (&mine, "package::c", "no lintian"),
        (&other, "it::d", "no strace"),
    ] {
        notes::leave_in(run, test, why).expect("a note");
    }
    let summary = notes::summary(&notes::read(&mine));
    assert!(
        summary.starts_with("skipped: 3 tests (2: no root; 1: no lintian); all run as root"),
        "{summary}"
    );
    assert_eq!(summary.lines().count(), 1);
    notes::clear(folder.path(), "1-10");
    assert!(!mine.exists() && other.exists(), "another run's notes stay");
}
