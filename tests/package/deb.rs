//! The package itself, and newer ones made out of it.

use crate::support::skip::{missing, tool};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The source tree.
pub(crate) fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The package, built once for all tests. The error says why this machine cannot.
pub(crate) fn package() -> Result<&'static Path, String> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        if let Some(why) = missing(&[
            ("dpkg-deb", "dpkg"),
            ("dpkg-shlibdeps", "dpkg-dev"),
            ("strip", "binutils"),
        ]) {
            return Err(why);
        }
        if Command::new("cargo-deb").arg("--version").output().is_err() {
            return Err("cargo-deb is not installed (cargo install --locked cargo-deb)".into());
        }
        Ok(build())
    });
    built.as_deref().map_err(Clone::clone)
}

fn build() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("package");
    let _ = std::fs::remove_dir_all(&folder);
    let done = Command::new(tree().join("packaging/build.sh"))
        .args(["--binary", env!("CARGO_BIN_EXE_phosphod")])
        .arg("--output")
        .arg(&folder)
        // The binary with its debug information is large; how small its package gets is of no interest here.
        .args(["--", "--fast", "--compress-type", "gz"])
        .output()
        .expect("packaging/build.sh runs");
    assert!(done.status.success(), "{done:?}");
    let listed = std::fs::read_dir(&folder).expect("its output");
    let found: Vec<_> = listed.map(|entry| entry.expect("an entry").path()).collect();
    let [deb] = found.as_slice() else {
        panic!("one package, not {found:?}")
    };
    deb.clone()
}

/// The same package under a higher version, with a line more in its `config.toml`.
pub(crate) fn newer(version: &str, folder: &Path) -> PathBuf {
    let tree = folder.join("tree");
    let deb = folder.join(format!("phosphod_{version}.deb"));
    let package = package().expect("it was built before");
    run(tool("dpkg-deb").arg("-R").arg(package).arg(&tree));
    let edit = |path: &str, change: &dyn Fn(String) -> String| {
        let path = tree.join(path);
        let text = std::fs::read_to_string(&path).expect("a file of the package");
        std::fs::write(&path, change(text)).expect("write");
    };
    edit("DEBIAN/control", &|text| {
        let lines = text.lines().map(|line| match line.starts_with("Version: ") {
            true => format!("Version: {version}\n"),
            false => format!("{line}\n"),
        });
        lines.collect()
    });
    edit("etc/phosphod/config.toml", &|text| {
        format!("{text}# as of {version}\n")
    });
    run(tool("dpkg-deb").args(["-Znone", "-b"]).arg(&tree).arg(&deb));
    std::fs::remove_dir_all(&tree).expect("removed");
    deb
}

/// What a command printed; it must succeed.
pub(crate) fn run(command: &mut Command) -> String {
    let done = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {said}{complaint}");
    said
}
