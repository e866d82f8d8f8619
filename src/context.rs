//! What travels with the task that makes a call: deadline, attempt, the endpoints that were tried, and the
//! clock of this poll.
//!
//! A layer scopes its context around both the inner `call` and every `poll` of the inner future.
//! Entering costs two moves of a few words in a thread-local; nothing is allocated.

use std::cell::Cell;

use tokio::time::Instant;

pub(crate) use crate::nanos::{nanos_between, saturating_add, whole_nanos};

/// The reading of the clock that layers share during one poll.
#[derive(Clone, Copy, Debug)]
enum Clock {
    /// No layer has opened a scope: every reading is a fresh one.
    Unscoped,
    Unread,
    Read(Instant),
}

/// The context of the call that is being made or polled on this thread.
struct Context {
    deadline: Cell<Option<Instant>>,
    attempt: Cell<u32>,
    /// The budget that this attempt is paid from: its address, or 0.
    budget: Cell<usize>,
    /// The endpoints that the attempts of the operation were sent to, if there may be several.
    tried: Cell<Option<Tried>>,
    clock: Cell<Clock>,
    /// Whether a layer is calling its inner service, and not polling it.
    in_call: Cell<bool>,
    /// Whether what is polled waits in a queue of this crate.
    queued: Cell<bool>,
}

thread_local! {
    static CONTEXT: Context = const {
        Context {
            deadline: Cell::new(None),
            attempt: Cell::new(0),
            budget: Cell::new(0),
            tried: Cell::new(None),
            clock: Cell::new(Clock::Unscoped),
            in_call: Cell::new(false),
            queued: Cell::new(false),
        }
    };
}

/// When the whole operation must be over.
#[inline]
pub(crate) fn deadline() -> Option<Instant> {
    CONTEXT.with(|context| context.deadline.get())
}

/// Which attempt of a retry this is, from 1; 0 outside any retry.
#[inline]
pub(crate) fn attempt() -> u32 {
    CONTEXT.with(|context| context.attempt.get())
}

/// The budget that the attempt is paid from: its address, or 0.
#[inline]
pub(crate) fn budget() -> usize {
    CONTEXT.with(|context| context.budget.get())
}

/// Notes that the call which is being polled waits in a queue of this crate, and has not been sent.
pub(crate) fn note_queued() {
    CONTEXT.with(|context| context.queued.set(true));
}

/// Takes back [`note_queued`], where a copy of the call need not wait in the same queue.
pub(crate) fn forget_queued() {
    CONTEXT.with(|context| context.queued.set(false));
}

/// Runs `poll`, and says whether what it polls waits in a queue of this crate.
#[inline]
pub(crate) fn is_queued_after<T>(poll: impl FnOnce() -> T) -> (T, bool) {
    CONTEXT.with(|context| {
        context.queued.set(false);
        let polled = poll();
        (polled, context.queued.get())
    })
}

/// Lets the inner layers share one reading of the clock, until the guard is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct ClockScope {
    is_outermost: bool,
    was_in_call: bool,
}

impl ClockScope {
    /// Round a call of the inner service.
    ///
    /// The layers of one stack are called one by the other, and share a reading. A call that is made
    /// while something is polled begins a new stack: time may have passed since the poll began.
    #[inline]
    pub(crate) fn call() -> Self {
        Self::enter(true)
    }

    /// Round a poll of the inner future.
    #[inline]
    pub(crate) fn poll() -> Self {
        Self::enter(false)
    }

    #[inline]
    fn enter(in_call: bool) -> Self {
        CONTEXT.with(|context| {
            let is_outermost = matches!(context.clock.get(), Clock::Unscoped);
            let was_in_call = context.in_call.replace(in_call);
            if is_outermost || in_call && !was_in_call {
                context.clock.set(Clock::Unread);
            }
            Self {
                is_outermost,
                was_in_call,
            }
        })
    }
}

impl Drop for ClockScope {
    #[inline]
    fn drop(&mut self) {
        CONTEXT.with(|context| {
            context.in_call.set(self.was_in_call);
            if self.is_outermost {
                context.clock.set(Clock::Unscoped);
            }
        });
    }
}

/// Sets the deadline of what is called or polled, until the guard is dropped.
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

/// Sets the number of the attempt that is called or polled, and the budget it is paid from, until the guard is
/// dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct AttemptScope {
    outer: u32,
    outer_budget: usize,
}

impl AttemptScope {
    #[inline]
    pub(crate) fn enter(attempt: u32, budget: usize) -> Self {
        CONTEXT.with(|context| Self {
            outer: context.attempt.replace(attempt),
            outer_budget: context.budget.replace(budget),
        })
    }
}

impl Drop for AttemptScope {
    #[inline]
    fn drop(&mut self) {
        CONTEXT.with(|context| {
            context.attempt.set(self.outer);
            context.budget.set(self.outer_budget);
        });
    }
}

/// The endpoints that the last two attempts of an operation were sent to, by number; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tried([u32; 2]);

impl Tried {
    #[inline]
    pub(crate) fn contains(self, endpoint: u32) -> bool {
        self.0.contains(&endpoint)
    }

    /// The last one alone: where there are two and both were tried, the next attempt is for the other one.
    #[inline]
    pub(crate) fn last(self) -> Self {
        Self([self.0[0], 0])
    }
}

/// The endpoints that other attempts of this operation were sent to. Inside another operation, those of that one.
#[inline]
pub(crate) fn tried() -> Tried {
    CONTEXT.with(|context| context.tried.get().unwrap_or_default())
}

