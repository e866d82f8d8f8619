//! Events: the decisions of layers, one by one.
//!
//! # When to use it
//!
//! To log, trace or count a single decision with its reason: a retry, a refusal, the opening of a breaker. For rates,
//! alerts and panels use the [metrics](crate::guide::metrics).
//!
//! # How it works
//!
//! [`on_event`](crate::stack::Standard::on_event) of a configuration sets a listener. A [standard
//! stack](crate::stack), a whole client, a server, a balancer, and a single retry, hedge, circuit breaker, rate limit
//! or bulkhead take one. The listener of a stack gets the events of all its parts. If a part has a listener of its
//! own, its events go only there.
//!
//! [`Display`](std::fmt::Display) formats an [`Event`] as one line for a log:
//!
//! ```text
//! inventory: retry 1 in 43ms after an error: "inventory" failed: connection reset
//! ```
//!
//! | event | from | level of `tracing` |
//! |---|---|---|
//! | [`Retry`](EventKind::Retry), [`GaveUp`](EventKind::GaveUp) | retry | debug |
//! | [`HedgeSent`](EventKind::HedgeSent), [`Hedge`](EventKind::Hedge) | hedge | debug |
//! | [`Refused`](EventKind::Refused) | circuit breaker, rate limit, bulkhead, deadline, drain, balancer | debug |
//! | [`TimedOut`](EventKind::TimedOut) | timeouts and deadlines | debug |
//! | [`Paused`](EventKind::Paused) | rate limit | debug |
//! | [`LimitShrunk`](EventKind::LimitShrunk) | adaptive bulkhead | debug |
//! | [`DrainBegan`](EventKind::DrainBegan), [`DrainEnded`](EventKind::DrainEnded) | drain | info; warn if the wait ends while calls are in flight |
//! | [`Transition`](EventKind::Transition) | circuit breaker | warn if it opens, else info |
//! | [`Ejected`](EventKind::Ejected) | balancer | warn |
//! | [`Restored`](EventKind::Restored) | handle of a balancer | info |
//! | [`Health`](EventKind::Health) | health check of a balancer | warn if unhealthy, else info |
//! | [`EndpointAdded`](EventKind::EndpointAdded), [`EndpointRemoved`](EventKind::EndpointRemoved) | balancer | info |
//! | [`Failover`](EventKind::Failover) | balancer with several priorities | warn if it begins, info if it ends |
//! | [`Panic`](EventKind::Panic) | balancer | warn if it begins, info if it ends |
//! | [`Task`](EventKind::Task) | discovery and health check of a balancer | info for `running` and `ended`, else warn |
//! | [`LookupFailed`](EventKind::LookupFailed) | discovery of a balancer | warn |
//!
//! With the feature `tracing`, each event is also recorded with the crate `tracing`, with or without a listener. The
//! target is `buttress::` and the layer, such as `buttress::retry`. The fields are `name`, `layer` and the fields of
//! the [`EventKind`]; times are numbers of seconds.
//!
//! # Promises
//!
//! - A call about which no layer makes a decision causes no event: for example, a success without a retry or a hedge
//!   while the breaker is closed. A listener adds nothing to its cost.
//! - A listener is called once for each event, after the decision and its metrics. It runs on the task that caused the
//!   event: the task of a call, or the background task of discovery or of a health check.
//! - No lock is held while a listener runs, so it may use the handles of the layers and make calls.
//! - A panic of a listener, or of a subscriber of `tracing`, is caught after the panic hook has run. The call goes on as
//!   if the listener or the subscriber had returned.
//! - Events of different tasks have no order.
//!
//! # Cost
//!
//! A listener runs inside the call that caused the event, so a slow listener delays this call. Send events through a
//! channel if their handling takes long.
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
    /// Retry makes a further attempt after a failed one.
    #[non_exhaustive]
    Retry {
        /// The number of the attempt that failed, from 1.
        attempt: u32,
        /// The time until the next attempt.
        wait: Duration,
        /// `true` if the service has set `wait`, for example with `Retry-After`.
        by_retry_after: bool,
        /// The outcome of the attempt.
        outcome: Outcome,
        /// The error of the attempt; `None` if it got an answer.
        error: Option<&'a Error>,
    },
    /// An attempt failed, and retry makes no further one.
    #[non_exhaustive]
    GaveUp {
        /// The number of attempts that were made.
        attempts: u32,
        /// The reason.
        reason: GaveUp,
        /// The error of the last attempt; `None` if it got an answer. If its [cause](crate::Cause::was_sent) was sent,
        /// the service may have acted on the request.
        error: Option<&'a Error>,
    },
    /// A hedge was sent.
    #[non_exhaustive]
    HedgeSent {
        /// The number of the hedge among those of its attempt, from 1.
        number: u32,
    },
    /// A hedge has ended, or was not sent.
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
    /// A call was ended because its time was over, or would have been with [`Mode::Enforce`].
    #[non_exhaustive]
    TimedOut {
        /// The time that the configuration sets; `None` for an inherited deadline.
        limit: Option<Duration>,
        /// The mode of the limit. With [`Mode::Observe`] the call went on.
        mode: Mode,
    },
    /// A rate limit admits no call for a time, because the service asked for a pause.
    #[non_exhaustive]
    Paused {
        /// The length of the pause, which begins now.
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
    /// A balancer ejected an endpoint that failed more than the others, or would have with [`Mode::Enforce`].
    ///
    /// The ejection ends after its time without an event.
    #[non_exhaustive]
    Ejected {
        /// The key of the endpoint.
        endpoint: &'a str,
        /// The rule of the ejection, as in the label `method` of the metrics; `by_hand` for an ejection by the handle.
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
    /// A health check changed an endpoint to healthy or unhealthy.
    #[non_exhaustive]
    Health {
        /// The key of the endpoint.
        endpoint: &'a str,
        /// `true` if the endpoint is healthy from now on.
        is_healthy: bool,
    },
    /// An endpoint was added to a balancer that had been built, or replaced the endpoint with the same key.
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
    /// The endpoints of a priority begin or cease to get calls, because the health of the priorities has changed.
    #[non_exhaustive]
    Failover {
        /// The priority.
        priority: u8,
        /// `true` if its endpoints get calls from now on.
        gets_calls: bool,
    },
    /// Panic begins or ends in a priority: so few of its endpoints take calls that the balancer sends calls to all.
    ///
    /// The balancer notices the end of a panic when it next assesses its endpoints, so this event may come late.
    #[non_exhaustive]
    Panic {
        /// The priority.
        priority: u8,
        /// `true` if the panic begins, `false` if it ends.
        is_on: bool,
    },
    /// Discovery or the health check of a balancer changed its state.
    ///
    /// The end of the runtime of a task causes no event, because the next call starts the task on its own runtime.
    #[non_exhaustive]
    Task {
        /// `discovery` or `health_check`.
        task: &'static str,
        /// The new state: `running`; `recovering` after a panic; `stopped` if the source was lost with its runtime;
        /// `ended` if the source has ended.
        state: &'static str,
    },
    /// A source failed to look up its endpoints. The known endpoints stay, and discovery tries again after a pause.
    LookupFailed,
    /// A [drain](crate::drain) has waited: no call is in flight, or its time is over.
    #[non_exhaustive]
    DrainEnded {
        /// The number of calls that are still in flight.
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

/// Formats an error with all its sources in one line.
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
