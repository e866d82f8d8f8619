//! The rate limit as a part of an attempt.

use std::mem;
use std::sync::Arc;
use std::task::Waker;

use tokio::time::Instant;

use super::config::{Cost, One};
use super::queue::{Place, Step};
use super::shared::{Rules, Shared};
use crate::algorithm::gcra::Taken;
use crate::chassis::{Admit, At, Part, PartFor, Record, Turn};
use crate::deadline::soonest;
use crate::debug::debug_fields;
use crate::sync::lock;
use crate::{ErrorKind, Mode, context};

/// Handle that reads and changes a rate limit, and its part of the attempts. Clones are handles of the same limit.
///
/// `Q` returns the cost of a request. The handle that a layer returns does not use it.
#[derive(Clone)]
pub struct Handle<Q = One> {
    pub(super) shared: Arc<Shared>,
    pub(super) cost: Q,
}

/// An attempt that has its tokens, or waits for them.
#[derive(Debug, Default)]
pub struct RateLimitPermit(State);

#[derive(Debug, Default)]
enum State {
    /// No tokens, or the service has answered.
    #[default]
    Nothing,
    Waiting(Box<Wait>),
    /// The attempt was sent, and the service may ask callers to stay away.
    In,
}

#[derive(Debug)]
pub(super) struct Wait {
    pub(super) place: Place,
    /// A later turn is of no use, whatever the deadline.
    pub(super) latest: u64,
    began: u64,
    pub(super) deadline: Option<Instant>,
}

impl Shared {
    /// Decides about an attempt that finds no tokens, or a queue; `taken` is zero then. The attempt takes its place
    /// when it is polled, so that a future that is never polled keeps no call waiting.
    #[cold]
    #[inline(never)]
    fn admit_later(
        &self,
        cost: u32,
        taken: Option<Taken>,
        permit: &mut RateLimitPermit,
        at: &At,
    ) -> Admit {
        let is_possible = cost <= self.bucket.gcra.burst();
        let Rules { mode, max_wait, .. } = self.rules();
        let passed = match (taken, mode) {
            (None | Some(Taken::Early(_)), Mode::Observe) if is_possible => self.observe(cost, at),
            (Some(Taken::Early(wait)), _) if max_wait == 0 => {
                self.refuse(ErrorKind::RateLimited, wait, at)
            }
            (None | Some(Taken::Early(_)), _) if is_possible => {
                let latest = at.nanos().saturating_add(max_wait);
                permit.0 = State::Waiting(Box::new(Wait {
                    place: Place::new(cost, latest),
                    latest,
                    began: at.nanos(),
                    deadline: context::deadline(),
                }));
                return Admit::Wait;
            }
            _ => self.refuse(ErrorKind::TooCostly, 0, at),
        };
        if passed.is_ok() {
            permit.0 = State::In;
        }
        passed.map_or_else(Admit::Refuse, |()| Admit::Go)
    }

    #[cold]
    #[inline(never)]
    fn leave_queue(&self, wait: &mut Wait, at: &At) {
        if wait.place.is_taken() {
            self.queue.leave(&mut wait.place);
            self.waited("cancelled", wait.began, at);
        }
    }
}

impl Wait {
    /// Polls the attempt.
    fn step(&mut self, shared: &Shared, at: &At, waker: &Waker) -> Turn {
        let (now, nanos) = (at.instant(), at.nanos());
        if let Some(deadline) = context::deadline() {
            self.deadline = Some(soonest(self.deadline, deadline));
        }
        let had_place = self.place.is_taken();
        if shared.rules().mode == Mode::Observe {
            // The limit has begun to observe while the call waited.
            shared.queue.leave(&mut self.place);
            if had_place {
                shared.waited("admitted", self.began, at);
            }
            let passed = shared.observe(self.place.cost, at);
            return passed.map_or_else(Turn::Refuse, |()| Turn::Go);
        }
        let step = match self.deadline {
            // No time is left, even if there are tokens.
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
                let (queue, bucket) = (&shared.queue, &shared.bucket);
                queue.step(&mut self.place, nanos, waker, bucket)
            }
        };
        let end = match step {
            Step::Wait(until) => {
                if !had_place {
                    shared.show(at);
                }
                return Turn::Until(shared.instant(until));
            }
            Step::Go => "admitted",
            Step::GiveUp => "rejected",
        };
        if had_place {
            shared.waited(end, self.began, at);
        }
        match step {
            Step::Go => Turn::Go,
            _ => shared
                .refuse_turn(self, at)
                .map_or_else(Turn::Refuse, |()| Turn::Go),
        }
    }
}

impl<Q: Send + Sync + 'static> Part for Handle<Q> {
    type Ask = u32;
    type Permit = RateLimitPermit;

    /// Returns `false` while calls wait. The next call waits as well, and must not hold the inner service in the
    /// meantime.
    #[inline(always)]
    fn is_open(&self) -> bool {
        self.shared.queue.is_empty()
    }

    #[inline(always)]
    fn admit(&self, cost: u32, permit: &mut RateLimitPermit, at: &At) -> Admit {
        let shared = &*self.shared;
        // A call that costs nothing does not wait behind others: nothing would bound the number of such calls.
        if cost > 0 {
            if !shared.queue.is_empty() {
                return shared.admit_later(cost, None, permit, at);
            }
            let taken = shared.bucket.take(at.nanos(), cost);
            if taken != Taken::Yes {
                return shared.admit_later(cost, Some(taken), permit, at);
            }
        }
        permit.0 = State::In;
        Admit::Go
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
            State::Waiting(mut wait) => self.shared.leave_queue(&mut wait, record.at),
        }
    }

    #[inline(always)]
    fn has_gauges(&self) -> bool {
        true
    }

    fn publish(&self, at: &At) {
        let shared = &*self.shared;
        let word = || shared.word(at.nanos());
        shared.shown.publish(word, at.instant());
    }

    /// Returns `true` while all tokens are there, no call waits, and the settings are the initial ones.
    fn is_evictable(&self, now: Instant) -> bool {
        let shared = &*self.shared;
        let bucket = &shared.bucket;
        let is_full = bucket.gcra.is_full(shared.nanos(now));
        let code = &shared.code;
        let is_unchanged = || bucket.limits() == code.limits() && *lock(&shared.in_force) == *code;
        is_full && shared.queue.is_empty() && is_unchanged()
    }
}

impl<Q, Req> PartFor<Req> for Handle<Q>
where
    Q: Cost<Req> + Send + Sync + 'static,
{
    #[inline(always)]
    fn ask(&self, request: &Req) -> u32 {
        self.cost.cost(request)
    }
}

debug_fields!([Q] Handle<Q> { shared });
