//! The size of batch that an upstream takes, as learned from its 413s. Pure.

/// A batch is never held below this, so that a lane keeps moving.
const FLOOR_BYTES: usize = 4 << 10;

/// What is known about the largest batch that passes. Starts without a bound of its own.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SizeCap(Option<usize>);

impl SizeCap {
    /// Notes a 413 for a body of so many bytes: half of it from now on.
    pub(super) fn refused(&mut self, body_bytes: usize) {
        let half = (body_bytes / 2).max(FLOOR_BYTES);
        self.0 = Some(self.0.map_or(half, |cap| cap.min(half)));
    }

    /// Notes that a body of so many bytes passed: an eighth more from now on, until `most` is reached again. One of less than half of the
    /// bound says nothing about it.
    pub(super) fn passed(&mut self, body_bytes: usize, most: usize) {
        if let Some(cap) = self.0.filter(|cap| body_bytes >= cap / 2) {
            self.0 = Some(cap.saturating_add(cap / 8)).filter(|cap| *cap < most);
        }
    }

    /// The bound to use where `most` bytes are configured.
    pub(super) fn apply(&self, most: usize) -> usize {
        self.0.map_or(most, |cap| cap.min(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_size_is_halved_and_grows_back_slowly() {
        let mut cap = SizeCap::default();
        let most = 4 << 20;
        assert_eq!(cap.apply(most), most);
        cap.refused(4 << 20);
        assert_eq!(cap.apply(most), 2 << 20);
        cap.refused(3 << 20);
        assert_eq!(cap.apply(most), 3 << 19, "the smaller bound stands");
        let mut batches = 0;
        while cap.apply(most) < most {
            let bound = cap.apply(most);
            cap.passed(bound / 2 - 1, most);
            assert_eq!(cap.apply(most), bound, "a small one says nothing");
            cap.passed(bound, most);
            batches += 1;
        }
        assert!((6..20).contains(&batches), "{batches}");
        cap.refused(10);
        assert_eq!(cap.apply(most), FLOOR_BYTES);
    }
}
