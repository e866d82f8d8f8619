//! The rules of an operation beyond a single attempt.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pin_project_lite::pin_project;

use super::hedger::Hedger;
use super::repeat::Repeat;
use crate::Upload;
use crate::chassis::limit::{Limit, Span};
use crate::chassis::part::{OperationPart, Part, PartFor};
use crate::timer::Timer;

/// The rules of an operation: deadline, response timeout, timeout, retry and hedge. A rule that a plan does not have
/// costs nothing.
pub trait Plan: Send + Sync + 'static {
    /// The part of the whole operation.
    type Operation: OperationPart;
    /// The parts of each attempt.
    type Attempt: Part;

    /// The times of an operation, if it is bounded.
    #[doc(hidden)]
    type Times: Slot<Times>;
    /// The state of hedging, if an operation sends hedges.
    #[doc(hidden)]
    type Hedging: Slot<Hedging>;
    /// The timer of an operation that is bounded or sends hedges. A wait between attempts has a timer of its own.
    #[doc(hidden)]
    type Timer: Slot<Timer>;

    /// Returns the numbers of an operation that begins now.
    #[doc(hidden)]
    #[inline(always)]
    fn numbers(&self) -> Numbers {
        Numbers::default()
    }

    /// Returns the report of the time of the whole answer, if the plan enforces deadlines.
    #[doc(hidden)]
    #[inline(always)]
    fn deadline(&self) -> Option<&Limit> {
        None
    }

    /// Returns the report of the time of all attempts, until the head of the answer.
    #[doc(hidden)]
    #[inline(always)]
    fn response_timeout(&self) -> Option<&Limit> {
        None
    }

    /// Returns the report of the time of an attempt.
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
    fn hedge(&self) -> Option<&Arc<Hedger>> {
        None
    }
}

/// A plan for operations with requests of type `Req`.
pub trait PlanFor<Req>: Plan<Attempt: PartFor<Req>> {
    /// Returns whether the request asks for a stream, which the deadline of the plan does not end.
    #[doc(hidden)]
    #[inline(always)]
    fn is_stream(&self, _request: &Req) -> bool {
        false
    }
}

/// A place for a state: [`Kept`], or `()` for none, which costs no memory and no instruction.
pub trait Slot<T>: Default + Send + Sync + 'static {
    #[doc(hidden)]
    fn get(&self) -> Option<&T>;
    #[doc(hidden)]
    fn get_mut(&mut self) -> Option<&mut T>;
    #[doc(hidden)]
    fn get_pin(self: Pin<&mut Self>) -> Option<Pin<&mut T>>;
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

    #[inline(always)]
    fn get_pin(self: Pin<&mut Self>) -> Option<Pin<&mut T>> {
        None
    }
}

pin_project! {
    /// A present state.
    #[derive(Debug, Default)]
    pub struct Kept<T> {
        #[pin]
        state: T,
    }
}

impl<T: Default + Send + Sync + 'static> Slot<T> for Kept<T> {
    #[inline(always)]
    fn get(&self) -> Option<&T> {
        Some(&self.state)
    }

    #[inline(always)]
    fn get_mut(&mut self) -> Option<&mut T> {
        Some(&mut self.state)
    }

    #[inline(always)]
    fn get_pin(self: Pin<&mut Self>) -> Option<Pin<&mut T>> {
        Some(self.project().state)
    }
}

/// The numbers of a plan, which an operation reads once. Times are in nanoseconds, and [`NEVER`] is none.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    pub(crate) deadline: u64,
    pub(crate) response_timeout: u64,
    pub(crate) timeout: u64,
    pub(crate) max_attempts: u32,
}

impl Default for Numbers {
    #[inline(always)]
    fn default() -> Self {
        Self {
            deadline: NEVER,
            response_timeout: NEVER,
            timeout: NEVER,
            max_attempts: 1,
        }
    }
}

/// Returns the time of these nanoseconds, unless they are [`NEVER`].
#[inline(always)]
pub(super) fn time_of(nanos: u64) -> Option<Duration> {
    (nanos != NEVER).then(|| Duration::from_nanos(nanos))
}

/// Times at which an operation and its attempt must be over.
#[derive(Debug)]
pub struct Times {
    pub(super) numbers: Numbers,
    pub(super) span: Span,
    /// End of the attempt's time. [`NEVER`] before the attempt was found pending.
    pub(super) timeout_at: u64,
    /// The progress of the request's body, if the body reports it.
    pub(super) upload: Option<Upload>,
}

impl Default for Times {
    #[inline(always)]
    fn default() -> Self {
        Self {
            numbers: Numbers::default(),
            span: Span::default(),
            timeout_at: NEVER,
            upload: None,
        }
    }
}

/// The part of an operation that hedges.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Hedging {
    /// `true` while the first attempt is timed and not over.
    pub(super) is_first_open: bool,
    /// `true` if the request may be sent twice.
    pub(super) may_copy: bool,
    /// `true` if the success of the first attempt adds tokens to the budget, because no retry does so.
    pub(super) is_funding: bool,
    pub(super) has_succeeded: bool,
    /// The nanoseconds until a copy is due for slowness. [`NEVER`] without one.
    pub(super) delay: u64,
    /// Time at which the last attempt so far was sent, in nanoseconds from the origin.
    pub(super) sent_last: u64,
}

pub(super) const NEVER: u64 = u64::MAX;