/// Notes that an attempt is sent to `endpoint`, if the operation may make several.
#[inline]
pub(crate) fn note_tried(endpoint: u32) {
    CONTEXT.with(|context| {
        if let Some(Tried([last, _])) = context.tried.get() {
            context.tried.set(Some(Tried([endpoint, last])));
        }
    });
}

/// Carries the endpoints that the attempts of an operation were sent to, until it is dropped.
///
/// A layer that makes several attempts keeps the list between polls. Where one is inside another, the list is
/// that of the outer one, so that no attempt of either goes where another one went.
#[derive(Debug)]
#[must_use]
pub(crate) struct TriedScope<'a> {
    /// `None` within another operation.
    kept: Option<&'a mut Tried>,
}

impl<'a> TriedScope<'a> {
    #[inline]
    pub(crate) fn enter(kept: &'a mut Tried) -> Self {
        CONTEXT.with(|context| {
            if context.tried.get().is_some() {
                return Self { kept: None };
            }
            context.tried.set(Some(*kept));
            Self { kept: Some(kept) }
        })
    }
}

impl Drop for TriedScope<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(kept) = &mut self.kept {
            **kept = CONTEXT
                .with(|context| context.tried.take())
                .unwrap_or_default();
        }
    }
}

/// Runs `poll` without a shared reading of the clock: for code of the user, which may take its time
/// within one poll.
pub(crate) fn unclocked<T>(poll: impl FnOnce() -> T) -> T {
    /// Gives the reading back, also after a panic.
    struct Restore(Clock, bool);

    impl Drop for Restore {
        fn drop(&mut self) {
            CONTEXT.with(|context| {
                context.clock.set(self.0);
                context.in_call.set(self.1);
            });
        }
    }

    let _restore = CONTEXT.with(|context| {
        let clock = context.clock.replace(Clock::Unscoped);
        Restore(clock, context.in_call.replace(false))
    });
    poll()
}

/// The time, read at most once for all layers during one poll.
///
/// Good for windows, limits and deadlines, and for the beginning of a duration in a [`ClockScope::call`].
/// Never for the end of one: time may have passed since. Take [`fresh_now`] for that.
#[inline]
pub(crate) fn now() -> Instant {
    match CONTEXT.with(|context| context.clock.get()) {
        Clock::Read(now) => now,
        Clock::Unread | Clock::Unscoped => fresh_now(),
    }
}

/// The time, really read, and remembered for the layers that ask [`now`] later in this poll.
#[inline]
pub(crate) fn fresh_now() -> Instant {
    let now = Instant::now();
    CONTEXT.with(|context| {
        if !matches!(context.clock.get(), Clock::Unscoped) {
            context.clock.set(Clock::Read(now));
        }
    });
    now
}

/// The time, if it has been read during this poll: for what is worth knowing it, but not reading the clock.
#[inline]
pub(crate) fn known_now() -> Option<Instant> {
    match CONTEXT.with(|context| context.clock.get()) {
        Clock::Read(now) => Some(now),
        Clock::Unread | Clock::Unscoped => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn one_reading_serves_all_layers_of_a_poll() {
        let outside = now();
        let scope = ClockScope::poll();
        let first = now();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(now(), first, "read once");
        {
            let _inner = ClockScope::poll();
            assert_eq!(now(), first, "also inner");
            assert_eq!(fresh_now(), first + Duration::from_secs(1));
        }
        assert_eq!(
            now(),
            first + Duration::from_secs(1),
            "a fresh reading replaces it"
        );
        drop(scope);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(
            now(),
            outside + Duration::from_secs(2),
            "not after the poll"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_made_while_polling_begins_with_a_reading_of_its_own() {
        let _poll = ClockScope::poll();
        let before = now();
        tokio::time::advance(Duration::from_secs(1)).await;
        let _outer = ClockScope::call();
        let began = now();
        assert_eq!(began, before + Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        let _inner = ClockScope::call();
        assert_eq!(now(), began, "one stack, one reading");
    }

    #[tokio::test(start_paused = true)]
    async fn code_of_the_user_always_reads_the_clock() {
        let _poll = ClockScope::poll();
        let before = now();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(unclocked(now), before + Duration::from_secs(1));
        assert_eq!(now(), before, "the layers outside have theirs back");
    }

    #[test]
    fn an_operation_keeps_the_last_two_endpoints_that_it_tried() {
        let mut kept = Tried::default();
        note_tried(1);
        assert_eq!(tried(), Tried::default(), "no operation, no list");
        for endpoint in 2..5 {
            let _scope = TriedScope::enter(&mut kept);
            note_tried(endpoint);
        }
        assert_eq!(kept, Tried([4, 3]));
        assert_eq!(tried(), Tried::default(), "not after the poll");
    }

    #[test]
    fn an_operation_inside_another_one_shares_its_list() {
        let (mut outer, mut inner) = (Tried([7, 0]), Tried::default());
        {
            let _outer = TriedScope::enter(&mut outer);
            let _inner = TriedScope::enter(&mut inner);
            assert!(tried().contains(7));
            note_tried(8);
        }
        assert_eq!((outer, inner), (Tried([8, 7]), Tried::default()));
    }

    #[test]
    fn a_panic_restores_the_outer_context() {
        let outer = std::panic::catch_unwind(|| {
            let _scopes = (ClockScope::poll(), AttemptScope::enter(3, 7));
            panic!("inside");
        });
        assert!(outer.is_err());
        assert_eq!((attempt(), budget()), (0, 0));
    }
}
