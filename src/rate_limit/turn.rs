//! A call that waits for its tokens.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::metrics::End;
use super::queue::{Place, Step};
use super::shared::Shared;
use crate::Error;
use crate::context::{self, whole_nanos};
use crate::timer::Timer;

pin_project! {
    /// Is ready when the call may go, or must not.
    pub(super) struct Turn {
        seat: Seat,
        #[pin]
        timer: Timer,
    }
}

/// The place of a call in the queue. Dropped, it leaves it.
struct Seat {
    shared: Arc<Shared>,
    place: Place,
    /// A turn that comes later is of no use, whatever the deadline.
    latest: u64,
    began: Instant,
    deadline: Option<Instant>,
}

impl Turn {
    /// A call that has no place yet: it takes one when it is polled, so that a future which nobody polls keeps
    /// nobody waiting.
    pub(super) fn new(shared: Arc<Shared>, cost: u32, now: Instant, max_wait: Duration) -> Self {
        let latest = shared.nanos(now).saturating_add(whole_nanos(max_wait));
        Self {
            seat: Seat {
                place: Place::new(cost, latest),
                latest,
                began: now,
                deadline: context::deadline(),
                shared,
            },
            timer: Timer::default(),
        }
    }
}

impl Future for Turn {
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            // Really read each time: by the time read before a timer it would never be over.
            match this.seat.step(context::fresh_now(), cx.waker()) {
                Ok(None) => return Poll::Ready(Ok(())),
                Ok(Some(until)) => {
                    context::note_queued();
                    ready!(this.timer.as_mut().poll_at(until, cx));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Seat {
    /// Moves the call on. Returns until when it has to wait, if it has to.
    fn step(&mut self, now: Instant, waker: &task::Waker) -> Result<Option<Instant>, Error> {
        let shared = &*self.shared;
        self.deadline = match (self.deadline, context::deadline()) {
            (Some(then), Some(now)) => Some(then.min(now)),
            (then, now) => then.or(now),
        };
        let nanos = shared.nanos(now);
        let had_place = self.place.is_taken();
        let step = match self.deadline {
            // There is no time left, even if there are tokens.
            Some(deadline) if deadline <= now => {
                shared.queue.leave(&mut self.place);
                Step::GiveUp
            }
            Some(deadline) => {
                // At the deadline itself it would be too late.
                let before = shared.nanos(deadline).saturating_sub(1);
                self.place.until = self.place.until.min(before);
                shared
                    .queue
                    .step(&mut self.place, nanos, waker, &shared.at(nanos))
            }
            None => shared
                .queue
                .step(&mut self.place, nanos, waker, &shared.at(nanos)),
        };
        let end = match step {
            Step::Wait(until) => {
                if !had_place {
                    shared.joined(now);
                }
                return Ok(Some(shared.instant(until)));
            }
            Step::Go => End::Admitted,
            Step::GiveUp => End::Rejected,
        };
        if had_place {
            shared.left(self.began, end);
        }
        match end {
            End::Admitted => Ok(None),
            _ => Err(shared.refusal_of_turn(self.place.cost, self.latest, self.deadline, now)),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.place.is_taken() {
            self.shared.queue.leave(&mut self.place);
            self.shared.left(self.began, End::Cancelled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limit::{Rate, RateLimitLayer};
    use tokio::time::advance;
    use tower::{Service, service_fn};

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_comes_during_a_poll_is_seen_in_it() {
        let layer = RateLimitLayer::config("search", Rate::per_second(100))
            .burst(1)
            .max_wait(Duration::from_secs(1))
            .build()
            .unwrap();
        let mut client = layer.wrap(service_fn(|word: u32| async move {
            Ok::<_, crate::BoxError>(word)
        }));
        client.call(1).await.unwrap();
        let call = client.call(1);
        let mut waits = tokio_test::task::spawn(call);
        assert!(waits.poll().is_pending());
        let _poll = context::ClockScope::poll();
        context::now();
        advance(Duration::from_millis(10)).await;
        assert!(waits.poll().is_ready());
    }
}
