//! Upgrades, removal and purge; and what the scripts ask of systemd, where there is one.

use crate::deb::newer;
use crate::install::ready;
use crate::root::Root;
use crate::support::executable;
use std::path::Path;

#[test]
fn an_upgrade_keeps_a_file_that_was_edited_and_replaces_one_that_was_not() {
    const NAME: &str = "an_upgrade_keeps_a_file_that_was_edited_and_replaces_one_that_was_not";
    let Some((deb, root)) = ready(NAME) else { return };
    let folder = tempfile::tempdir().expect("a temp folder");
    root.install(deb, "");
    root.must("echo PHOSPHO_PROJECT_ID=k >>/etc/phosphod/phosphod.env");
    let said = root.install(&newer("9.0-1", folder.path()), "");
    assert!(!said.contains("phosphod: "), "it asks for the key again: {said}");
    let config = |root: &Root| root.must("tail -n 1 /etc/phosphod/config.toml");
    assert_eq!(
        config(&root),
        "# as of 9.0-1\n",
        "nobody edited it, so it is replaced"
    );
    assert_eq!(
        root.must("stat -c '%a %U:%G' /etc/phosphod/config.toml"),
        "640 root:phosphod\n"
    );
    assert_eq!(
        root.must("tail -n 1 /etc/phosphod/phosphod.env; stat -c %a /etc/phosphod/phosphod.env"),
        "PHOSPHO_PROJECT_ID=k\n600\n",
        "edited, so it stays, readable by root alone"
    );

    root.must("echo '# mine' >>/etc/phosphod/config.toml");
    root.install(&newer("9.1-1", folder.path()), "--force-confdef --force-confold");
    assert_eq!(config(&root), "# mine\n");
    assert_eq!(
        root.must("tail -n 1 /etc/phosphod/config.toml.dpkg-dist"),
        "# as of 9.1-1\n",
        "the new one lies beside it"
    );
    assert_eq!(
        root.must("dpkg-query -W -f '${Version} ${Status}' phosphod"),
        "9.1-1 install ok installed"
    );
}

/// Data as the service leaves it: in private/, with a link to it. One event is in it.
fn with_data(root: &Root) {
    root.must(
        "mkdir -p -m 700 /var/lib/private && ln -s private/phosphod /var/lib/phosphod && mkdir /var/lib/private/phosphod && \
         echo '{\"input\": \"x\", \"project_id\": \"p\"}' | phosphod spool import --path /var/lib/phosphod && \
         echo secret >/etc/phosphod/token",
    );
}

#[test]
fn a_removal_keeps_data_and_configuration_and_a_purge_takes_all_away() {
    const NAME: &str = "a_removal_keeps_data_and_configuration_and_a_purge_takes_all_away";
    let Some((deb, root)) = ready(NAME) else { return };
    root.install(deb, "");
    with_data(&root);
    root.must("dpkg --force-unsafe-io --remove phosphod");
    for gone in [
        "/usr/bin/phosphod",
        "/usr/lib/systemd/system/phosphod.service",
        "/usr/share/man/man1/phosphod.1.gz",
    ] {
        assert!(!root.has(gone), "{gone} is still there");
    }
    for kept in ["config.toml", "phosphod.env", "token"] {
        assert!(root.has(&format!("/etc/phosphod/{kept}")), "{kept} is gone");
    }

    // It comes back to its data, and is enabled again.
    root.install(deb, "");
    let info = root.must("phosphod spool info --json --path /var/lib/phosphod");
    let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
    assert_eq!(info["ledger"]["queued"], 1, "{info}");
    assert_eq!(
        root.must("readlink /etc/systemd/system/multi-user.target.wants/phosphod.service"),
        "/lib/systemd/system/phosphod.service\n"
    );

    root.must("dpkg --force-unsafe-io --purge phosphod");
    let left = root.must("find /etc /run /usr /var -xdev -path '*/phosphod*'");
    assert_eq!(left, "", "a purge leaves nothing");
    assert!(!root.run("dpkg -s phosphod").success);
}

