//! State that all services and handles of one rate limit share.

use std::time::Duration;

use tokio::time::Instant;

use super::bucket::{Bucket, Limits};
use super::config::Settings;
use super::metrics::{RateLimitMetrics, word};
use super::part::Wait;
use super::queue::Queue;
use crate::algorithm::gcra::Taken;
use crate::algorithm::rate::LONGEST;
use crate::chassis::{At, Record};
use crate::context;
use crate::debug::debug_fields;
use crate::error::Check;
use crate::event::EventKind;
use crate::live::Live;
use crate::nanos::{nanos_between, whole_nanos};
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::telemetry::{Initial, Report, Series, Shown};
use crate::{ConfigError, Error, ErrorKind, Mode, Outcome};

/// Tick of tokio's timer, in nanoseconds.
const TICK: u64 = 1_000_000;

impl Limits {
    pub(super) fn check(self, check: Check<'_>) -> Result<(), ConfigError> {
        let Self { rate, burst } = self;
        let permitted = "from 1 in 365 days to 1000000000 per second";
        check.that(rate.is_valid(), "rate", &rate, permitted)?;
        let refills_in = u128::from(rate.interval(0)) * u128::from(burst);
        let is_possible = burst > 0 && refills_in <= u128::from(LONGEST);
        let permitted = "at least 1, and no more than come in 365 days";
        check.that(is_possible, "burst", &burst, permitted)
    }
}

/// The rules of a limit besides rate and burst. Times are nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) mode: Mode,
    /// Zero if calls do not wait.
    pub(super) max_wait: u64,
    /// Zero if calls do not stay away.
    max_retry_after: u64,
}

impl Rules {
    fn words(self) -> [u64; 3] {
        [self.mode.word().into(), self.max_wait, self.max_retry_after]
    }

    fn of([mode, max_wait, max_retry_after]: [u64; 3]) -> Self {
        Self {
            mode: Mode::from_word(mode as u32),
            max_wait,
            max_retry_after,
        }
    }
}

impl Settings {
    fn rules(&self) -> Rules {
        let stays_away = self.respects_retry_after.then_some(self.max_retry_after);
        Rules {
            mode: self.mode,
            max_wait: whole_nanos(self.max_wait.unwrap_or_default()),
            max_retry_after: whole_nanos(stays_away.unwrap_or_default()),
        }
    }
}

/// Makes the counters of the rejections known, and the gauge of the queue if there is one.
fn begin_rejections(metrics: &'static Series<RateLimitMetrics>, settings: &Settings) {
    if settings.max_wait.is_some() {
        let has_queue = &metrics.levels().has_queue;
        has_queue.store(true, Ordering::Relaxed);
    }
    let late = settings.max_wait.map(|_| ErrorKind::DeadlineExceeded);
    let reasons = [ErrorKind::RateLimited, ErrorKind::TooCostly];
    let reasons = reasons.into_iter().chain(late);
    metrics.begin(reasons.map(|reason| Initial::rejections(reason, settings.mode)));
}

pub(super) struct Shared {
    pub(super) bucket: Bucket,
    pub(super) queue: Queue,
    /// The rules in force, for calls.
    rules: Live<3>,
    /// The settings of the code. Other settings replace some of them.
    pub(super) code: Settings,
    /// The settings in force. Locked only by changes, so that no two of them mix.
    pub(super) in_force: Mutex<Settings>,
    /// The end of the quiet time that waiting calls know.
    quiet_until: AtomicU64,
    origin: Instant,
    report: Report<RateLimitMetrics>,
    pub(super) shown: Shown<RateLimitMetrics, 2>,
}

impl Shared {
    pub(super) fn new(
        settings: Settings,
        origin: Instant,
        report: Report<RateLimitMetrics>,
    ) -> Self {
        let metrics: &'static Series<_> = *report;
        let limits = settings.limits();
        metrics.levels().replace(None, Some(limits));
        let shown = Shown::new(metrics, word(0, limits.burst));
        begin_rejections(metrics, &settings);
        Self {
            bucket: Bucket::new(limits),
            queue: Queue::new(),
            rules: Live::new(settings.rules().words()),
            in_force: Mutex::new(settings.clone()),
            code: settings,
            quiet_until: AtomicU64::new(0),
            origin,
            report,
            shown,
        }
    }

