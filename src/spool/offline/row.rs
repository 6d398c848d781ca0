//! A row of sled folders (`gen-N`) as it lies on disk.
use super::super::durable::is_begun;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Which folders there are.
pub(super) struct Row {
    folder: PathBuf,
    /// Their numbers.
    pub(super) present: BTreeSet<u64>,
}

impl Row {
    /// Lists the folders in one that may not have been made yet.
    pub(super) fn list(folder: PathBuf) -> io::Result<Row> {
        let mut present = BTreeSet::new();
        match fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(entries) => {
                for entry in entries {
                    let name = entry?.file_name();
                    let number: Option<u64> = name
                        .to_str()
                        .and_then(|name| name.strip_prefix("gen-")?.parse().ok());
                    present.extend(number);
                }
            }
        }
        Ok(Row { folder, present })
    }

    pub(super) fn path(&self, id: u64) -> PathBuf {
        self.folder.join(format!("gen-{id:08}"))
    }

    /// Whether anything in a folder can ever have counted.
    pub(super) fn was_begun(&self, id: u64) -> bool {
        is_begun(&self.path(id))
    }

    /// What a folder takes on disk.
    pub(super) fn bytes_on_disk(&self, id: u64) -> u64 {
        bytes_on_disk(&self.path(id))
    }
}

fn bytes_on_disk(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let blocks = files
        .filter_map(|file| file.metadata().ok())
        .map(|meta| meta.blocks());
    blocks.sum::<u64>() * 512
}