#[test]
fn a_purge_at_once_takes_what_was_never_delivered_too() {
    const NAME: &str = "a_purge_at_once_takes_what_was_never_delivered_too";
    let Some((deb, root)) = ready(NAME) else { return };
    root.install(deb, "");
    with_data(&root);
    root.must("dpkg --force-unsafe-io --purge phosphod");
    for gone in ["/var/lib/phosphod", "/var/lib/private/phosphod", "/etc/phosphod"] {
        assert!(!root.has(gone), "{gone} is still there");
    }
    assert!(root.has("/var/lib/private"), "which others use too");
}

/// A `systemctl` that notes what it is asked, in a root that looks as if systemd ran it. Units are enabled as their links say, and the
/// real one makes these: that needs no running systemd.
fn with_systemctl(root: &Root) {
    let script = r#"for unit; do :; done
case "$*" in
    *is-enabled*) [ -n "$(find /etc/systemd/system -name "$unit" -path '*.wants/*')" ] && echo enabled ;;
    *is-active*) [ -e /active ] ;;
    *preset*) exec /usr/bin/systemctl "$@" ;;
    *phosphod.*) echo "$*" >>/asked; [ ! -e /broken ] ;;
esac
"#;
    let folder = tempfile::tempdir().expect("a temp folder");
    let file = folder.path().join("systemctl");
    executable::script(&file, script);
    root.put(&file);
    root.must(
        "mkdir -p /run/systemd/system && install -m 755 /root/systemctl /usr/local/bin/ && rm -f /usr/sbin/policy-rc.d",
    );
}

/// What it was asked since the last time: the action and its units.
fn asked(root: &Root) -> Vec<String> {
    let said = root.must("touch /asked; sed 's/--[a-z]* //g' /asked; rm /asked");
    said.lines().map(str::to_owned).collect()
}

#[test]
fn an_upgrade_restarts_the_service_and_leaves_the_socket_listening() {
    const NAME: &str = "an_upgrade_restarts_the_service_and_leaves_the_socket_listening";
    let Some((deb, root)) = ready(NAME) else { return };
    let folder = tempfile::tempdir().expect("a temp folder");
    with_systemctl(&root);
    root.install(deb, "");
    let start = ["start phosphod.socket", "restart phosphod.service"];
    assert_eq!(asked(&root), start, "a first installation starts both");

    root.must("touch /active");
    root.install(&newer("9.0-1", folder.path()), "");
    assert_eq!(
        asked(&root),
        start,
        "start does nothing to a socket that listens; nothing stops it"
    );

    // A configuration that the new version does not take.
    root.must("touch /broken");
    let said = root.install(&newer("9.1-1", folder.path()), "");
    assert_eq!(asked(&root), start);
    assert!(said.contains("phosphod: the service did not start"), "{said}");

    root.must("rm /broken && dpkg --force-unsafe-io --remove phosphod");
    assert_eq!(asked(&root), ["stop phosphod.socket phosphod.service"]);
    root.must("dpkg --force-unsafe-io --purge phosphod");
    assert_eq!(asked(&root), [""; 0], "they were stopped before");
}

#[test]
fn an_upgrade_starts_nothing_that_the_administrator_disabled() {
    const NAME: &str = "an_upgrade_starts_nothing_that_the_administrator_disabled";
    let Some((deb, root)) = ready(NAME) else { return };
    let folder = tempfile::tempdir().expect("a temp folder");
    with_systemctl(&root);
    root.install(deb, "");
    asked(&root);
    let links = [
        "multi-user.target.wants/phosphod.service",
        "sockets.target.wants/phosphod.socket",
    ];
    for link in links {
        root.must(&format!("rm /etc/systemd/system/{link}"));
    }
    root.install(&newer("9.0-1", folder.path()), "");
    assert_eq!(asked(&root), [""; 0]);
    for link in links {
        let link = Path::new("/etc/systemd/system").join(link);
        assert!(!root.has(&link.to_string_lossy()), "{link:?} was enabled again");
    }
}
