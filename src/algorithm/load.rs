//! Load of an endpoint: its latency, its failures, and its calls in flight.
//!
//! The state is in three atomic words, because one word has too few bits: the calls that wait for their answer with the
//! time of the last answer, the latency estimate with its time, and the failure share with its time. The beginning of a
//! call changes the first word, and the end of a successful call the first two. A fourth word counts answers whose
//! bodies are still being read: they are in flight, but their duration says nothing about the endpoint. Times are
//! arguments, in nanoseconds from an origin that is the same for all endpoints of a balancer.

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Weight of the last call in the failure share.
const FAILURE_GAIN: f32 = 0.3;
/// Below this, no failure is remembered.
const MIN_FAILURE_SHARE: f32 = 1e-3;
/// An answer that is slower than the estimate by this factor replaces it.
const STEP: f32 = 4.0;
/// Least weight of an answer that is a little slower. Single calls differ by this much without any fault, and an
/// estimate that follows each of them is mostly chance.
const SLOWER_GAIN: f32 = 0.1;
/// Factor by which a call that was overtaken counts as longer than its silence. It would have taken longer, by an
/// unknown time. A call that timed out counts with its time: in a pool that is slow altogether, timeouts hit at random.
const SILENCE: u64 = 2;
/// Latencies that differ by less than this factor count as equal. Otherwise a caller that makes one call at a time
/// would send nearly all calls to an endpoint that is only slightly faster.
const NEAR: f64 = 1.25;
/// The least latency that counts, in seconds. For faster endpoints the calls in flight decide. It is above zero, so
/// that they also decide if nothing has been measured.
const MIN_LATENCY: f64 = 1e-6;

/// The settings of the estimate, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) latency_decay: f64,
    pub(crate) failure_decay: f64,
    pub(crate) failure_penalty: f64,
}

/// End of a call, as far as the load needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Succeeded,
    Failed,
    /// It was given up before it ended: it would have taken at least as long.
    Cancelled,
    /// It was given up because another attempt of the operation was faster.
    Overtaken,
    /// Its answer counts neither as a success nor as a failure. It shows that the endpoint does not hang.
    Ignored,
    /// It did not reach the endpoint, and says nothing about it.
    Refused,
}

/// The load of one endpoint.
#[derive(Debug)]
pub(crate) struct Load {
    flow: AtomicU64,
    /// The calls whose answers have begun and not ended.
    streams: AtomicU32,
    latency: AtomicU64,
    failures: AtomicU64,
}

/// The number of calls that wait for their answer, and the time at which the endpoint last answered or became busy
/// after an answer.
///
/// The time is in the lower 40 bits, in units of 2¹⁴ ns (16 µs), in a circle of 208 days. The count is above it. The
/// highest bit is set if the endpoint has not answered a call that was overtaken: until it answers any call, the
/// silence goes on, also if no call waits for a while.
#[derive(Clone, Copy)]
struct Flow(u64);

impl Flow {
    const TIME_BITS: u32 = 40;
    const UNIT: u32 = 14;
    const ONE: u64 = 1 << Self::TIME_BITS;
    const OWES: u64 = 1 << 63;

    #[inline]
    fn waiting(self) -> u32 {
        ((self.0 & !Self::OWES) >> Self::TIME_BITS) as u32
    }

    #[inline]
    fn time(nanos: u64) -> u64 {
        nanos >> Self::UNIT & (Self::ONE - 1)
    }

