//! "systemd" of README.md, in a root that is thrown away. How the service runs is in `tests/boot/`.

use crate::document::Document;
use crate::root::Root;
use crate::support::skip::skip;
use crate::world::tree;
use std::path::Path;

/// Runs both blocks. The first waits for the key on its input in the end.
pub(crate) fn installation(readme: &mut Document) {
    let install = readme.take("systemd", "sh", &[]);
    // No systemd runs in that root, so nothing can be started in it.
    let enable = readme.take("systemd", "sh", &[("enable --now", "enable")]);
    let root = match Root::lay() {
        Ok(root) => root,
        Err(why) => return skip("readme::systemd", &why),
    };
    let binary = root.put(Path::new(env!("CARGO_BIN_EXE_phosphod")));
    root.must(&format!(
        "mkdir -p /srv/tree/target/release /srv/tree/systemd && cp {} /srv/tree/target/release/phosphod",
        binary.display()
    ));
    for unit in ["phosphod.service", "phosphod.socket"] {
        let unit = root.put(&tree("systemd").join(unit));
        root.must(&format!("cp {} /srv/tree/systemd/", unit.display()));
    }
    // As if it were pasted: bash reads no further than the line that it runs, and a command can read what follows.
    root.must(&format!(
        "cd /srv/tree && cat >/srv/block <<'BLOCK'\nset -eu\n{install}the-key\nBLOCK\ncat /srv/block | bash"
    ));
    let modes = "stat -c '%a %n' /usr/bin/phosphod /etc/systemd/system/phosphod.service \
                 /etc/systemd/system/phosphod.socket /etc/phosphod/api-key";
    assert_eq!(
        root.must(modes),
        "755 /usr/bin/phosphod\n644 /etc/systemd/system/phosphod.service\n644 /etc/systemd/system/phosphod.socket\n\
         600 /etc/phosphod/api-key\n"
    );
    assert_eq!(root.must("cat /etc/phosphod/api-key"), "the-key\n");
    assert_eq!(
        root.must("cat /etc/phosphod/phosphod.env"),
        "PHOSPHO_PROJECT_ID=your-project-id\n"
    );
    root.must(
        "set -a && . /etc/phosphod/phosphod.env && cd / && phosphod config check --set upstream.api_key_file=/etc/phosphod/api-key",
    );

    root.must(&format!("cd /srv/tree && {enable}"));
    for (target, unit) in [("multi-user", "service"), ("sockets", "socket")] {
        let link = format!("/etc/systemd/system/{target}.target.wants/phosphod.{unit}");
        assert!(root.has(&link), "{link} is not there");
    }
}
