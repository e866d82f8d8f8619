//! Publication of gauges.

use tokio::time::Instant;

use super::series::{Instruments, Series, recorder_id};
use crate::sync::{AtomicU64, Ordering};

/// The time after which a call that knows the time publishes the gauges again, in nanoseconds.
const REPUBLISH: u64 = 100_000_000;

/// Time at which a layer last published its gauges, and the recorder.
#[derive(Debug, Default)]
pub(crate) struct Published {
    recorder: AtomicU64,
    /// Time of the next publication.
    due: AtomicU64,
}

impl Published {
    /// Publishes the gauges if the recorder has changed, or if they were last published a while ago.
    ///
    /// It is on the path of a successful call: two loads and a comparison. `nanos` is `now`, from an origin that is
    /// always the same.
    #[inline]
    pub(crate) fn keep<I: Instruments>(&self, series: &Series<I>, now: Instant, nanos: u64) {
        if self.is_due(nanos) {
            series.publish_again(now);
        }
    }

    /// Returns whether the caller should publish the gauges now.
    #[inline]
    pub(crate) fn is_due(&self, nanos: u64) -> bool {
        let recorder = recorder_id() as u64;
        let is_due = self.recorder.load(Ordering::Relaxed) != recorder
            || nanos >= self.due.load(Ordering::Relaxed);
        if is_due {
            let due = nanos.saturating_add(REPUBLISH);
            self.due.store(due, Ordering::Relaxed);
            self.recorder.store(recorder, Ordering::Relaxed);
        }
        is_due
    }
}

/// Instruments with gauges that show the sums over all layers of one name. A layer stores its levels in one word, so
/// that it can read them together at any time.
pub(crate) trait Gauges<const N: usize>: Instruments {
    fn sums(&self) -> &[AtomicU64; N];

    /// The number of levels, the first ones, whose changes are published before the next period.
    const FOLLOWED: usize = N;

    /// Returns the levels in the word of a layer. All are zero in the word zero.
    fn parts(word: u64) -> [u64; N];
}

/// The levels that one layer adds to the gauges of its series.
///
/// A level is published
///
/// - every 100 ms, by a call that knows the time, through the core of the layer;
/// - when it is at least twice or at most half of the shown level, and differs by more than a few;
/// - when it has returned to zero, because otherwise the gauge would show the last call until the next one.
pub(crate) struct Shown<I: Gauges<N>, const N: usize> {
    pub(crate) series: &'static Series<I>,
    word: AtomicU64,
}

/// Levels that differ by less count as near each other.
const FEW: u64 = 8;

impl<I: Gauges<N>, const N: usize> Shown<I, N> {
    /// Makes the levels of a layer that has been built.
    pub(crate) fn new(series: &'static Series<I>, word: u64) -> Self {
        let shown = Self {
            series,
            word: AtomicU64::new(0),
        };
        shown.replace(word);
        shown
    }

    /// Replaces the levels that the layer shows. Returns whether they differ.
    fn replace(&self, word: u64) -> bool {
        let before = self.word.swap(word, Ordering::SeqCst);
        let (from, to) = (I::parts(before), I::parts(word));
        for (part, sum) in self.series.levels().sums().iter().enumerate() {
            // A decrease wraps, and the sum is right again.
            sum.fetch_add(to[part].wrapping_sub(from[part]), Ordering::SeqCst);
        }
        from != to
    }

    /// Returns whether the levels must be published before the next period. It costs one load and a few comparisons.
    #[inline]
    pub(crate) fn is_outdated(&self, word: u64) -> bool {
        (0..I::FOLLOWED).any(|part| self.is_outdated_in(part, word))
    }

    /// Returns the same for one level, if the others cannot have changed.
    #[inline]
    pub(crate) fn is_outdated_in(&self, part: usize, word: u64) -> bool {
        let shown = I::parts(self.word.load(Ordering::SeqCst))[part];
        let level = I::parts(word)[part];
        shown.abs_diff(level) >= FEW + shown.min(level) || (shown > 0 && level == 0)
    }

    /// Publishes the gauges if they are outdated.
    #[inline]
    pub(crate) fn catch_up(&self, word: impl Fn() -> u64, now: impl FnOnce() -> Instant) {
        if self.is_outdated(word()) {
            self.publish(word, now());
        }
    }

    /// Publishes the gauges.
    ///
    /// If a level returns to zero, either the thread that changed it sees that it is still shown, or the thread that
    /// shows it sees the zero. `word` must therefore be changed, and read here, with sequential consistency.
    #[cold]
    pub(crate) fn publish(&self, word: impl Fn() -> u64, now: Instant) {
        loop {
            self.replace(word());
            self.series.publish(now);
            if !self.is_outdated(word()) {
                return;
            }
        }
    }
}

impl<I: Gauges<N>, const N: usize> Drop for Shown<I, N> {
    /// The gauges must not show a layer that no longer exists.
    fn drop(&mut self) {
        if self.replace(0) {
            self.series.publish(Instant::now());
        }
    }
}
