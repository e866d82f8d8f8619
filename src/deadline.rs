//! The deadline of a whole operation and the number of its attempt, both carried by the task.

use std::pin::Pin;
use std::task::{self, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::context;
use crate::debug::debug_fields;

/// Time at which the operation that this task works on must be over.
///
/// A [`DeadlineLayer`](crate::DeadlineLayer) sets the deadline around its inner service, and it bounds every wait in
/// this crate's layers. If a request arrived with a deadline, set it with [`scope`](Self::scope) around the calls that
/// you make for the request. Of several deadlines the soonest counts.
///
/// The task carries the deadline, and layers read it while a call is made or polled. A task of `tokio::spawn` does not
/// inherit it; pass it on:
///
/// ```
/// use std::time::Duration;
/// use buttress::Deadline;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let work = async { Deadline::current().map(|deadline| deadline.remaining()) };
/// Deadline::after(Duration::from_secs(2)).scope(async {
///     let deadline = Deadline::current().expect("set by the scope");
///     let left = tokio::spawn(deadline.scope(work)).await.expect("does not panic");
///     assert_eq!(left, Some(Duration::from_secs(2)));
/// }).await;
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Instant);

impl Deadline {
    /// Makes a deadline at this instant.
    #[must_use]
    pub fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// Makes a deadline this long from now. `Duration::MAX` is far away and does not overflow.
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        Self(crate::nanos::saturating_add(Instant::now(), duration))
    }

    /// Returns the deadline of the operation that this task works on, if there is one.
    #[must_use]
    pub fn current() -> Option<Self> {
        context::deadline().map(Self)
    }

    /// Returns the time of the deadline.
    #[must_use]
    pub fn instant(self) -> Instant {
        self.0
    }

    /// Returns the remaining time, zero if the deadline has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Returns whether the deadline has passed.
    #[must_use]
    pub fn is_expired(self) -> bool {
        self.remaining().is_zero()
    }

    /// Runs `future` with this deadline, or with the deadline in force if it is sooner.
    ///
    /// The deadline is information only: layers in the future act on it, but `scope` does not end the future.
    pub fn scope<F: Future>(self, future: F) -> DeadlineScope<F> {
        DeadlineScope {
            future,
            deadline: self,
        }
    }
}

pin_project! {
    /// The future of [`Deadline::scope`].
    #[must_use = "futures do nothing unless polled"]
    pub struct DeadlineScope<F> {
        #[pin]
        future: F,
        deadline: Deadline,
    }
}

debug_fields!([F] DeadlineScope<F> { deadline });

impl<F: Future> Future for DeadlineScope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let deadline = soonest(context::deadline(), this.deadline.0);
        let _scope = context::DeadlineScope::enter(deadline);
        this.future.poll(cx)
    }
}

/// Returns the sooner of the deadline in force and another one.
#[inline]
pub(crate) fn soonest(in_force: Option<Instant>, own: Instant) -> Instant {
    in_force.map_or(own, |in_force| in_force.min(own))
}

/// The attempt of a retry that this task makes.
///
/// A service inside a [`RetryLayer`](crate::RetryLayer) can read it while it is called or polled, for a log line or a
/// header. A spawned task does not inherit it.
///
/// # Examples
///
/// ```
/// use buttress::{Attempt, BoxError, RetryLayer};
/// use tower::service_fn;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), BoxError> {
/// let client = service_fn(|_: u32| async {
///     match Attempt::current().map(Attempt::number) {
///         Some(1) => Err(BoxError::from("reset")),
///         number => Ok(number),
///     }
/// });
/// let answer = RetryLayer::new("inventory").wrap(client).send(1).await?;
/// assert_eq!(answer, Some(2));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(u32);

impl Attempt {
    /// Returns the attempt that this task makes, `None` outside any retry.
    #[must_use]
    pub fn current() -> Option<Self> {
        let number = context::attempt();
        (number > 0).then_some(Self(number))
    }

    /// Returns the number: 1 for the first attempt, 2 for the first retry.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_soonest_of_nested_deadlines_counts() {
        let soon = Deadline::after(Duration::from_secs(1));
        let late = Deadline::after(Duration::from_secs(9));
        let seen = |outer: Deadline, inner: Deadline| {
            outer.scope(inner.scope(async { Deadline::current() }))
        };
        assert_eq!(seen(soon, late).await, Some(soon));
        assert_eq!(seen(late, soon).await, Some(soon));
        assert_eq!(Deadline::current(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endless_deadline_does_not_overflow() {
        let endless = Deadline::after(Duration::MAX);
        assert!(!endless.is_expired());
        assert!(Deadline::after(Duration::ZERO).is_expired());
    }
}
