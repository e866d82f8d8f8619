//! What all handles of one breaker share: the breaker, its clock and randomness, and the report of its transitions.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::config::Listener;
use super::metrics::BreakerMetrics;
use super::permit::{BreakerPermit, Kind, Rejected, Timing};
use crate::algorithm::breaker::{
    At, Breaker, Counts, Finished, Mark, Probe, Settings, State, Transition, Word,
};
use crate::context::{self, nanos_between};
use crate::random::Random;
use crate::stripe::stripe;
use crate::telemetry::{Published, Series};
use crate::{Mode, Outcome};

pub(super) struct Shared {
    breaker: Breaker,
    mode: Mode,
    listener: Option<Listener>,
    random: Random,
    origin: Instant,
    metrics: &'static Series<BreakerMetrics>,
    published: Published,
}

impl Shared {
    pub(super) fn new(
        settings: Settings,
        counts: Counts,
        mode: Mode,
        listener: Option<Listener>,
        random: Random,
        metrics: &'static Series<BreakerMetrics>,
    ) -> Self {
        metrics.levels().created(State::Closed);
        Self {
            breaker: Breaker::new(settings, counts),
            mode,
            listener,
            random,
            origin: Instant::now(),
            metrics,
            published: Published::default(),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.metrics.name()
    }

    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.breaker.word().is(State::Closed)
    }

    pub(super) fn state(&self) -> State {
        self.breaker.state()
    }

    /// Lets a call through.
    #[inline]
    pub(super) fn admit(self: &Arc<Self>) -> Result<BreakerPermit, Rejected> {
        let word = self.breaker.word();
        if !word.is(State::Closed) {
            return self.probe(word);
        }
        let timing = self.started();
        Ok(self.permit(Kind::Counted { word, timing }))
    }

    /// When a call begins, if that matters.
    #[inline]
    fn started(&self) -> Timing {
        if self.breaker.slow_calls_longer_than().is_some() {
            Timing::Since(self.fresh_nanos())
        } else {
            Timing::Off
        }
    }

    /// The answer of a call begins.
    pub(super) fn stop(&self, timing: &mut Timing) {
        if let Timing::Since(_) = timing {
            *timing = if self.is_slow(*timing, self.fresh_nanos()) {
                Timing::Slow
            } else {
                Timing::Fast
            };
        }
    }

    pub(super) fn fresh_nanos(&self) -> u64 {
        self.nanos(context::fresh_now())
    }

    #[inline]
    fn permit(self: &Arc<Self>, kind: Kind) -> BreakerPermit {
        BreakerPermit::new(Arc::clone(self), kind)
    }

    /// Decides over a call on a breaker that is not closed.
    #[cold]
    fn probe(self: &Arc<Self>, word: Word) -> Result<BreakerPermit, Rejected> {
        let now = context::now();
        let nanos = self.nanos(now);
        let (probe, transition) = self.breaker.try_probe(word, nanos);
        let retry_after = match probe {
            Ok(probe) => {
                let timing = self.started();
                // Before the listener is told: if it panics, the place is given back.
                let permit = self.permit(Kind::Probe { probe, timing });
                self.report(transition);
                return Ok(permit);
            }
            Err(retry_after) => retry_after,
        };
        self.report(transition);
        self.metrics
            .report(now, |metrics| metrics.rejected(self.mode, now));
        self.published.keep(self.metrics, now, nanos);
        match self.mode {
            Mode::Enforce => Err(Rejected { retry_after }),
            Mode::Observe => Ok(self.permit(Kind::Uncounted)),
        }
    }

    /// How much of the open time is left. `None` if that is not known: half-open, or forced open.
    pub(super) fn open_for_remaining(&self, now: Instant) -> Option<Duration> {
        self.breaker.open_for_remaining(self.nanos(now))
    }

    #[inline]
    fn nanos(&self, now: Instant) -> u64 {
        nanos_between(self.origin, now)
    }

    /// Returns whether the next call would be let through.
    pub(super) fn would_admit(&self) -> bool {
        self.mode == Mode::Observe || self.breaker.would_admit(self.nanos(Instant::now()))
    }

    /// Returns whether a new breaker may take its place.
    pub(super) fn is_evictable(&self, now: Instant) -> bool {
        self.breaker.is_evictable(self.nanos(now))
    }

    pub(super) fn force_open(&self) {
        self.report(Some(self.breaker.force_open()));
    }

