//! An endpoint as the user describes it, and as all handles of a balancer share it.

use std::sync::Arc;
use std::sync::atomic::AtomicU32 as StdAtomicU32;
use std::time::Duration;

use tokio::time::Instant;

use super::flight::Counts;
use super::host_set::{Condition, EndpointState, HostSet};
use super::label::Label;
use crate::algorithm::evidence::{Early, LastGood, Terms};
use crate::algorithm::failover::LAST;
use crate::algorithm::last_calls::LastCalls;
use crate::algorithm::load::{self, Cost, End, Load};
use crate::algorithm::outlier::{HostRecord, Record};
use crate::context::{self, GivenUp};
use crate::debug::debug_fields;
use crate::discover::Target;
use crate::error::Check;
use crate::event::EventKind;
use crate::nanos::after;
use crate::sync::{AtomicU64, Ordering};
use crate::telemetry::REJECTED;
use crate::{Availability, ConfigError, Error, ErrorKind, Outcome};

/// Time for which the balancer avoids an endpoint that has refused a call without naming a time.
const REFUSED_FOR: Duration = Duration::from_millis(100);
/// The longest time for which the balancer avoids an endpoint because of one refusal or overload.
const MAX_REFUSED: Duration = Duration::from_secs(300);
/// Time for which an endpoint must have been unavailable before its group counts as smaller. A bulkhead that is full
/// for a moment must not move calls to another group, from which they return slowly.
const DOWN_AFTER: Duration = Duration::from_secs(1);
/// The least number of waiting calls of a hanging endpoint. One or two calls may be slow by themselves.
const HANGING_CALLS: u32 = 3;

/// One of the services to which a [`Balance`](super::Balance) sends calls.
///
/// # Examples
///
/// ```
/// use buttress::CircuitBreakerLayer;
/// use buttress::balance::Endpoint;
/// # let client = tower::service_fn(|_: ()| async { Ok::<_, buttress::BoxError>(()) });
///
/// let breaker = CircuitBreakerLayer::new("search-1");
/// let endpoint = Endpoint::new("10.0.0.1:80", breaker.wrap(client))
///     .weight(2.0)
///     .available(breaker.handle());
/// ```
#[derive(Clone)]
#[must_use = "an endpoint gets calls from the balancer it is given to"]
pub struct Endpoint<S> {
    pub(super) about: About,
    pub(super) service: S,
}

/// The properties of an endpoint, without its service.
#[derive(Clone)]
pub(super) struct About {
    pub(super) key: Arc<str>,
    pub(super) weight: f64,
    pub(super) priority: u8,
    pub(super) is_standby: bool,
    pub(super) zone: Option<Arc<str>>,
    pub(super) available: Option<Arc<dyn Availability>>,
}

impl<S> Endpoint<S> {
    /// Makes an endpoint of weight 1. The key distinguishes it from the others; an address is a good key.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a reference to a text or an address would be awkward to write"
    )]
    pub fn new(key: impl ToString, service: S) -> Self {
        Self {
            about: About {
                key: key.to_string().into(),
                weight: 1.0,
                priority: 0,
                is_standby: false,
                zone: None,
                available: None,
            },
            service,
        }
    }

    /// Sets the weight: the share of the calls, in comparison with other endpoints; 0.001 to 1000.
    pub fn weight(mut self, weight: f64) -> Self {
        self.about.weight = weight;
        self
    }

    /// Sets the priority, 0 to 7, by which endpoints form groups. The group of priority 0 gets calls first. 0 by
    /// default.
    ///
    /// The other groups get calls when the groups before them are not healthy: see [priority
    /// groups](crate::balance#priority-groups).
    pub fn priority(mut self, priority: u8) -> Self {
        self.about.priority = priority;
        self
    }

    /// Makes the group of this priority a standby. It gets calls only when the groups before it cannot take them or
    /// have no endpoint to offer. The last attempt of a [retry](crate::retry) does not go there only because its own
    /// group fails.
    pub fn standby(mut self) -> Self {
        self.about.is_standby = true;
        self
    }

    /// Sets the zone, which the [status](EndpointStatus::zone) shows. It does not affect the choice of endpoints.
    pub fn zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.about.zone = Some(zone.into());
        self
    }

    /// Sets an availability. The balancer avoids this endpoint while `availability` says that it would not take a call.
    ///
    /// Use the handle of the endpoint's own circuit breaker or bulkhead. The balancer asks it in the path of a call,
    /// for each endpoint that may be chosen.
    pub fn available(mut self, availability: impl Availability + 'static) -> Self {
        self.about.available = Some(Arc::new(availability));
        self
    }

    /// Returns the same endpoint with the service that `make` makes of its service.
    #[cfg(feature = "http")]
    pub(crate) fn map<T>(self, make: impl FnOnce(S) -> T) -> Endpoint<T> {
        Endpoint {
            service: make(self.service),
            about: self.about,
        }
    }

    /// Returns the same endpoint with the service that `make` makes of its service, or an error.
    #[cfg(feature = "http")]
    pub(crate) fn try_map<T, E>(
        self,
        make: impl FnOnce(S) -> Result<T, E>,
    ) -> Result<Endpoint<T>, E> {
        Ok(Endpoint {
            service: make(self.service)?,
            about: self.about,
        })
    }
}