    /// Returns the levels of the gauges.
    pub(super) fn word(&self, nanos: u64) -> u64 {
        word(self.queue.len(), self.bucket.gcra.available(nanos))
    }

    /// Returns the rules in force.
    pub(super) fn rules(&self) -> Rules {
        Rules::of(self.rules.get())
    }

    /// Changes to settings that have been checked.
    pub(super) fn adjust(&self, settings: Settings) {
        let mut in_force = lock(&self.in_force);
        begin_rejections(self.shown.series, &settings);
        self.rules.set(settings.rules().words());
        let (from, to) = (in_force.limits(), settings.limits());
        *in_force = settings;
        // Limits that do not change stay where `set_rate` and `set_burst` have put them.
        if from != to {
            let changed = self.set_limits(self.now(), |limits| *limits = to);
            debug_assert!(changed.is_ok(), "the limits have been checked");
        }
        drop(in_force);
        self.follow_rules();
    }

    /// Changes the mode.
    pub(super) fn set_mode(&self, mode: Mode) {
        let mut in_force = lock(&self.in_force);
        in_force.mode = mode;
        begin_rejections(self.shown.series, &in_force);
        self.rules.set(in_force.rules().words());
        drop(in_force);
        self.follow_rules();
    }

    /// Lets waiting calls see changed rules. If the limit only observes, they pass.
    fn follow_rules(&self) {
        match self.rules().mode {
            Mode::Enforce => self.reconsider(self.now()),
            Mode::Observe => self.queue.wake_all(),
        }
    }

    /// Counts a call that would be rejected. A call that would wait takes its tokens before they are there, so
    /// that later calls find the same state as in the mode that enforces.
    pub(super) fn observe(&self, cost: u32, at: &At) -> Result<(), Error> {
        let (nanos, most) = (at.nanos(), self.rules().max_wait);
        let deadline = context::deadline().map(|deadline| self.nanos(deadline));
        let time_left = deadline.map_or(u64::MAX, |deadline| {
            deadline.saturating_sub(nanos.saturating_add(1))
        });
        match self.bucket.gcra.owe(nanos, cost, most.min(time_left)) {
            Taken::Yes => Ok(()),
            Taken::Early(wait) if wait <= most => self.refuse(ErrorKind::DeadlineExceeded, 0, at),
            _ => self.refuse(ErrorKind::RateLimited, 0, at),
        }
    }

    /// Refuses a call. Another call can pass after `wait` nanoseconds, if they are not zero. If the limit only
    /// observes, the call passes.
    pub(super) fn refuse(&self, reason: ErrorKind, wait: u64, at: &At) -> Result<(), Error> {
        let retry_after = (wait > 0).then(|| Duration::from_nanos(wait));
        let mode = self.rules().mode;
        self.report.refuse(reason, mode, retry_after, at.instant())
    }

    /// Refuses a call that has waited. The reason is its deadline, unless it would also be refused without a deadline.
    pub(super) fn refuse_turn(&self, wait: &Wait, at: &At) -> Result<(), Error> {
        let (cost, latest) = (wait.place.cost, wait.latest);
        if cost > self.bucket.gcra.burst() {
            return self.refuse(ErrorKind::TooCostly, 0, at);
        }
        let tokens = self.queue.cost().saturating_add(u64::from(cost));
        let (now, nanos) = (at.instant(), at.nanos());
        let until_turn = self.bucket.gcra.wait(nanos, tokens);
        let is_late = |deadline: Instant| {
            let end = self.nanos(deadline).saturating_sub(1);
            let is_in_time = nanos.saturating_add(until_turn) <= latest;
            deadline <= now || (end < latest && (end <= nanos || is_in_time))
        };
        if wait.deadline.is_some_and(is_late) {
            return self.refuse(ErrorKind::DeadlineExceeded, 0, at);
        }
        self.refuse(ErrorKind::RateLimited, until_turn, at)
    }

