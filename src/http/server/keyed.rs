//! Limits for each key, such as a tenant, in a server.

use std::fmt;
use std::marker::PhantomData;

use tower::layer::util::Identity;

use crate::keyed::{Key, KeyedLayer, Made, MakeLayer};
use crate::{ConfigError, Evictable};

/// Settings of the limits for each key: [`NotKeyed`], [`PerKey`] or [`Given`].
pub trait KeyLimits {
    /// The layer between the deadline and the common concurrency limit.
    type Layer;

    /// Makes the layer of the server `name`.
    ///
    /// # Errors
    ///
    /// If a value is outside its range.
    #[doc(hidden)]
    fn build(self, name: &str) -> Result<Self::Layer, ConfigError>;
}

/// No limits for each key. The default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotKeyed;

impl KeyLimits for NotKeyed {
    type Layer = Identity;

    fn build(self, _: &str) -> Result<Identity, ConfigError> {
        Ok(Identity::new())
    }
}

/// A layer for each key, made from a configuration `C`. See [`Config::keyed`](super::Config::keyed).
#[derive(Clone)]
pub struct PerKey<F, C, Req, K> {
    key: F,
    config: C,
    types: PhantomData<fn(&Req) -> K>,
}

impl<F, C, Req, K> PerKey<F, C, Req, K> {
    pub(super) fn new(key: F, config: C) -> Self {
        Self {
            key,
            config,
            types: PhantomData,
        }
    }
}

impl<F, C, Req, K> KeyLimits for PerKey<F, C, Req, K>
where
    F: Fn(&Req) -> K,
    C: MakeLayer,
    K: Key,
    C::Layer: Evictable,
{
    type Layer = KeyedLayer<F, Made<K, C::Layer>, K, C::Layer>;

    fn build(self, name: &str) -> Result<Self::Layer, ConfigError> {
        KeyedLayer::of_config(name, self.key, self.config)?.build()
    }
}

impl<F, C: fmt::Debug, Req, K> fmt::Debug for PerKey<F, C, Req, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PerKey").field(&self.config).finish()
    }
}

/// A layer of your own for each key. See [`Config::keyed_layer`](super::Config::keyed_layer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given<L>(pub(super) L);

impl<L> KeyLimits for Given<L> {
    type Layer = L;

    fn build(self, _: &str) -> Result<L, ConfigError> {
        Ok(self.0)
    }
}
