//! Looking at a stopped spool's folder: what is told is true, and no byte of the folder changes.
use super::damage::{Truth, given_out, harm, prepared};
use super::*;
use crate::spool::offline::{Look, LookError};
use std::collections::BTreeMap;
use std::fs;

/// Every file below a folder with its bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    found
}

/// Events that are shown, each checked to be one that has not ended.
fn shown(look: &Look, truth: &Truth, told: &str) -> u64 {
    let mut shown = 0;
    let missing = look.each_event(None, |lane, record| -> Result<(), LookError> {
        if lane.project.as_str() != "commit" {
            assert_eq!(truth.get(record), Some(&true), "{told}");
            shown += 1;
        }
        Ok(())
    });
    assert_eq!(missing.unwrap(), 0, "{told}");
    shown
}

#[tokio::test]
async fn what_is_intact_is_called_so_and_shown_whole() {
    for seed in 0..10 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (folder, truth) = prepared(&mut random, seed % 2 == 0).await;
        let before = files(folder.path());
        let live = truth.values().filter(|live| **live).count() as u64;
        let told = format!("seed {seed}");
        let look = Look::take(folder.path()).unwrap();
        assert_eq!(look.verify(|| ()).unwrap(), [], "{told}");
        assert_eq!(shown(&look, &truth, &told), live, "{told}");
        assert_eq!(look.info().unwrap().ledger.queued, live + 1, "{told}");
        assert!(matches!(
            Spool::open(settings(folder.path())),
            Err(OpenError::InUse { .. })
        ));
        drop(look);
        assert!(files(folder.path()) == before, "{told}");
    }
}

#[tokio::test]
async fn a_folder_that_is_called_intact_loses_nothing_when_it_is_opened() {
    let mut intact = 0;
    let seeds = 100..140;
    for seed in seeds.clone() {
        let mut random = fastrand::Rng::with_seed(seed);
        let (folder, truth) = prepared(&mut random, seed % 2 == 0).await;
        let what = harm(&mut random, folder.path());
        let told = format!("seed {seed}, {what}");
        let before = files(folder.path());
        let look = Look::take(folder.path()).unwrap();
        let problems = look.verify(|| ()).unwrap();
        look.info().unwrap();
        drop(look);
        assert!(files(folder.path()) == before, "{told}");
        if !problems.is_empty() {
            continue;
        }
        intact += 1;
        let spool = open(folder.path());
        let live = truth.values().filter(|live| **live).count() as u64;
        assert_eq!(given_out(&spool, &truth, &told).await, (live, 0), "{told}");
        assert_eq!(spool.ledger().dropped, 0, "{told}");
        spool.close().await;
    }
    assert!(
        intact < seeds.count() / 2,
        "most harm is found: {intact} were called intact"
    );
}