/// Makes an endpoint of an address, which is also its key. A whole client, such as `http::client`, makes a service of
/// it.
impl<A: ToString> From<A> for Endpoint<A> {
    fn from(address: A) -> Self {
        Self::new(address.to_string(), address)
    }
}

impl About {
    /// Sets the properties that are set in `target`.
    pub(super) fn with<A>(self, target: Target<A>) -> Self {
        Self {
            weight: target.weight.unwrap_or(self.weight),
            priority: target.priority.unwrap_or(self.priority),
            is_standby: target.standby || self.is_standby,
            zone: target.zone.or(self.zone),
            ..self
        }
    }

    /// Returns whether an endpoint that is described so keeps the statistics that it has as `former`.
    pub(super) fn keeps_statistics_of(&self, former: &Self) -> bool {
        (self.priority, self.is_standby, &self.zone)
            == (former.priority, former.is_standby, &former.zone)
    }

    pub(super) fn check(&self, name: &str) -> Result<(), ConfigError> {
        let check = Check::new("balance", name)?;
        check.within("weight", &self.weight, 1e-3..=1e3, "0.001 to 1000")?;
        check.within("priority", &self.priority, ..=LAST, "0 to 7")
    }
}

debug_fields!([S] Endpoint<S> { about.key, about.weight, about.priority, about.zone });

/// Measure by which loads are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadMetric {
    /// `(latency + penalty · failure share²)² × (in flight + 1) / weight`, with the latency as a peak-sensitive,
    /// exponentially weighted moving average.
    #[default]
    PeakEwma,
    /// `(in flight + 1) / weight`.
    InFlight,
}

/// The shared state of an endpoint, without its service.
///
/// It lives as long as a call is in flight on the endpoint, even if the endpoint was removed.
pub(super) struct Host {
    /// Unique in the process, because balancers may be inside each other; never 0.
    pub(super) id: u32,
    /// Its properties. The weight is in the condition.
    pub(super) about: About,
    pub(super) load: Load,
    pub(super) condition: Condition,
    pub(super) record: Record,
    last_good: LastGood,
    /// Its last first attempts. Written only with several groups.
    pub(super) last_calls: LastCalls,
    pub(super) peers: Arc<HostSet>,
    /// Its label in metrics, if endpoints are reported.
    pub(super) label: Option<Arc<Label>>,
    /// The time since which it would not take a call; `u64::MAX` if it would. Known only with several groups.
    unavailable_since: AtomicU64,
    /// Time of the first look since its last answer. Known only with several groups.
    silent_look: AtomicU64,
}

impl Host {
    /// Makes an endpoint with the expected `latency` in seconds. `is_late` is `true` if other endpoints have been in
    /// use for a while.
    pub(super) fn new(
        about: About,
        peers: &Arc<HostSet>,
        latency: f64,
        now: u64,
        is_late: bool,
    ) -> Self {
        static NEXT: StdAtomicU32 = StdAtomicU32::new(1);
        let id = match NEXT.fetch_add(1, Ordering::Relaxed) {
            0 => NEXT.fetch_add(1, Ordering::Relaxed),
            id => id,
        };
        let is_slow = is_late && peers.slow_start > 0;
        let max_labels = peers.settings.endpoint_metrics;
        Self {
            id,
            load: Load::new(latency, now),
            condition: Condition::new(about.weight, is_slow.then_some(now)),
            record: Record::new(),
            last_good: LastGood::of_new_part(now),
            last_calls: LastCalls::new(),
            peers: Arc::clone(peers),
            label: max_labels.map(|max| peers.metrics.levels().labels.enter(&about.key, max)),
            unavailable_since: AtomicU64::new(u64::MAX),
            silent_look: AtomicU64::new(now),
            about,
        }
    }

