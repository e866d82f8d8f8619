//! Series: the metrics of all layers of one kind and name.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use metrics::Counter;
use tokio::time::Instant;

use super::changes::Changes;
use super::handles::{Handles, PERIOD};
use super::table::{Metric, QUEUE_WAIT, REJECTIONS};
use crate::debug::debug_fields;
use crate::sync::lock;
use crate::{ErrorKind, Mode};

/// The metrics of one kind of layer, and the levels of its gauges. All layers of one name share them.
pub(crate) trait Instruments: Default + Send + Sync + 'static {
    /// Sets every gauge to its present level.
    fn publish(&self, _handles: &mut Handles) {}
}

/// A layer without gauges.
impl Instruments for () {}

/// A counter that exists before its first event, and the values of its labels after the name and the part.
#[derive(Clone)]
pub(crate) struct Initial {
    metric: &'static Metric<Counter>,
    values: Vec<&'static str>,
}

impl Initial {
    pub(crate) fn of(metric: &'static Metric<Counter>, values: &[&'static str]) -> Self {
        let values = values.to_vec();
        Self { metric, values }
    }

    /// Returns the counter of the calls that a layer refuses for this reason.
    pub(crate) fn rejections(reason: ErrorKind, mode: Mode) -> Self {
        Self::of(&REJECTIONS, &[reason.label(), mode.label()])
    }

    fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.metric, other.metric) && self.values == other.values
    }
}

/// The metrics of all layers of one kind that have the same name.
///
/// Each kind has methods for its events in its `metrics.rs`.
pub(crate) struct Series<I = ()> {
    /// All series of the layers of this name.
    family: &'static Family,
    /// The kind of layer, or the stage that is measured.
    part: &'static str,
    /// The place of its handles in the table of each thread.
    slot: usize,
    /// The number of layers that have been built for it. A new layer may run under another recorder at the address of a
    /// former one, so older handles are renewed.
    builds: AtomicU32,
    /// The counters that exist before their first event. If a counter appears only with its first event, `increase`
    /// misses this event.
    initial: Mutex<Vec<Initial>>,
    levels: I,
    changes: Changes,
}

/// The handles of one series on one thread.
struct Bound {
    recorder: usize,
    builds: u32,
    /// The end of the present period.
    until: Cell<Instant>,
    handles: Handles,
}

thread_local! {
    static BOUND: RefCell<Vec<Option<Box<Bound>>>> = const { RefCell::new(Vec::new()) };
}

/// The series of all layers of one name.
struct Family {
    name: &'static str,
    /// Address of the recorder that knows the initial counters and gauges of all members.
    recorder: AtomicUsize,
    members: Mutex<Vec<&'static dyn Member>>,
}

/// A series of any kind.
trait Member: Any + Send + Sync {
    /// The compiler of the oldest supported Rust cannot do this by itself.
    fn as_any(&'static self) -> &'static dyn Any;

    fn part_label(&self) -> &'static str;

    /// Makes the initial counters and the gauges known to the recorder in force.
    fn begin(&self);
}

#[derive(Default)]
struct Registry {
    families: HashMap<&'static str, &'static Family>,
    /// The number of series.
    slots: usize,
}

static REGISTRY: Mutex<Option<Registry>> = Mutex::new(None);

impl Family {
    /// Begins all series of this name, if the recorder does not know them.
    fn begin(&self, recorder: usize) {
        if self.recorder.load(Ordering::Relaxed) == recorder {
            return;
        }
        let members = lock(&self.members).clone();
        for member in members {
            member.begin();
        }
        // Last, so that a recorder that panics is told again. Two threads that tell it at once do no harm.
        self.recorder.store(recorder, Ordering::Relaxed);
    }
}

impl<I: Instruments> Member for Series<I> {
    fn as_any(&'static self) -> &'static dyn Any {
        self
    }

    fn part_label(&self) -> &'static str {
        self.part
    }

