//! The layer of keyed, its service, and its handle.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{self, Poll};

use tokio::time::Instant;
use tower::{Layer, Service};

use super::config::Config;
use super::future::ResponseFuture;
use super::keys::Keys;
use super::{Key, MakeLayer};
use crate::debug::debug_fields;
use crate::error::or_panic;
use crate::send::{OneCall, send_method};
use crate::{BoxError, CloneService, ConfigError, Error, Evictable, context};

/// Gives each key a layer of its own. See the [module documentation](crate::keyed).
///
/// All services made by one layer value, or by its clones, share the keys.
pub struct KeyedLayer<F, M, K, L> {
    pub(super) shared: Arc<Shared<F, M, K, L>>,
}

/// The state that all services of one layer value share.
pub(super) struct Shared<F, M, K, L> {
    pub(super) key: F,
    pub(super) make: M,
    pub(super) keys: Arc<Keys<K, L>>,
}

impl<F, M, K, L> KeyedLayer<F, M, K, L> {
    /// Makes a layer for each key with the default settings.
    ///
    /// `key` takes the key from a request. `layer` makes the layer of a key: one layer of this crate, or a tuple of
    /// layers, the first one outermost.
    ///
    /// # Panics
    ///
    /// If `name` is empty.
    #[must_use]
    #[track_caller]
    pub fn new<Req>(name: &str, key: F, layer: M) -> Self
    where
        F: Fn(&Req) -> K,
        M: Fn(&K) -> L,
        K: Key,
        L: Evictable,
    {
        or_panic(Self::config(name, key, layer).build())
    }

    /// Begins to configure a layer for each key.
    ///
    /// `key` takes the key from a request. `layer` makes the layer of a key.
    pub fn config<Req>(name: impl Into<String>, key: F, layer: M) -> Config<F, M, K, L>
    where
        F: Fn(&Req) -> K,
        M: Fn(&K) -> L,
        L: Evictable,
    {
        Config::new(name.into(), key, layer)
    }

    /// Returns a handle that reads and changes the keys.
    #[must_use]
    pub fn handle(&self) -> Handle<K, L> {
        Handle {
            keys: Arc::clone(&self.shared.keys),
        }
    }

    /// Wraps `service`. The compiler checks that it can serve requests of type `Req`.
    pub fn wrap<Req, S>(&self, service: S) -> Keyed<S, Self>
    where
        S: CloneService<Req>,
        F: Fn(&Req) -> K,
        M: Fn(&K) -> L,
        K: Key,
        L: Layer<S, Service: Service<Req, Error: Into<BoxError> + 'static>> + Evictable,
    {
        self.layer(service)
    }
}

/// A function that makes the layer of a key from a configuration.
pub type Made<K, L> = Box<dyn Fn(&K) -> L + Send + Sync>;

impl<F, K, L> KeyedLayer<F, Made<K, L>, K, L> {
    /// Begins to configure a layer for each key, made from `config`: the configuration of a rate limit, for example, or
    /// a tuple of configurations, the first one outermost.
    ///
    /// # Errors
    ///
    /// If `config` makes no layer, for example because a value is outside its range.
    ///
    /// # Panics
    ///
    /// A call panics if `config` is a [`MakeLayer`] of your own that fails after it has made a layer here.
    ///
    /// # Examples
    ///
    /// ```
    /// use buttress::{KeyedLayer, Rate, RateLimitLayer};
    ///
    /// let limit = RateLimitLayer::config("tenants", Rate::per_second(10)).burst(20);
    /// let tenants = KeyedLayer::of_config("tenants", |tenant: &&'static str| *tenant, limit)?.max_keys(50_000).build()?;
    /// assert_eq!(tenants.handle().keys(), 0);
    /// # Ok::<(), buttress::ConfigError>(())
    /// ```
    pub fn of_config<Req, C>(
        name: impl Into<String>,
        key: F,
        config: C,
    ) -> Result<Config<F, Made<K, L>, K, L>, ConfigError>
    where
        F: Fn(&Req) -> K,
        C: MakeLayer<Layer = L>,
        L: Evictable,
    {
        config.make_layer()?;
        let make = move |_: &K| config.make_layer().expect("has been checked");
        Ok(Config::new(name.into(), key, Box::new(make)))
    }
}