    /// Returns the nanoseconds since the marked time; zero if it is still to come.
    #[allow(
        clippy::cast_possible_wrap,
        reason = "on a circle of times, the negative half is to come"
    )]
    #[inline]
    fn since(self, nanos: u64) -> u64 {
        let units = Self::time(nanos).wrapping_sub(self.0) << (u64::BITS - Self::TIME_BITS);
        let units = (units as i64) >> (u64::BITS - Self::TIME_BITS);
        u64::try_from(units).map_or(0, |units| units << Self::UNIT)
    }

    /// Returns a latency in seconds that is not below the time since the endpoint last answered, while calls wait.
    #[inline]
    fn at_least(self, latency: f64, nanos: u64) -> f64 {
        if self.waiting() == 0 {
            return latency;
        }
        latency.max(self.since(nanos) as f64 / 1e9)
    }

    #[inline]
    fn marked(self, nanos: u64) -> Self {
        // Another thread may have marked a later time.
        if self.waiting() > 0 && self.since(nanos) == 0 {
            return self;
        }
        Self(self.0 & !(Self::ONE - 1) | Self::time(nanos))
    }

    #[inline]
    fn begun(self, nanos: u64) -> Self {
        let flow = if self.waiting() == 0 && self.0 & Self::OWES == 0 {
            self.marked(nanos)
        } else {
            self
        };
        Self(flow.0.wrapping_add(Self::ONE))
    }

    /// Returns a lower bound of the time of a call that was overtaken. It is longer than the silence if the endpoint was
    /// silent.
    fn bound_of_silence(self, took: u64, nanos: u64) -> u64 {
        let silence = self.since(nanos);
        if silence >> Self::UNIT < took >> Self::UNIT {
            return took;
        }
        silence.max(took).saturating_mul(SILENCE)
    }

    #[inline]
    fn ended(self, nanos: u64, end: End) -> Self {
        let flow = match end {
            End::Succeeded | End::Failed | End::Ignored => self.marked(nanos).0 & !Self::OWES,
            End::Overtaken => self.0 | Self::OWES,
            End::Cancelled | End::Refused => self.0,
        };
        Self(flow.wrapping_sub(Self::ONE))
    }
}

/// A number that decays, and the time at which it had its value.
///
/// The time is in units of 2²⁰ ns (1 ms), in a circle of 52 days. It changes only together with the number, by whole
/// units, so that rounding loses nothing.
#[derive(Clone, Copy)]
struct Decaying(u64);

impl Decaying {
    const UNIT: u32 = 20;
    /// A time that is at most this far in the future (69 s) was written by another thread with a later reading of the
    /// clock. Any other time is in the past: a standby may get no call for weeks, and its old value must have decayed.
    const AHEAD: u32 = 1 << 16;

    #[inline]
    fn new(value: f32, nanos: u64) -> Self {
        let time = (nanos >> Self::UNIT) as u32;
        Self(u64::from(value.to_bits()) << u32::BITS | u64::from(time))
    }

    #[inline]
    fn value(self) -> f32 {
        f32::from_bits((self.0 >> u32::BITS) as u32)
    }

    /// Returns the remaining share of a number from its time; `decay` is the time constant in seconds.
    #[inline]
    fn share(self, nanos: u64, decay: f64) -> f32 {
        const SECONDS: f64 = (1u64 << Decaying::UNIT) as f64 / 1e9;
        let elapsed = ((nanos >> Self::UNIT) as u32).wrapping_sub(self.0 as u32);
        if elapsed.wrapping_neg() <= Self::AHEAD {
            return 1.0;
        }
        exp_of_minus((f64::from(elapsed) * SECONDS / decay) as f32)
    }

    /// Returns its value now.
    #[inline]
    fn at(self, nanos: u64, decay: f64) -> f32 {
        let value = self.value();
        if value == 0.0 {
            return 0.0;
        }
        value * self.share(nanos, decay)
    }
}

impl Load {
    /// Makes the load of an endpoint with the expected `latency` in seconds; zero if nothing is known.
    pub(crate) fn new(latency: f64, nanos: u64) -> Self {
        Self {
            flow: AtomicU64::new(Flow(0).marked(nanos).0),
            streams: AtomicU32::new(0),
            latency: AtomicU64::new(Decaying::new(latency as f32, nanos).0),
            failures: AtomicU64::new(0),
        }
    }

    /// Notes that a call begins.
    #[inline]
    pub(crate) fn begin(&self, nanos: u64) {
        update(&self.flow, |flow| Flow(flow).begun(nanos).0);
    }

    /// Notes the end of a call that began at `began`.
    #[inline]
    pub(crate) fn end(&self, settings: &Settings, began: u64, nanos: u64, end: End) {
        // Before the call stops to count as in flight, so that no thread sees an idle endpoint with an old estimate.
        self.took(settings, began, nanos, end);
        self.failed(settings, nanos, end);
        update(&self.flow, |flow| Flow(flow).ended(nanos, end).0);
    }

    /// Notes the head of the answer to a call that began at `began`. The time to the head is its latency, and the call
    /// stays in flight.
    pub(crate) fn stream(&self, settings: &Settings, began: u64, nanos: u64, end: End) {
        // It is in flight all the time.
        self.streams.fetch_add(1, Ordering::Relaxed);
        self.took(settings, began, nanos, end);
        update(&self.flow, |flow| Flow(flow).ended(nanos, End::Succeeded).0);
    }

