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
use crate::http::{HttpStreams, Protocol};
use crate::telemetry::Series;

/// The settings of a [`PropagateDeadlineLayer`]. Made by [`PropagateDeadlineLayer::config`].
#[derive(Clone, PartialEq)]
#[must_use = "call `build` to make the layer"]
pub struct PropagateDeadlineConfig<H = HttpHeaders> {
    name: String,
    pub(super) settings: Settings,
    pub(super) headers: H,
}

/// The settings that are the same for all types of requests.
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
    /// Sets the time that is subtracted from the remaining time before it is sent, from zero to 365 days. Zero by
    /// default.
    ///
    /// Set it to the time that an answer takes through the network, so that the service's own deadline error arrives
    /// before the client gives up.
    pub fn slack(mut self, slack: Duration) -> Self {
        self.settings.slack = slack;
        self
    }

    /// Sets the longest time of an attempt: the time of the outer [`TimeoutLayer`](crate::TimeoutLayer). None by
    /// default.
    ///
    /// The service gets no more than this time, also without a deadline, because later work is in vain. The time is not
    /// sent for declared [streams](crate::stack#streams), which go on after it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = Some(timeout);
        self
    }

    /// Sets the header for the remaining milliseconds of plain HTTP requests. By default `x-request-timeout-ms`.
    pub fn header(mut self, header: HeaderName) -> Self {
        self.settings.header = header;
        self
    }

    /// Sets the protocol of every request. By default the `content-type` of each request decides.
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.settings.protocol = Some(protocol);
        self
    }

    /// Sets the function that finds the headers of requests that are no `http::Request`, as in
    /// `.headers(reqwest::Request::headers_mut)`.
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
            metrics: Series::of_deadline(&self.name, "propagate_deadline", Duration::MAX),
            config: Arc::new(self),
        })
    }
}

debug_fields!([H] PropagateDeadlineConfig<H> { name, settings });

/// The longest time that a caller gets. It is longer than most handlers work and most callers wait: a bound for hostile
/// or mistaken callers, not a normal deadline.
const MAX: Duration = Duration::from_secs(60);

/// The settings of an [`InheritDeadlineLayer`]. Made by [`InheritDeadlineLayer::config`].
#[derive(Clone, Debug, PartialEq)]
#[must_use = "call `build` to make the layer"]
pub struct InheritDeadlineConfig {
    name: String,
    pub(in crate::http) max: Duration,
    header: HeaderName,
    pub(in crate::http) streams: HttpStreams,
}

impl InheritDeadlineConfig {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            max: MAX,
            header: REQUEST_TIMEOUT_MS.clone(),
            streams: HttpStreams::new(),
        }
    }

    /// Sets the longest time that a request may take, above 0 and at most 365 days. 60 s by default.
    ///
    /// A longer time in a header is reduced to it, and a request without a header gets the full time: a caller gains
    /// nothing without the header.
    pub fn max(mut self, max: Duration) -> Self {
        self.max = max;
        self
    }

    /// Sets the header with the remaining milliseconds, in addition to `grpc-timeout`. By default
    /// `x-request-timeout-ms`.
    pub fn header(mut self, header: HeaderName) -> Self {
        self.header = header;
        self
    }

    /// Sets the requests whose answers are streams. Streams may outlast the [maximum](Self::max): they have only the
    /// deadline that their caller sends. By default only those with the option
    /// [`stream`](crate::CallOptions::stream) are, which an outer layer of your own has added.
    pub fn streaming(mut self, streams: HttpStreams) -> Self {
        self.streams = streams;
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
            streams: self.streams,
        };
        let metrics = Series::of_deadline(&self.name, "inherit_deadline", Duration::MAX);
        Ok(InheritDeadlineLayer::of(metrics, bound))
    }
}

layer_after_build!([H] PropagateDeadlineConfig<H>);
layer_after_build!([] InheritDeadlineConfig);
