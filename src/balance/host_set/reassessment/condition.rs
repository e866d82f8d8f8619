//! The condition of an endpoint: the reasons that keep it from being chosen, and its weight.
//!
//! Calls read these words. One thread at a time writes the words on which the health of a group depends: it holds the
//! lock of the host set, and assesses the groups before and after ([`Reassessment`](super::Reassessment)). Each word
//! has a meaning by itself, so all accesses are `Relaxed`: a call that sees one word and not yet another acts as if it
//! had come a moment earlier or later. With an `Acquire`, each comparison of endpoints would read everything anew, for
//! the sake of a few calls to an endpoint that has just returned. Calls also write two words. The end of a refusal only
//! rises. A call that finds a slow start over clears `started` by a compare-and-swap, which does not clear a newer
//! start.

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// The share of its weight with which an endpoint begins.
const MIN_RAMP: f64 = 0.1;

/// The reasons that keep an endpoint from being chosen, and its weight. Each reason is a word of its own, because the
/// end of one reason does not end another.
///
/// Times are in nanoseconds from the origin of the balancer.
#[derive(Debug)]
pub(in crate::balance) struct Condition {
    /// The bits of the weight, a float.
    weight: AtomicU64,
    /// The time until which it is avoided after a refusal.
    refused_until: AtomicU64,
    /// The time until which it is ejected; `u64::MAX` if it is ejected until it is restored.
    ejected_until: AtomicU64,
    /// Not 0 while a health check says that it does not work.
    unhealthy: AtomicU32,
    /// Beginning of its slow start; `u64::MAX` if it needs none.
    started: AtomicU64,
}

/// The state of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndpointState {
    /// It gets its share of the calls.
    Ready,
    /// It gets no calls for a while, because earlier calls failed.
    Ejected,
    /// It is new or has returned, and gets less than its share.
    SlowStart,
    /// It gets no calls, because a health check says that it does not work.
    Unhealthy,
}

impl Condition {
    pub(in crate::balance) fn new(weight: f64, started: Option<u64>) -> Self {
        Self {
            weight: AtomicU64::new(weight.to_bits()),
            refused_until: AtomicU64::new(0),
            ejected_until: AtomicU64::new(0),
            unhealthy: AtomicU32::new(0),
            started: AtomicU64::new(started.unwrap_or(u64::MAX)),
        }
    }

    /// Returns the weight that was set.
    #[inline]
    pub(in crate::balance) fn weight(&self) -> f64 {
        f64::from_bits(self.weight.load(Ordering::Relaxed))
    }

    pub(super) fn reweigh(&self, weight: f64) {
        self.weight.store(weight.to_bits(), Ordering::Relaxed);
    }

    /// Returns whether calls may be sent to the endpoint.
    #[inline]
    pub(in crate::balance) fn is_selectable(
        &self,
        now: u64,
        is_panic: impl FnOnce() -> bool,
    ) -> bool {
        !self.is_refusing(now) && (self.is_out_until() <= now || is_panic())
    }

    /// Returns whether the endpoint has refused a call a short while ago.
    #[inline]
    pub(in crate::balance) fn is_refusing(&self, now: u64) -> bool {
        self.refused_until.load(Ordering::Relaxed) > now
    }

    /// Returns whether the endpoint gets no calls for one of the reasons in this type.
    pub(in crate::balance) fn is_closed(&self, now: u64) -> bool {
        self.is_refusing(now) || self.is_out_until() > now
    }

    /// Returns whether a health check has found that the endpoint does not work.
    #[inline]
    pub(in crate::balance) fn is_unhealthy(&self) -> bool {
        self.unhealthy.load(Ordering::Relaxed) != 0
    }

    /// Returns the time until which the endpoint is ejected or unhealthy; `u64::MAX` if time alone does not end the
    /// state.
    #[inline]
    pub(in crate::balance) fn is_out_until(&self) -> u64 {
        if self.is_unhealthy() {
            return u64::MAX;
        }
        self.ejected_until.load(Ordering::Relaxed)
    }

    /// Ejects the endpoint until `until`, when its slow start begins. Never shortens an ejection.
    pub(super) fn ejected(&self, until: u64) {
        let former = self.ejected_until.fetch_max(until, Ordering::Relaxed);
        self.start_slowly(until.max(former));
    }

    /// Ends an ejection, and begins the slow start.
    pub(super) fn restore(&self, now: u64) {
        self.refused_until.store(0, Ordering::Relaxed);
        if self.ejected_until.swap(0, Ordering::Relaxed) > now {
            self.start_slowly(now);
        }
    }

    /// Notes the result of a health check, which does not end an ejection. Returns `true` if the endpoint works again.
    ///
    /// An endpoint that works again begins a slow start, after the end of an ejection if there is one.
    pub(super) fn found(&self, is_healthy: bool, now: u64) -> bool {
        let works_again = is_healthy && self.is_unhealthy();
        if works_again {
            let until = self.ejected_until.load(Ordering::Relaxed);
            self.start_slowly(until.max(now));
        }
        self.unhealthy
            .store(u32::from(!is_healthy), Ordering::Relaxed);
        works_again
    }

