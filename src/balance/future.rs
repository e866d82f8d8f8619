//! The response future of the balancer.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::Service;

use super::background::{Task, TaskState};
use super::choose::Choose;
use super::flight::Flight;
use super::pool::{Local, Pool};
use super::service::Chosen;
use super::shortage::Shortage;
use crate::algorithm::queue::Ticket;
use crate::completion::complete;
use crate::context::{self, ClockScope};
use crate::deadline::soonest;
use crate::nanos::saturating_add;
use crate::timer::Timer;
use crate::{Classify, CloneService, Error, ErrorKind, Mode, Permit, TrackCompletion};

/// The least time for which a call waits until a restarted source has been polled. The runtime needs some time before it
/// runs a new task.
const RESTART: Duration = Duration::from_secs(1);

pin_project! {
    /// The response future of [`Balance`](super::Balance).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, P, K, C>
    where
        S: Service<Req>,
    {
        // Before the flight, so that the call is given up before the endpoint counts it as over.
        #[pin]
        step: Step<S, Req, P>,
        flight: Option<Flight>,
        is_one_of_many: bool,
        // A layer that judges the result has called the balancer directly.
        is_direct: bool,
        classify: K,
        completion: C,
    }
}

pin_project! {
    #[project = StepProj]
    enum Step<S, Req, P>
    where
        S: Service<Req>,
    {
        // The endpoint may have to become ready. Not boxed: this is the way of every call.
        Begin { service: S, request: Option<Req> },
        Running { #[pin] future: S::Future },
        // Boxed, because it is rare.
        Wait { wait: Pin<Box<Wait<S, Req, P>>> },
    }
}

impl<S, Req, P, K, C> ResponseFuture<S, Req, P, K, C>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn new(chosen: Chosen<S>, request: Req, classify: K, completion: C) -> Self {
        Self {
            step: Step::Begin {
                service: chosen.service,
                request: Some(request),
            },
            flight: Some(chosen.flight),
            is_one_of_many: chosen.is_one_of_many,
            is_direct: context::take_direct(),
            classify,
            completion,
        }
    }

    /// A call that waits for an endpoint.
    #[cold]
    pub(super) fn waiting(
        pool: Arc<Pool<S>>,
        choose: P,
        request: Req,
        classify: K,
        completion: C,
    ) -> Self {
        let wait = Wait {
            place: Place { pool, ticket: None },
            choose,
            request: Some(request),
            local: None,
            timer: Timer::default(),
            began: None,
        };
        Self {
            step: Step::Wait {
                wait: Box::pin(wait),
            },
            flight: None,
            is_one_of_many: false,
            is_direct: context::take_direct(),
            classify,
            completion,
        }
    }
}

impl<S, Req, P, K, C> Future for ResponseFuture<S, Req, P, K, C>
where
    S: CloneService<Req>,
    P: Choose<Req>,
    K: Classify<S::Response>,
    C: TrackCompletion<S::Response, K>,
{
    type Output = Result<C::Response<Flight>, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let _clock = ClockScope::poll();
        let result = loop {
            match this.step.as_mut().project() {
                StepProj::Begin { service, request } => {
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        let flight = this.flight.as_ref();
                        break Err(Error::of_service(error, || flight.map_or("", Flight::name)));
                    }
                    let Some(request) = request.take() else {
                        return Poll::Pending;
                    };
                    let future = context::as_direct(true, || service.call(request));
                    this.step.set(Step::Running { future });
                }
                StepProj::Running { future } => {
                    let result = ready!(future.poll(cx));
                    let flight = this.flight.as_ref();
                    break result.map_err(|error| {
                        Error::of_service(error, || flight.map_or("", Flight::name))
                    });
                }
                StepProj::Wait { wait } => {
                    let (chosen, request) = match ready!(wait.as_mut().poll(cx)) {
                        Ok(chosen) => chosen,
                        Err(mut error) => {
                            if *this.is_direct {
                                error.set_direct();
                            }
                            return Poll::Ready(Err(error));
                        }
                    };
                    *this.flight = Some(chosen.flight);
                    *this.is_one_of_many = chosen.is_one_of_many;
                    this.step.set(Step::Begin {
                        service: chosen.service,
                        request: Some(request),
                    });
                }
            }
        };
        let Some(flight) = this.flight.take() else {
            return Poll::Pending;
        };
        Poll::Ready(match result {
            Ok(response) => {
                let outcome = this.classify.classify(Ok(&response));
                let (classify, completion) = (this.classify, this.completion);
                Ok(complete(completion, response, outcome, classify, flight))
            }
            Err(error) => {
                let name = flight.name();
                let mut error = failed(error, flight, this.classify, *this.is_one_of_many);
                error.leave(name, *this.is_direct);
                Err(error)
            }
        })
    }
}

