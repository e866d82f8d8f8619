//! Settings of body timeouts.

use std::time::Duration;

use super::layer::BodyTimeoutLayer;
use crate::ConfigError;
use crate::error::Check;
use crate::telemetry::Series;

/// How long a body may take. What is not set is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) idle: Option<Duration>,
    pub(super) total: Option<Duration>,
    pub(super) deadline: bool,
}

/// The settings of a [`BodyTimeoutLayer`]. Made by [`BodyTimeoutLayer::config`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "call `build` to make the layer"]
pub struct Config {
    name: String,
    limits: Limits,
}

impl Config {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            limits: Limits::default(),
        }
    }

    /// How long a reader may wait for the next frame; above 0 and at most 365 days.
    pub fn idle(mut self, timeout: Duration) -> Self {
        self.limits.idle = Some(timeout);
        self
    }

    /// How long the body may take in all, from the head of the response; above 0 and at most 365 days, and longer
    /// than `idle`.
    pub fn total(mut self, timeout: Duration) -> Self {
        self.limits.total = Some(timeout);
        self
    }

    /// Ends the body at the deadline that was in force when the head came as well. Off by default: a
    /// deadline is for the head.
    pub fn deadline(mut self, ends: bool) -> Self {
        self.limits.deadline = ends;
        self
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// If the name is empty, a value is outside its range, or there is nothing that ends a body.
    pub fn build(self) -> Result<BodyTimeoutLayer, ConfigError> {
        let check = Check::new("body timeout", &self.name)?;
        let Limits {
            idle,
            total,
            deadline,
        } = self.limits;
        if let Some(idle) = idle {
            check.duration("idle", idle)?;
        }
        if let Some(total) = total {
            check.duration("total", total)?;
            let permitted = "longer than `idle`";
            check.that(
                idle.is_none_or(|idle| idle < total),
                "total",
                &total,
                permitted,
            )?;
        }
        let permitted = "set, or `total`, or `deadline`";
        let is_set = idle.is_some() || total.is_some() || deadline;
        check.that(is_set, "idle", &idle, permitted)?;
        Ok(BodyTimeoutLayer {
            limits: self.limits,
            metrics: Series::of(&self.name, "body"),
        })
    }
}
