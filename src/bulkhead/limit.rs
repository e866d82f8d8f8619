//! Limit of the calls in flight: a number, or a policy that finds it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::aimd::Aimd;
use super::word::MAX;
use crate::callback::Callback;
use crate::error::Check;
use crate::{ConfigError, Outcome};

/// Adapts the limit of a bulkhead to what comes of the calls.
///
/// It is told of every call that ends, at that moment and on the thread where it does, also in a destructor:
/// it should be fast, and must not panic. Several threads may tell it at once, so what it remembers belongs into
/// atomics. It is not a layer: it neither reads the clock nor waits, and can be tested with made-up samples.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not adapt the limit of a bulkhead",
    note = "implement `LimitPolicy` for it, or use `Aimd::between(min, max)`"
)]
pub trait LimitPolicy: Send + Sync + 'static {
    /// Returns the limit to begin with, 1 to 1,000,000.
    fn initial(&self) -> usize;

    /// Takes note of a call that has ended, and returns the limit from now on: [`Sample::limit`] to leave it
    /// as it is.
    ///
    /// The returned limit is brought within 1 to 1,000,000. If the limit has changed meanwhile, a higher one is dropped;
    /// a lower one makes the new limit as much lower, but not lower than what is returned.
    fn update(&self, sample: &Sample) -> usize;
}

/// One call, as a [`LimitPolicy`] sees it when it is over.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sample {
    /// Time at which it ended.
    pub now: Instant,
    /// Time that it took, from the moment it had its permit: without the time in the queue, and where the call is over at
    /// the end of the body (`http::CompleteOnBodyEnd`) until the head came.
    pub round_trip: Duration,
    /// Time for which it had its permit: the round trip and the time of the body.
    pub held: Duration,
    /// Number of calls in flight when it began or when it ended, itself included; the greater of the two.
    pub in_flight: usize,
    /// The limit at present.
    pub limit: usize,
    /// The outcome of the call. [`Outcome::Ignored`] and [`Outcome::Cancelled`] say nothing about the service. A call that ended early
    /// is a failure, or cancelled.
    pub outcome: Outcome,
    /// `true` if a timeout ended the call, or if it [ended early](crate::circuit_breaker#calls-that-end-early) although the service had
    /// enough time for it.
    pub timed_out: bool,
}

impl Sample {
    /// A call that had the bulkhead for itself, succeeded at once and found this limit. To be adjusted.
    #[must_use]
    pub fn new(now: Instant, limit: usize) -> Self {
        Self {
            now,
            round_trip: Duration::ZERO,
            held: Duration::ZERO,
            in_flight: 1,
            limit,
            outcome: Outcome::Success,
            timed_out: false,
        }
    }
}

/// Limit of the calls in flight at once: a number from 1 to 1,000,000, [`Aimd`], or a policy of your own.
///
/// ```
/// use buttress::BulkheadLayer;
/// use buttress::bulkhead::{Aimd, Limit, LimitPolicy, Sample};
///
/// struct AsMany(usize);
///
/// impl LimitPolicy for AsMany {
///     fn initial(&self) -> usize {
///         self.0
///     }
///
///     fn update(&self, sample: &Sample) -> usize {
///         sample.limit
///     }
/// }
///
/// let fixed = BulkheadLayer::new("inventory", 100);
/// let adaptive = BulkheadLayer::new("inventory", Aimd::between(5, 200));
/// let own = BulkheadLayer::new("inventory", Limit::policy(|| AsMany(100)));
/// # assert_eq!(own.handle().limit(), 100);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Limit(Kind);

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Fixed(usize),
    Aimd(Aimd),
    Policy(Callback<dyn Fn() -> Box<dyn LimitPolicy> + Send + Sync>),
}

impl Limit {
    /// Returns a limit that `policy` adapts. It is asked for a new policy for each layer that is built.
    pub fn policy<P: LimitPolicy>(policy: impl Fn() -> P + Send + Sync + 'static) -> Self {
        let policy = move || -> Box<dyn LimitPolicy> { Box::new(policy()) };
        Self(Kind::Policy(Callback(Arc::new(policy))))
    }

    /// Returns the limit to begin with, and what adapts it.
    pub(super) fn build(
        &self,
        check: Check<'_>,
        now: Instant,
    ) -> Result<(usize, Option<Box<dyn LimitPolicy>>), ConfigError> {
        let policy: Box<dyn LimitPolicy> = match &self.0 {
            Kind::Fixed(limit) => {
                check_limit(check, "limit", *limit)?;
                return Ok((*limit, None));
            }
            Kind::Aimd(aimd) => {
                aimd.check(check)?;
                Box::new(aimd.begin(now))
            }
            Kind::Policy(make) => (make.0)(),
        };
        let initial = policy.initial();
        check_limit(check, "limit", initial)?;
        Ok((initial, Some(policy)))
    }
}

pub(super) fn check_limit(
    check: Check<'_>,
    field: &'static str,
    limit: usize,
) -> Result<(), ConfigError> {
    check.within(field, &limit, 1..=MAX, "1 to 1000000")
}

impl From<usize> for Limit {
    fn from(limit: usize) -> Self {
        Self(Kind::Fixed(limit))
    }
}

impl From<Aimd> for Limit {
    fn from(aimd: Aimd) -> Self {
        Self(Kind::Aimd(aimd))
    }
}