    fn begin(&self) {
        let initial = lock(&self.initial).clone();
        let mut handles = Handles::new(self.name(), self.part);
        for Initial { metric, values } in &initial {
            handles.count_none(metric, values);
        }
        self.show(&mut handles);
    }
}

impl<I: Instruments> Series<I> {
    /// Returns the series of all layers of this kind and name. Called when a layer is built.
    pub(crate) fn of(name: &str, part: &'static str) -> &'static Self {
        let mut registry = lock(&REGISTRY);
        let registry = registry.get_or_insert_default();
        let family = registry.families.get(name).copied();
        let family = family.unwrap_or_else(|| {
            let name: &'static str = Box::leak(name.into());
            let family: &'static Family = Box::leak(Box::new(Family {
                name,
                recorder: AtomicUsize::new(0),
                members: Mutex::default(),
            }));
            registry.families.insert(name, family);
            family
        });
        let mut members = lock(&family.members);
        let of_part = members.iter().filter(|member| member.part_label() == part);
        let mut of_kind = of_part.filter_map(|member| {
            let member: &'static dyn Member = *member;
            member.as_any().downcast_ref::<Self>()
        });
        let known = of_kind.next();
        let series = known.unwrap_or_else(|| {
            let series: &'static Self = Box::leak(Box::new(Self {
                family,
                part,
                slot: registry.slots,
                builds: AtomicU32::new(0),
                initial: Mutex::default(),
                levels: I::default(),
                changes: Changes::default(),
            }));
            registry.slots += 1;
            members.push(series);
            series
        });
        series.builds.fetch_add(1, Ordering::Relaxed);
        series
    }

    /// Makes these counters known with the value 0, and returns the series. The caller has set the levels before.
    ///
    /// The counters exist in the present recorder from now on. A recorder that is installed later knows them from the
    /// first call that any layer of this name reports to it.
    pub(crate) fn begin(
        &'static self,
        counters: impl IntoIterator<Item = Initial>,
    ) -> &'static Self {
        let mut initial = lock(&self.initial);
        for counter in counters {
            if !initial.iter().any(|known| known.is(&counter)) {
                initial.push(counter);
            }
        }
        drop(initial);
        Member::begin(self);
        self
    }

    #[inline]
    pub(crate) fn name(&self) -> &'static str {
        self.family.name
    }

    /// Returns the value of the label `layer`, or `stage`.
    pub(crate) fn part(&self) -> &'static str {
        self.part
    }

    pub(crate) fn levels(&self) -> &I {
        &self.levels
    }

    /// Reports something through the handles of this thread.
    #[inline]
    pub(crate) fn report(&self, now: Instant, report: impl Fn(&mut Handles)) {
        let reported = BOUND.try_with(|table| {
            let mut table = table.try_borrow_mut().ok()?;
            let recorder = recorder_id();
            let builds = self.builds.load(Ordering::Relaxed);
            let bound = match table.get_mut(self.slot) {
                Some(Some(bound)) if bound.is_of(recorder, builds) && bound.is_in_use(now) => bound,
                _ => self.bind(&mut table, recorder, builds, now),
            };
            report(&mut bound.handles);
            Some(())
        });
        // The thread is ending, or the recorder itself is making a call through a layer.
        if !matches!(reported, Ok(Some(()))) {
            report(&mut Handles::new(self.name(), self.part));
        }
    }

    #[cold]
    fn bind<'a>(
        &self,
        table: &'a mut Vec<Option<Box<Bound>>>,
        recorder: usize,
        builds: u32,
        now: Instant,
    ) -> &'a mut Bound {
        let mut bound = Bound {
            recorder,
            builds,
            until: Cell::new(now + PERIOD),
            handles: Handles::new(self.name(), self.part),
        };
        let known = table.get(self.slot).and_then(Option::as_ref);
        if known.is_some_and(|known| known.is_of(recorder, builds)) {
            // Nothing was reported for a while: an exporter may have dropped the series of the whole family.
            self.family.recorder.store(0, Ordering::Relaxed);
        }
        self.family.begin(recorder);
        self.show(&mut bound.handles);
        if table.len() <= self.slot {
            table.resize_with(self.slot + 1, || None);
        }
        table[self.slot].insert(Box::new(bound))
    }

    /// Records the wait of a call in a queue. `end` is the value of the label `result`.
    pub(crate) fn waited(&self, end: &'static str, waited: Duration, now: Instant) {
        self.report(now, |handles| handles.record(&QUEUE_WAIT, &[end], waited));
    }

    /// Counts a call that the layer has refused, or would have refused in the mode [`Observe`](Mode::Observe).
    pub(crate) fn rejected(&self, reason: ErrorKind, mode: Mode, now: Instant) {
        let values = [reason.label(), mode.label()];
        self.report(now, |handles| handles.count(&REJECTIONS, &values));
    }

    /// Publishes the gauges after a level has changed.
    #[cold]
    pub(crate) fn publish(&self, now: Instant) {
        self.changes.note();
        self.publish_again(now);
    }

    /// Publishes the gauges without a change of level.
    #[cold]
    pub(crate) fn publish_again(&self, now: Instant) {
        self.report(now, |handles| self.show(handles));
    }

    fn show(&self, handles: &mut Handles) {
        self.changes.show(|| self.levels.publish(handles));
    }
}

