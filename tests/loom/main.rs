//! The interleavings of two or three threads in the lock-free parts.
//!
//! Those in which threads are preempted twice, or as often as `LOOM_MAX_PREEMPTIONS` says.
//!
//! Has a `main` of its own instead of the usual harness: the unit tests of the files that are included
//! here use atomics outside a model, which loom's are not for.

// The included files know the features of the crate.
#![allow(unexpected_cfgs)]

#[allow(dead_code, unused_imports, unreachable_pub)]
mod algorithm;
mod balance;
mod breaker;
mod budget;
mod bulkhead;
#[allow(dead_code)]
#[path = "../../src/debug.rs"]
mod debug;
mod drain;
mod evidence;
#[path = "../../src/live.rs"]
mod live;
mod live_numbers;
#[allow(dead_code, unused_imports)]
#[path = "../../src/nanos.rs"]
mod nanos;
mod rate_limit;
mod replay_body;
mod sketch;
mod telemetry;
#[path = "../../src/wake.rs"]
mod wake;
mod window;

/// What `src/sync.rs` is to the rest of the crate.
mod sync {
    use std::sync::PoisonError;

    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
    pub(crate) use loom::sync::{Mutex, MutexGuard};

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

use std::time::Duration;

use buttress::{BoxError, ReplayBodyError, Upload, http, keyed};
use loom::sync::Arc;
use loom::thread;

/// What algorithms know of `src/outcome.rs`.
#[allow(dead_code)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    Failure,
    Overload { retry_after: Option<Duration> },
    Throttled { retry_after: Option<Duration> },
    Ignored,
    Cancelled,
}

impl Outcome {
    fn is_failure(self) -> bool {
        matches!(self, Self::Failure | Self::Overload { .. })
    }

    fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Overload { retry_after } | Self::Throttled { retry_after } => retry_after,
            _ => None,
        }
    }
}

/// In nanoseconds.
pub(crate) const SECOND: u64 = 1_000_000_000;

macro_rules! check {
    ($($part:ident::$model:ident)*) => {
        $(
            println!("model {}", stringify!($model));
            let mut builder = loom::model::Builder::new();
            builder.preemption_bound.get_or_insert(2);
            builder.check($part::$model);
        )*
    };
}
fn main() {
    check! {
        telemetry::a_gauge_ends_at_the_newest_level_whoever_is_late
        telemetry::a_level_that_returns_to_zero_is_shown_whoever_is_late
        window::threads_that_enter_a_new_slice_together_clear_it_once
        window::a_straggler_does_not_clear_the_slice_that_has_replaced_its_own
        window::a_call_of_an_old_epoch_does_not_clear_the_new_one
        window::a_success_that_is_taken_back_takes_no_other_one_with_it
        breaker::a_late_failure_counts_in_no_later_epoch
        breaker::a_late_success_ends_no_row_of_a_later_epoch
        breaker::a_call_that_sees_an_open_breaker_knows_for_how_long
        breaker::of_calls_that_come_together_one_is_the_probe
        breaker::a_late_failure_does_not_open_what_a_probe_has_closed
        breaker::answers_that_break_off_are_in_a_row_although_each_head_was_good
        breaker::an_answer_that_breaks_off_is_counted_once
        live_numbers::a_reader_sees_no_mixture_of_two_changes
        evidence::of_calls_that_end_together_the_slowest_is_kept
        evidence::a_straggler_leaves_a_newer_second_in_its_slot_alone
        sketch::a_call_is_collected_once
        sketch::a_tick_is_collected_once
        budget::the_last_token_is_taken_once
        budget::what_is_paid_and_brought_at_the_same_time_adds_up
        budget::three_threads_never_take_more_than_there_is
        budget::a_rate_is_measured_once
        budget::layers_that_are_built_at_the_same_time_bring_the_greatest_need
        bulkhead::never_more_are_in_flight_than_the_limit
        bulkhead::who_queues_while_another_leaves_gets_the_permit
        bulkhead::who_waits_is_woken_once
        bulkhead::a_permit_that_nobody_wants_any_longer_goes_to_the_next
        bulkhead::who_gives_up_while_another_leaves_loses_no_permit
        bulkhead::a_lower_limit_and_one_who_leaves
        bulkhead::a_higher_limit_and_one_who_leaves
        bulkhead::a_limit_that_shrinks_is_not_lost_to_one_that_grows
        balance::calls_that_begin_and_end_together_leave_none_in_flight
        balance::the_slowest_of_calls_that_end_together_is_remembered
        balance::two_answers_at_the_same_time_lower_an_estimate_once
        balance::failures_that_come_together_all_count
        balance::a_gauge_shows_no_call_when_none_is_in_flight
        balance::a_call_counts_in_one_interval_whenever_the_sweep_comes
        balance::one_of_the_failures_that_fill_a_row_asks_for_a_sweep
        balance::a_slow_start_that_begins_as_another_ends_is_kept
        balance::of_refusals_that_come_together_the_longest_counts
        balance::a_handle_sees_the_last_change_whatever_its_copy_was
        drain::a_drain_that_waits_is_woken_by_the_last_call
        drain::a_drain_is_over_only_when_the_last_call_is
        rate_limit::a_limit_lets_no_more_through_than_its_burst
        rate_limit::a_call_takes_all_its_tokens_or_none
        rate_limit::a_change_of_rate_loses_no_token_that_is_taken_meanwhile
        rate_limit::a_call_is_judged_by_the_old_terms_or_the_new_ones_and_no_mixture
        rate_limit::a_later_origin_loses_no_token_that_is_taken_meanwhile
        rate_limit::nothing_passes_once_a_limit_is_quiet
        rate_limit::of_two_that_come_together_one_gets_the_token_and_one_a_place
        rate_limit::a_waiter_that_leaves_hands_its_turn_on
        rate_limit::a_waiter_that_goes_hands_its_turn_on
        rate_limit::a_waiter_is_woken_when_the_limit_has_changed
        replay_body::who_waits_for_data_is_woken_when_it_comes
        replay_body::who_waits_is_woken_by_another_that_reads
        replay_body::two_readers_of_one_body_get_the_whole_of_it
        replay_body::an_attempt_that_is_over_is_told_so_and_leaves_the_data_to_the_next
    }
}

/// Runs `work` on each of the `inputs`, each on a thread of its own, and returns the
/// results in their order.
pub(crate) fn on_threads<T, I, R, const N: usize>(
    shared: &Arc<T>,
    inputs: [I; N],
    work: impl Fn(&T, I) -> R + Copy + Send + 'static,
) -> [R; N]
where
    T: Send + Sync + 'static,
    I: Send + 'static,
    R: Send + 'static,
{
    let threads = inputs.map(|input| {
        let shared = Arc::clone(shared);
        thread::spawn(move || work(&shared, input))
    });
    threads.map(|thread| thread.join().expect("a thread of the model"))
}
