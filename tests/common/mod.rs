//! An inner service that follows a script, every layer around it, and a task that is polled by hand.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use buttress::circuit_breaker::{Handle, State};
use buttress::{
    Backoff, BoxError, Budget, ByClone, CircuitBreakerLayer, DeadlineLayer, Error, ErrorKind,
    Jitter, MeasureLayer, Outcome, RetryLayer, TimeoutLayer,
};
use tokio::sync::Semaphore;
use tokio::time::{Instant, advance, sleep};
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt};

/// How long an attempt may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(1);
/// How long an operation may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
/// How long a retry waits.
pub(crate) const BACKOFF: Duration = Duration::from_millis(100);
pub(crate) const ATTEMPTS: u32 = 3;
/// How long the breaker stays open.
pub(crate) const OPEN_FOR: Duration = Duration::from_secs(2);
/// Longer than any test, so that no lost probe is made up for.
pub(crate) const LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// How a part of an inner call goes, after it has been pending a number of times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    /// It is done. A response is judged to be this.
    Done(Outcome),
    /// It is done after a time.
    Late(Duration),
    /// It is done when [`Probe::let_go`] says so.
    Held,
    Error,
    Panic,
}

pub(crate) const GOOD: End = End::Done(Outcome::Success);

/// How an inner call goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) readiness: (u32, End),
    pub(crate) panics_in_call: bool,
    pub(crate) answer: (u32, End),
}

impl Plan {
    pub(crate) const GOOD: Self = Self {
        readiness: (0, GOOD),
        panics_in_call: false,
        answer: (0, GOOD),
    };
    pub(crate) const FAILS: Self = Self::answer(0, End::Error);

    pub(crate) const fn readiness(pending: u32, end: End) -> Self {
        Self {
            readiness: (pending, end),
            ..Self::GOOD
        }
    }

    pub(crate) const fn answer(pending: u32, end: End) -> Self {
        Self {
            answer: (pending, end),
            ..Self::GOOD
        }
    }
}

/// What the inner service has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) ready_polls: u32,
    pub(crate) reservations: u32,
    /// Reservations that neither a handle nor a call has given back.
    pub(crate) held: u32,
    /// When it was called.
    pub(crate) called: Vec<Instant>,
    /// When its responses were dropped.
    pub(crate) dropped: Vec<Instant>,
}

/// An inner service that follows a script, one plan for each time a handle is made ready and called.
///
/// It panics when it is called on a handle that has not been polled ready. Like a concurrency limit
/// it makes a reservation when a handle becomes ready, which ends with the handle or with the call.
pub(crate) struct Probe {
    shared: Arc<Shared>,
    preparing: Option<(Plan, Part)>,
    ready: Option<(Plan, Reservation)>,
}

struct Shared {
    script: Mutex<VecDeque<Plan>>,
    seen: Mutex<Seen>,
    gate: Semaphore,
}

type Part = Pin<Box<dyn Future<Output = Result<Outcome, BoxError>> + Send + Sync>>;

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("not poisoned")
    }

    async fn follow(self: Arc<Self>, (pending, end): (u32, End)) -> Result<Outcome, BoxError> {
        for _ in 0..pending {
            let mut first = true;
            poll_fn(|cx| {
                cx.waker().wake_by_ref();
                if std::mem::take(&mut first) {
                    Poll::Pending
                } else {
                    Poll::Ready(())
                }
            })
            .await;
        }
        match end {
            End::Done(outcome) => return Ok(outcome),
            End::Late(time) => sleep(time).await,
            End::Held => drop(self.gate.acquire().await),
            End::Error => return Err("connection reset".into()),
            End::Panic => panic!("the inner service panics"),
        }
        Ok(Outcome::Success)
    }
}

impl Probe {
    pub(crate) fn new(script: &[Plan]) -> Self {
        let shared = Shared {
            script: Mutex::new(script.iter().copied().collect()),
            seen: Mutex::default(),
            gate: Semaphore::new(0),
        };
        Self {
            shared: Arc::new(shared),
            preparing: None,
            ready: None,
        }
    }

