//! Settings of timeout and deadline.

use std::time::Duration;

use super::bound::{PerAttempt, Total};
use super::{DeadlineLayer, TimeoutLayer};
use crate::ConfigError;
use crate::debug::debug_fields;
use crate::error::Check;
use crate::hints::layer_after_build;
use crate::telemetry::Series;

/// Timeout of an attempt, which may depend on the request.
///
/// A [`Fixed`] time, or [`PerRequest`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` gives no timeout for requests of type `{Req}`",
    note = "write `TimeoutLayer::per_request(name, |request: &{Req}| Duration::from_millis(300))`"
)]
pub trait TimeoutFor<Req> {
    /// Returns the time that an attempt to send `request` may take.
    fn timeout_for(&self, request: &Req) -> Duration;
}

/// The same timeout for every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed(pub(super) Duration);

impl<Req> TimeoutFor<Req> for Fixed {
    fn timeout_for(&self, _request: &Req) -> Duration {
        self.0
    }
}

/// A timeout that a closure computes from each request.
///
/// The closure may return `Duration::ZERO` (the attempt ends at once unless its answer is ready) and `Duration::MAX`
/// (the attempt never ends by the timeout).
#[derive(Clone, Copy)]
pub struct PerRequest<F>(pub(super) F);

debug_fields!([F] PerRequest<F> {});

impl<Req, F: Fn(&Req) -> Duration> TimeoutFor<Req> for PerRequest<F> {
    fn timeout_for(&self, request: &Req) -> Duration {
        (self.0)(request)
    }
}

/// The settings of a [`TimeoutLayer`]. Made by [`TimeoutLayer::config`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "call `build` to make the layer"]
pub struct TimeoutConfig {
    pub(super) name: String,
    pub(super) timeout: Duration,
}

impl TimeoutConfig {
    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// If the name is empty, or the timeout is zero or longer than 365 days.
    pub fn build(self) -> Result<TimeoutLayer, ConfigError> {
        let check = Check::new("timeout", &self.name)?;
        check.duration("timeout", self.timeout)?;
        let bound = PerAttempt(Fixed(self.timeout));
        let metrics = Series::of_time(&self.name, "timeout", self.timeout);
        Ok(TimeoutLayer::of(metrics, bound))
    }
}

/// The settings of a [`DeadlineLayer`]. Made by [`DeadlineLayer::config`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "call `build` to make the layer"]
pub struct DeadlineConfig {
    pub(super) name: String,
    pub(super) total: Duration,
}

impl DeadlineConfig {
    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// If the name is empty, or the time is zero or longer than 365 days.
    pub fn build(self) -> Result<DeadlineLayer, ConfigError> {
        let check = Check::new("deadline", &self.name)?;
        check.duration("total", self.total)?;
        let metrics = Series::of_deadline(&self.name, "deadline", self.total);
        Ok(DeadlineLayer::of(metrics, Total(self.total)))
    }
}

layer_after_build!([] TimeoutConfig);
layer_after_build!([] DeadlineConfig);
