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
            Err(OpenError::ToolAtWork { .. })
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

#[tokio::test]
async fn a_damaged_dead_letter_and_a_file_in_blobs_are_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let mut random = fastrand::Rng::with_seed(1);
    let noise: String = (0..5_000).map(|_| random.alphanumeric()).collect();
    let refused = |record: &str| Entry::Refused {
        lane: logs("a"),
        record: record.as_bytes().to_vec(),
        reason: "no good".into(),
    };
    spool.append(vec![refused("{}"), refused(&noise)]).await.unwrap();
    spool.close().await;
    let look = Look::take(folder.path()).unwrap();
    assert_eq!(look.verify(|| ()).unwrap(), []);
    drop(look);
    let harm = |path: PathBuf| {
        let mut bytes = fs::read(&path).unwrap();
        let places: Vec<usize> = (0..bytes.len() - 40)
            .filter(|&at| bytes[at..].starts_with(&noise.as_bytes()[2_000..2_040]))
            .collect();
        places.iter().for_each(|&at| bytes[at] ^= 1);
        fs::write(path, bytes).unwrap();
        places.len()
    };
    assert!(harm(folder.path().join("dead/gen-00000001/db")) > 0);
    fs::create_dir_all(folder.path().join("spool/gen-00000001/blobs")).unwrap();
    fs::write(folder.path().join("spool/gen-00000001/blobs/7"), "x").unwrap();
    let look = Look::take(folder.path()).unwrap();
    let told: Vec<String> = look
        .verify(|| ())
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(told.iter().any(|line| line.contains("blobs/")), "{told:?}");
    let dead = told.iter().find(|line| line.starts_with("dead/gen-00000001"));
    assert!(
        dead.is_some_and(|line| line.contains("start the daemon on it")),
        "{told:?}"
    );
    let (mut whole, mut bad) = (0, 0);
    let each = look.each_letter(|_, letter| -> Result<(), LookError> {
        match letter {
            Ok(_) => whole += 1,
            Err(_) => bad += 1,
        }
        Ok(())
    });
    each.unwrap();
    assert!(whole <= 1 && bad == 1, "{whole} read, {bad} told");
}