    /// Sets what the next calls do. When the script is at its end, all goes well.
    pub(crate) fn follow(&self, script: &[Plan]) {
        *self.shared.script.lock().expect("not poisoned") = script.iter().copied().collect();
    }

    /// Ends everything that is held.
    pub(crate) fn let_go(&self) {
        self.shared.gate.add_permits(1);
    }

    pub(crate) fn seen(&self) -> Seen {
        self.shared.seen().clone()
    }

    pub(crate) fn calls(&self) -> usize {
        self.shared.seen().called.len()
    }
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            preparing: None,
            ready: None,
        }
    }
}

impl Service<u32> for Probe {
    type Response = Response;
    type Error = BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.shared.seen().ready_polls += 1;
        if self.ready.is_some() {
            return Poll::Ready(Ok(()));
        }
        let (plan, mut part) = self.preparing.take().unwrap_or_else(|| {
            let mut script = self.shared.script.lock().expect("not poisoned");
            let plan = script.pop_front().unwrap_or(Plan::GOOD);
            (plan, Box::pin(self.shared.clone().follow(plan.readiness)))
        });
        let Poll::Ready(result) = part.as_mut().poll(cx) else {
            self.preparing = Some((plan, part));
            return Poll::Pending;
        };
        result?;
        self.ready = Some((plan, Reservation::new(&self.shared)));
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: u32) -> Answer {
        let ready = self.ready.take();
        let (plan, reservation) = ready.expect("the handle that is called is ready");
        self.shared.seen().called.push(Instant::now());
        assert!(!plan.panics_in_call, "the inner service panics");
        Answer {
            part: Box::pin(self.shared.clone().follow(plan.answer)),
            reservation,
        }
    }
}

struct Reservation(Arc<Shared>);

impl Reservation {
    fn new(shared: &Arc<Shared>) -> Self {
        let mut seen = shared.seen();
        seen.reservations += 1;
        seen.held += 1;
        Self(Arc::clone(shared))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.0.seen().held -= 1;
    }
}

/// The future of [`Probe`]. Keeps its reservation until it is dropped.
pub(crate) struct Answer {
    part: Part,
    reservation: Reservation,
}

impl Future for Answer {
    type Output = Result<Response, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(self.part.as_mut().poll(cx))?;
        let shared = Arc::clone(&self.reservation.0);
        Poll::Ready(Ok(Response { outcome, shared }))
    }
}

/// A response of [`Probe`].
pub(crate) struct Response {
    pub(crate) outcome: Outcome,
    shared: Arc<Shared>,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.outcome.fmt(f)
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        self.shared.seen().dropped.push(Instant::now());
    }
}

fn classify(result: Result<&Response, &BoxError>) -> Outcome {
    result.map_or(Outcome::Failure, |response| response.outcome)
}

type Classifier = fn(Result<&Response, &BoxError>) -> Outcome;

/// What is tested: a layer alone, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Timeout,
    Deadline,
    Retry,
    CircuitBreaker,
    Measure,
    Stack,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Timeout,
        Self::Deadline,
        Self::Retry,
        Self::CircuitBreaker,
        Self::Measure,
        Self::Stack,
    ];

    pub(crate) fn retries(self) -> bool {
        matches!(self, Self::Retry | Self::Stack)
    }

    pub(crate) fn breaks(self) -> bool {
        matches!(self, Self::CircuitBreaker | Self::Stack)
    }

    pub(crate) fn measures(self) -> bool {
        matches!(self, Self::Measure | Self::Stack)
    }

    /// When a call that has no answer ends: all attempts and the waits between them.
    pub(crate) fn patience(self) -> Option<Duration> {
        match self {
            Self::Timeout => Some(TIMEOUT),
            Self::Deadline => Some(DEADLINE),
            Self::Stack => Some(TIMEOUT * ATTEMPTS + BACKOFF * (ATTEMPTS - 1)),
            Self::Retry | Self::CircuitBreaker | Self::Measure => None,
        }
    }
}

pub(crate) type Client = BoxCloneSyncService<u32, Response, BoxError>;

/// The layer of one kind, or all of them.
pub(crate) struct Layers {
    kind: Kind,
    retry: RetryLayer<ByClone, Classifier>,
    breaker: CircuitBreakerLayer<Classifier>,
}

