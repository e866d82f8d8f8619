//! Whether the state of a layer may be dropped and begun anew.

use tokio::time::Instant;

use crate::{
    BulkheadLayer, CircuitBreakerLayer, DeadlineLayer, MeasureLayer, RetryLayer, TimeoutLayer,
    circuit_breaker,
};

/// Says whether a layer has anything to remember.
///
/// Where each key has a layer of its own, layers of keys that are not used are dropped to make room. One that
/// still holds something against its key must not be: dropping it would forgive an exhausted limit
/// or an open breaker. Implemented for every layer of this crate and for tuples of them.
pub trait Forget {
    /// Returns `true` if a layer made anew would act just as this one from `now` on.
    fn can_forget(&self, now: Instant) -> bool;
}

impl<K, C> Forget for MeasureLayer<K, C> {
    fn can_forget(&self, _now: Instant) -> bool {
        true
    }
}

impl<D> Forget for TimeoutLayer<D> {
    fn can_forget(&self, _now: Instant) -> bool {
        true
    }
}

impl Forget for DeadlineLayer {
    fn can_forget(&self, _now: Instant) -> bool {
        true
    }
}

impl<R, K> Forget for RetryLayer<R, K> {
    /// Returns `false` while an operation is under way.
    ///
    /// A budget that is used up may be forgotten: a new one holds no more than two retries.
    fn can_forget(&self, _now: Instant) -> bool {
        self.budget().is_none_or(|budget| budget.in_flight() == 0)
    }
}

impl<K, C> Forget for CircuitBreakerLayer<K, C> {
    /// Returns `true` while the breaker is closed.
    fn can_forget(&self, _now: Instant) -> bool {
        let breaker = self.handle();
        breaker.state() == circuit_breaker::State::Closed
    }
}

impl<K, C> Forget for BulkheadLayer<K, C> {
    /// Returns `true` while no call is in flight, none waits, and the limit is the one it began with.
    fn can_forget(&self, _now: Instant) -> bool {
        self.try_handle().is_none_or(|bulkhead| bulkhead.is_idle())
    }
}

macro_rules! tuples {
    ($($layers:ident)+) => {
        #[allow(non_snake_case, reason = "the fields are named as their types")]
        impl<$($layers: Forget),+> Forget for ($($layers,)+) {
            fn can_forget(&self, now: Instant) -> bool {
                let ($($layers,)+) = self;
                $($layers.can_forget(now))&&+
            }
        }
    };
}

tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);
