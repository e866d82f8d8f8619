//! Events: the decisions of layers, one by one.
//!
//! # When to use it
//!
//! To log, trace or count a single decision with its reason: a retry, a refusal, the opening of a breaker. For rates,
//! alerts and panels use the [metrics](crate::guide::metrics).
//!
//! # How it works
//!
//! `on_event` of a configuration sets a listener: on a [standard stack](crate::stack), a whole client, a single layer that
//! has a configuration of this shape, or a balancer. The listener of a stack hears all its parts. A part with a listener
//! of its own is heard by that one alone. The [`Display`](std::fmt::Display) of an [`Event`] is one line for a log.
//!
//! ```text
//! inventory: retry 1 in 43ms after an error: "inventory" failed: connection reset
//! ```
//!
//! | event | from | level of `tracing` |
//! |---|---|---|
//! | [`Retry`](EventKind::Retry), [`GaveUp`](EventKind::GaveUp) | retry | debug |
//! | [`HedgeSent`](EventKind::HedgeSent), [`Hedge`](EventKind::Hedge) | hedge | debug |
//! | [`Refused`](EventKind::Refused) | circuit breaker, rate limit, bulkhead, deadline, balancer | debug |
//! | [`TimedOut`](EventKind::TimedOut) | timeout, response timeout and deadline of a standard stack | debug |
//! | [`Paused`](EventKind::Paused) | rate limit | debug |
//! | [`LimitShrunk`](EventKind::LimitShrunk) | adaptive bulkhead | debug |
//! | [`DrainBegan`](EventKind::DrainBegan), [`DrainEnded`](EventKind::DrainEnded) | drain | info; warn if calls are in flight at the end |
//! | [`Transition`](EventKind::Transition) | circuit breaker | warn if it opens, else info |
//! | [`Ejected`](EventKind::Ejected) | balancer | warn |
//! | [`Restored`](EventKind::Restored) | balancer, by its handle | info |
//! | [`Health`](EventKind::Health) | health check of a balancer | warn if unhealthy, else info |
//! | [`EndpointAdded`](EventKind::EndpointAdded), [`EndpointRemoved`](EventKind::EndpointRemoved) | balancer | info |
//! | [`Failover`](EventKind::Failover) | balancer with several priorities | warn |
//! | [`Panic`](EventKind::Panic) | balancer | warn if it begins, else info |
//! | [`Task`](EventKind::Task) | discovery and health check of a balancer | info if it runs or its source has ended, else warn |
//! | [`LookupFailed`](EventKind::LookupFailed) | discovery of a balancer | warn |
//!
//! With the feature `tracing`, each event is also an event of the crate `tracing`, whether there is a listener or not. Its
//! target is `buttress::retry`, `buttress::circuit_breaker` and so on, and its fields are those of the event.
//!
//! # Promises
//!
//! - A call that succeeds at its first attempt causes no event, and costs nothing more with a listener.
//! - A listener is called once for each event, on the task whose call caused it, after the decision and its metrics. No
//!   lock is held: it may use the handles of the layers, and make calls.
//! - A panic of a listener is caught. The panic hook has printed it, and the call goes on as if the listener had returned.
//! - Events of different tasks come in any order.
//!
//! # Cost
//!
//! The time of the listener is added to the call that caused the event, so a slow listener makes calls slow. Send events
//! that need long work through a channel.
//!
//! # Examples
//!
//! ```
//! use buttress::{BoxError, event::EventKind};
//! use tower::service_fn;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let stack = buttress::standard("inventory")
//!     .concurrency_limit(20)
//!     .on_event(|event| {
//!         println!("{event}");
//!         if let EventKind::Retry { attempt, .. } = event.kind {
//!             assert!(attempt < 3);
//!         }
//!     })
//!     .build()?;
//! let inventory = stack.wrap(service_fn(|()| async { Err::<(), BoxError>("reset".into()) }));
//! inventory.send(()).await.unwrap_err();
//! # Ok(())
//! # }
//! ```

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

pub use crate::chassis::Hedged;
use crate::circuit_breaker::Transition;
use crate::{Error, ErrorKind, GaveUp, Mode, Outcome};

/// A decision of a layer. See the [module documentation](self).
#[derive(Debug)]
#[non_exhaustive]
pub struct Event<'a> {
    /// The name of the layer.
    pub name: &'static str,
    /// The kind of layer, as in the label `layer` of the metrics: `retry`, `circuit_breaker`, `balance`.
    pub layer: &'static str,
    /// The decision.
    pub kind: EventKind<'a>,
}

