//! The permits of a call, which are given back once, however the call ends.

use std::cell::Cell;
use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::part::{Admit, OperationPart, Part, PartFor, Turn};
use super::record::{At, EndedBy, Record, UNTIMED};
use crate::context::{self, GivenUp};
use crate::debug::debug_fields;
use crate::nanos::{nanos_between, saturating_add};
use crate::telemetry::{Published, Series};
use crate::timer::Timer;
use crate::{Deadline, Error, Outcome, Permit, Upload};

/// The state that all calls of one layer value share. It contains neither the service nor the classifier, so that a
/// response body can refer to it.
pub(crate) struct Core<O, A> {
    pub(crate) name: &'static str,
    pub(crate) origin: Instant,
    /// The parts of a whole operation.
    pub(crate) operation: O,
    /// The parts of each attempt.
    pub(crate) attempt: A,
    published: Published,
}

impl<O: Part, A: Part> Core<O, A> {
    pub(crate) fn new(name: &'static str, origin: Instant, operation: O, attempt: A) -> Arc<Self> {
        Arc::new(Self {
            name,
            origin,
            operation,
            attempt,
            published: Published::default(),
        })
    }

    /// Publishes the gauges of all parts when they are due, in every 31st call of a thread. It is called when an
    /// attempt is sent, because no call may end for a long time.
    #[inline(always)]
    fn publish_now_and_then(&self, at: &At) {
        /// Odd, so that each of two layers in one stack has its turn.
        const LOOK_EVERY: u32 = 31;
        thread_local! { static CALLS: Cell<u32> = const { Cell::new(0) } }
        if !self.attempt.has_gauges() {
            return;
        }
        let calls = CALLS.get();
        CALLS.set(if calls == LOOK_EVERY - 1 {
            0
        } else {
            calls + 1
        });
        if calls == 0 {
            self.publish_if_due(at);
        }
    }

    /// Publishes the gauges when they are due, in a call that knows the time.
    #[inline]
    fn publish_if_due(&self, at: &At) {
        if self.attempt.has_gauges() && self.published.is_due(at.nanos()) {
            self.publish(at);
        }
    }

    #[cold]
    #[inline(never)]
    fn publish(&self, at: &At) {
        self.attempt.publish(at);
    }

    #[inline]
    pub(super) fn at(&self) -> At {
        At::unread(self.origin)
    }

    #[inline]
    pub(super) fn at_instant(&self, now: Instant) -> At {
        At::read_as(self.origin, now)
    }

    /// Returns the instant that is `nanos` nanoseconds after the origin.
    #[cold]
    pub(super) fn instant(&self, nanos: u64) -> Instant {
        saturating_add(self.origin, Duration::from_nanos(nanos))
    }
}

/// A counted reference to a core. The reference of an operation also leads to the service for further attempts.
pub(crate) trait Owner {
    type O: Part;
    type A: Part;
    fn core(&self) -> &Arc<Core<Self::O, Self::A>>;
}

impl<O: Part, A: Part> Owner for Arc<Core<O, A>> {
    type O = O;
    type A = A;

    #[inline]
    fn core(&self) -> &Self {
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The attempt waits for a part, or has not begun.
    Before,
    /// The service has the request, or a part has refused it.
    Sent,
    /// All permits are settled.
    Over,
}

/// The permits of a call, as plain data.
pub(super) struct Permits<O: Part, A: Part> {
    attempt: A::Permit,
    operation: O::Permit,
    /// The wait of the attempt for a part. Boxed, because it is rare.
    wait: Option<Pin<Box<Wait<A::Ask>>>>,
    phase: Phase,
    /// Time at which the attempt was sent, in nanoseconds from the origin.
    pub(super) sent: u64,
}

pin_project! {
    struct Wait<Ask> {
        ask: Ask,
        is_direct: bool,
        #[pin]
        timer: Timer,
    }
}

impl<O: Part, A: Part> Permits<O, A> {
    #[inline(always)]
    fn nothing() -> Self {
        Self {
            attempt: Default::default(),
            operation: Default::default(),
            wait: None,
            phase: Phase::Before,
            sent: UNTIMED,
        }
    }

    #[inline(always)]
    pub(super) fn record<'a>(&self, outcome: Outcome, ended_by: EndedBy, at: &'a At) -> Record<'a> {
        Record::new(outcome, ended_by, at, self.sent)
    }

    /// Settles all permits at the end of the operation. If a part panics, the drop settles the rest; settled permits
    /// have their default by then.
    #[inline(always)]
    pub(super) fn settle(&mut self, core: &Core<O, A>, record: &Record<'_>) {
        core.attempt.settle(&mut self.attempt, record);
        core.operation.settle(&mut self.operation, record);
        self.phase = Phase::Over;
        if record.at.known_nanos().is_some() {
            core.publish_if_due(record.at);
        }
    }

    /// Takes the permit of the operation over from another attempt.
    pub(super) fn take_operation(&mut self, from: &mut Self) {
        self.operation = mem::take(&mut from.operation);
    }
}

