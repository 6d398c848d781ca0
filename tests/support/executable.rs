//! Files that tests execute.
//!
//! Another process writes them. What this process has open for writing is inherited by every child that another test
//! starts at that moment; until that child has become its own program, executing the file fails with "Text file busy".

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Copies a program to a new place, executable for everybody.
pub(crate) fn copy(from: &Path, to: &Path) {
    let mut install = Command::new("install");
    install.args(["-m", "0755"]).arg(from).arg(to);
    done(&mut install);
}

/// A copy of the binary under test in a folder.
pub(crate) fn binary(folder: &Path) -> PathBuf {
    let to = folder.join("phosphod");
    copy(Path::new(env!("CARGO_BIN_EXE_phosphod")), &to);
    to
}

/// Writes a script for `/bin/sh`, executable for everybody.
pub(crate) fn script(to: &Path, text: &str) {
    let draft = to.with_extension("draft");
    std::fs::write(&draft, format!("#!/bin/sh\n{text}\n")).expect("writable");
    copy(&draft, to);
    std::fs::remove_file(&draft).expect("removed");
}

fn done(command: &mut Command) {
    let output = command
        .stdin(Stdio::null())
        .output()
        .expect("coreutils are there");
    assert!(output.status.success(), "{command:?}: {output:?}");
}
