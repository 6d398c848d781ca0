//! A container with a real systemd, on top of this machine's own root: what it writes goes with it.

use crate::memory_group::MemoryGroup;
use crate::skip::{missing, tool};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest that anything may take in it.
const PATIENCE: Duration = Duration::from_secs(180);

/// Between two looks.
const TICK: Duration = Duration::from_millis(20);

/// A booted container. Ended and unmounted when dropped, after a panic too.
pub(crate) struct Machine {
    nspawn: Option<Child>,
    leader: String,
    mounts: Vec<PathBuf>,
    /// Dropped last: the processes in the one and the mounts in the other are gone by then.
    group: Option<MemoryGroup>,
    folder: tempfile::TempDir,
}

impl Machine {
    /// Lays `install` over this machine's root and boots it. The error says why this machine cannot.
    pub(crate) fn boot(install: impl FnOnce(&Path)) -> Result<Self, String> {
        let tools = [
            ("systemd-nspawn", "systemd-container"),
            ("nsenter", "util-linux"),
            ("mount", "mount"),
            ("strace", "strace"),
            ("curl", "curl"),
        ];
        if let Some(why) = missing(&tools) {
            return Err(why);
        }
        if !Path::new("/usr/bin/python3").exists() {
            return Err("/usr/bin/python3 is not installed (Debian package python3)".into());
        }
        if !rustix::process::geteuid().is_root() {
            return Err("only root may boot a container".into());
        }
        let mut this = Self {
            nspawn: None,
            leader: String::new(),
            mounts: Vec::new(),
            group: MemoryGroup::make().ok(),
            folder: tempfile::tempdir().expect("a temp folder"),
        };
        this.lay_over_root(install)?;
        this.start()?;
        this.until("systemctl is-system-running | grep -qE 'running|degraded'");
        if this.group.is_some() {
            // Under version 1 of control groups systemd-nspawn leaves it without this one.
            let script =
                "mount -o remount,bind,rw /sys/fs/cgroup/memory 2>/dev/null && systemctl daemon-reexec";
            let _ = this.try_run(script);
        }
        Ok(this)
    }

    fn lay_over_root(&mut self, install: impl FnOnce(&Path)) -> Result<(), String> {
        if let Err(why) = self.overlay() {
            // A temporary folder that is an overlay itself can bear no second one.
            let tmpfs = tool("mount")
                .args(["-t", "tmpfs", "tmpfs"])
                .arg(self.folder.path())
                .status();
            if !tmpfs.is_ok_and(|status| status.success()) {
                return Err(why);
            }
            self.mounts.push(self.folder.path().to_owned());
            self.overlay()?;
        }
        install(&self.at("root"));
        Ok(())
    }

    fn overlay(&mut self) -> Result<(), String> {
        for name in ["upper", "work", "root"] {
            std::fs::create_dir_all(self.at(name)).expect("a folder");
        }
        let layers = format!(
            "lowerdir=/,upperdir={},workdir={}",
            self.at("upper").display(),
            self.at("work").display()
        );
        let root = self.at("root");
        let mount = tool("mount")
            .args(["-t", "overlay", "overlay", "-o", &layers])
            .arg(&root)
            .output()
            .expect("mount runs");
        if !mount.status.success() {
            return Err(format!(
                "no overlay: {}",
                String::from_utf8_lossy(&mount.stderr).trim()
            ));
        }
        self.mounts.push(root);
        Ok(())
    }

