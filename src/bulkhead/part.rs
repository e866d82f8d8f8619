//! The bulkhead as a part of an attempt.

use std::mem;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::gate::{Gate, Turn as Place};
use super::queue::Verdict;
use super::shared::Shared;
use super::word::Word;
use crate::algorithm::queue::Ticket;
use crate::chassis::{Admit, At, Part, PartFor, Record, Turn};
use crate::context;
use crate::deadline::soonest;
use crate::sync::lock;
use crate::{ErrorKind, Mode};

/// Reads and changes a bulkhead, and is its part of the attempts. Clones are handles of the same bulkhead.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

/// An attempt that the bulkhead has admitted, or that waits. Its slot is given back when the attempt is over.
#[derive(Debug, Default)]
pub struct BulkheadPermit(State);

#[derive(Debug, Default)]
enum State {
    /// No attempt, or one that a bulkhead that observes has admitted without counting.
    #[default]
    Nothing,
    Waiting(Box<Wait>),
    In {
        /// The number of calls in flight when it entered, itself included.
        in_flight: u32,
        /// Microseconds until the head of the answer, plus one.
        head: Option<NonZeroU32>,
    },
}

#[derive(Debug)]
struct Wait {
    /// `None` until the attempt is polled, so that a future that is never polled keeps no other call waiting.
    ticket: Option<Ticket>,
    since: Instant,
    due: Instant,
    /// The soonest deadline that was in force at any poll. It may be newer than the call.
    deadline: Option<Instant>,
}

/// The progress of an attempt that waits.
enum Step {
    Until(Instant),
    /// The wait is over: whether the attempt has a slot, and the reason of a refusal.
    Over(bool, Option<ErrorKind>),
}

impl Wait {
    /// Polls the attempt. At first it joins the queue, unless a slot is free by now.
    fn step(&mut self, gate: &Gate, now: Instant, waker: &Waker) -> Step {
        let (late, full) = (ErrorKind::DeadlineExceeded, ErrorKind::BulkheadFull);
        let ticket = match self.ticket {
            Some(ticket) => ticket,
            None if self.is_late(now) => return Step::Over(false, Some(late)),
            None => match gate.queue(now, self.deadline) {
                Place::Entered(_) => return Step::Over(true, None),
                Place::Full => return Step::Over(false, Some(full)),
                Place::Queued(ticket, due) => {
                    (self.ticket, self.since, self.due) = (Some(ticket), now, due);
                    ticket
                }
            },
        };
        let verdict = match gate.poll(ticket, waker) {
            Poll::Ready(verdict) => verdict,
            Poll::Pending => {
                self.due = soonest(self.deadline, self.due);
                if self.due > now {
                    return Step::Until(self.due);
                }
                // The attempt uses a slot that it was granted in the meantime.
                gate.give_up(ticket).unwrap_or(Verdict::Expired)
            }
        };
        match verdict {
            Verdict::Granted => Step::Over(true, self.is_late(now).then_some(late)),
            Verdict::Expired if self.is_late(self.due) => Step::Over(false, Some(late)),
            Verdict::Expired => Step::Over(false, Some(ErrorKind::QueueTimeout)),
        }
    }

    fn is_late(&self, by: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= by)
    }
}

impl State {
    #[inline(always)]
    fn entered(word: Word) -> Self {
        Self::In {
            in_flight: word.in_flight() as u32,
            head: None,
        }
    }
}

impl Handle {
    /// Decides about an attempt that has found no free slot.
    #[cold]
    #[inline(never)]
    fn admit_to_full(&self, permit: &mut BulkheadPermit, at: &At) -> Admit {
        let (shared, now) = (&*self.shared, at.instant());
        let (gate, deadline) = (&shared.gate, context::deadline());
        let refused = if shared.mode() == Mode::Observe {
            let word = gate.enter_anyway();
            if let Some(word) = word {
                permit.0 = State::entered(word);
                shared.show_in_flight(word, at);
            }
            word.is_none_or(|word| word.in_flight() > word.limit() + gate.length())
                .then_some(ErrorKind::BulkheadFull)
        } else if gate.length() > 0 && deadline.is_some_and(|deadline| deadline <= now) {
            Some(ErrorKind::DeadlineExceeded)
        } else if gate.word().waiting() >= gate.length() {
            Some(ErrorKind::BulkheadFull)
        } else {
            permit.0 = State::Waiting(Box::new(Wait {
                ticket: None,
                since: now,
                due: now,
                deadline,
            }));
            return Admit::Wait;
        };
        let refused = refused.map_or(Ok(()), |reason| shared.refuse(reason, at));
        refused.map_or_else(Admit::Refuse, |()| Admit::Go)
    }

