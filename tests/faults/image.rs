//! File systems of our own, in a file each, that can lose power.

use crate::support::skip::tool;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One mounted image. Unmounted when dropped, after a panic too: declare it before the daemon that works on it.
pub(crate) struct Image {
    folder: tempfile::TempDir,
    mounted: bool,
}

impl Image {
    /// Makes and mounts a file system of so many MiB with `mkfs`, such as `mkfs.ext4 -q`. The error says why this
    /// machine cannot.
    pub(crate) fn make(mkfs: &[&str], mib: u64) -> Result<Self, String> {
        let mut this = Self {
            folder: tempfile::tempdir().expect("a temp folder"),
            mounted: false,
        };
        std::fs::create_dir(this.path()).expect("a folder to mount on");
        let file = std::fs::File::create(this.file()).expect("a file");
        file.set_len(mib * 1024 * 1024).expect("a sparse file");
        run(tool(mkfs[0]).args(&mkfs[1..]).arg(this.file()))?;
        this.mount()?;
        Ok(this)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// A folder beside it on the machine's own disk.
    pub(crate) fn beside(&self) -> &Path {
        self.folder.path()
    }

    fn mount(&mut self) -> Result<(), String> {
        run(tool("mount")
            .args(["-o", "loop"])
            .arg(self.file())
            .arg(self.path()))?;
        self.mounted = true;
        Ok(())
    }

    /// As a power cut would: nothing that was not synced gets to the disk any more, journal included.
    pub(crate) fn cut_power(&self) {
        run(tool("xfs_io").args(["-x", "-c", "shutdown"]).arg(self.path())).expect("it can be shut down");
    }

    /// Mounts it again, with what is really on it. Nobody may be using it.
    pub(crate) fn remount(&mut self) {
        run(tool("umount").arg(self.path())).expect("nobody uses it");
        self.mounted = false;
        self.mount().expect("its journal can be replayed");
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.mounted && run(tool("umount").arg(self.path())).is_err() {
            // Somebody still holds it: it goes, with its loop device, once they let go.
            let _ = run(tool("umount").arg("--lazy").arg(self.path()));
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command.output().map_err(|e| format!("{name}: {e}"))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{name}: {}",
            String::from_utf8_lossy(&done.stderr).trim()
        )),
    }
}
