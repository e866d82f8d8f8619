//! Settings of the bulkhead.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::gate::Gate;
use super::layer::BulkheadLayer;
use super::limit::{Limit, check_limit};
use super::metrics::BulkheadMetrics;
use super::part::Handle;
use super::queue::{Bounds, QueueOrder};
use super::shared::Shared;
use super::word::MAX;
use crate::algorithm::evidence::{Evidence, Terms};
use crate::chassis::{Choice, LayerConfig};
use crate::error::Check;
use crate::sync::{AtomicU32, Mutex};
use crate::telemetry::{Initial, Report, Series, Shown};
use crate::{CompleteOnResponse, ConfigError, ErrorKind, ErrorsAreFailures, Mode};

/// Long enough to absorb a burst. A longer wait means that the queue is more than a burst.
const QUEUE_WAIT: Duration = Duration::from_millis(100);
/// A queue that does not become empty delays every call and helps none. This part of the wait remains: enough for a
/// free permit to find a waiting call.
const OVERLOADED_PART: u32 = 5;

/// The settings of a [`BulkheadLayer`]. Made by [`BulkheadLayer::config`].
pub type Config<K = ErrorsAreFailures, C = CompleteOnResponse> = LayerConfig<Settings, (), K, C>;

/// Refuses a whole stack or server whose user has chosen neither a limit nor to have none.
pub(crate) fn check_limit_is_chosen(
    bulkhead: &Choice<Config>,
    check: Check<'_>,
) -> Result<(), ConfigError> {
    check.that(
        *bulkhead != Choice::Default,
        "concurrency_limit",
        &format_args!("not set"),
        "a number of calls, or `unlimited()`",
    )
}

/// The settings of a bulkhead in a [`Config`].
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub(super) limit: Limit,
    pub(super) queue: usize,
    pub(super) order: QueueOrder,
    queue_wait: Duration,
    /// `None` for a part of `queue_wait`.
    overloaded_wait: Option<Duration>,
    /// `None` for `queue_wait`.
    overloaded_after: Option<Duration>,
    pub(crate) one_quota: bool,
    pub(super) mode: Mode,
}

impl From<Limit> for Settings {
    fn from(limit: Limit) -> Self {
        Self {
            limit,
            queue: 0,
            order: QueueOrder::Fifo,
            queue_wait: QUEUE_WAIT,
            overloaded_wait: None,
            overloaded_after: None,
            one_quota: false,
            mode: Mode::Enforce,
        }
    }
}

impl<K, C> Config<K, C> {
    /// Sets the number of calls that may be in flight at once, in place of the limit that the configuration was made
    /// with.
    pub fn limit(mut self, limit: impl Into<Limit>) -> Self {
        self.settings.limit = limit.into();
        self
    }

    /// Sets the number of calls that may wait for a permit, up to 1,000,000. 0 by default: a call that finds no permit
    /// is rejected.
    ///
    /// In practice the longest wait bounds the queue; the length bounds its memory.
    pub fn queue(mut self, length: usize) -> Self {
        self.settings.queue = length;
        self
    }

    /// Sets the order in which waiting calls get permits. [`QueueOrder::Fifo`] by default.
    pub fn queue_order(mut self, order: QueueOrder) -> Self {
        self.settings.order = order;
        self
    }

    /// Sets the longest wait of a call. 100 ms by default.
    ///
    /// Once the queue has not been empty for this time, calls wait at most a fifth of it until the queue is empty.
    /// [`overloaded_after`](Self::overloaded_after) and [`overloaded_wait`](Self::overloaded_wait) change these two
    /// times.
    pub fn queue_wait(mut self, most: Duration) -> Self {
        self.settings.queue_wait = most;
        self
    }

    /// Sets the longest wait of a call while the queue is overloaded; not longer than
    /// [`queue_wait`](Self::queue_wait). A fifth of `queue_wait` by default.
    pub fn overloaded_wait(mut self, most: Duration) -> Self {
        self.settings.overloaded_wait = Some(most);
        self
    }

    /// Sets the time after which a queue that has not been empty is overloaded. By default the same as
    /// [`queue_wait`](Self::queue_wait).
    pub fn overloaded_after(mut self, busy_for: Duration) -> Self {
        self.settings.overloaded_after = Some(busy_for);
        self
    }

