//! How large the suite runs, what it draws at random, and how it prints a figure.

use std::io::Write;
use std::sync::OnceLock;

/// A number of rounds: the first as in CI, the second with `PHOSPHOD_FAULTS=large`.
pub(crate) fn rounds(ci: usize, large: usize) -> usize {
    if is_large() { large } else { ci }
}

fn is_large() -> bool {
    std::env::var_os("PHOSPHOD_FAULTS").is_some_and(|size| size == "large")
}

/// One line on the terminal. `print!` in a passing test is never shown.
pub(crate) fn figure(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// `PHOSPHOD_SEED`, or one of this run's own; printed once.
fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let seed = match std::env::var("PHOSPHOD_SEED") {
            Ok(given) => given.parse().expect("PHOSPHOD_SEED is a whole number"),
            Err(_) => fastrand::u64(..),
        };
        let size = if is_large() { "large" } else { "CI" };
        figure(&format!("faults: size {size}, PHOSPHOD_SEED={seed}"));
        seed
    })
}

/// A test's random numbers. They depend on the seed and on its name, not on what runs beside it.
pub(crate) struct Dice {
    pub(crate) random: fastrand::Rng,
}

impl Dice {
    /// Those of the test `name`.
    pub(crate) fn of(name: &str) -> Self {
        let salt = name.bytes().fold(0, |salt: u64, byte| {
            salt.wrapping_mul(31).wrapping_add(byte.into())
        });
        Self {
            random: fastrand::Rng::with_seed(seed() ^ salt),
        }
    }
}

impl Drop for Dice {
    fn drop(&mut self) {
        if std::thread::panicking() {
            figure(&format!("faults: failed with PHOSPHOD_SEED={}", seed()));
        }
    }
}
