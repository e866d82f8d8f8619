//! Settings of keyed.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::Key;
use super::keys::{Keys, Settings};
use super::layer::{KeyedLayer, Shared};
use crate::ConfigError;
use crate::debug::debug_fields;
use crate::error::Check;
use crate::hints::layer_after_build;
use crate::telemetry::Series;

/// Default number of slots: enough for separate layers of 5,000 clients at half their limit, or of 5,000 new keys a
/// second with a limit of one call a second. A used slot takes 1.2 kB with a circuit breaker on two cores, and all
/// slots take 10 MB.
const MAX_KEYS: u32 = 8_192;
/// Default size of keys: longer than any host name with its port, and than the usual names and numbers of tenants.
const MAX_KEY_SIZE: u32 = 512;
/// Default number of overflow parts: enough that one noisy key harms few others, and few in comparison with the slots.
const OVERFLOW_PARTS: u32 = 64;
const MAX_OVERFLOW_PARTS: u32 = 65_536;
/// Default idle time: longer than all windows and open times, so that a key keeps its state while the state matters;
/// short enough to forget the keys of a day.
const IDLE: Duration = Duration::from_secs(600);

/// The settings of a [`KeyedLayer`]. Made by [`KeyedLayer::config`].
#[derive(Clone, PartialEq)]
#[must_use = "call `build` to make the layer"]
pub struct Config<F, M, K, L> {
    name: String,
    settings: Settings<L>,
    key: F,
    make: M,
    keys: PhantomData<fn(K)>,
}

impl<F, M, K, L> Config<F, M, K, L> {
    pub(super) fn new(name: String, key: F, make: M) -> Self {
        let settings = Settings {
            max_keys: MAX_KEYS,
            max_key_size: MAX_KEY_SIZE,
            idle: IDLE,
            overflow: (0..OVERFLOW_PARTS).map(|_| None).collect(),
            seed: None,
        };
        Self {
            name,
            settings,
            key,
            make,
            keys: PhantomData,
        }
    }

    /// Sets the number of slots: the number of keys that have a layer of their own at a time. 1 to 1,000,000; 8,192 by
    /// default.
    ///
    /// Three quarters of the slots are reserved for keys in regular use.
    pub fn max_keys(mut self, keys: u32) -> Self {
        self.settings.max_keys = keys;
        self
    }

    /// Sets the greatest [size](Key::heap_size) of a key that gets a layer of its own, in bytes. 1 to 1,048,576; 512 by
    /// default.
    ///
    /// A longer key always uses an overflow part. All keys together hold at most this times
    /// [`max_keys`](Self::max_keys).
    pub fn max_key_size(mut self, bytes: u32) -> Self {
        self.settings.max_key_size = bytes;
        self
    }

    /// Sets the time after which the layer of an unused key is dropped. 10 minutes by default.
    pub fn idle(mut self, idle: Duration) -> Self {
        self.settings.idle = idle;
        self
    }

    /// Sets the overflow parts: the layers that keys without a slot share, chosen by the hash of the key. 1 to 65,536.
    ///
    /// By default there are 64, each made for the first key that needs it.
    pub fn overflow(mut self, parts: impl IntoIterator<Item = L>) -> Self {
        self.settings.overflow = parts.into_iter().map(Some).collect();
        self
    }

    /// Sets the seed of the hashes, so that the overflow parts that keys share and the keys that give up their slots
    /// repeat exactly. By default the operating system gives the seed.
    ///
    /// A caller that knows the seed can choose keys that share one part.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }

    /// Makes the layer. It has no keys yet.
    ///
    /// # Errors
    ///
    /// If the name is empty or a value is outside its range.
    pub fn build(self) -> Result<KeyedLayer<F, M, K, L>, ConfigError>
    where
        K: Key,
    {
        let check = Check::new("keyed", &self.name)?;
        let settings = &self.settings;
        check.count("max_keys", settings.max_keys, 1_000_000, "1 to 1000000")?;
        let size = settings.max_key_size;
        check.count("max_key_size", size, 1 << 20, "1 to 1048576")?;
        check.duration("idle", settings.idle)?;
        let parts = u32::try_from(settings.overflow.len()).unwrap_or(u32::MAX);
        check.count("overflow", parts, MAX_OVERFLOW_PARTS, "1 to 65536 layers")?;
        let metrics = Series::of(&self.name, "keyed");
        let shared = Shared {
            key: self.key,
            make: self.make,
            keys: Arc::new(Keys::new(self.settings, metrics)),
        };
        Ok(KeyedLayer {
            shared: Arc::new(shared),
        })
    }
}

debug_fields!([F, M, K, L] Config<F, M, K, L> {
    name, settings.max_keys, settings.max_key_size, settings.idle, settings.seed
});

layer_after_build!([F, M, K, L] Config<F, M, K, L>);
