//! Configuration, key and token files of another user: root plays two.

use crate::support::executable;
use crate::support::skip::{missing, skip, tool};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs phosphod.
const VICTIM: u32 = 65534;
/// Would like to know its key.
const OTHER: u32 = 65533;

/// Whether this machine lacks what it takes to be somebody else; says so.
fn skipped(test: &str) -> bool {
    let why = match rustix::process::getuid().is_root() {
        false => Some("only root can become another user".to_owned()),
        true => missing(&[("sh", "dash")]),
    };
    why.is_some_and(|why| {
        skip(test, &why);
        true
    })
}

/// Folders of both users and a shared one, and a copy of the binary.
struct Town {
    folder: tempfile::TempDir,
    binary: PathBuf,
}

impl Town {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temp folder");
        let town = Self {
            binary: executable::binary(folder.path()),
            folder,
        };
        mode(town.folder.path(), 0o755);
        for (name, of, bits) in [
            ("mine", VICTIM, 0o755),
            ("theirs", OTHER, 0o755),
            ("shared", 0, 0o1777),
        ] {
            std::fs::create_dir(town.at(name)).expect("made");
            chown(town.at(name), Some(of), Some(of)).expect("chown");
            mode(&town.at(name), bits);
        }
        town
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, of: u32) {
        // The kernel lets not even root write to another user's file in a shared folder.
        let _ = std::fs::remove_file(self.at(name));
        std::fs::write(self.at(name), "[batch]\nmax_events = 7\n").expect("written");
        mode(&self.at(name), 0o644);
        chown(self.at(name), Some(of), Some(of)).expect("chown");
    }

    /// `config check` of the victim in a folder: its exit code and all that it said.
    fn check(&self, folder: &str, arguments: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(&self.binary)
            .args(["config", "check"])
            .args(arguments)
            .env_clear()
            .current_dir(self.at(folder))
            .uid(VICTIM)
            .gid(VICTIM)
            .output()
            .expect("the binary runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }
}

fn mode(path: &Path, bits: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(bits)).expect("chmod");
}

#[test]
fn a_configuration_in_a_folder_that_is_not_ones_own_is_passed_over() {
    if skipped("a_configuration_in_a_folder_that_is_not_ones_own_is_passed_over") {
        return;
    }
    let town = Town::new();
    for (folder, of) in [
        ("shared", OTHER),
        ("theirs", OTHER),
        ("shared", VICTIM),
        ("theirs", 0),
    ] {
        town.file(&format!("{folder}/config.toml"), of);
        let (code, said) = town.check(folder, &[]);
        assert_eq!(code, Some(0), "{folder}, of {of}: {said}");
        assert!(
            said.contains("./config.toml: is not read"),
            "{folder}, of {of}: {said}"
        );
        assert!(!said.contains("ok: config.toml"), "{folder}, of {of}: {said}");
    }
    for of in [VICTIM, 0] {
        town.file("mine/config.toml", of);
        let (code, said) = town.check("mine", &[]);
        assert!(
            code == Some(0) && said.starts_with("ok: config.toml\n"),
            "of {of}: {said}"
        );
    }
}

#[test]
fn a_file_of_another_user_is_refused_by_name_as_well() {
    if skipped("a_file_of_another_user_is_refused_by_name_as_well") {
        return;
    }
    let town = Town::new();
    town.file("mine/own", VICTIM);
    town.file("mine/roots", 0);
    town.file("mine/foreign", OTHER);
    town.file("theirs/foreign", OTHER);
    town.file("theirs/own", VICTIM);
    town.file("shared/own", VICTIM);
    town.file("shared/foreign", OTHER);
    for (link, target) in [
        ("mine/link", "../theirs/foreign"),
        ("theirs/link", "../mine/own"),
        ("shared/link", "../mine/own"),
    ] {
        symlink(target, town.at(link)).expect("linked");
    }
    // A link in a shared folder is its owner's to exchange.
    let done = tool("chown")
        .args(["-h", &OTHER.to_string()])
        .arg(town.at("shared/link"))
        .status();
    assert!(done.expect("chown runs").success());
    for (name, told) in [
        ("mine/own", None),
        ("mine/roots", None),
        ("shared/own", None),
        ("mine/foreign", Some("belongs to user 65533")),
        ("theirs/foreign", Some("belongs to user 65533")),
        ("shared/foreign", Some("belongs to user 65533")),
        ("theirs/own", Some("theirs, which belongs to user 65533")),
        ("mine/link", Some("belongs to user 65533")),
        ("theirs/link", Some("theirs, which belongs to user 65533")),
        // Most kernels do not follow it at all.
        ("shared/link", Some("shared/link")),
    ] {
        let path = town.at(name);
        let path = path.to_str().expect("a temp path is text");
        let (code, said) = town.check("mine", &["--config", path]);
        assert_eq!(code, Some(told.map_or(0, |_| 78)), "{name}: {said}");
        assert!(said.contains(told.unwrap_or_default()), "{name}: {said}");
    }
    std::fs::write(town.at("mine/foreign"), "s3cret").expect("written");
    for key in ["upstream.api_key_file", "intake.token_file"] {
        let (code, said) = town.check(
            "mine",
            &["--set", &format!("{key}={}", town.at("mine/foreign").display())],
        );
        assert_eq!(code, Some(78), "{key}: {said}");
        assert!(
            said.contains(key) && said.contains("belongs to user 65533"),
            "{key}: {said}"
        );
        assert!(!said.contains("s3cret"), "{said}");
    }
}
