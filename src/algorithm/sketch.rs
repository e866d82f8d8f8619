//! Latencies of calls: a histogram of the recent past, written without a lock.
//!
//! Each power of two has sixteen buckets, from 1 µs to five hours, with linear interpolation within a bucket. Threads
//! count into cells of their own. Once in a thirtieth of the window, the first thread moves the counts from the cells
//! into a ring of ten slices. Only this step takes a lock, and no thread waits for it.
//!
//! A call that was given up shows only that it would have taken longer. Without these calls, a service would look
//! faster the more slow calls are given up. They therefore count as *lower bounds*, and the quantiles are those of the
//! estimator for censored samples by Kaplan and Meier (*Nonparametric Estimation from Incomplete Observations*, 1958).

use std::time::Duration;

use crate::nanos::whole_nanos;
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering};

/// Each bucket is 3 to 6 % wide; with interpolation a quantile is exact to about 1 %.
const PER_OCTAVE: usize = 16;
/// The resolution, as a power of two of nanoseconds: about 1 µs.
const UNIT_BITS: u32 = 10;
/// Up to five hours, so that simulations on a stretched clock fit as well.
const OCTAVES: usize = 31;
const BUCKETS: usize = PER_OCTAVE * OCTAVES;

/// The slices of the window.
const SLICES: usize = 10;
/// Number of collections in a slice.
const TICKS: u64 = 3;

/// With fewer calls, a median is meaningless.
const MIN_RECENT: u64 = 20;

/// The latency of one call, or its lower bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Took {
    /// The call took this long.
    Exactly(Duration),
    /// The call would have taken longer: it was given up, or failed, after this time.
    LongerThan(Duration),
}

/// The settings of a sketch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Settings {
    /// The time of the past whose calls count.
    pub(crate) window: Duration,
    /// The quantile that is computed in each tick; above 0 and below 1.
    pub(crate) quantile: f64,
    /// With fewer calls in the window there is no quantile.
    pub(crate) min_samples: u32,
    /// Calls are slow if the recent median is above this factor times the median of the window.
    pub(crate) slowdown: f64,
}

/// The latencies of calls, in `N` buckets. The last bucket includes all longer ones.
pub(crate) struct Sketch<const N: usize = BUCKETS> {
    settings: Settings,
    stripes: Box<[Stripe<N>]>,
    history: Mutex<History<N>>,
    /// The length of a tick in nanoseconds.
    tick: u64,
    /// Beginning of the next tick.
    due: AtomicU64,
    /// The quantile in nanoseconds; [`UNKNOWN`] if there is none.
    quantile: AtomicU64,
    /// The calls of the last full tick.
    recent: AtomicU64,
    /// 1 while calls are slow.
    slow: AtomicU32,
}

const UNKNOWN: u64 = u64::MAX;

/// The cells of some of the threads. Aligned so that stripes do not share a cache line.
#[repr(align(128))]
struct Stripe<const N: usize> {
    exact: [AtomicU32; N],
    longer: [AtomicU32; N],
    calls: AtomicU64,
}

impl<const N: usize> Sketch<N> {
    pub(crate) fn new(settings: Settings, stripes: usize) -> Self {
        let cells = || std::array::from_fn(|_| AtomicU32::new(0));
        let stripe = || Stripe {
            exact: cells(),
            longer: cells(),
            calls: AtomicU64::new(0),
        };
        let ticks = SLICES as u64 * TICKS;
        let tick = (settings.window.as_nanos() as u64 / ticks).max(1);
        Self {
            settings,
            stripes: (0..stripes.max(1)).map(|_| stripe()).collect(),
            history: Mutex::new(History::new()),
            tick,
            due: AtomicU64::new(tick),
            quantile: AtomicU64::new(UNKNOWN),
            recent: AtomicU64::new(0),
            slow: AtomicU32::new(0),
        }
    }