    pub(super) fn force_closed(&self) {
        let nanos = self.nanos(Instant::now());
        self.report(Some(self.breaker.force_closed(nanos)));
    }

    pub(super) fn reset(&self) {
        let nanos = self.nanos(Instant::now());
        self.report(Some(self.breaker.reset(nanos)));
    }

    /// Reports a change of state. No lock is held, so the listener may use the breaker.
    #[inline]
    fn report(&self, transition: Option<Transition>) {
        if let Some(transition) = transition {
            self.report_change(transition);
        }
    }

    #[cold]
    fn report_change(&self, transition: Transition) {
        if transition.from == transition.to {
            return;
        }
        let now = context::now();
        self.metrics.levels().moved(transition.from, transition.to);
        self.metrics.report(now, |metrics| {
            metrics.changed(transition, self.metrics.levels());
        });
        if let Some(listener) = &self.listener {
            listener.call(&transition);
        }
    }

    /// Counts a call that began while the breaker was closed, and the head of whose answer is good. Returns where.
    pub(super) fn count_head(&self, admitted: Word, timing: Timing) -> Option<Mark> {
        let call = self.finished(Outcome::Success, timing);
        let jitter = || self.random.symmetric();
        let (mark, transition) = self.breaker.count_head(admitted, call, jitter);
        self.report(transition);
        mark
    }

    /// A call is over whose head was counted as a success.
    pub(super) fn count_rest(&self, admitted: Word, mark: Mark, outcome: Outcome) {
        let call = self.finished(outcome, Timing::Off);
        let jitter = || self.random.symmetric();
        self.report(self.breaker.count_rest(admitted, mark, call, jitter));
    }

    /// Counts a call that began while the breaker was closed.
    #[inline]
    pub(super) fn count(&self, admitted: Word, outcome: Outcome, timing: Timing) {
        match (outcome, timing) {
            (Outcome::Success, Timing::Off) => self.count_success(admitted),
            (Outcome::Ignored | Outcome::Cancelled, _) => {}
            _ => self.count_other(admitted, outcome, timing),
        }
    }

    fn count_success(&self, admitted: Word) {
        self.breaker
            .count_success(admitted, self.at(context::now()));
    }

    /// Counts a call that failed, or may have been slow.
    #[cold]
    fn count_other(&self, admitted: Word, outcome: Outcome, timing: Timing) {
        let call = self.finished(outcome, timing);
        let jitter = || self.random.symmetric();
        self.report(self.breaker.count(admitted, call, jitter));
    }

    /// When and where a call is counted. Publishes the gauges now and then.
    #[inline]
    fn at(&self, now: Instant) -> At {
        let nanos = self.nanos(now);
        self.published.keep(self.metrics, now, nanos);
        At {
            stripe: stripe(),
            nanos,
        }
    }

    /// A call that has ended now.
    #[cold]
    fn finished(&self, outcome: Outcome, timing: Timing) -> Finished {
        let at = self.at(match timing {
            Timing::Since(_) => context::fresh_now(),
            _ => context::now(),
        });
        let slow = self.is_slow(timing, at.nanos);
        Finished { outcome, slow, at }
    }

    fn is_slow(&self, timing: Timing, now: u64) -> bool {
        match (timing, self.breaker.slow_calls_longer_than()) {
            (Timing::Slow, _) => true,
            (Timing::Since(started), Some(limit)) => {
                Duration::from_nanos(now.saturating_sub(started)) > limit
            }
            _ => false,
        }
    }

    #[cold]
    pub(super) fn end_probe(&self, probe: Probe, outcome: Outcome, timing: Timing) {
        let (call, jitter) = (self.finished(outcome, timing), self.random.symmetric());
        self.report(self.breaker.end_probe(probe, call, jitter));
    }

    /// A probe has ended that counts as a success already.
    #[cold]
    pub(super) fn disprove(&self, probe: Probe, outcome: Outcome) {
        if outcome.is_failure() {
            let (call, jitter) = (self.finished(outcome, Timing::Off), self.random.symmetric());
            self.report(self.breaker.disprove(probe, call, jitter));
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.metrics.levels().dropped(self.state());
        // The gauges must not show a breaker that no longer exists, until the next one is used.
        self.metrics.publish(Instant::now());
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("name", &self.name())
            .field("state", &self.state())
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}
