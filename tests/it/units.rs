//! The unit files in systemd/, as systemd's own tools judge them. tests/boot/ runs them.

use crate::support::skip::skip;
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// The units, with the binary where it was built: the check wants it to be where they say.
fn units(folder: &Path) -> Vec<std::path::PathBuf> {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    ["phosphod.service", "phosphod.socket"]
        .map(|name| {
            let text = std::fs::read_to_string(units.join(name)).expect("a unit");
            let text = text.replace("/usr/bin/phosphod", env!("CARGO_BIN_EXE_phosphod"));
            let path = folder.join(name);
            std::fs::write(&path, text).expect("write");
            path
        })
        .to_vec()
}

#[test]
fn the_units_pass_systemds_own_check() {
    const NAME: &str = "the_units_pass_systemds_own_check";
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return skip(NAME, "systemd-analyze is not installed (Debian package systemd)");
    }
    let folder = tempfile::tempdir().expect("a temp folder");
    let output = Command::new("systemd-analyze")
        .arg("verify")
        .args(units(folder.path()))
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<_> = said.lines().filter(|line| line.contains("phosphod")).collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");
}

/// In tenths, as `systemd-analyze` shows it.
const MOST_EXPOSED: u32 = 15;

#[test]
fn the_service_is_hardly_exposed() {
    const NAME: &str = "the_service_is_hardly_exposed";
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return skip(NAME, "systemd-analyze is not installed (Debian package systemd)");
    }
    let folder = tempfile::tempdir().expect("a temp folder");
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(&units(folder.path())[0])
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let score = said.lines().find_map(|line| {
        let rest = line
            .split_once("Overall exposure level for phosphod.service: ")?
            .1;
        Some(rest.split_whitespace().next()?.to_owned())
    });
    let score = score.unwrap_or_else(|| panic!("no score: {said} {output:?}"));
    // Straight to the terminal: what print! writes in a passing test is never shown.
    let _ = writeln!(
        std::io::stderr(),
        "systemd-analyze security: {score} (10 is worst)"
    );
    let tenths: u32 = score.replace('.', "").parse().expect("a score");
    assert!(tenths <= MOST_EXPOSED, "{said}");
}
