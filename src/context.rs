//! What travels with the task that makes a call: deadline, attempt, the endpoints that were tried, and the
//! clock of this poll.
//!
//! A layer scopes its context around both the inner `call` and every `poll` of the inner future.
//! Entering costs two moves of a few words in a thread-local; nothing is allocated.

use std::cell::Cell;

use tokio::time::Instant;

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
    /// Whether a service that is called now is called by a layer that judges how the call ends. See [`DirectCall`].
    is_direct: Cell<bool>,
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
            is_direct: Cell::new(false),
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

/// Sets what the attempts of an operation carry with them, until it is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct OperationScope {
    /// The values that were there before.
    deadline: Option<Instant>,
    attempt: u32,
    budget: usize,
    tried: Option<Tried>,
}

impl OperationScope {
    /// Sets the deadline; the number of the attempt, and the budget it is paid from; and the endpoints that were tried. Inside
    /// another operation that makes several attempts, the list of endpoints is that of the outer one, so that no attempt of
    /// either goes where another one went.
    #[inline(always)]
    pub(crate) fn enter(
        deadline: Option<Instant>,
        attempt: Option<(u32, usize)>,
        tried: Tried,
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
            if let Some((attempt, budget)) = attempt {
                context.attempt.set(attempt);
                context.budget.set(budget);
            }
            if outer.tried.is_none() {
                context.tried.set(Some(tried));
            }
            outer
        })
    }

    /// The endpoints that were tried, to be kept until the next scope.
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
            // Inside another operation, its list has grown.
            if self.tried.is_none() {
                context.tried.set(None);
            }
        });
    }
}

/// Marks the call that is made before this is dropped as a direct one.
///
/// A layer that decides on the result of its inner service (an operation, a balancer, a fallback, a layer that responds)
/// makes direct calls. A call is direct as well if a service between the two passes it on at once. It is not if that
/// service waited first: by then it may have done something else for the request, as a function does that charges a
/// card and then sends a mail. Only what ended a direct call can prove to the layer that its request was not sent.
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

/// Returns whether the present call is a direct one. A second call by the same service is none.
#[inline(always)]
pub(crate) fn take_direct() -> bool {
    CONTEXT.with(|context| context.is_direct.replace(false))
}

/// Makes a call that was begun as a direct one, or not, and had to wait.
#[inline]
pub(crate) fn as_direct<T>(is_direct: bool, call: impl FnOnce() -> T) -> T {
    let _direct = is_direct.then(DirectCall::enter);
    call()
}

/// Sets the number of the next attempt of the operation whose scope this is.
pub(crate) fn set_attempt(attempt: u32) {
    CONTEXT.with(|context| context.attempt.set(attempt));
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
            let scope = OperationScope::enter(None, None, kept);
            note_tried(endpoint);
            kept = scope.tried();
        }
        assert_eq!(kept, Tried([4, 3]));
        assert_eq!(tried(), Tried::default(), "not after the poll");
    }

    #[test]
    fn an_operation_inside_another_one_shares_its_list() {
        let outer = OperationScope::enter(None, None, Tried([7, 0]));
        let inner = OperationScope::enter(None, None, Tried::default());
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
    fn a_panic_restores_the_outer_context() {
        let outer = std::panic::catch_unwind(|| {
            let scope = OperationScope::enter(None, Some((3, 7)), Tried::default());
            let _scopes = (ClockScope::poll(), scope);
            panic!("inside");
        });
        assert!(outer.is_err());
        assert_eq!((attempt(), budget()), (0, 0));
    }
}
