//! The tokens of a budget.

use loom::sync::Arc;

use crate::algorithm::budget::{Gain, Tokens};
use crate::{SECOND, on_threads};

pub(crate) fn the_last_token_is_taken_once() {
    let tokens = Arc::new(Tokens::new(Some(10), 0.2, 1));
    let taken = on_threads(&tokens, [10, 10], Tokens::withdraw);
    assert_eq!(taken.into_iter().flatten().sum::<u32>(), 10);
    assert_eq!(tokens.tokens(), 0);
}

pub(crate) fn what_is_paid_and_brought_at_the_same_time_adds_up() {
    let tokens = Arc::new(Tokens::new(Some(10), 0.2, 5));
    let operation = |tokens: &Tokens, cost| {
        tokens.enter();
        let paid = (cost > 0).then(|| tokens.withdraw(cost)).flatten();
        tokens.leave(paid.map_or(Gain::FirstTry, Gain::Refund));
    };
    on_threads(&tokens, [10, 0], operation);
    assert_eq!((tokens.tokens(), tokens.in_flight()), (51, 0));
}

pub(crate) fn three_threads_never_take_more_than_there_is() {
    let tokens = Arc::new(Tokens::new(Some(10), 0.2, 3));
    tokens.enter();
    let step = |tokens: &Tokens, cost| match cost {
        0 => {
            tokens.leave(Gain::Refund(5));
            None
        }
        cost => tokens.withdraw(cost),
    };
    let taken = on_threads(&tokens, [20, 15, 0], step);
    let cost: u32 = taken.into_iter().flatten().sum();
    assert_eq!((tokens.tokens(), tokens.in_flight()), (35 - cost, 0));
}

pub(crate) fn a_rate_is_measured_once() {
    let tokens = Arc::new(Tokens::new(Some(1), 1.0, 0));
    for _ in 0..3 {
        tokens.enter();
        tokens.leave(Gain::Nothing);
    }
    on_threads(&tokens, [SECOND; 2], Tokens::sample);
    assert_eq!(tokens.capacity(), 30);
}

pub(crate) fn layers_that_are_built_at_the_same_time_bring_the_greatest_need() {
    let tokens = Arc::new(Tokens::new(Some(10), 0.2, 0));
    on_threads(&tokens, [40, 60], |tokens, needed| {
        tokens.raise_initial(needed, 0);
    });
    assert_eq!(tokens.tokens(), 60);
}
