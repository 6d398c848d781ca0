//! What lies in the data folder is closed to other users and holds no link.
//!
//! A folder that was open to others before may hold what they put there. A link in place of a part would have the spool
//! write, cut or delete what it leads to. So all parts are looked at before any is opened, from the outside in: once a
//! folder is ours alone, nobody else can change what was found in it.
use super::OpenError;
use std::fs::{self, File, Metadata, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The names that the spool uses in a data folder. Others are none of its business.
const PARTS: [&str; 9] = [
    "format",
    "format.new",
    "lock",
    "spool",
    "dead",
    "quarantine",
    "migrating",
    "ballast",
    "high-water",
];

/// Folders that are kept for a person to look at, and that are never read again.
const NOT_ENTERED: [&str; 1] = ["quarantine"];

/// The permission bits that others than the owner have.
const OTHERS: u32 = 0o077;

/// Options to open a part of the data folder: never through a link, and private where the file is made.
pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    options
}

/// Closes the data folder and its parts to other users. Logs what was open.
///
/// # Errors
/// A part is a link or belongs to another user, or the folder is open to others and holds what is not the spool's.
/// Nothing but permissions was changed then.
pub(super) fn close(folder: &Path) -> Result<(), OpenError> {
    let unusable = |source| OpenError::Unusable {
        path: folder.to_owned(),
        source,
    };
    let opened = File::open(folder).map_err(unusable)?;
    let mode = opened.metadata().map_err(unusable)?.mode() & 0o7777;
    if mode & OTHERS != 0 {
        if holds_other_files(folder).map_err(unusable)? {
            return Err(OpenError::OpenToOthers {
                path: folder.to_owned(),
                mode,
            });
        }
        opened
            .set_permissions(fs::Permissions::from_mode(0o700))
            .map_err(unusable)?;
        tracing::warn!(
            path = %folder.display(), was = format!("{mode:o}"),
            "the data folder was open to other users: its mode is 700 now"
        );
    }
    each_part(folder, &mut |path, meta| {
        let mode = if meta.is_dir() { 0o700 } else { 0o600 };
        let others = meta.mode() & OTHERS != 0 && (meta.is_dir() || meta.is_file());
        match others {
            true => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
            false => Ok(()),
        }
    })
}

/// Whether the folder is not one of the spool's own: its permissions are another program's to decide.
fn holds_other_files(folder: &Path) -> std::io::Result<bool> {
    if folder.join("format").symlink_metadata().is_ok() {
        return Ok(false);
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let known = PARTS.iter().any(|part| name == *part) || name == "lost+found";
        if !known && !entry.file_type()?.is_socket() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Checks the parts as [`close`] does, and changes nothing.
///
/// # Errors
/// As for [`close`].
pub(super) fn check(folder: &Path) -> Result<(), OpenError> {
    each_part(folder, &mut |_, _| Ok(()))
}

/// What is done with each part, before a folder is entered.
type Visit<'a> = &'a mut dyn FnMut(&Path, &Metadata) -> std::io::Result<()>;

fn each_part(folder: &Path, visit: Visit<'_>) -> Result<(), OpenError> {
    PARTS
        .iter()
        .try_for_each(|name| part(&folder.join(name), !NOT_ENTERED.contains(name), visit))
}

fn part(path: &Path, enter: bool, visit: Visit<'_>) -> Result<(), OpenError> {
    let unusable = |source| OpenError::Unusable {
        path: path.to_owned(),
        source,
    };
    let meta = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(unusable)?,
    };
    if meta.is_symlink() {
        return Err(OpenError::Link {
            path: path.to_owned(),
        });
    }
    let ours = rustix::process::geteuid().as_raw();
    if meta.uid() != ours {
        return Err(OpenError::PartOfOtherUser {
            path: path.to_owned(),
            owner: meta.uid(),
            ours,
        });
    }
    visit(path, &meta).map_err(unusable)?;
    if !(enter && meta.is_dir()) {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(unusable)? {
        part(&entry.map_err(unusable)?.path(), true, visit)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A data folder with parts, open to others, and a file outside it.
    fn folder() -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
        let outer = tempfile::tempdir().unwrap();
        let (data, outside) = (outer.path().join("data"), outer.path().join("outside"));
        fs::create_dir_all(data.join("spool/gen-00000001/blobs")).unwrap();
        fs::write(data.join("spool/gen-00000001/db"), "x").unwrap();
        fs::write(&outside, "precious").unwrap();
        for path in ["", "spool", "spool/gen-00000001", "spool/gen-00000001/db"] {
            let mode = if path.ends_with("db") { 0o644 } else { 0o755 };
            fs::set_permissions(data.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        (outer, data, outside)
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn what_is_open_to_others_is_closed() {
        let (_outer, data, _) = folder();
        close(&data).unwrap();
        assert_eq!(mode(&data), 0o700);
        assert_eq!(mode(&data.join("spool")), 0o700);
        assert_eq!(mode(&data.join("spool/gen-00000001/blobs")), 0o700);
        assert_eq!(mode(&data.join("spool/gen-00000001/db")), 0o600);
    }

    #[test]
    fn a_folder_of_something_else_is_refused_while_it_is_open_and_not_changed() {
        let (_outer, data, _) = folder();
        fs::write(data.join("report.doc"), "x").unwrap();
        assert!(matches!(
            close(&data),
            Err(OpenError::OpenToOthers { mode: 0o755, .. })
        ));
        assert_eq!(mode(&data), 0o755);
        fs::write(data.join("format"), "x").unwrap();
        close(&data).unwrap();
        assert_eq!(
            mode(&data),
            0o700,
            "a data folder that holds something else as well"
        );
    }

    #[test]
    fn a_link_in_place_of_any_part_is_refused_and_what_it_leads_to_stays() {
        let deep = [
            "spool/gen-00000002",
            "spool/gen-00000001/conf",
            "dead/gen-00000001",
        ];
        for name in PARTS.iter().chain(&deep) {
            let (_outer, data, outside) = folder();
            let path = data.join(name);
            if path.is_dir() {
                fs::remove_dir_all(&path).unwrap();
            }
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(&outside, &path).unwrap();
            for done in [check(&data), close(&data)] {
                let Err(OpenError::Link { path: named }) = done else {
                    panic!("{name}: {done:?}");
                };
                assert_eq!(named, path);
            }
            assert_eq!(fs::read(&outside).unwrap(), b"precious", "{name}");
        }
    }

    #[test]
    fn a_link_that_the_spool_does_not_use_is_none_of_its_business() {
        let (_outer, data, outside) = folder();
        fs::write(data.join("format"), "x").unwrap();
        symlink(&outside, data.join("notes")).unwrap();
        close(&data).unwrap();
    }

    #[test]
    fn a_part_is_never_opened_through_a_link() {
        let (_outer, data, outside) = folder();
        let path = data.join("lock");
        symlink(&outside, &path).unwrap();
        let opened = options().write(true).create(true).truncate(true).open(&path);
        assert!(opened.is_err());
        assert_eq!(fs::read(&outside).unwrap(), b"precious");
    }
}
