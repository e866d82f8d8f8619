//! What all services and handles of one rate limit share.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::metrics::{End, RateLimitMetrics};
use super::queue::{Queue, Tokens};
use crate::algorithm::gcra::{Gcra, Taken};
use crate::algorithm::rate::{LONGEST, Rate};
use crate::chassis::{At, Record};
use crate::context;
use crate::error::Check;
use crate::nanos::{nanos_between, whole_nanos};
use crate::sync::{AtomicU64, Ordering, lock};
use crate::telemetry::{Series, Shown};
use crate::{ConfigError, Error, ErrorKind, Mode, Outcome};

/// Of tokio's timer, in nanoseconds.
const TICK: u64 = 1_000_000;

/// What can be changed while the limit is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) rate: Rate,
    pub(super) burst: u32,
}

impl Limits {
    pub(super) fn check(self, check: Check<'_>) -> Result<(), ConfigError> {
        let Self { rate, burst } = self;
        check.that(
            rate.is_valid(),
            "rate",
            &rate,
            "from 1 in 365 days to 1000000000 per second",
        )?;
        let refills_in = u128::from(rate.interval(0)) * u128::from(burst);
        check.that(
            burst > 0 && refills_in <= u128::from(LONGEST),
            "burst",
            &burst,
            "at least 1, and no more than come in 365 days",
        )
    }
}

/// What does not change.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) max_wait: Option<Duration>,
    pub(super) max_retry_after: Duration,
    /// `None` as long as there is nobody to hear them.
    pub(super) respects_retry_after: Option<bool>,
    /// All calls have one quota at the service.
    pub(super) one_quota: bool,
    pub(super) mode: Mode,
}

pub(super) struct Shared {
    gcra: Gcra,
    pub(super) queue: Queue,
    pub(super) settings: Settings,
    built: Limits,
    /// Locked to change the limits, and to count from a later origin.
    limits: Mutex<Limits>,
    /// The end of the quiet time that those who wait have been told of.
    quiet_until: AtomicU64,
    origin: Instant,
    metrics: &'static Series<RateLimitMetrics>,
    shown: Shown<1>,
}

/// What becomes of a call.
pub(super) enum Entry {
    Pass,
    /// It waits for its turn, until this time at the latest.
    Wait(u64),
    Refused(Error),
}

