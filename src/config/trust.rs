//! Files that only root or this user can have written: the owner and the mode of what was opened,
//! and of each folder and link on the way to it. What another user could write would say where
//! events and the key go.
use rustix::fs::OFlags;
use rustix::process::{getegid, geteuid};
use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions, metadata, symlink_metadata};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// Most links that are followed on the way to a file, as many as the kernel follows.
const MOST_LINKS: usize = 40;

/// How often a file is opened that is replaced meanwhile.
const TRIES: usize = 5;

const STICKY: u32 = 0o1000;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
const OTHERS_READ: u32 = 0o004;
const OTHERS_PASS: u32 = 0o001;

/// A file, and what it was found to be after it was opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) of: Metadata,
}

/// Why a file is not read.
#[derive(Debug)]
pub(super) enum Fault {
    /// It cannot be.
    Io(Error),
    /// Another user may have written it. The sentence follows its path.
    Untrusted(String),
}

impl From<Error> for Fault {
    fn from(fault: Error) -> Self {
        Self::Io(fault)
    }
}

/// Opens a file to read, unless another user may have written it or may put another in its place.
/// Folders and devices are left to the caller; so is what the starting process has opened
/// (`/dev/stdin`, `/dev/fd/63`).
pub(super) fn open(path: &Path, flags: OFlags) -> Result<Opened, Fault> {
    let own = Own::of_process();
    for _ in 0..TRIES {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)?;
        let of = file.metadata()?;
        let kind = of.file_type();
        let is_device = kind.is_char_device() || kind.is_block_device();
        if is_device || kind.is_dir() || is_handed_over(path) {
            return Ok(Opened { file, of });
        }
        own.check_file(&of)?;
        // What the path leads to now has to be what was opened.
        match own.walk(path)? {
            Some(found) if (found.dev(), found.ino()) == (of.dev(), of.ino()) => {
                return Ok(Opened { file, of });
            }
            _ if of.is_file() => {}
            _ => break,
        }
    }
    Err(Fault::Untrusted(
        "is replaced while it is read: try again".to_owned(),
    ))
}

/// Whether a path names a descriptor of this process.
fn is_handed_over(path: &Path) -> bool {
    let folder = path.parent().and_then(Path::to_str);
    path == Path::new("/dev/stdin") || matches!(folder, Some("/dev/fd" | "/proc/self/fd"))
}

/// Whether a folder belongs to this user, and is none that all users share, such as `/tmp`.
pub(super) fn is_own_folder(folder: &Path) -> bool {
    let own = Own::of_process();
    metadata(folder)
        .is_ok_and(|of| of.uid() == own.uid && !(own.others_write(&of) && of.mode() & STICKY != 0))
}

/// Whether every user of the machine may read a file, and gets through the folders to it.
pub(super) fn others_read(path: &Path) -> bool {
    let may_read = |of: &Metadata| of.is_file() && of.mode() & OTHERS_READ != 0;
    let pass = |folder: &Path| metadata(folder).map_or(true, |of| of.mode() & OTHERS_PASS != 0);
    metadata(path).is_ok_and(|of| may_read(&of))
        && std::fs::canonicalize(path).map_or(true, |full| full.ancestors().skip(1).all(pass))
}

/// This user, and whether its group has no other member.
#[derive(Debug, Clone, Copy)]
struct Own {
    uid: u32,
    private_group: Option<u32>,
}

