//! `phosphod demo`, as a newcomer runs it.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

/// The demo with nothing of the caller's environment, and temporary files in `folder`.
fn demo(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phosphod"));
    command
        .arg("demo")
        .env_clear()
        .env("TMPDIR", folder)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Fails unless the folder is empty and no process was started with a path in it.
fn nothing_is_left_of(folder: &Path) {
    let left: Vec<_> = std::fs::read_dir(folder).expect("it can be listed").collect();
    assert!(left.is_empty(), "the demo left files behind: {left:?}");
    if cfg!(target_os = "linux") {
        let folder = folder.to_str().expect("a temp path is text");
        for process in std::fs::read_dir("/proc").expect("Linux has it") {
            let path = process.expect("an entry").path().join("cmdline");
            // Many entries are no processes, and processes end while they are looked at.
            let Ok(arguments) = std::fs::read(path) else {
                continue;
            };
            let arguments = String::from_utf8_lossy(&arguments).into_owned();
            assert!(
                !arguments.contains(folder),
                "the demo left a daemon running: {arguments}"
            );
        }
    }
}

/// The numbers at the end of the row that starts with `label`.
fn row(shown: &str, label: &str) -> Vec<u64> {
    let line = shown
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(label))
        .unwrap_or_else(|| panic!("no row {label:?} in:\n{shown}"));
    line.split_whitespace()
        .map(|number| number.replace(',', "").parse().expect("a number"))
        .collect()
}

#[test]
fn the_demo_adds_up_says_so_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let output = demo(folder.path())
        .args(["--events", "300"])
        .output()
        .expect("the binary starts");
    let shown = String::from_utf8(output.stdout).expect("text");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{shown}\n{told}", output.status);
    assert_eq!(told, "");

    let feedback = 300 / 20;
    assert_eq!(row(&shown, "app: acknowledged"), [301, feedback, 301 + feedback]);
    assert_eq!(row(&shown, "ledger: accepted"), [301 + feedback]);
    assert_eq!(row(&shown, "ledger: delivered"), [300 + feedback]);
    assert_eq!(row(&shown, "ledger: set aside as dead letters"), [1]);
    assert_eq!(row(&shown, "ledger: dropped"), [0]);
    assert_eq!(row(&shown, "ledger: still queued"), [0]);
    assert_eq!(
        row(&shown, "API: stored, each once"),
        [300, feedback, 300 + feedback]
    );
    assert!(
        row(&shown, "API: attempts while it was down")[0] > 0,
        "the API was really down"
    );
    let letter = shown
        .lines()
        .find(|line| line.contains("/demo-poison"))
        .expect("the dead letter");
    assert!(
        letter.contains("upstream"),
        "its reason stands beside it: {letter}"
    );
    for end in ["It adds up", "base_url=\"http://127.0.0.1:4710\"", "curl "] {
        assert!(shown.contains(end), "{end:?} is missing in:\n{shown}");
    }

    assert!(!shown.contains('\u{1b}'), "no colours where no terminal is");
    let widest = shown.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(80), "it fits in 80 columns");
    nothing_is_left_of(folder.path());
}

#[test]
fn an_interrupted_demo_fails_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let mut child = demo(folder.path())
        .args(["--events", "20000"])
        .spawn()
        .expect("the binary starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    // The second act: the daemon has started, and most is still to come.
    while !line.starts_with("2  ") {
        line.clear();
        assert_ne!(
            stdout.read_line(&mut line).expect("text"),
            0,
            "it ended before the second act"
        );
    }
    let pid = Pid::from_raw(child.id().cast_signed()).expect("a child has a pid");
    kill_process(pid, Signal::INT).expect("our child can be signalled");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("text");
    let mut told = String::new();
    let mut stderr = child.stderr.take().expect("piped");
    stderr.read_to_string(&mut told).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(1), "{told}");
    assert_eq!(told, "phosphod demo: interrupted\n");
    nothing_is_left_of(folder.path());
}
