//! A control group of our own with a bound on memory, version 1 or 2, whichever this machine has.

use std::fs;
use std::path::{Path, PathBuf};

/// A memory control group; removed when dropped: declare it before the daemon in it.
pub(crate) struct Cgroup {
    path: PathBuf,
    names: &'static Names,
}

/// What the two versions call things.
struct Names {
    limit: &'static str,
    swap_limit: &'static str,
    no_limit: &'static str,
    /// File with a line `oom_kill N`.
    events: &'static str,
    /// Line of `memory.stat` with the bytes that cannot be taken back.
    anonymous: &'static str,
}

const V1: Names = Names {
    limit: "memory.limit_in_bytes",
    swap_limit: "memory.memsw.limit_in_bytes",
    no_limit: "-1",
    events: "memory.oom_control",
    anonymous: "rss",
};

const V2: Names = Names {
    limit: "memory.max",
    swap_limit: "memory.swap.max",
    no_limit: "max",
    events: "memory.events",
    anonymous: "anon",
};

impl Cgroup {
    /// Makes one. The error says why this machine cannot.
    pub(crate) fn make() -> Result<Self, String> {
        let (root, names) = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            ("/sys/fs/cgroup", &V2)
        } else {
            ("/sys/fs/cgroup/memory", &V1)
        };
        let path = Path::new(root).join(format!("phosphod-faults-{}", std::process::id()));
        let tell =
            |what: &Path, e: std::io::Error| format!("no memory control group: {}: {e}", what.display());
        fs::create_dir(&path).map_err(|e| tell(&path, e))?;
        let this = Self { path, names };
        // Needed under version 2 only, and often done already.
        let _ = fs::write(Path::new(root).join("cgroup.subtree_control"), "+memory");
        let limit = this.path.join(names.limit);
        match limit.exists() {
            true => Ok(this),
            false => Err(format!(
                "no memory control group: there is no {}",
                limit.display()
            )),
        }
    }

    /// A command line that moves itself in and becomes the command that follows it.
    pub(crate) fn entering(&self) -> Vec<String> {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.path.display());
        ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
    }

    /// Leaves as little room above what cannot be taken back as the kernel agrees to, from `room` bytes on.
    pub(crate) fn squeeze(&self, room: u64) {
        let steps = (0..256).map(|step| self.anonymous_bytes() + room + step * 1024 * 1024);
        for limit in steps {
            if fs::write(self.path.join(self.names.limit), limit.to_string()).is_ok() {
                // Not everywhere is there any swap to bound.
                let swap = if self.names.limit == V1.limit {
                    limit.to_string()
                } else {
                    "0".into()
                };
                let _ = fs::write(self.path.join(self.names.swap_limit), swap);
                return;
            }
        }
        panic!("no limit was taken for {}", self.path.display());
    }

    /// Lifts the limit.
    pub(crate) fn relax(&self) {
        // Swap first: it may not be below the other.
        let _ = fs::write(self.path.join(self.names.swap_limit), self.names.no_limit);
        fs::write(self.path.join(self.names.limit), self.names.no_limit).expect("a limit can be lifted");
    }

    /// How many processes the kernel has killed in it.
    pub(crate) fn killed(&self) -> u64 {
        self.number(self.names.events, "oom_kill")
    }

    fn anonymous_bytes(&self) -> u64 {
        self.number("memory.stat", self.names.anonymous)
    }

    fn number(&self, file: &str, name: &str) -> u64 {
        let text = fs::read_to_string(self.path.join(file)).expect("a readable control group");
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {file}: {text}"))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel lets go of a dead process a little after it was waited for.
        for _ in 0..1_000 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::yield_now();
        }
    }
}