    #[inline]
    pub(super) fn priority(&self) -> u8 {
        self.about.priority
    }

    /// Notes that the endpoint was removed from the balancer.
    pub(super) fn leave(&self) {
        if let Some(label) = &self.label {
            self.peers.metrics.levels().labels.leave(label);
        }
    }

    /// Returns whether the endpoint would take a call.
    #[inline]
    pub(super) fn is_selectable(&self, now: u64) -> bool {
        let is_panic = || self.peers.failover.is_panic(self.priority(), now);
        self.condition.is_selectable(now, is_panic) && self.is_available()
    }

    #[inline]
    fn is_available(&self) -> bool {
        let available = self.about.available.as_ref();
        available.is_none_or(|available| available.is_available())
    }

    /// Notes whether the endpoint is available, and whether it has answered since the last look. Called without a lock:
    /// availability is code of the user.
    pub(super) fn look(&self, now: u64) {
        let (_, silence) = self.load.silence(now);
        if silence < now.saturating_sub(self.silent_look.load(Ordering::Relaxed)) {
            self.silent_look.store(now, Ordering::Relaxed);
        }
        if !self.condition.is_refusing(now) && self.is_available() {
            self.unavailable_since.store(u64::MAX, Ordering::Relaxed);
        } else {
            self.unavailable_since.fetch_min(now, Ordering::Relaxed);
        }
    }

    /// Returns whether the endpoint counts as unhealthy in its group. An endpoint that [hangs](Self::hangs) counts only
    /// if most of its group hang.
    pub(super) fn is_down(&self, now: u64) -> bool {
        let since = self.unavailable_since.load(Ordering::Relaxed);
        self.condition.is_out_until() > now
            || after(since, DOWN_AFTER) <= now
            || self.last_calls.fails_until(now) > now
    }

    /// Returns whether several calls wait and none has been answered since a look, for long enough that one of the
    /// waiting calls would be a failure. If only some calls get an answer before their callers leave, the silence must
    /// also be longer than chance can explain. The silence before that look may have been a pause between calls, with a
    /// few long ones in flight.
    pub(super) fn hangs(&self, now: u64) -> bool {
        let (calls, silence) = self.load.silence(now);
        if calls < HANGING_CALLS {
            return false;
        }
        let waited = now.saturating_sub(self.silent_look.load(Ordering::Relaxed));
        let least = self.peers.evidence.silence(now);
        silence >= waited.max(2 * self.last_calls.spread(now))
            && least.is_some_and(|least| waited >= least)
    }

