//! Numbers that change while calls read them.

use crate::sync::{AtomicU64, Ordering, fence};

/// `N` numbers that are read together and never mixed, without a lock.
///
/// The numbers are in two places in turn. A *reader* loads the version with `Acquire`, reads the place of this version,
/// and reads the version again behind an `Acquire` fence. It begins anew if the version has changed. A *writer*, one at
/// a time, fills the place that is not in use between two `Release` steps: a fence, which orders the former version
/// before the new words, and the store of the next version, which orders it behind them. A reader that has seen a word
/// of a later version therefore sees that the version has changed.
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

    /// Changes all numbers at once. The caller holds a lock, so that there is one writer at a time.
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
