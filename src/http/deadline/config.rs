//! Settings of the deadlines across hops.

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName};

use super::headers::{HttpHeaders, REQUEST_TIMEOUT_MS};
use super::layer::{InheritDeadlineLayer, Inherited, PropagateDeadlineLayer};
use crate::ConfigError;
use crate::debug::debug_fields;
use crate::error::Check;
use crate::hints::layer_after_build;
use crate::http::Protocol;
use crate::telemetry::Series;

/// The settings of a [`PropagateDeadlineLayer`]. Made by [`PropagateDeadlineLayer::config`].
#[derive(Clone, PartialEq)]
#[must_use = "call `build` to make the layer"]
pub struct PropagateDeadlineConfig<H = HttpHeaders> {
    name: String,
    pub(super) settings: Settings,
    pub(super) headers: H,
}

/// The part that is the same for all types of requests.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) slack: Duration,
    pub(super) timeout: Option<Duration>,
    pub(super) header: HeaderName,
    pub(super) protocol: Option<Protocol>,
}

impl PropagateDeadlineConfig {
    pub(super) fn new(name: String) -> Self {
        let settings = Settings {
            slack: Duration::ZERO,
            timeout: None,
            header: REQUEST_TIMEOUT_MS.clone(),
            protocol: None,
        };
        Self {
            name,
            settings,
            headers: HttpHeaders,
        }
    }
}

impl<H> PropagateDeadlineConfig<H> {
    /// Sets the time that is subtracted from the time left before it is sent, from zero to 365 days. Zero by default.
    ///
    /// As long as an answer takes on its way back, so that the service's own "too late" arrives before this side has
    /// given up.
    pub fn slack(mut self, slack: Duration) -> Self {
        self.settings.slack = slack;
        self
    }

    /// Sets the longest time of an attempt: the time of the [`TimeoutLayer`](crate::TimeoutLayer) outside. None by
    /// default.
    ///
    /// The service is given no more than this, also where there is no deadline: what it does later is done for nobody. It is
    /// not written for declared [streams](crate::stack#streams), which go on after it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = Some(timeout);
        self
    }

    /// The header with the milliseconds that are left, for requests of plain HTTP. By default `x-request-timeout-ms`.
    pub fn header(mut self, header: HeaderName) -> Self {
        self.settings.header = header;
        self
    }

    /// Takes every request for one of this protocol. By default the `content-type` says which one it is.
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.settings.protocol = Some(protocol);
        self
    }

    /// Finds the headers of requests that are no `http::Request`, as in `.headers(reqwest::Request::headers_mut)`.
    pub fn headers<Req, H2>(self, headers: H2) -> PropagateDeadlineConfig<H2>
    where
        H2: Fn(&mut Req) -> &mut HeaderMap,
    {
        PropagateDeadlineConfig {
            name: self.name,
            settings: self.settings,
            headers,
        }
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// If the name is empty, the timeout is zero or longer than 365 days, or the slack is not less than the timeout
    /// (without one, than 365 days).
    pub fn build(self) -> Result<PropagateDeadlineLayer<H>, ConfigError> {
        let check = Check::new("propagate deadline", &self.name)?;
        let Settings { slack, timeout, .. } = self.settings;
        if let Some(timeout) = timeout {
            check.duration("timeout", timeout)?;
            let permitted = format!("less than the timeout, {timeout:?}");
            check.that(slack < timeout, "slack", &slack, permitted)?;
        }
        check.duration_or_zero("slack", slack)?;
        Ok(PropagateDeadlineLayer {
            metrics: Series::of(&self.name, "propagate_deadline"),
            config: Arc::new(self),
        })
    }
}

debug_fields!([H] PropagateDeadlineConfig<H> { name, settings });

/// The longest time that a caller gets. Longer than most handlers work and most callers wait: a bound for callers that
/// mean harm or ask for a mistake, not a time to work with.
const MAX: Duration = Duration::from_secs(60);

/// The settings of an [`InheritDeadlineLayer`]. Made by [`InheritDeadlineLayer::config`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "call `build` to make the layer"]
pub struct InheritDeadlineConfig {
    name: String,
    max: Duration,
    header: HeaderName,
}

impl InheritDeadlineConfig {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            max: MAX,
            header: REQUEST_TIMEOUT_MS.clone(),
        }
    }

    /// The longest time that a request may take, above 0 and at most 365 days. 60 s by default.
    ///
    /// A header that allows more is cut to it, and a request without a header has all of it: leaving the header out gains
    /// a caller nothing.
    pub fn max(mut self, max: Duration) -> Self {
        self.max = max;
        self
    }

    /// The header with the milliseconds that are left, beside `grpc-timeout`. By default `x-request-timeout-ms`.
    pub fn header(mut self, header: HeaderName) -> Self {
        self.header = header;
        self
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// If the name is empty, or the maximum is zero or longer than 365 days.
    pub fn build(self) -> Result<InheritDeadlineLayer, ConfigError> {
        let check = Check::new("inherit deadline", &self.name)?;
        check.duration("max", self.max)?;
        let bound = Inherited {
            max: self.max,
            header: self.header,
        };
        Ok(InheritDeadlineLayer::of(
            &self.name,
            "inherit_deadline",
            bound,
        ))
    }
}

layer_after_build!([H] PropagateDeadlineConfig<H>);
layer_after_build!([] InheritDeadlineConfig);
