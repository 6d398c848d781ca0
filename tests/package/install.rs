//! What is in the package, and what is there once it is installed.

use crate::deb::{package, run};
use crate::root::Root;
use crate::support::skip::{missing, skip, tool};
use std::path::Path;

/// The package and a root to install it in; says that the test is skipped where there cannot be one.
pub(crate) fn ready(test: &str) -> Option<(&'static Path, Root)> {
    match package().and_then(|deb| Ok((deb, Root::lay()?))) {
        Ok(ready) => Some(ready),
        Err(why) => {
            skip(test, &why);
            None
        }
    }
}

#[test]
fn the_package_holds_each_file_with_its_owner_and_mode() {
    const NAME: &str = "the_package_holds_each_file_with_its_owner_and_mode";
    let deb = match package() {
        Ok(deb) => deb,
        Err(why) => return skip(NAME, &why),
    };
    let listed = run(tool("dpkg-deb").arg("-c").arg(deb));
    for (path, mode) in [
        ("usr/bin/phosphod", "-rwxr-xr-x"),
        ("usr/lib/systemd/system/phosphod.service", "-rw-r--r--"),
        ("usr/lib/systemd/system/phosphod.socket", "-rw-r--r--"),
        ("etc/phosphod/config.toml", "-rw-r-----"),
        ("etc/phosphod/phosphod.env", "-rw-------"),
        ("usr/share/man/man1/phosphod.1.gz", "-rw-r--r--"),
        ("usr/share/man/man1/phosphod-dead-requeue.1.gz", "-rw-r--r--"),
        ("usr/share/man/man5/phosphod.toml.5.gz", "-rw-r--r--"),
        ("usr/share/bash-completion/completions/phosphod", "-rw-r--r--"),
        ("usr/share/zsh/vendor-completions/_phosphod", "-rw-r--r--"),
        ("usr/share/fish/vendor_completions.d/phosphod.fish", "-rw-r--r--"),
        ("usr/share/doc/phosphod/copyright", "-rw-r--r--"),
        ("usr/share/doc/phosphod/changelog.gz", "-rw-r--r--"),
        ("usr/share/doc/phosphod/changelog.Debian.gz", "-rw-r--r--"),
    ] {
        let line = listed.lines().find(|line| line.ends_with(&format!("./{path}")));
        let line = line.unwrap_or_else(|| panic!("{path} is not in it:\n{listed}"));
        assert!(line.starts_with(&format!("{mode} 0/0 ")), "{line}");
    }
    let conffiles = run(tool("dpkg-deb").args(["-I"]).arg(deb).arg("conffiles"));
    let mut conffiles: Vec<_> = conffiles.lines().collect();
    conffiles.sort_unstable();
    assert_eq!(
        conffiles,
        ["/etc/phosphod/config.toml", "/etc/phosphod/phosphod.env"]
    );
    let needs = run(tool("dpkg-deb").arg("-f").arg(deb).arg("Depends"));
    assert!(
        needs.contains("libc6 (>= ") && needs.contains("ca-certificates"),
        "{needs}"
    );
}

#[test]
fn a_first_installation_is_enabled_works_and_says_where_the_key_goes() {
    const NAME: &str = "a_first_installation_is_enabled_works_and_says_where_the_key_goes";
    let Some((deb, root)) = ready(NAME) else { return };
    let said = root.install(deb, "");
    let told: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with("phosphod: "))
        .collect();
    assert_eq!(told.len(), 1, "{said}");
    assert!(told[0].contains("/etc/phosphod/api-key"), "{said}");
    for (target, unit) in [("multi-user", "service"), ("sockets", "socket")] {
        let link = format!("/etc/systemd/system/{target}.target.wants/phosphod.{unit}");
        assert!(root.has(&link), "{link} is not there");
    }

    let version = root.must("phosphod --version");
    assert_eq!(version.trim(), concat!("phosphod ", env!("CARGO_PKG_VERSION")));
    // As it is found by default too, from where the service runs.
    let checked = root.must("cd / && phosphod config check");
    let mut lines = checked.lines();
    assert_eq!(lines.next(), Some("ok: /etc/phosphod/config.toml"));
    let notes: Vec<&str> = lines.collect();
    assert!(
        notes.len() == 2 && notes[0].contains("PHOSPHO_API_KEY") && notes[1].contains("PHOSPHO_PROJECT_ID"),
        "{checked}"
    );
    root.must("phosphod config check --config /etc/phosphod/config.toml");
    // Nobody else reads what may be a key; the service's user does.
    assert_eq!(
        root.must("stat -c '%a %U:%G' /etc/phosphod/config.toml"),
        "640 root:phosphod\n"
    );
    let as_user = |user: &str| {
        format!("cd / && setpriv --reuid {user} --regid {user} --clear-groups phosphod config check")
    };
    root.must(&as_user("phosphod"));
    let refused = root.run(&as_user("65534"));
    assert!(
        !refused.success && refused.said.contains("cannot be read"),
        "{refused:?}"
    );
    assert!(
        root.must("man phosphod").contains("PHOSPHO_API_KEY"),
        "phosphod(1)"
    );
    assert!(root.must("man 5 phosphod.toml").contains("max_in_flight"));
    root.must(
        "bash -c '. /usr/share/bash-completion/completions/phosphod && complete -p phosphod && \
         COMP_WORDS=(phosphod sp) COMP_CWORD=1 && _phosphod phosphod sp phosphod && [[ \" ${COMPREPLY[*]} \" == *\" spool \"* ]]'",
    );
}

#[test]
fn the_key_that_was_there_first_is_not_asked_for() {
    const NAME: &str = "the_key_that_was_there_first_is_not_asked_for";
    let Some((deb, root)) = ready(NAME) else { return };
    root.must("mkdir /etc/phosphod && umask 077 && echo k >/etc/phosphod/api-key");
    let said = root.install(deb, "");
    assert!(!said.contains("phosphod: "), "{said}");
    assert_eq!(root.must("cat /etc/phosphod/api-key"), "k\n");
}

#[test]
fn lintian_finds_no_error() {
    const NAME: &str = "lintian_finds_no_error";
    let deb = match package() {
        Ok(deb) => deb,
        Err(why) => return skip(NAME, &why),
    };
    if let Some(why) = missing(&[("lintian", "lintian")]) {
        return skip(NAME, &why);
    }
    let done = tool("lintian")
        .args(["--allow-root", "--tag-display-limit", "0", "--fail-on", "error"])
        .arg(deb)
        .output()
        .expect("lintian runs");
    let said = String::from_utf8_lossy(&done.stdout);
    let complaint = String::from_utf8_lossy(&done.stderr);
    for line in said.lines().filter(|line| line.starts_with("W: ")) {
        eprintln!("{line}");
    }
    assert!(done.status.success(), "{said}{complaint}");
}
