//! An inner service that follows a script, every layer around it, and a task that is polled by hand.

#![allow(dead_code, reason = "each test file uses a part of this")]

pub(crate) mod coin;

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use buttress::balance::{self, Endpoint};
use buttress::circuit_breaker::{Handle, State};
use buttress::fallback::{self, Failures, FromService};
use buttress::part::PartLayer;
use buttress::stack::StandardLayer;
use buttress::{
    Backoff, Balance, BoxError, Budget, BulkheadLayer, ByClone, CircuitBreakerLayer, DeadlineLayer,
    Error, ErrorKind, FallbackLayer, HedgeLayer, Jitter, KeyedLayer, MeasureLayer, Outcome, Rate,
    RateLimitLayer, RetryLayer, TimeoutLayer, bulkhead, rate_limit, standard,
};
use coin::Coin;
use tokio::sync::Semaphore;
use tokio::time::{Instant, advance, sleep, sleep_until};
use tower::util::{BoxCloneSyncService, Oneshot};
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
/// After how long a hedge is sent.
pub(crate) const HEDGE_DELAY: Duration = Duration::from_millis(700);
/// How many calls may be in flight.
pub(crate) const LIMIT: usize = 10;
/// How many calls may wait for a permit.
pub(crate) const QUEUE: usize = 10;
/// How long nobody gets his turn where it is [crowded](Layers::crowd), at each of the limits.
pub(crate) const CROWDED_FOR: Duration = Duration::from_millis(200);
/// Longer than any test, so that no lost probe is made up for.
pub(crate) const LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// How a part of an inner call goes, after it has been pending a number of times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    /// It is done. A response is classified as this.
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

fn classify(result: Result<&Response, &Error>) -> Outcome {
    result.map_or(Outcome::Failure, |response| response.outcome)
}

type Classifier = fn(Result<&Response, &Error>) -> Outcome;

/// What is tested: a layer alone, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Timeout,
    Deadline,
    Retry,
    CircuitBreaker,
    Measure,
    RateLimit,
    Bulkhead,
    Hedge,
    /// Asks a second service.
    Fallback,
    /// Round a circuit breaker and a bulkhead.
    Keyed,
    /// Over one endpoint.
    Balance,
    /// A part from outside the crate, which admits every call.
    Coin,
    /// Built by hand.
    Stack,
    /// The standard stack with all its parts.
    Standard,
}

impl Kind {
    pub(crate) const ALL: [Self; 14] = [
        Self::Timeout,
        Self::Deadline,
        Self::Retry,
        Self::CircuitBreaker,
        Self::Measure,
        Self::RateLimit,
        Self::Bulkhead,
        Self::Hedge,
        Self::Fallback,
        Self::Keyed,
        Self::Balance,
        Self::Coin,
        Self::Stack,
        Self::Standard,
    ];
    /// Those that refuse a call whose deadline has passed.
    pub(crate) const TIMELY: [Self; 4] = [Self::Deadline, Self::Retry, Self::Stack, Self::Standard];

    /// Says whether a call that failed is made again after a while.
    pub(crate) fn retries(self) -> bool {
        matches!(self, Self::Retry | Self::Stack | Self::Standard)
    }

    pub(crate) fn hedges(self) -> bool {
        matches!(self, Self::Hedge | Self::Standard)
    }

    /// Says whether one failure of the inner service does not come to the caller.
    pub(crate) fn recovers(self) -> bool {
        self.retries() || matches!(self, Self::Hedge | Self::Fallback)
    }

    /// Says whether operations take part in a budget.
    pub(crate) fn is_paid(self) -> bool {
        self.retries() || self.hedges()
    }

    pub(crate) fn breaks(self) -> bool {
        matches!(
            self,
            Self::CircuitBreaker | Self::Keyed | Self::Stack | Self::Standard
        )
    }

    pub(crate) fn measures(self) -> bool {
        matches!(self, Self::Measure | Self::Stack | Self::Standard)
    }

