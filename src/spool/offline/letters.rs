//! The dead letters of a folder that is being looked at.
use super::super::DeadLetter;
use super::super::dead::offline::{self, Told};
use super::super::durable::StorageError;
use super::copy::{self, Copy};
use super::info::DeadLetters;
use super::{Look, LookError};

/// How many there are, and what is wrong with their folders.
pub(super) fn count(look: &Look) -> Result<(DeadLetters, Vec<String>), LookError> {
    let mut sum = DeadLetters::default();
    let mut damage = Vec::new();
    for &id in begun(look) {
        sum.bytes_on_disk += look.dead.bytes_on_disk(id);
        // All letters of it count, if its last one does and none was taken back.
        let whole = |told: &Told| {
            let (from, void) = (look.state.head.uncounted_from, look.state.head.void);
            (from == 0 || told.next <= from) && void.0 >= void.1 && look.state.requeued.is_empty()
        };
        let counted = match offline::told_sealed(&look.dead.path(id)).filter(whole) {
            Some(told) => Ok(told.letters),
            None => copy::open(&look.dead.path(id)).and_then(|copy| {
                let numbers = offline::numbers(&copy.db)?;
                Ok(numbers
                    .iter()
                    .filter(|&&number| look.state.counts(number))
                    .count() as u64)
            }),
        };
        match counted {
            Ok(letters) => sum.letters += letters,
            Err(error) => damage.push(bad_folder(look, id, error)?),
        }
    }
    Ok((sum, damage))
}

/// Shows all of them in the order of burial.
pub(super) fn each<B: From<LookError>>(
    look: &Look,
    mut show: impl FnMut(u64, Result<DeadLetter, String>) -> Result<(), B>,
) -> Result<(), B> {
    for &id in begun(look) {
        let opened = match open(look, id) {
            Ok(opened) => opened,
            Err(error) => {
                show(0, Err(bad_folder(look, id, error)?))?;
                continue;
            }
        };
        if let Some(lack) = opened.lack {
            show(0, Err(lack))?;
        }
        let Opened { copy, numbers, .. } = opened;
        for number in numbers.into_iter().filter(|&number| look.state.counts(number)) {
            let found = offline::load(&copy.db, number).map_err(|error| look.unreadable(&error))?;
            show(
                number,
                found.map_err(|reason| format!("dead letter {number}: {reason}")),
            )?;
        }
    }
    Ok(())
}

/// What is wrong with the folders and letters, a sentence each.
pub(super) fn problems(look: &Look) -> Result<Vec<String>, LookError> {
    let mut problems = Vec::new();
    for &id in begun(look) {
        match open(look, id).and_then(|opened| problems_in(id, opened)) {
            Ok(found) => problems.extend(found),
            Err(error) => problems.push(bad_folder(look, id, error)?),
        }
    }
    Ok(problems)
}

fn problems_in(id: u64, opened: Opened) -> Result<Vec<String>, StorageError> {
    let mut problems: Vec<String> = opened.lack.into_iter().collect();
    for number in opened.numbers {
        if let Err(reason) = offline::load(&opened.copy.db, number)? {
            problems.push(format!(
                "dead/gen-{id:08}: dead letter {number} cannot be read: {reason}"
            ));
        }
    }
    Ok(problems)
}

/// A copy of a folder, with the numbers of the letters in it.
struct Opened {
    copy: Copy,
    numbers: Vec<u64>,
    /// What is missing, in a sentence.
    lack: Option<String>,
}

fn open(look: &Look, id: u64) -> Result<Opened, StorageError> {
    let path = look.dead.path(id);
    let copy = copy::open(&path)?;
    let numbers = offline::numbers(&copy.db)?;
    // The file is written after the head, which is gone where sled lost the end of its own file.
    let told = match offline::told_sealed(&path) {
        Some(told) => told,
        None => offline::told(&copy.db)?,
    };
    let found = numbers.len() as u64;
    let lack = (told.letters != found).then(|| {
        format!(
            "dead/gen-{id:08}: it says that it holds {} letters and holds {found}",
            told.letters
        )
    });
    Ok(Opened { copy, numbers, lack })
}

/// Folders that were finished; what lies in others never counted.
fn begun(look: &Look) -> impl Iterator<Item = &u64> {
    look.dead.present.iter().filter(|&&id| look.dead.was_begun(id))
}

/// The sentence about a damaged folder, or trouble with the disk.
fn bad_folder(look: &Look, id: u64, error: StorageError) -> Result<String, LookError> {
    match error.damage {
        true => Ok(format!("dead/gen-{id:08} is damaged: {error}")),
        false => Err(look.unreadable(&error)),
    }
}
