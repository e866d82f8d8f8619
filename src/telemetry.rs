//! Handles to metrics: looked up once, used without a lock, and looked up again when that is needed.
//!
//! A lookup by name costs allocations and a lock inside the recorder, so handles are kept. They go
//! stale in two ways: the recorder is installed (or replaced) after they were made, and an exporter
//! with an idle timeout forgets a metric that nobody has updated for a while, after which updates
//! through an old handle are lost. So a handle is renewed when the recorder's address differs from
//! the one it was made with, or when it was last used more than five seconds ago.
//!
//! Every thread keeps its own handles. That makes using them free of locks and of contention, and it
//! needs no reference in the future of each call: a [`Series`] is interned by name and lives as long
//! as the process, like the label values that an exporter keeps. Names are expected to be a closed
//! set, as every metrics label is.

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use metrics::Counter;
use tokio::time::Instant;

use crate::sync::lock;
use crate::{Mode, Outcome};

/// Handles that have not been used for this long are looked up again.
const IDLE: Duration = Duration::from_secs(5);

/// How often gauges are published by calls that have the time at hand.
const REPUBLISH: Duration = Duration::from_millis(100);

/// The metrics of one kind of layer.
pub(crate) trait Instruments: Sized + 'static {
    /// What the gauges show. Shared by all layers of one name, and kept when handles are renewed.
    type Levels: Default + Send + Sync + 'static;

    /// Looks the handles up in the recorder in force, and describes them to it.
    fn bind(labels: Labels) -> Self;

    /// Sets every gauge to its present level.
    fn publish(&self, _levels: &Self::Levels) {}
}

/// What all metrics of a layer are labelled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Labels {
    /// The name that the user gave to the layer.
    pub(crate) name: &'static str,
    /// The kind of layer, or the stage that is measured.
    pub(crate) part: &'static str,
}

impl Labels {
    /// The counter of calls that a layer refused, which several layers have.
    pub(crate) fn rejections(self, reason: &'static str, mode: Mode) -> Counter {
        metrics::describe_counter!(
            "buttress_rejections_total",
            "Calls that a layer refused before the inner service was asked"
        );
        metrics::counter!("buttress_rejections_total",
            "name" => self.name, "layer" => self.part, "reason" => reason, "mode" => mode.label())
    }
}

/// How a call ended: the values of the label `outcome`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ended {
    Success,
    Failure,
    Overload,
    Ignored,
    Cancelled,
    Rejected,
}

impl Ended {
    pub(crate) const NAMES: [&str; 6] = [
        "success",
        "failure",
        "overload",
        "ignored",
        "cancelled",
        "rejected",
    ];
}

impl From<Outcome> for Ended {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success => Self::Success,
            Outcome::Failure => Self::Failure,
            Outcome::Overload { .. } => Self::Overload,
            Outcome::Ignored => Self::Ignored,
            Outcome::Cancelled => Self::Cancelled,
        }
    }
}

/// The metrics of all layers of one kind that have the same name.
pub(crate) struct Series<I: Instruments> {
    labels: Labels,
    /// The place of this series in the table of each thread.
    slot: usize,
    /// How many layers have been built for it. A layer built since may run under another recorder
    /// at the address of a former one, so handles that are older are renewed.
    builds: AtomicU32,
    levels: I::Levels,
    /// How often the levels were changed and published.
    changes: AtomicU64,
}

/// The handles of one series on one thread.
struct Bound<I> {
    recorder: usize,
    builds: u32,
    used: Used,
    instruments: I,
}

thread_local! {
    static BOUND: RefCell<Vec<Option<Box<dyn Any>>>> = const { RefCell::new(Vec::new()) };
}

#[derive(Default)]
struct Registry {
    names: HashSet<&'static str>,
    series: HashMap<(TypeId, Labels), &'static (dyn Any + Send + Sync)>,
}

static REGISTRY: Mutex<Option<Registry>> = Mutex::new(None);