    /// Says whether calls may have to wait for their turn.
    pub(crate) fn queues(self) -> bool {
        matches!(
            self,
            Self::RateLimit | Self::Bulkhead | Self::Keyed | Self::Standard
        )
    }

    /// Says whether calls may have to wait, for their turn or for an endpoint.
    pub(crate) fn waits(self) -> bool {
        self.queues() || self == Self::Balance
    }

    /// Says whether there is a bulkhead.
    pub(crate) fn limits(self) -> bool {
        matches!(self, Self::Bulkhead | Self::Keyed | Self::Standard)
    }

    /// Says whether the inner service is asked for its readiness before there is a call.
    pub(crate) fn asks_early(self) -> bool {
        !matches!(self, Self::Keyed | Self::Balance)
    }

    /// When a call that has no answer ends: all attempts and the waits between them.
    pub(crate) fn patience(self) -> Option<Duration> {
        let waits = BACKOFF * (ATTEMPTS - 1);
        match self {
            Self::Timeout => Some(TIMEOUT),
            Self::Deadline => Some(DEADLINE),
            Self::Stack => Some(TIMEOUT * ATTEMPTS + waits),
            // Each attempt ends with its hedge.
            Self::Standard => Some((HEDGE_DELAY + TIMEOUT) * ATTEMPTS + waits),
            _ => None,
        }
    }
}

pub(crate) type Client = BoxCloneSyncService<u32, Response, Error>;

type PerKey = (CircuitBreakerLayer<Classifier>, BulkheadLayer);
type ByRequest =
    KeyedLayer<fn(&u32) -> u32, Box<dyn Fn(&u32) -> PerKey + Send + Sync>, u32, PerKey>;

/// The layer of one kind, or all of them.
pub(crate) struct Layers {
    kind: Kind,
    name: String,
    budget: Budget,
    retry: RetryLayer<ByClone, Classifier>,
    breaker: CircuitBreakerLayer<Classifier>,
    rate_limit: RateLimitLayer<rate_limit::One, Classifier>,
    bulkhead: BulkheadLayer,
    hedge: HedgeLayer<ByClone, Classifier>,
    fallback: FallbackLayer<FromService<Probe>, Failures, Classifier>,
    keyed: ByRequest,
    coin: PartLayer<Coin>,
    standard: StandardLayer<ByClone, Classifier>,
    /// The balancers.
    balanced: Mutex<Vec<Arc<dyn Balanced>>>,
    /// The second service.
    pub(crate) spare: Probe,
}

