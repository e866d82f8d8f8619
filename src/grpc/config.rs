//! The settings of a whole gRPC client.

use super::health::{GrpcProbe, message};
use super::service::{Client, IntoChannel};
use crate::ConfigError;
use crate::balance::{Endpoint, HealthCheck};
use crate::discover::Source;
use crate::http::grpc::{Classifier, standard};
use crate::http::transport::{Near, WholeConfig, whole};

/// The settings of a [`Client`]: the settings of the [standard stack](crate::stack) and of the layers inside it.
pub type Config = WholeConfig<Classifier>;

/// A replica: its channel with the layers next to it.
pub type Replica<S> = Near<IntoChannel<S>>;

/// Begins to configure a gRPC client for the calls to one dependency. See the [module documentation](super).
///
/// `name` is a label of the metrics and a part of the errors.
pub fn client(name: impl Into<String>) -> Config {
    whole(standard(name), ())
}

/// Makes a health check of replicas by the gRPC health service `grpc.health.v1.Health`. It asks for `service`; `""` is
/// the whole server.
pub fn health_check(service: &str) -> HealthCheck<GrpcProbe> {
    HealthCheck::new(GrpcProbe {
        message: message(service),
    })
}

impl Config {
    /// Makes a client of one channel.
    ///
    /// # Errors
    ///
    /// If the name is empty, a value is outside its range, two parts contradict each other, or
    /// [`balance`](Self::balance) is configured.
    pub fn wrap<S: Clone>(self, channel: S) -> Result<Client<S>, ConfigError> {
        self.over_one(IntoChannel::new(channel)).map(Client)
    }

    /// Makes a client that spreads its calls over several channels.
    ///
    /// There is no circuit breaker around all channels, unless [`circuit_breaker`](Self::circuit_breaker) sets one.
    ///
    /// # Errors
    ///
    /// The errors of [`wrap`](Self::wrap). Also if there is no channel, or two have the same key.
    pub fn replicas<S: Clone>(
        self,
        channels: impl IntoIterator<Item = Endpoint<S>>,
    ) -> Result<Client<S>, ConfigError> {
        let channels = channels.into_iter();
        let replicas = channels.map(|endpoint| Ok(endpoint.map(IntoChannel::new)));
        self.over_list(replicas).map(Client)
    }

    /// Makes a client that spreads its calls over the channels that `source` finds. Otherwise as
    /// [`replicas`](Self::replicas).
    ///
    /// # Errors
    ///
    /// The errors of [`wrap`](Self::wrap). Also if there is no Tokio runtime to poll the source.
    pub fn discover<S, D>(self, source: D) -> Result<Client<S>, ConfigError>
    where
        S: Clone + Send + Sync + 'static,
        D: Source<Service = S, Key: ToString> + Send + 'static,
    {
        self.over_found(source, IntoChannel::new).map(Client)
    }
}
