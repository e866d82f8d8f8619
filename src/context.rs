//! The context of a call that its task carries: deadline, attempt, and the endpoints that were tried.
//!
//! A layer scopes its context around both the inner `call` and every `poll` of the inner future. A scope costs two
//! moves of a few words in a thread-local; nothing is allocated.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// The reason for which a call is given up, for code that runs in its drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GivenUp {
    /// Its caller dropped it, or its deadline has passed.
    Early,
    /// This timeout of an outer layer is over.
    TimedOut(Duration),
    /// Another attempt was faster.
    Lost,
}

impl GivenUp {
    /// Returns the reason for a call whose time is over: this timeout, or else its deadline.
    pub(crate) fn over(timeout: Option<Duration>) -> Self {
        timeout.map_or(Self::Early, Self::TimedOut)
    }
}

/// The context of the call that is being made or polled on this thread.
struct Context {
    deadline: Cell<Option<Instant>>,
    attempt: Cell<Stage>,
    /// The budget that pays for this attempt: its address, or 0.
    budget: Cell<usize>,
    /// The endpoints to which the attempts of the operation were sent, if there may be several attempts.
    tried: Cell<Option<Tried>>,
    given_up: Cell<GivenUp>,
    /// `true` while a layer that decides on the result of its call makes this call. See [`DirectCall`].
    is_direct: Cell<bool>,
}

/// The attempt that is being made, and whether it asks for a stream. They are together, so that both are moved as one
/// word.
#[derive(Clone, Copy, Debug, Default)]
struct Stage {
    attempt: u32,
    is_stream: bool,
}

thread_local! {
    static CONTEXT: Context = const {
        Context {
            deadline: Cell::new(None),
            attempt: Cell::new(Stage {
                attempt: 0,
                is_stream: false,
            }),
            budget: Cell::new(0),
            tried: Cell::new(None),
            given_up: Cell::new(GivenUp::Early),
            is_direct: Cell::new(false),
        }
    };
}

/// Drops a call by `drop`, for this reason.
pub(crate) fn give_up(reason: GivenUp, drop: impl FnOnce()) {
    /// Restores the former reason, also after a panic.
    struct Restore(GivenUp);

    impl Drop for Restore {
        fn drop(&mut self) {
            CONTEXT.with(|context| context.given_up.set(self.0));
        }
    }

    let _restore = CONTEXT.with(|context| Restore(context.given_up.replace(reason)));
    drop();
}

/// Returns the reason for which a call is being dropped.
pub(crate) fn given_up() -> GivenUp {
    CONTEXT.with(|context| context.given_up.get())
}

/// Returns the time at which the whole operation must be over.
#[inline]
pub(crate) fn deadline() -> Option<Instant> {
    CONTEXT.with(|context| context.deadline.get())
}

/// Returns the number of the present attempt of a retry, from 1; 0 outside any retry.
#[inline]
pub(crate) fn attempt() -> u32 {
    CONTEXT.with(|context| context.attempt.get().attempt)
}

/// Returns whether the call was declared a stream to the stack around it. `false` without a stack.
#[cfg(any(test, feature = "http"))]
#[inline]
pub(crate) fn is_stream() -> bool {
    CONTEXT.with(|context| context.attempt.get().is_stream)
}

/// Returns the budget that pays for the attempt: its address, or 0.
#[inline]
pub(crate) fn budget() -> usize {
    CONTEXT.with(|context| context.budget.get())
}

/// Guard that sets the deadline of calls and polls until it is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct DeadlineScope {
    outer: Option<Instant>,
}

impl DeadlineScope {
    #[inline]
    pub(crate) fn enter(deadline: Instant) -> Self {
        let outer = CONTEXT.with(|context| context.deadline.replace(Some(deadline)));
        Self { outer }
    }
}

impl Drop for DeadlineScope {
    #[inline]
    fn drop(&mut self) {
        CONTEXT.with(|context| context.deadline.set(self.outer));
    }
}

/// The numbers of the endpoints to which the last two attempts of an operation were sent; 0 for none. The first number
/// includes the bits [`OTHERS`](Self::OTHERS) and [`LAST`](Self::LAST), so that they do not enlarge the future of an
/// operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tried([u32; 2]);

