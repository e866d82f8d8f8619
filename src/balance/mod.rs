//! A balancer: spreads calls over endpoints, and avoids endpoints that are slow, failing or gone.
//!
//! # When to use it
//!
//! Use it in a client of a service that has several replicas and no load balancer in front of them: a list of
//! addresses, a headless service, a registry. It replaces `Buffer` and `Balance` of Tower.
//!
//! Each endpoint needs a client that is bound to its server. A client that takes the server from the URI, as the client
//! of hyper-util does, is bound to one by the layer `http::AddOriginLayer` of the feature `http`.
//!
//! Do not use it where a proxy or a virtual address already balances: each call then goes to a random replica,
//! whichever endpoint the balancer chooses.
//!
//! # How it works
//!
//! The balancer draws three endpoints at random, and the least loaded of them gets the call; among equal loads it picks
//! one at random. The random draw prevents a herd: no client sends all its calls to the endpoint that looks best. With
//! only two draws, both would too often be bad endpoints. Other policies are [`RoundRobin`], [`WeightedRandom`],
//! [`LeastLoaded`] and [`ConsistentHash`]; write your own with the trait [`Choose`].
//!
//! ```text
//! load = (latency + 5 s · f²)² · (in flight + 1)
//! ```
//!
//! - **latency** is a peak-sensitive moving average. An answer that took at least four times as long replaces it. A
//!   less slow answer pulls it up by a tenth or more, and by more the slower it is. Faster answers pull it down with a
//!   time constant of 5 s, and without answers it decays with the same constant. The average therefore follows an
//!   endpoint that has become slow at once, and smooths random differences between calls. While calls wait for an
//!   answer, it is never below the time since the endpoint last answered, so the balancer avoids a hanging endpoint
//!   before any timeout.
//! - **f** is the share of failures: `0.7 f + 0.3` after a failed call, `0.7 f` after any other, and it decays with a
//!   time constant of 4 s. It makes an endpoint that fails fast look slow, and an endpoint that has recovered gets
//!   calls again within seconds. The classifier decides which calls have failed.
//! - A failed or cancelled call raises the latency if it took longer than the average, and never lowers it.
//! - The losing call of a hedge is dropped as soon as the other one is answered, so it shows little of the latency of
//!   its endpoint. If the endpoint answers nothing, its silence adds up from one such call to the next, and the latency
//!   becomes twice the silence. A slow replica is therefore tried again ever more rarely, and not after each hedge.
//!   A call that times out counts with its own time, and timeouts do not add up, because they also end calls to
//!   endpoints that are only overloaded.
//! - Endpoints whose values of `latency + 5 s · f²` differ by less than a quarter count as equally fast, and the calls
//!   in flight decide. Without this rule, a single caller would send nearly all calls to an endpoint that is only
//!   slightly faster.
//! - With `http::CompleteOnBodyEnd` a call is in flight until the end of its body, but its latency is the time to its
//!   head. A stream counts as one call in flight, however long it goes on, and as one failure if it ends in a failure.
//! - A new endpoint begins with the median of the other latencies, and with a tenth of its weight, which grows to the
//!   full weight in 10 s (slow start). The first endpoint, and endpoints that join within 10 s after it, have their
//!   full weight at once.
//!
//! [`LoadMetric::InFlight`] compares only `in flight + 1`.
//!
//! **Weights.** If the weights differ, the balancer draws one endpoint by weight, which gets the call, unless one of
//! two others, drawn by weight as well, is nine times less loaded:
//!
//! ```text
//! load of the first  = (latency + 5 s · f²)² · (in flight / weight + 1 / greatest weight)
//! load of the others = (latency + 5 s · f²)² · (in flight + 1) / weight
//! ```
//!
//! The latency of the two others is taken without decay. Equally fast endpoints therefore get their shares by weight at
//! low and at high rates, also a canary of weight 0.1, and the balancer still avoids a heavy endpoint that hangs or
//! fails. An endpoint that is three times slower than the others loses most of its share. In slow start an endpoint
//! counts with the part of its weight that it has reached; if the weights are equal, the load is divided by this part.
//!
//! **Avoided endpoints.** The balancer chooses these endpoints only if no other is left:
//!
//! - an ejected or unhealthy endpoint, or one whose [`Availability`](crate::Availability) says no;
//! - an endpoint that has refused a call with an error of this crate, until its `retry_after`, else for 100 ms;
//! - an endpoint whose answer was an overload with a `retry_after`, for this time, at most 300 s, unless half of its
//!   group gets no calls already;
//! - an endpoint to which [retry](crate::retry) or [hedge](crate::hedge) has sent another attempt of the operation.
//!
//! The balancer does not repeat a refused call, because it would need a copy of every request. An outer retry repeats
//! it, although it does not retry other refusals.
//!
//! **Outlier ejection.** Every 10 s the failure share of each endpoint is compared with the share of all others
//! together. Only first attempts count: a request that fails at every endpoint is retried at several of them, and must
//! not look like failures of many endpoints. A call whose attempt timed out outside the balancer is a failure if the
//! endpoint had the call for the whole timeout. A call that [ended early](crate::circuit_breaker#calls-that-end-early)
//! is a failure if the endpoint had enough time for it: twice as long as the slowest good call of the pool, and at
//! least 200 ms (or a tenth of the timeout). In addition, the endpoint must not have answered any call well in the
//! meantime, nor for 2 s (or the timeout). The losing call of a hedge is no failure. An endpoint whose share is
//! significantly higher is ejected: it gets no calls for 10 s, after the next ejection in a row for 20 s, and so on up
//! to 300 s, each ± 25 %; then it returns by slow start. At most half of the endpoints are ejected. See
//! [`OutlierEjection`]. Each priority group is evaluated by itself. A failing endpoint loses most of its calls much
//! sooner, because its failures raise its load. If it gets fewer than 5 calls in 10 s, it is not ejected.
//!
//! **Health checks** are optional ([`Balance::check_health`]): a background task sends each endpoint a [`Probe`] at
//! regular intervals. Three failures in a row make an endpoint unhealthy. Two successes make it healthy again: it
//! returns by slow start, and the failures of its calls are forgotten. A new endpoint gets calls before its first
//! check, and its first failed check makes it unhealthy. A successful check does not end an ejection. See
//! [`HealthCheck`].
//!
//! **Panic threshold.** While fewer than half of the endpoints take calls, calls go to all endpoints, because the few
//! would be overloaded. The loads are still compared. [`Config::panic_threshold`] sets another share. With [priority
//! groups](#priority-groups), this holds for each group, and only while all groups together cannot take all calls.
//!
//! **Discovery.** [`Config::discover`] takes a [`Source`](crate::discover::Source): [`Dns`](crate::discover::Dns),
//! [`Watch`](crate::discover::Watch), or any [`tower::discover::Discover`]. A background task applies the changes, also
//! without calls, and yields to other tasks after 256 changes. A source that fails is polled again after 0.1 to 30 s.
//! When a source ends, the last endpoints stay. A source may give an endpoint a weight, a priority, a zone, and the role
//! of a standby: see [`Target`](crate::discover::Target). Through a [`Handle`] you add, remove, reweigh, eject and
//! restore endpoints by hand.
//!
//! # Background tasks
//!
//! Discovery and health checks run without calls, and do not stop silently.
//!
//! **Panics.** A panic in your code (a source, a resolver, a listener, the function that makes a service, a probe and
//! its classifier, `Clone` and `Drop` of a service) affects no call. A probe that panics has failed; the checks of
//! other endpoints go on. Discovery restarts after 100 ms, and after twice as long for each further panic, up to 30 s,
//! because code that panics each time must not keep a core busy. It then applies the changes that it had found before
//! the panic.
//!
//! **Another runtime.** The tasks run on the runtime on which the balancer is built, and end with it. The next call on
//! another runtime starts them there, for example if a balancer is in a `static` and each test has its own runtime.
//! This call waits until the source has been polled once, so it does not go to an endpoint that the source has removed.
//! [`Dns`] and [`Watch`] make all services anew, because clients have lost their own tasks with the runtime. [`Dns`]
//! makes them for the addresses of its last answer, and looks the name up again at once. Another source continues if it
//! depends on no runtime, and restarts if it is inside a [`Restartable`](crate::discover::Restartable). A source that
//! can do neither no longer reports endpoints, and calls fail with
//! [`DiscoveryStopped`](crate::ErrorKind::DiscoveryStopped). A call outside of a runtime does not start the tasks.
//!
//! [`Handle::is_discovering`], [`Handle::is_checking_health`] and two gauges show whether the tasks run.
//!
//! [`Dns`]: crate::discover::Dns
//! [`Watch`]: crate::discover::Watch
//!
//! # Priority groups
//!
//! [`Endpoint::priority`] divides the endpoints into groups: primary, standby, far region. The first group gets all
//! calls while it is healthy. When it is not, calls spill over to the next group, and return later.
//!
//! ```text
//! what a group can take = min(1, 1.4 · weight of its healthy endpoints / weight of all of them)
//! ```
//!
//! **Spilling over.** The first group gets as many calls as it can take, the second group gets the rest, and so on. If
//! all groups together cannot take all calls, each gets its share. A group therefore spills no calls until more than 28
//! % of its endpoints are unhealthy, 30 % of the calls when half are unhealthy, and all calls when none is healthy. The
//! health is evaluated at each change, and by a call every 150 ms. If no endpoint of any group is healthy, the groups
//! keep their last shares.
//!
//! **An endpoint is healthy** unless one of these holds:
//!
//! - It is ejected, or a health check has found it unhealthy.
//! - It has been unavailable for 1 s. An endpoint that is full for a moment moves no calls.
//! - For 200 ms on end, it has failed its last five first attempts, or more than 60 % of the last sixteen (of as few as
//!   five if the others are older than 10 s). Ordinary errors, and the errors of one broken connection, move no calls.
//!   Calls that time out or end early count by the same rule as for ejection. An endpoint that gets no more calls
//!   counts as healthy after 10 s, and the first calls that return show whether it is.
//! - It hangs, and so do most endpoints of its group. An endpoint hangs if at least three calls wait for it and it has
//!   answered none of its calls for long enough: at least 200 ms, twice the time of the slowest good call of the
//!   balancer in the last 10 s, and twice the time over which its last eight answers were spread. The last condition is
//!   for endpoints whose callers mostly leave before any answer. A few hanging endpoints move no calls to another
//!   group, because the choice of endpoints avoids them.
//!
//! If all endpoints of a group fail or hang, the group loses its calls within a second at 30 calls a second for each
//! endpoint, without a health check and without a circuit breaker.
//!
//! **Coming back.** The share of a group falls at once and rises slowly. The group must have been able to take more for
//! 10 s on end; its share then takes 30 s from none to all calls. The share rises at once as far as no other group can
//! take the calls. The time counts also without calls: the first call after a pause finds the new share. A new group
//! gets its share at once.
//!
//! **Each call** goes to one group by these shares, and to one of its endpoints by the policy. If the group has no
//! endpoint to offer, because all are avoided or were tried by other attempts of the operation, the call goes to the
//! first group that has one. A retry therefore reaches the standby before the balancer knows that the primary is down.
//! The last attempt of a retry goes to another group as soon as more than a fifth of the last first attempts of its own
//! group have failed (of at least five), unless the other group fails as well or is a [standby](Endpoint::standby).
//! [`ConsistentHash`] gives a key the same endpoint within a group; while calls are divided, a key has one endpoint in
//! each group.
//!
//! Without a health check, a small share of the calls tests from time to time whether a group has recovered. If these
//! calls must not fail and are not retried, use [health checks](Balance::check_health), which keep an endpoint
//! unhealthy until it works.
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
//! [`Failover`] sets the factor 1.4 and both times.
//!
//! # Promises
//!
//! - A call takes no lock, spawns no task and allocates nothing. There are three exceptions. A call that finds new
//!   endpoints takes a short lock. The first call that ends after an interval of 10 s evaluates the endpoints. With
//!   several priority groups, one call every 150 ms evaluates the health of all endpoints, or sooner if an endpoint is
//!   about to return, but not within 50 ms; no other call waits for it.
//! - Outlier ejection never ejects more than half of the endpoints of a priority group, nor its only one.
//! - A call goes to another priority group only if the shares say so, its own group has no endpoint to offer, or it is
//!   the last attempt of an operation and its own group fails.
//! - `poll_ready` is always ready; an idle handle holds nothing of an endpoint. If the chosen endpoint is not ready,
//!   the call waits for it, and the endpoint counts as busy in the meantime. An error of its `poll_ready` fails only
//!   this call.
//! - No endpoint is compared with itself.
//! - Estimates do not depend on how often they are read.
//! - If an endpoint is removed or replaced, its calls in flight finish, and do not count for the new endpoint.
//! - Without any endpoint a call waits for at most 1 s, and not beyond its deadline.
//!
//! # Cancellation
//!
//! Dropping the future of a call ends it on the endpoint. The call counts as cancelled: the endpoint has one call less
//! in flight, and its latency becomes at least the time that the call took, unless the head of its answer had arrived.
//! For outlier ejection the call may count as a failure: see above. The same holds if the endpoint panics.
//!
//! # What clones share
//!
//! Clones share the endpoints with their statistics. Each clone has its own random numbers and its own view of the
//! endpoints; it drops removed endpoints when it is called or cloned. Discovery ends with the last clone.
//!
//! # Cost
//!
//! Two readings of the clock, three or four atomic updates of the endpoint, one clone of its service and one reference
//! taken and given back; the same for ten and for a thousand endpoints. Several priority groups cost one more random
//! number, and a search for an endpoint that the group can offer, which ends at the first one. Cloning takes a short
//! lock of the original. [`LeastLoaded`] and [`ConsistentHash`] read all endpoints, and so does [`RoundRobin`], unless
//! all take calls and have the same weight: then it reads one.
//!
//! # Errors
//!
//! The errors of the endpoints. [`ErrorKind::NoEndpoints`](crate::ErrorKind::NoEndpoints) if there is no endpoint: if
//! all endpoints are avoided, they still get calls. If the layers of an endpoint refuse a call because no endpoint
//! would take it, the error contains the states of the endpoints: see [`Cause::shortage`](crate::Cause::shortage).
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
//! | `buttress_priority_share` | gauge | name, priority = 0 to 7; only with several priority groups |
//! | `buttress_rejections_total` | counter | name, layer = balance, reason = `no_endpoints`, mode |
//! | `buttress_endpoint_calls_total` | counter | name, endpoint; outcome = success, failure, overload, throttled, ignored, cancelled, rejected |
//! | `buttress_endpoint_in_flight` | gauge | name, endpoint |
//! | `buttress_endpoint_latency_seconds` | gauge | name, endpoint |
//! | `buttress_endpoint_ready` | gauge | name, endpoint |
//!
//! The two gauges of tasks are 1 while the task runs for all balancers of the name. They are 0 in these cases: the
//! runtime of the task has ended and no call has been made on another one; the source has panicked and has not been
//! polled without a panic since; the source has ended; no balancer of the name exists any more.
//!
//! The last four metrics are off until [`Config::endpoint_metrics`] sets the number of endpoints with a label of their
//! own. The label is the key of the endpoint; all other endpoints have the label `other`. The latency is the estimate
//! that the balancer compares; for several endpoints of a label it is the greatest. The gauge `ready` counts the
//! endpoints of the label that are neither ejected nor unhealthy. The four metrics cost each call two atomic updates
//! and a counter.
//!
//! # Defaults
//!
//! | setting | default | reason |
//! |---|---|---|
//! | [`choose`](Config::choose) | [`PowerOfChoices`] | close to the least loaded, without a herd |
//! | [`measure`](Config::measure) | [`LoadMetric::PeakEwma`] | detects slow endpoints before calls accumulate |
//! | [`latency_decay`](Config::latency_decay) | 5 s | long enough to remember a slow answer, short enough to try the endpoint again soon |
//! | [`failure_decay`](Config::failure_decay) | 4 s | an endpoint that has recovered gets calls again within seconds |
//! | [`failure_penalty`](Config::failure_penalty) | 5 s | longer than most calls |
//! | [`slow_start`](Config::slow_start) | 10 s | time to fill caches and compile code |
//! | [`outlier_ejection`](Config::outlier_ejection) | [`OutlierEjection::new`] | see there |
//! | [`failover`](Config::failover) | [`Failover::new`] | see [priority groups](#priority-groups) |
//! | [`endpoint_metrics`](Config::endpoint_metrics) | off | each endpoint adds a dozen series |
//! | [`max_wait`](Config::max_wait) | 1 s | long enough to replace the last endpoint, and shorter than the patience of most callers |
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
