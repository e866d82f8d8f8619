//! The settings of a whole client for reqwest.

use std::sync::Arc;

use ::http::Uri;
use ::reqwest::{ClientBuilder, redirect};

use super::adapter::Adapter;
use super::body::RequestBody;
use super::client::Client;
use super::replica::Replica;
use crate::ConfigError;
use crate::balance::{Endpoint, HealthCheck};
use crate::discover::Source;
use crate::error::Check;
use crate::http::client::HttpProbe;
use crate::http::transport::{WholeConfig, whole};
use crate::http::{Classifier, standard};

/// The settings of a [`Client`]: those of the [standard stack](crate::stack), and of the layers under it.
pub type Config = WholeConfig<Classifier, Redirects>;

/// The redirects that a client follows. Set by [`redirects`](Config::redirects).
#[derive(Clone, Debug, Default)]
pub struct Redirects(Option<Arc<redirect::Policy>>);

/// Equal if both are the default, or clones of one another.
impl PartialEq for Redirects {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (own, other) => own.is_none() && other.is_none(),
        }
    }
}

/// Begins to configure a client of reqwest for the calls to one dependency. See the [module documentation](super).
///
/// `name` is a label of the metrics and a part of the errors.
pub fn client(name: impl Into<String>) -> Config {
    whole(standard(name), Redirects::default())
}

/// Checks replicas by a `GET` of this URL. A status from 200 to 299 means that the replica works.
///
/// The origin of a replica takes the place of that in the URL.
///
/// # Panics
///
/// If `url` is not a URL.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use buttress::reqwest::health_check;
///
/// let health = health_check("http://search/health").interval(Duration::from_secs(2));
/// # drop(health);
/// ```
pub fn health_check(url: &'static str) -> HealthCheck<HttpProbe<RequestBody>> {
    HealthCheck::new(HttpProbe::new(Uri::from_static(url)))
}

impl Config {
    /// Follows redirects as `policy` says. By default as reqwest does, up to 10 of them. Only for a client that [`build`](Self::build)
    /// makes.
    pub fn redirects(self, policy: redirect::Policy) -> Self {
        self.transport(|mut transport| {
            transport.client.0 = Some(Arc::new(policy));
            transport
        })
    }

    /// Makes a client that sends requests where their URL says, through a client of reqwest that `builder` makes.
    ///
    /// A redirect policy and a retry policy of `builder` are replaced, so that it can be proved that a request was not sent: see
    /// [`Adapter`].
    ///
    /// # Errors
    ///
    /// If `builder` fails, and those of [`wrap`](Self::wrap).
    pub fn build(mut self, builder: ClientBuilder) -> Result<Client, ConfigError> {
        let built = match self.settings.transport.client.0.take() {
            Some(policy) => Adapter::build_with(builder, move |attempt| policy.redirect(attempt)),
            None => Adapter::build(builder),
        };
        match built {
            Ok(adapter) => self.wrap(adapter),
            Err(error) => {
                let found = &format_args!("refused ({error:?})");
                let check = Check::new("client", &self.name)?;
                Err(check.refuse("builder", found, "one that reqwest can make a client of"))
            }
        }
    }

    /// Makes a client that sends requests where their URL says, through a client of reqwest or an [`Adapter`].
    ///
    /// Nothing proves that a request to a finished [`reqwest::Client`] was not sent. Only idempotent requests
    /// are then sent again. [`build`](Self::build) makes a client that can prove it.
    ///
    /// # Errors
    ///
    /// If the name is empty, a value is outside its range, two parts contradict each other, or [`balance`](Self::balance) or
    /// [`redirects`](Self::redirects) is configured.
    pub fn wrap(self, client: impl Into<Adapter>) -> Result<Client, ConfigError> {
        self.check_redirects()?;
        let adapter = client.into();
        let inner = adapter.as_inner().clone();
        let whole = self.over_one(Replica::of_url(adapter))?;
        Ok(Client { whole, inner })
    }

    /// Makes a client that spreads its requests over replicas.
    ///
    /// A [`Replica`] is an origin, as in `http://10.0.0.1:80`, which takes the place of that in the URL of a request, or a client of
    /// its own. An [`Endpoint`] made of one has a weight or a priority: `Endpoint::from("http://10.1.0.1:80").priority(1)`. There is
    /// no circuit breaker around all replicas, unless [`circuit_breaker`](Self::circuit_breaker) asks for one.
    ///
    /// # Errors
    ///
    /// Those of [`wrap`](Self::wrap), and if an origin is not one, there is no replica, or there are two of the same key.
    pub fn replicas<R>(
        self,
        client: impl Into<Adapter>,
        replicas: impl IntoIterator<Item = impl Into<Endpoint<R>>>,
    ) -> Result<Client, ConfigError>
    where
        R: TryInto<Replica, Error: Into<ConfigError>>,
    {
        self.check_redirects()?;
        let adapter = client.into();
        let replica = |replica: R| match replica.try_into() {
            Ok(replica) => Ok(replica.service(&adapter)),
            Err(error) => Err(error.into()),
        };
        let replicas = replicas.into_iter();
        let whole = self.over_list(replicas.map(|endpoint| endpoint.into().try_map(replica)))?;
        let inner = adapter.as_inner().clone();
        Ok(Client { whole, inner })
    }

    /// Makes a client that spreads its requests over the replicas that `source` finds.
    ///
    /// The source tells origins, as `Dns::config("search.local", 80).build(AddOriginLayer::http)?` does, or clients. Otherwise as
    /// [`replicas`](Self::replicas).
    ///
    /// # Errors
    ///
    /// Those of [`wrap`](Self::wrap), and if there is no Tokio runtime to follow the source.
    pub fn discover<D>(self, client: impl Into<Adapter>, source: D) -> Result<Client, ConfigError>
    where
        D: Source<Service: Into<Replica>, Key: ToString> + Send + 'static,
    {
        self.check_redirects()?;
        let adapter = client.into();
        let inner = adapter.as_inner().clone();
        let replica = move |found: D::Service| found.into().service(&adapter);
        let whole = self.over_found(source, replica)?;
        Ok(Client { whole, inner })
    }

    /// Refuses a policy for a client that has one.
    fn check_redirects(&self) -> Result<(), ConfigError> {
        let is_default = self.settings.transport.client == Redirects::default();
        let found = &format_args!("set for a client that is finished");
        Check::new("client", &self.name)?.that(is_default, "redirects", found, "set with `build`")
    }
}
