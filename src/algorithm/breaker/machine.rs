//! The states of the circuit breaker, and the probes of a half-open breaker. Times are nanoseconds since the breaker
//! was made.
//!
//! A breaker changes its *epoch* with each change of state. A call that began in an earlier epoch cannot change the
//! state.

use std::time::Duration;

use crate::nanos::whole_nanos;

/// The end of an open time that only the handle ends.
pub(super) const NEVER: u64 = u64::MAX;

/// Time for which an unused breaker is kept after its open time, or the open time itself if that is longer. It is
/// several times the default window of a closed breaker.
const MEMORY: Duration = Duration::from_secs(60);

/// The state of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Calls pass and are counted.
    Closed,
    /// Calls are rejected.
    Open,
    /// A few calls pass as probes. All other calls are rejected.
    HalfOpen,
}

/// The reason for which a circuit breaker changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransitionCause {
    /// The share of failures was above the threshold.
    FailureShare,
    /// The set number of failures in a row was reached.
    ConsecutiveFailures,
    /// The share of slow calls was above the threshold.
    SlowCalls,
    /// The open time was over.
    OpenTimeOver,
    /// More probes failed than succeeded.
    ProbesFailed,
    /// Enough probes succeeded.
    ProbesSucceeded,
    /// The handle forced the state.
    Forced,
    /// The handle reset the breaker.
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
    /// The reason for the change.
    pub cause: TransitionCause,
    /// Time for which the breaker stays open, if it opened for a limited time.
    pub open_for: Option<Duration>,
    /// The number of calls that the decision is based on: those of the window, or the probes. 0 if there are none.
    pub calls: u64,
    /// The number of them that failed.
    pub failures: u64,
    /// The number of them that were slow.
    pub slow: u64,
}

/// The settings of the decisions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) failure_share: f64,
    pub(crate) min_calls: u32,
    /// `true` if fewer failures also open the breaker, provided they belong to several operations and to more than one
    /// slice of the window.
    pub(crate) judges_few: bool,
    pub(crate) consecutive_failures: Option<u32>,
    pub(crate) slow_calls: Option<(Duration, f64)>,
    pub(crate) open_for: Duration,
    pub(crate) open_jitter: f64,
    pub(crate) open_growth: f64,
    pub(crate) max_open: Duration,
    pub(crate) max_retry_after: Duration,
    pub(crate) successes_to_close: u32,
    pub(crate) max_probes: u32,
    pub(crate) probe_lease: Duration,
    /// The timeout of an attempt, if it has one.
    pub(crate) timeout: Option<Duration>,
}

/// A call that a half-open breaker has admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    epoch: u64,
    /// The serial number, with the bit [`SHORT`](Self::SHORT) for a [short](Probes::short) probe, so that the bit does
    /// not enlarge the permit.
    serial: u64,
}

impl Probe {
    const SHORT: u64 = 1 << 63;

    fn is_short(self) -> bool {
        self.serial & Self::SHORT != 0
    }
}

/// End of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeEnd {
    Succeeded,
    /// The probe failed. Contains the time for which the service asked callers to stay away.
    Failed(Option<Duration>),
    /// The probe failed after it had counted as a success.
    Disproved(Option<Duration>),
    /// The probe was ignored or cancelled, and counts neither way.
    Released,
}

#[derive(Debug)]
enum Phase {
    Closed { since: u64, forced: bool },
    Open { until: u64 },
    HalfOpen(Probes),
}

/// The probes of a half-open breaker.
#[derive(Debug)]
struct Probes {
    /// The probes in flight, with the end of their lease. There are never more than `max_probes`.
    in_flight: Vec<(u64, u64)>,
    /// The end of the lease of a probe with too little time to prove a failure, or of the pause after it. Such a probe
    /// has a place of its own, so that it takes no place from probes with enough time.
    short: u64,
    /// Number of probes that may be in flight: it doubles with each success (1, 2, 4, …), and halves after a failure.
    ramp: u32,
    started: u64,
    succeeded: u32,
    failed: u32,
    /// Time at which a probe last began or ended.
    last: u64,
}