impl<I: Instruments> Series<I> {
    /// The series of all layers of this kind and name. Called when a layer is built.
    pub(crate) fn of(name: &str, part: &'static str) -> &'static Self {
        let mut registry = lock(&REGISTRY);
        let registry = registry.get_or_insert_default();
        let name = registry.names.get(name).copied().unwrap_or_else(|| {
            let name: &'static str = Box::leak(name.into());
            registry.names.insert(name);
            name
        });
        let labels = Labels { name, part };
        let slot = registry.series.len();
        let any = *registry
            .series
            .entry((TypeId::of::<I>(), labels))
            .or_insert_with(|| Box::leak(Box::new(Self::new(labels, slot))));
        let series: &'static Self = any.downcast_ref().expect("keyed by the type");
        series.builds.fetch_add(1, Ordering::Relaxed);
        series
    }

    fn new(labels: Labels, slot: usize) -> Self {
        Self {
            labels,
            slot,
            builds: AtomicU32::new(0),
            levels: I::Levels::default(),
            changes: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(crate) fn name(&self) -> &'static str {
        self.labels.name
    }

    pub(crate) fn levels(&self) -> &I::Levels {
        &self.levels
    }

    /// Reports something through the handles of this thread.
    #[inline]
    pub(crate) fn report(&self, now: Instant, report: impl Fn(&I)) {
        let kept = BOUND.try_with(|table| {
            let mut table = table.try_borrow_mut().ok()?;
            if table.len() <= self.slot {
                table.resize_with(self.slot + 1, || None);
            }
            let recorder = recorder_id();
            let builds = self.builds.load(Ordering::Relaxed);
            let bound = table[self.slot].as_deref_mut();
            let bound = match bound.and_then(|any| any.downcast_mut::<Bound<I>>()) {
                Some(bound)
                    if bound.recorder == recorder
                        && bound.builds == builds
                        && bound.used.again(now) =>
                {
                    bound
                }
                _ => self.bind(&mut table[self.slot], recorder, builds, now)?,
            };
            report(&bound.instruments);
            Some(())
        });
        // The thread is ending, or the recorder itself is making a call through a layer.
        if !matches!(kept, Ok(Some(()))) {
            report(&I::bind(self.labels));
        }
    }

    #[cold]
    fn bind<'a>(
        &self,
        place: &'a mut Option<Box<dyn Any>>,
        recorder: usize,
        builds: u32,
        now: Instant,
    ) -> Option<&'a mut Bound<I>> {
        let instruments = I::bind(self.labels);
        self.show(&instruments);
        let bound: Box<dyn Any> = Box::new(Bound {
            recorder,
            builds,
            used: Used::at(now),
            instruments,
        });
        place.insert(bound).downcast_mut()
    }

    /// Publishes the gauges after a level has changed.
    #[cold]
    pub(crate) fn publish(&self, now: Instant) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.publish_again(now);
    }

    /// Publishes the gauges as they are.
    #[cold]
    pub(crate) fn publish_again(&self, now: Instant) {
        self.report(now, |instruments| self.show(instruments));
    }

    /// Sets the gauges.
    ///
    /// Two threads may do so at once, and the one with the older levels may be the last one to set the gauges. It then
    /// sees that the levels have changed meanwhile, and does it again.
    fn show(&self, instruments: &I) {
        loop {
            let changes = self.changes.load(Ordering::SeqCst);
            instruments.publish(&self.levels);
            if self.changes.load(Ordering::SeqCst) == changes {
                return;
            }
        }
    }
}

/// When handles were used last.
struct Used {
    last: Cell<Instant>,
    /// At most [`IDLE`] after that. Until then nothing need be computed.
    kept_until: Cell<Instant>,
}

impl Used {
    fn at(now: Instant) -> Self {
        Self {
            last: Cell::new(now),
            kept_until: Cell::new(now + IDLE),
        }
    }

    /// Notes a use, and says whether the one before is recent enough for the handles to be good.
    #[inline]
    fn again(&self, now: Instant) -> bool {
        if now > self.kept_until.get() {
            if now.saturating_duration_since(self.last.get()) > IDLE {
                return false;
            }
            self.kept_until.set(now + IDLE);
        }
        self.last.set(now);
        true
    }
}

/// A handle that is looked up when it is used first, and again when it was idle for too long.
///
/// For the series of a layer that are used at different times: while successes come all the time, an
/// exporter may have dropped the series of failures.
pub(crate) struct LazyMetric<H>(RefCell<Option<(H, Used)>>);

impl<H> LazyMetric<H> {
    /// Uses the handle.
    #[inline]
    pub(crate) fn with(&self, now: Instant, look_up: impl FnOnce() -> H, used: impl FnOnce(&H)) {
        let mut kept = self.0.borrow_mut();
        match &mut *kept {
            Some((handle, last)) if last.again(now) => used(handle),
            _ => used(&kept.insert((look_up(), Used::at(now))).0),
        }
    }
}

impl<H> Default for LazyMetric<H> {
    fn default() -> Self {
        Self(RefCell::new(None))
    }
}

/// When the one who holds this last published its gauges, and to which recorder.
#[derive(Debug, Default)]
pub(crate) struct Published {
    recorder: AtomicUsize,
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

    /// Says whether the one who asks is to publish the gauges now.
    #[inline]
    pub(crate) fn is_due(&self, nanos: u64) -> bool {
        let recorder = recorder_id();
        let is_due = self.recorder.load(Ordering::Relaxed) != recorder
            || nanos >= self.due.load(Ordering::Relaxed);
        if is_due {
            let due = nanos.saturating_add(REPUBLISH.as_nanos() as u64);
            self.due.store(due, Ordering::Relaxed);
            self.recorder.store(recorder, Ordering::Relaxed);
        }
        is_due
    }
}

/// Instruments with gauges that show the sums over all layers of one name. A layer has its levels in one word, so
/// that it can say at any time what it shows.
pub(crate) trait Gauges<const N: usize>: Instruments {
    fn sums(levels: &Self::Levels) -> &[AtomicU64; N];

