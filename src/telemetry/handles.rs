//! The handles of one series on one thread. Each handle is looked up at its first use, and again when necessary.
//!
//! An exporter with an idle timeout forgets a series without updates, and later updates through an old handle are lost.
//! For example, the series of failures may have no update while calls succeed. Time is therefore divided into
//! [periods](PERIOD), and a handle is looked up again unless it was used in the present period or the one before.

use std::array;
use std::cell::Cell;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, SharedString};

use super::table::{Handle, Metric};

/// Half of the longest time for which an unused handle is kept, which is 5 s.
pub(super) const PERIOD: Duration = Duration::from_millis(2_500);

/// The handles that were used with one recorder.
pub(crate) struct Handles {
    scope: Scope,
    counters: Vec<Slot<Counter>>,
    gauges: Vec<Slot<Gauge>>,
    histograms: Vec<Slot<Histogram>>,
    /// The handles of endpoints, with the identity of the endpoint's label, at the indices of the labels.
    endpoints: Vec<Option<(u64, Self)>>,
}

/// The labels of all handles of a series, and the time of their use.
struct Scope {
    name: &'static str,
    /// The layer, the stage or the endpoint.
    part: SharedString,
    /// The number of the present period.
    period: Cell<u32>,
}

/// A handle. A series has only a few handles, so a linear search finds it.
struct Slot<H: 'static> {
    metric: &'static Metric<H>,
    /// At most two labels, beside the name and the part.
    values: [&'static str; 2],
    /// Period in which the handle was last used.
    period: u32,
    handle: H,
}

/// The values of labels, which come from closed sets.
type Values<'a> = &'a [&'static str];

impl Handles {
    pub(super) fn new(name: &'static str, part: impl Into<SharedString>) -> Self {
        Self {
            scope: Scope {
                name,
                part: part.into(),
                period: Cell::new(0),
            },
            counters: Vec::new(),
            gauges: Vec::new(),
            histograms: Vec::new(),
            endpoints: Vec::new(),
        }
    }

    /// Begins the next period.
    pub(super) fn advance(&self) {
        let period = self.scope.period.get();
        self.scope.period.set(period.wrapping_add(1));
    }

    /// Counts an event. `values` are the values of the labels after the name and the part.
    #[inline]
    pub(crate) fn count(&mut self, metric: &'static Metric<Counter>, values: Values<'_>) {
        let count = |counter: &Counter| counter.increment(1);
        self.scope.with(&mut self.counters, metric, values, count);
    }

    /// Makes a counter known, without an event.
    pub(crate) fn count_none(&mut self, metric: &'static Metric<Counter>, values: Values<'_>) {
        let begin = |counter: &Counter| counter.increment(0);
        self.scope.with(&mut self.counters, metric, values, begin);
    }

    /// Sets a gauge.
    pub(crate) fn set(&mut self, metric: &'static Metric<Gauge>, values: Values<'_>, level: f64) {
        let set = |gauge: &Gauge| gauge.set(level);
        self.scope.with(&mut self.gauges, metric, values, set);
    }

    /// Records a time.
    #[inline]
    pub(crate) fn record(
        &mut self,
        metric: &'static Metric<Histogram>,
        values: Values<'_>,
        time: Duration,
    ) {
        let record = |histogram: &Histogram| histogram.record(time);
        self.scope
            .with(&mut self.histograms, metric, values, record);
    }

    /// Returns the handles of an endpoint. No other endpoint with the same index has the same identity.
    pub(crate) fn of_endpoint(&mut self, index: usize, identity: u64, key: &Arc<str>) -> &mut Self {
        if self.endpoints.len() <= index {
            self.endpoints.resize_with(index + 1, || None);
        }
        let kept = self.endpoints[index].take();
        let kept = kept.filter(|(of, _)| *of == identity);
        let new = || (identity, Self::new(self.scope.name, Arc::clone(key)));
        let kept = kept.unwrap_or_else(new);
        let (_, handles) = self.endpoints[index].insert(kept);
        handles.scope.period = self.scope.period.clone();
        handles
    }
}

impl Scope {
    #[inline]
    fn with<H: Handle>(
        &self,
        slots: &mut Vec<Slot<H>>,
        metric: &'static Metric<H>,
        values: Values<'_>,
        used: impl FnOnce(&H),
    ) {
        let is_good = |slot: &&mut Slot<H>| slot.is_of(metric, values) && slot.is_in_use(self);
        if let Some(slot) = slots.iter_mut().find(is_good) {
            slot.period = self.period.get();
            used(&slot.handle);
        } else {
            used(self.look_up(slots, metric, values));
        }
    }

    /// Looks a handle up, and forgets handles that were not used for too long.
    #[cold]
    fn look_up<'a, H: Handle>(
        &self,
        slots: &'a mut Vec<Slot<H>>,
        metric: &'static Metric<H>,
        values: Values<'_>,
    ) -> &'a H {
        slots.retain(|slot| slot.is_in_use(self));
        slots.push(Slot {
            metric,
            values: array::from_fn(|index| values.get(index).copied().unwrap_or_default()),
            period: self.period.get(),
            handle: metric.look_up(self.name, &self.part, values),
        });
        &slots[slots.len() - 1].handle
    }
}

impl<H> Slot<H> {
    /// Compares values by their addresses. If the same text exists twice, it only costs one more slot.
    #[inline]
    fn is_of(&self, metric: &'static Metric<H>, values: Values<'_>) -> bool {
        let mut values = self.values.iter().zip(values);
        ptr::eq(self.metric, metric) && values.all(|(own, value)| ptr::eq(*own, *value))
    }

    #[inline]
    fn is_in_use(&self, scope: &Scope) -> bool {
        scope.period.get().wrapping_sub(self.period) <= 1
    }
}
