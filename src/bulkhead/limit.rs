//! Limit of the calls in flight: a number, or a policy that adapts.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::aimd::Aimd;
use super::word::MAX;
use crate::callback::Callback;
use crate::error::Check;
use crate::{ConfigError, Outcome};

/// Adapts the limit of a bulkhead to the results of the calls.
///
/// Every call that ends calls [`update`](Self::update) at once, on its own thread, also in a destructor: `update`
/// should be fast, and must not panic. Several threads may call it at the same time, so keep its state in atomics. A
/// policy neither reads the clock nor waits, so you can test it with samples of your own.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not adapt the limit of a bulkhead",
    note = "implement `LimitPolicy` for it, or use `Aimd::between(min, max)`"
)]
pub trait LimitPolicy: Send + Sync + 'static {
    /// Returns the initial limit, 1 to 1,000,000.
    fn initial(&self) -> usize;

    /// Notes a call that has ended, and returns the new limit, or [`Sample::limit`] to keep the present one.
    ///
    /// The bulkhead brings the returned limit within 1 to 1,000,000. If the limit has changed in the meantime, a
    /// returned increase is ignored. A returned decrease lowers the changed limit by the same amount, but not below the
    /// returned value.
    fn update(&self, sample: &Sample) -> usize;
}

/// One call that has ended, as a [`LimitPolicy`] sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sample {
    /// Time at which the call ended.
    pub now: Instant,
    /// Time from the permit to the end of the call, without the time in the queue. If the call ends with its body
    /// (`http::CompleteOnBodyEnd`), time from the permit to the head.
    pub round_trip: Duration,
    /// Time for which the call had its permit: the round trip and the time of the body.
    pub held: Duration,
    /// Number of calls in flight, this one included, when the call began or when it ended; the greater of the two.
    pub in_flight: usize,
    /// The limit at present.
    pub limit: usize,
    /// The outcome of the call. [`Outcome::Ignored`] and [`Outcome::Cancelled`] say nothing about the service. A call
    /// that ended early is a failure, or cancelled.
    pub outcome: Outcome,
    /// `true` if a timeout ended the call, or if it [ended early](crate::circuit_breaker#calls-that-end-early) although
    /// the service had enough time for it.
    pub timed_out: bool,
}

impl Sample {
    /// Makes a sample to adjust: a single call in flight that succeeded at once under this limit.
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
    /// Makes a limit that adapts. Each layer that is built calls `policy` for a new policy.
    pub fn policy<P: LimitPolicy>(policy: impl Fn() -> P + Send + Sync + 'static) -> Self {
        let policy = move || -> Box<dyn LimitPolicy> { Box::new(policy()) };
        Self(Kind::Policy(Callback(Arc::new(policy))))
    }

    /// Returns the number, if the limit does not adapt.
    pub(super) fn fixed(&self) -> Option<usize> {
        match self.0 {
            Kind::Fixed(limit) => Some(limit),
            Kind::Aimd(_) | Kind::Policy(_) => None,
        }
    }

    /// Returns the initial limit, and the policy that adapts it.
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
