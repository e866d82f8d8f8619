//! Keyed: each key, a host or a tenant, has layers of its own.
//!
//! # When to use it
//!
//! Where one limit or one breaker for all would punish the many for what one does: a rate limit for each
//! tenant, a circuit breaker for each host behind one client. Any layer of this crate can be had for each key,
//! and so can a tuple of them, the first one outermost. It stands where that layer would stand.
//!
//! Not for layers without a state (a timeout is the same for every key; use
//! [`per_request`](crate::TimeoutLayer::per_request)), and not for keys that are new with each request, such as a
//! request id: a key has to come again for its layer to know anything.
//!
//! # How it works
//!
//! ```text
//!            key(&request)   ┌───────────────────────────┐
//!  request ─────────────────▶│ map of keys, in shards    │
//!                            │ tenant a → layer ─────────┼──▶ the layer round a clone of the inner service
//!                            │ tenant b → layer          │
//!                            │ no place → common layer   │
//!                            └───────────────────────────┘
//! ```
//!
//! A new key gets a layer, made by a function of the key. When all places are taken, the least recently used
//! key of its shard gives its place up. What a key is known for is never forgotten that way:
//!
//! - A key that is in use, by a call whose future has not been dropped, stays.
//! - A key whose layer says that it [cannot be forgotten](crate::Forget), an exhausted limit or an open
//!   breaker, stays, and counts as used just now.
//!
//! A call looks at 32 keys in 8 shards at most. If none of them can go, the new key shares one common layer
//! with all others that there was no place for: they may suffer from each other, and nobody gets a fresh limit
//! by bringing many keys. When there is a place again, such a key gets a layer of its own, which begins afresh.
//!
//! A key that has not been used for 10 minutes is dropped by a call that comes by in its shard. There is no task
//! that does so.
//!
//! # Promises
//!
//! - There are never more keys than [`max_keys`](Config::max_keys), and all places can be filled, however the
//!   keys are spread.
//! - Of one key, never two layers are in use at a time, [`remove`](Handle::remove) and the common layer aside.
//! - Keys that somebody chooses with care cost no more than others: hashes are seeded for each layer
//!   (`SipHash`, as in the standard library's map). That is also why which key gives its place up may differ
//!   from run to run, where there is more than one shard.
//! - The functions that take the key and make its layer are called without a lock, and may panic. One that
//!   makes a layer may be called for a key that another call is faster with.
//!
//! # Cancellation
//!
//! Dropping the future drops the call, and the key is no longer in use by it. A future that was not polled has
//! not called the inner service.
//!
//! # What clones share
//!
//! All services made by one layer value, or by its clones, share the keys and their layers.
//! [`KeyedLayer::handle`] reads and steers them.
//!
//! # Cost
//!
//! The hash of the key, one reading of the clock, one short lock of a shard (there are up to four for each
//! core), one clone of the inner service and the making of the layer's service round it; no allocation, unless
//! the making of that service does (of this crate's layers, retry's). The layer is called when the future is
//! polled first, and that future holds its service until then, without a box. Whether the inner service is
//! ready is asked there, too: an idle handle holds nothing.
//!
//! A new key costs what its layer costs to make, and handles to metrics are looked up again when that was one
//! of this crate. Its memory is that of the layer and twice that of the key: 1.2 kB in all with a circuit breaker
//! on two cores, and a quarter of a kB more for each further core, up to 16. A hedge for each key takes 48 kB, and 4 kB for each
//! core, so 1024 of them take over 50 MB: hedge outside, or allow fewer keys.
//!
//! # Errors
//!
//! Those of the layers. It has none of its own.
//!
//! # Metrics
//!
//! | metric | type | labels |
//! |---|---|---|
//! | `buttress_keys` | gauge | name |
//! | `buttress_key_events_total` | counter | name; event = added, evicted, expired, removed, overflowed |
//!
//! `overflowed` counts calls that got the common layer, the others count keys. A key is never a label: give the
//! layers of all keys one name, so that their metrics add up.
//!
//! # Defaults
//!
//! | setting | default | reason |
//! |---|---|---|
//! | [`max_keys`](Config::max_keys) | 1024 | more than most services have of hosts or busy tenants |
//! | [`idle`](Config::idle) | 10 min | longer than windows and open times, shorter than a day's keys |
//! | [`overflow`](Config::overflow) | made for the first key without a place | |
//!
//! # Examples
//!
//! ```
//! use buttress::{BoxError, CircuitBreakerLayer, keyed};
//! use tower::service_fn;
//!
//! struct Request { tenant: &'static str, is_good: bool }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let layer = keyed::by(
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
mod keys;
mod layer;
mod lru;
mod metrics;
mod service;

pub use self::config::Config;
pub use self::future::ResponseFuture;
pub use self::layer::{Handle, KeyedLayer, by};
pub use self::service::Keyed;
