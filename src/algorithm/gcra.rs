//! The generic cell rate algorithm in one atomic word. Time is an argument.
//!
//! The word holds the *theoretical arrival time*: the time at which the bucket is full again if no more tokens are
//! taken. A call of cost `c` moves it on by `c` intervals, from the present if this is later. The call is admitted if
//! the new time is at most a whole burst of intervals ahead of the present. In any window of time `T`, calls therefore
//! take at most `burst + T / interval` tokens.
//!
//! The time is counted from an origin in units of `2^-shift` nanoseconds. The unit is finer for shorter intervals: with
//! intervals of whole nanoseconds, 300 million a second would become 250. These terms are kept beside the word, in two
//! places that are used in turn. A tag in the word selects the place, and a change of terms is one exchange of the
//! word. A call that has read the terms of an old tag fails to exchange the word, and begins again. During a change of
//! the rate, calls therefore need no lock, and no taken token is lost.

use super::rate::Rate;
use crate::sync::{AtomicU64, Ordering};

/// The time is in the low bits of the word, the tag in the rest.
const TIME_BITS: u32 = 56;
const TIME: u64 = (1 << TIME_BITS) - 1;

/// The number of units since the origin after which a later origin is due. Added to the longest time in which a burst
/// refills, it still fits: 2^54 + 2^55 < 2^56.
const HORIZON: u64 = 1 << 54;

/// The least number of bits of an interval, so that rounding up costs less than 0.002 % of the rate.
const INTERVAL_BITS: u32 = 16;

/// Origin and unit of time, and the limit in this unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Terms {
    /// Nanoseconds.
    origin: u64,
    /// Units per token.
    interval: u64,
    shift: u32,
    burst: u32,
}

impl Terms {
    fn new(rate: Rate, burst: u32, origin: u64) -> Self {
        let bits = rate.interval(0).max(1).ilog2();
        let shift = INTERVAL_BITS.saturating_sub(bits);
        Self {
            origin,
            interval: rate.interval(shift),
            shift,
            burst,
        }
    }

    /// Returns the units from the origin to `nanos`; 0 if `nanos` is before the origin.
    #[inline]
    fn units(self, nanos: u64) -> u128 {
        u128::from(nanos.saturating_sub(self.origin)) << self.shift
    }

    #[inline]
    fn cost(self, tokens: u64) -> u128 {
        u128::from(self.interval) * u128::from(tokens)
    }

    /// Returns the greatest lead of the word over the present.
    #[inline]
    fn tolerance(self) -> u128 {
        self.cost(u64::from(self.burst))
    }

    /// Returns the nanoseconds of `units`, rounded up.
    fn nanos(self, units: u128) -> u64 {
        u64::try_from(units.div_ceil(1 << self.shift)).unwrap_or(u64::MAX)
    }
}

/// Terms that may be read during a write: origin, interval, and a word with the shift in the high half and the burst in
/// the low half.
#[derive(Debug)]
struct Place([AtomicU64; 3]);

impl Place {
    fn new(terms: Terms) -> Self {
        Self(Self::words(terms).map(AtomicU64::new))
    }

    fn words(terms: Terms) -> [u64; 3] {
        let shift_burst = u64::from(terms.shift) << u32::BITS | u64::from(terms.burst);
        [terms.origin, terms.interval, shift_burst]
    }

    fn write(&self, terms: Terms) {
        for (place, word) in self.0.iter().zip(Self::words(terms)) {
            place.store(word, Ordering::Release);
        }
    }

    /// Reads with `Acquire`, so that a thread that sees a newer value here sees the newer tag, too.
    #[inline]
    fn read(&self) -> Terms {
        let [origin, interval, shift_burst] = &self.0;
        let shift_burst = shift_burst.load(Ordering::Acquire);
        Terms {
            origin: origin.load(Ordering::Acquire),
            interval: interval.load(Ordering::Acquire),
            shift: (shift_burst >> u32::BITS) as u32,
            burst: shift_burst as u32,
        }
    }
}