impl Own {
    fn of_process() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let is_private = is_private(uid, gid, &text("/etc/passwd"), &text("/etc/group"));
        Self {
            uid,
            private_group: is_private.then_some(gid),
        }
    }

    /// Root can do anything anyway.
    fn trusts(self, uid: u32) -> bool {
        uid == 0 || uid == self.uid
    }

    /// Whether the mode lets anybody but the owner, root and this user write.
    fn others_write(self, of: &Metadata) -> bool {
        let is_ours = of.gid() == 0 || Some(of.gid()) == self.private_group;
        of.mode() & OTHERS_WRITE != 0 || (of.mode() & GROUP_WRITES != 0 && !is_ours)
    }

    fn check_file(self, of: &Metadata) -> Result<(), Fault> {
        let untrusted = |sentence: String| Err(Fault::Untrusted(sentence));
        if !self.trusts(of.uid()) {
            return untrusted(format!(
                "belongs to user {}, and is read only if it belongs to root or to the user who runs phosphod ({}): chown it",
                of.uid(),
                self.uid
            ));
        }
        if self.others_write(of) {
            return untrusted(format!(
                "may be written by other users (mode {:04o}): take that from them (chmod go-w)",
                of.mode() & 0o7777
            ));
        }
        Ok(())
    }

    /// Whether nobody else can put another entry in the place of this one of a folder.
    fn check_entry(self, at: &Path, folder: &Metadata, entry: &Metadata) -> Result<(), Fault> {
        let untrusted = |why: String| {
            Err(Fault::Untrusted(format!(
                "is reached through the folder {}, {why}, or move the file",
                at.display()
            )))
        };
        if !self.trusts(folder.uid()) {
            return untrusted(format!(
                "which belongs to user {}, who can put another file there: chown the folder to root or to the user who runs phosphod",
                folder.uid()
            ));
        }
        let is_protected = folder.mode() & STICKY != 0 && self.trusts(entry.uid());
        if self.others_write(folder) && folder.mode() & STICKY != 0 && !is_protected {
            return untrusted(format!(
                "which users share, by something of user {}, who can replace that: name the file itself",
                entry.uid()
            ));
        }
        if self.others_write(folder) && !is_protected {
            return untrusted(format!(
                "in which other users can put another file (mode {:04o}): take that from them (chmod go-w)",
                folder.mode() & 0o7777
            ));
        }
        Ok(())
    }

    /// Follows a path as the kernel does, and looks at each folder and link. Gives what it leads to;
    /// `None` if it leads nowhere any more. A relative path begins at the working folder, which
    /// nobody can exchange.
    fn walk(self, path: &Path) -> Result<Option<Metadata>, Fault> {
        let mut at = start(path);
        let mut ahead = steps(path);
        let mut links = 0;
        let mut last = None;
        while let Some(step) = ahead.pop() {
            let next = at.join(&step);
            if step == ".." {
                at = next;
                continue;
            }
            let found = metadata(&at).and_then(|folder| Ok((folder, symlink_metadata(&next)?)));
            let (folder, entry) = match found {
                Err(fault) if fault.kind() == ErrorKind::NotFound => return Ok(None),
                found => found?,
            };
            self.check_entry(&at, &folder, &entry)?;
            if entry.is_symlink() {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Error::from(ErrorKind::InvalidInput).into());
                }
                let target = std::fs::read_link(&next)?;
                if target.is_absolute() {
                    at = start(&target);
                }
                ahead.extend(steps(&target));
            } else {
                at = next;
                last = Some(entry);
            }
        }
        Ok(last)
    }
}

fn start(path: &Path) -> PathBuf {
    PathBuf::from(if path.is_absolute() { "/" } else { "." })
}

/// The names in a path, the last one first.
fn steps(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    names.collect()
}