impl Layers {
    pub(crate) fn new(kind: Kind) -> Self {
        // The gauges of one name are sums, and tests run beside each other: each has its own thread.
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("inventory");
        let budget = Budget::config(name).reserve(100).initial(100).build();
        let budget = budget.expect("is valid");
        let retry = |config: buttress::retry::Config| {
            config
                .max_attempts(ATTEMPTS)
                .backoff(Backoff::constant(BACKOFF).jitter(Jitter::None))
                .budget(&budget)
                .seed(1)
        };
        let breaker = |config: buttress::circuit_breaker::Config| {
            config
                .open_for(OPEN_FOR)
                .open_jitter(0.0)
                .probe_lease(LEASE)
                .seed(1)
        };
        let rate = Rate::per_second(1_000);
        let limit = |config: rate_limit::Config| config.burst(200).max_wait(TIMEOUT);
        let bulkhead = |config: bulkhead::Config| {
            let config = config.queue(QUEUE).queue_wait(TIMEOUT);
            config.overloaded_wait(TIMEOUT)
        };
        let hedge = |config: buttress::hedge::Config| {
            let config = config.delay(HEDGE_DELAY).slowdown(1_000.0);
            config.burst(100).budget(&budget)
        };
        let standard = standard(name)
            .timeout(TIMEOUT)
            .deadline(DEADLINE)
            .retry(retry)
            .hedge(hedge)
            .circuit_breaker(breaker)
            .rate_limit(rate, limit)
            .bulkhead(LIMIT, bulkhead)
            .budget(&budget)
            .classify(classify as Classifier)
            .build();
        let of_each = bulkhead(BulkheadLayer::config(name, LIMIT));
        let breaker = breaker(CircuitBreakerLayer::config(name)).classify(classify as Classifier);
        let breaker = breaker.build().expect("is valid");
        let of_all = breaker.clone();
        let per_key = Box::new(move |_: &u32| {
            let bulkhead = of_each.clone().build();
            (of_all.clone(), bulkhead.expect("is valid"))
        });
        let keyed = ByRequest::config(name, |request: &u32| *request, per_key);
        let spare = Probe::new(&[]);
        let fallback = FallbackLayer::config(name, fallback::service(spare.clone()));
        Self {
            kind,
            retry: retry(RetryLayer::config(name))
                .classify(classify as Classifier)
                .build()
                .expect("is valid"),
            breaker,
            rate_limit: limit(RateLimitLayer::config(name, rate))
                .classify(classify as Classifier)
                .build()
                .expect("is valid"),
            bulkhead: bulkhead(BulkheadLayer::config(name, LIMIT))
                .build()
                .expect("is valid"),
            hedge: hedge(HedgeLayer::config(name))
                .classify(classify as Classifier)
                .build()
                .expect("is valid"),
            fallback: fallback
                .classify(classify as Classifier)
                .build()
                .expect("is valid"),
            keyed: keyed.max_keys(1).build().expect("is valid"),
            coin: PartLayer::of("coin", Coin::new("coin", 1.0, 1)),
            standard: standard.expect("is valid"),
            balanced: Mutex::default(),
            spare,
            name: name.to_owned(),
            budget,
        }
    }

