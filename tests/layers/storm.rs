//! The standard stack with all its parts, in whatever comes.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use crate::recorded;

use std::any::Any;
use std::collections::VecDeque;
use std::future::{Future, pending};
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::debugging::DebuggingRecorder;
use buttress::stack::{Handle, StandardLayer};
use buttress::{Backoff, BoxError, ByClone, Error, Outcome, Rate, bulkhead, standard};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use recorded::assert_levels_are_zero;
use tokio::task::{unconstrained, yield_now};
use tokio::time::{Instant, advance, sleep};
use tokio_test::task::{Spawn, spawn};
use tower::limit::ConcurrencyLimit;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

const MS: Duration = Duration::from_millis(1);

/// What the inner service panics with.
const PLANNED: &str = "a panic of the inner service";

/// How a call of the inner service ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Good,
    Fails,
    Overload(Duration),
    Slow(Duration),
    Hangs,
    Panics,
    PanicsInCall,
}

/// What becomes of the attempts of one operation, one after the other. The rest go well.
#[derive(Clone, Debug)]
struct Request(Arc<Mutex<VecDeque<End>>>);

#[derive(Clone)]
struct Inner(Arc<Seen>);

#[derive(Default)]
struct Seen {
    in_flight: AtomicUsize,
    bulkhead: OnceLock<bulkhead::Handle>,
    /// How many permits there may be: the limit, or those that were out when it became smaller.
    allowed: AtomicUsize,
    starts: Mutex<Vec<Instant>>,
    faults: Mutex<Vec<String>>,
}

impl Seen {
    fn fault(&self, text: String) {
        self.faults.lock().unwrap().push(text);
    }

    /// Compares permits and calls with what may be.
    fn check(&self) {
        let bulkhead = self.bulkhead.get().unwrap();
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        let (permits, allowed) = (bulkhead.in_flight(), self.allowed.load(Ordering::Relaxed));
        if in_flight > permits {
            self.fault(format!("{in_flight} calls with {permits} permits"));
        }
        if permits > allowed {
            self.fault(format!("{permits} permits instead of {allowed}"));
        }
        let allowed = permits.min(allowed).max(bulkhead.limit());
        self.allowed.store(allowed, Ordering::Relaxed);
    }
}

/// A call of the inner service that is not over.
struct InFlight(Arc<Seen>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.check();
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<End, BoxError>> + Send>>;

impl Service<Request> for Inner {
    type Response = End;
    type Error = BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Answer {
        let Self(seen) = self;
        seen.starts.lock().unwrap().push(Instant::now());
        seen.in_flight.fetch_add(1, Ordering::Relaxed);
        seen.check();
        let in_flight = InFlight(Arc::clone(seen));
        let end = request.0.lock().unwrap().pop_front();
        let end = end.unwrap_or(End::Good);
        if let End::PanicsInCall = end {
            panic!("{PLANNED}");
        }
        Box::pin(async move {
            let _in_flight = in_flight;
            match end {
                End::Slow(time) => sleep(time).await,
                End::Hangs => pending().await,
                End::Panics => panic!("{PLANNED}"),
                End::Fails => return Err("down".into()),
                End::Good | End::Overload(_) | End::PanicsInCall => {}
            }
            Ok(end)
        })
    }
}

type Judge = fn(Result<&End, &Error>) -> Outcome;

fn judge(result: Result<&End, &Error>) -> Outcome {
    match result {
        Ok(&End::Overload(wait)) => Outcome::Overload {
            retry_after: Some(wait),
        },
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::Failure,
    }
}

/// Does not print the panics that are planned.
fn quietly() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if text(panic.payload()) != Some(PLANNED) {
                print(panic);
            }
        }));
    });
}

/// What a panic says.
fn text(payload: &(dyn Any + Send)) -> Option<&str> {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied())
}