impl Shared {
    pub(super) fn new(
        limits: Limits,
        settings: Settings,
        origin: Instant,
        metrics: &'static Series<RateLimitMetrics>,
    ) -> Self {
        if settings.max_wait.is_some() {
            metrics.levels().has_queue();
        }
        Self {
            gcra: Gcra::new(limits.rate, limits.burst),
            queue: Queue::new(),
            settings,
            built: limits,
            limits: Mutex::new(limits),
            quiet_until: AtomicU64::new(0),
            origin,
            metrics,
            shown: Shown::new(metrics, 0),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.metrics.name()
    }

    fn max_wait(&self) -> Duration {
        self.settings.max_wait.unwrap_or_default()
    }

    /// Lets a call through, or says what becomes of it.
    #[inline(always)]
    pub(super) fn enter(&self, cost: u32, at: &At) -> Entry {
        if cost == 0 {
            // Not even behind those who wait: nothing would bound how many of them there are.
            return Entry::Pass;
        }
        if !self.queue.is_empty() {
            return self.defer(cost, at);
        }
        match self.take(at.nanos(), cost) {
            Taken::Yes => Entry::Pass,
            taken => self.early(cost, taken, at),
        }
    }

    #[cold]
    #[inline(never)]
    fn early(&self, cost: u32, taken: Taken, at: &At) -> Entry {
        let Taken::Early(wait) = taken else {
            return self.too_costly(at);
        };
        match (self.settings.mode, self.settings.max_wait) {
            (Mode::Observe, _) => {
                self.observe(cost, at);
                Entry::Pass
            }
            (Mode::Enforce, Some(_)) => self.defer(cost, at),
            (Mode::Enforce, None) => Entry::Refused(self.refusal(wait, at)),
        }
    }

    /// Counts a call that would be rejected. One that would wait takes its tokens before they are there, so
    /// that those who come after it find what they would find.
    fn observe(&self, cost: u32, at: &At) {
        let (nanos, most) = (at.nanos(), whole_nanos(self.max_wait()));
        let deadline = context::deadline().map(|deadline| self.nanos(deadline));
        let time_left = deadline.map_or(u64::MAX, |deadline| {
            deadline.saturating_sub(nanos.saturating_add(1))
        });
        match self.gcra.owe(nanos, cost, most.min(time_left)) {
            Taken::Yes => {}
            Taken::Early(wait) if wait <= most => self.rejected(ErrorKind::DeadlineExceeded, at),
            _ => self.rejected(ErrorKind::RateLimited, at),
        }
    }

    #[cold]
    fn too_costly(&self, at: &At) -> Entry {
        match self.settings.mode {
            Mode::Observe => {
                self.rejected(ErrorKind::TooCostly, at);
                Entry::Pass
            }
            Mode::Enforce => Entry::Refused(self.refusal_of_cost(at)),
        }
    }

    /// Puts a call off.
    #[cold]
    #[inline(never)]
    fn defer(&self, cost: u32, at: &At) -> Entry {
        if cost > self.gcra.burst() {
            return self.too_costly(at);
        }
        Entry::Wait(at.nanos().saturating_add(whole_nanos(self.max_wait())))
    }

    /// A call that comes too early is refused. `wait` is how many nanoseconds.
    fn refusal(&self, wait: u64, at: &At) -> Error {
        self.rejected(ErrorKind::RateLimited, at);
        let retry_after = (wait > 0).then(|| Duration::from_nanos(wait));
        Error::rejected(ErrorKind::RateLimited, self.name(), retry_after)
    }

    fn refusal_of_cost(&self, at: &At) -> Error {
        self.rejected(ErrorKind::TooCostly, at);
        Error::rejected(ErrorKind::TooCostly, self.name(), None)
    }

    /// A call that has been put off is refused: because of its deadline, unless it would be without one.
    pub(super) fn refusal_of_turn(
        &self,
        cost: u32,
        latest: u64,
        deadline: Option<Instant>,
        at: &At,
    ) -> Error {
        if cost > self.gcra.burst() {
            return self.refusal_of_cost(at);
        }
        let tokens = self.queue.cost().saturating_add(u64::from(cost));
        let (now, nanos) = (at.instant(), at.nanos());
        let wait = self.gcra.wait(nanos, tokens);
        let is_late = |deadline: Instant| {
            let end = self.nanos(deadline).saturating_sub(1);
            let is_first = end < latest && (end <= nanos || nanos.saturating_add(wait) <= latest);
            deadline <= now || is_first
        };
        if deadline.is_some_and(is_late) {
            self.rejected(ErrorKind::DeadlineExceeded, at);
            return Error::rejected(ErrorKind::DeadlineExceeded, self.name(), None);
        }
        self.refusal(wait, at)
    }

    fn rejected(&self, reason: ErrorKind, at: &At) {
        self.metrics
            .rejected(reason, self.settings.mode, at.instant());
    }

    #[inline]
    pub(super) fn nanos(&self, now: Instant) -> u64 {
        nanos_between(self.origin, now)
    }

    /// When the clock of this limit shows so many nanoseconds.
    pub(super) fn instant(&self, nanos: u64) -> Instant {
        crate::nanos::saturating_add(self.origin, Duration::from_nanos(nanos))
    }

    #[inline]
    fn take(&self, now: u64, cost: u32) -> Taken {
        loop {
            match self.gcra.take(now, cost) {
                Taken::Stale => self.renew(now),
                taken => return taken,
            }
        }
    }

    /// Comes once in minutes at rates of a billion a second, and once in months at rates below a million.
    #[cold]
    fn renew(&self, now: u64) {
        let _one_at_a_time = lock(&self.limits);
        self.gcra.renew(now);
    }

    /// The tokens, for a queue that wants some now.
    pub(super) fn at(&self, nanos: u64) -> impl Tokens {
        TokensAt {
            shared: self,
            nanos,
        }
    }

    pub(super) fn limits(&self) -> Limits {
        *lock(&self.limits)
    }

    /// Changes the limits.
    pub(super) fn change(&self, change: impl FnOnce(&mut Limits)) -> Result<(), ConfigError> {
        let now = self.nanos(Instant::now());
        {
            let mut limits = lock(&self.limits);
            let mut new = *limits;
            change(&mut new);
            new.check(Check::new("rate limit", self.name())?)?;
            self.gcra.set(new.rate, new.burst, now);
            *limits = new;
        }
        self.reconsider(now);
        Ok(())
    }

    /// Lets nothing through for a time.
    pub(super) fn quiet(&self, duration: Duration, now: Instant) {
        let now = self.nanos(now);
        let until = now.saturating_add(whole_nanos(duration));
        if !self.gcra.quiet(until) {
            return;
        }
        // A service that refuses a burst asks each call to stay away, a little longer each time. A tick of the timer
        // makes no difference to those who wait, and there may be many of them.
        let known = self.quiet_until.load(Ordering::Relaxed);
        if until.saturating_sub(known) >= TICK {
            self.quiet_until.store(until, Ordering::Relaxed);
            self.reconsider(now);
        }
    }

    /// Begins again with all tokens.
    pub(super) fn reset(&self) {
        let now = self.nanos(Instant::now());
        {
            let _one_at_a_time = lock(&self.limits);
            self.gcra.reset(now);
            self.quiet_until.store(0, Ordering::Relaxed);
        }
        self.reconsider(now);
    }

    fn reconsider(&self, now: u64) {
        if self.settings.max_wait.is_some() {
            self.queue.reconsider(now, &self.at(now));
        }
    }

    /// Reads in the record what the service says about staying away.
    #[inline(always)]
    pub(super) fn hear(&self, record: &Record<'_>) {
        if let Some(retry_after) = record.outcome.retry_after() {
            self.pause(retry_after, record);
        }
    }

    /// Pauses, if the word of the service concerns all calls: an overload that other endpoints do not share, and a quota of
    /// one caller among others, do not.
    #[cold]
    #[inline(never)]
    fn pause(&self, retry_after: Duration, record: &Record<'_>) {
        let concerns_all = match record.outcome {
            Outcome::Throttled { .. } => self.settings.one_quota,
            _ => !record.has_other_endpoints(),
        };
        if self.settings.respects_retry_after == Some(true) && concerns_all {
            let wait = retry_after.min(self.settings.max_retry_after);
            self.quiet(wait, record.at.instant());
        }
    }

    pub(super) fn available(&self) -> u32 {
        self.gcra.available(self.nanos(Instant::now()))
    }

    /// Says whether a call of cost 1 would not be rejected.
    pub(super) fn would_admit(&self) -> bool {
        let now = self.nanos(Instant::now());
        let wait = || self.gcra.wait(now, self.queue.cost().saturating_add(1));
        self.settings.mode == Mode::Observe || wait() <= whole_nanos(self.max_wait())
    }

    pub(super) fn is_evictable(&self, now: Instant) -> bool {
        self.queue.is_empty() && self.gcra.is_full(self.nanos(now)) && self.limits() == self.built
    }

    /// Publishes the gauges if it is time to.
    pub(super) fn publish_gauges(&self, at: &At) {
        let waiting = || self.queue.len();
        self.shown
            .keep(self.metrics, waiting, at.instant(), at.nanos());
    }

    /// One call less waits.
    pub(super) fn left(&self, began: Instant, end: End, at: &At) {
        let now = at.instant();
        let waited = now.saturating_duration_since(began);
        self.metrics.waited(end, waited, now);
        self.publish_gauges(at);
    }
}

struct TokensAt<'a> {
    shared: &'a Shared,
    nanos: u64,
}

impl Tokens for TokensAt<'_> {
    fn take(&self, cost: u32) -> Taken {
        self.shared.take(self.nanos, cost)
    }

    fn wait(&self, tokens: u64) -> u64 {
        self.shared.gcra.wait(self.nanos, tokens)
    }

    fn burst(&self) -> u32 {
        self.shared.gcra.burst()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limits { rate, burst } = self.limits();
        f.debug_struct("RateLimit")
            .field("name", &self.name())
            .field("rate", &rate)
            .field("burst", &burst)
            .field("mode", &self.settings.mode)
            .finish_non_exhaustive()
    }
}
