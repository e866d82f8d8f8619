//! Numbers that change while calls read them.

use crate::sync::{AtomicU64, Ordering, fence};

/// `N` numbers that change together. A reader takes no lock, and never gets numbers of different versions.
///
/// There are two places for the numbers. Even versions are in one of them, odd versions in the other one.
///
/// - *Reader*: loads the version with `Acquire`, reads the place of this version, and loads the version again after an
///   `Acquire` fence. If the version has changed, the reader starts again.
/// - *Writer*, one at a time: executes a `Release` fence, stores the words in the place of the next version, and stores
///   the next version with `Release`.
///
/// The writer's fence orders the present version before the words of the next one. A reader that has read such a word
/// therefore sees at its second load that the version has changed.
#[derive(Debug)]
pub(crate) struct Live<const N: usize> {
    version: AtomicU64,
    places: [[AtomicU64; N]; 2],
}

impl<const N: usize> Live<N> {
    pub(crate) fn new(words: [u64; N]) -> Self {
        Self {
            version: AtomicU64::new(0),
            places: [words.map(AtomicU64::new), words.map(AtomicU64::new)],
        }
    }

    /// Returns the numbers in force.
    #[inline]
    pub(crate) fn get(&self) -> [u64; N] {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let place = &self.places[(version & 1) as usize];
            let words = std::array::from_fn(|index| place[index].load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if self.version.load(Ordering::Relaxed) == version {
                return words;
            }
        }
    }

    /// Changes all numbers together. The caller holds a lock, so that there is only one writer at a time.
    pub(crate) fn set(&self, words: [u64; N]) {
        let next = self.version.load(Ordering::Relaxed).wrapping_add(1);
        fence(Ordering::Release);
        let place = &self.places[(next & 1) as usize];
        for (place, word) in place.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        self.version.store(next, Ordering::Release);
    }
}
