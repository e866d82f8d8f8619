//! The moves of an operation beside a single attempt.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::Budget;
use crate::algorithm::retry::Settings;
use crate::chassis::Part;
use crate::hedge;
use crate::random::Random;
use crate::retry::RetryMetrics;
use crate::telemetry::Series;
use crate::timeout::TimeoutMetrics;
use crate::timer::Timer;

/// The moves of an operation. What a plan does not have costs nothing.
pub trait Plan: Send + Sync + 'static {
    /// The parts of the whole operation.
    type Operation: Part;
    /// The parts of each attempt.
    type Attempt: Part;

    /// The times of an operation, if it is bounded.
    #[doc(hidden)]
    type Times: Slot<Times>;
    /// The state of hedging, if an operation sends hedges.
    #[doc(hidden)]
    type Hedging: Slot<Hedging>;

    /// The timer of an operation that is bounded, or sends hedges. A wait between attempts has one of its own.
    #[doc(hidden)]
    type Timer: TimerSlot;

    /// The time of the operation. With `Duration::MAX` it ends at an inherited deadline alone.
    #[doc(hidden)]
    #[inline(always)]
    fn deadline(&self) -> Option<&Limit> {
        None
    }

    /// The time of an attempt.
    #[doc(hidden)]
    #[inline(always)]
    fn timeout(&self) -> Option<&Limit> {
        None
    }

    #[doc(hidden)]
    #[inline(always)]
    fn retry(&self) -> Option<&Repeat> {
        None
    }

    #[doc(hidden)]
    #[inline(always)]
    fn hedge(&self) -> Option<&Arc<hedge::Shared>> {
        None
    }
}

/// A place for a state, or for none. What a plan does not keep takes no room and no instruction.
pub trait Slot<T>: Default + Send + Sync + 'static {
    #[doc(hidden)]
    fn get(&self) -> Option<&T>;
    #[doc(hidden)]
    fn get_mut(&mut self) -> Option<&mut T>;
}

impl<T> Slot<T> for () {
    #[inline(always)]
    fn get(&self) -> Option<&T> {
        None
    }

    #[inline(always)]
    fn get_mut(&mut self) -> Option<&mut T> {
        None
    }
}

/// A place for a timer, or for none.
pub trait TimerSlot: Default + Send + Sync + 'static {
    #[doc(hidden)]
    fn timer(self: Pin<&mut Self>) -> Option<Pin<&mut Timer>>;
}

impl TimerSlot for () {
    #[inline(always)]
    fn timer(self: Pin<&mut Self>) -> Option<Pin<&mut Timer>> {
        None
    }
}

impl TimerSlot for Timer {
    #[inline(always)]
    fn timer(self: Pin<&mut Self>) -> Option<Pin<&mut Timer>> {
        Some(self)
    }
}

/// When an operation and its attempt must be over.
#[derive(Debug)]
pub struct Times {
    pub(super) deadline: Option<Instant>,
    /// When the operation began. `None` if it got its deadline later.
    pub(super) began: Option<Instant>,
    /// When the time of the attempt is over. [`NEVER`] before the attempt was found pending.
    pub(super) timeout_at: u64,
}

impl Default for Times {
    #[inline(always)]
    fn default() -> Self {
        Self {
            deadline: None,
            began: None,
            timeout_at: NEVER,
        }
    }
}

impl Slot<Self> for Times {
    #[inline(always)]
    fn get(&self) -> Option<&Self> {
        Some(self)
    }

    #[inline(always)]
    fn get_mut(&mut self) -> Option<&mut Self> {
        Some(self)
    }
}

/// The part of an operation that hedges.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Hedging {
    /// The first attempt is timed, and not over.
    pub(super) is_first_open: bool,
    /// The request may be sent twice.
    pub(super) may_copy: bool,
    /// The success of the first attempt brings tokens: the budget is not that of a retry, which sees to it.
    pub(super) is_funding: bool,
    pub(super) has_succeeded: bool,
    /// The nanoseconds until a copy is due for slowness. [`NEVER`] without one.
    pub(super) delay: u64,
    /// When the last attempt so far was sent, in nanoseconds from the origin.
    pub(super) sent_last: u64,
}

pub(super) const NEVER: u64 = u64::MAX;

impl Slot<Self> for Hedging {
    #[inline(always)]
    fn get(&self) -> Option<&Self> {
        Some(self)
    }

    #[inline(always)]
    fn get_mut(&mut self) -> Option<&mut Self> {
        Some(self)
    }
}

/// A time, and where it is reported that it was over.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub(crate) time: Duration,
    pub(crate) metrics: &'static Series<TimeoutMetrics>,
}

/// Retries: when, how often, and paid from what.
#[derive(Debug)]
pub struct Repeat {
    pub(crate) settings: Settings,
    pub(crate) budget: Option<Budget>,
    pub(crate) random: Random,
    pub(crate) metrics: &'static Series<RetryMetrics>,
}

impl Repeat {
    /// The budget that attempts are paid from, for inner layers that could pay as well.
    #[inline]
    pub(super) fn budget_id(&self) -> usize {
        self.budget.as_ref().map_or(0, Budget::id)
    }

    /// Returns whether the attempts are made by an outer retry.
    #[inline]
    pub(super) fn is_nested(&self) -> bool {
        crate::context::attempt() > 0 && !self.settings.retry_nested
    }
}
