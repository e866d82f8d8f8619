//! The layers between a standard stack and its client, and the inner end of a whole client: a service, or a balancer.

use std::task::{self, Poll};

use ::http::{Request, Response};
use futures::TryFutureExt;
use futures::future::{Either, MapOk};
use http_body::Body;
use tower::{Layer, Service};

use super::body_timeout::{self, BodyTimeout, BodyTimeoutLayer, TimeoutBody};
use super::deadline::{PropagateDeadline, PropagateDeadlineConfig, PropagateDeadlineLayer};
use super::{ClassifyEos, CompleteOnBodyEnd, HttpReplay, HttpStreams, TrackedBody};
use crate::balance::{self, Balance, Endpoint, Flight, HealthCheck, PowerOfChoices, Probe};
use crate::chassis::InFlight;
use crate::discover::Source;
use crate::error::Check;
use crate::stack::{self, Settings, Standard, StandardOperation, StandardParts, StandardService};
use crate::{BoxError, Classify, CloneService, ConfigError, Error};

/// The settings of the layers between a standard stack and its client. `A` has the settings of the client, if there are
/// some.
#[derive(Clone, Debug, PartialEq)]
pub struct Transport<A = ()> {
    body_timeout: body_timeout::Config,
    propagate_deadline: PropagateDeadlineConfig,
    /// `None` unless it was changed.
    balance: Option<balance::Config>,
    pub(crate) client: A,
}

impl<A> Transport<A> {
    fn new(name: &str, client: A) -> Self {
        Self {
            body_timeout: BodyTimeoutLayer::config(name),
            propagate_deadline: PropagateDeadlineLayer::config(name),
            balance: None,
            client,
        }
    }

    fn near(&self) -> Result<NearLayers, ConfigError> {
        Ok(NearLayers {
            // The stack ends the body at the deadline.
            body_timeout: self.body_timeout.clone().build()?.without_deadline(),
            propagate_deadline: self.propagate_deadline.clone().build()?,
        })
    }
}

impl<R, K, C, D, A> Standard<R, K, C, D, Transport<A>> {
    /// Changes the settings of the [body timeout](crate::http::body_timeout).
    pub fn body_timeout(
        mut self,
        change: impl FnOnce(body_timeout::Config) -> body_timeout::Config,
    ) -> Self {
        self.settings.transport.body_timeout = change(self.settings.transport.body_timeout);
        self
    }

    /// Changes the settings of the layer that sends the [deadline](crate::http::deadline) to the service.
    pub fn propagate_deadline(
        mut self,
        change: impl FnOnce(PropagateDeadlineConfig) -> PropagateDeadlineConfig,
    ) -> Self {
        let propagate_deadline = self.settings.transport.propagate_deadline;
        self.settings.transport.propagate_deadline = change(propagate_deadline);
        self
    }

