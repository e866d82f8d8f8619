//! The settings of a whole client for HTTP.

use tower::Layer;

use super::service::Client;
use crate::ConfigError;
use crate::balance::Endpoint;
use crate::discover::Source;
use crate::http::transport::{Near, WholeConfig, whole};
use crate::http::{AddOrigin, AddOriginLayer, Classifier, standard};

/// The settings of a [`Client`]: the settings of the [standard stack](crate::stack) and of the layers inside it.
pub type Config = WholeConfig<Classifier>;

/// A replica: the wrapped client for one origin.
pub type Replica<S> = Near<AddOrigin<S>>;

/// Begins to configure an HTTP client for the calls to one dependency. See the [module documentation](super).
///
/// `name` is a label of the metrics and a part of the errors.
pub fn client(name: impl Into<String>) -> Config {
    whole(standard(name), ())
}

impl Config {
    /// Makes a client that sends requests to the server in their URI.
    ///
    /// `client` is any service of `http::Request`. Wrap a client of hyper-util in `buttress::hyper::Client` first.
    ///
    /// # Errors
    ///
    /// If the name is empty, a value is outside its range, two parts contradict each other, or
    /// [`balance`](Self::balance) is configured.
    pub fn wrap<S: Clone>(self, client: S) -> Result<Client<S>, ConfigError> {
        self.over_one(client).map(Client)
    }

    /// Makes a client that spreads its requests over replicas. Requests need a path only.
    ///
    /// An origin is a scheme, a host and a port, as in `http://10.0.0.1:80`. An [`Endpoint`] made of one has a weight
    /// or a priority: `Endpoint::from("http://10.1.0.1:80").priority(1)`. There is no circuit breaker around all
    /// replicas, unless [`circuit_breaker`](Self::circuit_breaker) sets one.
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
        let replica = |origin: O| {
            let origin = AddOriginLayer::new(origin.as_ref())?;
            Ok(origin.layer(client.clone()))
        };
        let origins = origins.into_iter();
        let replicas = origins.map(|origin| origin.into().try_map(replica));
        self.over_list(replicas).map(Client)
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
        let replica = move |origin: AddOriginLayer| origin.layer(client.clone());
        self.over_found(source, replica).map(Client)
    }
}