    fn start(&mut self) -> Result<(), String> {
        let console = std::fs::File::create(self.at("console")).expect("a file");
        let enter = match &self.group {
            Some(group) => format!("echo $$ > {}/cgroup.procs;", group.path().display()),
            None => String::new(),
        };
        let mut nspawn = tool("sh");
        nspawn
            .args(["-c", &format!("{enter} exec \"$@\""), "sh", "systemd-nspawn"])
            .args([
                "-q",
                "--register=no",
                "--keep-unit",
                "--private-network",
                "-b",
                "-D",
            ])
            .arg(self.at("root"))
            // Nothing of what this machine runs as services.
            .args(["--", "--unit=basic.target"])
            .stdout(console.try_clone().expect("a file"))
            .stderr(console);
        let nspawn = self.nspawn.insert(nspawn.spawn().expect("sh runs"));
        let children = format!("/proc/{0}/task/{0}/children", nspawn.id());
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            let found = std::fs::read_to_string(&children).unwrap_or_default();
            // Its first child is process 1 in there, once that has become systemd; until then it lays the ground.
            if let Some(leader) = found.split_whitespace().next()
                && std::fs::read_to_string(format!("/proc/{leader}/comm"))
                    .is_ok_and(|name| name.trim() == "systemd")
            {
                self.leader = leader.to_owned();
                return Ok(());
            }
            if nspawn.try_wait().expect("it can be waited for").is_some() {
                break;
            }
            std::thread::sleep(TICK);
        }
        Err(self.console())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn console(&self) -> String {
        let said = std::fs::read_to_string(self.at("console")).unwrap_or_default();
        format!("systemd-nspawn: {}", said.trim())
    }

    /// A shell in there, with a script to run.
    pub(crate) fn shell(&self, script: &str) -> Command {
        let mut command = tool("nsenter");
        command
            .args(["-t", &self.leader, "-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w"])
            .args([
                "env",
                "-i",
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                "sh",
                "-c",
                script,
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a script in there.
    pub(crate) fn try_run(&self, script: &str) -> Output {
        self.shell(script).output().expect("nsenter runs")
    }

    /// The same; it must succeed. Gives what it printed.
    pub(crate) fn run(&self, script: &str) -> String {
        let done = self.try_run(script);
        let said = String::from_utf8_lossy(&done.stdout).trim().to_owned();
        let complaint = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.success(),
            "{script}: {said} {complaint}\n{}",
            self.journal()
        );
        said
    }

    /// The same, with how long it took.
    pub(crate) fn timed(&self, script: &str) -> Duration {
        let since = Instant::now();
        self.run(script);
        since.elapsed()
    }

    /// Runs a script again and again until it succeeds.
    pub(crate) fn until(&self, script: &str) {
        let since = Instant::now();
        while !self.try_run(script).status.success() {
            assert!(
                since.elapsed() < PATIENCE,
                "never came about: {script}\n{}\n{}",
                self.journal(),
                self.console()
            );
            std::thread::sleep(TICK);
        }
    }

    /// Writes a file in there.
    pub(crate) fn write(&self, path: &str, text: &str, mode: &str) {
        use std::io::Write;
        let script = format!("mkdir -p $(dirname {path}) && install -m {mode} /dev/stdin {path}");
        let mut child = self
            .shell(&script)
            .stdin(Stdio::piped())
            .spawn()
            .expect("nsenter runs");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(text.as_bytes()).expect("it reads");
        drop(stdin);
        assert!(child.wait().expect("it ends").success(), "{path} is written");
    }

    /// A property of a unit.
    pub(crate) fn property(&self, unit: &str, name: &str) -> String {
        self.run(&format!("systemctl show --property={name} --value {unit}"))
    }

    /// The last lines of its journal.
    fn journal(&self) -> String {
        let done = self.try_run("journalctl -n 60 --no-pager");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut nspawn) = self.nspawn.take() {
            // A power cut is all that a container with an overlay needs. Its own child first: the rest goes with process 1.
            if !self.leader.is_empty() {
                let _ = tool("kill").args(["-KILL", &self.leader]).status();
            } else {
                let _ = nspawn.kill();
            }
            let _ = nspawn.wait();
        }
        for mount in self.mounts.iter().rev() {
            let _ = tool("umount").arg("--lazy").arg(mount).status();
        }
    }
}
