//! A root that is thrown away: this machine's own, with a layer over it that takes what is written.

use crate::support::skip::{missing, tool};
use std::path::{Path, PathBuf};

/// The layer. Each script is run in a mount namespace of its own, so nothing stays mounted, whatever happens.
pub(crate) struct Root {
    folder: tempfile::TempDir,
}

/// What a script did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) success: bool,
    /// What it wrote to stdout and stderr.
    pub(crate) said: String,
}

impl Root {
    /// Lays one out. The error says why this machine cannot.
    pub(crate) fn lay() -> Result<Self, String> {
        let tools = [
            ("unshare", "util-linux"),
            ("mount", "mount"),
            ("chroot", "coreutils"),
            ("dpkg", "dpkg"),
            ("deb-systemd-helper", "init-system-helpers"),
            ("man", "man-db"),
            ("update-ca-certificates", "ca-certificates"),
        ];
        if let Some(why) = missing(&tools) {
            return Err(why);
        }
        if !rustix::process::geteuid().is_root() {
            return Err("only root may install a package".into());
        }
        let this = Self {
            folder: tempfile::tempdir().expect("a temp folder"),
        };
        for name in ["upper", "work", "root"] {
            std::fs::create_dir(this.folder.path().join(name)).expect("a folder");
        }
        let tried = this.run("true");
        if !tried.success {
            return Err(format!(
                "no root can be laid over this one: {}",
                tried.said.trim()
            ));
        }
        // What this machine has of it.
        this.must("! dpkg -s phosphod >/dev/null 2>&1 || dpkg --purge phosphod");
        // Images of containers leave manual pages out. Indexing them takes the longest by far.
        this.must("rm -rf /etc/dpkg/dpkg.cfg.d/* /var/lib/man-db/auto-update /etc/phosphod /var/lib/phosphod /run/systemd");
        Ok(this)
    }

    /// Runs a shell's script in it.
    pub(crate) fn run(&self, script: &str) -> Done {
        let enter = "cd \"$1\" && mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root \
            && mount -t proc proc root/proc && mount --rbind /dev root/dev && exec chroot root \
            env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive sh -c \"$2\" 2>&1";
        let done = tool("unshare")
            .args(["--mount", "sh", "-c", enter, "sh"])
            .arg(self.folder.path())
            .arg(script)
            .output()
            .expect("unshare runs");
        let mut said = String::from_utf8_lossy(&done.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&done.stderr));
        Done {
            success: done.status.success(),
            said,
        }
    }

    /// The same; it must succeed. Gives what it said.
    pub(crate) fn must(&self, script: &str) -> String {
        let done = self.run(script);
        assert!(done.success, "{script}: {}", done.said);
        done.said
    }

    /// Puts a file in, and says where it is there.
    pub(crate) fn put(&self, file: &Path) -> PathBuf {
        let name = file.file_name().expect("a file has a name");
        let inside = Path::new("/root").join(name);
        let upper = self.folder.path().join("upper/root");
        std::fs::create_dir_all(&upper).expect("a folder");
        std::fs::copy(file, upper.join(name)).expect("copied");
        inside
    }

    /// Installs a package with further options of dpkg.
    pub(crate) fn install(&self, deb: &Path, options: &str) -> String {
        let inside = self.put(deb);
        self.must(&format!(
            "dpkg --force-unsafe-io {options} -i {}",
            inside.display()
        ))
    }

    /// Whether a path is there, links that lead nowhere included.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.run(&format!("test -e {path} -o -L {path}")).success
    }
}