/// Whether a user's group is one that most systems make for each user: of the same name, without
/// other members. Where the lists do not know them (a container, a directory service), the same
/// number stands for that.
fn is_private(uid: u32, gid: u32, passwd: &str, groups: &str) -> bool {
    let mut names = Vec::new();
    for line in passwd.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, user, group, ..] = fields.as_slice() else {
            continue;
        };
        if *user == uid.to_string() {
            names.push(*name);
        } else if *group == gid.to_string() {
            return false;
        }
    }
    let groups = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut of_number = groups.filter(|fields| fields.get(2) == Some(&gid.to_string().as_str()));
    let Some(fields) = of_number.next() else {
        return uid == gid;
    };
    let mut members = fields.get(3).into_iter().flat_map(|members| members.split(','));
    fields.first().is_some_and(|name| names.contains(name))
        && members.all(|member| member.is_empty() || names.contains(&member))
        && of_number.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
    }

    fn refusal(path: &Path) -> Option<String> {
        match open(path, OFlags::empty()) {
            Ok(_) => None,
            Err(Fault::Untrusted(sentence)) => Some(sentence),
            Err(Fault::Io(fault)) => panic!("{}: {fault}", path.display()),
        }
    }

    #[test]
    fn a_file_and_a_folder_that_others_may_write_are_refused() {
        let top = tempfile::tempdir().expect("a folder");
        let folder = top.path().join("inner");
        std::fs::create_dir(&folder).expect("made");
        let file = folder.join("key");
        std::fs::write(&file, "k").expect("written");
        for (of_file, of_folder, told) in [
            (0o600, 0o700, None),
            (0o644, 0o755, None),
            (0o666, 0o700, Some("chmod go-w")),
            (0o602, 0o700, Some("mode 0602")),
            (0o600, 0o777, Some("inner")),
            (0o600, 0o1777, None),
        ] {
            mode(&file, of_file);
            mode(&folder, of_folder);
            let said = refusal(&file);
            assert_eq!(
                said.is_some(),
                told.is_some(),
                "{of_file:o} {of_folder:o}: {said:?}"
            );
            assert!(said.unwrap_or_default().contains(told.unwrap_or_default()));
        }
    }

    #[test]
    fn a_link_is_trusted_as_its_folder_and_what_it_leads_to_are() {
        let top = tempfile::tempdir().expect("a folder");
        let at = |name: &str| top.path().join(name);
        for name in ["open", "closed"] {
            std::fs::create_dir(at(name)).expect("made");
            std::fs::write(at(name).join("key"), "k").expect("written");
        }
        symlink("../closed/key", at("open/to-closed")).expect("linked");
        symlink("../open/key", at("closed/to-open")).expect("linked");
        symlink(at("closed"), at("folder")).expect("linked");
        mode(&at("open"), 0o777);
        for path in ["open/to-closed", "closed/to-open"] {
            let said = refusal(&at(path)).expect(path);
            assert!(said.contains("open"), "{path}: {said}");
        }
        assert_eq!(refusal(&at("folder/key")), None);
        mode(&at("open"), 0o755);
        assert_eq!(refusal(&at("open/to-closed")), None);
        mode(&at("closed/key"), 0o666);
        assert!(refusal(&at("folder/key")).is_some());
    }

    /// A volume of secrets as Kubernetes mounts it: a sticky folder that all may write to, and links.
    #[test]
    fn a_volume_of_secrets_is_trusted() {
        let top = tempfile::tempdir().expect("a folder");
        let volume = top.path().join("secrets");
        std::fs::create_dir_all(volume.join("..2026")).expect("made");
        std::fs::write(volume.join("..2026/key"), "k").expect("written");
        symlink("..2026", volume.join("..data")).expect("linked");
        symlink("..data/key", volume.join("key")).expect("linked");
        mode(&volume, 0o1777);
        assert_eq!(refusal(&volume.join("key")), None);
    }

    #[test]
    fn only_a_group_without_others_is_private() {
        let passwd = "root:x:0:0::/:\nann:x:1000:1000::/:\nbob:x:1001:100::/:\neve:x:1002:100::/:\n";
        let groups = "root:x:0:\nusers:x:100:\nann:x:1000:\ncy:x:1003:\n";
        assert!(is_private(1000, 1000, passwd, groups));
        assert!(is_private(
            1000,
            1000,
            passwd,
            &groups.replace("1000:", "1000:ann")
        ));
        assert!(!is_private(
            1000,
            1000,
            passwd,
            &groups.replace("1000:", "1000:ann,bob")
        ));
        assert!(!is_private(
            1000,
            1000,
            &passwd.replace(":100:", ":1000:"),
            groups
        ));
        assert!(!is_private(1001, 100, passwd, groups));
        assert!(!is_private(1003, 1003, passwd, groups), "of another name");
        assert!(is_private(10001, 10001, passwd, groups), "known to no list");
        assert!(!is_private(10001, 10002, passwd, groups));
    }

    #[test]
    fn what_is_readable_but_cannot_be_reached_is_not_open_to_others() {
        let top = tempfile::tempdir().expect("a folder");
        let file = top.path().join("key");
        std::fs::write(&file, "k").expect("written");
        for (of_file, of_folder, open) in [(0o644, 0o700, false), (0o644, 0o755, true), (0o640, 0o755, false)]
        {
            mode(&file, of_file);
            mode(top.path(), of_folder);
            assert_eq!(others_read(&file), open, "{of_file:o} {of_folder:o}");
        }
    }
}