impl Tried {
    /// The last attempt ended in the overload of an endpoint, and its balancer has other endpoints that take calls.
    const OTHERS: u32 = 1 << 31;
    /// No further attempt follows this one.
    const LAST: u32 = 1 << 30;

    fn numbers(self) -> [u32; 2] {
        [self.0[0] & !(Self::OTHERS | Self::LAST), self.0[1]]
    }

    fn has(self, flag: u32) -> bool {
        self.0[0] & flag != 0
    }

    fn with(self, flag: u32, is_set: bool) -> Self {
        let others = self.0[0] & !flag;
        Self([others | if is_set { flag } else { 0 }, self.0[1]])
    }

    #[inline]
    pub(crate) fn contains(self, endpoint: u32) -> bool {
        self.numbers().contains(&endpoint)
    }

    /// Returns whether the overload that ended the last attempt concerns one endpoint of several.
    #[inline]
    pub(crate) fn has_others(self) -> bool {
        self.has(Self::OTHERS)
    }

    /// Returns whether no further attempt follows this one, which is not the first.
    #[inline]
    pub(crate) fn is_last_attempt(self) -> bool {
        self.has(Self::LAST)
    }

    /// Returns the last endpoint alone: if there are two and both were tried, the next attempt goes to the other one.
    #[inline]
    pub(crate) fn last(self) -> Self {
        Self([self.0[0], 0])
    }
}

/// Returns the endpoints to which other attempts of this operation were sent. Inside another operation, returns the
/// endpoints of the outer operation.
#[inline]
pub(crate) fn tried() -> Tried {
    CONTEXT.with(|context| context.tried.get().unwrap_or_default())
}

/// Notes that an attempt is sent to `endpoint`, if the operation may make several.
#[inline]
pub(crate) fn note_tried(endpoint: u32) {
    CONTEXT.with(|context| {
        if let Some(tried) = context.tried.get() {
            let [last, _] = tried.numbers();
            let is_last = tried.is_last_attempt();
            let tried = Tried([endpoint, last]).with(Tried::LAST, is_last);
            context.tried.set(Some(tried));
        }
    });
}

/// Notes that an attempt has ended in the overload of an endpoint, and whether other endpoints take calls.
#[cold]
pub(crate) fn note_overload(has_others: bool) {
    CONTEXT.with(|context| {
        if let Some(tried) = context.tried.get() {
            let tried = tried.with(Tried::OTHERS, has_others);
            context.tried.set(Some(tried));
        }
    });
}

/// Guard that sets the context of the attempts of an operation until it is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct OperationScope {
    /// The former values.
    deadline: Option<Instant>,
    attempt: Stage,
    budget: usize,
    tried: Option<Tried>,
}

impl OperationScope {
    /// Sets the deadline; the number of the attempt and the budget that pays for it; the endpoints that were tried; and
    /// whether the call is a stream, if the operation knows. Inside another operation that makes several attempts, both
    /// share the endpoints of the outer operation, so that no two attempts go to the same endpoint.
    #[inline(always)]
    pub(crate) fn enter(
        deadline: Option<Instant>,
        attempt: Option<(u32, usize)>,
        tried: Tried,
        is_stream: Option<bool>,
    ) -> Self {
        CONTEXT.with(|context| {
            let outer = Self {
                deadline: context.deadline.get(),
                attempt: context.attempt.get(),
                budget: context.budget.get(),
                tried: context.tried.get(),
            };
            if deadline.is_some() {
                context.deadline.set(deadline);
            }
            let mut stage = outer.attempt;
            if let Some((attempt, budget)) = attempt {
                stage.attempt = attempt;
                context.budget.set(budget);
            }
            if let Some(is_stream) = is_stream {
                stage.is_stream = is_stream;
            }
            context.attempt.set(stage);
            if outer.tried.is_none() {
                context.tried.set(Some(tried));
            }
            outer
        })
    }

    /// Returns the endpoints that were tried, to be kept until the next scope.
    #[inline(always)]
    pub(crate) fn tried(&self) -> Tried {
        match self.tried {
            Some(_) => Tried::default(),
            None => tried(),
        }
    }
}