/// Runs `part`, which may panic as the inner service does and in no other way.
fn unless_planned<T>(part: impl FnOnce() -> T) -> Option<T> {
    panic::catch_unwind(AssertUnwindSafe(part))
        .inspect_err(|payload| assert_eq!(text(&**payload), Some(PLANNED), "no other panic"))
        .ok()
}

type Client = BoxCloneSyncService<Request, End, Error>;
type Call = Pin<Box<dyn Future<Output = Result<End, Error>>>>;

/// The terms of one stack.
#[derive(Clone, Debug)]
struct Terms {
    /// Nothing but the rate limit makes calls wait, and its terms stay as they are, so that the calls of the
    /// inner service are those that it has let through.
    is_steady: bool,
    limit: usize,
    queue: usize,
    /// How many calls the inner service is ready for at once.
    places: usize,
    rate: u32,
    burst: u32,
    max_wait: Duration,
    timeout: Duration,
    deadline: Option<Duration>,
    seed: u64,
}

impl Terms {
    fn layer(&self) -> StandardLayer<ByClone, Judge> {
        let limit = if self.is_steady { 100_000 } else { self.limit };
        let config = standard("storm")
            .timeout(self.timeout)
            .retry(|retry| retry.backoff(Backoff::exponential(10 * MS, 100 * MS)))
            .hedge(|hedge| hedge.delay(self.timeout / 3).burst(1_000))
            .circuit_breaker(|breaker| breaker.consecutive_failures(5).open_for(200 * MS))
            .rate_limit(Rate::per_second(self.rate), |limit| {
                let limit = limit.burst(self.burst).max_wait(self.max_wait);
                limit.max_retry_after(300 * MS)
            })
            .bulkhead(limit, |bulkhead| {
                let bulkhead = bulkhead.queue(self.queue).queue_wait(300 * MS);
                bulkhead.overloaded_wait(100 * MS)
            })
            .seed(self.seed)
            .classify(judge as Judge);
        let config = match self.deadline {
            Some(deadline) => config.deadline(deadline),
            None => config.no_response_timeout(),
        };
        config.build().unwrap()
    }
}

/// What happens.
#[derive(Clone, Debug)]
enum Step {
    Call(Vec<End>),
    Cancel(prop::sample::Index),
    Wait(u64),
    SetLimit(usize),
    SetRate(u32),
    SetBurst(u32),
    Drain(u64),
    ForceOpen,
    ForceClosed,
    Reset,
}

struct Storm {
    terms: Terms,
    handle: Handle,
    client: Client,
    seen: Arc<Seen>,
    calls: Vec<(bool, Spawn<Call>)>,
}

impl Storm {
    fn new(terms: &Terms) -> Self {
        let layer = terms.layer();
        let handle = layer.handle();
        let seen = Arc::new(Seen::default());
        let bulkhead = handle.bulkhead().unwrap().clone();
        seen.allowed.store(bulkhead.limit(), Ordering::Relaxed);
        assert!(seen.bulkhead.set(bulkhead).is_ok());
        let inner = Inner(Arc::clone(&seen));
        let client = if terms.is_steady {
            Client::new(layer.wrap(inner))
        } else {
            Client::new(layer.wrap(ConcurrencyLimit::new(inner, terms.places)))
        };
        Self {
            terms: terms.clone(),
            handle,
            client,
            seen,
            calls: Vec::new(),
        }
    }

