//! Settings of the circuit breaker.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::layer::CircuitBreakerLayer;
use super::metrics::BreakerMetrics;
use super::part::Handle;
use super::shared::Shared;
use crate::algorithm::breaker::{self, Breaker, Counts, MIN_FAILURES, State};
use crate::chassis::LayerConfig;
use crate::error::Check;
use crate::random::Random;
use crate::stripe::stripes;
use crate::sync::{AtomicU32, Mutex};
use crate::telemetry::table::BREAKER_OPENINGS;
use crate::telemetry::{Initial, Report, Series};
use crate::{CompleteOnResponse, ConfigError, ErrorKind, ErrorsAreFailures, Mode};

/// Long enough to measure a share at modest rates, short enough to forget an old incident.
const WINDOW: Duration = Duration::from_secs(10);
/// A shorter window has no time for ten buckets.
const MIN_WINDOW: Duration = Duration::from_millis(10);
/// Above this share, failures certainly outnumber successes, and calls are of no use. Below it, retries serve the user
/// better.
const FAILURE_SHARE: f64 = 0.5;
/// A share of fewer calls means nothing.
const MIN_CALLS: u32 = 20;
/// Default open time: a compromise between refusals after an outage and the calls that are spent on probes.
const OPEN_FOR: Duration = Duration::from_secs(2);
/// Spreads the probes of many clients.
const OPEN_JITTER: f64 = 0.25;
/// The longest open time, if the open time grows.
const MAX_OPEN: Duration = Duration::from_secs(60);
/// The longest time that a service can ask for. Other callers are refused during this time, so it is shorter than the
/// longest wait of a retry.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);
/// One success may be chance.
const SUCCESSES_TO_CLOSE: u32 = 5;
/// With 1, 2, 4 and 8 probes at a time, a recovering service is not overloaded.
const MAX_PROBES: u32 = 8;
/// Longer than most calls take. A probe that takes longer gives its place to another one.
const PROBE_LEASE: Duration = Duration::from_secs(5);

/// The settings of a [`CircuitBreakerLayer`]. Made by [`CircuitBreakerLayer::config`].
pub type Config<K = ErrorsAreFailures, C = CompleteOnResponse> = LayerConfig<Settings, (), K, C>;

/// The settings of a circuit breaker in a [`Config`].
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    breaker: breaker::Settings,
    window: Window,
    /// `None` for the default, which depends on the window.
    min_calls: Option<u32>,
    mode: Mode,
    pub(crate) seed: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Window {
    Time(Duration),
    Count(u32),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            breaker: breaker::Settings {
                failure_share: FAILURE_SHARE,
                min_calls: MIN_CALLS,
                judges_few: true,
                consecutive_failures: None,
                slow_calls: None,
                open_for: OPEN_FOR,
                open_jitter: OPEN_JITTER,
                open_growth: 1.0,
                max_open: MAX_OPEN,
                max_retry_after: MAX_RETRY_AFTER,
                successes_to_close: SUCCESSES_TO_CLOSE,
                max_probes: MAX_PROBES,
                probe_lease: PROBE_LEASE,
                timeout: None,
            },
            window: Window::Time(WINDOW),
            min_calls: None,
            mode: Mode::Enforce,
            seed: None,
        }
    }
}

impl<K, C> Config<K, C> {
    /// Sets the window: the breaker evaluates the calls of the last `span`, in ten buckets. 10 s by default.
    pub fn window(mut self, span: Duration) -> Self {
        self.settings.window = Window::Time(span);
        self
    }

    /// Sets the window to the last `calls` calls instead of a span of time; 1 to 100,000.
    ///
    /// Use it for services that are called rarely. The breaker then takes a short lock in each call.
    pub fn count_window(mut self, calls: u32) -> Self {
        self.settings.window = Window::Count(calls);
        self
    }

    /// Sets the share of failures above which the breaker opens; above 0 and below 1. 0.5 by default.
    ///
    /// The breaker compares the lower end of the 95 % confidence interval with it. 14 failures in 20 calls are enough
    /// for 0.5, 13 are not.
    pub fn failure_share(mut self, share: f64) -> Self {
        self.settings.breaker.failure_share = share;
        self
    }

    /// Sets the number of calls in the window below which the breaker does not open; 1 to 1,000,000.
    ///
    /// By default 20 for the last tenth of the window, and [5 failures](crate::circuit_breaker#few-calls) for the whole
    /// window. For a count window 20, or the size of a smaller window.
    pub fn min_calls(mut self, calls: u32) -> Self {
        self.settings.min_calls = Some(calls);
        self
    }

