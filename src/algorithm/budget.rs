//! The tokens of a budget, and the operations in flight, in one atomic word.
//!
//! An operation changes the word twice: when it begins and when it ends. The second change counts the operation, adds
//! its tokens and gives up its place in one step.

use std::ops::RangeInclusive;

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// The unit of all amounts: a retry costs 10 tokens, a success at the first attempt adds 1.
pub(crate) const TOKENS_PER_RETRY: u32 = 10;

/// The least time over which the rate of operations is measured, in nanoseconds.
const SAMPLE: u64 = 1_000_000_000;

/// The time after a raise of the initial tokens in which the capacity is not below them, in nanoseconds.
const INITIAL_FOR: u64 = 60_000_000_000;

/// The reserve, in retries, if none is set: by the calls of the last minute. The fewer calls each client of a fleet
/// makes, the smaller its reserve must be, because all clients use up their reserves at once when the service fails.
const RESERVE: RangeInclusive<u32> = 1..=10;
/// A client with at most this number of calls in the last minute has the least reserve,
const CALLS_OF_LEAST_RESERVE: f64 = 30.0;
/// and one more retry for each of this number of further calls.
const CALLS_PER_RETRY: f64 = 3.0;
/// The last minute: calls count for less and less with this time constant, in seconds.
const MINUTE: f64 = 60.0;

/// The clock is read once in this number of operations.
const SAMPLE_OPERATIONS: u64 = 16;

// From the low end: 20 bits of tokens, 24 bits of operations in flight, 20 bits that count finished
// operations and wrap.
const TOKENS: u64 = (1 << 20) - 1;
const IN_FLIGHT: u64 = 1 << 20;
const IN_FLIGHT_MASK: u64 = (1 << 24) - 1;
const FINISHED: u64 = 1 << 44;

/// While there are fewer tokens than the retries of one operation cost, a success at the first attempt adds 2.
///
/// With 1 token each, a client with one call a second needs minutes of successes after a series of failures, and denies
/// retries in the meantime that a busier client permits.
const LOW: u64 = 2 * TOKENS_PER_RETRY as u64;

/// Tokens that an operation brings when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gain {
    /// It failed, or was cancelled.
    Nothing,
    /// It succeeded at the first attempt.
    FirstTry,
    /// It succeeded later: the tokens that its retries had cost.
    Refund(u32),
}

#[derive(Debug)]
pub(crate) struct Tokens {
    word: AtomicU64,
    /// The range of the least capacity.
    reserve: RangeInclusive<u32>,
    /// The initial tokens, and the time until which the capacity is not below them.
    initial: AtomicU32,
    initial_until: AtomicU64,
    /// Capacity for each operation in flight, or for each operation a second, in 1024ths of a token.
    share: u64,
    /// The capacity for the last measured rate, at least the reserve, and at first the initial tokens. Before the first
    /// measurement it is the greatest reserve.
    by_rate: AtomicU32,
    /// Time of the last measurement in nanoseconds, and the number of finished operations at that time.
    sampled_at: AtomicU64,
    sampled: AtomicU64,
    /// The operations of about the last minute at that time, as the bits of a float. Written by the thread that
    /// measures.
    recent: AtomicU64,
}

#[inline]
fn tokens_in(word: u64) -> u64 {
    word & TOKENS
}

#[inline]
fn in_flight_in(word: u64) -> u64 {
    (word / IN_FLIGHT) & IN_FLIGHT_MASK
}

impl Tokens {
    /// Makes a budget with at least `reserve` retries, by default a number that follows from its calls, and with
    /// `initial` tokens.
    pub(crate) fn new(reserve: Option<u32>, share: f64, initial: u32) -> Self {
        let (least, most) = reserve.map_or(RESERVE, |set| set..=set).into_inner();
        let tokens = Self {
            word: AtomicU64::new(0),
            reserve: least * TOKENS_PER_RETRY..=most * TOKENS_PER_RETRY,
            initial: AtomicU32::new(0),
            initial_until: AtomicU64::new(0),
            share: (share * f64::from(TOKENS_PER_RETRY) * 1024.0) as u64,
            by_rate: AtomicU32::new(most * TOKENS_PER_RETRY),
            sampled_at: AtomicU64::new(0),
            sampled: AtomicU64::new(0),
            recent: AtomicU64::new(0),
        };
        tokens.raise_initial(initial * TOKENS_PER_RETRY, 0);
        tokens
    }

    /// Raises the initial tokens to at least `tokens`, and lets the budget hold them for a minute from `now`.
    ///
    /// Only the difference to the former initial tokens is added, so a budget that is used up stays used up.
    pub(crate) fn raise_initial(&self, tokens: u32, now: u64) {
        let before = self.initial.fetch_max(tokens, Ordering::Relaxed);
        if tokens <= before {
            return;
        }
        self.initial_until
            .fetch_max(now.saturating_add(INITIAL_FOR), Ordering::Relaxed);
        self.by_rate.fetch_max(tokens, Ordering::Relaxed);
        self.deposit(tokens - before);
    }