    /// Counts a call in the present tick of [`keep`](Self::keep).
    #[inline]
    pub(crate) fn record(&self, stripe: usize, took: Took) {
        let stripe = &self.stripes[stripe % self.stripes.len()];
        let (cells, duration) = match took {
            Took::Exactly(duration) => (&stripe.exact, duration),
            Took::LongerThan(duration) => (&stripe.longer, duration),
        };
        cells[bucket::<N>(duration)].fetch_add(1, Ordering::Relaxed);
        stripe.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the quantile of the window, as it was at the beginning of this tick.
    #[inline]
    pub(crate) fn quantile(&self) -> Option<Duration> {
        match self.quantile.load(Ordering::Relaxed) {
            UNKNOWN => None,
            quantile => Some(Duration::from_nanos(quantile)),
        }
    }

    /// Returns whether calls took much longer in the last full tick than in the window.
    pub(crate) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed) == 1
    }

    /// Returns the number of calls in the last full tick.
    pub(crate) fn recent_calls(&self) -> u64 {
        self.recent.load(Ordering::Relaxed)
    }

    /// Returns the number of calls since the beginning.
    pub(crate) fn calls(&self) -> u64 {
        let calls = |stripe: &Stripe<N>| stripe.calls.load(Ordering::Relaxed);
        self.stripes.iter().map(calls).sum()
    }

    /// Collects the counts if a new tick has begun at `nanos`, a time from any fixed origin. Returns whether it did.
    #[inline]
    pub(crate) fn keep(&self, nanos: u64) -> bool {
        nanos >= self.due.load(Ordering::Relaxed) && self.collect(nanos)
    }

    #[cold]
    fn collect(&self, nanos: u64) -> bool {
        let Ok(mut history) = self.history.try_lock() else {
            return false;
        };
        let due = self.due.load(Ordering::Relaxed);
        if nanos < due {
            return false;
        }
        history.recent.clear();
        for stripe in &self.stripes {
            for (place, (exact, longer)) in stripe.exact.iter().zip(&stripe.longer).enumerate() {
                // Most cells are empty, and reading one leaves its cache line where it is.
                let take = |cell: &AtomicU32| match cell.load(Ordering::Relaxed) {
                    0 => 0,
                    _ => cell.swap(0, Ordering::Relaxed),
                };
                history.add(place, [take(exact), take(longer)]);
            }
        }
        if nanos - due >= self.tick {
            // The counts belong to the tick that ended at `due`, and the last tick was empty.
            history.recent.clear();
        }
        self.recent.store(history.recent.total(), Ordering::Relaxed);
        let slow = history.is_slow(self.settings.slowdown);
        self.slow.store(slow.into(), Ordering::Relaxed);
        history.age(nanos / self.tick);
        let is_known = history.window.total() >= u64::from(self.settings.min_samples);
        let quantile = is_known.then(|| history.window.quantile(self.settings.quantile));
        let quantile = quantile.flatten().unwrap_or(UNKNOWN);
        self.quantile.store(quantile, Ordering::Relaxed);
        let next = (nanos / self.tick).saturating_add(1);
        self.due
            .store(next.saturating_mul(self.tick), Ordering::Relaxed);
        true
    }
}

/// Returns the place of `duration` among `N` buckets.
#[inline]
fn bucket<const N: usize>(duration: Duration) -> usize {
    let units = whole_nanos(duration) >> UNIT_BITS;
    let octaves = (units | 1).ilog2().saturating_sub(PER_OCTAVE.ilog2()) as usize;
    (octaves * PER_OCTAVE + (units >> octaves) as usize).min(N - 1)
}

/// Returns the beginning of a bucket, in nanoseconds.
fn start(bucket: usize) -> u64 {
    let (octaves, within) = (bucket / PER_OCTAVE, bucket % PER_OCTAVE);
    let units = match octaves {
        0 => within as u64,
        _ => ((PER_OCTAVE + within) as u64) << (octaves - 1),
    };
    units << UNIT_BITS
}

/// Calls by latency.
#[derive(Clone)]
struct Counts<const N: usize> {
    /// The number of calls with a latency in the bucket, and the number of lower bounds in it.
    buckets: Box<[[u32; 2]; N]>,
}

impl<const N: usize> Counts<N> {
    fn new() -> Self {
        let buckets = Box::new([[0; 2]; N]);
        Self { buckets }
    }

    fn clear(&mut self) {
        self.buckets.fill([0; 2]);
    }

    fn add(&mut self, place: usize, calls: [u32; 2]) {
        for (count, calls) in self.buckets[place].iter_mut().zip(calls) {
            *count = count.saturating_add(calls);
        }
    }

    fn subtract(&mut self, other: &Self) {
        let counts = self.buckets.as_flattened_mut().iter_mut();
        for (count, calls) in counts.zip(other.buckets.as_flattened()) {
            *count = count.saturating_sub(*calls);
        }
    }

    fn total(&self) -> u64 {
        let counts = self.buckets.as_flattened().iter();
        counts.copied().map(u64::from).sum()
    }

    /// Returns the quantile in nanoseconds. `None` if it is beyond all known latencies.
    fn quantile(&self, quantile: f64) -> Option<u64> {
        let wanted = 1.0 - quantile;
        let mut at_risk = self.total();
        let mut surviving = 1.0;
        for (place, &[exact, longer]) in self.buckets.iter().enumerate() {
            if exact > 0 {
                let after = surviving * (1.0 - f64::from(exact) / at_risk as f64);
                if after <= wanted {
                    let within = (surviving - wanted) / (surviving - after);
                    let (start, end) = (start(place), start(place + 1));
                    return Some(start + ((end - start) as f64 * within) as u64);
                }
                surviving = after;
            }
            at_risk -= u64::from(exact) + u64::from(longer);
        }
        None
    }
}