/// Ends a call with an error of the endpoint, or of a layer in front of it.
#[cold]
#[inline(never)]
fn failed<Res, K>(mut error: Error, flight: Flight, classify: &K, is_one_of_many: bool) -> Error
where
    K: Classify<Res>,
{
    if !error.is_rejection() {
        flight.resolve(classify.classify(Err(&error)));
        return error;
    }
    let Some(host) = flight.refused(&error) else {
        return error;
    };
    if !error.is_adopted() {
        if is_one_of_many {
            // Another endpoint may take it, if there is a copy of the request: an outer retry has one.
            error.set_may_go_elsewhere();
        }
        if let Some(shortage) = host.peers.shortage(context::now()) {
            error.set_shortage(shortage);
        }
    }
    error
}

pin_project! {
    /// A call that waits for an endpoint.
    struct Wait<S, Req, P> {
        place: Place<S>,
        choose: P,
        request: Option<Req>,
        local: Option<Local<S>>,
        #[pin]
        timer: Timer,
        began: Option<Instant>,
    }
}

/// A place among those that are woken when there is an endpoint.
struct Place<S> {
    pool: Arc<Pool<S>>,
    ticket: Option<Ticket>,
}

impl<S> Drop for Place<S> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.pool.stop_waiting(ticket);
        }
    }
}

impl<S, Req, P> Wait<S, Req, P>
where
    S: Service<Req> + Clone,
    P: Choose<Req>,
{
    #[cold]
    fn poll(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Result<(Chosen<S>, Req), Error>> {
        let this = self.project();
        let Some(request) = this.request.take() else {
            return Poll::Pending;
        };
        let Place { pool, ticket } = this.place;
        // Before the look at the endpoints: one that comes after it wakes the task.
        pool.wait(ticket, cx.waker());
        let now = context::fresh_now();
        let discovery = pool.attend();
        if !discovery.needs_attention() {
            let local = this.local.get_or_insert_with(|| pool.local());
            if let Some(chosen) = local.choose(pool, this.choose, &request, now) {
                return Poll::Ready(Ok((chosen, request)));
            }
        }
        let began = *this.began.get_or_insert(now);
        let max_wait = pool.host_set.settings.max_wait;
        let own = match discovery {
            // The source was not polled yet on this runtime.
            TaskState::Restarting => max_wait.max(RESTART),
            // Nobody knows the endpoints any more.
            TaskState::Interrupted | TaskState::Stopped => Duration::ZERO,
            _ => max_wait,
        };
        let own = saturating_add(began, own);
        let until = soonest(context::deadline(), own);
        if until > now && this.timer.poll(|| until, cx).is_pending() {
            *this.request = Some(request);
            return Poll::Pending;
        }
        let metrics = pool.host_set.metrics;
        metrics.rejected(ErrorKind::NoEndpoints, Mode::Enforce, now);
        Poll::Ready(Err(if discovery.needs_attention() {
            Error::rejected(ErrorKind::DiscoveryStopped, pool.name(), None)
        } else {
            Error::no_endpoints(Shortage {
                balancer: pool.name(),
                waited: now - began,
                is_discovering: pool.is_running(Task::Discovery),
                ..Shortage::default()
            })
        }))
    }
}

impl<S, Req, P, K, C> fmt::Debug for ResponseFuture<S, Req, P, K, C>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match &self.step {
            Step::Begin { .. } => "begins",
            Step::Running { .. } => "runs",
            Step::Wait { .. } => "waits for an endpoint",
        };
        f.debug_struct("ResponseFuture")
            .field("step", &step)
            .field("flight", &self.flight)
            .finish_non_exhaustive()
    }
}
