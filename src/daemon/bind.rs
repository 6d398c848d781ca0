//! Opening the listening sockets: TCP, and the Unix socket with its mode, group and stale predecessor.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, TcpSocket, UnixListener};

/// Why a socket could not be opened. Each sentence names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process listens on the port.
    #[error("{0} is in use: stop what listens there (`ss -ltnp` shows it), or set {1} to another port")]
    PortInUse(SocketAddr, &'static str),
    /// The address cannot be listened on for another reason.
    #[error("cannot listen on {0}: {2}; set {1} to an address of this machine")]
    Tcp(SocketAddr, &'static str, io::Error),
    /// A living process answers on the socket.
    #[error(
        "the socket {} is in use by another process: stop it, or set intake.unix to another path", .0.display()
    )]
    SocketInUse(PathBuf),
    /// Something that is no socket stands at the path; it is left alone.
    #[error(
        "{} exists and is not a socket: it is left untouched; remove it, or set intake.unix to another path", .0.display()
    )]
    NotASocket(PathBuf),
    /// The Unix socket cannot be made for another reason.
    #[error("cannot listen on the socket {}: {}; set intake.unix to a path in a folder that this user may write", .0.display(), .1)]
    Unix(PathBuf, io::Error),
    /// Mode or group could not be set.
    #[error("cannot set mode {:04o} or the group of the socket {}: {}; check intake.unix_mode and intake.unix_group", .1, .0.display(), .2)]
    Access(PathBuf, u32, io::Error),
}

/// Connections that the kernel holds while the daemon is busy; a burst of clients is not refused.
const BACKLOG: u32 = 4096;

/// Listens on a TCP address, which the configuration `key` names. Needs a runtime.
pub fn tcp(address: SocketAddr, key: &'static str) -> Result<TcpListener, BindError> {
    let fault = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::PortInUse(address, key),
        _ => BindError::Tcp(address, key, error),
    };
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(fault)?;
    // A restart must not wait for the old connections to fade.
    socket.set_reuseaddr(true).map_err(fault)?;
    socket.bind(address).map_err(fault)?;
    socket.listen(BACKLOG).map_err(fault)
}

/// A Unix socket that was made here and is removed with this value.
#[derive(Debug)]
pub struct OwnedSocket {
    path: PathBuf,
}

impl Drop for OwnedSocket {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Listens on a Unix socket. The caller holds the data folder's lock, so no second daemon of the same folder
/// does this at the same time. A socket that nobody answers on is removed first; a symlink is never followed.
pub fn unix(path: &Path, mode: u32, group: Option<u32>) -> Result<(UnixListener, OwnedSocket), BindError> {
    remove_stale(path)?;
    let fault = |error| BindError::Unix(path.to_owned(), error);
    let listener = UnixListener::bind(path).map_err(fault)?;
    let owned = OwnedSocket {
        path: path.to_owned(),
    };
    let access = |error| BindError::Access(path.to_owned(), mode, error);
    set_access(path, mode, group).map_err(access)?;
    Ok((listener, owned))
}

/// Gives the socket that was just made its group and mode. The umask let nobody else in so far; the group comes first,
/// so that the mode never opens it to a wrong one. Whoever may write to the folder can put something else at the path
/// meanwhile, so the file is opened once, checked, and changed by what was opened.
#[cfg(target_os = "linux")]
fn set_access(path: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    use rustix::fs::{AtFlags, FileType, Mode, OFlags};
    use std::os::fd::AsRawFd;

    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let socket = rustix::fs::open(path, flags, Mode::empty())?;
    let found = rustix::fs::fstat(&socket)?;
    let ours = rustix::process::geteuid().as_raw();
    if FileType::from_raw_mode(found.st_mode) != FileType::Socket || found.st_uid != ours {
        return Err(io::Error::other("something else was put in its place"));
    }
    if let Some(group) = group {
        let group = rustix::fs::Gid::from_raw(group);
        rustix::fs::chownat(&socket, "", None, Some(group), AtFlags::EMPTY_PATH)?;
    }
    // There is no fchmod for a file that is opened as a path alone; /proc leads to the same file.
    let opened = format!("/proc/self/fd/{}", socket.as_raw_fd());
    std::fs::set_permissions(opened, std::fs::Permissions::from_mode(mode))
}

/// The same by the path, where no file can be opened as a path alone.
#[cfg(not(target_os = "linux"))]
fn set_access(path: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    if group.is_some() {
        std::os::unix::fs::lchown(path, None, group)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

fn remove_stale(path: &Path) -> Result<(), BindError> {
    let fault = |error| BindError::Unix(path.to_owned(), error);
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fault(error)),
    };
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(BindError::SocketInUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(fault)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(fault(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("s.sock");
        let dead = std::os::unix::net::UnixListener::bind(&path).expect("bind");
        drop(dead);
        let (_living, _owned) = unix(&path, 0o660, None).expect("a stale socket is in nobody's way");
        let mode = std::fs::metadata(&path).expect("made").permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert!(matches!(unix(&path, 0o660, None), Err(BindError::SocketInUse(_))));
    }

    #[tokio::test]
    async fn access_is_given_to_the_socket_alone_and_never_through_a_link() {
        let folder = tempfile::tempdir().expect("temp folder");
        let (path, file) = (folder.path().join("s.sock"), folder.path().join("file"));
        std::fs::write(&file, "mine").expect("write");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        std::os::unix::fs::symlink(&file, &path).expect("symlink");
        assert!(set_access(&path, 0o666, None).is_err(), "a link in its place");
        std::fs::rename(&file, &path).expect("rename");
        assert!(set_access(&path, 0o666, None).is_err(), "a file in its place");
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_file_or_symlink_at_the_path_is_left_alone() {
        let folder = tempfile::tempdir().expect("temp folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "mine").expect("write");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&file, &link).expect("symlink");
        assert!(matches!(unix(&file, 0o660, None), Err(BindError::NotASocket(_))));
        assert!(matches!(unix(&link, 0o660, None), Err(BindError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&file).expect("still there"), "mine");
    }

    #[tokio::test]
    async fn the_socket_goes_with_its_owner() {
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("s.sock");
        let made = unix(&path, 0o600, None).expect("bind");
        assert!(path.exists());
        drop(made);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_the_key_to_change() {
        let first = tcp(([127, 0, 0, 1], 0).into(), "intake.http").expect("a free port");
        let address = first.local_addr().expect("bound");
        let refused = tcp(address, "intake.http").expect_err("it is taken").to_string();
        assert!(
            refused.contains("intake.http") && refused.contains(&address.to_string()),
            "{refused}"
        );
    }
}
