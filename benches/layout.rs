//! Which layout inside sled costs the least: the same events, in the same groups, written as the spool writes them, with
//! one thing varied at a time. What won is what `src/spool` does; the figures are in docs/design.md.
//!
//! `cargo bench --bench layout [-- EVENTS]`
mod common;

use common::{GROUP, Measured, events, resident_mib, written_so_far};
use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Keys that are made ahead, so that the leaf which takes a value was split before.
const AHEAD: u32 = 40;

#[derive(Clone, Copy, PartialEq)]
enum Keys {
    /// (lane, sequence): a leaf splits in its middle when it is full, and both halves are written again.
    Sequence,
    /// Numbered slots whose empty keys were made beforehand, and a small index: a value is written once.
    Slots,
}

#[derive(Clone, Copy)]
struct Layout {
    keys: Keys,
    chunk_events: usize,
    segment_mib: usize,
    cache_mib: u64,
    generation_mib: usize,
    lz4: bool,
}

struct Generation {
    db: sled::Db,
    file: File,
    path: PathBuf,
    slots: u32,
    made: u32,
    written: usize,
}

impl Generation {
    fn make(folder: &Path, number: usize, layout: &Layout) -> Result<Generation, Box<dyn Error>> {
        let path = folder.join(format!("gen-{number}"));
        let db = sled::Config::new()
            .path(&path)
            .mode(sled::Mode::LowSpace)
            .cache_capacity(layout.cache_mib << 20)
            .segment_size(layout.segment_mib << 20)
            .use_compression(false)
            .flush_every_ms(None)
            .open()?;
        let file = File::open(path.join("db"))?;
        Ok(Generation {
            db,
            file,
            path,
            slots: 0,
            made: 0,
            written: 0,
        })
    }

    fn write(&mut self, chunks: Vec<(u64, Vec<u8>)>, layout: &Layout) -> Result<(), Box<dyn Error>> {
        let mut batch = sled::Batch::default();
        for (seq, value) in &chunks {
            let key = [b"e".as_slice(), &7u32.to_be_bytes(), &seq.to_be_bytes()].concat();
            if layout.keys == Keys::Sequence {
                batch.insert(key, value.as_slice());
                continue;
            }
            while self.made < self.slots + AHEAD {
                self.db
                    .insert([b"s".as_slice(), &self.made.to_be_bytes()].concat(), &[])?;
                self.made += 1;
            }
            batch.insert(
                [b"s".as_slice(), &self.slots.to_be_bytes()].concat(),
                value.as_slice(),
            );
            batch.insert(key, &self.slots.to_be_bytes());
            self.slots += 1;
        }
        // What goes with every commit: head, cursor, extent.
        for name in [b"mh", b"mc", b"mx"] {
            batch.insert(name.as_slice(), &[0u8; 48][..]);
        }
        self.db.apply_batch(batch)?;
        self.db.flush()?;
        self.file.sync_data()?;
        Ok(())
    }
}

fn blobs(path: &Path) -> usize {
    std::fs::read_dir(path.join("blobs")).map_or(0, |entries| entries.count())
}

fn run(
    folder: &Path,
    layout: &Layout,
    events: &[Vec<u8>],
    total: usize,
) -> Result<(Measured, usize), Box<dyn Error>> {
    let (before, start) = (written_so_far(), Instant::now());
    let mut commits = Vec::new();
    let mut number = 1;
    let mut blob_files = 0;
    let mut generation = Generation::make(folder, number, layout)?;
    for group in (0..total).step_by(GROUP) {
        let began = Instant::now();
        let end = (group + GROUP).min(total);
        let mut chunks = Vec::new();
        for first in (group..end).step_by(layout.chunk_events) {
            let mut raw = Vec::new();
            for n in first..(first + layout.chunk_events).min(end) {
                let event = &events[n % events.len()];
                raw.extend((event.len() as u32).to_be_bytes());
                raw.extend(event);
            }
            generation.written += raw.len();
            chunks.push((
                first as u64,
                if layout.lz4 {
                    lz4_flex::block::compress_prepend_size(&raw)
                } else {
                    raw
                },
            ));
        }
        generation.write(chunks, layout)?;
        if generation.written >= layout.generation_mib << 20 {
            blob_files += blobs(&generation.path);
            number += 1;
            generation = Generation::make(folder, number, layout)?;
        }
        commits.push(began.elapsed());
    }
    blob_files += blobs(&generation.path);
    Ok((
        Measured {
            name: String::new(),
            events: total,
            took: start.elapsed(),
            commits,
            written: written_so_far() - before,
        },
        blob_files,
    ))
}

fn main() -> Result<(), Box<dyn Error>> {
    let total = common::number_wanted(200_000);
    let events = events(&mut fastrand::Rng::with_seed(1));
    let base = Layout {
        keys: Keys::Slots,
        chunk_events: 32,
        segment_mib: 2,
        cache_mib: 4,
        generation_mib: 64,
        lz4: true,
    };
    let varied = [
        (
            "a key a sequence",
            Layout {
                keys: Keys::Sequence,
                ..base
            },
        ),
        ("slots", base),
        ("slots, not compressed", Layout { lz4: false, ..base }),
        (
            "slots, chunks of 16",
            Layout {
                chunk_events: 16,
                ..base
            },
        ),
        (
            "slots, chunks of 64",
            Layout {
                chunk_events: 64,
                segment_mib: 4,
                ..base
            },
        ),
        (
            "slots, segments of 1 MiB",
            Layout {
                segment_mib: 1,
                ..base
            },
        ),
        (
            "slots, segments of 8 MiB",
            Layout {
                segment_mib: 8,
                ..base
            },
        ),
        ("slots, cache 1 MiB", Layout { cache_mib: 1, ..base }),
        (
            "slots, cache 16 MiB",
            Layout {
                cache_mib: 16,
                ..base
            },
        ),
        (
            "slots, generations of 32 MiB",
            Layout {
                generation_mib: 32,
                ..base
            },
        ),
        (
            "slots, generations of 128 MiB",
            Layout {
                generation_mib: 128,
                ..base
            },
        ),
    ];
    let mut plain = common::plain_file(&events, total)?;
    plain.print();
    for (name, layout) in varied {
        let folder = tempfile::tempdir_in(".")?;
        let (mut measured, blob_files) = run(folder.path(), &layout, &events, total)?;
        measured.name = name.into();
        measured.print();
        println!(
            "{:<30} {:.2} of the plain file, RSS {:.0} MiB, files under blobs/: {blob_files}",
            "",
            measured.per_second() / plain.per_second(),
            resident_mib("self")
        );
    }
    let mut plain = common::plain_file(&events, total)?;
    plain.print();
    Ok(())
}
