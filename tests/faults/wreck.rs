//! Damages a stopped daemon's data folder.

use fastrand::Rng;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

const PAGE_BYTES: usize = 4_096;

/// Copies a folder, itself and what is in it as private as the daemon's own.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a new folder");
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).expect("chmod");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let copied = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &copied);
        } else {
            fs::copy(&path, &copied).expect("copied");
        }
    }
}

/// Does one kind of damage, `kind` by `kind` in turn, somewhere in `data`; says what.
pub(crate) fn damage(data: &Path, kind: usize, random: &mut Rng) -> String {
    match kind % 6 {
        0 => change(data, random, "flipped bytes", |bytes, random| flip(bytes, random)),
        1 => change(data, random, "zeroed a page", |bytes, random| {
            zero_a_page(bytes, random)
        }),
        2 => change(data, random, "cut the tail", cut_the_tail),
        3 => lose_a_generation(data, random),
        4 => empty_what_lies_beside_the_format(data),
        _ => change(data, random, "emptied", |bytes, _| bytes.clear()),
    }
}

/// Damages the file of the newest generation in its place, under a daemon that has it open: in many places, and not at its end,
/// where it goes on writing. Says how.
pub(crate) fn under_a_daemon(data: &Path, kind: usize, random: &mut Rng) -> String {
    let generations = fs::read_dir(data.join("spool")).expect("a spool");
    let newest = generations.map(|entry| entry.expect("an entry").path()).max();
    let path = newest.expect("a generation").join("db");
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .expect("writable");
    let end = file.metadata().expect("its size").len() / 2;
    let what = ["flipped bytes", "zeroed pages"][kind % 2];
    for _ in 0..40 {
        let at = random.u64(..end) / PAGE_BYTES as u64 * PAGE_BYTES as u64;
        let mut page = [0; PAGE_BYTES];
        if kind.is_multiple_of(2) {
            file.read_exact_at(&mut page, at).expect("readable");
            flip(&mut page, random);
        }
        file.write_all_at(&page, at).expect("writable");
    }
    format!("{what}: {}", inside(data, &path))
}

/// Changes one file of the spool or of the dead letters.
fn change(data: &Path, random: &mut Rng, what: &str, how: impl FnOnce(&mut Vec<u8>, &mut Rng)) -> String {
    let mut files = files_below(&data.join("spool"));
    files.extend(files_below(&data.join("dead")));
    // An empty one, such as a mark, has nothing to damage.
    files.retain(|file| fs::metadata(file).is_ok_and(|meta| meta.len() > 0));
    files.sort();
    let file = random.choice(&files).expect("a daemon has files");
    let mut bytes = fs::read(file).expect("readable");
    how(&mut bytes, random);
    fs::write(file, bytes).expect("writable");
    format!("{what}: {}", inside(data, file))
}

fn flip(bytes: &mut [u8], random: &mut Rng) {
    for _ in 0..random.usize(1..=64) {
        let at = random.usize(..bytes.len());
        bytes[at] ^= random.u8(1..);
    }
}

fn zero_a_page(bytes: &mut [u8], random: &mut Rng) {
    let at = random.usize(..bytes.len()) / PAGE_BYTES * PAGE_BYTES;
    let end = bytes.len().min(at + PAGE_BYTES);
    bytes[at..end].fill(0);
}

fn cut_the_tail(bytes: &mut Vec<u8>, random: &mut Rng) {
    bytes.truncate(random.usize(..bytes.len()));
}

fn lose_a_generation(data: &Path, random: &mut Rng) -> String {
    let generations = fs::read_dir(data.join("spool")).expect("a spool");
    let mut folders: Vec<PathBuf> = generations
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    let lost = random.choice(&folders).expect("a generation");
    fs::remove_dir_all(lost).expect("removed");
    format!("deleted: {}", inside(data, lost))
}

/// Whatever small files the daemon keeps at the top, but for the format and the lock.
fn empty_what_lies_beside_the_format(data: &Path) -> String {
    let mut emptied = Vec::new();
    for entry in fs::read_dir(data).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = inside(data, &path);
        if path.is_file() && name != "format" && name != "lock" {
            fs::write(&path, "").expect("writable");
            emptied.push(name);
        }
    }
    format!("emptied: {emptied:?}")
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files
}

fn inside(data: &Path, path: &Path) -> String {
    path.strip_prefix(data).expect("inside").display().to_string()
}
