//! How many bytes the hand-written parts look at, for the test that this grows as the text does.

/// So many bytes were looked at. Does nothing outside of tests.
#[cfg(not(test))]
pub(super) const fn add(_bytes: usize) {}

#[cfg(test)]
pub(super) use counted::{add, taken};

#[cfg(test)]
mod counted {
    use std::cell::Cell;

    thread_local! {
        static STEPS: Cell<usize> = const { Cell::new(0) };
    }

    pub(in crate::redact) fn add(bytes: usize) {
        STEPS.set(STEPS.get() + bytes);
    }

    /// How many bytes were looked at meanwhile, on this thread.
    pub(in crate::redact) fn taken(work: impl FnOnce()) -> usize {
        let before = STEPS.get();
        work();
        STEPS.get() - before
    }
}
