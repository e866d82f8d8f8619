//! What travels with the task that makes a call: deadline, attempt, and the clock of this poll.
//!
//! A layer scopes its context around both the inner `call` and every `poll` of the inner future.
//! Entering costs two moves of a few words in a thread-local; nothing is allocated.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// The context of the call that is being made or polled on this thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    /// When the whole operation must be over.
    pub(crate) deadline: Option<Instant>,
    /// Which attempt of a retry this is, from 1; 0 outside any retry.
    pub(crate) attempt: u32,
    clock: Clock,
}

/// The reading of the clock that layers share during one poll.
#[derive(Clone, Copy, Debug)]
enum Clock {
    /// No layer has opened a scope: every reading is a fresh one.
    Unscoped,
    Unread,
    Read(Instant),
}

thread_local! {
    static CONTEXT: Cell<Context> = const {
        Cell::new(Context { deadline: None, attempt: 0, clock: Clock::Unscoped })
    };
}

impl Context {
    pub(crate) fn current() -> Self {
        CONTEXT.get()
    }

    /// Replaces the deadline.
    pub(crate) fn with_deadline(self, deadline: Instant) -> Self {
        Self {
            deadline: Some(deadline),
            ..self
        }
    }

    /// Replaces the number of the attempt.
    pub(crate) fn with_attempt(self, attempt: u32) -> Self {
        Self { attempt, ..self }
    }

    /// Makes this the context of the thread until the guard is dropped.
    ///
    /// Opens a scope for the shared reading of the clock, unless one is open already.
    pub(crate) fn enter(mut self) -> Scope {
        let outer = CONTEXT.get();
        self.clock = match outer.clock {
            Clock::Unscoped => Clock::Unread,
            clock => clock,
        };
        CONTEXT.set(self);
        Scope { outer }
    }

    /// Like [`enter`](Self::enter), around a future of the user, which may take its time within one
    /// poll: nothing in there shares a reading of the clock.
    pub(crate) fn enter_unclocked(mut self) -> Scope {
        let outer = CONTEXT.get();
        self.clock = Clock::Unscoped;
        CONTEXT.set(self);
        Scope { outer }
    }
}

/// Gives the thread its former context back when dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Scope {
    outer: Context,
}

impl Drop for Scope {
    fn drop(&mut self) {
        let mut outer = self.outer;
        // A reading taken inside is as good for the layer outside: it is the same poll.
        if let (Clock::Unread | Clock::Read(_), read @ Clock::Read(_)) =
            (outer.clock, CONTEXT.get().clock)
        {
            outer.clock = read;
        }
        CONTEXT.set(outer);
    }
}

/// Changes the deadline of the scope that was entered last.
pub(crate) fn set_deadline(deadline: Instant) {
    CONTEXT.set(CONTEXT.get().with_deadline(deadline));
}

/// The time, read at most once for all layers during one poll.
///
/// Good for windows, limits and deadlines. Never measure a duration with it: time may have passed
/// since. Take [`fresh_now`] for that.
pub(crate) fn now() -> Instant {
    let context = CONTEXT.get();
    match context.clock {
        Clock::Read(now) => now,
        Clock::Unread => fresh_now(),
        Clock::Unscoped => Instant::now(),
    }
}

/// The time, really read, and remembered for the layers that ask [`now`] later in this poll.
pub(crate) fn fresh_now() -> Instant {
    let now = Instant::now();
    let context = CONTEXT.get();
    if !matches!(context.clock, Clock::Unscoped) {
        CONTEXT.set(Context {
            clock: Clock::Read(now),
            ..context
        });
    }
    now
}

/// `instant + duration`, or a time too far away to matter.
pub(crate) fn saturating_add(instant: Instant, duration: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    instant.checked_add(duration).unwrap_or(instant + FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_reading_serves_all_layers_of_a_poll() {
        let outside = now();
        let scope = Context::current().enter();
        let first = now();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(now(), first, "read once");
        {
            let _inner = Context::current().with_attempt(2).enter();
            assert_eq!(now(), first, "also further in");
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

    #[test]
    fn a_panic_restores_the_outer_context() {
        let outer = std::panic::catch_unwind(|| {
            let _scope = Context::current().with_attempt(3).enter();
            panic!("inside");
        });
        assert!(outer.is_err());
        assert_eq!(Context::current().attempt, 0);
    }

    #[test]
    fn adding_the_longest_duration_does_not_overflow() {
        let now = Instant::now();
        assert!(saturating_add(now, Duration::MAX) > now + Duration::from_secs(1_000_000));
    }
}
