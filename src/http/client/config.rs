//! The settings of a whole client for HTTP.

use tower::Layer;

use super::service::Client;
use crate::ConfigError;
use crate::balance::Endpoint;
use crate::discover::Source;
use crate::http::transport::{Near, Transport, WholeConfig};
use crate::http::{AddOrigin, AddOriginLayer, Classifier, HttpStreams, standard};

/// The settings of a [`Client`]: the settings of the [standard stack](crate::stack) and of the layers inside it.
pub type Config = WholeConfig<Classifier>;

/// A replica: the wrapped client for one origin.
pub type Replica<S> = Near<AddOrigin<S>>;

/// Begins to configure an HTTP client for the calls to one dependency. See the [module documentation](super).
///
/// `name` is a label of the metrics and a part of the errors.
pub fn client(name: impl Into<String>) -> Config {
    let name = name.into();
    let transport = Transport::new(&name);
    standard(name)
        .streaming(HttpStreams::new())
        .with_settings(|settings| settings.with_transport(transport))
}

impl Config {
    /// Makes a client that sends requests where their URI says.
    ///
    /// `client` is any service of `http::Request`. Wrap a client of hyper-util in `buttress::hyper::Client` first.
    ///
    /// # Errors
    ///
    /// If the name is empty, a value is outside its range, or two parts contradict each other.
    pub fn wrap<S: Clone>(self, client: S) -> Result<Client<S>, ConfigError> {
        let stack = self.over_one(client)?;
        Ok(Client {
            stack,
            balancer: None,
        })
    }

    /// Makes a client that spreads its requests over replicas. Requests need a path only.
    ///
    /// An origin is a scheme, a host and a port, as in `http://10.0.0.1:80`. An [`Endpoint`] made of one has a weight
    /// or a priority: `Endpoint::from("http://10.1.0.1:80").priority(1)`. There is no circuit breaker around all
    /// replicas, unless [`circuit_breaker`](Self::circuit_breaker) asks for one.
    ///
    /// # Errors
    ///
    /// The errors of [`wrap`](Self::wrap). Also if an origin is invalid, there is no origin, or two have the same text.
    pub fn replicas<S, O>(
        self,
        client: S,
        origins: impl IntoIterator<Item = impl Into<Endpoint<O>>>,
    ) -> Result<Client<S>, ConfigError>
    where
        S: Clone,
        O: AsRef<str>,
    {
        let (stack, balancer) = self.over_many(|balance, near| {
            let replica = |origin: O| {
                let origin = AddOriginLayer::new(origin.as_ref())?;
                Ok(near.layer(origin.layer(client.clone())))
            };
            let endpoints = origins
                .into_iter()
                .map(|origin| origin.into().try_map(replica));
            balance.build(endpoints.collect::<Result<Vec<_>, _>>()?)
        })?;
        Ok(Client {
            stack,
            balancer: Some(balancer),
        })
    }

    /// Makes a client that spreads its requests over the replicas that `source` finds. Requests need a path only.
    ///
    /// The source reports origins: `Dns::config("search.local", 80).build(AddOriginLayer::http)?`, for example.
    /// Otherwise the method is like [`replicas`](Self::replicas).
    ///
    /// # Errors
    ///
    /// The errors of [`wrap`](Self::wrap). Also if there is no Tokio runtime to poll the source.
    pub fn discover<S, D>(self, client: S, source: D) -> Result<Client<S>, ConfigError>
    where
        S: Clone + Send + Sync + 'static,
        D: Source<Service = AddOriginLayer, Key: ToString> + Send + 'static,
    {
        let (stack, balancer) = self.over_many(|balance, near| {
            balance.drive(source, move |key, origin| {
                Endpoint::new(key, near.layer(origin.layer(client.clone())))
            })
        })?;
        Ok(Client {
            stack,
            balancer: Some(balancer),
        })
    }
}