    /// Notes the end of an answer whose head has been noted. The time between the two is no latency.
    pub(crate) fn end_stream(&self, settings: &Settings, nanos: u64, end: End) {
        self.failed(settings, nanos, end);
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns the time that a call took, or a lower bound of it, in seconds.
    #[inline]
    fn lower_bound(&self, began: u64, nanos: u64, end: End) -> f32 {
        let took = nanos.saturating_sub(began);
        let took = match end {
            End::Overtaken => self.flow().bound_of_silence(took, nanos),
            _ => took,
        };
        (took as f64 / 1e9) as f32
    }

    #[inline]
    fn took(&self, settings: &Settings, began: u64, nanos: u64, end: End) {
        if matches!(end, End::Ignored | End::Refused) {
            return;
        }
        let took = self.lower_bound(began, nanos, end);
        // A time of zero must not look like no estimate.
        let took = took.max(f32::MIN_POSITIVE);
        update(&self.latency, |word| {
            let old = Decaying(word);
            let value = old.value();
            let is_answer = end == End::Succeeded;
            if took > value && (!is_answer || took >= STEP * value) {
                return Decaying::new(took, nanos).0;
            }
            let share = old.share(nanos, settings.latency_decay);
            match end {
                End::Succeeded if took > value => {
                    let gain = slower_gain(took / value).max(1.0 - share);
                    Decaying::new(value + (took - value) * gain, nanos).0
                }
                // An answer in the same millisecond, or before a later one of another thread, has no weight.
                End::Succeeded if share < 1.0 => {
                    Decaying::new(value * share + took * (1.0 - share), nanos).0
                }
                // It shows that the endpoint is at least this slow, and never that it is fast.
                End::Failed | End::Cancelled | End::Overtaken if took > value * share => {
                    Decaying::new(took, nanos).0
                }
                _ => word,
            }
        });
    }

    #[inline]
    fn failed(&self, settings: &Settings, nanos: u64, end: End) {
        let failed = end == End::Failed;
        if !failed && end != End::Succeeded {
            return;
        }
        if !failed && Decaying(self.failures.load(Ordering::Relaxed)).value() == 0.0 {
            return;
        }
        update(&self.failures, |word| {
            let old = Decaying(word);
            let kept = (1.0 - FAILURE_GAIN) * old.at(nanos, settings.failure_decay);
            let share = kept + if failed { FAILURE_GAIN } else { 0.0 };
            if share < MIN_FAILURE_SHARE {
                return 0;
            }
            // The time never goes back, because the number would then decay twice.
            if old.value() > 0.0 && old.share(nanos, 1.0) >= 1.0 {
                return Decaying::new(share, 0).0 | word & u64::from(u32::MAX);
            }
            Decaying::new(share, nanos).0
        });
    }

    /// Forgets the failures.
    pub(crate) fn forgive(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight_in(self.flow())
    }

    #[inline]
    fn flow(&self) -> Flow {
        Flow(self.flow.load(Ordering::Relaxed))
    }

    #[inline]
    fn in_flight_in(&self, flow: Flow) -> u32 {
        flow.waiting() + self.streams.load(Ordering::Relaxed)
    }

    /// Returns the number of calls that wait for an answer, and the time since the last answer in nanoseconds.
    pub(crate) fn silence(&self, nanos: u64) -> (u32, u64) {
        let flow = self.flow();
        (flow.waiting(), flow.since(nanos))
    }

    /// Returns the latency estimate in seconds; zero if nothing is known.
    ///
    /// While calls wait for their answer, it is never below the time since the endpoint last answered.
    #[inline]
    pub(crate) fn latency(&self, settings: &Settings, nanos: u64) -> f64 {
        let flow = self.flow();
        let estimate = Decaying(self.latency.load(Ordering::Relaxed));
        let estimate = f64::from(estimate.at(nanos, settings.latency_decay));
        flow.at_least(estimate, nanos)
    }

    /// Returns the failure share, an average over the last few calls.
    #[inline]
    pub(crate) fn failure_share(&self, settings: &Settings, nanos: u64) -> f64 {
        let share = Decaying(self.failures.load(Ordering::Relaxed));
        f64::from(share.at(nanos, settings.failure_decay))
    }

    /// Returns the cost of one more call for an endpoint of this weight.
    #[inline]
    pub(crate) fn cost(&self, settings: &Settings, nanos: u64, weight: f64) -> Cost {
        self.cost_by(settings, nanos, weight, |estimate| {
            estimate.at(nanos, settings.latency_decay)
        })
    }

    /// Returns the same cost with the latency estimate as it was when it last changed.
    #[inline]
    pub(crate) fn undecayed_cost(&self, settings: &Settings, nanos: u64, weight: f64) -> Cost {
        self.cost_by(settings, nanos, weight, Decaying::value)
    }

    #[inline]
    fn cost_by(
        &self,
        settings: &Settings,
        nanos: u64,
        weight: f64,
        latency: impl Fn(Decaying) -> f32,
    ) -> Cost {
        let flow = self.flow();
        let estimate = Decaying(self.latency.load(Ordering::Relaxed));
        let latency = flow.at_least(f64::from(latency(estimate)), nanos);
        let failures = self.failure_share(settings, nanos);
        Cost {
            expected: latency.max(MIN_LATENCY) + settings.failure_penalty * failures * failures,
            calls: (f64::from(self.in_flight_in(flow)) + 1.0) / weight,
        }
    }
}

/// Cost of one more call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cost {
    /// The time that a call takes by itself, in seconds, with the penalty for failures.
    pub(crate) expected: f64,
    /// The calls that would be in flight, divided by the weight of the endpoint.
    pub(crate) calls: f64,
}