    /// Also opens the breaker after this number of failures in a row, however few calls there are; 1 to 1,000,000. Off
    /// by default.
    ///
    /// At a failure rate of p this happens by chance about once in p⁻ⁿ calls: with 20 % failures and
    /// 100 calls a second, 7 in a row every quarter of an hour, 12 in a row every month.
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.settings.breaker.consecutive_failures = Some(failures);
        self
    }

    /// Also opens the breaker when the share of calls that take longer than `longer_than` exceeds `share` by the rule
    /// of [`failure_share`](Self::failure_share); above 0 and below 1. Off by default.
    ///
    /// While the breaker is half-open, a probe that takes longer counts as failed. For an answer with a streamed body,
    /// the time to the head counts. Each call then reads the clock twice.
    pub fn slow_calls(mut self, longer_than: Duration, share: f64) -> Self {
        self.settings.breaker.slow_calls = Some((longer_than, share));
        self
    }

    /// Sets the time for which the breaker stays open before it probes. 2 s by default.
    pub fn open_for(mut self, open_for: Duration) -> Self {
        self.settings.breaker.open_for = open_for;
        self
    }

    /// Sets the share by which the open time varies at random in either direction; 0 to 0.9. 0.25 by default.
    pub fn open_jitter(mut self, share: f64) -> Self {
        self.settings.breaker.open_jitter = share;
        self
    }

    /// Multiplies the open time by `factor`, 1 to 10, each time that the probes fail, up to `most`. Off by default.
    ///
    /// The open time returns to its initial value when the breaker has been closed for longer than it was open.
    pub fn open_growth(mut self, factor: f64, most: Duration) -> Self {
        self.settings.breaker.open_growth = factor;
        self.settings.breaker.max_open = most;
        self
    }

    /// Sets the longest open time that a service can ask for with [`Outcome::Overload`](crate::Outcome::Overload). 30 s
    /// by default.
    pub fn max_retry_after(mut self, most: Duration) -> Self {
        self.settings.breaker.max_retry_after = most;
        self
    }

    /// Sets the number of successful probes that close the breaker; 1 to 10,000. 5 by default.
    pub fn successes_to_close(mut self, successes: u32) -> Self {
        self.settings.breaker.successes_to_close = successes;
        self
    }

    /// Sets the greatest number of probes in flight; 1 to 10,000. 8 by default.
    ///
    /// The number begins at 1, doubles with each success and halves with each failure.
    pub fn max_probes(mut self, probes: u32) -> Self {
        self.settings.breaker.max_probes = probes;
        self
    }

    /// Sets the time after which a probe that has not ended gives its place to another one. 5 s by default.
    ///
    /// The result of the probe still counts, as long as the breaker is half-open.
    pub fn probe_lease(mut self, lease: Duration) -> Self {
        self.settings.breaker.probe_lease = lease;
        self
    }

    /// Applies a preset for a dependency that rarely fails in part: the breaker also opens after 12 failures in a row,
    /// and stays open for 1.3 s ± 10 %.
    ///
    /// Fewer calls fail in a sudden outage, and the breaker closes sooner after it. A long outage costs more probes.
    pub fn fail_fast(self) -> Self {
        self.consecutive_failures(12)
            .open_for(Duration::from_millis(1_300))
            .open_jitter(0.1)
    }

    /// Sets whether calls are rejected or only observed. [`Mode::Enforce`] by default.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.settings.mode = mode;
        self
    }

    /// Sets the seed of the jitter, so that it repeats exactly. By default the operating system gives the seed.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }

    /// Sets the end of a call. By default a call ends when the inner service has returned its response.
    pub fn completion<C2>(self, completion: C2) -> Config<K, C2> {
        self.with_completion(completion)
    }

    /// Sets the timeout of the attempts that the breaker counts, if they have one.
    pub(crate) fn attempt_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.settings.breaker.timeout = timeout;
        self
    }

    /// Returns the span of time that is evaluated, if it is not a number of calls.
    pub(crate) fn time_window(&self) -> Option<Duration> {
        match self.settings.window {
            Window::Time(span) => Some(span),
            Window::Count(_) => None,
        }
    }

    /// Returns the least number of calls in a time window that can open it, unless failures in a row do.
    pub(crate) fn calls_needed(&self) -> Option<u32> {
        let is_enough = self.settings.breaker.consecutive_failures.is_some();
        (!is_enough).then(|| self.settings.min_calls.unwrap_or(MIN_FAILURES))
    }

    pub(crate) fn slow_calls_longer_than(&self) -> Option<Duration> {
        let slow_calls = self.settings.breaker.slow_calls;
        slow_calls.map(|(longer_than, _)| longer_than)
    }

    /// Makes the layer, with a breaker of its own.
    ///
    /// # Errors
    ///
    /// If the name is empty or a value is outside its range.
    pub fn build(self) -> Result<CircuitBreakerLayer<K, C>, ConfigError> {
        let origin = Instant::now();
        let part = self.part(origin)?;
        Ok(self.part_layer(part.name(), origin, |()| part))
    }

    /// Makes the part, which counts time from `origin`.
    pub(crate) fn part(&self, origin: Instant) -> Result<Handle, ConfigError> {
        let Settings { window, mode, .. } = self.settings;
        let settings = self.settings.resolve(&self.name)?;
        let counts = match window {
            Window::Time(span) => Counts::of_time(span, stripes()),
            Window::Count(calls) => Counts::of_calls(calls as usize),
        };
        let metrics = Series::<BreakerMetrics>::of(&self.name, "circuit_breaker");
        metrics.levels().add(State::Closed, 1);
        metrics.begin([
            Initial::of(&BREAKER_OPENINGS, &[]),
            Initial::rejections(ErrorKind::CircuitOpen, mode),
        ]);
        Ok(Handle {
            shared: Arc::new(Shared {
                breaker: Breaker::new(settings, counts),
                mode: AtomicU32::new(mode.word()),
                code: self.settings.clone(),
                change: Mutex::new(()),
                random: Random::new(self.settings.seed),
                origin,
                metrics: Report::new(metrics, self.listener.clone()),
            }),
        })
    }
}

