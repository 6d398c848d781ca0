//! What `phosphod pages` writes: manual pages and completions.

use crate::deb::run;
use crate::support::skip::{missing, skip, tool};
use phosphod::config::keys::KEYS;
use std::path::Path;
use std::process::Command;

fn phosphod() -> Command {
    Command::new(env!("CARGO_BIN_EXE_phosphod"))
}

fn written() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temp folder");
    run(phosphod().arg("pages").arg(folder.path().join("new")));
    folder
}

/// A page as it is read, in long lines; it must give no warning.
fn rendered(page: &Path) -> String {
    let done = tool("man")
        .env("LC_ALL", "C.UTF-8")
        .env("MANWIDTH", "400")
        .args(["--warnings", "-E", "UTF-8", "-l"])
        .arg(page)
        .output()
        .expect("man runs");
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success() && complaint.is_empty(),
        "{page:?}: {complaint}"
    );
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn every_command_has_a_manual_page_that_is_rendered_without_a_warning() {
    const NAME: &str = "every_command_has_a_manual_page_that_is_rendered_without_a_warning";
    if let Some(why) = missing(&[("man", "man-db")]) {
        return skip(NAME, &why);
    }
    let folder = written();
    let man1 = folder.path().join("new/man1");
    let mut names: Vec<_> = std::fs::read_dir(&man1)
        .expect("pages")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    names.sort_unstable();
    for name in &names {
        let text = rendered(&man1.join(name));
        for heading in ["NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO"] {
            assert!(text.contains(heading), "{name} has no section {heading}: {text}");
        }
        // The help of the command, which its page has to go with: `phosphod-dead-list.1`.
        let words = name.trim_end_matches(".1").split('-').skip(1);
        let help = run(phosphod().args(words).arg("--help"));
        let about = help.lines().next().expect("what it does");
        assert!(text.contains(about), "{name} does not say {about:?}: {text}");
        let (_, below) = help.split_once("Commands:\n").unwrap_or_default();
        let lines = below.lines().take_while(|line| !line.is_empty());
        // Deeper are the further lines of what a command does.
        for line in lines.filter(|line| !line.starts_with("   ")) {
            let word = line.split_whitespace().next().expect("a command");
            let page = name.replace(".1", &format!("-{word}.1"));
            assert!(
                word == "help" || names.contains(&page),
                "{page} is not in {names:?}"
            );
        }
    }
    eprintln!("{} commands", names.len());
    assert!(names.contains(&"phosphod-dead-requeue.1".into()), "{names:?}");
    assert!(
        !names.contains(&"phosphod-pages.1".into()),
        "what is hidden has none"
    );
}

#[test]
fn phosphod_toml_5_has_every_key_with_its_bounds_and_default() {
    const NAME: &str = "phosphod_toml_5_has_every_key_with_its_bounds_and_default";
    if let Some(why) = missing(&[("man", "man-db")]) {
        return skip(NAME, &why);
    }
    let text = rendered(&written().path().join("new/man5/phosphod.toml.5"));
    let mut rest = text.as_str();
    for key in KEYS {
        let (section, name) = key.path.rsplit_once('.').expect("a section and a name");
        assert!(text.contains(&format!("   [{section}]\n")), "{section}: {text}");
        let line = format!("\n       {name} = {}\n", key.kind.unit());
        let (_, after) = rest
            .split_once(&line)
            .unwrap_or_else(|| panic!("{}: {text}", key.path));
        let told = after.lines().next().expect("what it does");
        let default = format!("Default: {}.", key.default.documented());
        assert!(told.ends_with(&default), "{}: {told:?}", key.path);
        rest = after;
    }
    assert!(
        text.contains("From 1 KiB to 64 MiB. Default: \"4 MiB\"."),
        "{text}"
    );
}

#[test]
fn the_completions_offer_the_commands_and_nothing_that_is_hidden() {
    let folder = written();
    for file in ["bash/phosphod", "zsh/_phosphod", "fish/phosphod.fish"] {
        let text = std::fs::read_to_string(folder.path().join("new").join(file)).expect("a completion");
        assert!(text.contains("requeue") && text.contains("redact"), "{file}");
        assert!(!text.contains("pages"), "{file} offers what is hidden");
    }
    assert!(!run(phosphod().arg("--help")).contains("pages"));
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let file = tempfile::NamedTempFile::new().expect("a temp file");
    let done = phosphod()
        .arg("pages")
        .arg(file.path())
        .output()
        .expect("it runs");
    assert_eq!(done.status.code(), Some(1));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(said.contains("name a folder that can"), "{said}");
}