    async fn step(&mut self, step: Step) {
        let bulkhead = self.handle.bulkhead().unwrap();
        let (limit, breaker) = (self.handle.rate_limit(), self.handle.circuit_breaker());
        let (limit, breaker) = (limit.unwrap(), breaker.unwrap());
        let is_steady = self.terms.is_steady;
        match step {
            Step::Call(ends) => {
                let request = Request(Arc::new(Mutex::new(ends.into())));
                let mut client = self.client.clone();
                let begin = || {
                    drop(spawn(client.ready()).poll());
                    client.call(request)
                };
                if let Some(call) = unless_planned(begin) {
                    let call: Call = Box::pin(unconstrained(call));
                    self.calls.push((true, spawn(call)));
                    if is_steady {
                        // A call that has its tokens is made at once.
                        self.poll(self.calls.len() - 1);
                    }
                }
            }
            Step::Cancel(index) if !self.calls.is_empty() => {
                let place = index.index(self.calls.len());
                drop(self.calls.swap_remove(place));
            }
            Step::Wait(millis) => self.wait(millis).await,
            Step::SetLimit(new) if !is_steady => {
                let allowed = bulkhead.in_flight().max(new);
                self.seen.allowed.store(allowed, Ordering::Relaxed);
                bulkhead.set_limit(new).unwrap();
            }
            Step::SetRate(rate) if !is_steady => limit.set_rate(Rate::per_second(rate)).unwrap(),
            Step::SetBurst(burst) if !is_steady => limit.set_burst(burst).unwrap(),
            Step::Cancel(_) | Step::SetLimit(_) | Step::SetRate(_) | Step::SetBurst(_) => {}
            Step::Drain(millis) => limit.pause(Duration::from_millis(millis)),
            Step::ForceOpen => breaker.force_open(),
            Step::ForceClosed => breaker.force_closed(),
            Step::Reset => breaker.reset(),
        }
        self.seen.check();
    }

    async fn wait(&self, millis: u64) {
        advance(Duration::from_millis(millis)).await;
        yield_now().await;
    }

    /// Polls a call, which is gone if that was its end.
    fn poll(&mut self, place: usize) -> bool {
        let Some((is_new, call)) = self.calls.get_mut(place) else {
            return false;
        };
        *is_new = false;
        let polled = unless_planned(|| call.poll());
        let is_over = !matches!(polled, Some(Poll::Pending));
        if is_over {
            drop(self.calls.swap_remove(place));
        }
        self.seen.check();
        is_over
    }

    /// Polls the calls that have reason to go on, until none has.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            let has_reason = |(is_new, call): &(bool, Spawn<Call>)| *is_new || call.is_woken();
            let Some(place) = self.calls.iter().position(has_reason) else {
                return;
            };
            self.poll(place);
        }
        self.seen.fault("calls that do not come to rest".to_owned());
    }

    /// Checks that nobody waits for what is there.
    async fn assert_nobody_was_forgotten(&mut self) {
        let bulkhead = self.handle.bulkhead().unwrap();
        let is_free = bulkhead.in_flight() < bulkhead.limit();
        assert!(!is_free || bulkhead.queued() == 0, "{bulkhead:?}");
        let waits_for_nothing = |storm: &Self| {
            let limit = storm.handle.rate_limit().unwrap();
            limit.waiting() > 0 && limit.available() > 0
        };
        if waits_for_nothing(self) {
            // The timer has a millisecond.
            self.wait(2).await;
            self.settle();
            assert!(!waits_for_nothing(self), "{:?}", self.handle);
        }
    }

    /// Lets time pass until all calls have ended.
    async fn end(&mut self) {
        self.handle.circuit_breaker().unwrap().reset();
        for _ in 0..2_000 {
            self.settle();
            if self.calls.is_empty() {
                break;
            }
            self.assert_nobody_was_forgotten().await;
            self.wait(10).await;
        }
        assert_eq!(self.calls.len(), 0, "all calls end: {:?}", self.handle);
    }

    async fn assert_unharmed(mut self) {
        let (bulkhead, limit) = (self.handle.bulkhead(), self.handle.rate_limit());
        let (bulkhead, limit) = (bulkhead.unwrap().clone(), limit.unwrap().clone());
        assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (0, 0));
        assert_eq!((limit.waiting(), self.handle.budget().in_flight()), (0, 0));
        assert_eq!(self.seen.in_flight.load(Ordering::Relaxed), 0);
        let faults = self.seen.faults.lock().unwrap().clone();
        assert!(faults.is_empty(), "{faults:#?}");
        self.wait(1_000).await;
        assert_eq!(limit.available(), limit.burst());
        self.handle.circuit_breaker().unwrap().reset();
        self.step(Step::Call(Vec::new())).await;
        self.settle();
        assert!(self.calls.is_empty(), "a call passes at once");
        assert_eq!(bulkhead.in_flight(), 0);
    }

    /// Checks that in no window more calls were let through than the terms say.
    fn assert_within_the_rate(&self) {
        let starts = self.seen.starts.lock().unwrap();
        for (place, first) in starts.iter().enumerate() {
            for (number, last) in starts[place..].iter().enumerate() {
                let nanos = last.duration_since(*first).as_nanos();
                let most = nanos * u128::from(self.terms.rate) / 1_000_000_000;
                let most = u128::from(self.terms.burst) + most;
                assert!((number as u128) < most, "{place}, {number}: {most}");
            }
        }
    }
}

