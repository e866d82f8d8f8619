//! The state machine of the circuit breaker. Time and randomness are arguments.
//!
//! [`verdict`] decides over the calls of a closed breaker, [`Machine`] over everything else. A breaker
//! changes its *epoch* with each change of state, and nothing that began in an earlier epoch can change
//! the state again.

use std::time::Duration;

use tokio::time::Instant;

use crate::context::saturating_add;
use crate::window::Tally;

/// The state of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Calls pass and are counted.
    Closed,
    /// Calls are rejected.
    Open,
    /// A few calls pass, to see whether the service is back. The rest are rejected.
    HalfOpen,
}

/// Why a circuit breaker changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The share of failures was above the threshold.
    FailureShare,
    /// So many failures came in a row.
    ConsecutiveFailures,
    /// The share of slow calls was above the threshold.
    SlowCalls,
    /// The open time was over.
    OpenTimeOver,
    /// More probes failed than succeeded.
    ProbesFailed,
    /// Enough probes succeeded.
    ProbesSucceeded,
    /// The handle was told to.
    Forced,
    /// The handle was told to start afresh.
    Reset,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// Why it changed.
    pub cause: Cause,
    /// How long the breaker stays open, if it opened for a time.
    pub open_for: Option<Duration>,
}

/// The settings that decide.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) failure_share: f64,
    pub(super) min_calls: u32,
    pub(super) consecutive_failures: Option<u32>,
    pub(super) slow_calls: Option<(Duration, f64)>,
    pub(super) open_for: Duration,
    pub(super) open_jitter: f64,
    pub(super) open_growth: f64,
    pub(super) open_most: Duration,
    pub(super) hint_most: Duration,
    pub(super) successes_to_close: u32,
    pub(super) max_probes: u32,
    pub(super) probe_lease: Duration,
}

/// Says whether the calls of `tally` are enough to open, and why.
pub(super) fn verdict(settings: &Settings, tally: Tally) -> Option<Cause> {
    if tally.calls < u64::from(settings.min_calls) {
        return None;
    }
    let exceeds = |part: u64, share: f64| lower_bound(part, tally.calls) > share;
    if exceeds(tally.failures, settings.failure_share) {
        return Some(Cause::FailureShare);
    }
    let (_, slow_share) = settings.slow_calls?;
    exceeds(tally.slow, slow_share).then_some(Cause::SlowCalls)
}

/// The least share of failures that is plausible after `part` failures in `calls` calls: the lower end
/// of the Wilson score interval (Wilson 1927), one-sided at 95 %.
///
/// With few calls, a share above the threshold may well be chance; this asks for more evidence the
/// fewer calls there are.
fn lower_bound(part: u64, calls: u64) -> f64 {
    const Z: f64 = 1.64;
    let n = calls as f64;
    let share = part as f64 / n;
    let centre = share + Z * Z / (2.0 * n);
    let spread = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    (centre - spread) / (1.0 + Z * Z / n)
}

/// A call that was let through a half-open breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) epoch: u64,
    serial: u64,
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeEnd {
    Succeeded,
    /// With the time that the service asked callers to stay away.
    Failed(Option<Duration>),
    /// It says nothing: ignored or cancelled.
    Released,
}

#[derive(Debug)]
enum Phase {
    Closed {
        since: Instant,
        forced: bool,
    },
    Open {
        /// `None`: until the handle says otherwise.
        until: Option<Instant>,
    },
    HalfOpen(Probes),
}

/// The probes of a half-open breaker.
#[derive(Debug, Default)]
struct Probes {
    /// Those in flight, with the end of their lease. Never more than `max_probes`.
    in_flight: Vec<(u64, Instant)>,
    /// How many may be in flight: 1, 2, 4, … with each success, half as many after a failure.
    ramp: u32,
    started: u64,
    succeeded: u32,
    failed: u32,
}

impl Probes {
    /// How many are in flight and have not overrun their lease.
    fn running(&self, now: Instant) -> usize {
        let leases = self.in_flight.iter();
        leases.filter(|(_, lease_end)| *lease_end > now).count()
    }
}

/// The breaker but for the counting of calls while it is closed.
#[derive(Debug)]
pub(super) struct Machine {
    settings: Settings,
    phase: Phase,
    epoch: u64,
    /// How often it has opened since it was last closed for good.
    openings: i32,
    /// How long it was open the last time.
    opened_for: Duration,
}

impl Machine {
    pub(super) fn new(settings: Settings, now: Instant) -> Self {
        Self {
            settings,
            phase: Phase::Closed {
                since: now,
                forced: false,
            },
            epoch: 0,
            openings: 0,
            opened_for: Duration::ZERO,
        }
    }

