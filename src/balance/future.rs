//! The response future of the balancer.

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
use super::shortage::Shortage;
use crate::algorithm::queue::Ticket;
use crate::completion::complete;
use crate::context;
use crate::deadline::soonest;
use crate::debug::debug_fields;
use crate::nanos::saturating_add;
use crate::send::OneCall;
use crate::timer::Timer;
use crate::{Classify, CloneService, Error, ErrorKind, Mode, Outcome, TrackCompletion};

/// The least time for which a call waits until a restarted source has been polled. The runtime needs some time before
/// it runs a new task.
const RESTART: Duration = Duration::from_secs(1);

pin_project! {
    /// The response future of [`Balance`](super::Balance).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, P, K, C>
    where
        S: Service<Req>,
    {
        // Declared before the flight, so that the call is dropped before the endpoint counts it as over.
        #[pin]
        step: Step<S, Req, P>,
        flight: Option<Flight>,
        // `true` if a layer that decides on the result has called the balancer directly.
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
        // Not boxed, because every call takes this path.
        Call { #[pin] call: OneCall<S, Req> },
        // Boxed, because it is rare.
        Wait { wait: Pin<Box<Wait<S, Req, P>>> },
    }
}

impl<S, Req, P, K, C> ResponseFuture<S, Req, P, K, C>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn new(
        service: S,
        flight: Flight,
        request: Req,
        classify: K,
        completion: C,
    ) -> Self {
        Self {
            step: Step::Call {
                call: OneCall::begin(service, request, true),
            },
            flight: Some(flight),
            is_direct: context::take_direct(),
            classify,
            completion,
        }
    }

    /// Makes a call that waits for an endpoint.
    #[cold]
    pub(super) fn waiting(
        pool: Arc<Pool<S>>,
        choose: P,
        request: Req,
        classify: K,
        completion: C,
    ) -> Self {
        let wait = Wait {
            pool,
            ticket: None,
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
        let result = loop {
            match this.step.as_mut().project() {
                StepProj::Call { call } => break ready!(call.poll(cx)),
                StepProj::Wait { wait } => {
                    let (service, flight, request) = match ready!(wait.as_mut().poll(cx)) {
                        Ok(chosen) => chosen,
                        Err(mut error) => {
                            if *this.is_direct {
                                error.set_direct();
                            }
                            return Poll::Ready(Err(error));
                        }
                    };
                    *this.flight = Some(flight);
                    let call = OneCall::begin(service, request, true);
                    this.step.set(Step::Call { call });
                }
            }
        };
        let Some(mut flight) = this.flight.take() else {
            return Poll::Pending;
        };
        let (classify, completion) = (this.classify, this.completion);
        Poll::Ready(match result {
            Ok(response) => {
                let outcome = classify.classify(Ok(&response));
                if outcome == Outcome::Failure {
                    flight.answered_with_failure(&response, classify);
                }
                Ok(complete(completion, response, outcome, classify, flight))
            }
            Err(error) => {
                let name = flight.name();
                let error = Error::of_service(error, || name);
                let mut error = flight.failed(error, classify);
                error.leave(name, *this.is_direct);
                Err(error)
            }
        })
    }
}

pin_project! {
    /// A call that waits for an endpoint.
    struct Wait<S, Req, P> {
        pool: Arc<Pool<S>>,
        ticket: Option<Ticket>,
        choose: P,
        request: Option<Req>,
        local: Option<Local<S>>,
        #[pin]
        timer: Timer,
        began: Option<Instant>,
    }

    impl<S, Req, P> PinnedDrop for Wait<S, Req, P> {
        fn drop(this: Pin<&mut Self>) {
            if let Some(ticket) = this.ticket {
                this.pool.stop_waiting(ticket);
            }
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
    ) -> Poll<Result<(S, Flight, Req), Error>> {
        let this = self.project();
        let Some(request) = this.request.take() else {
            return Poll::Pending;
        };
        let pool = &*this.pool;
        // Before the endpoints are read, so that a later change wakes the task.
        pool.wait(this.ticket, cx.waker());
        let now = Instant::now();
        let discovery = pool.host_set.tasks.attend();
        if !discovery.needs_attention() {
            let local = this.local.get_or_insert_with(|| pool.local());
            if let Some((service, flight)) = local.choose(pool, this.choose, &request, now) {
                return Poll::Ready(Ok((service, flight, request)));
            }
        }
        let began = *this.began.get_or_insert(now);
        let max_wait = pool.host_set.settings.max_wait;
        let own = match discovery {
            // The source has not been polled on this runtime yet.
            TaskState::Restarting => max_wait.max(RESTART),
            // The endpoints are no longer known.
            TaskState::Interrupted | TaskState::Stopped => Duration::ZERO,
            _ => max_wait,
        };
        let own = saturating_add(began, own);
        let until = soonest(context::deadline(), own);
        if until > now && this.timer.poll(|| until, cx).is_pending() {
            *this.request = Some(request);
            return Poll::Pending;
        }
        let metrics = &pool.host_set.metrics;
        metrics.refused(ErrorKind::NoEndpoints, Mode::Enforce, None, now);
        Poll::Ready(Err(if discovery.needs_attention() {
            Error::rejected(ErrorKind::DiscoveryStopped, pool.name(), None)
        } else {
            Error::no_endpoints(Shortage {
                balancer: pool.name(),
                waited: now - began,
                is_discovering: pool.host_set.tasks.state(Task::Discovery).is_running(),
                ..Shortage::default()
            })
        }))
    }
}

debug_fields!([S: Service<Req>, Req, P, K, C] ResponseFuture<S, Req, P, K, C> { flight });