/// Result of an attempt to take tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Taken {
    Yes,
    /// Too early by this number of nanoseconds; at least one.
    Early(u64),
    /// The cost is more than the burst. A wait does not help.
    TooCostly,
    /// A later origin is due: [`Gcra::renew`].
    Stale,
}

/// A rate limit. Times are nanoseconds of one clock, which may go back.
#[derive(Debug)]
pub(crate) struct Gcra {
    word: AtomicU64,
    /// No call is admitted before this time.
    quiet_until: AtomicU64,
    places: [Place; 2],
}

/// State of the limit at one moment.
struct View {
    word: u64,
    terms: Terms,
    quiet_until: u64,
}

impl View {
    /// Returns the time at which the bucket is full again, in units.
    #[inline]
    fn full_at(&self, now: u128) -> u128 {
        let Self { terms, .. } = *self;
        let mut full_at = now.max(u128::from(self.word & TIME));
        if self.quiet_until > terms.origin {
            // The first call passes when the quiet time ends, and the next ones at the rate, so that the waiting calls
            // do not pass all at once.
            let quiet = terms.units(self.quiet_until);
            full_at = full_at.max(quiet + terms.tolerance() - u128::from(terms.interval));
        }
        full_at
    }

    /// Returns the word after `cost` tokens have been taken, if they are there.
    ///
    /// It computes in 64 bits, because every call does so. The terms may be a mixture of old and new ones, so an
    /// overflow must not panic.
    #[inline]
    fn take(&self, now: u64, cost: u32) -> Result<u64, Taken> {
        let Self { terms, word, .. } = *self;
        if cost > terms.burst {
            return Err(Taken::TooCostly);
        }
        let since = now.saturating_sub(terms.origin);
        if since > HORIZON >> terms.shift {
            return Err(Taken::Stale);
        }
        let now = since << terms.shift;
        let latest = now.wrapping_add(terms.interval.wrapping_mul(u64::from(terms.burst)));
        let full_at = if self.quiet_until > terms.origin {
            self.full_at_after_quiet(now)
        } else {
            now.max(word & TIME)
        };
        let full_at = full_at.saturating_add(terms.interval.wrapping_mul(u64::from(cost)));
        if full_at > latest {
            return Err(self.too_early(since, cost));
        }
        Ok(word & !TIME | full_at)
    }

    /// Returns by how much the call is too early. Its types are wide enough for the longest quiet time at the highest
    /// rate. `since` is counted from the origin.
    #[cold]
    fn too_early(&self, since: u64, cost: u32) -> Taken {
        let now = u128::from(since) << self.terms.shift;
        Taken::Early(self.terms.nanos(self.early(now, u64::from(cost))))
    }

    /// Returns [`full_at`](Self::full_at), in 64 bits.
    #[cold]
    fn full_at_after_quiet(&self, now: u64) -> u64 {
        u64::try_from(self.full_at(u128::from(now))).unwrap_or(u64::MAX)
    }

    /// Returns the word after `cost` tokens have been taken, if the last of them comes within `most` nanoseconds.
    fn owe(&self, now: u64, cost: u32, most: u64) -> Result<u64, Taken> {
        let Self { terms, word, .. } = *self;
        if cost > terms.burst {
            return Err(Taken::TooCostly);
        }
        let now = terms.units(now);
        let wait = terms.nanos(self.early(now, u64::from(cost)));
        let full_at = self.full_at(now) + terms.cost(u64::from(cost));
        if wait > most || full_at > u128::from(TIME) {
            return Err(Taken::Early(wait));
        }
        Ok(word & !TIME | full_at as u64)
    }

    /// Returns the number of units by which a call for `tokens` is too early, or zero.
    fn early(&self, now: u128, tokens: u64) -> u128 {
        let full_at = self.full_at(now) + self.terms.cost(tokens);
        full_at.saturating_sub(now + self.terms.tolerance())
    }
}