    pub(crate) fn around<S>(&self, inner: S) -> Client
    where
        S: Service<u32, Response = Response, Error: Into<BoxError> + 'static>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
    {
        let name = self.name.as_str();
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
            Kind::RateLimit => Client::new(self.rate_limit.layer(inner)),
            Kind::Bulkhead => Client::new(self.bulkhead.layer(inner)),
            Kind::Hedge => Client::new(self.hedge.layer(inner)),
            Kind::Fallback => Client::new(self.fallback.layer(inner)),
            Kind::Keyed => Client::new(self.keyed.layer(inner)),
            Kind::Balance => {
                let config = Balance::config(name).classify(classify as Classifier);
                let balance = config
                    .build([Endpoint::new(1, inner.clone())])
                    .expect("is valid");
                let mut balanced = self.balanced.lock().expect("not poisoned");
                balanced.push(Arc::new((balance.handle(), inner)));
                Client::new(balance)
            }
            Kind::Coin => Client::new(self.coin.layer(inner)),
            Kind::Stack => {
                let breaker = self.breaker.layer(timeout.layer(attempt.layer(inner)));
                Client::new(operation.layer(deadline.layer(self.retry.layer(breaker))))
            }
            Kind::Standard => Client::new(self.standard.layer(inner)),
        }
    }

    pub(crate) fn breaker(&self) -> Handle {
        if self.kind == Kind::Standard {
            let handle = self.standard.handle();
            return handle.circuit_breaker().expect("there is one").clone();
        }
        self.breaker.handle()
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The rate limit that calls pass.
    pub(crate) fn rate_limit(&self) -> Option<rate_limit::Handle> {
        match self.kind {
            Kind::RateLimit => Some(self.rate_limit.handle()),
            Kind::Standard => self.standard.handle().rate_limit().cloned(),
            _ => None,
        }
    }

    /// The bulkhead that calls with request 1 pass, if there has been one.
    pub(crate) fn bulkhead(&self) -> Option<bulkhead::Handle> {
        match self.kind {
            Kind::Bulkhead => Some(self.bulkhead.handle()),
            Kind::Keyed => self.keyed.handle().get(&1).map(|layers| layers.1.handle()),
            Kind::Standard => self.standard.handle().bulkhead().cloned(),
            _ => None,
        }
    }

    /// Opens the breaker with calls that fail, and lets its open time pass.
    pub(crate) async fn half_open(&self) {
        let probe = Probe::new(&[Plan::FAILS; 20]);
        let broken = match self.kind {
            Kind::Standard => self.around(probe),
            _ => Client::new(self.breaker.layer(probe)),
        };
        while self.breaker().state() != State::Open {
            broken.clone().oneshot(1).await.expect_err("it fails");
        }
        advance(OPEN_FOR).await;
    }

    /// Makes calls wait for their turn: for a time there are no tokens, and then no permits. The balancers that
    /// there are have no endpoint for a time.
    pub(crate) fn crowd(&self) -> Crowd {
        let held = Probe::new(&[Plan::answer(0, End::Held)]);
        let mut call = self.around(held).oneshot(1);
        assert!(Task::default().poll(&mut call).is_pending());
        let mut over = Instant::now();
        if let Some(limit) = self.rate_limit() {
            limit.pause(CROWDED_FOR);
            over += CROWDED_FOR;
        }
        if let Some(bulkhead) = self.bulkhead() {
            bulkhead.set_limit(1).expect("is valid");
            over += CROWDED_FOR;
            tokio::spawn(async move {
                sleep_until(over).await;
                bulkhead.set_limit(LIMIT).expect("is valid");
            });
        }
        let balanced = self.balanced.lock().expect("not poisoned").clone();
        for balancer in balanced {
            balancer.clear();
            tokio::spawn(async move {
                sleep(CROWDED_FOR).await;
                balancer.fill();
            });
        }
        Crowd { _call: call }
    }

    /// Checks that no call holds anything, neither a place nor a permit.
    pub(crate) fn assert_nothing_is_held(&self, case: &str) {
        assert_eq!(self.budget().in_flight(), 0, "{case}");
        if let Some(bulkhead) = self.bulkhead() {
            let levels = (bulkhead.in_flight(), bulkhead.queued());
            assert_eq!(levels, (0, 0), "{case}");
        }
        let waiting = self.rate_limit().map_or(0, |limit| limit.waiting());
        assert_eq!(waiting, 0, "{case}");
        assert_eq!(self.coin.part().in_flight(), 0, "{case}");
        for balancer in &*self.balanced.lock().expect("not poisoned") {
            assert_eq!(balancer.in_flight(), 0, "{case}");
        }
        assert_eq!(self.spare.seen().held, 0, "{case}");
    }

    /// Checks that no call keeps its key in use: the one place can be had for another.
    pub(crate) async fn assert_no_key_is_in_use(&self, case: &str) {
        if self.kind == Kind::Keyed {
            self.breaker.handle().reset();
            let other = self.around(Probe::new(&[])).oneshot(2).await;
            assert!(other.is_ok(), "{case}");
            assert!(self.keyed.handle().get(&2).is_some(), "{case}");
        }
    }
}

/// A balancer over one endpoint.
trait Balanced: Send + Sync {
    fn in_flight(&self) -> u32;

    /// Takes the endpoint out.
    fn clear(&self);

    /// Puts it back.
    fn fill(&self);
}

impl<S: Clone + Send + Sync + 'static> Balanced for (balance::Handle<S>, S) {
    fn in_flight(&self) -> u32 {
        let endpoints = self.0.endpoints().into_iter();
        endpoints.map(|endpoint| endpoint.in_flight).sum()
    }

    fn clear(&self) {
        self.0.remove("1");
    }

    fn fill(&self) {
        let endpoint = Endpoint::new(1, self.1.clone());
        self.0.add(endpoint).expect("is valid");
    }
}

/// What keeps others waiting: a call in flight.
pub(crate) struct Crowd {
    _call: Oneshot<Client, u32>,
}

/// What ended the call, if a layer did.
pub(crate) fn kind(result: &Result<Response, Error>) -> Option<ErrorKind> {
    let kind = result.as_ref().err()?.kind();
    (kind != ErrorKind::Service).then_some(kind)
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
