//! The trait of a part, and the composition of parts.

use std::task::Waker;

use tokio::time::Instant;

use super::record::{At, Record};
use crate::Error;

/// The decision about an attempt.
#[must_use]
#[derive(Debug)]
pub enum Admit {
    /// The attempt goes on.
    Go,
    /// The attempt waits. Its permit holds its place; see [`Part::poll_turn`].
    Wait,
    /// The attempt is refused, and ends with this error.
    Refuse(Error),
}

/// The progress of an attempt that waits.
#[must_use]
#[derive(Debug)]
pub enum Turn {
    /// The attempt goes on.
    Go,
    /// The attempt waits until its waker is called, and until this instant at the latest. Then it is polled again.
    Until(Instant),
    /// The attempt is refused, and ends with this error.
    Refuse(Error),
}

/// An algorithm that admits attempts and learns how they ended.
///
/// The [module documentation](crate::part) has an example, and the rules that a part keeps.
///
/// A part knows neither the request nor the service nor a future. The facts that it needs of a request are read by
/// [`PartFor`].
///
/// A permit is plain data that lies in the attempt and is written there. Its default is "nothing", and a place in a queue is
/// one of its states. [`settle`](Self::settle) ends it in whatever state it is, and leaves nothing; to settle nothing does
/// nothing. A permit is settled when its attempt ends, is refused by a part further inside, is dropped, or
/// panics, also in the middle of an admission or of a settlement.
pub trait Part: Send + Sync + 'static {
    /// The facts that the part needs of a request: a cost, or `()`.
    type Ask: Copy + Default + Send + Sync + 'static;
    /// The state of one admitted or waiting attempt.
    type Permit: Default + Send + Sync + 'static;

    /// Returns whether [`Record::nanos`] is of use to the part. The clock is then read when the attempt is sent, and when
    /// it ends.
    #[inline]
    fn is_timed(&self) -> bool {
        false
    }

    /// Returns whether the inner service may be asked for its readiness before the call. A part that would refuse the
    /// next call, or make it wait, leaves the inner service alone.
    #[inline]
    fn is_open(&self) -> bool {
        true
    }

    /// Decides about an attempt, when a call is made or a further attempt begins. `permit` is nothing.
    fn admit(&self, ask: Self::Ask, permit: &mut Self::Permit, at: &At) -> Admit;

    /// Returns whether the permit is a place in a queue: from [`Admit::Wait`] until [`poll_turn`](Self::poll_turn) returns
    /// [`Turn::Go`] or [`Turn::Refuse`].
    #[inline]
    fn is_waiting(&self, permit: &Self::Permit) -> bool {
        let _ = permit;
        false
    }

    /// Moves on an attempt that waits, when its task is polled. `waker` is that of the task.
    ///
    /// The part owns no timer: it returns the instant at which it is to be polled again at the latest. No other timer runs
    /// meanwhile but that of a response timeout, so that instant must not lie after [`Deadline::current`](crate::Deadline::current). By default an attempt
    /// does not wait.
    fn poll_turn(&self, ask: Self::Ask, permit: &mut Self::Permit, at: &At, waker: &Waker) -> Turn {
        let _ = (ask, permit, at, waker);
        Turn::Go
    }

    /// Notes that the head of an answer has come, while the rest of it goes on. [`settle`](Self::settle) follows at its end.
    /// By default this does nothing.
    #[inline]
    fn head(&self, permit: &mut Self::Permit, record: &Record<'_>) {
        let _ = (permit, record);
    }

    /// Ends the permit, and leaves nothing. Also called for a permit that is nothing already.
    fn settle(&self, permit: &mut Self::Permit, record: &Record<'_>);

    /// Returns whether the part has gauges to be [published](Self::publish).
    #[inline]
    fn has_gauges(&self) -> bool {
        false
    }

    /// Publishes the gauges. Called about every 100 ms, by a call that has the time at hand.
    fn publish(&self, at: &At) {
        let _ = at;
    }

    /// Returns whether a new part could take the place of this one at `now`, because it holds nothing against its callers.
    /// See [`Evictable`](crate::Evictable). `true` by default.
    fn is_evictable(&self, now: Instant) -> bool {
        let _ = now;
        true
    }
}

/// Reads from a request what a [`Part`] needs to know, before the request moves.
pub trait PartFor<Req>: Part {
    /// Reads the request.
    fn ask(&self, request: &Req) -> Self::Ask;
}

/// A part of a whole operation: it learns how the operation ended, but neither refuses it nor makes it wait.
pub trait OperationPart: Part {
    /// Notes that an operation begins. `permit` is nothing.
    fn begin(&self, permit: &mut Self::Permit, at: &At);
}

impl Part for () {
    type Ask = ();
    type Permit = ();

    #[inline(always)]
    fn admit(&self, (): (), (): &mut (), _: &At) -> Admit {
        Admit::Go
    }

    #[inline(always)]
    fn settle(&self, (): &mut (), _: &Record<'_>) {}
}

impl OperationPart for () {
    #[inline(always)]
    fn begin(&self, (): &mut (), _: &At) {}
}

impl<Req> PartFor<Req> for () {
    #[inline(always)]
    fn ask(&self, _: &Req) {}
}

/// A part that may be left out.
impl<P: Part> Part for Option<P> {
    type Ask = P::Ask;
    type Permit = P::Permit;