    #[cold]
    #[inline(never)]
    fn leave_queue(&self, wait: &Wait, at: &At) {
        let shared = &*self.shared;
        let Some(ticket) = wait.ticket else { return };
        if shared.gate.give_up(ticket) == Some(Verdict::Granted) {
            shared.leave(at);
        }
        shared.show(at);
        let now = at.instant();
        let waited = now.saturating_duration_since(wait.since);
        shared.shown.series.waited("cancelled", waited, now);
    }
}

impl Part for Handle {
    type Ask = ();
    type Permit = BulkheadPermit;

    #[inline(always)]
    fn is_timed(&self) -> bool {
        self.shared.policy.is_some()
    }

    /// Returns `false` if the bulkhead is full: the readiness of the inner service is then polled after the wait for a
    /// slot.
    #[inline(always)]
    fn is_open(&self) -> bool {
        self.shared.gate.word().is_free() || self.shared.mode() == Mode::Observe
    }

    #[inline(always)]
    fn admit(&self, (): (), permit: &mut BulkheadPermit, at: &At) -> Admit {
        match self.shared.gate.try_enter() {
            Some(word) => {
                // From here on the slot is given back, whatever the recorder does.
                permit.0 = State::entered(word);
                self.shared.show_in_flight(word, at);
                Admit::Go
            }
            None => self.admit_to_full(permit, at),
        }
    }

    #[inline(always)]
    fn is_waiting(&self, permit: &BulkheadPermit) -> bool {
        matches!(permit.0, State::Waiting(_))
    }

    fn poll_turn(&self, (): (), permit: &mut BulkheadPermit, at: &At, waker: &Waker) -> Turn {
        let (shared, now) = (&*self.shared, at.instant());
        let State::Waiting(wait) = &mut permit.0 else {
            return Turn::Go;
        };
        if let Some(deadline) = context::deadline() {
            wait.deadline = Some(soonest(wait.deadline, deadline));
        }
        let had_place = wait.ticket.is_some();
        let (has_slot, refused) = match wait.step(&shared.gate, now, waker) {
            Step::Until(due) => {
                if !had_place {
                    shared.show(at);
                }
                return Turn::Until(due);
            }
            Step::Over(has_slot, refused) => (has_slot, refused),
        };
        let waited = now.saturating_duration_since(wait.since);
        let waited = wait.ticket.map(|_| waited);
        // From here on the slot is given back, whatever the recorder does.
        permit.0 = if has_slot {
            State::entered(shared.gate.word())
        } else {
            State::Nothing
        };
        shared.show(at);
        if let Some(waited) = waited {
            let end = match refused {
                None => "admitted",
                Some(ErrorKind::QueueTimeout) => "timeout",
                Some(_) => "deadline",
            };
            shared.shown.series.waited(end, waited, now);
        }
        let refused = refused.map_or(Ok(()), |reason| shared.refuse(reason, at));
        refused.map_or_else(Turn::Refuse, |()| Turn::Go)
    }

    fn head(&self, permit: &mut BulkheadPermit, record: &Record<'_>) {
        if let (true, State::In { head, .. }) = (self.shared.policy.is_some(), &mut permit.0) {
            let took = u32::try_from(record.duration().as_micros()).unwrap_or(u32::MAX);
            *head = Some(NonZeroU32::MIN.saturating_add(took));
        }
    }

    #[inline(always)]
    fn settle(&self, permit: &mut BulkheadPermit, record: &Record<'_>) {
        match mem::take(&mut permit.0) {
            State::In { in_flight, head } => {
                let before = self.shared.leave(record.at);
                if self.shared.policy.is_some() {
                    let head = head.map(|micros| u64::from(micros.get() - 1));
                    let to_head = head.map(Duration::from_micros);
                    self.shared.adapt(before, in_flight, to_head, record);
                }
            }
            State::Waiting(wait) => self.leave_queue(&wait, record.at),
            State::Nothing => {}
        }
    }

    #[inline(always)]
    fn has_gauges(&self) -> bool {
        true
    }

    fn publish(&self, at: &At) {
        self.shared.publish(at.instant());
    }

    /// Returns `true` while no call is in flight or waits, and the settings and the limit are the initial ones.
    fn is_evictable(&self, _now: Instant) -> bool {
        let shared = &*self.shared;
        let is_idle = shared.gate.word() == Word::idle(shared.initial);
        is_idle && *lock(&shared.in_force) == shared.code
    }
}

impl<Req> PartFor<Req> for Handle {
    #[inline(always)]
    fn ask(&self, _: &Req) {}
}
