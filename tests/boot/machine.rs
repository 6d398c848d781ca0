//! A container with a real systemd, on top of this machine's own root: what it writes goes with it.

use crate::skip::{missing, tool};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest that anything may take in it.
const PATIENCE: Duration = Duration::from_secs(120);

/// A booted container. Ended and unmounted when dropped, after a panic too.
pub(crate) struct Machine {
    folder: tempfile::TempDir,
    nspawn: Option<Child>,
    leader: String,
}

impl Machine {
    /// Lays `install` over this machine's root and boots it. The error says why this machine cannot.
    pub(crate) fn boot(install: impl FnOnce(&Path)) -> Result<Self, String> {
        let tools = [
            ("systemd-nspawn", "systemd-container"),
            ("nsenter", "util-linux"),
            ("mount", "mount"),
            ("python3", "python3"),
            ("curl", "curl"),
        ];
        if let Some(why) = missing(&tools) {
            return Err(why);
        }
        if !rustix::process::geteuid().is_root() {
            return Err("only root may boot a container".into());
        }
        let mut this = Self {
            folder: tempfile::tempdir().expect("a temp folder"),
            nspawn: None,
            leader: String::new(),
        };
        for name in ["upper", "work", "root"] {
            std::fs::create_dir(this.at(name)).expect("a folder");
        }
        install(&this.at("upper"));
        let layers = format!(
            "lowerdir=/,upperdir={},workdir={}",
            this.at("upper").display(),
            this.at("work").display()
        );
        let mount = tool("mount")
            .args(["-t", "overlay", "overlay", "-o", &layers])
            .arg(this.at("root"))
            .output()
            .expect("mount runs");
        if !mount.status.success() {
            return Err(format!("no overlay: {}", String::from_utf8_lossy(&mount.stderr).trim()));
        }
        let console = std::fs::File::create(this.at("console")).expect("a file");
        let nspawn = tool("systemd-nspawn")
            .args(["-q", "--register=no", "--keep-unit", "--private-network", "-b", "-D"])
            .arg(this.at("root"))
            .stdout(console.try_clone().expect("a file"))
            .stderr(console)
            .spawn()
            .expect("systemd-nspawn runs");
        this.leader = this.leader_of(nspawn.id()).ok_or_else(|| this.console())?;
        this.nspawn = Some(nspawn);
        this.until("systemctl is-system-running | grep -qE 'running|degraded'");
        Ok(this)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn console(&self) -> String {
        let said = std::fs::read_to_string(self.at("console")).unwrap_or_default();
        format!("systemd-nspawn: {}", said.trim())
    }

    /// The process that is number 1 in there.
    fn leader_of(&self, nspawn: u32) -> Option<String> {
        let children = format!("/proc/{nspawn}/task/{nspawn}/children");
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            let found = std::fs::read_to_string(&children).ok()?;
            if let Some(leader) = found.split_whitespace().next() {
                return Some(leader.to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// A shell in there, with a script to run.
    pub(crate) fn shell(&self, script: &str) -> Command {
        let mut command = tool("nsenter");
        command
            .args(["-t", &self.leader, "-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w"])
            .args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "sh", "-c", script])
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
        assert!(done.status.success(), "{script}: {said} {complaint}\n{}", self.journal());
        said
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
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The last lines of its journal.
    fn journal(&self) -> String {
        let done = self.try_run("journalctl -n 40 --no-pager");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut nspawn) = self.nspawn.take() {
            // A power cut is all that a container with an overlay needs.
            let _ = tool("kill").args(["-KILL", &self.leader]).status();
            let _ = nspawn.wait();
        }
        let _ = tool("umount").arg("--lazy").arg(self.at("root")).status();
    }
}