    /// Returns the record by which outlier ejection evaluates the endpoint.
    pub(super) fn record_of(&self, now: u64) -> HostRecord<'_> {
        HostRecord {
            record: &self.record,
            is_out: self.condition.is_out_until() > now,
        }
    }

    /// Returns the share of the weight that counts now.
    #[inline]
    pub(super) fn ramp(&self, now: u64) -> f64 {
        self.condition.ramp(self.peers.slow_start, now)
    }

    /// Returns the weight that counts now. In slow start it is less than the weight that was set.
    #[inline]
    pub(super) fn present_weight(&self, now: u64) -> f64 {
        self.condition.weight() * self.ramp(now)
    }

    /// Returns the cost of one more call to this endpoint.
    #[inline]
    pub(super) fn cost(&self, now: u64) -> Cost {
        self.weigh(now, Load::cost)
    }

    /// Returns the same cost with the latency as it was last measured.
    pub(super) fn undecayed_cost(&self, now: u64) -> Cost {
        self.weigh(now, Load::undecayed_cost)
    }

    #[inline]
    fn weigh(&self, now: u64, cost: impl Fn(&Load, &load::Settings, u64, f64) -> Cost) -> Cost {
        let weight = self.present_weight(now);
        match self.peers.settings.measure {
            LoadMetric::PeakEwma => cost(&self.load, &self.peers.load, now, weight),
            LoadMetric::InFlight => Cost {
                expected: 1.0,
                calls: (f64::from(self.load.in_flight()) + 1.0) / weight,
            },
        }
    }

    pub(super) fn latency(&self, now: u64) -> f64 {
        self.load.latency(&self.peers.load, now)
    }

    pub(super) fn state(&self, now: u64) -> EndpointState {
        self.condition.state(self.peers.slow_start, now)
    }

    /// Notes that a call begins.
    #[inline]
    pub(super) fn begin(&self, now: u64) {
        self.load.begin(now);
        if let Some(label) = &self.label {
            label.begin();
        }
    }

    /// Notes the head of the answer to a call that began at `began`.
    pub(super) fn head(&self, outcome: Outcome, began: u64, now: Instant) {
        let (end, nanos) = (End::from(outcome), self.peers.nanos(now));
        self.load.stream(&self.peers.load, began, nanos, end);
        self.note_if_good(end, began, nanos);
        self.note_overload(outcome, nanos);
    }

    /// Notes that the endpoint is overloaded, and avoids it for the time that it asks for.
    #[inline]
    fn note_overload(&self, outcome: Outcome, nanos: u64) {
        if let Outcome::Overload { retry_after } = outcome {
            self.overloaded(retry_after, nanos);
        }
    }

    #[cold]
    #[inline(never)]
    fn overloaded(&self, retry_after: Option<Duration>, nanos: u64) {
        if let Some(wait) = retry_after {
            let until = after(nanos, wait.min(MAX_REFUSED));
            self.peers.spare(self, until, nanos);
        }
        context::note_overload(self.peers.has_others(self, nanos));
    }

    /// Notes a call that began at `began` and has been answered well.
    #[inline]
    fn note_if_good(&self, end: End, began: u64, nanos: u64) {
        if end == End::Succeeded {
            let (evidence, took) = (&self.peers.evidence, nanos.saturating_sub(began));
            evidence.note_good_of(&self.last_good, took, nanos);
        }
    }

    /// Notes that a call that began at `began` was given up before its answer came. It counts against the endpoint if
    /// the endpoint had it for the whole timeout of the attempt, or if it ended early although the endpoint had enough
    /// time for it.
    pub(super) fn given_up(&self, began: u64, counts: Counts, now: Instant) {
        let ended = self.peers.nanos(now);
        let timeout = match context::given_up() {
            GivenUp::Lost => return,
            GivenUp::TimedOut(timeout) => Some(timeout),
            GivenUp::Early => None,
        };
        let early = Early {
            began,
            ended,
            is_answer: false,
        };
        let had_all = timeout.is_some_and(|timeout| after(began, timeout) <= ended);
        let (evidence, terms) = (&self.peers.evidence, Terms::new(timeout));
        if had_all || evidence.is_failure_of(&self.last_good, early, terms) {
            self.note(began, counts, ended, true);
        }
    }

    /// Returns whether a call that began at `began` counts against the endpoint although the endpoint says that the
    /// deadline had passed.
    pub(super) fn is_failure_at_deadline(&self, began: u64, now: Instant) -> bool {
        let (peers, terms) = (&self.peers, Terms::new(None));
        let (evidence, ended) = (&peers.evidence, peers.nanos(now));
        let early = context::deadline()
            .and_then(|deadline| evidence.end_at_deadline(began, ended, peers.nanos(deadline)));
        early.is_none_or(|early| evidence.is_failure_of(&self.last_good, early, terms))
    }

    /// Notes that a call that began at `began` has ended; `is_stream` if its answer had begun before.
    #[inline]
    pub(super) fn end(
        &self,
        outcome: Outcome,
        began: u64,
        counts: Counts,
        is_stream: bool,
        now: Instant,
    ) {
        let (end, nanos) = (End::from(outcome), self.peers.nanos(now));
        if is_stream {
            self.load.end_stream(&self.peers.load, nanos, end);
        } else {
            self.load.end(&self.peers.load, began, nanos, end);
            self.note_if_good(end, began, nanos);
        }
        // A throttled caller says nothing about the health of the endpoint.
        let says_nothing = matches!(outcome, Outcome::Throttled { .. });
        if matches!(end, End::Succeeded | End::Failed) && !says_nothing {
            self.note(began, counts, nanos, end == End::Failed);
        }
        if !is_stream {
            self.note_overload(outcome, nanos);
        }
        self.count(outcome.label(), now);
    }

    /// Notes a call that has succeeded or failed, for outlier ejection and for the health of the group.
    #[inline]
    fn note(&self, began: u64, counts: Counts, now: u64, failed: bool) {
        if counts == Counts::ForEndpointAndGroup {
            self.last_calls.note(failed, now);
        }
        if counts != Counts::Nowhere {
            self.peers.note(self, began, now, failed);
        }
    }

    /// Notes that a layer in front of the endpoint has refused a call that began at `began`. Returns `true` if another
    /// endpoint may take it.
    pub(super) fn refused(&self, error: &Error, began: u64, now: Instant) -> bool {
        let blames_endpoint = match error.kind() {
            // These refusals concern the call.
            ErrorKind::TooCostly | ErrorKind::DeadlineExceeded => false,
            // This refusal comes from an endpoint of an inner balancer.
            _ if error.may_go_elsewhere() => false,
            _ => error.is_rejection(),
        };
        let nanos = self.peers.nanos(now);
        if blames_endpoint {
            let wait = error.retry_after().unwrap_or(REFUSED_FOR);
            self.condition.refused(after(nanos, wait.min(MAX_REFUSED)));
        }
        self.load.end(&self.peers.load, began, nanos, End::Refused);
        self.count(REJECTED, now);
        blames_endpoint
    }

    /// Reports that a call has ended, if endpoints have metrics.
    #[inline]
    fn count(&self, outcome: &'static str, now: Instant) {
        if let Some(label) = &self.label {
            self.peers.metrics.ended(label, outcome, now);
        }
    }

    /// Notes that a health check has found that the endpoint works, or does not.
    pub(super) fn found(&self, is_healthy: bool) {
        // Often the state does not change: nearly always with the first probes of many endpoints.
        if self.condition.is_unhealthy() == is_healthy {
            let (peers, endpoint) = (&self.peers, &*self.about.key);
            let now = peers.nanos(Instant::now());
            peers.update(now, |change| change.found(self, is_healthy));
            peers.metrics.tell_change(EventKind::Health {
                endpoint,
                is_healthy,
            });
        }
    }

    pub(super) fn status(&self, now: Instant) -> EndpointStatus {
        let peers = &self.peers;
        let now = peers.nanos(now);
        EndpointStatus {
            key: Arc::clone(&self.about.key),
            state: self.state(now),
            is_selectable: self.is_selectable(now),
            weight: self.condition.weight(),
            priority: self.priority(),
            zone: self.about.zone.clone(),
            in_flight: self.load.in_flight(),
            load: self.cost(now).total(),
            latency: Duration::from_secs_f64(self.latency(now)),
            failure_share: self.load.failure_share(&peers.load, now),
            ejections: peers.ejections(self, now),
        }
    }
}