impl Probes {
    fn new(now: u64) -> Self {
        Self {
            in_flight: Vec::new(),
            short: 0,
            ramp: 1,
            started: 0,
            succeeded: 0,
            failed: 0,
            last: now,
        }
    }

    /// Returns the number of probes in flight that have enough time and whose lease has not ended.
    fn running(&self, now: u64) -> usize {
        let leases = self.in_flight.iter();
        leases.filter(|(_, lease_end)| *lease_end > now).count()
    }
}

/// The state machine of the breaker, without the counts of a closed breaker.
#[derive(Debug)]
pub(super) struct Machine {
    settings: Settings,
    phase: Phase,
    epoch: u64,
    /// Number of openings since the breaker last recovered.
    openings: i32,
    /// Its last open time.
    opened_for: Duration,
}

impl Machine {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            phase: Phase::Closed {
                since: 0,
                forced: false,
            },
            epoch: 0,
            openings: 0,
            opened_for: Duration::ZERO,
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Replaces the settings. The state stays: an open time and the leases of probes end when they were to end.
    pub(super) fn adjust(&mut self, settings: Settings) {
        if let Phase::HalfOpen(probes) = &mut self.phase {
            probes.ramp = probes.ramp.min(settings.max_probes);
        }
        self.settings = settings;
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

    /// Returns the end of the open time; [`NEVER`] if the breaker is not open, or open until further notice.
    pub(super) fn open_until(&self) -> u64 {
        match self.phase {
            Phase::Open { until } => until,
            _ => NEVER,
        }
    }

    /// Opens the breaker, if it has been closed since `epoch` began. `jitter` is from -1 to 1.
    pub(super) fn trip(
        &mut self,
        epoch: u64,
        cause: TransitionCause,
        retry_after: Option<Duration>,
        now: u64,
        jitter: f64,
    ) -> Option<Transition> {
        match self.phase {
            Phase::Closed {
                since,
                forced: false,
            } if epoch == self.epoch => {
                // A breaker has recovered only if it stayed closed for longer than it had been open.
                if now.saturating_sub(since) >= whole_nanos(self.opened_for) {
                    self.openings = 0;
                }
                Some(self.open(cause, retry_after, now, jitter))
            }
            _ => None,
        }
    }

    /// Admits a probe, if the open time is over and not too many probes are in flight. A `short` probe has less time
    /// than a proof of a failure needs.
    pub(super) fn try_probe(
        &mut self,
        is_short: bool,
        now: u64,
    ) -> (Option<Probe>, Option<Transition>) {
        let transition = match self.phase {
            Phase::Open { until } if until <= now => Some(self.enter(
                Phase::HalfOpen(Probes::new(now)),
                TransitionCause::OpenTimeOver,
            )),
            _ => None,
        };
        let epoch = self.epoch;
        let Phase::HalfOpen(probes) = &mut self.phase else {
            return (None, transition);
        };
        probes.in_flight.retain(|(_, lease_end)| *lease_end > now);
        let is_free = if is_short {
            probes.short <= now
        } else {
            probes.in_flight.len() < probes.ramp as usize
        };
        if !is_free {
            return (None, transition);
        }
        let mut serial = probes.started;
        probes.started += 1;
        let lease_end = now.saturating_add(whole_nanos(self.settings.probe_lease));
        if is_short {
            serial |= Probe::SHORT;
            probes.short = lease_end;
        } else {
            probes.in_flight.push((serial, lease_end));
        }
        probes.last = now;
        (Some(Probe { epoch, serial }), transition)
    }

    /// Returns whether a half-open breaker would admit another probe.
    pub(super) fn has_free_probe(&self, now: u64) -> bool {
        match &self.phase {
            Phase::HalfOpen(probes) => probes.running(now) < probes.ramp as usize,
            _ => false,
        }
    }

    /// Returns whether the breaker may be dropped: it is closed, or was not called for a long time after its open time.
    /// Never if the handle has forced its state, and never while a probe is in flight.
    pub(super) fn is_evictable(&self, now: u64) -> bool {
        let memory = whole_nanos(MEMORY.max(self.opened_for));
        let is_over = |last: u64| last.saturating_add(memory) <= now;
        match &self.phase {
            Phase::Closed { forced, .. } => !forced,
            Phase::Open { until } => is_over(*until),
            Phase::HalfOpen(probes) => probes.running(now) == 0 && is_over(probes.last),
        }
    }

    /// Gives a probe's place back and counts its result. A probe of an earlier epoch changes nothing.
    pub(super) fn end_probe(
        &mut self,
        probe: Probe,
        end: ProbeEnd,
        now: u64,
        jitter: f64,
    ) -> Option<Transition> {
        let Phase::HalfOpen(probes) = &mut self.phase else {
            return None;
        };
        if probe.epoch != self.epoch {
            return None;
        }
        // Another probe may have taken its place when its lease ended, but its result counts.
        probes
            .in_flight
            .retain(|(serial, _)| *serial != probe.serial);
        if probe.is_short() {
            // After a probe without a result, the next one does not follow at once, because many such probes would be a
            // considerable load.
            probes.short = match end {
                ProbeEnd::Released => now.saturating_add(whole_nanos(self.settings.open_for)),
                _ => 0,
            };
        }
        probes.last = now;
        let transition = match end {
            ProbeEnd::Released => return None,
            ProbeEnd::Succeeded => {
                probes.succeeded += 1;
                probes.ramp = (probes.ramp * 2).min(self.settings.max_probes);
                let enough = probes.succeeded >= self.settings.successes_to_close;
                let counts = (probes.succeeded, probes.failed);
                let close = || self.close(now, false, TransitionCause::ProbesSucceeded);
                enough.then(close).zip(Some(counts))
            }
            ProbeEnd::Failed(retry_after) | ProbeEnd::Disproved(retry_after) => {
                if let ProbeEnd::Disproved(_) = end {
                    probes.succeeded = probes.succeeded.saturating_sub(1);
                }
                probes.failed += 1;
                probes.ramp = (probes.ramp / 2).max(1);
                let hopeless = probes.failed > probes.succeeded;
                let counts = (probes.succeeded, probes.failed);
                let open = || self.open(TransitionCause::ProbesFailed, retry_after, now, jitter);
                hopeless.then(open).zip(Some(counts))
            }
        };
        let (transition, (succeeded, failed)) = transition?;
        Some(Transition {
            calls: u64::from(succeeded) + u64::from(failed),
            failures: u64::from(failed),
            ..transition
        })
    }

    /// Opens the breaker until the handle changes its state.
    pub(super) fn force_open(&mut self) -> Transition {
        self.enter(Phase::Open { until: NEVER }, TransitionCause::Forced)
    }

    /// Closes the breaker until the handle changes its state.
    pub(super) fn force_closed(&mut self, now: u64) -> Transition {
        self.close(now, true, TransitionCause::Forced)
    }

    /// Closes the breaker and forgets all counts.
    pub(super) fn reset(&mut self, now: u64) -> Transition {
        self.openings = 0;
        self.close(now, false, TransitionCause::Reset)
    }

    fn close(&mut self, now: u64, forced: bool, cause: TransitionCause) -> Transition {
        self.enter(Phase::Closed { since: now, forced }, cause)
    }

    fn open(
        &mut self,
        cause: TransitionCause,
        retry_after: Option<Duration>,
        now: u64,
        jitter: f64,
    ) -> Transition {
        let settings = &self.settings;
        let growth = settings.open_growth.powi(self.openings);
        let most = settings.max_open.max(settings.open_for).as_secs_f64();
        let grown = (settings.open_for.as_secs_f64() * growth).min(most);
        let own = Duration::from_secs_f64(grown * (1.0 + settings.open_jitter * jitter));
        // If the service asks for less than the own open time, the own open time applies.
        let retry_after = retry_after
            .unwrap_or_default()
            .min(settings.max_retry_after);
        let open_for = own.max(retry_after);
        self.openings = self.openings.saturating_add(1);
        self.opened_for = open_for;
        let until = now.saturating_add(whole_nanos(open_for));
        let mut transition = self.enter(Phase::Open { until }, cause);
        transition.open_for = Some(open_for);
        transition
    }

    fn enter(&mut self, phase: Phase, cause: TransitionCause) -> Transition {
        let from = self.state();
        self.phase = phase;
        self.epoch += 1;
        Transition {
            from,
            to: self.state(),
            cause,
            open_for: None,
            calls: 0,
            failures: 0,
            slow: 0,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    pub(in super::super) fn settings() -> Settings {
        Settings {
            failure_share: 0.5,
            min_calls: 20,
            judges_few: true,
            consecutive_failures: None,
            slow_calls: None,
            open_for: Duration::from_secs(2),
            open_jitter: 0.25,
            open_growth: 1.0,
            max_open: Duration::from_secs(60),
            max_retry_after: Duration::from_secs(30),
            successes_to_close: 5,
            max_probes: 8,
            probe_lease: Duration::from_secs(5),
            timeout: Some(Duration::from_secs(2)),
        }
    }

    /// A machine with a clock that is moved by hand.
    struct Bench {
        machine: Machine,
        now: u64,
    }

    impl Bench {
        fn new(settings: Settings) -> Self {
            Self {
                machine: Machine::new(settings),
                now: 0,
            }
        }

        fn half_open(settings: Settings) -> (Self, Probe) {
            let mut bench = Self::new(settings);
            bench.trip(None);
            bench.wait(3);
            let probe = bench.probe().expect("the open time is over");
            (bench, probe)
        }

        fn wait(&mut self, seconds: u64) {
            self.now += SECOND * seconds;
        }

        /// Opens, and says for how long.
        fn trip(&mut self, retry_after: Option<Duration>) -> Duration {
            let (epoch, cause) = (self.machine.epoch(), TransitionCause::FailureShare);
            let transition = self.machine.trip(epoch, cause, retry_after, self.now, 0.0);
            transition.expect("closed").open_for.expect("for a time")
        }

        fn probe(&mut self) -> Option<Probe> {
            self.machine.try_probe(false, self.now).0
        }

        fn end(&mut self, probe: Probe, end: ProbeEnd) -> Option<State> {
            let transition = self.machine.end_probe(probe, end, self.now, 0.0)?;
            Some(transition.to)
        }
    }

    #[test]
    fn an_open_breaker_is_remembered_until_it_has_been_idle_for_long() {
        let mut bench = Bench::new(settings());
        assert!(bench.machine.is_evictable(bench.now), "closed");
        let open_for = bench.trip(None);
        bench.now += whole_nanos(open_for);
        bench.wait(MEMORY.as_secs() - 1);
        assert!(!bench.machine.is_evictable(bench.now));
        bench.wait(1);
        assert!(bench.machine.is_evictable(bench.now));

        let probe = bench.probe().expect("the open time is over");
        assert!(
            !bench.machine.is_evictable(bench.now),
            "a probe is under way"
        );
        bench.end(probe, ProbeEnd::Succeeded);
        bench.wait(MEMORY.as_secs() - 1);
        assert!(!bench.machine.is_evictable(bench.now));
        bench.wait(1);
        assert!(bench.machine.is_evictable(bench.now), "half-open and idle");

        let (mut bench, _lost) = Bench::half_open(settings());
        bench.wait(MEMORY.as_secs());
        assert!(bench.machine.is_evictable(bench.now), "the probe is lost");
        let open_for = {
            let mut settings = settings();
            settings.max_retry_after = Duration::from_secs(200);
            let mut bench = Bench::new(settings);
            let open_for = bench.trip(Some(Duration::from_secs(200)));
            bench.now += whole_nanos(open_for + MEMORY);
            assert!(
                !bench.machine.is_evictable(bench.now),
                "it was open for longer"
            );
            open_for
        };
        assert_eq!(open_for, Duration::from_secs(200));
    }

    #[test]
    fn a_breaker_that_was_forced_is_never_forgotten() {
        let mut bench = Bench::new(settings());
        for force in [
            |bench: &mut Bench| bench.machine.force_closed(bench.now),
            |bench: &mut Bench| bench.machine.force_open(),
        ] {
            let _transition = force(&mut bench);
            bench.wait(1_000_000);
            assert!(!bench.machine.is_evictable(bench.now));
        }
        let _transition = bench.machine.reset(bench.now);
        assert!(bench.machine.is_evictable(bench.now));
    }

    #[test]
    fn probes_in_flight_double_with_each_success_and_halve_with_each_failure() {
        let mut settings = settings();
        settings.successes_to_close = 100;
        let (mut bench, first) = Bench::half_open(settings);
        assert_eq!(bench.probe(), None, "one at first");
        bench.end(first, ProbeEnd::Succeeded);
        let mut probes = Vec::new();
        for most in [2, 4, 8, 8] {
            probes.extend(std::iter::from_fn(|| bench.probe()));
            assert_eq!(probes.len(), most);
            bench.end(probes.remove(0), ProbeEnd::Succeeded);
        }
        bench.end(probes.remove(0), ProbeEnd::Failed(None));
        bench.end(probes.remove(0), ProbeEnd::Failed(None));
        for probe in probes.split_off(1) {
            bench.end(probe, ProbeEnd::Released);
        }
        probes.extend(std::iter::from_fn(|| bench.probe()));
        assert_eq!(probes.len(), 2);
    }

    #[test]
    fn five_successes_close_and_more_failures_than_successes_open() {
        let (mut bench, mut probe) = Bench::half_open(settings());
        for success in 1..=5 {
            let state = bench.end(probe, ProbeEnd::Succeeded);
            assert_eq!(state, (success == 5).then_some(State::Closed));
            probe = bench.probe().unwrap_or(probe);
        }
        let (mut bench, probe) = Bench::half_open(settings());
        assert_eq!(bench.end(probe, ProbeEnd::Failed(None)), Some(State::Open));
        let (mut bench, probe) = Bench::half_open(settings());
        bench.end(probe, ProbeEnd::Succeeded);
        let (second, third) = (bench.probe().unwrap(), bench.probe().unwrap());
        assert_eq!(bench.end(second, ProbeEnd::Failed(None)), None, "one each");
        assert_eq!(bench.end(third, ProbeEnd::Failed(None)), Some(State::Open));
    }

    #[test]
    fn a_success_that_turns_out_to_be_a_failure_is_one_failure() {
        let (mut bench, probe) = Bench::half_open(settings());
        bench.end(probe, ProbeEnd::Succeeded);
        let disproved = ProbeEnd::Disproved(None);
        assert_eq!(bench.end(probe, disproved), Some(State::Open), "0 to 1");

        let (mut bench, first) = Bench::half_open(settings());
        bench.end(first, ProbeEnd::Succeeded);
        let (second, third) = (bench.probe().unwrap(), bench.probe().unwrap());
        bench.end(second, ProbeEnd::Succeeded);
        assert_eq!(bench.end(first, disproved), None, "one each");
        for _ in 0..3 {
            assert_eq!(bench.end(third, ProbeEnd::Succeeded), None);
        }
        assert_eq!(bench.end(third, ProbeEnd::Succeeded), Some(State::Closed));
        assert_eq!(bench.end(third, disproved), None, "closed by then");
    }

    #[test]
    fn what_probes_found_out_counts_however_long_ago() {
        let (mut bench, mut probe) = Bench::half_open(settings());
        for _ in 0..4 {
            assert_eq!(bench.end(probe, ProbeEnd::Succeeded), None);
            bench.wait(3_600);
            probe = bench.probe().unwrap();
        }
        assert_eq!(bench.end(probe, ProbeEnd::Succeeded), Some(State::Closed));
    }

    #[test]
    fn a_hanging_probe_gives_its_place_to_another_but_still_counts() {
        let (mut bench, hanging) = Bench::half_open(settings());
        bench.wait(4);
        assert_eq!(bench.probe(), None);
        bench.wait(1);
        let second = bench.probe().expect("the lease of the first is over");
        assert_eq!(bench.probe(), None, "one place, given once");
        bench.end(hanging, ProbeEnd::Released);
        assert_eq!(bench.probe(), None, "the place is the second one's now");
        bench.end(hanging, ProbeEnd::Succeeded);
        assert!(bench.probe().is_some(), "two may be in flight");
        bench.end(second, ProbeEnd::Released);
    }

    #[test]
    fn a_probe_of_an_earlier_half_open_state_changes_nothing() {
        let (mut bench, old) = Bench::half_open(settings());
        bench.wait(5);
        let failing = bench.probe().unwrap();
        assert_eq!(
            bench.end(failing, ProbeEnd::Failed(None)),
            Some(State::Open)
        );
        assert_eq!(bench.end(old, ProbeEnd::Failed(None)), None, "open already");
        bench.wait(3);
        let new = bench.probe().unwrap();
        for _ in 0..9 {
            assert_eq!(bench.end(old, ProbeEnd::Succeeded), None);
            assert_eq!(bench.end(old, ProbeEnd::Failed(None)), None);
        }
        assert_eq!(bench.probe(), None, "the new probe still has its place");
        assert_eq!(bench.end(new, ProbeEnd::Failed(None)), Some(State::Open));
    }

    #[test]
    fn only_the_epoch_that_is_running_can_trip() {
        let mut bench = Bench::new(settings());
        let epoch = bench.machine.epoch();
        bench.trip(None);
        let _ = bench.machine.reset(bench.now);
        let trip = |machine: &mut Machine, epoch, now| {
            machine.trip(epoch, TransitionCause::FailureShare, None, now, 0.0)
        };
        assert_eq!(trip(&mut bench.machine, epoch, bench.now), None);
        let epoch = bench.machine.epoch();
        assert!(trip(&mut bench.machine, epoch, bench.now).is_some());
    }

    #[test]
    fn the_open_time_grows_to_its_most_and_starts_again_after_a_recovery_that_lasts() {
        let mut settings = settings();
        settings.open_growth = 2.0;
        settings.max_open = Duration::from_secs(10);
        let mut bench = Bench::new(settings);
        bench.wait(100);
        assert_eq!(bench.trip(None).as_secs(), 2);
        for expected in [4, 8, 10, 10] {
            bench.wait(20);
            let probe = bench.probe().unwrap();
            bench.end(probe, ProbeEnd::Failed(None));
            let until = bench.machine.open_until();
            assert_eq!((until - bench.now) / SECOND, expected);
        }
        let close = |bench: &mut Bench| {
            bench.wait(20);
            while bench.machine.state() != State::Closed {
                let probe = bench.probe().unwrap();
                bench.end(probe, ProbeEnd::Succeeded);
            }
        };
        close(&mut bench);
        bench.wait(9);
        assert_eq!(
            bench.trip(None).as_secs(),
            10,
            "closed for too short a time"
        );
        close(&mut bench);
        bench.wait(10);
        assert_eq!(bench.trip(None).as_secs(), 2);
    }

    #[test]
    fn after_a_reset_the_open_time_begins_to_grow_anew() {
        let mut settings = settings();
        settings.open_growth = 2.0;
        settings.max_open = Duration::from_secs(10);
        let mut bench = Bench::new(settings);
        assert_eq!(bench.trip(None).as_secs(), 2);
        bench.wait(20);
        let probe = bench.probe().unwrap();
        bench.end(probe, ProbeEnd::Failed(None));
        let _ = bench.machine.reset(bench.now);
        assert_eq!(bench.trip(None).as_secs(), 2);
    }

    #[test]
    fn a_thousand_openings_do_not_overflow() {
        let mut settings = settings();
        settings.open_growth = 10.0;
        let (mut bench, mut probe) = Bench::half_open(settings);
        for _ in 0..1_000 {
            bench.end(probe, ProbeEnd::Failed(None));
            bench.wait(61);
            probe = bench.probe().expect("open for a minute at most");
        }
    }

    #[test]
    fn the_service_may_ask_for_more_time_but_not_for_less_or_for_ever() {
        let open_for = |retry_after| Bench::new(settings()).trip(Some(retry_after)).as_secs();
        assert_eq!(open_for(Duration::ZERO), 2);
        assert_eq!(open_for(Duration::from_secs(1)), 2);
        assert_eq!(open_for(Duration::from_secs(20)), 20);
        assert_eq!(open_for(Duration::MAX), 30);
    }

    #[test]
    fn jitter_stays_within_its_share() {
        for (jitter, millis) in [(-1.0, 1_500), (0.0, 2_000), (1.0, 2_500)] {
            let mut bench = Bench::new(settings());
            let transition =
                bench
                    .machine
                    .trip(0, TransitionCause::SlowCalls, None, bench.now, jitter);
            let open_for = transition.unwrap().open_for.unwrap();
            assert_eq!(open_for.as_millis(), millis);
        }
    }

    #[test]
    fn a_probe_with_too_little_time_has_a_place_of_its_own() {
        let (mut bench, probe) = Bench::half_open(settings());
        let short = |bench: &mut Bench| bench.machine.try_probe(true, bench.now).0;
        let first = short(&mut bench).expect("beside the other one");
        assert_eq!((short(&mut bench), bench.probe()), (None, None));
        assert_eq!(bench.end(first, ProbeEnd::Released), None);
        assert_eq!(short(&mut bench), None, "the next one waits");
        bench.wait(2);
        let second = short(&mut bench).expect("after the pause");
        assert_eq!(bench.end(second, ProbeEnd::Succeeded), None);
        assert!(short(&mut bench).is_some(), "at once after a success");
        assert_eq!(bench.end(probe, ProbeEnd::Succeeded), None);
    }

    #[test]
    fn successes_of_short_probes_close_the_breaker() {
        let mut bench = Bench::new(settings());
        bench.trip(None);
        bench.wait(3);
        for success in 1..=5 {
            let probe = bench.machine.try_probe(true, bench.now).0;
            let end = bench.end(probe.expect("free"), ProbeEnd::Succeeded);
            assert_eq!(end, (success == 5).then_some(State::Closed));
        }
    }

    #[test]
    fn a_forced_state_stays_whatever_happens() {
        let mut bench = Bench::new(settings());
        let _ = bench.machine.force_open();
        bench.wait(1_000_000);
        assert_eq!(bench.probe(), None);
        let _ = bench.machine.force_closed(bench.now);
        let epoch = bench.machine.epoch();
        let trip = bench
            .machine
            .trip(epoch, TransitionCause::FailureShare, None, bench.now, 0.0);
        assert_eq!((trip, bench.machine.state()), (None, State::Closed));
        let _ = bench.machine.reset(bench.now);
        bench.trip(None);
    }

    proptest! {
        /// Whatever has happened: after some time, a stream of successes closes the breaker.
        #[test]
        fn every_state_has_an_exit(
            steps in prop::collection::vec((0_u8..8, 0_u64..10, -1.0_f64..=1.0), 0..100),
            growth in 1.0_f64..=10.0, max_probes in 1_u32..20, successes_to_close in 1_u32..20,
        ) {
            let mut bench = Bench::new(Settings {
                open_growth: growth, max_probes, successes_to_close, ..settings()
            });
            let mut probes = Vec::new();
            for (step, seconds, jitter) in steps {
                let (now, epoch) = (bench.now, bench.machine.epoch());
                let machine = &mut bench.machine;
                match step {
                    0 => { machine.trip(epoch, TransitionCause::FailureShare, None, now, jitter); }
                    1 => { machine.trip(epoch.saturating_sub(1), TransitionCause::SlowCalls, None, now, jitter); }
                    2 => probes.extend(machine.try_probe(false, now).0),
                    7 => probes.extend(machine.try_probe(true, now).0),
                    3 => bench.wait(seconds),
                    _ => if let Some(probe) = probes.pop() {
                        let end = match step {
                            4 => ProbeEnd::Succeeded,
                            5 => ProbeEnd::Failed(Some(Duration::from_secs(seconds))),
                            _ => ProbeEnd::Released,
                        };
                        machine.end_probe(probe, end, now, jitter);
                    }
                }
            }
            bench.wait(301);
            for _ in 0..successes_to_close {
                if let Some(probe) = bench.probe() {
                    bench.end(probe, ProbeEnd::Succeeded);
                }
            }
            prop_assert_eq!(bench.machine.state(), State::Closed);
        }
    }
}