impl<S, F, M, K, L> Layer<S> for KeyedLayer<F, M, K, L> {
    type Service = Keyed<S, Self>;

    fn layer(&self, inner: S) -> Keyed<S, Self> {
        let layer = self.clone();
        Keyed { inner, layer }
    }
}

impl<F, M, K, L> Evictable for KeyedLayer<F, M, K, L> {
    /// Returns `true` while there is no key.
    fn is_evictable(&self, _now: Instant) -> bool {
        self.shared.keys.shares.taken() == 0
    }
}

impl<F, M, K, L> Clone for KeyedLayer<F, M, K, L> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

debug_fields!([F, M, K, L] KeyedLayer<F, M, K, L> { shared.keys });

/// A service behind a layer for each key. Made by a [`KeyedLayer`], which is `L`.
#[derive(Clone, Debug)]
pub struct Keyed<S, L> {
    inner: S,
    layer: L,
}

send_method!(Keyed<S, L>);

impl<S, F, M, K, L, Req> Service<Req> for Keyed<S, KeyedLayer<F, M, K, L>>
where
    S: Clone,
    F: Fn(&Req) -> K,
    M: Fn(&K) -> L,
    K: Key,
    L: Layer<S, Service: Service<Req, Error: Into<BoxError> + 'static>> + Evictable,
{
    type Response = <L::Service as Service<Req>>::Response;
    type Error = Error;
    type Future = ResponseFuture<L::Service, Req, L>;

    /// Does not poll the inner service, because the layer is not known before the key.
    #[inline]
    fn poll_ready(&mut self, _cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let Shared { key, make, keys } = &*self.layer.shared;
        let layer = keys.find(key(&request), make);
        let call = OneCall::begin(
            layer.layer(self.inner.clone()),
            request,
            context::take_direct(),
        );
        ResponseFuture { call, layer }
    }
}

/// Handle that reads and changes the keys of a [`KeyedLayer`]. Clones are handles of the same keys.
pub struct Handle<K, L> {
    keys: Arc<Keys<K, L>>,
}

impl<K: Key, L> Handle<K, L> {
    /// Returns the name of the layer.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.keys.metrics.name()
    }

    /// Returns the number of keys that have a layer of their own. It includes keys whose layer is being made.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.keys.shares.taken() as usize
    }

    /// Returns the number of calls that used an overflow part because there was no slot for their key. While it grows,
    /// [`max_keys`](Config::max_keys) is too low, or a caller sends a flood of keys.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.keys.overflowed.load(Ordering::Relaxed)
    }

    /// Returns the layer of a key, from which you get its handle. `None` if the key has no layer of its own.
    ///
    /// This does not count as a use of the key, and the returned layer does not keep the key from being forgotten.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<L>
    where
        L: Clone,
    {
        self.keys.get(key).map(|layer| L::clone(&layer))
    }

    /// Returns the overflow part that a key uses while it has no layer of its own, shared with other keys. `None` if no
    /// key has needed that part yet.
    #[must_use]
    pub fn overflow(&self, key: &K) -> Option<L>
    where
        L: Clone,
    {
        self.keys.overflow(key).cloned()
    }

    /// Forgets a key, whatever the state of its layer. Returns whether the key had a layer.
    ///
    /// Calls in flight end with the former layer; the next call begins with a new layer.
    pub fn remove(&self, key: &K) -> bool {
        self.keys.remove(key)
    }
}

impl<K, L> Clone for Handle<K, L> {
    fn clone(&self) -> Self {
        Self {
            keys: Arc::clone(&self.keys),
        }
    }
}

debug_fields!([K, L] Handle<K, L> { keys });
