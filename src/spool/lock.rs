//! The data folder: whose it is, who holds it, and which format it has.
use super::OpenError;
use super::disk::sync_folder;
use super::durable::{LOCK_PAUSE, LOCK_TRIES};
use super::parts;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

/// Version of the folder's layout. An older one is migrated, a newer one refused.
pub(super) const FORMAT: u32 = 2;
/// Commands of `phosphod spool`, which take the folder too.
const TOOLS: [&str; 4] = ["info", "verify", "export", "import"];
/// What the `format` file says before the number.
const FORMAT_PREFIX: &str = "phosphod data folder, format ";

/// Held as long as the folder is ours; the operating system gives it back when the process ends.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

/// Makes the folder if it is absent, checks that it is ours alone, takes its lock and checks its format, which is given
/// back: this one or an older. A folder that is refused is left as it was found, but for permissions of others.
pub(super) fn take(folder: &Path) -> Result<(FolderLock, u32), OpenError> {
    if !folder.exists() {
        let grown = folders_that_grow(folder);
        let made = make_folder(folder).and_then(|()| grown.iter().try_for_each(|parent| sync_folder(parent)));
        made.map_err(|source| unusable(folder, source))?;
    }
    check_owner(folder)?;
    parts::close(folder)?;
    check_format(folder)?;
    let lock = lock(folder)?;
    // Again, now that nobody else can change it.
    let format = match check_format(folder)? {
        Some(found) => found,
        None => {
            write_format(folder).map_err(|source| unusable(folder, source))?;
            FORMAT
        }
    };
    Ok((lock, format))
}

/// Takes the lock of a folder that is there and reads its format; `None` where it has no format file. Writes nothing and makes
/// nothing, so a folder without a lock file, which no daemon can hold, is not locked.
pub(super) fn take_existing(folder: &Path) -> Result<(Option<FolderLock>, Option<u32>), OpenError> {
    check_owner(folder)?;
    parts::check(folder)?;
    check_format(folder)?;
    let lock = match File::open(folder.join("lock")) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(unusable(folder, error)),
        Ok(mut file) => {
            // Shared: those who only look do not disturb each other, and no daemon starts meanwhile.
            let locked = patiently(|| file.try_lock_shared());
            locked.map_err(|error| not_locked(folder, &mut file, error))?;
            Some(FolderLock { _file: file })
        }
    };
    Ok((lock, check_format(folder)?))
}

/// Makes a folder that only we may enter, and its parents as the umask says.
pub(super) fn make_folder(folder: &Path) -> std::io::Result<()> {
    if let Some(parent) = folder.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        made => made,
    }
}

/// The folders that get a new name in them when `folder` is made, which must be synced after it: a power cut
/// would otherwise take the whole data folder along.
fn folders_that_grow(folder: &Path) -> Vec<&Path> {
    let missing = folder
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && !path.exists());
    missing.filter_map(Path::parent).map(named).collect()
}

/// A path that can be opened: the parent of a bare name is the working folder.
fn named(path: &Path) -> &Path {
    match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    }
}

fn unusable(folder: &Path, source: std::io::Error) -> OpenError {
    OpenError::Unusable {
        path: folder.to_owned(),
        source,
    }
}

fn check_owner(folder: &Path) -> Result<(), OpenError> {
    let meta = fs::metadata(folder).map_err(|source| unusable(folder, source))?;
    let path = folder.to_owned();
    if !meta.is_dir() {
        return Err(OpenError::NotAFolder { path });
    }
    let ours = rustix::process::geteuid().as_raw();
    if meta.uid() != ours {
        return Err(OpenError::OtherUser {
            path,
            owner: meta.uid(),
            ours,
        });
    }
    if meta.mode() & 0o022 != 0 {
        return Err(OpenError::OthersMayWrite {
            path,
            mode: meta.mode() & 0o7777,
        });
    }
    Ok(())
}

/// What the folder's format file says, if it has one; an error if this version cannot use it.
fn check_format(folder: &Path) -> Result<Option<u32>, OpenError> {
    let text = match fs::read_to_string(folder.join("format")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(folder, error)),
        Ok(text) => text,
    };
    let found = text
        .trim_end()
        .strip_prefix(FORMAT_PREFIX)
        .and_then(|n| n.parse::<u32>().ok());
    match found {
        Some(found @ 1..=FORMAT) => Ok(Some(found)),
        Some(found) if found > FORMAT => Err(OpenError::NewerFormat {
            path: folder.to_owned(),
            found,
            known: FORMAT,
        }),
        _ => Err(OpenError::UnknownFormat {
            path: folder.to_owned(),
        }),
    }
}

