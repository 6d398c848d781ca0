//! Setting things aside: what cannot be read is moved out of the way, never deleted.
use super::super::disk::sync_folder;
use super::super::lock::make_folder;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Moves a file or folder into `quarantine` under a name that nothing there has. Gives the new place.
pub(super) fn set_aside(found: &Path, quarantine: &Path, name: &str) -> io::Result<PathBuf> {
    make_folder(quarantine)?;
    let mut place = quarantine.join(name);
    let mut number = 1u32;
    while place.symlink_metadata().is_ok() {
        number += 1;
        place = quarantine.join(format!("{name}-{number}"));
    }
    fs::rename(found, &place)?;
    sync_folder(quarantine)?;
    for parent in [found.parent(), quarantine.parent()].into_iter().flatten() {
        sync_folder(parent)?;
    }
    Ok(place)
}