    pub(super) fn state(&self) -> State {
        match self.phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen(_) => State::HalfOpen,
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// When the open time is over. `None` if the breaker is not open, or open until further notice.
    pub(super) fn open_until(&self) -> Option<Instant> {
        match self.phase {
            Phase::Open { until } => until,
            _ => None,
        }
    }

    /// Opens, if the breaker has been closed since `epoch` began. `jitter` is from -1 to 1.
    pub(super) fn trip(
        &mut self,
        epoch: u64,
        cause: Cause,
        hint: Option<Duration>,
        now: Instant,
        jitter: f64,
    ) -> Option<Transition> {
        match self.phase {
            Phase::Closed {
                since,
                forced: false,
            } if epoch == self.epoch => {
                // Only a breaker that stayed closed for longer than it had been open has recovered.
                if now.saturating_duration_since(since) >= self.opened_for {
                    self.openings = 0;
                }
                Some(self.open(cause, hint, now, jitter))
            }
            _ => None,
        }
    }

    /// Lets a probe through, if the open time is over and not too many probes are in flight.
    pub(super) fn try_probe(&mut self, now: Instant) -> (Option<Probe>, Option<Transition>) {
        let transition = match self.phase {
            Phase::Open { until: Some(until) } if until <= now => {
                let probes = Probes {
                    ramp: 1,
                    ..Probes::default()
                };
                Some(self.enter(Phase::HalfOpen(probes), Cause::OpenTimeOver))
            }
            _ => None,
        };
        let epoch = self.epoch;
        let Phase::HalfOpen(probes) = &mut self.phase else {
            return (None, transition);
        };
        probes.in_flight.retain(|(_, lease_end)| *lease_end > now);
        if probes.in_flight.len() >= probes.ramp as usize {
            return (None, transition);
        }
        let serial = probes.started;
        probes.started += 1;
        let lease_end = saturating_add(now, self.settings.probe_lease);
        probes.in_flight.push((serial, lease_end));
        (Some(Probe { epoch, serial }), transition)
    }

    /// Says whether a half-open breaker would let another probe through.
    pub(super) fn has_free_probe(&self, now: Instant) -> bool {
        match &self.phase {
            Phase::HalfOpen(probes) => probes.running(now) < probes.ramp as usize,
            _ => false,
        }
    }

    /// Gives a probe's place back and counts how it ended. A probe of an earlier epoch changes nothing.
    pub(super) fn end_probe(
        &mut self,
        probe: Probe,
        end: ProbeEnd,
        now: Instant,
        jitter: f64,
    ) -> Option<Transition> {
        let Phase::HalfOpen(probes) = &mut self.phase else {
            return None;
        };
        if probe.epoch != self.epoch {
            return None;
        }
        // Its place may have been given to another one when its lease ended; what it found out counts.
        probes
            .in_flight
            .retain(|(serial, _)| *serial != probe.serial);
        match end {
            ProbeEnd::Released => None,
            ProbeEnd::Succeeded => {
                probes.succeeded += 1;
                probes.ramp = (probes.ramp * 2).min(self.settings.max_probes);
                let enough = probes.succeeded >= self.settings.successes_to_close;
                enough.then(|| self.close(now, false, Cause::ProbesSucceeded))
            }
            ProbeEnd::Failed(hint) => {
                probes.failed += 1;
                probes.ramp = (probes.ramp / 2).max(1);
                let hopeless = probes.failed > probes.succeeded;
                hopeless.then(|| self.open(Cause::ProbesFailed, hint, now, jitter))
            }
        }
    }

    /// Opens until the handle says otherwise.
    pub(super) fn force_open(&mut self) -> Transition {
        self.enter(Phase::Open { until: None }, Cause::Forced)
    }

    /// Closes and stays closed until the handle says otherwise.
    pub(super) fn force_closed(&mut self, now: Instant) -> Transition {
        self.close(now, true, Cause::Forced)
    }

    /// Closes and forgets everything.
    pub(super) fn reset(&mut self, now: Instant) -> Transition {
        self.openings = 0;
        self.close(now, false, Cause::Reset)
    }

    fn close(&mut self, now: Instant, forced: bool, cause: Cause) -> Transition {
        self.enter(Phase::Closed { since: now, forced }, cause)
    }

    fn open(
        &mut self,
        cause: Cause,
        hint: Option<Duration>,
        now: Instant,
        jitter: f64,
    ) -> Transition {
        let settings = &self.settings;
        let growth = settings.open_growth.powi(self.openings);
        let most = settings.open_most.max(settings.open_for).as_secs_f64();
        let grown = (settings.open_for.as_secs_f64() * growth).min(most);
        let own = Duration::from_secs_f64(grown * (1.0 + settings.open_jitter * jitter));
        // A service that asks for less than our own open time gets our own.
        let hint = hint.unwrap_or_default().min(settings.hint_most);
        let open_for = own.max(hint);
        self.openings = self.openings.saturating_add(1);
        self.opened_for = open_for;
        let until = Some(saturating_add(now, open_for));
        let mut transition = self.enter(Phase::Open { until }, cause);
        transition.open_for = Some(open_for);
        transition
    }

    fn enter(&mut self, phase: Phase, cause: Cause) -> Transition {
        let from = self.state();
        self.phase = phase;
        self.epoch += 1;
        Transition {
            from,
            to: self.state(),
            cause,
            open_for: None,
        }
    }
}
