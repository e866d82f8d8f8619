//! Ensures that gauges end at the newest levels, although several threads set them.

use crate::sync::{AtomicU64, Ordering};

/// The number of times that the levels of a series were changed and published.
///
/// Two threads may set the gauges at once, and the thread with the older levels may be the last to set them. It then
/// sees that the levels have changed in the meantime, and sets the gauges again: a gauge is set by a swap that acquires
/// and releases, so a thread that replaces a value sees the changes that its writer had noted before.
#[derive(Debug, Default)]
pub(crate) struct Changes(AtomicU64);

impl Changes {
    /// Notes that a level has changed.
    pub(crate) fn note(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// Sets the gauges until they are set to the newest levels.
    pub(crate) fn show(&self, mut set: impl FnMut()) {
        loop {
            let changes = self.0.load(Ordering::SeqCst);
            set();
            if self.0.load(Ordering::SeqCst) == changes {
                return;
            }
        }
    }
}