impl Drop for OperationScope {
    #[inline(always)]
    fn drop(&mut self) {
        CONTEXT.with(|context| {
            context.deadline.set(self.deadline);
            context.attempt.set(self.attempt);
            context.budget.set(self.budget);
            // Inside another operation, the list of that operation has grown, but the last attempt of this one is not
            // its last.
            let is_last = self.tried.is_some_and(Tried::is_last_attempt);
            let tried = self.tried.and_then(|_| context.tried.get());
            context
                .tried
                .set(tried.map(|tried| tried.with(Tried::LAST, is_last)));
        });
    }
}

/// Guard that marks the call that is made before its drop as a direct one.
///
/// A layer that decides on the result of its inner service (an operation, a balancer, a fallback, a layer that
/// responds) makes direct calls. A call is also direct if a service in between passes it on at once. It is not direct
/// if that service waited first, because the service may have done something else for the request by then: a function
/// may charge a card and then send a mail. Only the end of a direct call can prove to the layer that its request was
/// not sent.
#[derive(Debug)]
#[must_use]
pub(crate) struct DirectCall(());

impl DirectCall {
    #[inline(always)]
    pub(crate) fn enter() -> Self {
        CONTEXT.with(|context| context.is_direct.set(true));
        Self(())
    }
}

impl Drop for DirectCall {
    #[inline(always)]
    fn drop(&mut self) {
        CONTEXT.with(|context| context.is_direct.set(false));
    }
}

/// Returns whether the present call is a direct one.
#[inline]
pub(crate) fn is_direct() -> bool {
    CONTEXT.with(|context| context.is_direct.get())
}

/// Returns whether the present call is a direct one, and clears the mark: a second call by the same service is not
/// direct.
#[inline(always)]
pub(crate) fn take_direct() -> bool {
    CONTEXT.with(|context| context.is_direct.replace(false))
}

/// Makes a call that had to wait, as a direct one if it was begun as one.
#[inline]
pub(crate) fn as_direct<T>(is_direct: bool, call: impl FnOnce() -> T) -> T {
    let _direct = if is_direct {
        Some(DirectCall::enter())
    } else {
        take_direct();
        None
    };
    call()
}

/// Sets the number of the next attempt of the operation whose scope this is, and whether it is the last one.
pub(crate) fn set_attempt(attempt: u32, is_last: bool) {
    CONTEXT.with(|context| {
        let stage = context.attempt.get();
        context.attempt.set(Stage { attempt, ..stage });
        let tried = context.tried.get();
        let tried = tried.map(|tried| tried.with(Tried::LAST, is_last));
        context.tried.set(tried);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_keeps_the_last_two_endpoints_that_it_tried() {
        let mut kept = Tried::default();
        note_tried(1);
        assert_eq!(tried(), Tried::default(), "no operation, no list");
        for endpoint in 2..5 {
            let scope = OperationScope::enter(None, None, kept, None);
            note_tried(endpoint);
            kept = scope.tried();
        }
        assert_eq!(kept, Tried([4, 3]));
        assert_eq!(tried(), Tried::default(), "not after the poll");
    }

    #[test]
    fn an_operation_inside_another_one_shares_its_list() {
        let outer = OperationScope::enter(None, None, Tried([7, 0]), None);
        let inner = OperationScope::enter(None, None, Tried::default(), None);
        assert!(tried().contains(7));
        note_tried(8);
        let inner_kept = inner.tried();
        drop(inner);
        assert_eq!(
            (outer.tried(), inner_kept),
            (Tried([8, 7]), Tried::default())
        );
    }

    #[test]
    fn the_last_attempt_of_an_inner_operation_is_not_that_of_the_outer_one() {
        for is_last in [false, true] {
            let _outer = OperationScope::enter(None, None, Tried::default(), None);
            set_attempt(1, is_last);
            let inner = OperationScope::enter(None, None, Tried::default(), None);
            set_attempt(2, !is_last);
            drop(inner);
            assert_eq!(tried().is_last_attempt(), is_last);
        }
    }

    #[test]
    fn a_panic_restores_the_outer_context() {
        let outer = std::panic::catch_unwind(|| {
            let _scope = OperationScope::enter(None, Some((3, 7)), Tried::default(), Some(true));
            panic!("inside");
        });
        assert!(outer.is_err());
        assert_eq!((attempt(), budget(), is_stream()), (0, 0, false));
    }
}
