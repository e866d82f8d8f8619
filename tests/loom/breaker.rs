//! The circuit breaker: its word, its epochs, and failures in a row.

use std::time::Duration;

use loom::sync::Arc;

use crate::algorithm::breaker::{At, Breaker, Counts, Finished, Settings, State, Word};
use crate::{Outcome, SECOND, on_threads};

fn call(outcome: Outcome, second: u64) -> Finished {
    let at = At {
        stripe: 0,
        nanos: second * SECOND,
    };
    Finished {
        outcome,
        is_first: true,
        slow: false,
        took: 0,
        at,
    }
}

/// A breaker over the last three calls, that opens for ten seconds.
fn breaker(consecutive_failures: Option<u32>) -> Breaker {
    let settings = Settings {
        failure_share: 0.5,
        min_calls: 3,
        judges_few: false,
        consecutive_failures,
        slow_calls: None,
        open_for: Duration::from_secs(10),
        open_jitter: 0.0,
        open_growth: 1.0,
        max_open: Duration::from_secs(10),
        max_retry_after: Duration::ZERO,
        successes_to_close: 1,
        max_probes: 1,
        probe_lease: Duration::from_secs(10),
        timeout: None,
    };
    Breaker::new(settings, Counts::of_calls(3))
}

/// Ends a call that was admitted with this word. Returns whether the breaker opened.
fn end(breaker: &Breaker, word: Word, outcome: Outcome) -> bool {
    let transition = breaker.count(word, call(outcome, 1), || 0.0);
    transition.is_some()
}

fn fail(breaker: &Breaker) -> bool {
    end(breaker, breaker.word(), Outcome::Failure)
}

/// A call whose head is good, and whose body breaks off.
fn break_off(breaker: &Breaker, (): ()) {
    let word = breaker.word();
    if let (Some(mark), None) = breaker.count_head(word, call(Outcome::Success, 1), || 0.0) {
        let _ = breaker.count_rest(word, mark, call(Outcome::Failure, 1), || 0.0);
    }
}

/// The late end of a call, while the breaker is reset and used.
fn late(outcome: Outcome, later: impl Fn(&Breaker) + Copy + Send + 'static) -> Arc<Breaker> {
    let breaker = Arc::new(breaker(Some(2)));
    assert!(!fail(&breaker));
    let word = breaker.word();
    on_threads(&breaker, [true, false], move |breaker, is_late| {
        if is_late {
            end(breaker, word, outcome);
        } else {
            let _ = breaker.reset(SECOND);
            later(breaker);
        }
    });
    breaker
}

pub(crate) fn a_late_failure_counts_in_no_later_epoch() {
    let breaker = late(Outcome::Failure, |breaker| {
        fail(breaker);
    });
    assert!(breaker.word().is(State::Closed));
    assert!(fail(&breaker), "the second in a row");
}

pub(crate) fn a_late_success_ends_no_row_of_a_later_epoch() {
    let breaker = late(Outcome::Success, |breaker| {
        assert!(!fail(breaker) && fail(breaker));
    });
    assert!(breaker.word().is(State::Open));
}

pub(crate) fn a_call_that_sees_an_open_breaker_knows_for_how_long() {
    let breaker = Arc::new(breaker(Some(1)));
    on_threads(&breaker, [true, false], |breaker, fails| {
        let word = breaker.word();
        if fails {
            fail(breaker);
        } else if word.is(State::Open) {
            let (probe, _) = breaker.try_probe(word, || None, SECOND);
            assert_eq!(probe, Err(Some(Duration::from_secs(10))));
        }
    });
}

/// Calls again when the open time is over. Returns whether the call is a probe, which ends well if it `ends`.
fn probe(breaker: &Breaker, ends: bool) -> bool {
    let (probe, _) = breaker.try_probe(breaker.word(), || None, 11 * SECOND);
    if let (Ok(probe), true) = (probe, ends) {
        let _ = breaker.end_probe(probe, call(Outcome::Success, 11), 0.0);
    }
    probe.is_ok()
}

pub(crate) fn of_calls_that_come_together_one_is_the_probe() {
    let breaker = Arc::new(breaker(Some(1)));
    assert!(fail(&breaker));
    let probes = on_threads(&breaker, [false; 3], probe);
    assert_eq!(probes.into_iter().filter(|probe| *probe).count(), 1);
}

pub(crate) fn a_late_failure_does_not_open_what_a_probe_has_closed() {
    let breaker = Arc::new(breaker(Some(1)));
    let word = breaker.word();
    on_threads(&breaker, [true, false], move |breaker, probes| {
        end(breaker, word, Outcome::Failure);
        assert!(!probes || probe(breaker, true));
    });
    assert!(breaker.word().is(State::Closed));
}

pub(crate) fn answers_that_break_off_are_in_a_row_although_each_head_was_good() {
    let breaker = Arc::new(breaker(Some(2)));
    on_threads(&breaker, [(); 2], break_off);
    assert!(breaker.word().is(State::Open));
}

pub(crate) fn an_answer_that_breaks_off_is_counted_once() {
    let breaker = Arc::new(breaker(None));
    on_threads(&breaker, [(); 2], break_off);
    assert!(breaker.word().is(State::Closed));
    assert!(fail(&breaker), "three failures in three calls, not in five");
}
