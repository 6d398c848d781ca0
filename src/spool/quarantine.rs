//! Where damaged generations are set aside: `<path>/quarantine/`. Nothing reads them any more; the operator may delete
//! them at any time.
use super::disk::sync_folder;
use super::lock;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The folder; made when first needed.
#[derive(Debug, Clone)]
pub(super) struct Quarantine {
    path: PathBuf,
}

impl Quarantine {
    pub(super) fn of(data_folder: &Path) -> Quarantine {
        Quarantine {
            path: data_folder.join("quarantine"),
        }
    }

    /// Moves a folder here, under a name of its own, and makes that durable. Gives the new name.
    pub(super) fn take(&self, folder: &Path) -> io::Result<String> {
        if !self.path.exists() {
            lock::make_folder(&self.path)?;
            sync_parent(&self.path)?;
        }
        let name = self.free_name(folder);
        fs::rename(folder, self.path.join(&name))?;
        sync_folder(&self.path)?;
        sync_parent(folder)?;
        Ok(name)
    }

    /// The folder's own name, with a number behind it if that is taken.
    fn free_name(&self, folder: &Path) -> String {
        let own = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let numbered = (2u64..).map(|number| format!("{own}-{number}"));
        let mut names = std::iter::once(own.clone()).chain(numbered);
        names.find(|name| !self.path.join(name).exists()).unwrap_or(own)
    }

    /// What lies here, sorted.
    pub(super) fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.path) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .collect();
        names.sort();
        names
    }
}

fn sync_parent(folder: &Path) -> io::Result<()> {
    folder.parent().map_or(Ok(()), sync_folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn each_folder_gets_a_name_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::of(folder.path());
        assert_eq!(quarantine.names(), Vec::<String>::new());
        for name in ["gen-1", "gen-1-2", "gen-1-3"] {
            let bad = folder.path().join("gen-1");
            fs::create_dir(&bad).unwrap();
            assert_eq!(quarantine.take(&bad).unwrap(), name);
            assert!(!bad.exists());
        }
        assert_eq!(quarantine.names(), ["gen-1", "gen-1-2", "gen-1-3"]);
        let mode = fs::metadata(folder.path().join("quarantine"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
