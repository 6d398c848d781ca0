//! A control group of its own for the container, so that the systemd in it can make further ones and set their limits.

use std::path::{Path, PathBuf};

/// A group with a bound on memory, version 1 or 2. Removed when dropped, with those that were made in it.
pub(crate) struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// Makes one. The error says why this machine cannot.
    pub(crate) fn make() -> Result<Self, String> {
        let version_2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let root = if version_2 {
            "/sys/fs/cgroup"
        } else {
            "/sys/fs/cgroup/memory"
        };
        let path = Path::new(root).join(format!("phosphod-boot-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|e| format!("no control group {}: {e}", path.display()))?;
        if version_2 {
            // Done already on most machines.
            let _ = std::fs::write(Path::new(root).join("cgroup.subtree_control"), "+memory +pids");
        }
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // The kernel lets go of dead processes a little after they were waited for.
        for _ in 0..1_000 {
            remove(&self.0);
            if !self.0.exists() {
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// Groups hold files that cannot be removed, and go without them: from the innermost outwards.
fn remove(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(group);
}