impl Cost {
    pub(crate) const INFINITE: Self = Self {
        expected: f64::INFINITY,
        calls: 1.0,
    };

    /// Returns the cost in one number: `(latency + penalty · failure share²)² × (in flight + 1) / weight`.
    #[inline]
    pub(crate) fn total(self) -> f64 {
        self.expected * self.expected * self.calls
    }

    /// Returns whether this cost is lower. If calls take nearly the same time, the calls in flight decide.
    #[inline]
    pub(crate) fn is_below(self, other: Self) -> bool {
        let is_near =
            self.expected < NEAR * other.expected && other.expected < NEAR * self.expected;
        if is_near {
            return self.calls < other.calls;
        }
        self.total() < other.total()
    }
}

/// Returns the weight of an answer that took `times` as long as expected: 1 from [`STEP`] on, and less for a smaller
/// factor.
fn slower_gain(times: f32) -> f32 {
    let part = (times - 1.0) / (STEP - 1.0);
    (part * part).max(SLOWER_GAIN)
}

/// Returns e⁻ˣ to four digits, for x from 0 on. Each comparison of endpoints needs it, and the function of the platform
/// takes twice as long.
#[inline]
fn exp_of_minus(x: f32) -> f32 {
    let halvings = x * std::f32::consts::LOG2_E;
    if halvings > 126.0 {
        return 0.0;
    }
    let whole = (halvings + 0.5) as u32;
    // From -ln 2 / 2 to ln 2 / 2, where few terms of the series are enough.
    let rest = (halvings - whole as f32) * std::f32::consts::LN_2;
    let series = 1.0 - rest * (1.0 - rest * (0.5 - rest * (1.0 / 6.0 - rest / 24.0)));
    series * f32::from_bits((127 - whole) << 23)
}