/// Contents of the cells in earlier ticks.
struct History<const N: usize> {
    /// The present tick of the cells.
    tick: u64,
    /// The counts of the tick before alone.
    recent: Counts<N>,
    /// A ring, indexed by the number of the slice.
    slices: Vec<Counts<N>>,
    /// The sum of the slices.
    window: Counts<N>,
}

impl<const N: usize> History<N> {
    fn new() -> Self {
        Self {
            tick: 0,
            recent: Counts::new(),
            slices: vec![Counts::new(); SLICES],
            window: Counts::new(),
        }
    }

    /// Advances to `tick`, and drops slices that are too old by then.
    fn age(&mut self, tick: u64) {
        let (from, to) = (self.tick / TICKS, tick / TICKS);
        self.tick = tick;
        for slice in (from + 1..=to).take(SLICES) {
            let slice = &mut self.slices[(slice % SLICES as u64) as usize];
            self.window.subtract(slice);
            slice.clear();
        }
    }

    fn add(&mut self, place: usize, calls: [u32; 2]) {
        if calls == [0; 2] {
            return;
        }
        let slice = (self.tick / TICKS % SLICES as u64) as usize;
        for counts in [&mut self.recent, &mut self.slices[slice], &mut self.window] {
            counts.add(place, calls);
        }
    }