impl Gcra {
    /// Makes a limit with all its tokens. Rate and burst must be valid.
    pub(crate) fn new(rate: Rate, burst: u32) -> Self {
        let terms = Terms::new(rate, burst, 0);
        Self {
            word: AtomicU64::new(0),
            quiet_until: AtomicU64::new(0),
            places: [Place::new(terms), Place::new(terms)],
        }
    }

    #[inline]
    fn view(&self) -> View {
        let word = self.word.load(Ordering::Acquire);
        let place = &self.places[(word >> TIME_BITS) as usize & 1];
        View {
            word,
            terms: place.read(),
            quiet_until: self.quiet_until.load(Ordering::Relaxed),
        }
    }

    /// Returns whether the terms belonged to the word when they were read.
    #[inline]
    fn is_whole(&self, view: &View) -> bool {
        self.word.load(Ordering::Acquire) >> TIME_BITS == view.word >> TIME_BITS
    }

    fn whole_view(&self) -> View {
        loop {
            let view = self.view();
            if self.is_whole(&view) {
                return view;
            }
        }
    }

    /// Takes `cost` tokens, all or none.
    #[inline]
    pub(crate) fn take(&self, now: u64, cost: u32) -> Taken {
        if cost == 0 {
            return Taken::Yes;
        }
        loop {
            let view = self.view();
            match view.take(now, cost) {
                Ok(word) if self.exchange(&view, word) => return Taken::Yes,
                Err(refused) if self.is_whole(&view) => return refused,
                _ => {}
            }
        }
    }