    #[inline]
    pub(super) fn nanos(&self, now: Instant) -> u64 {
        nanos_between(self.origin, now)
    }

    pub(super) fn now(&self) -> u64 {
        self.nanos(Instant::now())
    }

    /// Returns the instant at which the clock of this limit shows `nanos`.
    pub(super) fn instant(&self, nanos: u64) -> Instant {
        crate::nanos::saturating_add(self.origin, Duration::from_nanos(nanos))
    }

    /// Changes the limits.
    pub(super) fn change(&self, change: impl FnOnce(&mut Limits)) -> Result<(), ConfigError> {
        let now = self.now();
        self.set_limits(now, change)?;
        self.reconsider(now);
        Ok(())
    }

    fn set_limits(&self, now: u64, change: impl FnOnce(&mut Limits)) -> Result<(), ConfigError> {
        self.bucket.change(now, |limits| {
            let old = *limits;
            change(limits);
            limits.check(Check::new("rate limit", self.shown.series.name())?)?;
            let metrics = self.shown.series.levels();
            metrics.replace(Some(old), Some(*limits));
            Ok(())
        })
    }

    /// Admits no call for a time. Returns whether it ends later than a known one, by a tick or more.
    pub(super) fn quiet(&self, duration: Duration, now: Instant) -> bool {
        let now = self.nanos(now);
        let until = now.saturating_add(whole_nanos(duration));
        if !self.bucket.gcra.quiet(until) {
            return false;
        }
        // A service that refuses a burst asks each call to stay away, for a little longer each time. Waiting calls, of
        // which there may be many, are not woken for a difference of less than a tick of the timer.
        let known = self.quiet_until.load(Ordering::Relaxed);
        let is_later = until.saturating_sub(known) >= TICK;
        if is_later {
            self.quiet_until.store(until, Ordering::Relaxed);
            self.reconsider(now);
        }
        is_later
    }

    /// Fills the limit with all tokens.
    pub(super) fn reset(&self) {
        let now = self.now();
        self.bucket.reset(now);
        self.quiet_until.store(0, Ordering::Relaxed);
        self.reconsider(now);
    }

    fn reconsider(&self, now: u64) {
        let latest = now.saturating_add(self.rules().max_wait);
        self.queue.reconsider(now, latest, &self.bucket);
    }

    /// Reads the time for which the service asks callers to stay away from the record.
    #[inline(always)]
    pub(super) fn hear(&self, record: &Record<'_>) {
        if let Some(retry_after) = record.outcome.retry_after() {
            self.pause(retry_after, record);
        }
    }

    /// Pauses if the service's request concerns all calls. An overload that other endpoints do not share concerns one
    /// endpoint, and a quota of one caller among others concerns one caller.
    #[cold]
    #[inline(never)]
    fn pause(&self, retry_after: Duration, record: &Record<'_>) {
        let concerns_all = match record.outcome {
            Outcome::Throttled { .. } => self.code.one_quota,
            _ => !record.has_other_endpoints(),
        };
        let most = self.rules().max_retry_after;
        if most > 0 && concerns_all {
            let wait = retry_after.min(Duration::from_nanos(most));
            if self.quiet(wait, record.at.instant()) {
                self.report.tell(|| EventKind::Paused { pause: wait });
            }
        }
    }

    /// Publishes the gauge if its value is far from the number of waiting calls.
    pub(super) fn show(&self, at: &At) {
        self.shown
            .catch_up(|| self.word(at.nanos()), || at.instant());
    }

    /// Notes that one call less waits, because of `end`. The core publishes the gauge if it is due, because the time is
    /// known then.
    pub(super) fn waited(&self, end: &'static str, began: u64, at: &At) {
        let waited = Duration::from_nanos(at.nanos().saturating_sub(began));
        self.shown.series.waited(end, waited, at.instant());
        self.show(at);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let metrics = self.shown.series.levels();
        metrics.replace(Some(self.bucket.limits()), None);
    }
}

debug_fields!(Shared as RateLimit { shown.series.name(), bucket.limits(), rules() });
