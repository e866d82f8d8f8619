//! The state that all handles of one breaker share: the breaker, its clock and randomness, and the report of its transitions.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::config::Listener;
use super::metrics::BreakerMetrics;
use crate::algorithm::breaker::{
    At as Place, Breaker, Counts, Finished, Mark, Probe, Settings, State, Transition, Word,
};
use crate::chassis::{At, Record};
use crate::context;
use crate::nanos::nanos_between;
use crate::random::Random;
use crate::stripe::stripe;
use crate::telemetry::Series;
use crate::{ErrorKind, Mode, Outcome};

pub(super) struct Shared {
    breaker: Breaker,
    mode: Mode,
    listener: Option<Listener>,
    random: Random,
    origin: Instant,
    metrics: &'static Series<BreakerMetrics>,
}

impl Shared {
    pub(super) fn new(
        settings: Settings,
        counts: Counts,
        mode: Mode,
        listener: Option<Listener>,
        random: Random,
        origin: Instant,
        metrics: &'static Series<BreakerMetrics>,
    ) -> Self {
        metrics.levels().created(State::Closed);
        Self {
            breaker: Breaker::new(settings, counts),
            mode,
            listener,
            random,
            origin,
            metrics,
        }
    }

    /// Publishes the gauges as they are.
    pub(super) fn publish_gauges(&self, now: Instant) {
        self.metrics.publish_again(now);
    }

    pub(super) fn name(&self) -> &'static str {
        self.metrics.name()
    }

    /// The word that admits a call, if it is that of a closed breaker.
    #[inline]
    pub(super) fn word(&self) -> Word {
        self.breaker.word()
    }

    pub(super) fn state(&self) -> State {
        self.breaker.state()
    }

    /// The time after which a call is slow, if that counts.
    #[inline]
    pub(super) fn slow_after(&self) -> Option<Duration> {
        self.breaker.slow_calls_longer_than()
    }

    /// Decides about a call on a breaker that is not closed. A call that may not pass learns when to come again.
    ///
    /// A probe is `admitted` before the listener is told: if that panics, the slot is given back.
    pub(super) fn probe(
        &self,
        word: Word,
        at: &At,
        admitted: impl FnOnce(Probe),
    ) -> Result<(), Option<Duration>> {
        let time = || context::deadline().map(|deadline| nanos_between(at.instant(), deadline));
        let (probe, transition) = self.breaker.try_probe(word, time, at.nanos());
        let probe = probe.map(admitted);
        self.report(transition, at);
        let now = at.instant();
        probe.or_else(|retry_after| {
            self.metrics
                .rejected(ErrorKind::CircuitOpen, self.mode, now);
            match self.mode {
                Mode::Enforce => Err(retry_after),
                Mode::Observe => Ok(()),
            }
        })
    }

    /// Returns the rest of the open time. `None` if that is not known: half-open, or forced open.
    pub(super) fn open_for_remaining(&self, now: Instant) -> Option<Duration> {
        self.breaker.open_for_remaining(self.nanos(now))
    }

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
        self.steer(Breaker::force_open);
    }

    pub(super) fn force_closed(&self) {
        self.steer(Breaker::force_closed);
    }

    pub(super) fn reset(&self) {
        self.steer(Breaker::reset);
    }

    fn steer(&self, steer: impl FnOnce(&Breaker, u64) -> Transition) {
        let at = At::unread(self.origin);
        self.report(Some(steer(&self.breaker, at.nanos())), &at);
    }

    /// Reports a change of state. No lock is held, so the listener may use the breaker.
    #[inline]
    fn report(&self, transition: Option<Transition>, at: &At) {
        if let Some(transition) = transition {
            self.report_change(transition, at.instant());
        }
    }

    #[cold]
    fn report_change(&self, transition: Transition, now: Instant) {
        if transition.from == transition.to {
            return;
        }
        self.metrics.changed(transition, now);
        if let Some(listener) = &self.listener {
            listener.call(&transition);
        }
    }

    /// Returns the outcome of a call that has ended without a good answer.
    pub(super) fn outcome(&self, record: &Record<'_>) -> Outcome {
        record.outcome_by(self.breaker.evidence())
    }

    /// Counts a call that began while the breaker was closed, and the head of whose answer is good. Returns where.
    pub(super) fn count_head(
        &self,
        admitted: Word,
        slow: bool,
        record: &Record<'_>,
    ) -> Option<Mark> {
        let (jitter, at) = (|| self.random.symmetric(), record.at);
        let call = finished(Outcome::Success, slow, record);
        let (mark, transition) = self.breaker.count_head(admitted, call, jitter);
        self.report(transition, at);
        mark
    }

    /// A call is over whose head was counted as a success. Most of them change nothing more.
    #[inline]
    pub(super) fn count_rest(&self, admitted: Word, mark: Mark, record: &Record<'_>) {
        if record.outcome.is_failure() || self.breaker.counts_rows() {
            self.correct(admitted, mark, record);
        }
    }

    #[cold]
    fn correct(&self, admitted: Word, mark: Mark, record: &Record<'_>) {
        let (jitter, at) = (|| self.random.symmetric(), record.at);
        let call = finished(record.outcome, false, record);
        let transition = self.breaker.count_rest(admitted, mark, call, jitter);
        self.report(transition, at);
    }

    /// Counts a call that began while the breaker was closed, and was neither slow nor failed.
    #[inline]
    pub(super) fn count_success(&self, admitted: Word, record: &Record<'_>) {
        let at = place(record.at);
        self.breaker.count_success(admitted, record.nanos(), at);
    }

    /// Counts a call that began while the breaker was closed.
    pub(super) fn count(&self, admitted: Word, outcome: Outcome, slow: bool, record: &Record<'_>) {
        let (jitter, at) = (|| self.random.symmetric(), record.at);
        let call = finished(outcome, slow, record);
        let transition = self.breaker.count(admitted, call, jitter);
        self.report(transition, at);
    }

    pub(super) fn end_probe(
        &self,
        probe: Probe,
        outcome: Outcome,
        slow: bool,
        record: &Record<'_>,
    ) {
        let (call, jitter) = (finished(outcome, slow, record), self.random.symmetric());
        let transition = self.breaker.end_probe(probe, call, jitter);
        self.report(transition, record.at);
    }

    /// A probe has ended that counts as a success already.
    pub(super) fn disprove(&self, probe: Probe, record: &Record<'_>) {
        if record.outcome.is_failure() {
            let call = finished(record.outcome, false, record);
            let transition = self.breaker.disprove(probe, call, self.random.symmetric());
            self.report(transition, record.at);
        }
    }
}

/// When and where a call is counted.
#[inline]
fn place(at: &At) -> Place {
    Place {
        stripe: stripe(),
        nanos: at.nanos(),
    }
}

/// A call that has ended.
#[inline(always)]
fn finished(outcome: Outcome, slow: bool, record: &Record<'_>) -> Finished {
    Finished {
        outcome,
        slow,
        took: record.nanos(),
        at: place(record.at),
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