fn ends() -> impl Strategy<Value = Vec<End>> {
    let time = |most: u64| (1..most).prop_map(Duration::from_millis);
    let end = prop_oneof![
        4 => Just(End::Good),
        2 => Just(End::Fails),
        1 => time(500).prop_map(End::Overload),
        3 => time(400).prop_map(End::Slow),
        1 => Just(End::Hangs),
        1 => Just(End::Panics),
        1 => Just(End::PanicsInCall),
    ];
    prop::collection::vec(end, 1..6)
}

prop_compose! {
    fn terms()(
        is_steady in any::<bool>(),
        (limit, queue, places) in (1_usize..6, 0_usize..6, 1_usize..6),
        (rate, burst, max_wait) in (20_u32..=200, 1_u32..10, 20_u64..1_000),
        (timeout, deadline) in (60_u64..400, prop::option::of(400_u64..2_000)),
        seed in any::<u64>(),
    ) -> Terms {
        let deadline = deadline.map(|millis| millis.max(max_wait.max(300) + 1));
        Terms {
            is_steady,
            limit,
            queue,
            places,
            rate,
            burst,
            max_wait: Duration::from_millis(max_wait),
            timeout: Duration::from_millis(timeout),
            deadline: deadline.map(Duration::from_millis),
            seed,
        }
    }
}

/// Each with the answer to whether those that are woken by it are polled before the next one.
fn steps() -> impl Strategy<Value = Vec<(Step, bool)>> {
    let step = prop_oneof![
        12 => ends().prop_map(Step::Call),
        4 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        6 => (1_u64..60).prop_map(Step::Wait),
        1 => (100_u64..1_500).prop_map(Step::Wait),
        2 => (1_usize..6).prop_map(Step::SetLimit),
        1 => (20_u32..=200).prop_map(Step::SetRate),
        1 => (1_u32..10).prop_map(Step::SetBurst),
        1 => (1_u64..300).prop_map(Step::Drain),
        1 => Just(Step::ForceOpen),
        1 => Just(Step::ForceClosed),
        2 => Just(Step::Reset),
    ];
    prop::collection::vec((step, prop::bool::weighted(0.7)), 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_comes_limits_hold_all_calls_end_and_all_is_given_back(
        terms in terms(),
        steps in steps(),
    ) {
        quietly();
        let recorder = DebuggingRecorder::new();
        let _installed = metrics::set_default_local_recorder(&recorder);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut storm = Storm::new(&terms);
            for (step, is_polled) in steps {
                storm.step(step).await;
                if is_polled {
                    storm.settle();
                    storm.assert_nobody_was_forgotten().await;
                }
            }
            storm.end().await;
            // While the layers are still there.
            assert_levels_are_zero(&recorder.snapshotter(), "all is over");
            if terms.is_steady {
                storm.assert_within_the_rate();
            }
            storm.assert_unharmed().await;
        });
    }
}