    /// Returns the tokens, at most the capacity, which may have shrunk since the tokens were added.
    pub(crate) fn tokens(&self) -> u32 {
        let word = self.word.load(Ordering::Relaxed);
        tokens_in(word).min(self.capacity_at(word)) as u32
    }

    pub(crate) fn in_flight(&self) -> u32 {
        in_flight_in(self.word.load(Ordering::Relaxed)) as u32
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.capacity_at(self.word.load(Ordering::Relaxed)) as u32
    }

    #[inline]
    fn capacity_at(&self, word: u64) -> u64 {
        let by_rate = u64::from(self.by_rate.load(Ordering::Relaxed));
        let by_in_flight = in_flight_in(word) * self.share / 1024;
        by_in_flight.max(by_rate).min(TOKENS)
    }

    #[inline]
    pub(crate) fn enter(&self) {
        self.word.fetch_add(IN_FLIGHT, Ordering::Relaxed);
    }

    /// Ends an operation. Returns whether it is time to [`sample`](Self::sample).
    #[inline]
    pub(crate) fn leave(&self, gain: Gain) -> bool {
        let left = self.update(|old| {
            let gained = match gain {
                Gain::Nothing => 0,
                Gain::FirstTry if tokens_in(old) < LOW => 2,
                Gain::FirstTry => 1,
                Gain::Refund(paid) => u64::from(paid),
            };
            let tokens = (tokens_in(old) + gained).min(self.capacity_at(old));
            let left = (old & !TOKENS | tokens).wrapping_sub(IN_FLIGHT);
            Some(left.wrapping_add(FINISHED))
        });
        left.is_some_and(|old| old / FINISHED % SAMPLE_OPERATIONS == 0)
    }

    /// Takes `cost` tokens, or all that the budget can hold if that is less. Returns how many it has taken, or `None`
    /// if there are fewer.
    pub(crate) fn withdraw(&self, cost: u32) -> Option<u32> {
        let mut taken = 0;
        self.update(|old| {
            taken = u64::from(cost).min(self.capacity_at(old));
            tokens_in(old).checked_sub(taken).map(|_| old - taken)
        })?;
        Some(taken as u32)
    }

    /// Adds tokens, up to the capacity.
    pub(crate) fn deposit(&self, tokens: u32) {
        let _ = self.update(|old| {
            let capacity = self.capacity_at(old).max(tokens_in(old));
            let tokens = (tokens_in(old) + u64::from(tokens)).min(capacity);
            Some(old & !TOKENS | tokens)
        });
    }

