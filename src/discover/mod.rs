//! Sources of endpoints for a balancer whose endpoints come and go.
//!
//! # When to use it
//!
//! Use a source if the endpoints of a [balancer](crate::balance) change: a service of Kubernetes, or a fleet that
//! scales. If the endpoints never change, give the balancer a list.
//!
//! # How it works
//!
//! ```text
//!   name server, list ──▶ source ── Insert(key, service) ──▶ driver ──▶ endpoints ◀── calls
//!                                   Remove(key)              (a task)   (a snapshot)
//! ```
//!
//! A [`Source`] reports the endpoints that are added and removed;
//! [`balance::Config::discover`](crate::balance::Config::discover) takes a source. Any `tower::discover::Discover` is a
//! source. This module has three more:
//!
//! - [`Dns`] looks a host name up again and again: for a headless service of Kubernetes, or anything else that
//!   publishes its addresses by DNS.
//! - [`Watch`] follows a list in a `tokio::sync::watch` channel: for Consul, etcd or a file. Your code writes the whole
//!   list at each change, and never a difference.
//! - [`Restartable`] makes a source with a function, and makes it again after a panic or on another runtime.
//!
//! [`Dns`] and [`Watch`] make the service of an endpoint from its address, with a function of yours. The function can give each
//! endpoint layers of its own. In place of an address, a resolver or a list may give a [`Target`]: an address with its
//! weight, priority, standby and zone, and the time for which it may be used.
//!
//! # Promises
//!
//! - Known endpoints stay in use until better ones are known. A lookup that fails, panics or takes too long removes no endpoint.
//!   A lookup that finds nothing removes none for the time [`Config::empty_after`].
//! - If the function panics for an address, the address is left out and tried again: by [`Dns`] with
//!   the next answer, by [`Watch`] after 0.1 to 30 s. The others are announced.
//! - New endpoints are announced before old ones are removed, so a set is never empty while all its endpoints are
//!   replaced.
//! - An endpoint that stays keeps its service, its connections and its statistics.
//!
//! # Cancellation and errors
//!
//! The driver of a balancer ends with its last handle, and drops the source. An error of a source leaves the endpoints
//! unchanged. When a source ends, the driver ends, and the last endpoints stay.
//!
//! A source whose poll panics is [restarted](Source::restart) after 0.1 to 30 s. The next call of the balancer restarts a source
//! whose runtime has ended: see [background tasks](crate::balance#background-tasks).
//!
//! # Defaults
//!
//! | setting | default | reason |
//! |---|---|---|
//! | [`interval`](Config::interval), [`timeout`](Config::timeout) | 5 s, 10 s | a new server gets calls soon; name servers are cached |
//! | shortest time to live | 1 s | name servers count in seconds, and some answer with 0 |
//! | [`empty_after`](Config::empty_after) | 60 s | an empty answer of a name server is more often an error than a service without servers |
//!
//! # Examples
//!
//! A resolver of your own, in place of the operating system's:
//!
//! ```
//! use std::convert::Infallible;
//! use std::future::poll_fn;
//! use std::net::SocketAddr;
//! use std::pin::pin;
//! use buttress::discover::{Change, Dns, Source};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), buttress::BoxError> {
//! let dns = Dns::config("search.internal", 8080)
//!     .resolver(|host: String, port| async move {
//!         assert_eq!(host, "search.internal");
//!         Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))])
//!     })
//!     .build(|address| format!("a client for {address}"))?;
//! let mut dns = pin!(dns);
//! let change = poll_fn(|cx| dns.as_mut().poll_change(cx)).await;
//! let Some(Ok(Change::Insert(key, client))) = change else { panic!("nothing found") };
//! assert_eq!(key.to_string(), "10.0.0.1:8080");
//! assert_eq!(client.address, "a client for 10.0.0.1:8080");
//! # Ok(())
//! # }
//! ```

mod announcer;
mod dns;
mod resolve;
mod restartable;
mod source;
mod target;
mod watch;

pub use self::dns::{Config, Dns};
pub use self::resolve::{Lookup, Resolve, System};
pub use self::restartable::Restartable;
pub use self::source::{Change, Source};
pub(crate) use self::source::{Pauses, discard, unless_it_panics};
pub use self::target::Target;
pub use self::watch::Watch;