impl Settings {
    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// Checks that a breaker with the settings `former` can change to these ones. The timeout of the attempts stays.
    pub(super) fn replace(
        &self,
        former: &Self,
        name: &str,
    ) -> Result<(Self, breaker::Settings), ConfigError> {
        let mut settings = self.clone();
        settings.breaker.timeout = former.breaker.timeout;
        let resolved = settings.resolve(name)?;
        let (field, value): (_, &dyn Debug) = match &settings.window {
            Window::Time(span) => ("window", span),
            Window::Count(calls) => ("count_window", calls),
        };
        let permitted = "the window of the code, because it cannot change while the breaker runs";
        let is_same = settings.window == former.window;
        Check::new("circuit breaker", name)?.that(is_same, field, value, permitted)?;
        Ok((settings, resolved))
    }

    /// Returns the settings of the decisions, with the defaults that depend on the window.
    fn resolve(&self, name: &str) -> Result<breaker::Settings, ConfigError> {
        let mut settings = self.breaker.clone();
        settings.min_calls = self.min_calls.unwrap_or(match self.window {
            Window::Time(_) => MIN_CALLS,
            Window::Count(calls) => MIN_CALLS.min(calls),
        });
        settings.judges_few = self.min_calls.is_none();
        self.check(name, &settings)?;
        Ok(settings)
    }

    fn check(&self, name: &str, settings: &breaker::Settings) -> Result<(), ConfigError> {
        let check = Check::new("circuit breaker", name)?;
        let share = |field, share: f64| {
            let is_share = share > 0.0 && share < 1.0;
            check.that(is_share, field, &share, "above 0 and below 1")
        };
        let calls = |field, calls| check.count(field, calls, 1_000_000, "1 to 1000000");
        match self.window {
            Window::Time(span) => {
                check.duration("window", span)?;
                check.within("window", &span, MIN_WINDOW.., "at least 10ms")?;
            }
            Window::Count(size) => {
                check.count("count_window", size, 100_000, "1 to 100000")?;
                let permitted = "at most the calls in the count window";
                check.within("min_calls", &settings.min_calls, ..=size, permitted)?;
            }
        }
        share("failure_share", settings.failure_share)?;
        calls("min_calls", settings.min_calls)?;
        if let Some(failures) = settings.consecutive_failures {
            calls("consecutive_failures", failures)?;
        }
        if let Some((longer_than, slow_share)) = settings.slow_calls {
            check.duration("slow_calls", longer_than)?;
            share("slow_calls", slow_share)?;
        }
        check.duration("open_for", settings.open_for)?;
        check.jitter("open_jitter", settings.open_jitter)?;
        check.within("open_growth", &settings.open_growth, 1.0..=10.0, "1 to 10")?;
        check.duration("open_growth", settings.max_open)?;
        check.duration("max_retry_after", settings.max_retry_after)?;
        check.duration("probe_lease", settings.probe_lease)?;
        let probes = |field, probes| check.count(field, probes, 10_000, "1 to 10000");
        probes("successes_to_close", settings.successes_to_close)?;
        probes("max_probes", settings.max_probes)
    }
}
