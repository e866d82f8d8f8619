//! The circuit breaker as a part of an attempt.

use std::mem;
use std::sync::Arc;

use tokio::time::Instant;

use super::shared::Shared;
use crate::Outcome;
use crate::algorithm::breaker::{Mark, Probe, State, Word};
use crate::chassis::{Admit, At, EndedBy, Part, PartFor, Record};
use crate::context;

/// Reads and changes a circuit breaker, and is its part of the attempts. Clones are handles of the same breaker.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

/// An attempt that the circuit breaker has admitted.
///
/// Without an outcome it counts as cancelled: it says nothing about the service, and the slot of a probe is free again.
#[derive(Clone, Copy, Debug, Default)]
pub struct BreakerPermit(Kind);

/// The way in which an attempt was admitted.
#[derive(Clone, Copy, Debug, Default)]
enum Kind {
    /// The attempt was admitted by a breaker that only observes, or is over.
    #[default]
    Uncounted,
    /// The attempt was admitted by a closed breaker with this word.
    Counted(Word, Head, IsFirst),
    /// The same, and the attempt has counted as a success, because the head of its answer was one.
    Answered {
        word: Word,
        place: u64,
        stripe: u32,
        is_first: IsFirst,
    },
    Probe(Probe, Head),
    /// A probe that has counted as a success, because the head of its answer was one.
    Proven(Probe),
}

/// `true` for the first attempt of an operation. It is read at the admission, because the call may end outside of its
/// context.
type IsFirst = bool;

/// The time that the head of an answer took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    Pending,
    Fast,
    Slow,
}

impl Handle {
    /// Returns whether an attempt is slow. If its head has arrived, the time until the head counts.
    #[inline(always)]
    fn is_slow(&self, head: Head, record: &Record<'_>) -> bool {
        let Some(limit) = self.shared.slow_after() else {
            return false;
        };
        match head {
            Head::Pending => record.duration() > limit,
            head => head == Head::Slow,
        }
    }

    fn head_of(&self, head: Head, record: &Record<'_>) -> Head {
        if self.is_slow(head, record) {
            Head::Slow
        } else {
            Head::Fast
        }
    }

    /// Decides about an attempt while the breaker is not closed.
    #[cold]
    #[inline(never)]
    fn admit_probe(&self, word: Word, permit: &mut BreakerPermit, at: &At) -> Admit {
        let shared = &*self.shared;
        let admitted = shared.probe(word, at, |probe| {
            permit.0 = Kind::Probe(probe, Head::Pending);
        });
        admitted.map_or_else(Admit::Refuse, |()| Admit::Go)
    }

    #[cold]
    #[inline(never)]
    fn settle_other(&self, kind: Kind, record: &Record<'_>) {
        let shared = &*self.shared;
        let head = match kind {
            Kind::Counted(_, head, _) | Kind::Probe(_, head) => head,
            Kind::Uncounted | Kind::Answered { .. } | Kind::Proven(_) => Head::Fast,
        };
        let mut record = *record;
        record.outcome = self.outcome(head, &record);
        let (record, slow) = (&record, || self.is_slow(head, &record));
        match kind {
            Kind::Uncounted => {}
            Kind::Counted(word, _, is_first) => shared.count(word, slow(), is_first, record),
            Kind::Answered {
                word,
                place,
                stripe,
                is_first,
            } => shared.count_rest(word, Mark { place, stripe }, is_first, record),
            Kind::Probe(probe, _) => shared.end_probe(probe, slow(), record),
            Kind::Proven(probe) => shared.disprove(probe, record),
        }
    }

    /// Returns the outcome of a call that has ended.
    fn outcome(&self, head: Head, record: &Record<'_>) -> Outcome {
        let is_known = head != Head::Pending && record.ended_by != EndedBy::DeadlineAnswer;
        match record.outcome {
            outcome if is_known || outcome == Outcome::Success => outcome,
            _ => self.shared.outcome(record),
        }
    }
}

impl Part for Handle {
    type Ask = ();
    type Permit = BreakerPermit;

    /// Returns `true`, because a call that ends early counts only if the service had enough time for it, and the times
    /// of good calls are the measure.
    #[inline(always)]
    fn is_timed(&self) -> bool {
        true
    }

    /// Returns `false` if the breaker is not closed. A probe then waits for the readiness of the inner service in its
    /// future.
    #[inline(always)]
    fn is_open(&self) -> bool {
        self.shared.word().is(State::Closed)
    }

    #[inline(always)]
    fn admit(&self, (): (), permit: &mut BreakerPermit, at: &At) -> Admit {
        let word = self.shared.word();
        if !word.is(State::Closed) {
            return self.admit_probe(word, permit, at);
        }
        permit.0 = Kind::Counted(word, Head::Pending, context::attempt() <= 1);
        Admit::Go
    }

    fn head(&self, permit: &mut BreakerPermit, record: &Record<'_>) {
        let (shared, outcome) = (&*self.shared, record.outcome);
        let kind = mem::take(&mut permit.0);
        if outcome.is_failure() {
            // Regardless of the rest of the answer.
            self.settle_other(kind, record);
            return;
        }
        permit.0 = match kind {
            Kind::Counted(word, head, is_first) => {
                let head = self.head_of(head, record);
                if outcome == Outcome::Success {
                    let mark = shared.count_head(word, head == Head::Slow, record);
                    mark.map_or(Kind::Uncounted, |Mark { place, stripe }| Kind::Answered {
                        word,
                        place,
                        stripe,
                        is_first,
                    })
                } else {
                    Kind::Counted(word, head, is_first)
                }
            }
            Kind::Probe(probe, head) => {
                let head = self.head_of(head, record);
                if outcome == Outcome::Success {
                    shared.end_probe(probe, head == Head::Slow, record);
                    match head {
                        Head::Slow => Kind::Uncounted,
                        _ => Kind::Proven(probe),
                    }
                } else {
                    Kind::Probe(probe, head)
                }
            }
            kind => kind,
        };
    }

    #[inline(always)]
    fn settle(&self, permit: &mut BreakerPermit, record: &Record<'_>) {
        match (mem::take(&mut permit.0), record.outcome) {
            (Kind::Uncounted, _) => {}
            (Kind::Counted(word, Head::Pending, _), Outcome::Success)
                if self.shared.slow_after().is_none() =>
            {
                self.shared.count_success(word, record);
            }
            (kind, _) => self.settle_other(kind, record),
        }
    }

    #[inline(always)]
    fn has_gauges(&self) -> bool {
        true
    }

    fn publish(&self, at: &At) {
        self.shared.metrics.publish_again(at.instant());
    }

    /// Returns `true` while the breaker is closed, and when it was not called for a minute after its open time, or for
    /// its open time if that is longer. Always `false` while the handle forces it open or closed.
    fn is_evictable(&self, now: Instant) -> bool {
        self.shared.breaker.is_evictable(self.shared.nanos(now))
    }
}

impl<Req> PartFor<Req> for Handle {
    #[inline(always)]
    fn ask(&self, _: &Req) {}
}