/// Guard of the permits of a call, which settles them once, whatever happens.
pub(crate) struct Held<W: Owner> {
    pub(super) owner: W,
    pub(super) permits: Permits<W::O, W::A>,
}

impl<W: Owner> Held<W> {
    #[inline(always)]
    pub(super) fn new(owner: W) -> Self {
        Self {
            owner,
            permits: Permits::nothing(),
        }
    }

    #[inline(always)]
    pub(super) fn core(&self) -> &Core<W::O, W::A> {
        self.owner.core()
    }

    #[inline(always)]
    pub(super) fn is_sent(&self) -> bool {
        self.permits.phase == Phase::Sent
    }

    /// Admits the operation.
    #[inline(always)]
    pub(super) fn begin(&mut self, at: &At) -> Result<(), Error>
    where
        W::O: OperationPart,
    {
        let operation = &self.owner.core().operation;
        let begun = operation.begin(&mut self.permits.operation, at);
        if begun.is_err() {
            self.settle_refused(at);
        }
        begun
    }

    /// Admits an attempt. It may have to wait.
    #[inline(always)]
    pub(super) fn admit<Req>(&mut self, request: &Req, at: &At) -> Result<(), Error>
    where
        W::A: PartFor<Req>,
    {
        let (core, permits) = (self.owner.core(), &mut self.permits);
        let ask = core.attempt.ask(request);
        match core.attempt.admit(ask, &mut permits.attempt, at) {
            Admit::Go => {
                if core.attempt.is_timed() {
                    permits.sent = at.nanos();
                }
                permits.phase = Phase::Sent;
                core.publish_now_and_then(at);
                Ok(())
            }
            Admit::Wait => {
                self.begin_wait(ask);
                Ok(())
            }
            Admit::Refuse(error) => {
                self.settle_refused(at);
                Err(error)
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn begin_wait(&mut self, ask: <W::A as Part>::Ask) {
        self.permits.wait = Some(Box::pin(Wait {
            ask,
            is_direct: context::is_direct(),
            timer: Timer::default(),
        }));
    }

    /// Waits for the parts of the attempt.
    #[cold]
    #[inline(never)]
    pub(super) fn poll_wait(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        let (core, permits) = (self.owner.core(), &mut self.permits);
        while let Some(wait) = &mut permits.wait {
            // Read in each poll, because with a reading from before the timer the wait would never be over.
            let at = core.at();
            let wait = wait.as_mut().project();
            let turn = (core.attempt).poll_turn(*wait.ask, &mut permits.attempt, &at, cx.waker());
            match turn {
                Turn::Go => {
                    permits.wait = None;
                    permits.sent = at.nanos();
                    permits.phase = Phase::Sent;
                    core.publish_if_due(&at);
                    return Poll::Ready(Ok(()));
                }
                Turn::Until(until) => {
                    core.publish_if_due(&at);
                    ready!(wait.timer.poll_at(until, cx));
                }
                Turn::Refuse(mut error) => {
                    if *wait.is_direct {
                        error.set_direct();
                    }
                    self.settle_refused(&at);
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Pending
    }

    /// Ends an attempt that was refused before the service had it.
    #[cold]
    #[inline(never)]
    pub(super) fn settle_refused(&mut self, at: &At) {
        let (core, permits) = (self.owner.core(), &mut self.permits);
        permits.phase = Phase::Sent;
        permits.sent = UNTIMED;
        permits.wait = None;
        let record = permits.record(Outcome::Ignored, EndedBy::Refusal, at);
        core.attempt.settle(&mut permits.attempt, &record);
        core.publish_if_due(at);
    }

    /// Ends a call that was refused and whose parts are settled.
    pub(super) fn close(&mut self) {
        self.permits.phase = Phase::Over;
    }

    /// Makes room for a further attempt.
    pub(super) fn begin_again(&mut self) {
        self.permits.phase = Phase::Before;
        self.permits.sent = UNTIMED;
    }

    /// Subtracts the upload of the request from the time for which the service had the request, because a slow body of
    /// the caller does not mean that the service is slow. If an answer arrives before the end of the body, its time
    /// counts from the last part.
    #[cold]
    pub(super) fn leave_out(&mut self, upload: &Upload, is_answered: bool) {
        let since = if is_answered {
            upload.taken()
        } else {
            upload.waits_since(Instant::now)
        };
        if let Some(since) = since {
            let since = self.core().at_instant(since).nanos();
            self.permits.sent = since.max(self.permits.sent);
        }
    }

    /// Settles the permits of an attempt whose result the caller does not get. Other attempts may follow.
    #[cold]
    #[inline(never)]
    pub(super) fn settle_attempt(&mut self, outcome: Outcome, ended_by: EndedBy) {
        let (core, permits) = (self.owner.core(), &mut self.permits);
        let at = core.at();
        let record = permits.record(outcome, ended_by, &at);
        core.attempt.settle(&mut permits.attempt, &record);
    }

    /// Settles all permits.
    #[cold]
    #[inline(never)]
    fn settle(&mut self, outcome: Outcome, ended_by: EndedBy) {
        let core = self.owner.core();
        let at = core.at();
        let record = self.permits.record(outcome, ended_by, &at);
        self.permits.settle(core, &record);
    }

    /// Settles the remaining permits of a call that is being dropped.
    #[inline(always)]
    fn drop_rest(&mut self) {
        if self.permits.phase != Phase::Over {
            let ended_by = match context::given_up() {
                GivenUp::Lost => EndedBy::Hedge,
                GivenUp::Early | GivenUp::TimedOut(_) => EndedBy::Caller,
            };
            self.settle(Outcome::Cancelled, ended_by);
        }
    }

    /// Settles all permits as dropped, unless they are settled already.
    #[inline]
    pub(super) fn abandon(&mut self, ended_by: EndedBy) {
        if self.permits.phase != Phase::Over {
            self.settle(Outcome::Cancelled, ended_by);
        }
    }

    /// Moves the permits of the attempt into a guard of their own.
    #[cold]
    pub(super) fn detach_attempt(&mut self) -> Held<Arc<Core<W::O, W::A>>> {
        let rest = Permits {
            operation: mem::take(&mut self.permits.operation),
            sent: self.permits.sent,
            ..Permits::nothing()
        };
        Held {
            owner: Arc::clone(self.owner.core()),
            permits: mem::replace(&mut self.permits, rest),
        }
    }
}

impl<W: Owner> Drop for Held<W> {
    #[inline]
    fn drop(&mut self) {
        // Twice, because a part may panic.
        finally(self, Self::drop_rest, Self::drop_rest);
    }
}

/// Runs `first` and `then`; `then` also after a panic in `first`.
#[inline(always)]
pub(super) fn finally<T>(state: &mut T, first: impl FnOnce(&mut T), then: fn(&mut T)) {
    struct Then<'a, T>(&'a mut T, fn(&mut T));

    impl<T> Drop for Then<'_, T> {
        #[inline(always)]
        fn drop(&mut self) {
            (self.1)(self.0);
        }
    }

    first(Then(state, then).0);
}

debug_fields!([W: Owner] Held<W> { core().name, permits.phase });

/// The permits of a call whose answer is still being read. They are stored in the response; see
/// [`TrackCompletion`](crate::TrackCompletion).
#[must_use = "a permit that is dropped counts as cancelled"]
pub struct InFlight<O: Part, A: Part> {
    held: Held<Arc<Core<O, A>>>,
    /// The cause that ended the wait for the head.
    ended_by: EndedBy,
    /// The deadline of the whole answer, in nanoseconds from the origin; or [`UNTIMED`]. It is one word, because the
    /// permits are moved often.
    deadline: u64,
}

impl<O: Part, A: Part> InFlight<O, A> {
    /// Takes all permits over.
    #[cold]
    #[inline(never)]
    pub(super) fn take(
        core: &Arc<Core<O, A>>,
        permits: &mut Permits<O, A>,
        ended_by: EndedBy,
        deadline: Option<Instant>,
    ) -> Self {
        let nothing = Permits {
            phase: Phase::Over,
            ..Permits::nothing()
        };
        let held = Held {
            owner: Arc::clone(core),
            permits: mem::replace(permits, nothing),
        };
        Self {
            held,
            ended_by,
            deadline: deadline.map_or(UNTIMED, |deadline| nanos_between(core.origin, deadline)),
        }
    }
}

impl<O: Part, A: Part> Permit for InFlight<O, A> {
    fn resolve(mut self, outcome: Outcome) {
        self.held.settle(outcome, EndedBy::Service);
    }

    fn head(&mut self, outcome: Outcome) {
        let Held { owner, permits } = &mut self.held;
        let at = owner.at();
        let record = permits.record(outcome, self.ended_by, &at);
        owner.attempt.head(&mut permits.attempt, &record);
        owner.operation.head(&mut permits.operation, &record);
    }

    fn time_out(mut self, outcome: Outcome) {
        self.held.settle(outcome, EndedBy::Timeout);
    }

    fn exceed_deadline(mut self, outcome: Outcome) {
        self.held.settle(outcome, EndedBy::DeadlineAnswer);
    }

    fn deadline(&self) -> Option<Deadline> {
        let instant = |nanos| Deadline::at(self.held.core().instant(nanos));
        (self.deadline != UNTIMED).then(|| instant(self.deadline))
    }

    fn expire(mut self) -> Error {
        self.held.settle(Outcome::Cancelled, EndedBy::Deadline);
        let name = self.held.core().name;
        Series::of_time(name, "deadline", Duration::MAX)
            .timed_out(crate::Mode::Enforce, Instant::now());
        Error::late(name)
    }
}

impl<O: Part, A: Part> fmt::Debug for InFlight<O, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InFlight").field(&self.held).finish()
    }
}