/// Replaces the word by the result of `change`, unless it is the same.
#[inline]
fn update(word: &AtomicU64, change: impl Fn(u64) -> u64) {
    let mut old = word.load(Ordering::Relaxed);
    loop {
        let new = change(old);
        if new == old {
            return;
        }
        match word.compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => old = now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    const SETTINGS: Settings = Settings {
        latency_decay: 10.0,
        failure_decay: 4.0,
        failure_penalty: 5.0,
    };
    const MS: u64 = 1_000_000;
    const SECOND: u64 = 1_000 * MS;

    fn call(load: &Load, began: u64, took: u64, end: End) {
        load.begin(began);
        load.end(&SETTINGS, began, began + took, end);
    }

    /// The estimate in milliseconds.
    fn latency(load: &Load, nanos: u64) -> f64 {
        load.latency(&SETTINGS, nanos) * 1e3
    }

    fn cost(load: &Load, nanos: u64) -> f64 {
        load.cost(&SETTINGS, nanos, 1.0).total()
    }

    fn assert_near(value: f64, expected: f64) {
        let is_near = (value - expected).abs() <= 1e-3 * expected.abs() + 1e-9;
        assert!(is_near, "{value} is not {expected}");
    }

    #[test]
    fn a_much_slower_answer_is_believed_at_once_and_a_fast_one_by_and_by() {
        let load = Load::new(0.0, 0);
        call(&load, 0, 100 * MS, End::Succeeded);
        assert_near(latency(&load, 100 * MS), 100.0);
        call(&load, 10_090 * MS, 10 * MS, End::Succeeded);
        let kept = (-1.0f64).exp();
        assert_near(
            latency(&load, 10_100 * MS),
            100.0 * kept + 10.0 * (1.0 - kept),
        );
        call(&load, 10_100 * MS, 500 * MS, End::Succeeded);
        assert_near(latency(&load, 10_600 * MS), 500.0);
    }

    #[test]
    fn an_answer_that_is_somewhat_slower_counts_the_more_the_slower_it_is() {
        let after = |took: u64| {
            let load = Load::new(0.1, 0);
            call(&load, 0, took * MS, End::Succeeded);
            latency(&load, took * MS)
        };
        assert_near(after(101), 100.1);
        assert_near(after(150), 105.0);
        assert_near(after(300), 100.0 + 200.0 * (2.0f64 / 3.0).powi(2));
        assert_near(after(399), 100.0 + 299.0 * (2.99f64 / 3.0).powi(2));
        assert_near(after(400), 400.0);
        assert_near(after(2_000), 2_000.0);
    }

    #[test]
    fn a_somewhat_slower_answer_after_a_long_time_counts_as_much_as_a_faster_one() {
        let load = Load::new(0.1, 0);
        call(&load, 9_850 * MS, 150 * MS, End::Succeeded);
        let kept = (-1.0f64).exp();
        assert_near(latency(&load, 10 * SECOND), 150.0 - 50.0 * kept);
    }

    /// Service times that are distributed exponentially, of endpoints that are equal.
    #[test]
    fn where_single_calls_vary_the_estimates_of_equal_endpoints_are_near_each_other() {
        let mut random = SmallRng::seed_from_u64(1);
        let mut estimate = || {
            let load = Load::new(0.0, 0);
            for step in 0..2_000 {
                let took = -random.random::<f64>().ln() * 20e6;
                call(&load, step * 10 * MS, took as u64, End::Succeeded);
            }
            latency(&load, 20 * SECOND)
        };
        let estimates: Vec<f64> = (0..200).map(|_| estimate()).collect();
        let mean = estimates.iter().sum::<f64>() / 200.0;
        let squares = estimates
            .iter()
            .map(|estimate| (estimate / mean - 1.0).powi(2));
        let spread = (squares.sum::<f64>() / 200.0).sqrt();
        assert!(spread < 0.13, "{spread}");
    }

    #[test]
    fn the_estimate_decays_the_same_however_often_it_is_read() {
        let (read, unread) = (Load::new(0.1, 0), Load::new(0.1, 0));
        for step in 0..100_000 {
            cost(&read, step * MS / 10);
        }
        assert_near(latency(&read, 10 * SECOND), 100.0 * (-1.0f64).exp());
        for load in [&read, &unread] {
            call(load, 10 * SECOND, MS, End::Succeeded);
        }
        let now = 11 * SECOND;
        assert_eq!(
            latency(&read, now).to_bits(),
            latency(&unread, now).to_bits()
        );
    }

    #[test]
    fn answers_that_come_many_in_a_millisecond_still_lower_it() {
        let load = Load::new(0.1, 0);
        for step in 0..200_000 {
            call(&load, step * MS / 20, 0, End::Succeeded);
        }
        assert_near(latency(&load, 10 * SECOND), 100.0 * (-1.0f64).exp());
    }

    #[test]
    fn a_failure_or_a_cancelled_call_raises_the_estimate_but_never_lowers_it() {
        for end in [End::Failed, End::Cancelled] {
            let load = Load::new(0.1, 0);
            for step in 0..1_000 {
                call(&load, step * MS, MS, end);
            }
            assert_near(latency(&load, SECOND), 100.0 * (-0.1f64).exp());
            load.begin(SECOND);
            load.begin(SECOND);
            load.end(&SETTINGS, SECOND, SECOND + MS, End::Ignored);
            load.end(&SETTINGS, SECOND, 2 * SECOND, end);
            assert_near(latency(&load, 2 * SECOND), 1_000.0);
        }
    }

    #[test]
    fn a_call_that_is_overtaken_in_silence_counts_twice_and_one_that_times_out_as_it_lasted() {
        for (end, expected) in [(End::Cancelled, 1_000.0), (End::Overtaken, 2_000.0)] {
            let load = Load::new(0.1, 0);
            call(&load, SECOND, SECOND, end);
            assert_near(latency(&load, 2 * SECOND), expected);
        }
    }

    #[test]
    fn a_silence_goes_on_while_calls_are_overtaken_and_not_while_they_time_out() {
        let ends = [
            (End::Cancelled, 100.0, 100.0),
            (End::Overtaken, 2.0 * 4_100.0, 200.0),
        ];
        for (end, expected, once) in ends {
            let load = Load::new(0.02, 0);
            for second in [1, 3, 5] {
                call(&load, second * SECOND, 100 * MS, end);
            }
            assert_near(latency(&load, 5_100 * MS), expected);
            // An answer to any call ends the silence.
            call(&load, 6 * SECOND, 10 * MS, End::Succeeded);
            assert!(latency(&load, 7 * SECOND) < expected);
            let before = latency(&load, 60 * SECOND + 100 * MS);
            call(&load, 60 * SECOND, 100 * MS, end);
            assert_near(latency(&load, 60 * SECOND + 100 * MS), before.max(once));
        }
    }

    #[test]
    fn decay_is_exponential_to_four_digits() {
        for step in 0..2_000 {
            let x = f64::from(step) * 0.01;
            assert_near(1e3 * f64::from(exp_of_minus(x as f32)), 1e3 * (-x).exp());
        }
        for x in [88.0, 1e6, f32::INFINITY] {
            assert_eq!(exp_of_minus(x).to_bits(), 0);
        }
    }

    #[test]
    fn latencies_that_are_near_each_other_count_as_equal() {
        let cost = |expected, calls| Cost { expected, calls };
        assert!(!cost(1.0, 1.0).is_below(cost(1.2, 1.0)));
        assert!(!cost(1.2, 1.0).is_below(cost(1.0, 1.0)));
        assert!(cost(1.2, 1.0).is_below(cost(1.0, 1.1)));
        assert!(cost(1.0, 1.5).is_below(cost(1.25, 1.0)), "by their product");
        assert!(
            !cost(1.0, 1.6).is_below(cost(1.25, 1.0)),
            "by their product"
        );
    }

    #[test]
    fn a_call_that_was_refused_or_is_not_counted_changes_no_estimate() {
        let load = Load::new(0.1, 0);
        for end in [End::Refused, End::Ignored] {
            call(&load, 0, SECOND, end);
            assert_near(latency(&load, 0), 100.0);
            assert_eq!(
                (load.in_flight(), load.failure_share(&SETTINGS, 0)),
                (0, 0.0)
            );
        }
    }

    #[test]
    fn an_endpoint_whose_answers_are_not_counted_does_not_hang_and_one_that_gets_no_calls_may() {
        for (end, expected) in [(End::Ignored, 1_000.0), (End::Refused, 61_000.0)] {
            let load = Load::new(0.001, 0);
            load.begin(0);
            for second in 0..61 {
                load.begin(second * SECOND);
                load.end(&SETTINGS, second * SECOND, second * SECOND, end);
            }
            assert_near(latency(&load, 61 * SECOND), expected);
        }
    }

    #[test]
    fn what_was_known_weeks_ago_does_not_hold_an_endpoint_back() {
        const DAY: u64 = 24 * 3_600 * SECOND;
        for days in [1, 25, 27, 40, 51, 53] {
            let load = Load::new(0.0, 0);
            call(&load, 0, 5 * SECOND, End::Failed);
            let later = days * DAY;
            assert!(cost(&load, later) < 1e-6, "after {days} days");
            call(&load, later, 10 * MS, End::Succeeded);
            assert_near(latency(&load, later + 10 * MS), 10.0);
            let share = load.failure_share(&SETTINGS, later + 10 * MS);
            assert_near(share, 0.0);
        }
    }

    #[test]
    fn while_calls_are_in_flight_the_time_since_the_last_answer_counts() {
        let load = Load::new(0.001, 0);
        load.begin(60 * SECOND);
        load.begin(61 * SECOND);
        assert_near(latency(&load, 62 * SECOND), 2_000.0);
        load.end(&SETTINGS, 61 * SECOND, 62 * SECOND, End::Succeeded);
        assert_near(latency(&load, 65 * SECOND), 3_000.0);
        load.end(&SETTINGS, 60 * SECOND, 65 * SECOND, End::Cancelled);
        assert_near(latency(&load, 65 * SECOND), 5_000.0);
        assert!(latency(&load, 95 * SECOND) < 5_000.0, "idle, it decays");
    }

    #[test]
    fn an_answer_that_goes_on_is_in_flight_and_its_time_is_no_latency() {
        let load = Load::new(0.0, 0);
        load.begin(0);
        load.stream(&SETTINGS, 0, 10 * MS, End::Succeeded);
        assert_near(latency(&load, 10 * MS), 10.0);
        let hour = 3_600 * SECOND;
        assert!(latency(&load, hour) < 10.0);
        assert_eq!(load.in_flight(), 1);
        let idle = Load::new(0.0, 0);
        assert_near(cost(&load, hour), 2.0 * cost(&idle, hour));

        // A call that waits beside a stream counts with its own age only.
        load.begin(hour);
        assert_eq!(load.in_flight(), 2);
        assert_near(latency(&load, hour + SECOND), 1_000.0);
        load.end(&SETTINGS, hour, hour + SECOND, End::Cancelled);

        let before = latency(&load, 2 * hour);
        load.end_stream(&SETTINGS, 2 * hour, End::Failed);
        assert_near(latency(&load, 2 * hour), before);
        assert_near(load.failure_share(&SETTINGS, 2 * hour), 0.3);
        assert_eq!(load.in_flight(), 0);
    }

    #[test]
    fn an_answer_that_begins_with_a_failure_never_lowers_the_estimate() {
        for end in [End::Failed, End::Ignored] {
            let load = Load::new(0.1, 0);
            load.begin(SECOND);
            load.stream(&SETTINGS, SECOND, SECOND + MS, end);
            load.end_stream(&SETTINGS, SECOND + MS, end);
            assert_near(latency(&load, SECOND), 100.0 * (-0.1f64).exp());
        }
    }

    #[test]
    fn the_failure_share_rises_with_failures_and_falls_with_successes_and_with_time() {
        let load = Load::new(0.0, 0);
        let share = |seconds: u64| load.failure_share(&SETTINGS, seconds * SECOND);
        call(&load, 0, 0, End::Failed);
        assert_near(share(0), 0.3);
        call(&load, 0, 0, End::Failed);
        assert_near(share(0), 0.51);
        call(&load, 0, 0, End::Succeeded);
        assert_near(share(0), 0.357);
        assert_near(share(4), 0.357 * (-1.0f64).exp());
        for _ in 0..20 {
            call(&load, 4 * SECOND, 0, End::Succeeded);
        }
        assert_eq!(share(4).to_bits(), 0.0f64.to_bits(), "forgotten");
    }

    #[test]
    fn an_endpoint_that_fails_fast_costs_more_than_a_slow_one_that_works() {
        let (failing, slow) = (Load::new(0.02, 0), Load::new(0.02, 0));
        for step in 0..5 {
            call(&failing, step * MS, MS, End::Failed);
            call(&slow, step * SECOND, SECOND, End::Succeeded);
        }
        let now = 5 * SECOND;
        assert!(cost(&failing, 5 * MS) > 2.0 * cost(&slow, now));
    }

    #[test]
    fn of_endpoints_that_nothing_is_known_of_the_idle_one_costs_least() {
        let (idle, busy) = (Load::new(0.0, 0), Load::new(0.0, 0));
        busy.begin(0);
        assert!(cost(&idle, 0) < cost(&busy, 0));
    }

    #[test]
    fn a_clock_that_goes_back_or_wraps_does_no_harm() {
        let load = Load::new(0.1, 10 * SECOND);
        load.begin(10 * SECOND);
        assert_near(latency(&load, 5 * SECOND), 100.0);
        load.end(&SETTINGS, 10 * SECOND, 5 * SECOND, End::Failed);
        for nanos in [1 << 52, 1 << 54, u64::MAX - SECOND] {
            call(&load, nanos, SECOND, End::Succeeded);
            assert!(cost(&load, nanos).is_finite());
            assert_eq!(load.in_flight(), 0);
        }
    }

    /// Threads read the clock, and then change the words in another order.
    #[test]
    fn an_older_reading_of_the_clock_does_not_move_a_time_back() {
        let load = Load::new(0.0, 0);
        for _ in 0..3 {
            load.begin(10 * SECOND);
        }
        load.end(&SETTINGS, 12 * SECOND, 12 * SECOND, End::Failed);
        load.end(&SETTINGS, 11 * SECOND, 11 * SECOND, End::Succeeded);
        assert!(latency(&load, 12 * SECOND) < 1.0, "it answered just now");
        let share = load.failure_share(&SETTINGS, 12 * SECOND);
        assert_near(share, 0.7 * 0.3);
    }

    /// The same in plain numbers.
    #[derive(Default)]
    struct Plain {
        in_flight: Vec<u64>,
        streams: usize,
        marked: u64,
        owes: bool,
        latency: (f64, u64),
        failures: (f64, u64),
    }

    fn whole(nanos: u64) -> u64 {
        nanos >> 20 << 20
    }

    fn decayed((value, at): (f64, u64), now: u64, decay: f64) -> f64 {
        value * (-((whole(now) - whole(at)) as f64 / 1e9 / decay)).exp()
    }

    impl Plain {
        fn took(&mut self, began: u64, now: u64, end: End) {
            let is_silent = self.marked <= began;
            let took = match end {
                End::Overtaken if is_silent => 2 * (now - self.marked),
                _ => now - began,
            };
            let took = took as f64 / 1e9;
            let (value, at) = self.latency;
            let present = decayed(self.latency, now, 10.0);
            match end {
                End::Ignored | End::Refused => {}
                End::Succeeded if took > value && took < 4.0 * value => {
                    let part = (took / value - 1.0) / 3.0;
                    let gain = (part * part).max(0.1).max(1.0 - present / value);
                    self.latency = (value + (took - value) * gain, now);
                }
                _ if took > value => self.latency = (took, now),
                End::Succeeded if whole(now) > whole(at) => {
                    let kept = if value > 0.0 { present / value } else { 0.0 };
                    self.latency = (present + took * (1.0 - kept), now);
                }
                End::Succeeded => {}
                _ if took > present => self.latency = (took, now),
                _ => {}
            }
        }

        fn record_outcome(&mut self, now: u64, end: End) {
            if matches!(end, End::Succeeded | End::Failed) {
                let failed = f64::from(u8::from(end == End::Failed));
                let share = 0.7 * decayed(self.failures, now, 4.0) + 0.3 * failed;
                self.failures = (if share < 1e-3 { 0.0 } else { share }, now);
            }
        }

        fn latency(&self, now: u64) -> f64 {
            let estimate = decayed(self.latency, now, 10.0);
            if self.in_flight.is_empty() {
                return estimate;
            }
            estimate.max((now - self.marked) as f64 / 1e9)
        }
    }

    fn ends() -> impl Strategy<Value = End> {
        prop_oneof![
            Just(End::Succeeded),
            Just(End::Failed),
            Just(End::Cancelled),
            Just(End::Overtaken),
            Just(End::Ignored),
            Just(End::Refused)
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_plain_numbers(
            steps in prop::collection::vec((0u64..3_000 * MS, prop::option::of((0usize..8, 0..3u8, ends()))), 1..200),
        ) {
            let (load, mut plain) = (Load::new(0.0, 0), Plain::default());
            let mut now = 0;
            for (pause, step) in steps {
                now += pause;
                match step {
                    Some((_, 0, end)) if plain.streams > 0 => {
                        plain.streams -= 1;
                        load.end_stream(&SETTINGS, now, end);
                        plain.record_outcome(now, end);
                    }
                    Some((place, kind, end)) if !plain.in_flight.is_empty() => {
                        let began = plain.in_flight.remove(place % plain.in_flight.len());
                        plain.took(began, now, end);
                        if kind == 1 {
                            plain.streams += 1;
                            load.stream(&SETTINGS, began, now, end);
                        } else {
                            load.end(&SETTINGS, began, now, end);
                            plain.record_outcome(now, end);
                        }
                        match end {
                            End::Overtaken if kind != 1 => plain.owes = true,
                            End::Cancelled | End::Refused if kind != 1 => {}
                            _ => (plain.marked, plain.owes) = (now, false),
                        }
                    }
                    _ => {
                        if plain.in_flight.is_empty() && !plain.owes {
                            plain.marked = now;
                        }
                        plain.in_flight.push(now);
                        load.begin(now);
                    }
                }
                prop_assert_eq!(load.in_flight() as usize, plain.in_flight.len() + plain.streams);
                let (ours, model) = (load.latency(&SETTINGS, now), plain.latency(now));
                prop_assert!((ours - model).abs() <= 1e-3 * model + 4e-5, "{} {}", ours, model);
                let (ours, model) = (load.failure_share(&SETTINGS, now), decayed(plain.failures, now, 4.0));
                prop_assert!((ours - model).abs() <= 2e-3, "{} {}", ours, model);
            }
        }
    }
}
