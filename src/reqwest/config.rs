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

/// The settings of a [`Client`]: the settings of the [standard stack](crate::stack) and of the layers inside it.
pub type Config = WholeConfig<Classifier, Redirects>;

/// The redirects that a client follows. Set by [`redirects`](Config::redirects).
#[derive(Clone, Debug, Default)]
pub struct Redirects(Option<Arc<redirect::Policy>>);

/// Equal if both are the default, or are clones of the same value.
impl PartialEq for Redirects {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (own, other) => own.is_none() && other.is_none(),
        }
    }
}

/// Begins to configure a reqwest client for the calls to one dependency. See the [module documentation](super).
///
/// `name` is a label of the metrics and a part of the errors.
pub fn client(name: impl Into<String>) -> Config {
    whole(standard(name), Redirects::default())
}

/// Makes a health check of replicas by a `GET` of this URL. A status from 200 to 299 means that the replica works.
///
/// The origin of the replica replaces the origin in the URL.
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
    /// Sets the redirect policy of a client made by [`build`](Self::build). By default it follows up to 10 redirects,
    /// as reqwest does.
    pub fn redirects(mut self, policy: redirect::Policy) -> Self {
        self.settings.transport.client.0 = Some(Arc::new(policy));
        self
    }

    /// Makes a client that sends requests to the server in their URL, through a reqwest client that `builder` makes.
    ///
    /// The redirect policy and the retry policy of `builder` are replaced, so that the client can prove that a request
    /// was not sent: see [`Adapter`].
    ///
    /// # Errors
    ///
    /// The errors of [`wrap`](Self::wrap). Also if `builder` fails.
    pub fn build(mut self, builder: ClientBuilder) -> Result<Client, ConfigError> {
        let built = match self.settings.transport.client.0.take() {
            Some(policy) => Adapter::build_with(builder, move |attempt| policy.redirect(attempt)),
            None => Adapter::build(builder),
        };
        match built {
            Ok(adapter) => self.wrap(adapter),
            Err(error) => {
                let check = Check::new("client", &self.name)?;
                let permitted = "one that reqwest can make a client of";
                Err(check.refuse("builder", &format_args!("refused ({error:?})"), permitted))
            }
        }
    }

    /// Makes a client that sends requests to the server in their URL, through a reqwest client or an [`Adapter`].
    ///
    /// A finished [`reqwest::Client`] cannot prove that a request was not sent, so only idempotent requests are sent
    /// again. [`build`](Self::build) makes a client that can.
    ///
    /// # Errors
    ///
    /// If the name is empty, a value is outside its range, two parts contradict each other, or
    /// [`balance`](Self::balance) or [`redirects`](Self::redirects) is configured.
    pub fn wrap(self, client: impl Into<Adapter>) -> Result<Client, ConfigError> {
        self.check_redirects()?;
        let adapter = client.into();
        let inner = adapter.as_inner().clone();
        let whole = self.over_one(Replica::of_url(adapter))?;
        Ok(Client { whole, inner })
    }

    /// Makes a client that spreads its requests over replicas.
    ///
    /// A [`Replica`] is an origin such as `http://10.0.0.1:80`, which replaces the origin in the URL of a request, or a
    /// separate client. An [`Endpoint`] made of a replica can have a weight or a priority:
    /// `Endpoint::from("http://10.1.0.1:80").priority(1)`. There is no circuit breaker around all replicas, unless
    /// [`circuit_breaker`](Self::circuit_breaker) sets one.
    ///
    /// # Errors
    ///
    /// The errors of [`wrap`](Self::wrap). Also if an origin is invalid, there is no replica, or two have the same key.
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
    /// The source reports origins, such as `Dns::config("search.local", 80).build(AddOriginLayer::http)?`, or clients.
    /// Otherwise the method is like [`replicas`](Self::replicas).
    ///
    /// # Errors
    ///
    /// The errors of [`wrap`](Self::wrap). Also if there is no Tokio runtime to poll the source.
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

    /// Refuses a redirect policy for a finished client, which has its own.
    fn check_redirects(&self) -> Result<(), ConfigError> {
        let is_default = self.settings.transport.client == Redirects::default();
        let found = &format_args!("set for a client that is finished");
        Check::new("client", &self.name)?.that(is_default, "redirects", found, "set with `build`")
    }
}
