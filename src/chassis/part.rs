//! The trait of a part, and the composition of parts.

use std::task::Waker;

use tokio::time::Instant;

use super::record::{At, Record};
use crate::Error;

/// The decision about an attempt.
#[must_use]
#[derive(Debug)]
pub enum Admit {
    /// The attempt continues.
    Go,
    /// The attempt waits. Its permit is its place; see [`Part::poll_turn`].
    Wait,
    /// The attempt is refused, and ends with this error.
    Refuse(Error),
}

/// The progress of an attempt that waits.
#[must_use]
#[derive(Debug)]
pub enum Turn {
    /// The attempt continues.
    Go,
    /// The attempt waits until its waker is called or this instant has come, and is then polled again.
    Until(Instant),
    /// The attempt is refused, and ends with this error.
    Refuse(Error),
}

/// An algorithm that admits attempts and learns how they ended.
///
/// The [module documentation](crate::part) has an example, and the rules that a part keeps.
///
/// A part knows neither the request nor the service nor a future. [`PartFor`] reads the facts that the part needs from
/// a request.
///
/// A permit is plain data that is stored in the attempt and written there. Its default stands for no permit, and a
/// place in a queue is one of its states. [`settle`](Self::settle) ends a permit in any state and leaves the default;
/// to settle a default permit has no effect. A permit is settled when its attempt ends, is refused by an inner part, is
/// dropped, or panics, also during an admission or a settlement.
pub trait Part: Send + Sync + 'static {
    /// The facts that the part needs of a request: a cost, or `()`.
    type Ask: Copy + Default + Send + Sync + 'static;
    /// The state of one admitted or waiting attempt.
    type Permit: Default + Send + Sync + 'static;

    /// Returns whether the part needs [`Record::nanos`]. The clock is then read when the attempt is sent, and when it
    /// ends.
    #[inline]
    fn is_timed(&self) -> bool {
        false
    }

    /// Returns whether the readiness of the inner service may be polled before the call. Return `false` if the part
    /// would refuse the next call or make it wait.
    #[inline]
    fn is_open(&self) -> bool {
        true
    }

    /// Decides about an attempt, when a call is made or a further attempt begins. `permit` is a default permit.
    fn admit(&self, ask: Self::Ask, permit: &mut Self::Permit, at: &At) -> Admit;

    /// Returns whether the permit is a place in a queue: from [`Admit::Wait`] until [`poll_turn`](Self::poll_turn)
    /// returns [`Turn::Go`] or [`Turn::Refuse`].
    #[inline]
    fn is_waiting(&self, permit: &Self::Permit) -> bool {
        let _ = permit;
        false
    }

    /// Polls an attempt that waits, when its task is polled. `waker` is the waker of the task.
    ///
    /// The part has no timer: it returns the latest instant at which it must be polled again. During the wait, only the
    /// timer of a response timeout runs, so this instant must not be after
    /// [`Deadline::current`](crate::Deadline::current). By default an attempt does not wait.
    fn poll_turn(&self, ask: Self::Ask, permit: &mut Self::Permit, at: &At, waker: &Waker) -> Turn {
        let _ = (ask, permit, at, waker);
        Turn::Go
    }

    /// Notes that the head of an answer has arrived, while the body goes on. [`settle`](Self::settle) follows at its
    /// end. The default does nothing.
    #[inline]
    fn head(&self, permit: &mut Self::Permit, record: &Record<'_>) {
        let _ = (permit, record);
    }

    /// Ends the permit, and leaves the default. It is also called for a default permit.
    fn settle(&self, permit: &mut Self::Permit, record: &Record<'_>);

    /// Returns whether the part has gauges to be [published](Self::publish).
    #[inline]
    fn has_gauges(&self) -> bool {
        false
    }

    /// Publishes the gauges. It is called about every 100 ms, by a call that knows the time.
    fn publish(&self, at: &At) {
        let _ = at;
    }

    /// Returns whether a new part would act in the same way as this one at `now`. See [`Evictable`](crate::Evictable).
    /// `true` by default.
    fn is_evictable(&self, now: Instant) -> bool {
        let _ = now;
        true
    }
}

/// Reads the facts that a [`Part`] needs from a request, before the request moves.
pub trait PartFor<Req>: Part {
    /// Reads the request.
    fn ask(&self, request: &Req) -> Self::Ask;
}

/// A part of a whole operation. It may refuse the operation, and learns how it ended, but never makes it wait.
pub trait OperationPart: Part {
    /// Admits an operation that begins. `permit` is a default permit.
    ///
    /// # Errors
    ///
    /// If the part refuses the operation.
    fn begin(&self, permit: &mut Self::Permit, at: &At) -> Result<(), Error>;
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
    fn begin(&self, (): &mut (), _: &At) -> Result<(), Error> {
        Ok(())
    }
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
    fn begin(&self, permit: &mut P::Permit, at: &At) -> Result<(), Error> {
        match self {
            Some(part) => part.begin(permit, at),
            None => Ok(()),
        }
    }
}

impl<A: OperationPart, B: OperationPart> OperationPart for (A, B) {
    #[inline(always)]
    fn begin(&self, permit: &mut Self::Permit, at: &At) -> Result<(), Error> {
        self.0.begin(&mut permit.0, at)?;
        self.1.begin(&mut permit.1, at)
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
/// While the second part refuses or panics, the permit of the first part needs no guard: the owner of both permits
/// settles them.
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

    /// Polls the second part if it waits, else the first one: the second part waits only after the first one has
    /// admitted the attempt.
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