/// Says durably that the folder has the present format.
pub(super) fn write_format(folder: &Path) -> std::io::Result<()> {
    let draft = folder.join("format.new");
    let mut file = parts::options()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&draft)?;
    writeln!(file, "{FORMAT_PREFIX}{FORMAT}")?;
    file.sync_all()?;
    fs::rename(&draft, folder.join("format"))?;
    sync_folder(folder)?;
    folder
        .parent()
        .map_or(Ok(()), |parent| sync_folder(named(parent)))
}

fn lock(folder: &Path) -> Result<FolderLock, OpenError> {
    let refused = |source| unusable(folder, source);
    let mut file = parts::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(folder.join("lock"))
        .map_err(refused)?;
    let locked = patiently(|| file.try_lock());
    locked.map_err(|error| not_locked(folder, &mut file, error))?;
    // Over the old one, and cut only then: on a full disk there may be no other block for it.
    let pid = format!("{}\n", std::process::id());
    file.write_all(pid.as_bytes()).map_err(refused)?;
    file.set_len(pid.len() as u64).map_err(refused)?;
    Ok(FolderLock { _file: file })
}

/// Tries for a lock a few times. A process that the former holder starts keeps a copy of the lock until it runs its own
/// program, and a daemon that a supervisor replaces may take a moment to end.
fn patiently(attempt: impl Fn() -> Result<(), TryLockError>) -> Result<(), TryLockError> {
    for _ in 1..LOCK_TRIES {
        match attempt() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            done => return done,
        }
    }
    attempt()
}

fn not_locked(folder: &Path, file: &mut File, error: TryLockError) -> OpenError {
    let path = folder.to_owned();
    match error {
        TryLockError::Error(source) => unusable(folder, source),
        // Those who only look let each other in, but not us.
        TryLockError::WouldBlock if file.try_lock_shared().is_ok() => {
            let pid = file.metadata().ok().and_then(|about| looking(about.ino()));
            let tool = pid
                .and_then(tool_of)
                .unwrap_or_else(|| "phosphod spool".to_owned());
            OpenError::ToolAtWork { path, tool, pid }
        }
        TryLockError::WouldBlock => {
            let mut pid = String::new();
            // Only for the sentence: an unreadable pid changes nothing about the refusal.
            let _ = file.read_to_string(&mut pid);
            let pid = pid.trim().parse().ok();
            match pid.and_then(tool_of) {
                Some(tool) => OpenError::ToolAtWork { path, tool, pid },
                None => OpenError::InUse { path, pid },
            }
        }
    }
}

/// Who else holds a shared lock of a file, where the system tells: who only looks writes its pid nowhere.
fn looking(inode: u64) -> Option<u32> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let (inode, ours) = (format!(":{inode}"), std::process::id());
    let mut pids = locks.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        match fields.as_slice() {
            [_, "FLOCK", _, "READ", pid, file, ..] if file.ends_with(&inode) => pid.parse().ok(),
            _ => None,
        }
    });
    pids.find(|&pid| pid != ours)
}

/// Which `phosphod spool` command a process is, as far as its command line tells.
fn tool_of(pid: u32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line).into_owned();
    let mut words = line.split('\0').skip_while(|&word| word != "spool");
    let command = words.nth(1)?;
    TOOLS
        .contains(&command)
        .then(|| format!("phosphod spool {command}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn every_folder_that_gets_a_new_name_is_synced() {
        let folder = tempfile::tempdir().unwrap();
        let (new, inner) = (folder.path().join("new"), folder.path().join("new/inner"));
        assert_eq!(
            folders_that_grow(&inner.join("data")),
            [&inner, &new, folder.path()]
        );
        assert_eq!(folders_that_grow(Path::new("no such folder")), [Path::new(".")]);
        assert!(folders_that_grow(folder.path()).is_empty());
    }

    #[test]
    fn a_lock_that_is_held_for_a_moment_is_waited_for_and_one_that_stays_is_not() {
        let tries = Cell::new(0);
        let held_for = |times: u32| {
            tries.set(0);
            patiently(|| {
                tries.set(tries.get() + 1);
                match tries.get() > times {
                    true => Ok(()),
                    false => Err(TryLockError::WouldBlock),
                }
            })
        };
        assert!(held_for(2).is_ok());
        assert_eq!(tries.get(), 3);
        assert!(matches!(held_for(u32::MAX), Err(TryLockError::WouldBlock)));
        assert_eq!(tries.get(), LOCK_TRIES);
        let broken = || Err(TryLockError::Error(ErrorKind::Unsupported.into()));
        assert!(matches!(patiently(broken), Err(TryLockError::Error(_))));
    }
}
