//! The layers between a standard stack and its client, and the end of a whole client: one service, or a balancer over several.

use std::task::{self, Poll};

use ::http::{Request, Response};
use futures::TryFutureExt;
use futures::future::{Either, MapOk};
use http_body::Body;
use tower::{Layer, Service};

use super::body_timeout::{self, BodyTimeout, BodyTimeoutLayer, TimeoutBody};
use super::deadline::{PropagateDeadline, PropagateDeadlineConfig, PropagateDeadlineLayer};
use super::{ClassifyEos, CompleteOnBodyEnd, HttpReplay, HttpStreams, TrackedBody};
use crate::balance::{self, Balance, Flight, HealthCheck, PowerOfChoices, Probe};
use crate::chassis::InFlight;
use crate::error::Check;
use crate::measure::Meter;
use crate::stack::{Settings, Standard, StandardParts, StandardService};
use crate::{BoxError, Classify, CloneService, ConfigError, Error};

/// The settings of the layers between a standard stack and its client.
#[derive(Clone, Debug, PartialEq)]
pub struct Transport {
    body_timeout: body_timeout::Config,
    propagate_deadline: PropagateDeadlineConfig,
    balance: balance::Config,
}

impl Transport {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            body_timeout: BodyTimeoutLayer::config(name),
            propagate_deadline: PropagateDeadlineLayer::config(name),
            balance: Balance::config(name),
        }
    }

    fn near(&self) -> Result<NearLayers, ConfigError> {
        Ok(NearLayers {
            body_timeout: self.body_timeout.clone().build()?,
            propagate_deadline: self.propagate_deadline.clone().build()?,
        })
    }
}

impl<R, K, C, D> Standard<R, K, C, D, Transport> {
    /// Changes the settings of the [body timeout](crate::http::body_timeout).
    pub fn body_timeout(
        self,
        change: impl FnOnce(body_timeout::Config) -> body_timeout::Config,
    ) -> Self {
        self.transport(|mut transport| {
            transport.body_timeout = change(transport.body_timeout);
            transport
        })
    }

    /// Changes the settings that send the [deadline](crate::http::deadline) to the service.
    pub fn propagate_deadline(
        self,
        change: impl FnOnce(PropagateDeadlineConfig) -> PropagateDeadlineConfig,
    ) -> Self {
        self.transport(|mut transport| {
            transport.propagate_deadline = change(transport.propagate_deadline);
            transport
        })
    }

    /// Changes the settings of the [balancer](crate::balance) of a client that has several replicas.
    pub fn balance(self, change: impl FnOnce(balance::Config) -> balance::Config) -> Self {
        self.transport(|mut transport| {
            transport.balance = change(transport.balance);
            transport
        })
    }

    fn transport(mut self, change: impl FnOnce(Transport) -> Transport) -> Self {
        self.settings.transport = change(self.settings.transport);
        self
    }
}

/// A client with the layers next to it.
pub(crate) type Near<S> = BodyTimeout<PropagateDeadline<S>>;

/// The layers next to a client.
#[derive(Clone)]
pub(crate) struct NearLayers {
    body_timeout: BodyTimeoutLayer,
    propagate_deadline: PropagateDeadlineLayer,
}

impl NearLayers {
    pub(crate) fn layer<S>(&self, client: S) -> Near<S> {
        self.body_timeout
            .layer(self.propagate_deadline.layer(client))
    }
}

/// The end of a whole client: a service `O`, or a balancer over services `M`.
#[derive(Clone, Debug)]
pub enum Targets<O, M, K> {
    /// One service.
    One(Near<O>),
    /// Several services of the same kind.
    Many(HttpBalanceBy<M, K>),
}

/// A balancer over the replicas of a whole client.
pub(crate) type HttpBalanceBy<M, K> = Balance<Near<M>, PowerOfChoices, K, CompleteOnBodyEnd>;

/// The settings of a balancer over the replicas of a whole client.
pub(crate) type HttpBalanceConfig<K> = balance::Config<PowerOfChoices, K, CompleteOnBodyEnd>;