impl From<Outcome> for End {
    #[inline]
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success => Self::Succeeded,
            // An endpoint that declines calls fast must not attract more of them.
            Outcome::Failure | Outcome::Overload { .. } | Outcome::Throttled { .. } => Self::Failed,
            Outcome::Cancelled if context::given_up() == GivenUp::Lost => Self::Overtaken,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::Ignored => Self::Ignored,
        }
    }
}

debug_fields!(Host { about.key, load, condition });

/// Status of an endpoint.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EndpointStatus {
    /// The key, which identifies the endpoint.
    pub key: Arc<str>,
    /// The state, which decides whether it gets calls.
    pub state: EndpointState,
    /// `true` if it would be chosen now: not ejected or unhealthy, available, and without a recent refusal.
    pub is_selectable: bool,
    /// The weight that was set.
    pub weight: f64,
    /// The priority of its group.
    pub priority: u8,
    /// The zone of the endpoint, if it is known.
    pub zone: Option<Arc<str>>,
    /// The number of calls in flight on it.
    pub in_flight: u32,
    /// The load that the balancer compares.
    pub load: f64,
    /// The latency estimate; zero if nothing is known.
    pub latency: Duration,
    /// The share of the last few calls that failed.
    pub failure_share: f64,
    /// The number of ejections in a row, which lengthens the next one. It falls by one after each three
    /// [intervals](super::OutlierEjection::interval) without an ejection, or after
    /// [`base_ejection_time`](super::OutlierEjection::base_ejection_time) if that is longer.
    pub ejections: u32,
}

/// Status of the endpoints of one priority.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct GroupStatus {
    /// Their priority.
    pub priority: u8,
    /// The number of endpoints.
    pub endpoints: usize,
    /// The share of the endpoints, by weight, that is [healthy](crate::balance#priority-groups). An endpoint counts as
    /// unavailable only after a call has checked it.
    pub healthy: f64,
    /// The share of the calls that goes to them.
    pub share: f64,
}
