//! The real binary as a child, and what the system says about it.
use super::Failure;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A daemon that ends with the value.
pub(crate) struct Daemon(pub(crate) Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Daemon {
    /// Starts the binary with its data under `folder`, and gives the address that it logs.
    pub(crate) fn start(
        binary: &str,
        folder: &Path,
        upstream: &str,
        more: &[String],
    ) -> Result<(Daemon, String), Failure> {
        let mut command = Command::new(binary);
        command
            .arg("run")
            .env_clear()
            .env("PHOSPHO_API_KEY", "bench")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let fixed = [
            "intake.http=127.0.0.1:0",
            "intake.unix=",
            "spool.path=data",
            "log.format=json",
            &format!("upstream.base_url={upstream}"),
        ];
        for pair in fixed.into_iter().chain(more.iter().map(String::as_str)) {
            command.args(["--set", pair]);
        }
        let mut child = command.spawn()?;
        let stderr = child.stderr.take().ok_or("no stderr")?;
        let daemon = Daemon(child);
        let mut lines = BufReader::new(stderr).lines();
        for line in lines.by_ref() {
            let line: serde_json::Value = serde_json::from_str(&line?)?;
            if line["message"] == "accepting" {
                let address = line["http"].as_str().ok_or("no address")?.to_owned();
                std::thread::spawn(move || lines.for_each(drop));
                return Ok((daemon, address));
            }
        }
        Err("the daemon ended before it accepted".into())
    }

    /// The most memory that it ever had resident.
    pub(crate) fn peak_mib(&self) -> Result<f64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: f64 = line.ok_or("no VmHWM")?.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }

    /// Its memory.
    pub(crate) fn resident_mib(&self) -> f64 {
        super::resident_mib(&self.0.id().to_string())
    }
}

/// The answer to a GET, head and body.
pub(crate) fn get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Bytes that a folder takes on the disk. What vanishes meanwhile takes none.
pub(crate) fn disk_bytes(path: &Path) -> std::io::Result<u64> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry?;
        bytes += match entry.metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Ok(about) if about.is_dir() => disk_bytes(&entry.path())?,
            about => about?.blocks() * 512,
        };
    }
    Ok(bytes)
}