impl Bound {
    #[inline]
    fn is_of(&self, recorder: usize, builds: u32) -> bool {
        self.recorder == recorder && self.builds == builds
    }

    /// Notes a use. Returns `false` if the last use is more than a period ago.
    #[inline]
    fn is_in_use(&self, now: Instant) -> bool {
        if now > self.until.get() {
            let until = self.until.get() + PERIOD;
            if now > until {
                return false;
            }
            self.until.set(until);
            self.handles.advance();
        }
        true
    }
}

debug_fields!([I] Series<I> { family.name, part });

/// Identifies the recorder by its address.
#[inline]
pub(super) fn recorder_id() -> usize {
    metrics::with_recorder(|recorder| std::ptr::from_ref(recorder).cast::<()>().addr())
}

#[cfg(test)]
mod tests {
    use super::super::shown::Published;
    use super::super::table::{HEDGES, IN_FLIGHT};
    use super::*;
    use crate::debugging::{DebugValue, DebuggingRecorder};
    use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
    use std::sync::atomic::AtomicI64;

    #[derive(Default)]
    struct Test(AtomicI64);

    impl Instruments for Test {
        fn publish(&self, handles: &mut Handles) {
            handles.set(&IN_FLIGHT, &[], self.0.load(Ordering::Relaxed) as f64);
        }
    }

    impl Series<Test> {
        fn hedged(&self, times: u32, now: Instant) {
            for _ in 0..times {
                self.report(now, |handles| handles.count(&HEDGES, &["won"]));
            }
        }
    }

    /// Returns the value of each metric in a recorder after `run`.
    fn recorded(run: impl FnOnce()) -> HashMap<String, u64> {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, run);
        let rows = snapshotter.snapshot().into_iter();
        rows.map(|(key, value)| {
            assert!(snapshotter.is_described(&key), "{key}");
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
        series.hedged(1, now);
        series.levels().0.store(7, Ordering::Relaxed);
        let seen = recorded(|| {
            published.keep(series, now, 0);
            series.hedged(2, now);
        });
        assert_eq!(seen["buttress_hedges_total"], 2);
        assert_eq!(seen["buttress_in_flight"], 7);
    }

    #[test]
    fn each_of_several_recorders_gets_its_own_events() {
        let now = Instant::now();
        for count in 1..5 {
            // Built in each round, so that a recorder at the address of the former one is noticed.
            let series = Series::<Test>::of("several", "test");
            let seen = recorded(|| series.hedged(count, now));
            assert_eq!(seen["buttress_hedges_total"], u64::from(count));
        }
    }

    /// Counts how often counters are looked up.
    struct LookUps(Cell<u32>);

    impl metrics::Recorder for LookUps {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            self.0.set(self.0.get() + 1);
            Counter::noop()
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn handles_are_renewed_after_they_were_idle() {
        let recorder = LookUps(Cell::new(0));
        let _installed = metrics::set_default_local_recorder(&recorder);
        let series = Series::<Test>::of("idle", "test");
        let look_ups = |result| {
            series.report(Instant::now(), |handles| handles.count(&HEDGES, &[result]));
            recorder.0.get()
        };
        assert_eq!(look_ups("won"), 1);
        tokio::time::advance(2 * PERIOD).await;
        assert_eq!(look_ups("won"), 1, "in use");
        tokio::time::advance(2 * PERIOD + Duration::from_millis(1)).await;
        assert_eq!(
            look_ups("won"),
            2,
            "idle for longer than an exporter may wait"
        );
        assert_eq!(look_ups("lost"), 3);
        for _ in 0..3 {
            tokio::time::advance(PERIOD).await;
            assert_eq!(look_ups("won"), 3, "in use all the time");
        }
        assert_eq!(look_ups("lost"), 4, "idle beside one that was in use");
    }

    #[test]
    fn a_recorder_that_makes_calls_through_a_layer_does_not_panic() {
        let series = Series::<Test>::of("reentrant", "test");
        let now = Instant::now();
        let seen = recorded(|| series.report(now, |_| series.hedged(1, now)));
        assert_eq!(seen["buttress_hedges_total"], 1);
    }

    #[test]
    fn layers_of_one_name_share_a_series() {
        let series = Series::<Test>::of("shared", "test");
        assert!(std::ptr::eq(series, Series::<Test>::of("shared", "test")));
        assert!(!std::ptr::eq(series, Series::<Test>::of("shared", "other")));
    }
}