    /// Changes the settings of the [balancer](crate::balance) of a client with several replicas. A client of one target
    /// refuses these settings.
    pub fn balance(mut self, change: impl FnOnce(balance::Config) -> balance::Config) -> Self {
        let config = self.settings.transport.balance.take();
        let config = config.unwrap_or_else(|| Balance::config(&self.name));
        self.settings.transport.balance = Some(change(config));
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

/// The inner end of a whole client: a service `O`, or a balancer over services `M`.
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
pub(crate) type WholeConfig<K, A = ()> =
    Standard<HttpReplay, K, CompleteOnBodyEnd, HttpStreams, Transport<A>>;

/// A standard stack around the inner end of a whole client.
pub(crate) type WholeStack<O, M, K> =
    StandardService<Targets<O, M, K>, HttpReplay, K, CompleteOnBodyEnd, HttpStreams>;

/// A whole client of one target `O` or of several targets `M`. The clients of all protocols are made of it.
#[derive(Clone)]
pub(crate) struct Whole<O, M, K> {
    pub(crate) stack: WholeStack<O, M, K>,
    balancer: Option<balance::Handle<Near<M>>>,
}

/// The body of a response of [`Targets`].
pub(crate) type TargetBody<B, K> = TrackedBody<TimeoutBody<B>, Flight, K>;

/// The body of a response of a whole client, whose inner client has bodies of type `B`.
pub(crate) type WholeBody<B, K> =
    TrackedBody<TargetBody<B, K>, InFlight<StandardOperation, StandardParts>, K>;

/// Adds the settings of a whole client to those of a standard stack.
pub(crate) fn whole<K, A>(
    standard: Standard<HttpReplay, K, CompleteOnBodyEnd>,
    client: A,
) -> WholeConfig<K, A> {
    let transport = Transport::new(&standard.name, client);
    standard
        .streaming(HttpStreams::new())
        .with_settings(|settings| settings.with_transport(transport))
}

impl<K: Clone, A> WholeConfig<K, A> {
    /// Makes a client of one target.
    pub(crate) fn over_one<O: Clone, M: Clone>(
        self,
        client: O,
    ) -> Result<Whole<O, M, K>, ConfigError> {
        if self.settings.transport.balance.is_some() {
            return refuse_without_replicas(&self.name, "balance", "configured");
        }
        let near = self.settings.transport.near()?.layer(client);
        Ok(Whole {
            stack: self.layer()?.layer(Targets::One(near)),
            balancer: None,
        })
    }

    /// Makes a client of the targets in a list.
    pub(crate) fn over_list<O: Clone, M: Clone>(
        self,
        endpoints: impl IntoIterator<Item = Result<Endpoint<M>, ConfigError>>,
    ) -> Result<Whole<O, M, K>, ConfigError> {
        self.over_many(|balance, near| {
            let endpoints = endpoints.into_iter();
            let near = |endpoint: Endpoint<M>| endpoint.map(|client| near.layer(client));
            let endpoints = endpoints.map(|endpoint| endpoint.map(near));
            balance.build(endpoints.collect::<Result<Vec<_>, _>>()?)
        })
    }

    /// Makes a client of the targets that `source` finds. `client` makes the service of a target.
    pub(crate) fn over_found<O, M, D>(
        self,
        source: D,
        client: impl Fn(D::Service) -> M + Send + 'static,
    ) -> Result<Whole<O, M, K>, ConfigError>
    where
        O: Clone,
        M: Clone + Send + Sync + 'static,
        D: Source<Key: ToString> + Send + 'static,
    {
        self.over_many(|balance, near| {
            balance.drive(source, move |key, found| {
                Endpoint::new(key, near.layer(client(found)))
            })
        })
    }

    /// Makes a client of several targets. It has no circuit breaker by default, because one target could open it for
    /// all.
    fn over_many<O: Clone, M: Clone>(
        self,
        balance: impl FnOnce(
            HttpBalanceConfig<K>,
            NearLayers,
        ) -> Result<HttpBalanceBy<M, K>, ConfigError>,
    ) -> Result<Whole<O, M, K>, ConfigError> {
        let near = self.settings.transport.near()?;
        let config = self.settings.transport.balance.clone();
        let config = config
            .unwrap_or_else(|| Balance::config(&self.name))
            .classify(self.classify.clone())
            .completion(CompleteOnBodyEnd);
        let stack = self.with_settings(Settings::without_default_breaker);
        let stack = stack.layer()?;
        let many = balance(config, near)?;
        Ok(Whole {
            balancer: Some(many.handle()),
            stack: stack.layer(Targets::Many(many)),
        })
    }
}

impl<O, M, K> Whole<O, M, K> {
    pub(crate) fn handle(&self) -> stack::Handle {
        self.stack.handle()
    }

    pub(crate) fn balancer(&self) -> Option<&balance::Handle<Near<M>>> {
        self.balancer.as_ref()
    }

    /// Starts a health check of the replicas, if there are some.
    pub(crate) fn check_health<H>(&self, health: HealthCheck<H>) -> Result<(), ConfigError>
    where
        M: Clone + Send + Sync + 'static,
        H: Probe<Near<M>> + Send + Sync + 'static,
    {
        let Some(balancer) = &self.balancer else {
            let name = self.handle().name();
            return refuse_without_replicas(name, "check_health", "asked for");
        };
        balancer.check_health(health)
    }
}

/// Refuses a setting of the balancer, for a client without a balancer.
fn refuse_without_replicas<T>(
    name: &str,
    field: &'static str,
    found: &str,
) -> Result<T, ConfigError> {
    let check = Check::new("client", name)?;
    Err(check.refuse(
        field,
        &format_args!("{found} without replicas"),
        "with replicas",
    ))
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