    #[inline(always)]
    fn is_timed(&self) -> bool {
        self.as_ref().is_some_and(P::is_timed)
    }

    #[inline(always)]
    fn is_open(&self) -> bool {
        self.as_ref().is_none_or(P::is_open)
    }

    #[inline(always)]
    fn admit(&self, ask: P::Ask, permit: &mut P::Permit, at: &At) -> Admit {
        match self {
            Some(part) => part.admit(ask, permit, at),
            None => Admit::Go,
        }
    }

    #[inline(always)]
    fn is_waiting(&self, permit: &P::Permit) -> bool {
        self.as_ref().is_some_and(|part| part.is_waiting(permit))
    }

    fn poll_turn(&self, ask: P::Ask, permit: &mut P::Permit, at: &At, waker: &Waker) -> Turn {
        match self {
            Some(part) => part.poll_turn(ask, permit, at, waker),
            None => Turn::Go,
        }
    }

    #[inline(always)]
    fn head(&self, permit: &mut P::Permit, record: &Record<'_>) {
        if let Some(part) = self {
            part.head(permit, record);
        }
    }

    #[inline(always)]
    fn settle(&self, permit: &mut P::Permit, record: &Record<'_>) {
        if let Some(part) = self {
            part.settle(permit, record);
        }
    }

    #[inline(always)]
    fn has_gauges(&self) -> bool {
        self.as_ref().is_some_and(P::has_gauges)
    }

    fn publish(&self, at: &At) {
        if let Some(part) = self {
            part.publish(at);
        }
    }

    fn is_evictable(&self, now: Instant) -> bool {
        self.as_ref().is_none_or(|part| part.is_evictable(now))
    }
}

impl<P: OperationPart> OperationPart for Option<P> {
    #[inline(always)]
    fn begin(&self, permit: &mut P::Permit, at: &At) {
        if let Some(part) = self {
            part.begin(permit, at);
        }
    }
}

impl<P: PartFor<Req>, Req> PartFor<Req> for Option<P> {
    #[inline(always)]
    fn ask(&self, request: &Req) -> P::Ask {
        match self {
            Some(part) => part.ask(request),
            None => P::Ask::default(),
        }
    }
}

/// Two parts, the first one outermost. More of them nest on the right.
///
/// No guard is needed for the permit of the first part while the second one refuses or panics: it lies in its place, and
/// the owner of the place settles both.
impl<A: Part, B: Part> Part for (A, B) {
    type Ask = (A::Ask, B::Ask);
    type Permit = (A::Permit, B::Permit);

    #[inline(always)]
    fn is_timed(&self) -> bool {
        self.0.is_timed() || self.1.is_timed()
    }

    #[inline(always)]
    fn is_open(&self) -> bool {
        self.0.is_open() && self.1.is_open()
    }

    #[inline(always)]
    fn admit(&self, ask: Self::Ask, permit: &mut Self::Permit, at: &At) -> Admit {
        match self.0.admit(ask.0, &mut permit.0, at) {
            Admit::Go => self.1.admit(ask.1, &mut permit.1, at),
            other => other,
        }
    }

    #[inline(always)]
    fn is_waiting(&self, permit: &Self::Permit) -> bool {
        self.0.is_waiting(&permit.0) || self.1.is_waiting(&permit.1)
    }

    /// The second part waits only once it was admitted, so the first one is asked while the second one does not wait.
    fn poll_turn(&self, ask: Self::Ask, permit: &mut Self::Permit, at: &At, waker: &Waker) -> Turn {
        if !self.1.is_waiting(&permit.1) {
            match self.0.poll_turn(ask.0, &mut permit.0, at, waker) {
                Turn::Go => {}
                other => return other,
            }
            match self.1.admit(ask.1, &mut permit.1, at) {
                Admit::Go => return Turn::Go,
                Admit::Wait => {}
                Admit::Refuse(error) => return Turn::Refuse(error),
            }
        }
        self.1.poll_turn(ask.1, &mut permit.1, at, waker)
    }

    #[inline(always)]
    fn head(&self, permit: &mut Self::Permit, record: &Record<'_>) {
        self.1.head(&mut permit.1, record);
        self.0.head(&mut permit.0, record);
    }

    #[inline(always)]
    fn settle(&self, permit: &mut Self::Permit, record: &Record<'_>) {
        self.1.settle(&mut permit.1, record);
        self.0.settle(&mut permit.0, record);
    }

    #[inline(always)]
    fn has_gauges(&self) -> bool {
        self.0.has_gauges() || self.1.has_gauges()
    }

    fn publish(&self, at: &At) {
        self.0.publish(at);
        self.1.publish(at);
    }

    fn is_evictable(&self, now: Instant) -> bool {
        self.0.is_evictable(now) && self.1.is_evictable(now)
    }
}

impl<A: PartFor<Req>, B: PartFor<Req>, Req> PartFor<Req> for (A, B) {
    #[inline(always)]
    fn ask(&self, request: &Req) -> Self::Ask {
        (self.0.ask(request), self.1.ask(request))
    }
}