    /// Declares that all calls of this layer share one quota, as with the key of a third party. An answer
    /// [`Outcome::Throttled`](crate::Outcome::Throttled) (429, `RESOURCE_EXHAUSTED`) is then an overload for an
    /// adaptive limit. By default it does not affect the limit.
    pub fn one_quota(mut self) -> Self {
        self.settings.one_quota = true;
        self
    }

    /// Sets whether calls wait and are rejected, or are only observed. [`Mode::Enforce`] by default.
    ///
    /// While the bulkhead only observes, a call counts as rejected if more calls are in flight than the limit and the
    /// length of the queue together. The time for which the call would have waited is not known.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.settings.mode = mode;
        self
    }

    /// Sets the end of a call, when its permit becomes free. By default a call ends when the inner service has returned
    /// its response.
    pub fn completion<C2>(self, completion: C2) -> Config<K, C2> {
        self.with_completion(completion)
    }

    /// Returns the longest wait of a call, if there is a queue.
    pub(crate) fn longest_wait(&self) -> Option<Duration> {
        (self.settings.queue > 0).then_some(self.settings.queue_wait)
    }

    /// Makes the layer, with permits of its own.
    ///
    /// # Errors
    ///
    /// If the name is empty or a value is outside its range.
    pub fn build(self) -> Result<BulkheadLayer<K, C>, ConfigError> {
        let origin = Instant::now();
        let part = self.part(origin, None)?;
        Ok(self.part_layer(part.name(), origin, |()| part))
    }

    /// Makes the part, which counts time from `origin`, for attempts with this timeout.
    pub(crate) fn part(
        &self,
        origin: Instant,
        timeout: Option<Duration>,
    ) -> Result<Handle, ConfigError> {
        let check = Check::new("bulkhead", &self.name)?;
        let settings = &self.settings;
        let (limit, policy) = settings.limit.clone().build(check, origin)?;
        let bounds = settings.bounds(check)?;
        let gate = Gate::new(limit, settings.queue, bounds, settings.order);
        let shown = Shown::new(Series::of(&self.name, "bulkhead"), gate.word().0);
        settings.begin_rejections(shown.series);
        Ok(Handle {
            shared: Arc::new(Shared {
                policy,
                evidence: Evidence::new(Terms::new(timeout)),
                initial: limit,
                mode: AtomicU32::new(settings.mode.word()),
                code: settings.clone(),
                in_force: Mutex::new(settings.clone()),
                report: Report::new(shown.series, self.listener.clone()),
                shown,
                gate,
            }),
        })
    }
}

impl Settings {
    /// Makes the counters of the rejections known.
    pub(super) fn begin_rejections(&self, series: &'static Series<BulkheadMetrics>) {
        let of_queue = [ErrorKind::QueueTimeout, ErrorKind::DeadlineExceeded];
        let of_queue = of_queue.into_iter().filter(|_| self.queue > 0);
        let reasons = [ErrorKind::BulkheadFull].into_iter().chain(of_queue);
        series.begin(reasons.map(|reason| Initial::rejections(reason, self.mode)));
    }

    /// Checks that a bulkhead with the limit `former` can change to these settings.
    pub(super) fn check_change(
        &self,
        former: &Limit,
        check: Check<'_>,
    ) -> Result<Bounds, ConfigError> {
        match (self.limit.fixed(), former.fixed()) {
            (Some(limit), Some(_)) => check_limit(check, "limit", limit)?,
            _ => check.unchanged([("limit", self.limit == *former)])?,
        }
        self.bounds(check)
    }

    /// Returns the longest waits of a call, or an error if they or the length of the queue make no sense.
    fn bounds(&self, check: Check<'_>) -> Result<Bounds, ConfigError> {
        check.within("queue", &self.queue, ..=MAX, "0 to 1000000")?;
        let wait = self.queue_wait;
        let part = (wait / OVERLOADED_PART).max(Duration::from_nanos(1));
        let overloaded_wait = self.overloaded_wait.unwrap_or(part);
        let overloaded_after = self.overloaded_after.unwrap_or(wait);
        check.duration("queue_wait", wait)?;
        check.duration("overloaded_wait", overloaded_wait)?;
        let permitted = "at most queue_wait";
        check.within("overloaded_wait", &overloaded_wait, ..=wait, permitted)?;
        check.duration("overloaded_after", overloaded_after)?;
        Ok(Bounds {
            wait,
            overloaded_wait,
            overloaded_after,
        })
    }
}