/// The settings of a whole client.
pub(crate) type WholeConfig<K> = Standard<HttpReplay, K, CompleteOnBodyEnd, HttpStreams, Transport>;

/// A standard stack over the end of a whole client.
pub(crate) type Whole<O, M, K> =
    StandardService<Targets<O, M, K>, HttpReplay, K, CompleteOnBodyEnd, HttpStreams>;

/// The same over a balancer, and the handle of that.
pub(crate) type Balanced<O, M, K> = (Whole<O, M, K>, balance::Handle<Near<M>>);

/// The body of a response of [`Targets`].
pub(crate) type TargetBody<B, K> = TrackedBody<TimeoutBody<B>, Flight, K>;

/// The body of a response of a whole client, whose inner client has bodies of type `B`.
pub(crate) type WholeBody<B, K> =
    TrackedBody<TargetBody<B, K>, InFlight<Option<Meter>, StandardParts>, K>;

impl<K: Clone> WholeConfig<K> {
    /// Makes a client of one target.
    pub(crate) fn over_one<O: Clone, M: Clone>(
        self,
        client: O,
    ) -> Result<Whole<O, M, K>, ConfigError> {
        let near = self.settings.transport.near()?.layer(client);
        Ok(self.layer()?.layer(Targets::One(near)))
    }

    /// Makes a client of several targets. A circuit breaker around all of them would open because of one.
    pub(crate) fn over_many<O: Clone, M: Clone>(
        self,
        balance: impl FnOnce(
            HttpBalanceConfig<K>,
            NearLayers,
        ) -> Result<HttpBalanceBy<M, K>, ConfigError>,
    ) -> Result<Balanced<O, M, K>, ConfigError> {
        let near = self.settings.transport.near()?;
        let config = self.settings.transport.balance.clone();
        let config = config
            .classify(self.classify.clone())
            .completion(CompleteOnBodyEnd);
        let stack = self.with_settings(Settings::without_default_breaker);
        let stack = stack.layer()?;
        let many = balance(config, near)?;
        let handle = many.handle();
        Ok((stack.layer(Targets::Many(many)), handle))
    }
}

/// Asks the replicas of a whole client whether they work, if it has some.
pub(crate) fn check_health<S, H>(
    balancer: Option<&balance::Handle<S>>,
    name: &str,
    health: HealthCheck<H>,
) -> Result<(), ConfigError>
where
    S: Clone + Send + Sync + 'static,
    H: Probe<S> + Send + Sync + 'static,
{
    let Some(balancer) = balancer else {
        let found = &format_args!("asked for without replicas");
        return Err(Check::new("client", name)?.refuse("check_health", found, "with replicas"));
    };
    balancer.check_health(health)
}

type OneFuture<O, B, R, K> = MapOk<
    <Near<O> as Service<Request<B>>>::Future,
    fn(Response<TimeoutBody<R>>) -> Response<TargetBody<R, K>>,
>;

type ManyFuture<M, B, K> =
    balance::ResponseFuture<Near<M>, Request<B>, PowerOfChoices, K, CompleteOnBodyEnd>;

impl<O, M, K, B, R> Service<Request<B>> for Targets<O, M, K>
where
    O: CloneService<Request<B>, Response = Response<R>>,
    M: CloneService<Request<B>, Response = Response<R>>,
    R: Body<Error: Into<BoxError> + 'static>,
    K: Classify<Response<TimeoutBody<R>>> + ClassifyEos + Clone,
{
    type Response = Response<TargetBody<R, K>>;
    type Error = Error;
    type Future = Either<OneFuture<O, B, R, K>, ManyFuture<M, B, K>>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        match self {
            Self::One(one) => one.poll_ready(cx),
            Self::Many(many) => many.poll_ready(cx),
        }
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self {
            Self::One(one) => {
                let uncounted = |response: Response<_>| response.map(TrackedBody::from);
                Either::Left(one.call(request).map_ok(uncounted as _))
            }
            Self::Many(many) => Either::Right(many.call(request)),
        }
    }
}