impl Layers {
    pub(crate) fn new(kind: Kind) -> Self {
        let name = "inventory";
        let budget = Budget::config(name).initial(10).build();
        let retry = RetryLayer::config(name)
            .max_attempts(ATTEMPTS)
            .backoff(Backoff::constant(BACKOFF).jitter(Jitter::None))
            .budget(&budget.expect("is valid"))
            .seed(1)
            .classify(classify as Classifier)
            .build();
        let breaker = CircuitBreakerLayer::config(name)
            .open_for(OPEN_FOR)
            .open_jitter(0.0)
            .probe_lease(LEASE)
            .seed(1)
            .classify(classify as Classifier)
            .build();
        Self {
            kind,
            retry: retry.expect("is valid"),
            breaker: breaker.expect("is valid"),
        }
    }

    pub(crate) fn around<S>(&self, inner: S) -> Client
    where
        S: Service<u32, Response = Response, Error = BoxError> + Clone + Send + Sync + 'static,
        S::Future: Send,
    {
        let name = "inventory";
        let timeout = TimeoutLayer::new(name, TIMEOUT);
        let deadline = DeadlineLayer::new(name, DEADLINE);
        let operation = MeasureLayer::operation(name).classify(classify as Classifier);
        let attempt = MeasureLayer::attempt(name).classify(classify as Classifier);
        match self.kind {
            Kind::Timeout => Client::new(timeout.layer(inner)),
            Kind::Deadline => Client::new(deadline.layer(inner)),
            Kind::Retry => Client::new(self.retry.layer(inner)),
            Kind::CircuitBreaker => Client::new(self.breaker.layer(inner)),
            Kind::Measure => Client::new(operation.layer(inner)),
            Kind::Stack => {
                let breaker = self.breaker.layer(timeout.layer(attempt.layer(inner)));
                Client::new(operation.layer(deadline.layer(self.retry.layer(breaker))))
            }
        }
    }

    pub(crate) fn breaker(&self) -> Handle {
        self.breaker.handle()
    }

    pub(crate) fn budget(&self) -> &Budget {
        self.retry.budget().expect("it was given one")
    }

    /// Opens the breaker with calls that fail, and lets its open time pass.
    pub(crate) async fn half_open(&self) {
        let broken = self.breaker.layer(Probe::new(&[Plan::FAILS; 20]));
        for _ in 0..20 {
            broken.clone().oneshot(1).await.expect_err("it fails");
        }
        assert_eq!(self.breaker().state(), State::Open);
        advance(OPEN_FOR).await;
    }
}

/// What ended the call, if a layer did.
pub(crate) fn kind(result: &Result<Response, BoxError>) -> Option<ErrorKind> {
    let error = result.as_ref().err()?;
    Error::find(error).map(Error::kind)
}

/// A task that a test polls by hand.
#[derive(Default)]
pub(crate) struct Task {
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Task {
    pub(crate) fn poll<F: Future + Unpin>(&self, future: &mut F) -> Poll<F::Output> {
        let waker = Waker::from(Arc::clone(&self.woken));
        // A test makes many polls within one of its own.
        let future = pin!(tokio::task::unconstrained(future));
        future.poll(&mut Context::from_waker(&waker))
    }

    /// Polls what must always be ready.
    pub(crate) fn poll_ready(&self, client: &mut Client) {
        let ready = self.poll(&mut client.ready()).map(|ready| ready.map(drop));
        assert!(matches!(ready, Poll::Ready(Ok(()))), "{ready:?}");
    }

    /// Says whether the task has been woken since it was last asked.
    pub(crate) fn was_woken(&self) -> bool {
        self.woken.0.swap(false, Ordering::Relaxed)
    }

    /// Lets time pass, in small steps and for longer than any call may take, until the task is woken.
    pub(crate) async fn wait(&self) -> bool {
        for _ in 0..200 {
            if self.was_woken() {
                return true;
            }
            advance(BACKOFF).await;
        }
        false
    }

    /// Says that no timer and no queue remembers the task.
    pub(crate) fn is_forgotten(&self) -> bool {
        Arc::strong_count(&self.woken) == 1
    }
}