    /// Exchanges the word. Returns the old one, or `None` if there is no new one.
    #[inline]
    fn update(&self, new: impl FnMut(u64) -> Option<u64>) -> Option<u64> {
        self.word
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, new)
            .ok()
    }

    /// Measures the rate of operations, if enough time has passed since the last measurement.
    pub(crate) fn sample(&self, now: u64) {
        let last = self.sampled_at.load(Ordering::Relaxed);
        if now.saturating_sub(last) < SAMPLE {
            return;
        }
        let claimed =
            self.sampled_at
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed);
        if claimed.is_err() {
            return;
        }
        let finished = self.word.load(Ordering::Relaxed) / FINISHED;
        let before = self.sampled.swap(finished, Ordering::Relaxed);
        let operations = finished.wrapping_sub(before) % (u64::MAX / FINISHED + 1);
        let seconds = (now - last) as f64 / 1e9;
        let rate = operations as f64 / seconds;
        let capacity = (rate * self.share as f64 / 1024.0) as u32;
        let capacity = capacity.max(self.reserve(rate, seconds, now));
        let initial = if now < self.initial_until.load(Ordering::Relaxed) {
            self.initial.load(Ordering::Relaxed)
        } else {
            0
        };
        self.by_rate.store(capacity.max(initial), Ordering::Relaxed);
        // A long first operation keeps its initial tokens.
        if operations > 0 {
            let _ = self.update(|old| {
                let tokens = tokens_in(old).min(self.capacity_at(old));
                Some(old & !TOKENS | tokens)
            });
        }
    }

    /// Returns the reserve, in tokens, after `seconds` at this rate until `now`.
    fn reserve(&self, rate: f64, seconds: f64, now: u64) -> u32 {
        let kept = (-seconds / MINUTE).exp();
        let before = f64::from_bits(self.recent.load(Ordering::Relaxed));
        let recent = before * kept + rate * MINUTE * (1.0 - kept);
        self.recent.store(recent.to_bits(), Ordering::Relaxed);
        // A younger budget counts as if it had had this rate for a minute.
        let age = now as f64 / 1e9;
        let calls = recent / (1.0 - (-age / MINUTE).exp());
        let retries = (calls - CALLS_OF_LEAST_RESERVE) / CALLS_PER_RETRY;
        let tokens = (retries * f64::from(TOKENS_PER_RETRY)) as u32;
        tokens.clamp(*self.reserve.start(), *self.reserve.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn budget() -> Tokens {
        Tokens::new(Some(10), 0.2, 2)
    }

    /// One operation that succeeds at the first attempt.
    fn operation(tokens: &Tokens) {
        tokens.enter();
        tokens.leave(Gain::FirstTry);
    }

    #[test]
    fn starts_with_two_retries_and_no_more() {
        let tokens = budget();
        assert_eq!(tokens.withdraw(10), Some(10));
        assert_eq!(tokens.withdraw(10), Some(10));
        assert_eq!(tokens.withdraw(10), None);
    }

    #[test]
    fn the_initial_tokens_are_those_of_the_greatest_need_and_come_once() {
        let tokens = Tokens::new(Some(10), 0.2, 0);
        for (needed, expected) in [(40, 40), (40, 40), (20, 40), (60, 60)] {
            tokens.raise_initial(needed, 0);
            assert_eq!(tokens.tokens(), expected);
        }
        assert_eq!(tokens.withdraw(60), Some(60));
        tokens.raise_initial(60, SAMPLE);
        assert_eq!(tokens.tokens(), 0, "used up is used up");
        tokens.raise_initial(70, SAMPLE);
        assert_eq!(tokens.tokens(), 10);
    }

    #[test]
    fn more_initial_tokens_than_the_reserve_are_held_for_a_minute() {
        let tokens = Tokens::new(Some(10), 0.2, 0);
        tokens.raise_initial(1_180, 100 * SAMPLE);
        for second in 0..60 {
            operation(&tokens);
            tokens.sample((100 + second) * SAMPLE);
            assert_eq!((tokens.tokens(), tokens.capacity()), (1_180, 1_180));
        }
        tokens.sample(160 * SAMPLE);
        operation(&tokens);
        assert_eq!((tokens.tokens(), tokens.capacity()), (100, 100));
    }

    #[test]
    fn the_first_operation_is_not_cut_short_when_it_takes_longer_than_the_minute() {
        let tokens = Tokens::new(Some(10), 0.2, 118);
        tokens.enter();
        for retry in 0..59 {
            assert_eq!(tokens.withdraw(20), Some(20), "{retry}");
            tokens.sample(20 * retry * SAMPLE);
        }
        assert_eq!(tokens.withdraw(20), None);
    }

    #[test]
    fn ten_successes_pay_a_retry_and_five_do_when_there_is_next_to_nothing() {
        let tokens = Tokens::new(Some(10), 0.2, 0);
        for count in 1..=30 {
            operation(&tokens);
            let expected = if count <= 10 { 2 * count } else { 10 + count };
            assert_eq!(tokens.tokens(), expected);
        }
    }

    #[test]
    fn the_reserve_is_kept_however_little_goes_on() {
        let tokens = budget();
        for second in 0..1_000 {
            operation(&tokens);
            tokens.sample(second * 60 * SAMPLE);
        }
        assert_eq!(tokens.capacity(), 100);
        assert_eq!(tokens.tokens(), 100);
    }

    /// Returns the reserve, in tokens, of a client with this number of calls each minute, evenly spread.
    fn reserve_at(per_minute: u64) -> u32 {
        let tokens = Tokens::new(None, 0.2, 0);
        for call in 1..=10 * per_minute {
            operation(&tokens);
            tokens.sample(call * 60 * SAMPLE / per_minute);
        }
        tokens.capacity()
    }

    #[test]
    fn the_reserve_is_one_retry_for_every_three_calls_of_a_minute_above_thirty() {
        for (per_minute, expected) in [
            (1, 10),
            (30, 10),
            (33, 10),
            (45, 50),
            (57, 90),
            (60, 100),
            (600, 100),
        ] {
            let reserve = reserve_at(per_minute);
            assert!(
                reserve.abs_diff(expected) <= 1,
                "{per_minute} a minute: {reserve}"
            );
        }
    }

    #[test]
    fn what_costs_more_than_the_budget_can_hold_costs_all_of_it_and_no_more_comes_back() {
        let tokens = Tokens::new(Some(1), 0.2, 1);
        tokens.enter();
        assert_eq!(tokens.withdraw(20), Some(10));
        assert_eq!(tokens.withdraw(20), None);
        tokens.leave(Gain::Nothing);
        (1..=4).for_each(|_| operation(&tokens));
        assert_eq!(tokens.withdraw(20), None, "8 of 10 tokens");
        operation(&tokens);
        assert_eq!(tokens.withdraw(20), Some(10));
        // The operations in flight raise the capacity by more than was taken.
        (0..10).for_each(|_| tokens.enter());
        tokens.deposit(10);
        assert_eq!((tokens.tokens(), tokens.capacity()), (10, 20));
        assert_eq!(tokens.withdraw(20), None);
    }

    #[test]
    fn tokens_beyond_a_reserve_that_has_shrunk_are_lost() {
        let tokens = Tokens::new(None, 0.2, 4);
        for second in 1..=59 {
            tokens.sample(second * SAMPLE);
            assert_eq!(tokens.tokens(), 40, "in the first minute");
        }
        operation(&tokens);
        tokens.sample(61 * SAMPLE);
        assert_eq!((tokens.tokens(), tokens.capacity()), (10, 10));
        assert_eq!(tokens.withdraw(10), Some(10));
        assert_eq!(tokens.withdraw(10), None);
    }

    #[test]
    fn the_capacity_follows_the_rate() {
        let tokens = budget();
        for tenth in 0..50 {
            for _ in 0..100 {
                operation(&tokens);
            }
            tokens.sample(tenth * SAMPLE / 10);
        }
        // 1000 a second: 0.2 s of that are 200 retries.
        assert!(
            (1_990..=2_010).contains(&tokens.capacity()),
            "{}",
            tokens.capacity()
        );
        tokens.sample(500 * SAMPLE);
        assert_eq!(
            tokens.capacity(),
            100,
            "back to the reserve after an idle time"
        );
    }

    #[test]
    fn the_capacity_follows_what_is_in_flight() {
        let tokens = budget();
        for _ in 0..1_000 {
            tokens.enter();
        }
        assert_eq!(tokens.capacity(), 2_000);
        for _ in 0..1_000 {
            tokens.leave(Gain::Nothing);
        }
        assert_eq!((tokens.capacity(), tokens.in_flight()), (100, 0));
    }

    #[test]
    fn the_capacity_is_right_for_every_share() {
        for share in [0.05, 0.1, 0.3, 0.6, 0.75, 0.9] {
            let expected = share * 10_000.0;
            let is_right = |tokens: &Tokens| (f64::from(tokens.capacity()) - expected).abs() < 10.0;
            let by_calls = Tokens::new(Some(1), share, 1);
            for _ in 0..1_000 {
                by_calls.enter();
            }
            assert!(is_right(&by_calls), "{share}: {}", by_calls.capacity());
            let by_rate = Tokens::new(Some(1), share, 1);
            for tenth in 0..50 {
                (0..100).for_each(|_| operation(&by_rate));
                by_rate.sample(tenth * SAMPLE / 10);
            }
            assert!(is_right(&by_rate), "{share}: {}", by_rate.capacity());
        }
    }

    #[test]
    fn the_count_of_finished_operations_may_wrap() {
        let tokens = budget();
        tokens
            .word
            .store(FINISHED * ((1 << 20) - 1), Ordering::Relaxed);
        tokens.sample(SAMPLE);
        for _ in 0..100 {
            operation(&tokens);
        }
        tokens.sample(2 * SAMPLE);
        assert_eq!((tokens.in_flight(), tokens.tokens()), (0, 110));
        assert_eq!(tokens.capacity(), 200);
    }

    #[test]
    fn threads_never_take_more_than_there_is() {
        let tokens = Tokens::new(Some(1_000), 0.2, 1_000);
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..1_000).filter_map(|_| tokens.withdraw(10)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(taken, 1_000);
    }

    proptest! {
        #[test]
        fn tokens_stay_within_the_capacity(
            reserve in 1_u32..10_000, share in 0.001_f64..=1.0,
            steps in prop::collection::vec((0_u8..4, 0_u32..100, 0_u64..u64::MAX / 400), 0..300),
        ) {
            let tokens = Tokens::new(Some(reserve), share, reserve.min(2));
            let (mut in_flight, mut elapsed) = (0, 0);
            for (step, amount, wait) in steps {
                match step {
                    0 => { tokens.enter(); in_flight += 1; }
                    1 if in_flight > 0 => { tokens.leave(Gain::Refund(amount)); in_flight -= 1; }
                    2 => { tokens.withdraw(amount); }
                    _ => { elapsed += wait; tokens.sample(elapsed); }
                }
                prop_assert_eq!(tokens.in_flight(), in_flight);
                prop_assert!(tokens.capacity() >= reserve * 10);
            }
            for _ in 0..in_flight {
                tokens.leave(Gain::Refund(1_000_000));
            }
            prop_assert!(tokens.tokens() <= TOKENS as u32);
            prop_assert_eq!(tokens.in_flight(), 0);
        }
    }
}
