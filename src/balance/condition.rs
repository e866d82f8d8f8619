//! Whether an endpoint is to be chosen.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::sync::{AtomicU64, Ordering};

/// The least share of its weight that an endpoint begins with.
const RAMP_LEAST: f64 = 0.1;

/// What keeps an endpoint from being chosen. Each reason is a word of its own, because one does not end another.
///
/// Times are in nanoseconds from the origin of the balancer.
#[derive(Debug)]
pub(super) struct Condition {
    /// It has refused a call, and is left alone until then.
    refused_until: AtomicU64,
    /// It was ejected until then; `u64::MAX` for until it is restored.
    ejected_until: AtomicU64,
    /// A health check says that it does not work.
    is_unhealthy: AtomicBool,
    /// When its slow start began; `u64::MAX` for one that needs none.
    started: AtomicU64,
}

/// The state of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndpointState {
    /// It gets its share of the calls.
    Ready,
    /// It gets no calls for a while, because of what it did with earlier ones.
    Ejected,
    /// It is new or has returned, and gets less than its share.
    SlowStart,
    /// It gets no calls, because a health check says that it does not work.
    Unhealthy,
}

impl Condition {
    pub(super) fn new(started: Option<u64>) -> Self {
        Self {
            refused_until: AtomicU64::new(0),
            ejected_until: AtomicU64::new(0),
            is_unhealthy: AtomicBool::new(false),
            started: AtomicU64::new(started.unwrap_or(u64::MAX)),
        }
    }

    /// Says whether calls may be sent to the endpoint.
    #[inline]
    pub(super) fn is_selectable(&self, now: u64) -> bool {
        self.refused_until.load(Ordering::Relaxed) <= now
            && self.ejected_until.load(Ordering::Relaxed) <= now
            && !self.is_unhealthy.load(Ordering::Relaxed)
    }

    /// Leaves the endpoint alone until `until`.
    pub(super) fn refused(&self, until: u64) {
        self.refused_until.fetch_max(until, Ordering::Relaxed);
    }

    /// The share of its weight that counts.
    #[inline]
    pub(super) fn ramp(&self, slow_start: u64, now: u64) -> f64 {
        let started = self.started.load(Ordering::Relaxed);
        if started == u64::MAX {
            return 1.0;
        }
        let elapsed = now.saturating_sub(started);
        if elapsed >= slow_start {
            self.started.store(u64::MAX, Ordering::Relaxed);
            return 1.0;
        }
        (elapsed as f64 / slow_start as f64).max(RAMP_LEAST)
    }

    pub(super) fn state(&self, slow_start: u64, now: u64) -> EndpointState {
        if self.is_unhealthy.load(Ordering::Relaxed) {
            EndpointState::Unhealthy
        } else if self.ejected_until.load(Ordering::Relaxed) > now {
            EndpointState::Ejected
        } else if self.ramp(slow_start, now) < 1.0 {
            EndpointState::SlowStart
        } else {
            EndpointState::Ready
        }
    }
}

/// A time in nanoseconds that is `wait` after `now`.
pub(super) fn after(now: u64, wait: Duration) -> u64 {
    now.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "these shares are exact")]

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn an_endpoint_that_has_refused_a_call_is_left_alone_for_a_while() {
        let condition = Condition::new(None);
        condition.refused(5);
        condition.refused(3);
        assert!(!condition.is_selectable(4));
        assert!(condition.is_selectable(5));
    }

    #[test]
    fn a_new_endpoint_gets_a_growing_share_and_then_all_of_it() {
        let condition = Condition::new(Some(SECOND));
        let share = |seconds| condition.ramp(10 * SECOND, seconds * SECOND);
        assert_eq!([share(0), share(1), share(6)], [0.1, 0.1, 0.5]);
        assert_eq!(
            condition.state(10 * SECOND, 6 * SECOND),
            EndpointState::SlowStart
        );
        assert_eq!([share(11), share(6)], [1.0, 1.0], "it starts once");
        assert_eq!(
            condition.state(10 * SECOND, 6 * SECOND),
            EndpointState::Ready
        );
    }
}