    /// The levels in the word of a layer.
    fn parts(word: u64) -> [u64; N];
}

/// What one layer adds to the gauges of its series, and when they were published last.
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

    /// Says whether levels are to be published without regard to the time. One load and a few comparisons.
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
    /// If a level returns to zero, either the one who brought it there sees that it is shown, or the one who
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

/// Puts what a layer shows now in the place of what it showed before. Says whether that is a difference.
fn move_sums<I: Gauges<N>, const N: usize>(
    series: &Series<I>,
    from: [u64; N],
    to: [u64; N],
) -> bool {
    for (part, sum) in I::sums(series.levels()).iter().enumerate() {
        // Wraps where it falls; the sum does not.
        sum.fetch_add(to[part].wrapping_sub(from[part]), Ordering::SeqCst);
    }
    from != to
}

impl<I: Instruments> fmt::Debug for Series<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Series").field(&self.labels).finish()
    }
}

/// Tells one recorder from another by its address.
#[inline]
fn recorder_id() -> usize {
    metrics::with_recorder(|recorder| std::ptr::from_ref(recorder).cast::<()>().addr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debugging::{DebugValue, DebuggingRecorder};
    use metrics::Gauge;
    use std::sync::atomic::AtomicI64;

    struct Test {
        events: Counter,
        level: Gauge,
    }

    impl Instruments for Test {
        type Levels = AtomicI64;

        fn bind(labels: Labels) -> Self {
            Self {
                events: metrics::counter!("test_events_total", "name" => labels.name),
                level: metrics::gauge!("test_level", "name" => labels.name),
            }
        }

        fn publish(&self, levels: &AtomicI64) {
            self.level.set(levels.load(Ordering::Relaxed) as f64);
        }
    }

    /// The value of each metric, as a recorder has it when `run` is over.
    fn recorded(run: impl FnOnce()) -> HashMap<String, u64> {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, run);
        let rows = snapshotter.snapshot().into_iter();
        rows.map(|(key, value)| {
            let value = match value {
                DebugValue::Counter(count) => count,
                DebugValue::Gauge(level) => level as u64,
                DebugValue::Histogram(values) => values.len() as u64,
            };
            (key.name().to_owned(), value)
        })
        .collect()
    }

    #[test]
    fn a_recorder_that_is_installed_later_gets_events_and_the_present_gauges() {
        let series = Series::<Test>::of("late", "test");
        let (now, published) = (Instant::now(), Published::default());
        published.keep(series, now, 0);
        series.report(now, |test| test.events.increment(1));
        series.levels().store(7, Ordering::Relaxed);
        let seen = recorded(|| {
            published.keep(series, now, 0);
            series.report(now, |test| test.events.increment(2));
        });
        assert_eq!(seen["test_events_total"], 2);
        assert_eq!(seen["test_level"], 7);
    }

    #[test]
    fn each_of_several_recorders_gets_its_own_events() {
        let now = Instant::now();
        for count in 1..5 {
            // Built in each round, so that a recorder at the address of the former one is noticed.
            let series = Series::<Test>::of("several", "test");
            let seen = recorded(|| series.report(now, |test| test.events.increment(count)));
            assert_eq!(seen["test_events_total"], count);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn handles_are_renewed_after_they_were_idle() {
        /// Counts how often it is bound.
        struct Binds(u32);

        impl Instruments for Binds {
            type Levels = ();

            fn bind(_: Labels) -> Self {
                thread_local! { static BINDS: RefCell<u32> = const { RefCell::new(0) } }
                Self(BINDS.with_borrow_mut(|binds| {
                    *binds += 1;
                    *binds
                }))
            }
        }

        let series = Series::<Binds>::of("idle", "test");
        let binds = || {
            let seen = AtomicU32::new(0);
            series.report(Instant::now(), |binds| {
                seen.store(binds.0, Ordering::Relaxed);
            });
            seen.into_inner()
        };
        assert_eq!(binds(), 1);
        tokio::time::advance(IDLE).await;
        assert_eq!(binds(), 1, "in use");
        tokio::time::advance(IDLE + Duration::from_millis(1)).await;
        assert_eq!(binds(), 2, "idle for longer than an exporter may wait");
    }

    #[test]
    fn a_recorder_that_makes_calls_through_a_layer_does_not_panic() {
        let series = Series::<Test>::of("reentrant", "test");
        let now = Instant::now();
        let seen = recorded(|| {
            series.report(now, |_| {
                series.report(now, |test| test.events.increment(1));
            });
        });
        assert_eq!(seen["test_events_total"], 1);
    }

    #[test]
    fn layers_of_one_name_share_a_series() {
        let series = Series::<Test>::of("shared", "test");
        assert!(std::ptr::eq(series, Series::<Test>::of("shared", "test")));
        assert!(!std::ptr::eq(series, Series::<Test>::of("shared", "other")));
    }
}
