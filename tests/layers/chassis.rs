//! Operations and attempts: what is settled, when, and that it is once.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use crate::recorded;

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::debugging::{DebuggingRecorder, Snapshotter};
use buttress::event::EventKind;
use buttress::stack::{Standard, StandardLayer};
use buttress::{
    Availability, Backoff, BoxError, Budget, Classify, Error, ErrorKind, HedgeLayer, Jitter,
    Outcome, Pushback, Rate, Replay, bulkhead, standard,
};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use tokio::time::{Instant, advance, sleep};
use tower::{Service, ServiceExt};

const DELAY: Duration = Duration::from_millis(10);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

thread_local! {
    /// How many pieces of user code run before one panics. Negative for none.
    static TRAP: Cell<i64> = const { Cell::new(-1) };
    /// Whether the listener panicked, which ends no call.
    static WAS_LISTENER: Cell<bool> = const { Cell::new(false) };
}

/// Stands in each piece of user code. The one whose turn it is panics, and no other.
fn tread() {
    let left = TRAP.get();
    TRAP.set((left - 1).max(-1));
    assert!(left != 0, "in the code of the user");
}

/// How an attempt ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Answers(Outcome),
    Fails(Outcome),
    NotReady,
}

const GOOD: End = End::Answers(Outcome::Success);
const BAD: End = End::Answers(Outcome::Failure);
const DOWN: End = End::Fails(Outcome::Failure);

const fn overload(millis: u64) -> Outcome {
    Outcome::Overload {
        retry_after: Some(Duration::from_millis(millis)),
    }
}

#[derive(Default)]
struct Seen {
    script: Mutex<VecDeque<(u64, End)>>,
    sent: Mutex<Vec<Instant>>,
}

/// A service that follows a script: a line for each handle that is asked whether it is ready.
struct Leaf {
    seen: Arc<Seen>,
    line: Option<(u64, End)>,
    polls: u32,
}

impl Leaf {
    /// Each attempt takes so many milliseconds and ends like this; the others go well at once.
    fn new(script: &[(u64, End)]) -> Self {
        let leaf = Self {
            seen: Arc::default(),
            line: None,
            polls: 0,
        };
        leaf.follow(script);
        leaf
    }

    fn follow(&self, script: &[(u64, End)]) {
        *self.seen.script.lock().unwrap() = script.iter().copied().collect();
    }

    fn sent(&self) -> Vec<Instant> {
        self.seen.sent.lock().unwrap().clone()
    }
}

impl Clone for Leaf {
    fn clone(&self) -> Self {
        tread();
        Self {
            seen: Arc::clone(&self.seen),
            line: None,
            polls: 0,
        }
    }
}

/// An error that says how it is classified.
#[derive(Debug, thiserror::Error)]
#[error("down")]
struct Down(Outcome);

impl Service<u32> for Leaf {
    type Response = Outcome;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Outcome, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        tread();
        let line = || self.seen.script.lock().unwrap().pop_front();
        let (_, end) = *self.line.get_or_insert_with(|| line().unwrap_or((0, GOOD)));
        if let End::NotReady = end {
            self.polls += 1;
            assert!(self.polls < 20, "asked without end");
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u32) -> Self::Future {
        tread();
        self.seen.sent.lock().unwrap().push(Instant::now());
        let (takes, end) = self.line.take().unwrap();
        Box::pin(async move {
            sleep(millis(takes)).await;
            tread();
            match end {
                End::Fails(outcome) => Err(Down(outcome).into()),
                End::Answers(outcome) => Ok(outcome),
                End::NotReady => unreachable!("it is never called"),
            }
        })
    }
}

#[derive(Clone)]
struct Judge;

impl Classify<Outcome> for Judge {
    fn classify(&self, result: Result<&Outcome, &Error>) -> Outcome {
        tread();
        match result {
            Ok(outcome) => *outcome,
            Err(error) => {
                let down = error.service_error().and_then(|error| error.downcast_ref());
                down.map_or(Outcome::Failure, |down: &Down| down.0)
            }
        }
    }

    fn pushback(&self, result: Result<&Outcome, &Error>) -> Option<Pushback> {
        tread();
        match self.classify(result) {
            Outcome::Overload { retry_after } => retry_after.map(Pushback::RetryAfter),
            _ => None,
        }
    }
}

