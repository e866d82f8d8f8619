//! Settings of body timeouts.

use std::time::Duration;

use super::layer::BodyTimeoutLayer;
use crate::ConfigError;
use crate::error::Check;
use crate::hints::layer_after_build;
use crate::telemetry::Series;

/// The longest silence. It is a usual read timeout of a proxy, and far longer than the silence of a healthy server.
const IDLE: Duration = Duration::from_secs(30);

/// Limits of the time of a body. `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) idle: Option<Duration>,
    pub(super) stream_idle: Option<Duration>,
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
            limits: Limits {
                idle: Some(IDLE),
                stream_idle: None,
                total: None,
                deadline: true,
            },
        }
    }

    /// Sets the time for which a reader may wait for the next frame; above 0 and at most 365 days. 30 s by default.
    ///
    /// In a gRPC answer it applies up to the first message, because later messages are a stream. For later messages,
    /// and for a [declared stream](crate::stack#streams), [`stream_idle`](Self::stream_idle) applies instead.
    pub fn idle(mut self, timeout: Duration) -> Self {
        self.limits.idle = Some(timeout);
        self
    }

    /// Removes the limit of silence.
    pub fn no_idle(mut self) -> Self {
        self.limits.idle = None;
        self
    }

    /// Sets the time for which a reader may wait for the next frame of a [declared stream](crate::stack#streams), and
    /// of a gRPC answer after its first message; above 0 and at most 365 days. No limit by default.
    ///
    /// Set it to somewhat more than the longest pause of a healthy server, such as the interval of its keep-alive
    /// messages.
    pub fn stream_idle(mut self, timeout: Duration) -> Self {
        self.limits.stream_idle = Some(timeout);
        self
    }

    /// Sets the time that the whole body may take, from the head of the response; above 0 and at most 365 days, and
    /// longer than an `idle` that is set. No limit by default, and none for [declared streams](crate::stack#streams).
    pub fn total(mut self, timeout: Duration) -> Self {
        self.limits.total = Some(timeout);
        self
    }

    /// Sets whether the body also ends at the deadline that was in force when the head arrived. True by default.
    ///
    /// Set it to `false` for bodies that may outlast the deadline of a [`DeadlineLayer`](crate::DeadlineLayer). A
    /// standard stack ends a body at the deadline in any case: declare longer answers with
    /// [`streaming`](crate::stack::Standard::streaming).
    pub fn deadline(mut self, ends: bool) -> Self {
        self.limits.deadline = ends;
        self
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// If the name is empty, a value is outside its range, or no limit is left.
    pub fn build(self) -> Result<BodyTimeoutLayer, ConfigError> {
        self.build_for("body")
    }

    /// Makes a layer that is called `part` in its metrics.
    pub(in crate::http) fn build_for(
        self,
        part: &'static str,
    ) -> Result<BodyTimeoutLayer, ConfigError> {
        let check = Check::new("body timeout", &self.name)?;
        let Limits {
            idle,
            stream_idle,
            total,
            deadline,
        } = self.limits;
        if let Some(idle) = idle {
            check.duration("idle", idle)?;
        }
        if let Some(idle) = stream_idle {
            check.duration("stream_idle", idle)?;
        }
        if let Some(total) = total {
            check.duration("total", total)?;
            // The default `idle` may be longer than `total`.
            let is_longer = idle.is_none_or(|idle| idle < total || idle == IDLE);
            check.that(is_longer, "total", &total, "longer than `idle`")?;
        }
        let permitted = "set, or `total`, or `deadline`";
        let is_set = idle.is_some() || total.is_some() || deadline;
        check.that(is_set, "idle", &idle, permitted)?;
        Ok(BodyTimeoutLayer {
            limits: self.limits,
            metrics: Series::of_time(&self.name, part, Duration::MAX),
        })
    }
}

layer_after_build!([] Config);
