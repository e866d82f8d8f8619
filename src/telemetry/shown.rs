//! When gauges are published.

use tokio::time::Instant;

use super::series::{Instruments, Series, recorder_id};
use crate::sync::{AtomicU64, Ordering};

/// The time after which a call that has the time at hand publishes the gauges again, in nanoseconds.
const REPUBLISH: u64 = 100_000_000;

/// When a layer last published its gauges, and to which recorder.
#[derive(Debug, Default)]
pub(crate) struct Published {
    recorder: AtomicU64,
    /// When it is time to do so again.
    due: AtomicU64,
}

impl Published {
    /// Publishes the gauges if the recorder has changed, or if that was last done a while ago.
    ///
    /// Called on the path of a successful call: two loads and a comparison. `nanos` is `now`, from an
    /// origin that is always the same.
    #[inline]
    pub(crate) fn keep<I: Instruments>(&self, series: &Series<I>, now: Instant, nanos: u64) {
        if self.is_due(nanos) {
            series.publish_again(now);
        }
    }

    /// Returns whether the caller is to publish the gauges now.
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

/// Instruments with gauges that show the sums over all layers of one name. A layer has its levels in one word, so
/// that it can say at any time what it shows.
pub(crate) trait Gauges<const N: usize>: Instruments {
    fn sums(&self) -> &[AtomicU64; N];

    /// The levels in the word of a layer.
    fn parts(word: u64) -> [u64; N];
}

/// The levels that one layer adds to the gauges of its series, and the time when they were published last.
///
/// A level is published
///
/// - every 100 ms, by a call that has the time at hand;
/// - when it is twice or half of what is shown, and more than a few more or less;
/// - when it has returned to zero: otherwise the last call before a pause would be shown until the next one.
#[derive(Debug)]
pub(crate) struct Shown<const N: usize> {
    word: AtomicU64,
    published: Published,
}

/// Levels that differ by less are not far from each other.
const FEW: u64 = 8;

impl<const N: usize> Shown<N> {
    /// The levels of a layer that has been built.
    pub(crate) fn new<I: Gauges<N>>(series: &Series<I>, word: u64) -> Self {
        move_sums::<I, N>(series, [0; N], I::parts(word));
        Self {
            word: AtomicU64::new(word),
            published: Published::default(),
        }
    }

    #[inline]
    fn parts<I: Gauges<N>>(&self) -> [u64; N] {
        I::parts(self.word.load(Ordering::SeqCst))
    }

    /// Returns whether levels are to be published without regard to the time. One load and a few comparisons.
    #[inline]
    pub(crate) fn is_outdated<I: Gauges<N>>(&self, word: u64) -> bool {
        (0..N).any(|part| self.is_outdated_in::<I>(part, word))
    }

    /// The same for one level, where the others cannot have changed.
    #[inline]
    pub(crate) fn is_outdated_in<I: Gauges<N>>(&self, part: usize, word: u64) -> bool {
        let (shown, level) = (self.parts::<I>()[part], I::parts(word)[part]);
        shown.abs_diff(level) >= FEW + shown.min(level) || (shown > 0 && level == 0)
    }

    /// Publishes the gauges if it is time to. `nanos` is `now`, from an origin that is always the same.
    #[inline]
    pub(crate) fn keep<I: Gauges<N>>(
        &self,
        series: &Series<I>,
        word: impl Fn() -> u64,
        now: Instant,
        nanos: u64,
    ) {
        if self.published.is_due(nanos) || self.is_outdated::<I>(word()) {
            self.publish(series, word, now);
        }
    }

    /// Publishes the gauges.
    ///
    /// If a level returns to zero, either the thread that brought it there sees that it is shown, or the thread that
    /// shows it sees that it has gone. So `word` must be changed, and read here, with sequential consistency.
    #[cold]
    pub(crate) fn publish<I: Gauges<N>>(
        &self,
        series: &Series<I>,
        word: impl Fn() -> u64,
        now: Instant,
    ) {
        loop {
            let levels = word();
            let shown = self.word.swap(levels, Ordering::SeqCst);
            if move_sums::<I, N>(series, I::parts(shown), I::parts(levels)) {
                series.publish(now);
            } else {
                series.publish_again(now);
            }
            if !self.is_outdated::<I>(word()) {
                return;
            }
        }
    }

    /// Publishes the gauges without a layer that no longer exists.
    pub(crate) fn remove<I: Gauges<N>>(&mut self, series: &Series<I>) {
        if move_sums::<I, N>(series, self.parts::<I>(), [0; N]) {
            series.publish(Instant::now());
        }
    }
}

/// Puts what a layer shows now in the place of what it showed before. Returns whether that is a difference.
fn move_sums<I: Gauges<N>, const N: usize>(
    series: &Series<I>,
    from: [u64; N],
    to: [u64; N],
) -> bool {
    for (part, sum) in series.levels().sums().iter().enumerate() {
        // Wraps where it falls; the sum does not.
        sum.fetch_add(to[part].wrapping_sub(from[part]), Ordering::SeqCst);
    }
    from != to
}