    /// Returns whether the median of the last tick is above `factor` times the median of the window.
    fn is_slow(&self, factor: f64) -> bool {
        if self.recent.total() < MIN_RECENT {
            return false;
        }
        match (self.recent.quantile(0.5), self.window.quantile(0.5)) {
            (Some(recent), Some(window)) => recent as f64 > window as f64 * factor,
            // Half of the calls were given up, so the median is beyond all known latencies.
            (None, _) => true,
            (Some(_), None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    const SETTINGS: Settings = Settings {
        window: Duration::from_secs(30),
        quantile: 0.9,
        min_samples: 100,
        slowdown: 1.5,
    };

    /// A sketch with a time for each call.
    struct Timed(Sketch);

    impl Timed {
        fn record(&self, stripe: usize, nanos: u64, took: Took) {
            self.0.keep(nanos);
            self.0.record(stripe, took);
        }

        fn quantile(&self, nanos: u64) -> Option<Duration> {
            self.0.keep(nanos);
            self.0.quantile()
        }

        fn is_slow(&self, nanos: u64) -> bool {
            self.0.keep(nanos);
            self.0.is_slow()
        }
    }

    fn sketch() -> Timed {
        Timed(Sketch::new(SETTINGS, 2))
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Calls that take 1 to 100 ms.
    fn a_hundred(sketch: &Timed, nanos: u64) {
        for took in 1..=100 {
            sketch.record(took as usize, nanos, Took::Exactly(millis(took)));
        }
    }

    fn is_close(quantile: Option<Duration>, millis: f64) -> bool {
        quantile.is_some_and(|quantile| {
            let seen = quantile.as_secs_f64() * 1e3;
            (seen / millis - 1.0).abs() < 0.03
        })
    }

    #[test]
    fn buckets_follow_each_other_and_hold_what_belongs_to_them() {
        for place in 0..BUCKETS - 1 {
            let nanos = start(place);
            assert_eq!(bucket::<BUCKETS>(Duration::from_nanos(nanos)), place);
            assert_eq!(
                bucket::<BUCKETS>(Duration::from_nanos(start(place + 1) - 1)),
                place
            );
        }
        assert_eq!(bucket::<BUCKETS>(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_quantile_needs_enough_calls_and_is_known_at_the_next_tick() {
        let sketch = sketch();
        for _ in 0..99 {
            sketch.record(0, 0, Took::Exactly(millis(1)));
        }
        assert_eq!(sketch.quantile(SECOND), None);
        let sketch = self::sketch();
        a_hundred(&sketch, 0);
        assert_eq!(sketch.quantile(SECOND - 1), None);
        assert!(is_close(sketch.quantile(SECOND), 90.0));
    }

    #[test]
    fn calls_are_forgotten_when_the_window_has_passed() {
        let sketch = sketch();
        a_hundred(&sketch, SECOND / 2);
        assert!(sketch.quantile(27 * SECOND).is_some());
        assert_eq!(sketch.quantile(30 * SECOND), None);
        for idle in [31, 100, 86_400, 400 * 86_400, u64::MAX / SECOND - 10] {
            a_hundred(&sketch, idle * SECOND);
            assert!(is_close(sketch.quantile((idle + 1) * SECOND), 90.0));
            assert_eq!(sketch.0.calls() % 100, 0);
        }
    }

    #[test]
    fn a_call_that_was_given_up_does_not_lower_the_quantile() {
        let quantile = |ninety_first_to_last: fn(Duration) -> Took| {
            let sketch = sketch();
            for took in 1..=100 {
                let took = millis(took);
                let took = if took > millis(91) {
                    ninety_first_to_last(took)
                } else {
                    Took::Exactly(took)
                };
                sketch.record(0, 0, took);
            }
            sketch.quantile(SECOND)
        };
        assert!(is_close(quantile(Took::Exactly), 90.0));
        assert!(is_close(quantile(Took::LongerThan), 90.0));
        // The same if the calls were given up at once.
        assert!(is_close(
            quantile(|_| Took::LongerThan(millis(0))),
            91.0 * 0.9
        ));
    }

    #[test]
    fn nothing_is_known_of_a_service_whose_calls_are_all_given_up() {
        let sketch = sketch();
        for _ in 0..200 {
            sketch.record(0, 0, Took::LongerThan(millis(500)));
        }
        assert_eq!(sketch.quantile(SECOND), None);
        assert!(sketch.is_slow(SECOND));
    }

    #[test]
    fn calls_are_slow_when_the_last_second_is_worse_than_the_window() {
        let sketch = sketch();
        for second in 0..20 {
            a_hundred(&sketch, second * SECOND);
            assert!(!sketch.is_slow((second + 1) * SECOND), "{second}");
        }
        for took in 1..=100 {
            sketch.record(0, 20 * SECOND, Took::Exactly(millis(took * 2)));
        }
        assert!(!sketch.is_slow(21 * SECOND - 1), "the second is not over");
        assert!(sketch.is_slow(21 * SECOND));
        a_hundred(&sketch, 21 * SECOND);
        assert!(!sketch.is_slow(22 * SECOND));
    }

    #[test]
    fn a_few_calls_do_not_make_a_service_slow() {
        let sketch = sketch();
        a_hundred(&sketch, 0);
        for _ in 1..MIN_RECENT {
            sketch.record(0, SECOND, Took::Exactly(millis(900)));
        }
        assert!(!sketch.is_slow(2 * SECOND));
    }

    #[test]
    fn a_clock_that_goes_back_changes_nothing() {
        let sketch = sketch();
        a_hundred(&sketch, 10 * SECOND);
        let before = sketch.quantile(11 * SECOND);
        a_hundred(&sketch, 0);
        assert_eq!(sketch.quantile(SECOND), before);
    }

    #[test]
    fn threads_that_count_and_collect_together_lose_nothing() {
        let sketch = sketch();
        let each = 20_000;
        std::thread::scope(|scope| {
            for stripe in 0..3 {
                let sketch = &sketch;
                scope.spawn(move || {
                    for call in 0..each {
                        // Within a tick or two, so that nothing grows old.
                        let nanos = call * SECOND / each * 3;
                        sketch.record(stripe, nanos, Took::Exactly(millis(call % 50 + 1)));
                    }
                });
            }
        });
        sketch.0.keep(6 * SECOND);
        let history = crate::sync::lock(&sketch.0.history);
        assert_eq!(history.window.total(), 3 * each);
        assert_eq!(sketch.0.calls(), 3 * each);
    }

    proptest! {
        /// Against the plain way to do it: keep every call, and sort.
        #[test]
        fn the_window_holds_what_a_list_of_calls_holds(
            steps in prop::collection::vec((0_u64..5_000, 1_u64..2_000_000), 1..300),
        ) {
            let sketch = Timed(Sketch::new(Settings { min_samples: 1, quantile: 0.5, ..SETTINGS }, 1));
            let (mut nanos, mut calls) = (0, Vec::new());
            for (wait, micros) in steps {
                nanos += wait * 1_000_000;
                sketch.record(0, nanos, Took::Exactly(Duration::from_micros(micros)));
                calls.push((nanos / SECOND, micros as f64));
            }
            // Until the end of the second in which the last call came.
            let now = nanos / SECOND + 1;
            let seen = sketch.quantile(now * SECOND);
            let oldest = (now / TICKS + 1).saturating_sub(SLICES as u64) * TICKS;
            let mut window: Vec<f64> = calls.iter().filter(|call| call.0 >= oldest).map(|call| call.1).collect();
            window.sort_by(f64::total_cmp);
            let seen = seen.expect("there was a call just now").as_secs_f64() * 1e6;
            let (below, above) = (window[(window.len() - 1) / 2], window[window.len() / 2]);
            prop_assert!(seen >= below * 0.93 - 1.1 && seen <= above * 1.07 + 1.1, "{seen} {below} {above}");
        }
    }
}
