//! A balancer: spreads calls over endpoints, and away from those that are slow, failing or gone.
//!
//! # When to use it
//!
//! In a client of a service that has several replicas, where there is nothing between them that balances: a list
//! of addresses, a headless service, a registry. It replaces `Buffer` and `Balance` of Tower.
//!
//! Each endpoint is a client of its own. One that is bound to no server, as that of hyper-util, becomes one by the layer
//! `http::AddOriginLayer` of the feature `http`.
//!
//! Not where a proxy or a virtual address does it already: each call then goes to a random replica, whatever is
//! chosen here.
//!
//! # How it works
//!
//! Of three endpoints drawn at random the least loaded gets the call, and with equal loads a random one. Being drawn
//! protects from the herd: no client sends all its calls to the one that looks best. Two would let a pair of bad endpoints
//! be drawn too often. Other policies are [`RoundRobin`], [`WeightedRandom`], [`LeastLoaded`] and [`ConsistentHash`]; [`Choose`] is the trait for one's own.
//!
//! ```text
//! load = (latency + 5 s · f²)² · (in flight + 1)
//! ```
//!
//! - **latency** is a peak-sensitive moving average: an answer that took four times as long replaces it, one that is
//!   slower by less pulls it up the more the slower it is, by a tenth at least, faster ones pull it down with a time
//!   constant of 5 s, and without answers it decays with the same. So an endpoint that has become slow is believed at
//!   once, and chance, by which single calls differ, is averaged. While calls wait for an answer it is never below the
//!   time since the endpoint last answered, so one that hangs is noticed before any timeout.
//! - **f** is the share of failures: `0.7 f + 0.3` after a failed call, `0.7 f` after another, and it decays with
//!   a time constant of 4 s. So an endpoint that fails fast does not look like a fast one, and one that has healed
//!   is back in seconds. The classifier decides about failures.
//! - A failed or cancelled call raises the latency if it took longer than that, and never lowers it.
//! - The loser of a hedge is given up as soon as the hedge is answered, which tells little about how slow the endpoint is. If
//!   the endpoint answers nothing, the silence goes on from one such call to the next, and the latency becomes twice the
//!   silence. So a slow replica is tried again ever more seldom, and not after each hedge. A call that times out counts as
//!   long as it lasted, and timeouts do not add up: they end calls to endpoints that are merely overloaded, too.
//! - Endpoints of which `latency + 5 s · f²` is less than a quarter apart count as equally fast; the calls in flight decide.
//!   A lone caller does not send nearly all calls to the one that is faster by a hair.
//! - With `http::CompleteOnBodyEnd` a call is in flight until the end of its body, but took what its head took. However long a
//!   stream goes on, it counts as one call in flight and no more; if it ends in a failure, as one failure.
//! - An endpoint that joins others begins with the median of their latencies, and with a tenth of its weight, which
//!   grows to all of it in 10 s. One that comes within 10 s of the first has all of it, as that has.
//!
//! [`LoadMetric::InFlight`] compares `in flight + 1` instead.
//!
//! **Weights.** Where they differ, one endpoint is drawn by weight and gets the call, unless one of two others, drawn by
//! weight as well, is nine times less loaded:
//!
//! ```text
//! load of the first  = (latency + 5 s · f²)² · (in flight / weight + 1 / greatest weight)
//! load of the others = (latency + 5 s · f²)² · (in flight + 1) / weight
//! ```
//!
//! The latency of the others is not decayed here. So endpoints that are equally fast get their shares by weight with few calls
//! and with many, a canary of weight 0.1 too, and a heavy endpoint that hangs or fails is still avoided. An endpoint
//! that is three times slower than the others loses most of its share. In slow start an endpoint counts with its weight as
//! far as that has grown; where the weights are equal, the load is divided by it.
//!
//! **Endpoints that are left out.** One that is ejected, one whose [`Availability`](crate::Availability) says no,
//! one that has refused a call with an error of this crate (until its `retry_after`, else 100 ms), one whose answer
//! was an overload with a `retry_after` (for that time, at most 300 s, and unless half of its group gets no calls
//! already), and one that another attempt of the same operation was sent to by [retry](crate::retry) or
//! [hedge](crate::hedge). They are chosen only if no other is left. A refused call is not made again here, since
//! that would take a copy of every request: an outer retry does it, which else does not retry refusals.
//!
//! **Outlier ejection.** Every 10 s the failure share of each endpoint is compared with that of all others
//! together. Only first attempts count: a request that fails everywhere is retried everywhere, and that must not look like
//! failures of many endpoints. A call whose attempt timed out outside the balancer is a failure if the endpoint had it for
//! all of that time, and so is one that [ended early](crate::circuit_breaker#calls-that-end-early) although the endpoint had
//! enough time for it: twice as long as the slowest good call of the pool, at least 200 ms (or a tenth of the timeout), and
//! answered nobody well meanwhile, nor for 2 s (or the timeout). The loser of a hedge is none. An endpoint
//! that fails surely more is ejected: it gets no calls for 10 s, after the next ejection in a row for
//! 20 s, and so on to 300 s, each ± 25 %; then it comes back by slow start. At most half of the endpoints are out.
//! See [`OutlierEjection`]. Each priority group is evaluated by itself. A failing endpoint loses most of its calls
//! much sooner, by its load. If it is left with fewer than 5 calls in 10 s, it stays ready.
//!
//! **Health checks**, if there is one ([`Balance::check_health`]): a task of its own asks each endpoint again and
//! again whether it works, with a [`Probe`]. Three failures in a row take it out, two successes bring it back by
//! slow start, with the failures of its calls forgotten; one that was never asked gets calls, and is taken out by
//! the first failure. Success ends no ejection. See [`HealthCheck`].
//!
//! **Panic.** While less than half of the endpoints are in, calls go to all of them: those few would be overrun. What
//! they cost is still compared. [`Config::panic_threshold`] sets another share. Where there are [priority groups](#priority-groups), this holds for each group, and only
//! while all groups together cannot take all calls.
//!
//! **Discovery.** [`Config::discover`] takes a [`Source`](crate::discover::Source): [`Dns`](crate::discover::Dns),
//! [`Watch`](crate::discover::Watch), or any [`tower::discover::Discover`]. A task of its own makes the changes, also
//! without calls, at most 256 before other tasks have their turn. A source that fails is asked again after
//! 0.1 to 30 s; when it ends, the endpoints stay as it has found them. A source may know a weight, a priority and a zone
//! of an endpoint: see [`Target`](crate::discover::Target). [`Handle`] adds, removes and reweighs by hand, ejects and
//! restores.
//!
//! # Background tasks
//!
//! Discovery and health checks go on without calls, and do not stop silently.
//!
//! **Panics.** A panic in code of the user (a source, a resolver, a listener, the function that makes a service, a probe and
//! its classifier, `Clone` and `Drop` of a service) affects no call. A probe that panics is one that has failed; the checks
//! of other endpoints go on. Discovery begins anew after 100 ms, and after twice as long for each further panic, up to
//! 30 s: most causes are gone soon, and what panics each time must not keep a core busy. Changes that were found and not
//! made are made then.
//!
//! **Another runtime.** The tasks run on the runtime that the balancer is built on, and end with it. The next call on another
//! runtime starts them there, for instance where a balancer is in a `static` and each test has a runtime of its own. That call
//! waits until the source has been polled once, so it does not go to an endpoint that has left a list. [`Dns`] and
//! [`Watch`] make all services anew there, since clients with tasks of their own have lost them; [`Dns`] does so for the
//! addresses of its last answer, and asks again at once. Any other stream goes on if it depends on no runtime, or begins
//! anew inside a [`Restartable`](crate::discover::Restartable). If it neither goes on nor begins anew, nobody knows the
//! endpoints any more, and calls fail with [`DiscoveryStopped`](crate::ErrorKind::DiscoveryStopped). The tasks are not
//! started by calls that are made outside of a runtime.
//!
//! [`Handle::is_discovering`], [`Handle::is_checking_health`] and two gauges tell whether the tasks run.
//!
//! [`Dns`]: crate::discover::Dns
//! [`Watch`]: crate::discover::Watch
//!
//! # Priority groups
//!
//! [`Endpoint::priority`] makes groups: primary, standby, far region. The first group gets all calls while it is well;
//! then they spill over to the next one, and come back.
//!
//! ```text
//! what a group can take = min(1, 1.4 · weight of its healthy endpoints / weight of all of them)
//! ```
//!
//! **Spilling over.** The first group gets what it can take, the second what is left, and so on; if all together cannot
//! take everything, each gets its part of it. So a group spills nothing until it has lost more than 28 % of its
//! endpoints, 30 % of the calls when half are lost, and everything when none is left. Health is looked
//! at with each change, and by a call every 150 ms. If no endpoint of any group is healthy, calls go where they went last.
//!
//! **An endpoint is healthy** unless one of these holds:
//!
//! - It is ejected, or a health check has found it unhealthy.
//! - It has been unavailable for 1 s: one that is full for a moment moves no calls.
//! - It has failed its last five first attempts, or more than 60 % of the last sixteen (of as few as five if the others are older
//!   than 10 s), for 200 ms on end: ordinary errors, and those of one broken connection, move no calls. Calls that time out or end
//!   early count by the same rule as for ejection. An endpoint that gets no calls any more counts as healthy after 10 s, and the
//!   first calls that come back show whether it is.
//! - It hangs, and so do most of its group: at least three calls wait for it, and it has answered nothing since a look that was at
//!   least 200 ms ago, and twice as long as the slowest good call of the balancer in the last 10 s took. Nor has it for twice the
//!   time over which its last eight answers were spread, which is for endpoints most of whose callers leave before any answer. A
//!   few that hang move no calls to another group, because the choice of endpoints avoids them.
//!
//! So a group whose endpoints all fail or hang loses its calls within a second if each has 30 calls a second, without a health
//! check and without a circuit breaker.
//!
//! **Coming back.** What a group gets falls at once and rises slowly. It must have been better for 10 s on end, and then
//! takes 30 s from nothing to everything. It rises at once as far as no other group can take the calls. This goes on
//! without calls: the first one after a pause sees it. A group that is new to the balancer is trusted at once.
//!
//! **Each call** goes to one group by these shares, and to one of its endpoints by the policy. If the group has no
//! endpoint to offer, because all are left out or were tried by other attempts of the operation, it goes to the first group
//! that has one. So a retry finds the standby before anything is known of the primary. The last attempt of a retry goes to
//! another group as soon as more than a fifth of the last first attempts of its own group have failed (of at least five), unless
//! the other one fails as well or is a [standby](Endpoint::standby). [`ConsistentHash`] gives a key
//! the same endpoint within a group; while calls are divided, a key has an endpoint in each.
//!
//! Without a health check, calls themselves find out whether a group is well again: about one in 50 of them, for some seconds,
//! in each 20 s. Where these must not fail and are not retried, use [health checks](Balance::check_health), which keep an endpoint
//! out until it works.
//!
//! Active and standby with automatic fail-back are two groups and a health check:
//!
//! ```
//! use std::time::Duration;
//!
//! use buttress::Balance;
//! use buttress::balance::{Ask, Endpoint, HealthCheck};
//! use tower::service_fn;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), buttress::BoxError> {
//! # let client = |name: &'static str| service_fn(move |_: &'static str| async move {
//! #     if name == "active" { Err("connection refused".into()) } else { Ok::<_, buttress::BoxError>(name) }
//! # });
//! let endpoints = [
//!     Endpoint::new("10.0.0.1:5432", client("active")),
//!     Endpoint::new("10.1.0.1:5432", client("standby")).priority(1),
//! ];
//! let orders = Balance::new("orders", endpoints)?
//!     .check_health(HealthCheck::new(Ask::new(|| "ping")).interval(Duration::from_secs(1)))?;
//! let handle = orders.handle();
//! assert_eq!(handle.groups()[0].share, 1.0);
//! # tokio::time::sleep(Duration::from_secs(5)).await;
//! // The active one has gone.
//! assert_eq!(handle.groups()[1].share, 1.0);
//! assert_eq!(orders.send("list").await?, "standby");
//! # Ok(())
//! # }
//! ```
//!
//! [`Failover`] sets the factor and both times.
//!
//! # Promises
//!
//! - A call takes no lock, spawns no task and allocates nothing. One that finds new endpoints takes a short lock, and
//!   one that ends after an interval of 10 s evaluates the endpoints. Where there are several priority groups, one call every
//!   150 ms looks at the health of all endpoints, or sooner if one is about to come back, but not within 50 ms; no other waits
//!   for it.
//! - Outlier ejection never takes more than half of the endpoints of a priority group out, nor the only one.
//! - A call goes to another priority group only if the shares say so, its own group has no endpoint to offer, or it is the last
//!   attempt of an operation and its own group fails.
//! - `poll_ready` is always ready; no idle handle holds anything of an endpoint's. An endpoint that is not ready is
//!   waited for inside the call, and counts as busy meanwhile. An error of its `poll_ready` fails that call, and no more.
//! - No endpoint is compared with itself.
//! - Estimates do not depend on how often they are read.
//! - Calls in flight on an endpoint that is removed or replaced finish, and are not counted for the new one.
//! - Without any endpoint a call waits for at most 1 s, and not beyond its deadline.
//!
//! # Cancellation
//!
//! Dropping the future of a call ends it on the endpoint. It counts as cancelled: the endpoint has one call less in
//! flight, and is taken to be at least as slow as the call was old, unless the head of its answer had come. For outlier
//! ejection it may count as a failure, see there. The same holds if the endpoint panics.
//!
//! # What clones share
//!
//! The endpoints and all that is known about them. Each handle has its own random numbers and the last endpoints that
//! it saw; it drops those that were removed when it is called or cloned. Discovery ends with the last handle.
//!
//! # Cost
//!
//! Two readings of the clock, three or four atomic updates of the endpoint, one clone of its service and one
//! reference taken and given back; the same for ten and for a thousand endpoints. Where there are several priority
//! groups, one more random number and a look for an endpoint that the group can offer, which ends at the first. A
//! clone takes a short lock of the handle that it is made of. [`LeastLoaded`] and [`ConsistentHash`] look at all endpoints, and
//! so does [`RoundRobin`], unless all take calls and weigh the same: then it looks at one.
//!
//! # Errors
//!
//! Those of the endpoints, and [`ErrorKind::NoEndpoints`](crate::ErrorKind::NoEndpoints) if there is none: endpoints
//! that are all left out still get calls. If none of them would take a call, what there was is in the error that an
//! endpoint's layers refuse it with: see [`Cause::shortage`](crate::Cause::shortage).
//! [`ErrorKind::DiscoveryStopped`](crate::ErrorKind::DiscoveryStopped) if the source was lost with its
//! [runtime](#background-tasks).
//!
//! # Metrics
//!
//! | metric | type | labels |
//! |---|---|---|
//! | `buttress_endpoints` | gauge | name, state = ready, ejected, `slow_start`, unhealthy |
//! | `buttress_discovery_running` | gauge | name; only if endpoints are discovered |
//! | `buttress_health_check_running` | gauge | name; only if there is a health check |
//! | `buttress_ejections_total` | counter | name, method = `leave_one_out`, `consecutive_failures`, mode |
//! | `buttress_priority_share` | gauge | name, priority = 0 to 7; only where there are several |
//! | `buttress_rejections_total` | counter | name, layer = balance, reason = `no_endpoints`, mode |
//! | `buttress_endpoint_calls_total` | counter | name, endpoint; outcome = success, failure, overload, throttled, ignored, cancelled, rejected |
//! | `buttress_endpoint_in_flight` | gauge | name, endpoint |
//! | `buttress_endpoint_latency_seconds` | gauge | name, endpoint |
//! | `buttress_endpoint_ready` | gauge | name, endpoint |
//!
//! The two gauges of tasks are 1 while the task runs for all balancers of the name. They are 0 when its runtime has ended and no
//! call has been made on another one, from a panic of the source until it has been polled without one, when the source has
//! ended, and when there is no such balancer any more.
//!
//! The last four are off until [`Config::endpoint_metrics`] says how many endpoints get a label of their own: it is their
//! key; all others are `other`. The latency is the estimate that the balancer compares, of several the greatest; ready
//! is how many of the label are neither ejected nor unhealthy. They cost each call two atomic updates and a counter.
//!
//! # Defaults
//!
//! | setting | default | reason |
//! |---|---|---|
//! | [`choose`](Config::choose) | [`PowerOfChoices`] | close to the least loaded, without a herd |
//! | [`measure`](Config::measure) | [`LoadMetric::PeakEwma`] | sees slow endpoints before calls pile up |
//! | [`latency_decay`](Config::latency_decay) | 5 s | remembers a slow answer, tries again soon after it |
//! | [`failure_decay`](Config::failure_decay) | 4 s | an endpoint that has healed is back in seconds |
//! | [`failure_penalty`](Config::failure_penalty) | 5 s | more than most calls take |
//! | [`slow_start`](Config::slow_start) | 10 s | caches fill and code is compiled |
//! | [`outlier_ejection`](Config::outlier_ejection) | [`OutlierEjection::new`] | see there |
//! | [`failover`](Config::failover) | [`Failover::new`] | see [priority groups](#priority-groups) |
//! | [`endpoint_metrics`](Config::endpoint_metrics) | off | each endpoint makes a dozen series |
//! | [`max_wait`](Config::max_wait) | 1 s | callers are patient for longer than the last endpoint takes to be replaced |
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//!
//! use buttress::balance::Endpoint;
//! use buttress::{Balance, BoxError, RetryLayer};
//! use tower::util::BoxCloneSyncService;
//! use tower::{Service, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! // A client of each replica.
//! let client = |answers_in: Option<u64>| {
//!     BoxCloneSyncService::new(service_fn(move |_query: &'static str| async move {
//!         match answers_in {
//!             Some(millis) => Ok(tokio::time::sleep(Duration::from_millis(millis)).await),
//!             None => Err(BoxError::from("connection reset")),
//!         }
//!     }))
//! };
//! let balance = Balance::new(
//!     "search",
//!     [
//!         Endpoint::new("10.0.0.1:80", client(Some(10))),
//!         Endpoint::new("10.0.0.2:80", client(Some(10))).weight(2.0),
//!         Endpoint::new("10.0.0.3:80", client(None)),
//!     ],
//! )?;
//! let endpoints = balance.handle();
//! let mut search = RetryLayer::new("search").wrap(balance);
//! # std::future::poll_fn(|cx| search.poll_ready(cx)).await?;
//! for _ in 0..100 {
//!     search.call("bolts").await?;
//! }
//! let broken = endpoints.endpoint("10.0.0.3:80").expect("is one of them");
//! assert!(broken.load > 10.0 * endpoints.endpoint("10.0.0.1:80").expect("is one of them").load);
//! endpoints.remove("10.0.0.3:80");
//! # Ok(())
//! # }
//! ```

mod background;
mod choose;
mod config;
mod driver;
mod endpoint;
mod failover;
mod flight;
mod future;
mod handle;
mod health;
mod host_set;
mod label;
mod metrics;
mod outlier;
mod pool;
mod service;
mod shortage;
mod snapshot;

pub use self::choose::{
    Choose, ConsistentHash, Eligibility, Endpoints, LeastLoaded, PowerOfChoices, RoundRobin,
    WeightedRandom,
};
pub use self::config::{Config, Settings};
pub use self::endpoint::{Endpoint, EndpointStatus, GroupStatus, LoadMetric};
pub use self::failover::Failover;
pub use self::flight::Flight;
pub use self::future::ResponseFuture;
pub use self::handle::Handle;
pub use self::health::{Ask, HealthCheck, Probe};
pub use self::host_set::EndpointState;
pub use self::outlier::OutlierEjection;
pub use self::service::Balance;