    /// Begins a slow start at this time. It is a swap, because the loom model cannot order a store with the swap that
    /// clears a start.
    fn start_slowly(&self, at: u64) {
        self.started.swap(at, Ordering::Relaxed);
    }

    /// Avoids the endpoint until `until`.
    pub(in crate::balance) fn refused(&self, until: u64) {
        self.refused_until.fetch_max(until, Ordering::Relaxed);
    }

    /// Returns the share of its weight that counts.
    #[inline]
    pub(in crate::balance) fn ramp(&self, slow_start: u64, now: u64) -> f64 {
        let started = self.started.load(Ordering::Relaxed);
        if started == u64::MAX {
            return 1.0;
        }
        let elapsed = now.saturating_sub(started);
        if elapsed >= slow_start {
            // Unless another slow start has begun in the meantime.
            let (is, over) = (Ordering::Relaxed, Ordering::Relaxed);
            let _ = self.started.compare_exchange(started, u64::MAX, is, over);
            return 1.0;
        }
        (elapsed as f64 / slow_start as f64).max(MIN_RAMP)
    }

    /// Returns the state. It changes nothing, because the caller may have another clock than the calls.
    pub(in crate::balance) fn state(&self, slow_start: u64, now: u64) -> EndpointState {
        let started = self.started.load(Ordering::Relaxed);
        if self.is_unhealthy() {
            EndpointState::Unhealthy
        } else if self.ejected_until.load(Ordering::Relaxed) > now {
            EndpointState::Ejected
        } else if started != u64::MAX && now.saturating_sub(started) < slow_start {
            EndpointState::SlowStart
        } else {
            EndpointState::Ready
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "these shares are exact")]

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn an_endpoint_that_has_refused_a_call_is_left_alone_for_a_while() {
        let condition = Condition::new(1.0, None);
        condition.refused(5);
        condition.refused(3);
        assert!(!condition.is_selectable(4, || true), "not even in panic");
        assert!(condition.is_selectable(5, || false));
    }

    #[test]
    fn an_ejected_endpoint_returns_by_itself_and_slowly() {
        let condition = Condition::new(1.0, None);
        condition.ejected(30 * SECOND);
        condition.ejected(20 * SECOND);
        let state = |second| condition.state(10 * SECOND, second * SECOND);
        assert!(!condition.is_selectable(29 * SECOND, || false));
        assert!(condition.is_selectable(29 * SECOND, || true), "in panic");
        assert_eq!(state(29), EndpointState::Ejected);
        assert!(condition.is_selectable(30 * SECOND, || false));
        assert_eq!([state(30), state(39)], [EndpointState::SlowStart; 2]);
        assert_eq!(state(40), EndpointState::Ready);
        condition.restore(50 * SECOND);
        assert_eq!(state(50), EndpointState::Ready, "it was not ejected");
        condition.ejected(90 * SECOND);
        condition.restore(60 * SECOND);
        assert_eq!(state(60), EndpointState::SlowStart);
    }

    #[test]
    fn a_health_check_ends_no_ejection() {
        let condition = Condition::new(1.0, None);
        assert!(!condition.found(true, 0));
        assert_eq!(condition.state(10 * SECOND, 0), EndpointState::Ready);
        assert!(!condition.found(false, 0));
        condition.ejected(30 * SECOND);
        assert_eq!(condition.state(10 * SECOND, 0), EndpointState::Unhealthy);
        assert_eq!(condition.is_out_until(), u64::MAX);
        assert!(condition.found(true, 5 * SECOND));
        let state = |second| condition.state(10 * SECOND, second * SECOND);
        assert_eq!(
            [5, 30, 40].map(state),
            [
                EndpointState::Ejected,
                EndpointState::SlowStart,
                EndpointState::Ready
            ]
        );
    }

    #[test]
    fn a_new_endpoint_gets_a_growing_share_and_then_all_of_it() {
        let condition = Condition::new(1.0, Some(SECOND));
        let share = |seconds| condition.ramp(10 * SECOND, seconds * SECOND);
        assert_eq!([share(0), share(1), share(6)], [0.1, 0.1, 0.5]);
        assert_eq!(
            condition.state(10 * SECOND, 6 * SECOND),
            EndpointState::SlowStart
        );
        let later = condition.state(10 * SECOND, 20 * SECOND);
        assert_eq!(later, EndpointState::Ready);
        assert_eq!(share(6), 0.5, "a look changes nothing");
        assert_eq!([share(11), share(6)], [1.0, 1.0], "it starts once");
        assert_eq!(
            condition.state(10 * SECOND, 6 * SECOND),
            EndpointState::Ready
        );
    }
}
