//! The corpus that fuzzing left, and what chance makes of it, without a fuzzer.
use super::{ALL, Property};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Altered copies of each file that are tried.
const COPIES: usize = 40;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn files(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(corpus().join(name)).expect(name);
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| (path.clone(), std::fs::read(path).expect("a file")))
        .collect()
}

/// The bytes that broke it, as Rust writes them, if it does not hold.
fn broken(property: Property, from: &Path, data: &[u8]) -> Option<String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| property(data)));
    let told = || format!("{} with b\"{}\"", from.display(), data.escape_ascii());
    outcome.is_err().then(told)
}

#[test]
fn every_property_has_a_corpus_and_a_target_and_holds_for_it() {
    let folders = |path: PathBuf| -> BTreeSet<String> {
        let entries = std::fs::read_dir(path).expect("a folder");
        entries
            .map(|entry| entry.expect("an entry").path())
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect()
    };
    let names: BTreeSet<String> = ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(folders(corpus()), names);
    assert_eq!(folders(corpus().join("../fuzz_targets")), names);
    let mut wrong = Vec::new();
    for (name, property) in ALL {
        let files = files(name);
        assert!(!files.is_empty(), "{name} has an empty corpus");
        for (path, data) in files {
            wrong.extend(broken(property, &path, &data));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_property_holds_for_altered_copies_of_its_corpus() {
    let seed = std::env::var("PHOSPHOD_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let mut random = fastrand::Rng::with_seed(seed.unwrap_or(1));
    let mut wrong = Vec::new();
    for (name, property) in ALL {
        let files = files(name);
        for (path, data) in &files {
            let copies = (0..COPIES).map(|_| {
                let other = &files[random.usize(..files.len())].1;
                altered(data, other, &mut random)
            });
            // One of each file is enough to tell.
            wrong.extend(copies.into_iter().find_map(|copy| broken(property, path, &copy)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A few bytes changed, taken out, put in, or taken from another file.
fn altered(data: &[u8], other: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut data = data.to_vec();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..=data.len());
        let end = (at + random.usize(..8)).min(data.len());
        match random.u8(..5) {
            0 => data[at..end].fill_with(|| random.u8(..)),
            1 => drop(data.drain(at..end)),
            2 => data.insert(at, *random.choice(b"\"\\{}[],:@. 0\n\r").expect("one")),
            3 => {
                let copy = data[at..end].to_vec();
                data.splice(at..at, copy.repeat(random.usize(1..5)));
            }
            _ => {
                let from = random.usize(..=other.len());
                let part = &other[from..(from + 30).min(other.len())];
                data.splice(at..end, part.iter().copied());
            }
        }
    }
    data
}