    /// Exchanges the word, unless it has changed since it was read.
    #[inline]
    fn exchange(&self, view: &View, word: u64) -> bool {
        self.word
            .compare_exchange_weak(view.word, word, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Takes `cost` tokens, also if they only come within `most` nanoseconds: for a call that does not wait but counts
    /// as if it had waited.
    pub(crate) fn owe(&self, now: u64, cost: u32, most: u64) -> Taken {
        loop {
            let view = self.whole_view();
            match view.owe(now, cost, most) {
                Ok(word) if self.exchange(&view, word) => return Taken::Yes,
                Ok(_) => {}
                Err(refused) => return refused,
            }
        }
    }

    /// Returns the nanoseconds until `tokens` could have been taken, one call after the other.
    pub(crate) fn wait(&self, now: u64, tokens: u64) -> u64 {
        let view = self.whole_view();
        view.terms.nanos(view.early(view.terms.units(now), tokens))
    }

    /// Returns the tokens that could be taken now.
    pub(crate) fn available(&self, now: u64) -> u32 {
        let view = self.whole_view();
        let now = view.terms.units(now);
        let latest = now + view.terms.tolerance();
        let tokens = latest.saturating_sub(view.full_at(now)) / u128::from(view.terms.interval);
        tokens as u32
    }

    /// Returns whether all tokens are there.
    pub(crate) fn is_full(&self, now: u64) -> bool {
        let view = self.whole_view();
        let now = view.terms.units(now);
        view.full_at(now) == now
    }

    pub(crate) fn burst(&self) -> u32 {
        self.whole_view().terms.burst
    }

    /// Admits no call before `until`. Returns whether the quiet time became longer.
    pub(crate) fn quiet(&self, until: u64) -> bool {
        self.quiet_until.fetch_max(until, Ordering::Relaxed) < until
    }

    /// Fills the limit with all tokens, and ends a quiet time. As with [`set`](Self::set), only one thread at a time
    /// may call it.
    pub(crate) fn reset(&self, now: u64) {
        self.quiet_until.store(0, Ordering::Relaxed);
        let old = self.whole_view().terms;
        let origin = now.max(old.origin);
        self.replace(Terms { origin, ..old }, |_| 0);
    }

    /// Sets rate and burst, which must be valid.
    ///
    /// Missing tokens stay missing, up to the new burst. Only one thread at a time may call this,
    /// [`renew`](Self::renew) or [`reset`](Self::reset).
    pub(crate) fn set(&self, rate: Rate, burst: u32, now: u64) {
        let old = self.whole_view().terms;
        let origin = now.max(old.origin);
        let new = Terms::new(rate, burst, origin);
        self.replace(new, |missing| {
            let missing = missing * u128::from(new.interval);
            missing
                .div_ceil(u128::from(old.interval))
                .min(new.tolerance())
        });
    }

    /// Counts from a later origin, if one is due. Only one thread at a time may call this or [`set`](Self::set).
    pub(crate) fn renew(&self, now: u64) {
        let old = self.whole_view().terms;
        if old.units(now) > u128::from(HORIZON) {
            let origin = now;
            self.replace(Terms { origin, ..old }, |missing| missing);
        }
    }

    /// Exchanges the terms. `convert` turns missing units of the old terms, at the new origin, into units of the new
    /// terms.
    fn replace(&self, new: Terms, convert: impl Fn(u128) -> u128) {
        loop {
            let view = self.view();
            let tag = (view.word >> TIME_BITS) + 1;
            // No call reads this place, because the word does not have this tag yet.
            self.places[tag as usize & 1].write(new);
            let now = view.terms.units(new.origin);
            let full_at = if view.quiet_until > new.origin {
                now.max(u128::from(view.word & TIME))
            } else {
                view.full_at(now)
            };
            let word = tag << TIME_BITS | convert(full_at - now) as u64 & TIME;
            if self.exchange(&view, word) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::time::Duration;

    const SECOND: u64 = 1_000_000_000;
    const DAY: u64 = 24 * 60 * 60 * SECOND;

    /// Takes tokens as the layer does.
    fn take(gcra: &Gcra, now: u64, cost: u32) -> Taken {
        loop {
            match gcra.take(now, cost) {
                Taken::Stale => gcra.renew(now),
                taken => return taken,
            }
        }
    }

    /// Takes tokens one by one until there are no more.
    fn drain(gcra: &Gcra, now: u64) -> u32 {
        (0..u32::MAX)
            .find(|_| take(gcra, now, 1) != Taken::Yes)
            .unwrap()
    }

    /// Checks that no window holds more than `burst + ⌊rate × T⌋`, exactly. The windows that begin and end with a
    /// call are the tightest.
    fn assert_bounded(calls: &[(u64, u32)], rate: Rate, burst: u32) {
        let (count, period) = rate.parts();
        for (begin, &(first, _)) in calls.iter().enumerate() {
            let mut admitted = 0;
            for &(at, cost) in &calls[begin..] {
                admitted += u128::from(cost);
                let fluid = u128::from(at - first) * count / period;
                assert!(
                    admitted <= u128::from(burst) + fluid,
                    "{rate:?} with bursts of {burst}: {admitted} in {} ns",
                    at - first
                );
            }
        }
    }

    #[test]
    fn begins_with_its_burst_and_goes_on_at_its_rate() {
        let gcra = Gcra::new(Rate::per_second(100), 10);
        assert_eq!(drain(&gcra, 0), 10);
        assert_eq!(take(&gcra, 0, 1), Taken::Early(10_000_000));
        assert_eq!(take(&gcra, 9_999_999, 1), Taken::Early(1));
        assert_eq!(take(&gcra, 10_000_000, 1), Taken::Yes);
        assert_eq!(take(&gcra, 10_000_000, 1), Taken::Early(10_000_000));
    }

    #[test]
    fn what_is_refused_takes_nothing() {
        let gcra = Gcra::new(Rate::per_second(100), 10);
        assert_eq!(take(&gcra, 0, 8), Taken::Yes);
        for _ in 0..100 {
            assert_eq!(take(&gcra, 0, 3), Taken::Early(10_000_000));
        }
        assert_eq!(gcra.available(0), 2);
        assert_eq!(take(&gcra, 0, 2), Taken::Yes);
    }

    #[test]
    fn nothing_is_free_and_what_is_above_the_burst_is_never_let_through() {
        let gcra = Gcra::new(Rate::per_second(100), 10);
        assert_eq!(take(&gcra, DAY, 11), Taken::TooCostly);
        assert_eq!(take(&gcra, DAY, u32::MAX), Taken::TooCostly);
        assert_eq!(drain(&gcra, DAY), 10);
        assert_eq!(take(&gcra, DAY, 0), Taken::Yes);
        assert_eq!(take(&gcra, DAY, 11), Taken::TooCostly);
    }

    #[test]
    fn the_rate_is_exact_for_any_interval() {
        for (count, period) in [
            (1, DAY),
            (7, DAY),
            (1, SECOND),
            (3, SECOND),
            (7, SECOND),
            (999, SECOND),
            (999_999, SECOND),
            (1_000_003, SECOND),
            (300_000_000, SECOND),
            (600_000_000, SECOND),
            (999_999_937, SECOND),
            (1_000_000_000, SECOND),
        ] {
            let rate = Rate::per(count, Duration::from_nanos(period));
            let gcra = Gcra::new(rate, 200);
            drain(&gcra, 0);
            // A hundred thousand intervals, in steps of a hundred.
            let (mut now, mut admitted) = (0, 0);
            let end = u64::try_from(u128::from(period) * 100_000 / u128::from(count)).unwrap();
            let step = (end / 1_000).max(1);
            while now < end {
                now += step;
                admitted += u64::from(drain(&gcra, now));
            }
            let ideal = now as f64 * f64::from(count) / period as f64;
            let share = admitted as f64 / ideal;
            assert!((0.9999..=1.0).contains(&share), "{rate:?}: {share}");
        }
    }

    #[test]
    fn a_burst_after_the_end_of_a_second_is_not_two() {
        let (rate, burst) = (Rate::per_second(100), 10);
        let gcra = Gcra::new(rate, burst);
        let times = (990_000_000..1_010_000_000).step_by(10_000);
        let admitted = times.filter(|now| take(&gcra, *now, 1) == Taken::Yes);
        assert_eq!(admitted.count(), 11);
    }

    #[test]
    fn a_very_long_idle_time_does_not_overfill() {
        let rates = [1, 100, 999_999_937, 1_000_000_000].map(Rate::per_second);
        for rate in rates.into_iter().chain([Rate::per_hour(1)]) {
            for idle in [DAY, 1_000 * DAY, u64::MAX / 3, u64::MAX - DAY, u64::MAX] {
                let gcra = Gcra::new(rate, 10);
                assert_eq!(drain(&gcra, 0), 10);
                assert_eq!(gcra.available(idle), 10);
                assert!(gcra.is_full(idle));
                assert_eq!(drain(&gcra, idle), 10, "{rate:?} after {idle} ns");
            }
        }
    }

    #[test]
    fn a_clock_that_goes_back_or_stands_still_lets_nothing_more_through() {
        for rate in [Rate::per_second(100), Rate::per_second(999_999_937)] {
            let gcra = Gcra::new(rate, 10);
            assert_eq!(drain(&gcra, 1_000 * DAY), 10);
            for earlier in [1_000 * DAY, DAY, 0] {
                assert_eq!(drain(&gcra, earlier), 0);
                assert_eq!(gcra.available(earlier), 0);
                assert!(gcra.wait(earlier, 1) >= 1);
            }
        }
    }

    #[test]
    fn a_later_origin_changes_nothing() {
        let rate = Rate::per_second(999_999_937);
        let gcra = Gcra::new(rate, 1_000_000);
        let mut now = 0;
        for _ in 0..10 {
            now += DAY;
            assert_eq!(take(&gcra, now, 600_000), Taken::Yes);
            let missing = gcra.wait(now, 1_000_000);
            assert_eq!(gcra.available(now), 400_000);
            gcra.renew(now + 1);
            assert_eq!(gcra.wait(now, 1_000_000), missing);
            assert_eq!(gcra.available(now), 400_000);
        }
    }

    #[test]
    fn a_new_rate_or_burst_forgets_nothing_that_was_used_up() {
        let gcra = Gcra::new(Rate::per_second(100), 10);
        let now = DAY;
        assert_eq!(take(&gcra, now, 6), Taken::Yes);
        gcra.set(Rate::per_second(1), 10, now);
        assert_eq!(gcra.available(now), 4);
        assert_eq!(gcra.wait(now, 5), SECOND);
        gcra.set(Rate::per_second(999_999_937), 10, now);
        assert_eq!(gcra.available(now), 4);
        assert_eq!(gcra.wait(now, 5), 2, "an interval is longer than 1 ns");
        gcra.set(Rate::per_second(1), 20, now);
        assert_eq!(gcra.available(now), 14);
        gcra.set(Rate::per_second(1), 2, now);
        assert_eq!(gcra.available(now), 0, "a smaller bucket is at most empty");
        assert_eq!(gcra.wait(now, 1), SECOND);
        assert_eq!(gcra.burst(), 2);
    }

    #[test]
    fn after_a_quiet_time_calls_pass_one_by_one() {
        for origin in [0, 1_000 * DAY] {
            let gcra = Gcra::new(Rate::per_second(100), 10);
            let now = origin + SECOND;
            assert_eq!(take(&gcra, origin, 10), Taken::Yes);
            gcra.quiet(now + SECOND);
            gcra.quiet(now + SECOND / 2);
            assert_eq!(take(&gcra, now, 1), Taken::Early(SECOND));
            assert_eq!(gcra.available(now), 0);
            assert_eq!(take(&gcra, now + SECOND - 1, 1), Taken::Early(1));
            assert_eq!(drain(&gcra, now + SECOND), 1);
            assert_eq!(drain(&gcra, now + SECOND + 10_000_000), 1);
            assert_eq!(drain(&gcra, now + 2 * SECOND), 10);
        }
    }

    #[test]
    fn a_quiet_time_outlasts_a_change_of_rate() {
        let gcra = Gcra::new(Rate::per_second(100), 10);
        gcra.quiet(SECOND);
        gcra.set(Rate::per_second(10), 5, SECOND / 2);
        assert_eq!(take(&gcra, SECOND - 1, 1), Taken::Early(1));
        gcra.set(Rate::per_second(100), 10, SECOND);
        assert_eq!(drain(&gcra, SECOND), 6, "four were missing, and five more");
        gcra.quiet(u64::MAX);
        assert_eq!(drain(&gcra, u64::MAX - 1), 0);
    }

    #[test]
    fn so_many_changes_that_the_tag_begins_anew_change_nothing() {
        let gcra = Gcra::new(Rate::per_second(100), 10);
        assert_eq!(take(&gcra, 0, 6), Taken::Yes);
        for _ in 0..1_000 {
            gcra.set(Rate::per_second(100), 10, 0);
            assert_eq!(gcra.available(0), 4);
        }
    }

    fn rates() -> impl Strategy<Value = (Rate, u32)> {
        let of_periods = (1_u32..=1_000_000_000, 0_u32..18).prop_map(|(count, decade)| {
            let period = 10_u64.pow(decade).max(u64::from(count));
            Rate::per(count, Duration::from_nanos(period))
        });
        of_periods
            .prop_filter("in range", |rate| rate.is_valid())
            .prop_flat_map(|rate| {
                let most = crate::algorithm::rate::LONGEST / rate.interval(0);
                let most = u32::try_from(most).unwrap_or(u32::MAX);
                (Just(rate), prop_oneof![1..=most.min(20), 1..=most])
            })
    }

    /// A token bucket with exact fractions: `level` is in parts of `1 / period` tokens.
    struct Model {
        count: u128,
        period: u128,
        most: u128,
        level: u128,
        at: u64,
    }

    impl Model {
        fn new(rate: Rate, burst: u32) -> Self {
            let (count, period) = rate.parts();
            let most = u128::from(burst) * period;
            Self {
                count,
                period,
                most,
                level: most,
                at: 0,
            }
        }

        /// Returns what the call would have left behind, in tokens; less than zero if there were too few.
        fn take(&mut self, now: u64, cost: u32, admitted: bool) -> f64 {
            let came = u128::from(now - self.at) * self.count;
            self.level = self.most.min(self.level + came);
            self.at = now;
            let cost = u128::from(cost) * self.period;
            let left = self.level as f64 - cost as f64;
            if admitted {
                self.level = self.level.saturating_sub(cost);
            }
            left / self.period as f64
        }
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_the_burst_and_the_rate(
            (rate, burst) in rates(),
            steps in prop::collection::vec((0_u64..4_000, 1_u32..5), 1..120),
        ) {
            let gcra = Gcra::new(rate, burst);
            let mut calls = Vec::new();
            let mut now: u64 = 0;
            for (thousandths, cost) in steps {
                let interval = u128::from(rate.interval(0));
                now += u64::try_from(interval * u128::from(thousandths) / 1_000).unwrap();
                let cost = cost.min(burst);
                if take(&gcra, now, cost) == Taken::Yes {
                    calls.push((now, cost));
                }
            }
            assert_bounded(&calls, rate, burst);
        }

        #[test]
        fn agrees_with_a_token_bucket(
            (rate, burst) in rates(),
            steps in prop::collection::vec((0_u64..4_000, 1_u32..5), 1..120),
        ) {
            let gcra = Gcra::new(rate, burst);
            let mut model = Model::new(rate, burst);
            let mut now: u64 = 0;
            // What rounding up may have cost: a 2^-16th of each token and less than a nanosecond of time.
            let slack = f64::from(burst) / 65_536.0 + 120.0 * 5.0 / 65_536.0 + 0.001;
            for (thousandths, cost) in steps {
                let interval = u128::from(rate.interval(0));
                now += u64::try_from(interval * u128::from(thousandths) / 1_000).unwrap();
                let cost = cost.min(burst);
                let taken = take(&gcra, now, cost);
                let left = model.take(now, cost, taken == Taken::Yes);
                match taken {
                    Taken::Yes => prop_assert!(left >= 0.0, "{left} left"),
                    Taken::Early(wait) => {
                        prop_assert!(wait > 0 && left < slack, "{left} left");
                        prop_assert_ne!(take(&gcra, now + wait - 1, cost), Taken::Yes);
                        let later = Gcra::new(rate, burst);
                        later.word.store(gcra.word.load(Ordering::Relaxed), Ordering::Relaxed);
                        if gcra.word.load(Ordering::Relaxed) >> TIME_BITS == 0 {
                            prop_assert_eq!(take(&later, now + wait, cost), Taken::Yes);
                        }
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }

        #[test]
        fn the_wait_of_a_queue_is_when_its_last_call_passes(
            (rate, burst) in rates(),
            costs in prop::collection::vec(1_u32..9, 1..30),
        ) {
            let gcra = Gcra::new(rate, burst);
            assert_eq!(take(&gcra, 0, burst), Taken::Yes);
            let costs: VecDeque<_> = costs.iter().map(|cost| *cost.min(&burst)).collect();
            let last = gcra.wait(0, costs.iter().map(|cost| u64::from(*cost)).sum());
            let (mut now, calls) = (0, costs.len() as u64);
            for cost in costs {
                while let Taken::Early(wait) = take(&gcra, now, cost) {
                    now += wait;
                }
            }
            // With a burst of 1, each call may lose the part of a nanosecond that it is late.
            prop_assert!((last..last + calls).contains(&now), "{now} for {last}");
        }
    }
}
