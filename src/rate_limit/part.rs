//! The rate limit as a part of an attempt.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::Waker;

use tokio::time::Instant;

use super::config::{Cost, One};
use super::metrics::End;
use super::queue::{Place, Step};
use super::shared::{Entry, Shared};
use crate::chassis::{Admit, At, Part, PartFor, Record, Turn};
use crate::context;

/// A rate limit, as a part of the attempts that it admits. `Q` gives the cost of a request.
#[derive(Clone)]
pub struct RateLimiter<Q = One> {
    pub(super) shared: Arc<Shared>,
    pub(super) cost: Q,
}

/// An attempt that has its tokens, or waits for them.
#[derive(Debug, Default)]
pub struct RateLimitPermit(State);

#[derive(Debug, Default)]
enum State {
    /// None, or the service has been heard.
    #[default]
    Nothing,
    Waiting(Box<Wait>),
    /// The service has the attempt, and may ask to stay away.
    In,
}

#[derive(Debug)]
struct Wait {
    place: Place,
    /// A turn that comes later is of no use, whatever the deadline.
    latest: u64,
    began: Instant,
    deadline: Option<Instant>,
}

impl<Q> RateLimiter<Q> {
    #[cold]
    #[inline(never)]
    fn leave_queue(&self, wait: &mut Wait, at: &At) {
        if wait.place.is_taken() {
            self.shared.queue.leave(&mut wait.place);
            self.shared.left(wait.began, End::Cancelled, at);
        }
    }
}

/// Decides about an attempt that finds no tokens, or a queue. It takes its place when it is polled, so that a future
/// which nobody polls keeps nobody waiting.
#[cold]
#[inline(never)]
fn admit_other(entry: Entry, cost: u32, permit: &mut RateLimitPermit, at: &At) -> Admit {
    match entry {
        Entry::Pass => {
            permit.0 = State::In;
            Admit::Go
        }
        Entry::Refused(error) => Admit::Refuse(error),
        Entry::Wait(latest) => {
            permit.0 = State::Waiting(Box::new(Wait {
                place: Place::new(cost, latest),
                latest,
                began: at.instant(),
                deadline: context::deadline(),
            }));
            Admit::Wait
        }
    }
}

impl Wait {
    /// Moves the attempt on.
    fn step(&mut self, shared: &Shared, at: &At, waker: &Waker) -> Turn {
        let (now, nanos) = (at.instant(), at.nanos());
        self.deadline = match (self.deadline, context::deadline()) {
            (Some(then), Some(now)) => Some(then.min(now)),
            (then, now) => then.or(now),
        };
        let had_place = self.place.is_taken();
        let step = match self.deadline {
            // There is no time left, even if there are tokens.
            Some(deadline) if deadline <= now => {
                shared.queue.leave(&mut self.place);
                Step::GiveUp
            }
            deadline => {
                if let Some(deadline) = deadline {
                    // At the deadline itself it would be too late.
                    let before = shared.nanos(deadline).saturating_sub(1);
                    self.place.until = self.place.until.min(before);
                }
                let tokens = shared.at(nanos);
                shared.queue.step(&mut self.place, nanos, waker, &tokens)
            }
        };
        let end = match step {
            Step::Wait(until) => {
                if !had_place {
                    shared.publish_gauges(at);
                }
                return Turn::Until(shared.instant(until));
            }
            Step::Go => End::Admitted,
            Step::GiveUp => End::Rejected,
        };
        if had_place {
            shared.left(self.began, end, at);
        }
        match end {
            End::Admitted => Turn::Go,
            _ => Turn::Refuse(shared.refusal_of_turn(
                self.place.cost,
                self.latest,
                self.deadline,
                at,
            )),
        }
    }
}

impl<Q: Send + Sync + 'static> Part for RateLimiter<Q> {
    type Ask = u32;
    type Permit = RateLimitPermit;

    /// Where calls wait, the next one waits as well, and must not hold the inner service meanwhile.
    #[inline(always)]
    fn is_open(&self) -> bool {
        self.shared.queue.is_empty()
    }

    #[inline(always)]
    fn admit(&self, cost: u32, permit: &mut RateLimitPermit, at: &At) -> Admit {
        match self.shared.enter(cost, at) {
            Entry::Pass => {
                permit.0 = State::In;
                Admit::Go
            }
            entry => admit_other(entry, cost, permit, at),
        }
    }

    #[inline(always)]
    fn is_waiting(&self, permit: &RateLimitPermit) -> bool {
        matches!(permit.0, State::Waiting(_))
    }

    fn poll_turn(&self, _: u32, permit: &mut RateLimitPermit, at: &At, waker: &Waker) -> Turn {
        let State::Waiting(wait) = &mut permit.0 else {
            return Turn::Go;
        };
        let turn = wait.step(&self.shared, at, waker);
        match turn {
            Turn::Go => permit.0 = State::In,
            Turn::Refuse(_) => permit.0 = State::Nothing,
            Turn::Until(_) => {}
        }
        turn
    }

    fn head(&self, permit: &mut RateLimitPermit, record: &Record<'_>) {
        if let State::In = mem::take(&mut permit.0) {
            self.shared.hear(record);
        }
    }

    #[inline(always)]
    fn settle(&self, permit: &mut RateLimitPermit, record: &Record<'_>) {
        match mem::take(&mut permit.0) {
            State::Nothing => {}
            State::In => self.shared.hear(record),
            State::Waiting(mut wait) => self.leave_queue(&mut wait, record.at),
        }
    }

    #[inline(always)]
    fn has_gauges(&self) -> bool {
        self.shared.settings.max_wait.is_some()
    }

    fn publish(&self, at: &At) {
        self.shared.publish_gauges(at);
    }

    /// Returns `true` while all tokens are there, no call waits, and rate and burst are those it began with.
    fn is_evictable(&self, now: Instant) -> bool {
        self.shared.is_evictable(now)
    }
}

impl<Q, Req> PartFor<Req> for RateLimiter<Q>
where
    Q: Cost<Req> + Send + Sync + 'static,
{
    #[inline(always)]
    fn ask(&self, request: &Req) -> u32 {
        self.cost.cost(request)
    }
}

impl<Q> fmt::Debug for RateLimiter<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}
