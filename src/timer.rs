//! A timer that costs nothing until a call has to wait.

use std::pin::Pin;
use std::task::{self, Poll};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

pin_project! {
    #[derive(Debug, Default)]
    pub struct Timer {
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl Timer {
    /// Returns whether it has been polled.
    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        self.sleep.is_some()
    }

    /// Polls a timer that [is set](Self::is_set).
    #[inline]
    pub(crate) fn poll_set(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        self.poll(Instant::now, cx)
    }

    /// Is ready at the instant `at`, which may differ in each poll.
    pub(crate) fn poll_at(
        mut self: Pin<&mut Self>,
        at: Instant,
        cx: &mut task::Context<'_>,
    ) -> Poll<()> {
        let sleep = self.as_mut().project().sleep.as_pin_mut();
        if let Some(sleep) = sleep.filter(|sleep| sleep.deadline() != at) {
            sleep.reset(at);
        }
        self.poll(|| at, cx)
    }

    /// Is ready at the instant that `at` returned at the first poll.
    #[inline]
    pub(crate) fn poll(
        self: Pin<&mut Self>,
        at: impl FnOnce() -> Instant,
        cx: &mut task::Context<'_>,
    ) -> Poll<()> {
        let mut sleep = self.project().sleep;
        if let Some(mut sleep) = sleep.as_mut().as_pin_mut() {
            return match sleep.as_mut().poll(cx) {
                // A task that has used up its cooperative budget sees every timer as pending. With an inner future that
                // uses it up in each poll, the call would never time out, so the clock is read.
                Poll::Pending if sleep.deadline() <= Instant::now() => Poll::Ready(()),
                poll => poll,
            };
        }
        sleep.set(Some(sleep_until(at())));
        sleep
            .as_pin_mut()
            .map_or(Poll::Pending, |sleep| sleep.poll(cx))
    }
}
