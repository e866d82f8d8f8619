//! The handles of one series on one thread: each is looked up when it is used first, and again when that is needed.
//!
//! An exporter with an idle timeout forgets a series that nobody has updated for a while, after which updates through an
//! old handle are lost. While successes come all the time, that may happen to the series of failures. So the time is cut
//! into [periods](PERIOD), and a handle is looked up again unless it was used in the present period or in the one before.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, SharedString};

use super::table::{Handle, Metric};

/// Half of the time for which an unused handle may be kept: it was last used at most 5 s ago.
pub(super) const PERIOD: Duration = Duration::from_millis(2_500);

/// The handles that were used with one recorder.
pub(crate) struct Handles {
    name: &'static str,
    /// The layer, the stage or the endpoint.
    part: SharedString,
    /// The number of the present period.
    period: Cell<u32>,
    counters: Kept<Counter>,
    gauges: Kept<Gauge>,
    histograms: Kept<Histogram>,
    /// The handles of endpoints, with the identity of the endpoint's label, at the indices of the labels.
    endpoints: RefCell<Vec<Option<(u64, Self)>>>,
}

/// A few, so that they are found by looking at each.
type Kept<H> = RefCell<Vec<Slot<H>>>;

struct Slot<H: 'static> {
    metric: &'static Metric<H>,
    values: [&'static str; MAX_VALUES],
    /// When the handle was last used.
    period: u32,
    handle: H,
}

/// The most labels that a metric has beside the name and the part.
const MAX_VALUES: usize = 2;

impl Handles {
    pub(super) fn new(name: &'static str, part: impl Into<SharedString>) -> Self {
        Self {
            name,
            part: part.into(),
            period: Cell::new(0),
            counters: Kept::default(),
            gauges: Kept::default(),
            histograms: Kept::default(),
            endpoints: RefCell::default(),
        }
    }

    /// Begins the next period.
    pub(super) fn advance(&self) {
        self.period.set(self.period.get().wrapping_add(1));
    }

    /// Counts an event. `values` are those of the labels, beside the name and the part.
    #[inline]
    pub(crate) fn count<const N: usize>(
        &self,
        metric: &'static Metric<Counter>,
        values: [&'static str; N],
    ) {
        self.with(&self.counters, metric, values, |counter| {
            counter.increment(1);
        });
    }

    /// Sets a gauge.
    pub(crate) fn set<const N: usize>(
        &self,
        metric: &'static Metric<Gauge>,
        values: [&'static str; N],
        level: f64,
    ) {
        self.with(&self.gauges, metric, values, |gauge| gauge.set(level));
    }

    /// Records a time.
    #[inline]
    pub(crate) fn record<const N: usize>(
        &self,
        metric: &'static Metric<Histogram>,
        values: [&'static str; N],
        time: Duration,
    ) {
        self.with(&self.histograms, metric, values, |histogram| {
            histogram.record(time);
        });
    }

    /// Labels are told apart by their addresses: no text is compared.
    #[inline]
    fn with<H: Handle, const N: usize>(
        &self,
        kept: &Kept<H>,
        metric: &'static Metric<H>,
        values: [&'static str; N],
        used: impl FnOnce(&H),
    ) {
        let mut slots = kept.borrow_mut();
        let period = self.period.get();
        let is_of = |slot: &Slot<H>| {
            let mut labels = slot.values.iter().zip(&values);
            std::ptr::eq(slot.metric, metric) && labels.all(|(a, b)| std::ptr::eq(*a, *b))
        };
        let place = slots.iter().position(is_of);
        let place = match place {
            Some(place) if period.wrapping_sub(slots[place].period) <= 1 => place,
            _ => self.look_up(&mut slots, place, metric, &values),
        };
        let slot = &mut slots[place];
        slot.period = period;
        used(&slot.handle);
    }

    /// Looks a handle up and puts it into a slot. Returns which.
    #[cold]
    fn look_up<H: Handle>(
        &self,
        slots: &mut Vec<Slot<H>>,
        place: Option<usize>,
        metric: &'static Metric<H>,
        values: &[&'static str],
    ) -> usize {
        let handle = metric.look_up(self.name, &self.part, values);
        let place = place.unwrap_or(slots.len());
        if let Some(slot) = slots.get_mut(place) {
            slot.handle = handle;
        } else {
            let mut slot = Slot {
                metric,
                values: [""; MAX_VALUES],
                period: 0,
                handle,
            };
            slot.values[..values.len()].copy_from_slice(values);
            slots.push(slot);
        }
        place
    }

    /// Reports something of an endpoint. No other one with the same index has the same identity.
    pub(crate) fn of_endpoint(
        &self,
        index: usize,
        identity: u64,
        key: &Arc<str>,
        report: impl FnOnce(&Self),
    ) {
        let mut endpoints = self.endpoints.borrow_mut();
        if endpoints.len() <= index {
            endpoints.resize_with(index + 1, || None);
        }
        let (_, handles) = match &mut endpoints[index] {
            Some(kept) if kept.0 == identity => kept,
            kept => kept.insert((identity, Self::new(self.name, Arc::clone(key)))),
        };
        handles.period.set(self.period.get());
        report(handles);
    }
}
