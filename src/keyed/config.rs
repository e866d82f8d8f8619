//! Settings of keyed.

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::keys::Keys;
use super::layer::KeyedLayer;
use super::service::Shared;
use crate::ConfigError;
use crate::error::Check;
use crate::telemetry::Series;

/// More than most services have of hosts or busy tenants, and a few MB with a circuit breaker for each.
const MAX_KEYS: u32 = 1_024;
/// Longer than all windows and open times, so that a key which comes back in time finds what is known about it;
/// short enough not to keep the keys of a whole day.
const IDLE: Duration = Duration::from_secs(600);

/// The settings of a [`KeyedLayer`]. Made by [`KeyedLayer::config`].
#[derive(Clone, PartialEq)]
#[must_use = "call `build` to make the layer"]
pub struct Config<F, M, K, L> {
    name: String,
    max_keys: u32,
    idle: Duration,
    overflow: Option<L>,
    key: F,
    make: M,
    keys: PhantomData<fn(K)>,
}

impl<F, M, K, L> Config<F, M, K, L> {
    pub(super) fn new(name: String, key: F, make: M) -> Self {
        Self {
            name,
            max_keys: MAX_KEYS,
            idle: IDLE,
            overflow: None,
            key,
            make,
            keys: PhantomData,
        }
    }

    /// How many keys may have a layer of their own; 1 to 1,000,000. 1024 by default.
    pub fn max_keys(mut self, keys: u32) -> Self {
        self.max_keys = keys;
        self
    }

    /// How long a key may be out of use before its layer is dropped. 10 minutes by default.
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// The common layer of the keys that there is no place for. By default one that is made for the first of them.
    pub fn overflow(mut self, layer: L) -> Self {
        self.overflow = Some(layer);
        self
    }

    /// Makes the layer, without any key.
    ///
    /// # Errors
    ///
    /// If the name is empty or a value is outside its range.
    pub fn build(self) -> Result<KeyedLayer<F, M, K, L>, ConfigError>
    where
        K: Hash + Eq + Clone,
    {
        let check = Check::new("keyed", &self.name)?;
        check.count("max_keys", self.max_keys, 1_000_000, "1 to 1000000")?;
        check.duration("idle", self.idle)?;
        let metrics = Series::of(&self.name, "keyed");
        let keys = Keys::new(self.max_keys as usize, self.idle, self.overflow, metrics);
        let shared = Shared {
            key: self.key,
            make: self.make,
            keys: Arc::new(keys),
        };
        Ok(KeyedLayer {
            shared: Arc::new(shared),
        })
    }
}

impl<F, M, K, L: fmt::Debug> fmt::Debug for Config<F, M, K, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("name", &self.name)
            .field("max_keys", &self.max_keys)
            .field("idle", &self.idle)
            .field("overflow", &self.overflow)
            .finish_non_exhaustive()
    }
}
