//! Keyed: separate layers for each key, such as a host or a tenant.
//!
//! # When to use it
//!
//! Use it where a shared limit or breaker would refuse the calls of many callers because of one: a rate limit for each
//! tenant, a circuit breaker for each host behind one client. It makes any layer of this crate for each key, or a tuple
//! of layers, the first one outermost. The keyed layer takes the position of that layer in the stack.
//!
//! Do not use it for layers without a state: a timeout is the same for every key, so use
//! [`per_request`](crate::TimeoutLayer::per_request). Do not use it for keys that are new with each request, such as a
//! request id: the layer of a key learns only from repeated calls.
//!
//! # How it works
//!
//! ```text
//!            key(&request)   ┌────────────────────────────────┐
//!  request ─────────────────▶│ slots, in shards               │
//!                            │ regular use: tenant a → layer ─┼──▶ the layer round a clone of the inner service
//!                            │ new:         tenant b → layer  │
//!                            │ no slot: overflow part by hash │
//!                            └────────────────────────────────┘
//! ```
//!
//! A new key gets a slot with a layer. A function of the key makes the layer, or a
//! [configuration](KeyedLayer::of_config) that is the same for all keys. A key that is used again after a second or
//! more is *in regular use*, until a minute after its last use. When all slots are taken, the least recently used key
//! of its shard gives up its slot. New keys give up theirs first: three quarters of the slots are reserved for keys in
//! regular use. In a flood of keys that come once, these keys therefore take each other's slots, and the keys in
//! regular use keep theirs. Some keys never give up their slots:
//!
//! - A key that is in use by a call whose future has not been dropped.
//! - A key whose layer [cannot be forgotten](crate::Evictable), such as an exhausted limit or an open breaker. It
//!   counts as used just now.
//!
//! A call examines at most 32 keys in 8 shards. If none of them can give up its slot, the new key uses an *overflow
//! part*: one of 64 common layers, chosen by the hash of the key. Keys that share an overflow part can affect each
//! other, and a caller with many keys gets at most 64 further limits. When a slot is free again, the key gets a new
//! layer of its own. A key longer than [`max_key_size`](Config::max_key_size) always uses an overflow part, so that
//! callers cannot fill the memory with keys.
//!
//! Calls drop the keys of their shard that have not been used for 10 minutes. No background task does so.
//!
//! If calls overflow, either there are more busy keys than slots, or a caller sends a flood of keys. Raise
//! [`max_keys`](Config::max_keys) in the first case. A rate limit needs a slot for each key with a call within the
//! refill time of its tokens: 5,000 clients, each at half of its limit of one call a second, take 2,500 to 5,000 slots.
//! With 1,024 slots, 56 % of their calls are refused.
//!
//! # Promises
//!
//! - There are never more keys than [`max_keys`](Config::max_keys), and all slots can be filled, however the
//!   keys are spread.
//! - Each key is stored once, without spare capacity and without the buffer that it may be a slice of (see [`Key`]).
//!   All keys together hold at most `max_keys` × [`max_key_size`](Config::max_key_size).
//! - A key never has two layers in use at a time, except by [`remove`](Handle::remove) and the overflow parts.
//! - With a limit of one call a second and the default settings, 20 tenants that call every 2 s do not notice 5,000
//!   random tenants a second; nor do they with 64 slots, if they called before the flood.
//! - Keys that an attacker chooses cost no more than others: the hashes of each layer have their own seed (`SipHash`,
//!   as in the standard library's map). With more than one shard, the key that gives up its slot may therefore differ
//!   from run to run, unless you set a [`seed`](Config::seed).
//! - The functions that take the key and make its layer are called without a lock, and may panic. The function that
//!   makes a layer may be called although another call makes the layer of the same key first.
//!
//! # Cancellation
//!
//! Dropping the future drops the call, which then no longer uses the key. A future that was never polled has not called
//! the inner service.
//!
//! # What clones share
//!
//! All services made by one layer value, or by its clones, share the keys and their layers.
//! [`KeyedLayer::handle`] reads and changes them.
//!
//! # Cost
//!
//! The hash of the key, one reading of the clock, one short lock of a shard (up to four shards for each core), one
//! clone of the inner service, and the layer's service around the clone. Nothing is allocated, unless the layer's
//! service allocates (of this crate's layers: retry, hedge and the standard stack). The future calls the layer's
//! service at its first poll, and keeps the service until then without a box. It also polls the readiness of the inner
//! service. An idle handle holds nothing.
//!
//! A new key costs the making of its layer; a layer of this crate also looks its metrics up again. A key takes the
//! memory of the layer, the key itself, and about 0.2 kB. In total, this is the key and 0.5 kB with a rate limit, or
//! 1.2 kB with a circuit breaker on two cores, and a quarter of a kB more for each further core, up to 16. If all 8,192
//! slots are taken, rate limits take 4 MB, and circuit breakers 10 MB, or 38 MB on 16 cores; the keys take at most 4
//! MB. A hedge for each key takes 48 kB, and 4 kB for each core, so 8,192 hedges take over 400 MB: put the hedge
//! outside the keyed layer, or allow fewer keys.
//!
//! # Errors
//!
//! Errors of the layers. It has no errors of its own.
//!
//! # Metrics
//!
//! | metric | type | labels |
//! |---|---|---|
//! | `buttress_keys` | gauge | name |
//! | `buttress_key_events_total` | counter | name; event = added, evicted, expired, removed, overflowed, oversized |
//!
//! `overflowed` counts calls whose key found no slot. `oversized` counts calls whose key was too long. The other events
//! count keys. A key is never a label: give the layers of all keys one name, so that their metrics add up.
//!
//! # Defaults
//!
//! | setting | default | reason |
//! |---|---|---|
//! | [`max_keys`](Config::max_keys) | 8192 | enough for 5,000 clients at half their limits, and for as many new keys a second; 10 MB with a circuit breaker each |
//! | [`max_key_size`](Config::max_key_size) | 512 B | longer than any host name with its port |
//! | [`idle`](Config::idle) | 10 min | longer than windows and open times, short enough to forget the keys of a day |
//! | [`overflow`](Config::overflow) | 64 parts, each made for the first key that needs it | a noisy key harms few others |
//! | [`seed`](Config::seed) | from the operating system | callers must not know which keys share a part |
//!
//! # Examples
//!
//! ```
//! use buttress::{BoxError, CircuitBreakerLayer, KeyedLayer};
//! use tower::service_fn;
//!
//! struct Request { tenant: &'static str, is_good: bool }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let layer = KeyedLayer::new(
//!     "tenants",
//!     |request: &Request| request.tenant,
//!     |_tenant: &&str| CircuitBreakerLayer::new("tenants"),
//! );
//! let client = layer.wrap(service_fn(|request: Request| async move {
//!     if request.is_good { Ok("done") } else { Err::<_, BoxError>("the tenant's database is down".into()) }
//! }));
//! for _ in 0..20 {
//!     client.send(Request { tenant: "a", is_good: false }).await.unwrap_err();
//! }
//! let refused = client.send(Request { tenant: "a", is_good: true }).await;
//! assert!(refused.is_err(), "its breaker is open");
//! assert_eq!(client.send(Request { tenant: "b", is_good: true }).await?, "done");
//! assert_eq!(layer.handle().keys(), 2);
//! # Ok(())
//! # }
//! ```

mod config;
mod future;
mod key;
mod keys;
mod layer;
mod make;
mod metrics;

pub use self::config::Config;
pub use self::future::ResponseFuture;
pub use self::key::Key;
pub use self::layer::{Handle, Keyed, KeyedLayer, Made};
pub use self::make::MakeLayer;