/// The decision of an [`Event`].
#[derive(Debug)]
#[non_exhaustive]
pub enum EventKind<'a> {
    /// A further attempt follows.
    #[non_exhaustive]
    Retry {
        /// The number of the attempt that failed, from 1.
        attempt: u32,
        /// The time until the next attempt.
        wait: Duration,
        /// `true` if the service asked for this time.
        by_retry_after: bool,
        /// The outcome of the attempt.
        outcome: Outcome,
        /// The error of the attempt; `None` if it got an answer.
        error: Option<&'a Error>,
    },
    /// No attempt follows one that failed.
    #[non_exhaustive]
    GaveUp {
        /// The number of attempts that were made.
        attempts: u32,
        /// The reason.
        reason: GaveUp,
        /// The error of the last attempt; `None` if it got an answer. Its
        /// [`was_sent`](crate::Cause::was_sent) tells whether the service may have acted.
        error: Option<&'a Error>,
    },
    /// A hedge was sent.
    #[non_exhaustive]
    HedgeSent {
        /// The number of the hedge among those of its attempt, from 1.
        number: u32,
    },
    /// A hedge is over, or was denied.
    #[non_exhaustive]
    Hedge {
        /// The result.
        result: Hedged,
    },
    /// A call was refused before the inner service was called, or would have been with [`Mode::Enforce`].
    #[non_exhaustive]
    Refused {
        /// The reason.
        reason: ErrorKind,
        /// The mode of the layer. With [`Mode::Observe`] the call went on.
        mode: Mode,
        /// The time after which a call can pass, if it is known.
        retry_after: Option<Duration>,
    },
    /// A call was given up because its time was over, or would have been with [`Mode::Enforce`].
    #[non_exhaustive]
    TimedOut {
        /// The time that is set for the layer; `None` for an inherited deadline.
        limit: Option<Duration>,
        /// The mode of the limit. With [`Mode::Observe`] the call went on.
        mode: Mode,
    },
    /// A rate limit lets no call pass for a time, because the service asked for it.
    #[non_exhaustive]
    Paused {
        /// The time, from now on.
        pause: Duration,
    },
    /// The adaptive limit of a bulkhead shrank.
    #[non_exhaustive]
    LimitShrunk {
        /// The limit before.
        from: usize,
        /// The limit after.
        to: usize,
    },
    /// A drain began: new calls are refused, and the calls in flight end as usual.
    #[non_exhaustive]
    DrainBegan {
        /// The number of calls in flight.
        in_flight: u64,
    },
    /// A circuit breaker changed its state.
    Transition(Transition),
    /// A balancer left an endpoint out because it failed more than the others, or would have with [`Mode::Enforce`].
    ///
    /// An ejection ends with time, and no event tells of its end.
    #[non_exhaustive]
    Ejected {
        /// The key of the endpoint.
        endpoint: &'a str,
        /// The rule that decided, as in the label `method` of the metrics; `by_hand` for an ejection by the handle.
        method: &'static str,
        /// The mode of the rule.
        mode: Mode,
    },
    /// The handle of a balancer ended the ejection of an endpoint.
    #[non_exhaustive]
    Restored {
        /// The key of the endpoint.
        endpoint: &'a str,
    },
    /// A health check found that an endpoint works again, or that it does not work.
    #[non_exhaustive]
    Health {
        /// The key of the endpoint.
        endpoint: &'a str,
        /// `true` if it works.
        is_healthy: bool,
    },
    /// An endpoint was added to a balancer after it was built, or replaces the endpoint with the same key.
    #[non_exhaustive]
    EndpointAdded {
        /// The key of the endpoint.
        endpoint: &'a str,
    },
    /// An endpoint was removed from a balancer.
    #[non_exhaustive]
    EndpointRemoved {
        /// The key of the endpoint.
        endpoint: &'a str,
    },
    /// The endpoints of a priority begin or cease to get calls, because the health of the groups has changed.
    #[non_exhaustive]
    Failover {
        /// The priority.
        priority: u8,
        /// `true` if they get calls from now on.
        gets_calls: bool,
    },
    /// So few endpoints of a priority take calls that the balancer sends calls to all of them, or this is over.
    ///
    /// The end is told when the balancer next assesses its endpoints, which may be later than the end itself.
    #[non_exhaustive]
    Panic {
        /// The priority.
        priority: u8,
        /// `false` if it is over.
        is_on: bool,
    },
    /// Discovery or the health check of a balancer began to work again, or stopped.
    ///
    /// No event tells that a runtime has ended: the next call runs the task on its own runtime.
    #[non_exhaustive]
    Task {
        /// `discovery` or `health_check`.
        task: &'static str,
        /// `running`; `recovering` after a panic; `stopped` if the source was lost with its runtime; `ended` if the
        /// source has ended.
        state: &'static str,
    },
    /// A source of endpoints failed. The endpoints stay as they are, and discovery tries again after a pause.
    LookupFailed,
    /// The wait of a [drain](crate::drain) is over.
    #[non_exhaustive]
    DrainEnded {
        /// The number of calls that did not end in time.
        in_flight: u64,
    },
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, layer, kind } = self;
        write!(f, "{name}: ")?;
        match kind {
            EventKind::Retry {
                attempt,
                wait,
                outcome,
                error,
                by_retry_after,
            } => {
                let asked = if *by_retry_after {
                    ", as the service asked,"
                } else {
                    ""
                };
                write!(f, "retry {attempt} in {wait:?}{asked} after ")?;
                match error {
                    Some(error) => write!(f, "an error: {}", Chain(error)),
                    None => write!(f, "the outcome {}", outcome.label()),
                }
            }
            EventKind::GaveUp {
                attempts,
                reason,
                error,
            } => {
                write!(f, "gave up after attempt {attempts}: {}", reason.label())?;
                error.map_or(Ok(()), |error| write!(f, "; {}", Chain(error)))
            }
            EventKind::HedgeSent { number } => write!(f, "hedge {number} was sent"),
            EventKind::Hedge { result } => write!(f, "hedge {}", result.label()),
            EventKind::Paused { pause } => {
                write!(f, "{layer} pauses for {pause:?}, as the service asked")
            }
            EventKind::LimitShrunk { from, to } => write!(f, "{layer} limit {from} -> {to}"),
            EventKind::DrainBegan { in_flight } => {
                write!(f, "drain began with {in_flight} calls in flight")
            }
            EventKind::Refused {
                reason,
                mode,
                retry_after,
            } => {
                let would = match mode {
                    Mode::Enforce => "refused",
                    _ => "would refuse",
                };
                write!(f, "{layer} {would} a call: {}", reason.label())?;
                retry_after.map_or(Ok(()), |after| write!(f, ", try again in {after:?}"))
            }
            EventKind::TimedOut { limit, mode } => {
                let would = match mode {
                    Mode::Enforce => "ended",
                    _ => "would end",
                };
                write!(f, "{layer} {would} a call")?;
                limit.map_or(Ok(()), |limit| write!(f, " after {limit:?}"))
            }
            EventKind::Transition(change) => transition(change, f),
            EventKind::Ejected {
                endpoint,
                method,
                mode,
            } => {
                let would = match mode {
                    Mode::Enforce => "ejected",
                    _ => "would eject",
                };
                write!(f, "balancer {would} {endpoint:?}: {method}")
            }
            EventKind::Restored { endpoint } => write!(f, "balancer restored {endpoint:?}"),
            EventKind::Health {
                endpoint,
                is_healthy,
            } => {
                let health = if *is_healthy { "healthy" } else { "unhealthy" };
                write!(f, "health check found {endpoint:?} {health}")
            }
            EventKind::EndpointAdded { endpoint } => write!(f, "balancer added {endpoint:?}"),
            EventKind::EndpointRemoved { endpoint } => write!(f, "balancer removed {endpoint:?}"),
            EventKind::Failover {
                priority,
                gets_calls,
            } => {
                let begins = if *gets_calls { "begins" } else { "ceases" };
                write!(f, "failover: priority {priority} {begins} to get calls")
            }
            EventKind::Panic { priority, is_on } => {
                let begins = if *is_on { "begins" } else { "is over" };
                write!(f, "panic {begins} in priority {priority}")
            }
            EventKind::Task { task, state } => write!(f, "{task} is {state}"),
            EventKind::LookupFailed => write!(f, "discovery failed to look up endpoints"),
            EventKind::DrainEnded { in_flight } => {
                write!(f, "drain ended with {in_flight} calls in flight")
            }
        }
    }
}

fn transition(change: &Transition, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Transition {
        from,
        to,
        cause,
        open_for,
        calls,
        failures,
        slow,
    } = change;
    let (from, to, cause) = (from.label(), to.label(), cause.label());
    write!(f, "circuit breaker {from} -> {to}: {cause}")?;
    if *calls > 0 {
        write!(f, ", {failures} of {calls} calls failed")?;
    }
    if *slow > 0 {
        write!(f, ", {slow} were slow")?;
    }
    open_for.map_or(Ok(()), |time| write!(f, ", for {time:?}"))
}

/// An error with all its sources, in one line.
pub(crate) struct Chain<'a>(pub(crate) &'a Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