/// Copies requests by code of the user.
#[derive(Clone)]
struct ByHand;

impl Replay<u32> for ByHand {
    fn copy(&self, request: &u32) -> Option<u32> {
        tread();
        Some(*request)
    }

    fn is_idempotent(&self, _: &u32) -> bool {
        tread();
        true
    }

    fn set_attempt(&self, _: &mut u32, _: u32) {
        tread();
    }

    fn is_replayable(&self, _: &u32) -> bool {
        tread();
        true
    }

    fn abandon(&self, _: &u32) {
        tread();
    }
}

/// A stack that hedges after the delay, and does not retry.
fn hedged() -> Standard<buttress::ByClone, Judge> {
    let stack = standard("leaf").no_retry().no_circuit_breaker();
    stack.hedge(|hedge| hedge.delay(DELAY)).classify(Judge)
}

#[tokio::test(start_paused = true)]
async fn an_attempt_made_again_gets_the_slot_of_the_one_that_failed() {
    for first in [BAD, DOWN] {
        let leaf = Leaf::new(&[(1, first)]);
        let client = hedged().concurrency_limit(1).build().unwrap().wrap(leaf);
        assert_eq!(client.oneshot(1).await.unwrap(), Outcome::Success);
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_waits_for_a_slot_is_waited_for_when_the_first_attempt_fails() {
    let budget = Budget::config("leaf").reserve(100).initial(100);
    let second = millis(1_000);
    let stack = hedged().no_timeout().budget(&budget.build().unwrap());
    let stack = stack.bulkhead(2, |bulkhead| {
        let bulkhead = bulkhead.queue(5).queue_wait(second);
        bulkhead.overloaded_wait(second)
    });
    let client = stack.build().unwrap();
    let client = client.wrap(Leaf::new(&[(600, GOOD), (300, DOWN), (600, GOOD)]));
    let begun = Instant::now();
    // The third call is ahead of the copy of the second one, and gets the slot that is free after 300 ms.
    let (first, third) = (client.clone().oneshot(1), client.clone().oneshot(3));
    let (first, failing, third) = tokio::join!(first, client.oneshot(2), third);
    let all = [first, failing, third].map(Result::unwrap);
    assert_eq!(all, [Outcome::Success; 3]);
    assert!(begun.elapsed() >= millis(600));
}

#[tokio::test(start_paused = true)]
async fn a_failed_answer_holds_no_slot_while_its_copy_may_not_be_sent_yet() {
    #[derive(Clone)]
    struct Later;

    impl Classify<Outcome> for Later {
        fn classify(&self, result: Result<&Outcome, &Error>) -> Outcome {
            *result.unwrap()
        }
        fn pushback(&self, _: Result<&Outcome, &Error>) -> Option<Pushback> {
            Some(Pushback::RetryAfter(millis(100)))
        }
    }

    let bad = End::Answers(Outcome::Failure);
    let stack = hedged()
        .classify(Later)
        .concurrency_limit(1)
        .build()
        .unwrap();
    let bulkhead = stack.handle().bulkhead().unwrap().clone();
    let client = stack.wrap(Leaf::new(&[(1, bad)]));
    let call = tokio::spawn(client.oneshot(1));
    sleep(millis(50)).await;
    assert_eq!(bulkhead.in_flight(), 0);
    assert_eq!(call.await.unwrap().unwrap(), Outcome::Success);
}

#[tokio::test(start_paused = true)]
async fn a_failure_at_the_moment_when_a_further_copy_is_due_ends_the_call() {
    let busy = End::Answers(Outcome::Overload { retry_after: None });
    let leaf = Leaf::new(&[(20, busy), (0, End::NotReady), (0, End::NotReady)]);
    let hedge = HedgeLayer::config("leaf").delay(DELAY).max_hedges(2);
    let client = hedge.classify(Judge).build().unwrap().wrap(leaf);
    let mut call = tokio_test::task::spawn(client.oneshot(1));
    assert!(call.poll().is_pending());
    advance(millis(11)).await;
    assert!(
        call.poll().is_pending(),
        "with a copy for which the service is not ready"
    );
    // Both have come by now.
    advance(millis(30)).await;
    let busy = Outcome::Overload { retry_after: None };
    assert!(matches!(call.poll(), Poll::Ready(Ok(outcome)) if outcome == busy));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_repeated_at_once_although_the_next_copy_for_slowness_was_due_later() {
    let leaf = Leaf::new(&[(120, DOWN), (1, End::Answers(overload(10)))]);
    let hedge = HedgeLayer::config("leaf").delay(millis(100)).max_hedges(2);
    let client = hedge.classify(Judge).build().unwrap().wrap(leaf.clone());
    let began = Instant::now();
    assert_eq!(client.oneshot(1).await.unwrap(), Outcome::Success);
    let sent: Vec<_> = leaf.sent().iter().map(|at| *at - began).collect();
    assert_eq!(sent, [millis(0), millis(100), millis(120)]);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_hears_once_how_long_to_stay_away() {
    let rate = Rate::per_second(1_000);
    let stack = hedged()
        .unlimited()
        .rate_limit(rate, |limit| limit.burst(10));
    let stack = stack.build().unwrap();
    let busy = End::Fails(overload(100));
    let client = stack.wrap(Leaf::new(&[(100, DOWN), (0, busy)]));
    client.clone().oneshot(1).await.unwrap_err();
    // The copy was sent after 10 ms, so the pause is over after 110.
    sleep(millis(20)).await;
    client.oneshot(1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_question_whether_a_request_may_be_copied_costs_no_place_in_the_budget() {
    struct Panics;
    impl Replay<u32> for Panics {
        fn copy(&self, request: &u32) -> Option<u32> {
            Some(*request)
        }
        fn is_idempotent(&self, _: &u32) -> bool {
            panic!("in the code of the user")
        }
    }
    let budget = Budget::new("leaf");
    let hedge = HedgeLayer::config("leaf").delay(DELAY).budget(&budget);
    let mut client = hedge.replay(Panics).build().unwrap().wrap(Leaf::new(&[]));
    let called = catch_unwind(AssertUnwindSafe(|| drop(client.call(1))));
    assert!(called.is_err());
    assert_eq!(budget.in_flight(), 0);
}

/// The numbers of calls that were measured.
fn measured(snapshotter: &Snapshotter) -> [u32; 2] {
    let mut counts = [0; 2];
    for row in recorded::rows(snapshotter).filter(|row| row.metric == "buttress_calls_total") {
        counts[usize::from(row.label("stage") == Some("attempt"))] += row.value as u32;
    }
    counts
}

/// A stack with all parts: attempts wait for tokens, and for one of two slots.
fn all_parts(budget: &Budget, failures: u32) -> StandardLayer<ByHand, Judge> {
    let backoff = Backoff::constant(millis(5)).jitter(Jitter::None);
    let stack = standard("leaf")
        .retry(|retry| {
            retry
                .max_attempts(4)
                .backoff(backoff)
                .budget(budget)
                .seed(1)
        })
        .hedge(|hedge| hedge.delay(DELAY).slowdown(1_000.0).burst(100))
        .circuit_breaker(|breaker| {
            let breaker = breaker.consecutive_failures(failures);
            let breaker = breaker.open_for(millis(1_000)).open_jitter(0.0);
            breaker.on_event(|event| {
                if matches!(event.kind, EventKind::Transition(_)) {
                    WAS_LISTENER.set(WAS_LISTENER.get() || TRAP.get() == 0);
                    tread();
                }
            })
        })
        .rate_limit(Rate::per_second(1_000), |limit| {
            limit.burst(1).max_wait(millis(500))
        })
        .bulkhead(2, |bulkhead| bulkhead.queue(9).queue_wait(millis(500)))
        .budget(budget)
        .replay(ByHand)
        .classify(Judge);
    stack.build().unwrap()
}

/// Two calls, of which the second waits for tokens and for a slot, fails, is made again, and hedged. The third attempt goes
/// well.
const STORY: [(u64, End); 7] = [
    (4, GOOD),
    (2, GOOD),
    (1, DOWN),
    (50, DOWN),
    (1, BAD),
    (1, BAD),
    (1, GOOD),
];

fn assert_balanced(stack: &StandardLayer<ByHand, Judge>, budget: &Budget, case: &str) {
    let handle = stack.handle();
    let (bulkhead, limit) = (handle.bulkhead().unwrap(), handle.rate_limit().unwrap());
    let held = (bulkhead.in_flight(), bulkhead.queued(), limit.waiting());
    assert_eq!((held, budget.in_flight()), ((0, 0, 0), 0), "{case}");
}

/// Checks that nothing is held, and that calls go through.
async fn assert_unharmed(
    stack: &StandardLayer<ByHand, Judge>,
    budget: &Budget,
    leaf: &Leaf,
    case: &str,
) {
    assert_balanced(stack, budget, case);
    leaf.follow(&[]);
    // The breaker may be open.
    advance(millis(1_000)).await;
    for _ in 0..20 {
        let result = stack.wrap(leaf.clone()).oneshot(1).await;
        assert!(result.is_ok(), "{case}: {result:?}");
    }
    assert!(stack.handle().is_available(), "{case}");
    assert_balanced(stack, budget, case);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_any_code_of_the_user_leaves_the_books_balanced() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    for failures in [2, 20] {
        for trap in 0.. {
            let case = format!("open after {failures}, trap {trap}");
            let budget = Budget::config("leaf").reserve(100).initial(100);
            let budget = budget.build().unwrap();
            let (stack, leaf) = (all_parts(&budget, failures), Leaf::new(&STORY));
            let client = stack.wrap(leaf.clone());
            measured(&snapshotter);
            TRAP.set(trap);
            let mut has_panicked = false;
            let calls = [1, 2, 3].map(|request| {
                let Ok(mut client) = catch_unwind(AssertUnwindSafe(|| client.clone())) else {
                    has_panicked = true;
                    return None;
                };
                Some(tokio::spawn(async move {
                    client.ready().await?;
                    client.call(request).await
                }))
            });
            let begun = calls.iter().flatten().count() as u32;
            for call in calls.into_iter().flatten() {
                has_panicked |= call.await.is_err();
            }
            let was_sprung = TRAP.replace(-1) < 0;
            let was_listener = WAS_LISTENER.replace(false);
            assert_eq!(has_panicked || was_listener, was_sprung, "{case}");
            let [operations, attempts] = measured(&snapshotter);
            // One may have panicked before it was called.
            assert!(
                operations == begun || has_panicked && operations + 1 == begun,
                "{case}: {operations} operations instead of {begun}"
            );
            let sent = leaf.sent().len() as u32;
            assert!(
                attempts == sent || has_panicked && attempts == sent + 1,
                "{case}: {attempts} attempts instead of {sent}"
            );
            assert_unharmed(&stack, &budget, &leaf, &case).await;
            if !was_sprung {
                assert!(trap > 50, "{trap} pieces of user code");
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn operations_dropped_at_any_moment_leave_the_books_balanced() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    for failures in [2, 20] {
        for at in 0..150 {
            let case = format!("open after {failures}, dropped after {at}");
            let budget = Budget::config("leaf").reserve(100).initial(100);
            let budget = budget.build().unwrap();
            let (stack, leaf) = (all_parts(&budget, failures), Leaf::new(&STORY));
            let client = stack.wrap(leaf.clone());
            measured(&snapshotter);
            let calls = [1, 2, 3].map(|request| tokio::spawn(client.clone().oneshot(request)));
            sleep(millis(at) / 2).await;
            for call in calls {
                call.abort();
                drop(call.await);
            }
            let [operations, attempts] = measured(&snapshotter);
            assert!(operations == 3 || at == 0, "{case}");
            assert_eq!(attempts, leaf.sent().len() as u32, "{case}");
            assert_unharmed(&stack, &budget, &leaf, &case).await;
        }
    }
}

/// A recorder that is code of the user as well.
#[derive(Clone)]
struct Fragile;

impl CounterFn for Fragile {
    fn increment(&self, _: u64) {
        tread();
    }

    fn absolute(&self, _: u64) {}
}

impl GaugeFn for Fragile {
    fn increment(&self, _: f64) {}

    fn decrement(&self, _: f64) {}

    fn set(&self, _: f64) {
        tread();
    }
}

impl HistogramFn for Fragile {
    fn record(&self, _: f64) {
        tread();
    }
}

impl Recorder for Fragile {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(Self))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::new(Self))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Self))
    }
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_panics_while_a_call_is_dropped_costs_nothing() {
    let _recorder = metrics::set_default_local_recorder(&Fragile);
    for trap in 0.. {
        let budget = Budget::config("leaf").reserve(100).initial(100);
        let budget = budget.build().unwrap();
        let (stack, leaf) = (all_parts(&budget, 1), Leaf::new(&[(1, DOWN)]));
        let mut client = stack.wrap(leaf.clone());
        client.clone().oneshot(1).await.unwrap_err();
        leaf.follow(&[(5_000, GOOD), (5_000, GOOD)]);
        // It is a probe of the breaker.
        advance(millis(1_000)).await;
        let mut call = tokio_test::task::spawn(client.call(1));
        assert!(call.poll().is_pending());
        assert_eq!(stack.handle().bulkhead().unwrap().in_flight(), 1);
        advance(millis(1_000)).await;
        TRAP.set(trap);
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(call)));
        let was_sprung = TRAP.replace(-1) < 0;
        let case = format!("dropped with trap {trap}");
        assert_eq!(dropped.is_err(), was_sprung, "{case}");
        assert_unharmed(&stack, &budget, &leaf, &case).await;
        if !was_sprung {
            assert!(trap > 3, "{trap} reports");
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_panics_while_a_call_is_dropped_costs_no_slot_of_the_breaker() {
    struct Panics;
    impl bulkhead::LimitPolicy for Panics {
        fn initial(&self) -> usize {
            2
        }
        fn update(&self, sample: &bulkhead::Sample) -> usize {
            tread();
            sample.limit
        }
    }
    let stack = standard("leaf")
        .no_retry()
        .circuit_breaker(|breaker| {
            let breaker = breaker.consecutive_failures(1).max_probes(1);
            breaker
                .open_for(millis(1_000))
                .open_jitter(0.0)
                .probe_lease(millis(3_600_000))
        })
        .bulkhead(bulkhead::Limit::policy(|| Panics), |bulkhead| bulkhead)
        .classify(Judge);
    let (stack, leaf) = (stack.build().unwrap(), Leaf::new(&[(1, DOWN)]));
    let mut client = stack.wrap(leaf.clone());
    client.clone().oneshot(1).await.unwrap_err();
    advance(millis(1_000)).await;
    leaf.follow(&[(5_000, GOOD)]);
    let mut call = tokio_test::task::spawn(client.call(1));
    assert!(call.poll().is_pending());
    let refused = client.clone().oneshot(1).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::CircuitOpen);
    TRAP.set(0);
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(call)));
    TRAP.set(-1);
    assert!(dropped.is_err());
    client.oneshot(1).await.unwrap();
}

/// Is ready once, and answers after a while that it could not do its work.
#[derive(Clone)]
struct ReadyOnce(Arc<Mutex<bool>>);

impl Service<()> for ReadyOnce {
    type Response = u16;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<u16, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if std::mem::replace(&mut *self.0.lock().unwrap(), true) {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        Box::pin(async {
            sleep(millis(200)).await;
            Ok(503)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_finds_no_service_ready_ends_at_the_deadline() {
    let classify = buttress::classify_fn(|result: Result<&u16, &Error>| match result {
        Ok(503) | Err(_) => Outcome::Failure,
        Ok(_) => Outcome::Success,
    });
    let stack = standard("hang")
        .no_retry()
        .no_timeout()
        .no_circuit_breaker();
    let stack = stack.deadline(millis(5_000)).classify(classify);
    let stack = stack.hedge(|hedge| hedge.delay(millis(50)));
    let stack = stack.bulkhead(1, |limit| limit.queue(4).queue_wait(millis(4_000)));
    let client = stack.build().unwrap().wrap(ReadyOnce(Arc::default()));
    let began = Instant::now();
    let other = {
        let client = client.clone();
        async move {
            // It is in front of the copy in the queue, and goes away while it is.
            sleep(millis(10)).await;
            tokio::time::timeout(millis(1_000), client.send(())).await
        }
    };
    tokio::spawn(other);
    let ended = tokio::time::timeout(millis(60_000), client.send(())).await;
    let error = ended.expect("ends").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(began.elapsed(), millis(5_000));
}
