//! The ballast: a file of real blocks in the data folder, given up when the disk is full, so that delivering, which writes
//! cursors and deletes generations, goes on until there is space again.
use super::parts;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Size of the ballast. It has to last for a new generation and for all settling until the first old one can be deleted
/// (docs/design.md, "What happens when the disk is full?").
pub(super) const BALLAST_BYTES: u64 = 16 * 1024 * 1024;
/// Blocks as `stat` counts them.
const STAT_BLOCK_BYTES: u64 = 512;

/// The ballast of a data folder.
pub(super) struct Ballast {
    path: PathBuf,
    /// As large as it is made.
    bytes: u64,
    held: bool,
}

impl Ballast {
    /// Looks for the one that an earlier run left. One that is not whole is not counted on. Under a
    /// limit on file sizes, `max_file_bytes`, it is smaller, as the generations are.
    pub(super) fn find(folder: &Path, max_file_bytes: Option<u64>) -> Ballast {
        let path = folder.join("ballast");
        let bytes = max_file_bytes.map_or(BALLAST_BYTES, |limit| BALLAST_BYTES.min(limit));
        // One that was made under a higher limit is as good.
        let whole = |meta: &fs::Metadata| {
            meta.len() >= bytes && meta.blocks().saturating_mul(STAT_BLOCK_BYTES) >= bytes
        };
        let held = path
            .symlink_metadata()
            .is_ok_and(|meta| meta.is_file() && whole(&meta));
        Ballast { path, bytes, held }
    }

    /// Whether it is there to be given up.
    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// How much it takes up, or would.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes it. After an error nothing of it is left.
    pub(super) fn make(&mut self) -> io::Result<()> {
        remove(&self.path)?;
        let made = allocate(&self.path, self.bytes);
        match made {
            Ok(()) => self.held = true,
            Err(_) => remove(&self.path)?,
        }
        made
    }

    /// Gives its blocks back; whether there were any.
    pub(super) fn release(&mut self) -> bool {
        if !std::mem::take(&mut self.held) {
            return false;
        }
        // Some file systems need space to remove a name: cutting the file comes first.
        let cut = parts::options().write(true).open(&self.path);
        let cut = cut.and_then(|file| file.set_len(0));
        let removed = remove(&self.path);
        if let (Err(error), Err(_)) = (&removed, cut) {
            tracing::error!(path = %self.path.display(), %error, "the ballast cannot be given up: remove it by hand");
            return false;
        }
        true
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    let file = parts::options().write(true).create_new(true).open(path)?;
    let flags = rustix::fs::FallocateFlags::empty();
    match rustix::fs::fallocate(&file, flags, 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => {
            fill(&file, bytes)?
        }
        done => done?,
    }
    file.sync_all()
}

/// For file systems that cannot preallocate.
fn fill(mut file: &File, bytes: u64) -> io::Result<()> {
    let filled = io::copy(&mut io::repeat(0).take(bytes), &mut file)?;
    debug_assert_eq!(filled, bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_takes_up_real_blocks_is_private_and_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut ballast = Ballast::find(folder.path(), None);
        assert!(!ballast.is_held());
        ballast.make().unwrap();
        let meta = folder.path().join("ballast").metadata().unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
        assert!(Ballast::find(folder.path(), None).is_held());
        assert!(ballast.release());
        assert!(!folder.path().join("ballast").exists());
        assert!(!ballast.release() && !ballast.is_held());
    }

    #[test]
    fn what_a_cut_off_making_left_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ballast");
        // Of the right length, and a hole.
        File::create(&path).unwrap().set_len(BALLAST_BYTES).unwrap();
        let mut ballast = Ballast::find(folder.path(), None);
        assert!(!ballast.is_held());
        ballast.make().unwrap();
        assert!(Ballast::find(folder.path(), None).is_held());
    }

    #[test]
    fn under_a_limit_on_file_sizes_it_is_as_large_as_a_file_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let mut small = Ballast::find(folder.path(), Some(1 << 20));
        small.make().unwrap();
        assert_eq!(folder.path().join("ballast").metadata().unwrap().len(), 1 << 20);
        assert!(Ballast::find(folder.path(), Some(1 << 20)).is_held());
        let mut whole = Ballast::find(folder.path(), None);
        assert!(!whole.is_held(), "the limit is gone: it is made anew");
        whole.make().unwrap();
        assert!(
            Ballast::find(folder.path(), Some(1 << 20)).is_held(),
            "a larger one will do"
        );
    }

    #[test]
    fn zeros_take_up_as_much_where_nothing_can_be_preallocated() {
        let file = tempfile::tempfile().unwrap();
        fill(&file, BALLAST_BYTES).unwrap();
        file.sync_all().unwrap();
        let meta = file.metadata().unwrap();
        assert_eq!(meta.len(), BALLAST_BYTES);
        assert!(meta.blocks() * STAT_BLOCK_BYTES >= BALLAST_BYTES);
    }
}
