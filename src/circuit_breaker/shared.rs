//! The state that all handles of one breaker share: the breaker, its clock and random numbers, and the report of its
//! transitions.

use std::time::Duration;

use tokio::time::Instant;

use super::config::Settings;
use super::metrics::BreakerMetrics;
use crate::algorithm::breaker::{At as Place, Breaker, Finished, Mark, Probe, Transition, Word};
use crate::chassis::{At, Record};
use crate::context;
use crate::debug::debug_fields;
use crate::nanos::nanos_between;
use crate::random::Random;
use crate::stripe::stripe;
use crate::sync::{AtomicU32, Mutex, Ordering};
use crate::telemetry::{Initial, Report};
use crate::{Error, ErrorKind, Mode, Outcome};

pub(super) struct Shared {
    pub(super) breaker: Breaker,
    /// The mode in force, for calls.
    pub(super) mode: AtomicU32,
    /// The settings of the code. Other settings replace some of them.
    pub(super) code: Settings,
    /// Held during a change of settings, so that no two changes mix.
    pub(super) change: Mutex<()>,
    pub(super) random: Random,
    pub(super) origin: Instant,
    pub(super) metrics: Report<BreakerMetrics>,
}

impl Shared {
    /// Changes the mode, and makes the counter of its rejections known.
    pub(super) fn begin_mode(&self, mode: Mode) {
        let rejections = Initial::rejections(ErrorKind::CircuitOpen, mode);
        self.metrics.begin([rejections]);
        self.mode.store(mode.word(), Ordering::Relaxed);
    }

    /// Returns the mode in force.
    pub(super) fn mode(&self) -> Mode {
        Mode::from_word(self.mode.load(Ordering::Relaxed))
    }

    /// Returns the present word. A call is admitted with the word of a closed breaker.
    #[inline]
    pub(super) fn word(&self) -> Word {
        self.breaker.word()
    }

    /// Returns the time after which a call is slow, if slow calls count.
    #[inline]
    pub(super) fn slow_after(&self) -> Option<Duration> {
        self.breaker.slow_calls_longer_than()
    }

    /// Decides about a call on a breaker that is not closed. The error of a rejected call has the time until the next
    /// attempt can succeed.
    ///
    /// A probe is `admitted` before the listener is called, so that its slot is given back if the listener panics.
    #[inline]
    pub(super) fn probe(
        &self,
        word: Word,
        at: &At,
        admitted: impl FnOnce(Probe),
    ) -> Result<(), Error> {
        let time = || context::deadline().map(|deadline| nanos_between(at.instant(), deadline));
        let (probe, transition) = self.breaker.try_probe(word, time, at.nanos());
        let probe = probe.map(admitted);
        self.report(transition, at);
        let refuse = |retry_after| {
            let reason = ErrorKind::CircuitOpen;
            self.metrics
                .refuse(reason, self.mode(), retry_after, at.instant())
        };
        probe.or_else(refuse)
    }

    pub(super) fn nanos(&self, now: Instant) -> u64 {
        nanos_between(self.origin, now)
    }

    pub(super) fn now(&self) -> u64 {
        self.nanos(Instant::now())
    }

    pub(super) fn steer(&self, steer: impl FnOnce(&Breaker, u64) -> Transition) {
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
    }

    /// Returns the outcome of a call that has ended without a good answer.
    pub(super) fn outcome(&self, record: &Record<'_>) -> Outcome {
        record.outcome_by(self.breaker.evidence())
    }

    /// Counts a good head of a call that began while the breaker was closed. Returns the place of the count.
    pub(super) fn count_head(
        &self,
        admitted: Word,
        slow: bool,
        record: &Record<'_>,
    ) -> Option<Mark> {
        let call = finished(Outcome::Success, slow, false, record);
        let (mark, transition) = self.breaker.count_head(admitted, call, self.jitter());
        self.report(transition, record.at);
        mark
    }

    /// Notes the end of a call whose head was counted as a success. Most ends change nothing more.
    #[inline]
    pub(super) fn count_rest(
        &self,
        admitted: Word,
        mark: Mark,
        is_first: bool,
        record: &Record<'_>,
    ) {
        if record.outcome.is_failure() || self.breaker.counts_rows() {
            self.correct(admitted, mark, is_first, record);
        }
    }

    #[cold]
    fn correct(&self, admitted: Word, mark: Mark, is_first: bool, record: &Record<'_>) {
        let call = finished(record.outcome, false, is_first, record);
        let breaker = &self.breaker;
        self.report(
            breaker.count_rest(admitted, mark, call, self.jitter()),
            record.at,
        );
    }

    /// Counts a call that began while the breaker was closed, and was neither slow nor failed.
    #[inline]
    pub(super) fn count_success(&self, admitted: Word, record: &Record<'_>) {
        let at = place(record.at);
        self.breaker.count_success(admitted, record.nanos(), at);
    }

    /// Counts a call that began while the breaker was closed.
    pub(super) fn count(&self, admitted: Word, slow: bool, is_first: bool, record: &Record<'_>) {
        let call = finished(record.outcome, slow, is_first, record);
        self.report(self.breaker.count(admitted, call, self.jitter()), record.at);
    }

    pub(super) fn end_probe(&self, probe: Probe, slow: bool, record: &Record<'_>) {
        let call = finished(record.outcome, slow, false, record);
        self.report(
            self.breaker.end_probe(probe, call, self.jitter()()),
            record.at,
        );
    }

    /// Notes the failure of a probe that has already counted as a success.
    pub(super) fn disprove(&self, probe: Probe, record: &Record<'_>) {
        if record.outcome.is_failure() {
            let call = finished(record.outcome, false, false, record);
            self.report(
                self.breaker.disprove(probe, call, self.jitter()()),
                record.at,
            );
        }
    }

    fn jitter(&self) -> impl FnOnce() -> f64 {
        || self.random.symmetric()
    }
}

/// Returns the time and place of a count.
#[inline]
fn place(at: &At) -> Place {
    Place {
        stripe: stripe(),
        nanos: at.nanos(),
    }
}

/// Makes the facts of a call that has ended.
#[inline(always)]
fn finished(outcome: Outcome, slow: bool, is_first: bool, record: &Record<'_>) -> Finished {
    Finished {
        outcome,
        is_first,
        slow,
        took: record.nanos(),
        at: place(record.at),
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.metrics.levels().add(self.breaker.state(), -1);
        // The gauges must not show a breaker that no longer exists.
        self.metrics.publish(Instant::now());
    }
}

debug_fields!(Shared as CircuitBreaker { metrics.name(), breaker.state(), mode() });
